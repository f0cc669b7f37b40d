"""Where the candidates of `span_ner` come from, beside spaCy's suggesters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from spacy.tokens import Doc
from thinc.api import Ops, get_current_ops
from thinc.types import Ragged

from spacy_mtlner.codecs.spans import Candidates

Suggester = Callable[..., Ragged]


@dataclass(frozen=True)
class BoundarySuggester:
    """Has a `span_ner` component learn where entities begin and end, and propose the spans of the
    best boundaries; there is nothing in it to call.

    max_length (int): The longest span, in tokens.
    per_token (float): How many spans are proposed for each token of a text.
    RAISES (ValueError): If a setting is out of its range.
    """

    max_length: int
    per_token: float

    def __post_init__(self) -> None:
        if self.max_length < 1 or not self.per_token > 0:
            raise ValueError(
                f"spacy_mtlner.boundary_suggester.v1: max_length must be at least 1 and per_token "
                f"above 0, not {self.max_length} and {self.per_token}."
            )

    def __call__(self, docs: Sequence[Doc], *, ops: Ops | None = None) -> Ragged:
        """RAISES (ValueError): Always: its spans are those of a trained model."""
        raise ValueError(
            "spacy_mtlner.boundary_suggester.v1 is trained within a span_ner component, and works "
            "there alone: spancat needs another suggester."
        )


def make_boundary_suggester(max_length: int = 32, per_token: float = 1.0) -> BoundarySuggester:
    """Registered as `spacy_mtlner.boundary_suggester.v1`.

    max_length (int): The longest span, in tokens.
    per_token (float): How many spans are proposed for each token of a text.
    RETURNS (BoundarySuggester): The suggester.
    """
    return BoundarySuggester(max_length, per_token)


def suggest_spans(suggester: Suggester, docs: Sequence[Doc], who: str) -> Candidates:
    """Have a spaCy suggester suggest spans.

    suggester (Suggester): The suggester.
    docs (Sequence[Doc]): The docs.
    who (str): The component that asks, for messages.
    RETURNS (Candidates): Its spans, over the tokens of all docs.
    RAISES (ValueError): If a span is empty or ends outside its doc.
    """
    ops = get_current_ops()
    found = suggester(list(docs), ops=ops)
    n_spans = ops.to_numpy(found.lengths)
    bounds = ops.to_numpy(found.dataXd).reshape(-1, 2).astype(numpy.int64)
    lengths = numpy.array([len(doc) for doc in docs], dtype=numpy.int64)
    if len(n_spans) != len(docs):
        raise ValueError(
            f"{who}: its suggester tells the spans of {len(n_spans)} docs instead of {len(docs)}."
        )
    starts, ends = bounds.T
    is_wrong = (starts < 0) | (ends <= starts) | (ends > numpy.repeat(lengths, n_spans))
    if is_wrong.any():
        i = int(is_wrong.argmax())
        row = int(numpy.repeat(numpy.arange(len(docs)), n_spans)[i])
        raise ValueError(
            f"{who}: its suggester suggests the span ({starts[i]}, {ends[i]}) of a doc of "
            f"{lengths[row]} tokens: {docs[row].text[:40]!r}."
        )
    offsets = numpy.repeat(numpy.cumsum(lengths) - lengths, n_spans)
    beyond = int(lengths.max(initial=0)) + 1
    # A span that is suggested twice is one candidate.
    firsts, sizes = numpy.divmod(numpy.unique((starts + offsets) * beyond + ends - starts), beyond)
    return Candidates.of_spans(firsts, sizes)
