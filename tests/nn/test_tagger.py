"""The tagging head."""

import pytest
import torch

from spacy_mtlner.nn.resize import copy_first_outputs
from spacy_mtlner.nn.tagger import Tagger

WIDTH = 3


def make_tagger(n_tags: int, rnn: str | None = None, depth: int = 1) -> Tagger:
    allowed = torch.ones(n_tags, n_tags, dtype=torch.bool)
    allowed[0, 1] = False
    start, end = torch.ones(2, n_tags, dtype=torch.bool)
    start[1] = end[0] = False
    return Tagger(
        WIDTH,
        (allowed, start, end),
        rnn=rnn,
        hidden_width=4,
        depth=depth,
    ).eval()


@pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
def test_scores(rnn):
    tagger = make_tagger(5, rnn)
    x = torch.randn(6, WIDTH)
    scores = tagger(x, [2, 0, 4])
    assert [tuple(score.shape) for score in scores] == [(6, 5), (5, 5), (5,), (5,)]
    assert scores.transitions.isinf().nonzero().tolist() == [[0, 1]]
    assert scores.start.isinf().nonzero().tolist() == [[1]]
    assert scores.end.isinf().nonzero().tolist() == [[0]]
    torch.testing.assert_close(scores.emissions[2:], tagger(x[2:], [4]).emissions)
    assert tagger(x[:0], [0, 0]).emissions.shape == (0, 5)
    if rnn is None:
        torch.testing.assert_close(scores.emissions, tagger.head.linear(x))


def test_dropout():
    tagger = make_tagger(5).train()
    x = torch.ones(50, WIDTH)
    assert len(tagger(x, [50]).emissions.unique(dim=0)) > 1
    tagger.dropout.p = 0.0
    assert len(tagger(x, [50]).emissions.unique(dim=0)) == 1


@pytest.mark.parametrize(("rnn", "depth"), [(None, 1), ("lstm", 2), ("gru", 1)])
def test_copy_first_outputs(rnn, depth):
    torch.manual_seed(0)
    old, new = make_tagger(3, rnn, depth), make_tagger(5, rnn, depth)
    x, lengths = torch.randn(7, WIDTH), [3, 4]
    before, fresh = old(x, lengths), new(x, lengths)
    copy_first_outputs(old, new)
    after = new(x, lengths)
    torch.testing.assert_close(after.emissions[:, :3], before.emissions)
    assert torch.equal(after.transitions[:3, :3], before.transitions)
    assert torch.equal(after.start[:3], before.start)
    assert torch.equal(after.end[:3], before.end)
    # The new tags keep the weights they were made with.
    assert torch.equal(after.transitions[3:], fresh.transitions[3:])
    assert torch.equal(after.transitions[:, 3:], fresh.transitions[:, 3:])
    assert torch.equal(after.start[3:], fresh.start[3:])
    if rnn is None:
        assert torch.equal(after.emissions[:, 3:], fresh.emissions[:, 3:])
    # Nothing is shared, and all weights can be trained.
    assert {p.data_ptr() for p in old.parameters()}.isdisjoint(
        p.data_ptr() for p in new.parameters()
    )
    assert all(p.requires_grad for p in new.parameters())
