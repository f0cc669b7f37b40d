"""Confidence of tag sequences, against all sequences."""

import itertools
import math
from typing import Any

import numpy
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline import tagging
from spacy_mtlner.pipeline.tagging import (
    label_probabilities,
    path_confidence,
    predict_with_confidence,
)

N_TAGS = 3


def make_scores(n_tokens: int, seed: int) -> CRFScores:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_tokens, N_TAGS), (N_TAGS, N_TAGS), (N_TAGS,), (N_TAGS,)]
    scores = [torch.randn(shape, generator=generator) * 2 for shape in shapes]
    scores[1][0, 1] = -torch.inf
    return CRFScores(*scores)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_confidence_by_all_sequences(lengths: list[int], seed: int) -> None:
    scores = make_scores(sum(lengths), seed)
    expected = []
    for row in scores.emissions.split(lengths):
        totals = []
        for tags in itertools.product(range(N_TAGS), repeat=len(row)):
            if not tags:
                continue
            total = scores.start[tags[0]] + scores.end[tags[-1]]
            total = total + sum(row[i, tag] for i, tag in enumerate(tags))
            total = total + sum(scores.transitions[pair] for pair in itertools.pairwise(tags))
            totals.append(math.exp(total))
        totals.sort(reverse=True)
        expected.append((totals[0] - totals[1]) / totals[0] if totals else 1.0)
    assert path_confidence(scores, lengths) == pytest.approx(expected, abs=1e-5)


def test_confidence_where_one_sequence_is_legal() -> None:
    scores = make_scores(2, 0)
    scores.start[1:] = -torch.inf
    scores.end[:2] = -torch.inf
    assert path_confidence(scores, [2]).tolist() == [1.0]


@pytest.mark.parametrize("length", [500, 20_000])
def test_confidence_of_a_long_row_is_exact(length: int) -> None:
    """The scores of two sequences may be large, and their difference small."""
    emissions = torch.zeros(length, 2)
    emissions[:, 0] = 7.3
    emissions[length // 2, 1] = 7.29  # The second best sequence differs here.
    scores = CRFScores(emissions, torch.zeros(2, 2), torch.zeros(2), torch.zeros(2))
    gap = float(emissions[length // 2, 0].double() - emissions[length // 2, 1].double())
    assert path_confidence(scores, [length])[0] == pytest.approx(1 - math.exp(-gap), rel=1e-4)


def test_docs_without_tokens_do_not_reach_the_model() -> None:
    nlp = spacy.blank("en")
    scheme = TagScheme("BIO", ("A",))
    sizes = []

    def predict(docs):
        sizes.append([len(doc) for doc in docs])
        return make_scores(sum(sizes[-1]), 0)

    entities, confidences = predict_with_confidence([nlp("")] * 2, predict, scheme)
    assert entities == [[], []] and confidences.tolist() == [1.0, 1.0] and not sizes
    docs = [nlp("one two"), nlp(""), nlp("three")]
    entities, confidences = predict_with_confidence(docs, predict, scheme)
    assert len(entities) == 3 and confidences.shape == (3,) and sizes == [[2, 0, 1]]
    assert confidences[1] == 1.0 and numpy.all((confidences >= 0) & (confidences <= 1))
    assert predict_with_confidence([], predict, scheme)[0] == []


def legal_scores(scheme: TagScheme, n_tokens: int, seed: int) -> CRFScores:
    generator = torch.Generator().manual_seed(seed)
    n = len(scheme)
    emissions, transitions, start, end = (
        torch.randn(shape, generator=generator) for shape in [(n_tokens, n), (n, n), (n,), (n,)]
    )
    allowed = (scheme.allowed_transitions, scheme.allowed_start, scheme.allowed_end)
    masked = [
        scores.masked_fill(~torch.from_numpy(ok), -torch.inf)
        for scores, ok in zip((transitions, start, end), allowed, strict=True)
    ]
    return CRFScores(emissions, *masked)


@pytest.mark.parametrize("size", [1, 2**23])
@pytest.mark.parametrize("name", ["BIO", "BILUO"])
def test_label_probabilities_by_all_sequences(
    name: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all spans of all rows, in any order, in chunks of any size."""
    monkeypatch.setattr(tagging, "_SEGMENT_SCORES", size)
    scheme = TagScheme(name, ("A", "B"))
    lengths = [2, 0, 3, 1]
    scores = legal_scores(scheme, sum(lengths), seed=3)
    expected: dict[tuple[int, int, int], list[float]] = {
        (row, start, end): [0.0, 0.0]
        for row, length in enumerate(lengths)
        for start in range(length)
        for end in range(start + 1, length + 1)
    }
    for row, emissions in enumerate(scores.emissions.split(lengths)):
        n = len(emissions)
        if not n:
            continue
        chances = {}
        for tags in itertools.product(range(len(scheme)), repeat=n):
            total = scores.start[tags[0]] + scores.end[tags[-1]]
            total = total + sum(emissions[i, tag] for i, tag in enumerate(tags))
            total = total + sum(scores.transitions[pair] for pair in itertools.pairwise(tags))
            chances[tags] = math.exp(total)
        z = sum(chances.values())
        for tags, chance in chances.items():
            if chance:
                spans = scheme.decode(numpy.array(tags), numpy.array([n]))
                for start, end, label in zip(spans.starts, spans.ends, spans.labels, strict=True):
                    expected[row, int(start), int(end)][label] += chance / z
    table = numpy.array(list(expected))
    order = numpy.random.default_rng(0).permutation(len(table))
    found = label_probabilities(scores, lengths, table[order], scheme)
    assert found == pytest.approx(numpy.array(list(expected.values()))[order], abs=1e-5)
    assert label_probabilities(scores, lengths, table[:0], scheme).shape == (0, 2)
