"""spaCy's suggesters as a source of candidates."""

from typing import Any

import numpy
import pytest
import spacy
from spacy.pipeline.spancat import build_ngram_range_suggester
from thinc.api import get_current_ops
from thinc.types import Ragged

from spacy_mtlner.pipeline.suggesters import suggest_spans

NLP = spacy.blank("en")


def make_suggester(bounds: list[tuple[int, int]], lengths: list[int]) -> Any:
    def suggest(docs: Any, *, ops: Any = None) -> Ragged:
        table = numpy.array(bounds, dtype="int32").reshape(-1, 2)
        return Ragged(ops.asarray(table), ops.asarray(numpy.array(lengths, dtype="int32")))

    return suggest


def test_spans_are_over_the_tokens_of_all_docs() -> None:
    docs = [NLP(text) for text in ("a b", "", "c", "d e f")]
    found = suggest_spans(build_ngram_range_suggester(1, 2), docs, "x")
    places = [found.fragments(i)[0] for i in range(len(found))]
    assert sorted(places) == [
        (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5), (4, 6), (5, 6)
    ]  # fmt: skip


@pytest.mark.parametrize("bounds", [(0, 3), (1, 1), (2, 1), (-1, 1)])
def test_spans_outside_their_doc_are_an_error(bounds: tuple[int, int]) -> None:
    docs = [NLP("first"), NLP("two words")]
    suggester = make_suggester([(0, 1), bounds], [1, 1])
    with pytest.raises(ValueError, match="of a doc of 2 tokens: 'two words'"):
        suggest_spans(suggester, docs, "x")


def test_a_span_that_is_suggested_twice_is_one_candidate() -> None:
    found = suggest_spans(make_suggester([(0, 2), (1, 2), (0, 2)], [3]), [NLP("a b")], "x")
    assert [found.fragments(i) for i in range(len(found))] == [((0, 2),), ((1, 2),)]


def test_suggester_of_other_docs_is_an_error() -> None:
    with pytest.raises(ValueError, match="of 1 docs instead of 2"):
        suggest_spans(make_suggester([(0, 1)], [1]), [NLP("a"), NLP("b")], "x")


def test_no_spans() -> None:
    assert len(suggest_spans(make_suggester([], [0, 0]), [NLP("a"), NLP("")], "x")) == 0
    assert get_current_ops() is not None
