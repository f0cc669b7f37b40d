"""Losses: weights, rows without annotation, row by row equality."""

import pytest
import torch
from torch import Tensor

from spacy_mtlner.nn.crf import crf_log_likelihood
from spacy_mtlner.nn.losses import crf_loss, weighted_mean
from spacy_mtlner.nn.tagger import CRFScores

LENGTHS = [3, 0, 6, 1, 2]
N_TAGS = 4
INF = float("inf")


def make_scores() -> CRFScores:
    generator = torch.Generator().manual_seed(0)
    shapes = ((sum(LENGTHS), N_TAGS), (N_TAGS, N_TAGS), (N_TAGS,), (N_TAGS,))
    scores = [torch.randn(*s, generator=generator, dtype=torch.double) for s in shapes]
    scores[1][0, 1] = -INF
    return CRFScores(*(score.requires_grad_() for score in scores))


TAGS = torch.tensor([0, 2, 1, 1, 1, 3, 0, 0, 2, 3, 2, 2])


def row_losses(scores: CRFScores, tags: Tensor) -> Tensor:
    """-log-likelihood of each row on its own, 0 for the empty one."""
    losses = [
        -crf_log_likelihood(
            emissions[None], *scores[1:], own[None], torch.ones(1, len(own), dtype=torch.bool)
        )[0]
        if len(own)
        else emissions.new_zeros(())
        for emissions, own in zip(scores.emissions.split(LENGTHS), tags.split(LENGTHS), strict=True)
    ]
    return torch.stack(losses)


@pytest.mark.parametrize("partial", [False, True])
def test_row_by_row(partial):
    scores = make_scores()
    tags = TAGS
    if partial:
        tags = torch.nn.functional.one_hot(TAGS, N_TAGS).bool()
        tags[[0, 5, 9, 10, 11]] = True
    weights = torch.tensor([0.5, 3.0, 1.0, 2.0, 7.0], dtype=torch.double)
    annotated = torch.tensor([True, True, True, True, False])
    loss = crf_loss(scores, tags, LENGTHS, weights, annotated)
    expected = (row_losses(scores, tags)[:4] * weights[:4]).sum() / 4
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_rows_that_do_not_count():
    """Rows without annotation or weight get no gradient, whatever stands in them."""
    scores = make_scores()
    weights = torch.tensor([1.0, 1.0, 5.0, 0.0, 1.0], dtype=torch.double)
    annotated = torch.tensor([True, True, False, True, True])
    loss = crf_loss(scores, TAGS, LENGTHS, weights, annotated)
    rows = torch.autograd.grad(loss, scores.emissions)[0].split(LENGTHS)
    assert [bool(row.any()) for row in rows] == [True, False, False, False, True]
    # A row with weight 0 counts as an example, one without annotation does not.
    losses = row_losses(scores, TAGS)
    torch.testing.assert_close(loss, (losses[0] + losses[4]) / 4)


def test_nothing_annotated():
    scores = make_scores()
    n = len(LENGTHS)
    annotated = torch.zeros(n, dtype=torch.bool)
    loss = crf_loss(scores, TAGS, LENGTHS, torch.ones(n).double(), annotated)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, scores):
        assert not gradient.any()


def test_no_tokens():
    scores = make_scores()
    empty = CRFScores(scores.emissions[:0], *scores[1:])
    tags = torch.zeros(0, dtype=torch.long)
    loss = crf_loss(empty, tags, [0, 0], torch.ones(2).double(), torch.ones(2).bool())
    assert loss.item() == 0.0


def test_weighted_mean():
    losses = torch.tensor([1.0, 2.0, 5.0, 8.0])
    weights = torch.tensor([1.0, 0.5, 1.0, 0.25])
    annotated = torch.tensor([True, True, False, True])
    assert weighted_mean(losses, weights, annotated).item() == pytest.approx(4 / 3)
    assert weighted_mean(losses, weights, torch.zeros(4, dtype=torch.bool)).item() == 0.0
    assert weighted_mean(losses[:0], weights[:0], annotated[:0]).item() == 0.0
