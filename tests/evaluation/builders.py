"""Docs with entities for tests: words by their positions, as the components see them."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy

from spacy_mtlner.evaluation.analysis import DocEntities, Mention

Place = tuple[int, int]


def make_mention(words: Sequence[str], label: str, *places: Place, score: float = 1.0) -> Mention:
    """An entity over words that are joined by blanks."""
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    chars = tuple((starts[a], starts[b - 1] + len(words[b - 1])) for a, b in places)
    return Mention(
        label=label,
        key=chars,
        places=chars,
        length=sum(b - a for a, b in places),
        context=len(words),
        surface=" … ".join(" ".join(words[a:b]) for a, b in places),
        score=score,
    )


def make_doc(
    text: str,
    gold: Iterable[tuple[Any, ...]] = (),
    predicted: Iterable[tuple[Any, ...]] = (),
    probabilities: Any = None,
    number: int = 1,
) -> DocEntities:
    """A doc; gold entities are (label, *places), predicted ones (score, label, *places)."""
    words = text.split(" ")
    ends = [*accumulate(len(word) + 1 for word in words)]
    tokens = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True)]
    return DocEntities(
        number,
        text,
        numpy.array(tokens),
        [make_mention(words, label, *places) for label, *places in gold],
        [make_mention(words, label, *ps, score=score) for score, label, *ps in predicted],
        None if probabilities is None else numpy.array(probabilities, dtype=float),
    )


def make_docs() -> list[DocEntities]:
    """Docs with all kinds of errors, nested and discontinuous entities, for labels A, B, C."""
    nothing = [numpy.nan] * 4
    return [
        make_doc(
            "one two three four five six seven",
            gold=[("A", (0, 2)), ("B", (2, 3)), ("C", (3, 4), (5, 6)), ("A", (6, 7))],
            predicted=[
                (0.95, "A", (0, 2)),  # right
                (0.75, "C", (2, 3)),  # label
                (0.65, "C", (3, 6)),  # boundary
                (0.99, "B", (0, 1)),  # spurious, in an entity that is right
            ],
            probabilities=[
                [0.9, 0.05, 0, 0.05],
                [0, 0.2, 0.7, 0.1],
                [0, 0, 0, 1],
                [0.3, 0, 0, 0.7],
            ],
            number=1,
        ),
        make_doc(
            'alpha beta <b>& "gamma" $x_1$',
            gold=[("B", (0, 3)), ("A", (1, 2)), ("A", (4, 5))],
            predicted=[(0.55, "B", (0, 3)), (0.4, "B", (3, 5))],
            probabilities=[[0, 0.6, 0, 0.4], [0.8, 0.1, 0, 0.1], nothing],
            number=3,
        ),
        make_doc("nothing here", number=4, probabilities=numpy.zeros((0, 4))),
    ]


LABELS = ("A", "B", "C")
