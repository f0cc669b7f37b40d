"""Confidence of tag sequences, against all sequences."""

import itertools
import math

import numpy
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline.tagging import path_confidence, predict_with_confidence

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
