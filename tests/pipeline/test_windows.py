"""Windows."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_mtlner.entities import Entity
from spacy_mtlner.pipeline.windows import cut_doc, select_inside

VOCAB = Vocab()


def make_doc(words: list[str], sent_starts: list[bool] | None = None) -> Doc:
    return Doc(VOCAB, words=words, sent_starts=sent_starts)


@pytest.mark.parametrize(
    ("words", "size", "ends"),
    [
        ("", 3, []),
        ("a", 3, [1]),
        ("a b c", 3, [3]),
        ("a b c d", 3, [3, 4]),
        ("a . b c d e", 4, [4, 6]),  # The stop is in the first half.
        ("a b . c d e", 4, [3, 6]),
        ("a b . ! c d", 5, [4, 6]),
        ("a b c . d", 4, [4, 5]),
        ("a b 。 c d", 4, [3, 5]),
        ("a b c", 1, [1, 2, 3]),
    ],
)
def test_texts_without_sentences(words: str, size: int, ends: list[int]) -> None:
    assert cut_doc(make_doc(words.split()), size) == ends


def test_sentences_are_windows() -> None:
    words = "a b c d e f g . h".split()
    starts = [True, False, True, True, False, False, False, False, False]
    assert cut_doc(make_doc(words, starts), 9) == [2, 3, 9]
    assert cut_doc(make_doc(words, starts), 5) == [2, 3, 8, 9]
    assert cut_doc(make_doc(words, starts), 2) == [2, 3, 5, 7, 9]


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.sampled_from(["a", ".", "\n"]), max_size=30), st.integers(1, 8), st.booleans())
def test_windows_hold_all_tokens(words: list[str], size: int, has_sentences: bool) -> None:
    starts = [i == 0 or words[i - 1] == "." for i in range(len(words))] if has_sentences else None
    ends = cut_doc(make_doc(words, starts), size)
    assert (ends[-1:] == [len(words)]) == bool(words)
    sizes = [b - a for a, b in pairwise([0, *ends])]
    assert all(0 < n <= size for n in sizes)
    if starts:
        assert {i for i, start in enumerate(starts) if start} <= {0, *ends}


def test_entities_inside() -> None:
    inside = [
        Entity("A", ((0, 3),)),
        Entity("A", ((0, 1), (2, 3))),
        Entity("B", ((3, 5),)),
        Entity("B", ((5, 6),)),
    ]
    across = [Entity("A", ((2, 4),)), Entity("A", ((0, 1), (4, 5))), Entity("A", ((0, 6),))]
    mixed = [e for pair in zip(inside, across, strict=False) for e in pair]
    assert select_inside(mixed, [3, 5, 6]) == inside[:3]
    assert select_inside(inside, [3, 5, 6]) == inside
    assert select_inside([], [3]) == select_inside([], []) == []
