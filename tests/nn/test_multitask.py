"""Taggers of several tasks: who runs on what, and what feeds what."""

import pytest
import torch

from spacy_mtlner.nn.multitask import MultiTaskScores, MultiTaskTagger
from spacy_mtlner.nn.resize import copy_first_outputs

WIDTH = 6
LENGTHS = [3, 0, 5, 1]
N_TAGS = (4, 3, 2)


def make_tagger(n_tags=N_TAGS, fusion="attention", rnn="lstm", **settings) -> MultiTaskTagger:
    torch.manual_seed(0)
    constraints = [
        (torch.ones(n, n, dtype=torch.bool), *torch.ones(2, n, dtype=torch.bool)) for n in n_tags
    ]
    defaults = {"hidden_width": 8, "depth": 1, "n_heads": 2, "window": 16}
    return MultiTaskTagger(
        WIDTH, constraints, rnn=rnn, fusion=fusion, **{**defaults, **settings}
    ).eval()


def make_wanted(*rows: str) -> torch.Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


@pytest.mark.parametrize("fusion", ["attention", "none"])
@pytest.mark.parametrize("rnn", [None, "gru"])
def test_each_row_is_scored_for_its_tasks(fusion, rnn):
    """Alone or beside other rows and tasks, a row's scores for a task are the same."""
    tagger = make_tagger(fusion=fusion, rnn=rnn)
    x = torch.randn(sum(LENGTHS), WIDTH)
    wanted = make_wanted("x..x", "xxx.", "..x.")
    scores = tagger(x, LENGTHS, wanted)
    assert isinstance(scores, MultiTaskScores)
    rows = x.split(LENGTHS)
    for task, n_tags in enumerate(N_TAGS):
        alone = []
        for row, is_wanted in zip(rows, wanted[task].tolist(), strict=True):
            if is_wanted:
                only = torch.zeros(len(N_TAGS), 1, dtype=torch.bool)
                only[task] = True
                alone.append(tagger(row, [len(row)], only).of_task(task).emissions)
        task_scores = scores.of_task(task)
        torch.testing.assert_close(task_scores.emissions, torch.cat(alone))
        assert task_scores.transitions.shape == (n_tags, n_tags)
        assert task_scores.start.shape == task_scores.end.shape == (n_tags,)


@pytest.mark.parametrize("fusion", ["attention", "none"])
def test_a_task_without_rows_does_not_run(fusion):
    tagger = make_tagger(fusion=fusion)
    runs = []
    for name in ("heads", "rnns"):
        for task, module in enumerate(getattr(tagger, name)):
            module.register_forward_hook(lambda *_, name=name, task=task: runs.append((name, task)))
    x = torch.randn(sum(LENGTHS), WIDTH)
    scores = tagger(x, LENGTHS, make_wanted("xxxx", "....", "...."))
    assert [len(scores.of_task(task).emissions) for task in range(3)] == [9, 0, 0]
    feeding = [("rnns", 1), ("rnns", 2)] if fusion == "attention" else []
    assert runs == [*feeding, ("rnns", 0), ("heads", 0)]
    runs.clear()
    scores = tagger(x, LENGTHS, make_wanted("....", "x.x.", "...."))
    assert [len(scores.of_task(task).emissions) for task in range(3)] == [0, 8, 0]
    assert runs == [("rnns", 1), ("heads", 1)]


@pytest.mark.parametrize("fusion", ["attention", "none"])
def test_gradients_stay_with_the_task(fusion):
    """A sentence of one task leaves the other tasks' fully connected layers and CRFs alone; one of
    the main task trains the auxiliary recurrent layers only through the fusion.
    """
    tagger = make_tagger(n_tags=(4, 3), fusion=fusion)
    for task in (0, 1):
        tagger.zero_grad()
        x = torch.randn(sum(LENGTHS), WIDTH, requires_grad=True)
        wanted = make_wanted("xxxx", "....") if task == 0 else make_wanted("....", "xxxx")
        scores = tagger(x, LENGTHS, wanted).of_task(task)
        (scores.emissions.square().sum() + scores.transitions.square().sum()).backward()
        assert x.grad.abs().sum(1).min() > 0  # The encoder gets both.
        assert all(p.grad is None for p in tagger.heads[1 - task].parameters())
        assert tagger.heads[task].linear.weight.grad.abs().sum() > 0
        assert tagger.heads[task].crf.transitions.grad.abs().sum() > 0
        trained = [any(p.grad is not None for p in rnn.parameters()) for rnn in tagger.rnns]
        assert trained == [task == 0, task == 1 or fusion == "attention"]


def test_fusion_reaches_as_far_as_the_window():
    """With no recurrent layer, a token is heard by those at most `window` tokens away."""
    tagger = make_tagger(n_tags=(4, 3), rnn=None, window=2)
    x = torch.randn(9, WIDTH)
    changed = x.clone()
    changed[4] += 1
    wanted = make_wanted("x", ".")
    before, after = (tagger(v, [9], wanted).of_task(0).emissions for v in (x, changed))
    heard = (before - after).abs().sum(1) > 1e-6
    assert heard.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    aside = make_tagger(n_tags=(4, 3), rnn=None, fusion="none")
    before, after = (aside(v, [9], wanted).of_task(0).emissions for v in (x, changed))
    assert ((before - after).abs().sum(1) > 1e-6).nonzero().flatten().tolist() == [4]


def test_copy_first_outputs():
    old, new = make_tagger(n_tags=(4, 3)), make_tagger(n_tags=(4, 5))
    copy_first_outputs(old, new)
    x, wanted = torch.randn(9, WIDTH), make_wanted("xxxx", "xxxx")
    before, after = old(x, LENGTHS, wanted), new(x, LENGTHS, wanted)
    torch.testing.assert_close(after.of_task(0).emissions, before.of_task(0).emissions)
    torch.testing.assert_close(after.of_task(1).emissions[:, :3], before.of_task(1).emissions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "sum"}, "Unknown fusion 'sum'"),
        ({"n_heads": 3}, "multiple of n_heads"),
        ({"n_heads": 0}, "multiple of n_heads"),
        ({"n_heads": -4}, "multiple of n_heads"),
        ({"window": 0}, "window of at least 1"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        make_tagger(**settings)


def test_no_tokens_at_all():
    tagger = make_tagger()
    scores = tagger(torch.zeros(0, WIDTH), [0, 0], make_wanted("xx", "x.", ".."))
    assert [len(scores.of_task(task).emissions) for task in range(3)] == [0, 0, 0]
