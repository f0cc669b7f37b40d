"""Pointers, spans and descriptions against loops that state their formulas."""

import math
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from spacy_mtlner.nn.pointer import (
    ADDED_FEATURES,
    PointerScores,
    PointerTagger,
    list_spans,
    prepare_spans,
    relative_shares,
    running_sums,
    span_logits,
)
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.resize import copy_first_outputs
from spacy_mtlner.nn.rnn import RNNKind

WIDTH, N_TYPES, MATCH, MAX_LENGTH, DESCRIPTION = 4, 3, 7, 5, 6
# Linear in the vectors of the tokens.
HEADS = ("starts", "ends", "span_tokens", "span_peaks", "gate_starts", "gate_ends")
TOKEN_PARTS = (*HEADS, "span_starts", "span_ends")  # These know the token's neighbours.


def make_tagger(n_types: int = N_TYPES, **settings: Any) -> PointerTagger:
    defaults: dict[str, Any] = {
        "rnn": None,
        "hidden_width": 6,
        "depth": 1,
        "match_width": MATCH,
        "max_length": MAX_LENGTH,
        "description_length": DESCRIPTION,
    }
    return PointerTagger(WIDTH, n_types, **(defaults | settings)).eval()


def randomize(tagger: PointerTagger) -> PointerTagger:
    """All weights are made random: some begin as zeros or as equal numbers."""
    with torch.no_grad():
        for parameter in tagger.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return tagger


def make_scores(n_tokens: int, max_length: int = MAX_LENGTH) -> PointerScores:
    generator = torch.Generator().manual_seed(n_tokens)
    shapes = (
        (n_tokens, N_TYPES),
        (n_tokens, N_TYPES),
        *[(n_tokens, MATCH)] * 6,
        (max_length, MATCH),
        (MATCH, MATCH),
        (MATCH,),
        (N_TYPES, MATCH),
        (n_tokens, N_TYPES + 1),
        (1,),
    )
    return PointerScores(*(torch.randn(s, generator=generator, dtype=torch.double) for s in shapes))


def ends_of_rows(lengths: list[int]) -> Tensor:
    sizes = torch.tensor(lengths)
    return sizes.cumsum(0).repeat_interleave(sizes)


# The module


@pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
@pytest.mark.parametrize("description_length", [0, DESCRIPTION])
def test_shapes(rnn: RNNKind | None, description_length: int) -> None:
    torch.manual_seed(0)
    tagger = make_tagger(rnn=rnn, description_length=description_length)
    size = 6 if rnn else WIDTH
    texts = [2, 0, 4]
    descriptions = [1, 6, 3, 2] if description_length else []
    x = torch.randn(sum(texts) + sum(descriptions), WIDTH)
    scores = tagger(x, [*texts, *descriptions])
    assert isinstance(scores, PointerScores)
    assert [tuple(score.shape) for score in scores] == [
        (6, N_TYPES),
        (6, N_TYPES),
        *[(6, MATCH)] * 6,
        (MAX_LENGTH, MATCH),
        (MATCH, MATCH),
        (MATCH,),
        (N_TYPES, MATCH),
        (6, N_TYPES + 1 if description_length else 0),
        (1,),
    ]
    assert tagger.starts.in_features == size
    # A text's scores depend on its own tokens and the descriptions alone.
    alone = tagger(x[2:], [*texts[1:], *descriptions])
    for name in (*TOKEN_PARTS, "classes"):
        torch.testing.assert_close(getattr(alone, name), getattr(scores, name)[2:])


def test_linear_heads() -> None:
    torch.manual_seed(0)
    tagger = make_tagger(description_length=0)
    x = torch.randn(5, WIDTH)
    scores = tagger(x, [2, 3])
    for name in HEADS:
        torch.testing.assert_close(getattr(scores, name), getattr(tagger, name)(x))


def test_starts_and_ends_of_spans_know_their_neighbours() -> None:
    tagger = randomize(make_tagger(description_length=0))
    x = torch.randn(6, WIDTH)
    scores = tagger(x, [2, 0, 3, 1])
    nothing = torch.zeros(WIDTH)
    before = torch.stack([nothing, x[0], nothing, x[2], x[3], nothing])
    after = torch.stack([x[1], nothing, x[3], x[4], nothing, nothing])
    expected = tagger.span_starts(x) + before @ tagger.before.weight.T
    torch.testing.assert_close(scores.span_starts, expected)
    expected = tagger.span_ends(x) + after @ tagger.after.weight.T
    torch.testing.assert_close(scores.span_ends, expected)


def test_weights_without_some_features_of_spans() -> None:
    """Without them, a span's features are those of its start, end, mean and length alone."""
    torch.manual_seed(0)
    tagger = randomize(make_tagger(description_length=0))
    state = {k: v for k, v in tagger.state_dict().items() if not k.startswith(ADDED_FEATURES)}
    old = randomize(make_tagger(description_length=0))
    old.load_state_dict(state)
    x = torch.randn(5, WIDTH)
    scores = old(x, [5])
    firsts, offsets = list_spans(torch.arange(5), torch.full((5,), 5), MAX_LENGTH)
    logits = span_logits(scores, prepare_spans(scores), firsts, offsets)
    for i, offset, row in zip(firsts.tolist(), offsets.tolist(), logits, strict=True):
        inner = x[i : i + offset + 1]
        features = tagger.span_starts(x[i]) + tagger.span_ends(x[i + offset])
        features = features + tagger.span_tokens(inner).mean(0) + tagger.span_lengths[offset]
        expected = tagger.span_types @ features.relu()
        expected = expected + tagger.starts(x[i]) + tagger.ends(inner[-1])
        torch.testing.assert_close(row, expected, atol=1e-3, rtol=0)
    logits.sum().backward()
    assert old.mix.weight.grad.any()  # What was added can be learned.
    del state["span_tokens.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*span_tokens\.bias"):
        old.load_state_dict(state)


def test_few_tokens_are_pointed_at_to_begin_with() -> None:
    torch.manual_seed(0)
    scores = make_tagger(description_length=0)(torch.zeros(3, WIDTH), [3])
    assert bool((scores.starts.sigmoid() < 0.2).all())
    assert bool((scores.ends.sigmoid() < 0.2).all())
    assert scores.balance.sigmoid().item() == 0.5


@pytest.mark.parametrize("descriptions", [[1, 6, 3, 2], [6, 6, 6, 6], [1, 1, 1, 1]])
def test_descriptions_are_weighted_by_position(descriptions: list[int]) -> None:
    torch.manual_seed(1)
    tagger = randomize(make_tagger())
    texts = [3, 0, 2]
    lengths = [*texts, *descriptions]
    x = torch.randn(sum(lengths), WIDTH)
    classes = tagger(x, lengths).classes
    assert classes.shape == (5, N_TYPES + 1)
    offsets = [0, *accumulate(lengths)]
    rows = [x[a:b] for a, b in pairwise(offsets)]
    for i, token in enumerate(x[:5]):
        for r, row in enumerate(rows[len(texts) :]):
            vector = tagger.view_bias.expand(WIDTH)
            for position, word in enumerate(row):
                vector = vector + tagger.view[position] * word
            expected = sum(a * b for a, b in zip(token, vector, strict=True)) / math.sqrt(WIDTH)
            assert classes[i, r].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_description_begins_as_a_mean() -> None:
    tagger = make_tagger()
    lengths = [1, *[DESCRIPTION] * (N_TYPES + 1)]
    x = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(0))
    means = x[1:].view(N_TYPES + 1, DESCRIPTION, WIDTH).mean(1)
    expected = x[:1] @ means.T / math.sqrt(WIDTH)
    torch.testing.assert_close(tagger(x, lengths).classes, expected)


def test_descriptions_pass_the_same_recurrent_layer() -> None:
    """A description that reads like the text has its vectors, whichever rows are beside it."""
    torch.manual_seed(0)
    tagger = randomize(make_tagger(rnn="lstm"))
    text = torch.randn(4, WIDTH)
    hidden = tagger.rnn(text, group_rows([4]))
    others = torch.randn(3 + 6 + 1, WIDTH)
    scores = tagger(torch.cat([text, text, others]), [4, 4, 3, 6, 1])
    vector = tagger.view[:4] @ hidden + tagger.view_bias
    torch.testing.assert_close(scores.classes[:, 0], hidden @ vector / math.sqrt(6))


def test_gradient_reaches_texts_and_descriptions() -> None:
    torch.manual_seed(0)
    tagger = randomize(make_tagger(rnn="gru")).double()
    lengths = [2, 1, 3, 1, 2, 2]
    x = torch.randn(sum(lengths), WIDTH, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tagger(x, lengths).classes, (x,))
    tagger(x, lengths).classes.sum().backward()
    assert bool((x.grad.abs().sum(1) > 0).all())
    assert tagger.view.grad[:3].all() and not tagger.view.grad[3:].any()


def test_empty_texts() -> None:
    tagger = make_tagger(rnn="lstm")
    scores = tagger(torch.randn(7, WIDTH), [0, 0, 2, 1, 3, 1])
    assert scores.starts.shape == (0, N_TYPES)
    assert scores.classes.shape == (0, N_TYPES + 1)
    plain = make_tagger(description_length=0)(torch.randn(0, WIDTH), [0, 0])
    assert plain.starts.shape == (0, N_TYPES)
    assert plain.classes.shape == (0, 0)


def test_dropout() -> None:
    tagger = make_tagger().train()
    lengths = [50, 1, 2, 3, 4]
    x = torch.ones(60, WIDTH)
    assert len(tagger(x, lengths).starts.unique(dim=0)) > 1
    tagger.dropout.p = 0.0
    assert len(tagger(x, lengths).starts.unique(dim=0)) == 1


@pytest.mark.parametrize("rnn", [None, "lstm"])
@pytest.mark.parametrize("description_length", [0, DESCRIPTION])
def test_copy_first_outputs(rnn: RNNKind | None, description_length: int) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"rnn": rnn, "description_length": description_length}
    old = randomize(make_tagger(2, **settings))
    new = make_tagger(4, **settings)
    lengths = [3, 2]
    x = torch.randn(5, WIDTH)
    rows = [torch.randn(length, WIDTH) for length in (2, 3, 1, 4, 6)] if description_length else []
    outside = rows[-1:]

    def score(tagger: PointerTagger, n_types: int) -> PointerScores:
        used = [*rows[:n_types], *outside]
        return tagger(torch.cat([x, *used]), [*lengths, *map(len, used)])

    fresh = score(new, 4)
    copy_first_outputs(old, new)
    before, after = score(old, 2), score(new, 4)
    for name in ("starts", "ends"):
        torch.testing.assert_close(getattr(after, name)[:, :2], getattr(before, name))
    for name in (*TOKEN_PARTS[2:], "span_lengths", "mix_weight", "mix_bias", "balance"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    assert torch.equal(after.span_types[:2], before.span_types)
    if description_length:
        torch.testing.assert_close(after.classes[:, [0, 1, 4]], before.classes)
    # The new types keep the weights they were made with.
    assert torch.equal(after.span_types[2:], fresh.span_types[2:])
    if rnn is None:
        torch.testing.assert_close(after.starts[:, 2:], fresh.starts[:, 2:])
    # Nothing is shared, and all weights can be trained.
    assert {p.data_ptr() for p in old.parameters() if p.numel()}.isdisjoint(
        p.data_ptr() for p in new.parameters() if p.numel()
    )
    assert all(p.requires_grad for p in new.parameters())


# Spans


def span_by_loop(scores: PointerScores, i: int, j: int, r: int) -> float:
    logit = scores.starts[i, r] + scores.ends[j, r]
    features = []
    for k in range(MATCH):
        inner = range(i, j + 1)
        feature = scores.span_starts[i, k] + scores.span_ends[j, k] + scores.span_lengths[j - i, k]
        feature += sum(scores.span_tokens[t, k] for t in inner) / len(inner)
        feature += max(scores.span_peaks[t, k] for t in inner)
        gate = 2 / (1 + math.exp(-scores.gate_starts[i, k] - scores.gate_ends[j, k]))
        features.append(gate * max(0.0, float(feature)))
    for k in range(MATCH):
        mixed = sum(scores.mix_weight[k, n] * features[n] for n in range(MATCH))
        second = max(0.0, float(mixed + scores.mix_bias[k]))
        logit = logit + scores.span_types[r, k] * (features[k] + second)
    return float(logit)


@pytest.mark.parametrize("max_length", [1, 2, 5, 9])
@pytest.mark.parametrize(
    ("lengths", "index"),
    [
        ([4, 0, 1, 7], None),
        ([4, 0, 1, 7], [0, 3, 4, 6, 11]),
        ([4, 0, 1, 7], [11]),
        ([4, 0, 1, 7], [6, 2, 2]),
        ([1], None),
        ([3, 3], None),
        ([0], None),
    ],
)
def test_list_spans(lengths: list[int], index: list[int] | None, max_length: int) -> None:
    row_ends = ends_of_rows(lengths)
    tokens = list(range(len(row_ends))) if index is None else index
    chosen = torch.tensor(tokens, dtype=torch.long)
    firsts, offsets = list_spans(chosen, row_ends[chosen], max_length)
    assert list(zip(firsts.tolist(), offsets.tolist(), strict=True)) == [
        (i, offset) for i in tokens for offset in range(max_length) if i + offset < row_ends[i]
    ]


@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 7, 8, 9])
def test_span_logits(max_length: int) -> None:
    scores = make_scores(9, max_length)
    spans = [(i, n) for i in range(9) for n in range(max_length) if i + n < 9]
    for chosen in (spans, [spans[-1], spans[0], spans[-1]]):
        firsts, offsets = torch.tensor(chosen).T
        logits = span_logits(scores, prepare_spans(scores), firsts, offsets)
        for (i, offset), row in zip(chosen, logits.tolist(), strict=True):
            expected = [span_by_loop(scores, i, i + offset, r) for r in range(N_TYPES)]
            assert row == pytest.approx(expected)


@pytest.mark.parametrize(("first", "behind"), [(0, 4), (3, 9), (5, 20), (8, None)])
def test_spans_of_some_tokens(first: int, behind: int | None) -> None:
    scores = make_scores(9)
    end = min(9, behind or 9)
    index = torch.arange(first, end)
    firsts, offsets = list_spans(index, torch.full_like(index, end), MAX_LENGTH)
    expected = span_logits(scores, prepare_spans(scores), firsts, offsets)
    found = span_logits(scores, prepare_spans(scores, first, behind), firsts, offsets)
    torch.testing.assert_close(found, expected)


def test_span_logits_do_not_depend_on_other_rows() -> None:
    scores = make_scores(9)
    parts = {name: getattr(scores, name) for name in TOKEN_PARTS}
    own = scores._replace(**{name: part[4:] for name, part in parts.items()})
    firsts, offsets = list_spans(torch.arange(5), torch.full((5,), 5), 3)
    alone = span_logits(own, prepare_spans(own), firsts, offsets)
    beside = span_logits(scores, prepare_spans(scores), firsts + 4, offsets)
    torch.testing.assert_close(beside, alone)


def test_span_logits_have_gradients_for_every_part() -> None:
    leaves = PointerScores(*(score.requires_grad_() for score in make_scores(4, 2)))
    firsts, offsets = list_spans(torch.arange(4), ends_of_rows([3, 1]), 2)
    span_logits(leaves, prepare_spans(leaves), firsts, offsets).sum().backward()
    for name in (*TOKEN_PARTS, "span_lengths", "mix_weight", "mix_bias", "span_types"):
        assert getattr(leaves, name).grad.abs().sum() > 0


def test_gradients_are_the_same_every_time_with_several_threads() -> None:
    """So that a training can be repeated: many spans add to the gradient of one token."""
    lengths, n_threads = [300] * 4, torch.get_num_threads()
    scores = PointerScores(*(part.float() for part in make_scores(sum(lengths))))
    leaves = [part.requires_grad_() for part in scores[:11]]
    spans = list_spans(torch.arange(sum(lengths)), ends_of_rows(lengths), MAX_LENGTH)

    def differentiate() -> tuple[Tensor, ...]:
        logits = span_logits(scores, prepare_spans(scores), *spans)
        return torch.autograd.grad((logits * logits.detach().sin()).sum(), leaves)

    torch.set_num_threads(2)
    try:
        first = differentiate()
        for _ in range(10):
            assert all(map(torch.equal, differentiate(), first))
    finally:
        torch.set_num_threads(n_threads)


def test_span_logits_of_no_tokens() -> None:
    scores = make_scores(0)
    nothing = torch.zeros(0, dtype=torch.long)
    logits = span_logits(scores, prepare_spans(scores), nothing, nothing)
    assert logits.shape == (0, N_TYPES)


def test_running_sums() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 0.0]])
    assert running_sums(values).tolist() == [[0.0, 0.0], [1.0, 2.0], [4.0, -2.0], [4.5, -2.0]]
    assert running_sums(values[:0]).tolist() == [[0.0, 0.0]]


def test_running_sums_are_exact_at_the_end_of_long_texts() -> None:
    values = torch.rand(300_000, 1, generator=torch.Generator().manual_seed(0))
    sums = running_sums(values)
    means = (sums[-1000:] - sums[-1010:-10]) / 10
    expected = values.double().unfold(0, 10, 1).mean(-1)[-1000:]
    torch.testing.assert_close(means, expected, rtol=1e-8, atol=1e-8)


# Shares


def test_relative_shares() -> None:
    classes = make_scores(9).classes
    shares = relative_shares(classes)
    assert shares.shape == (9, N_TYPES)
    for row, own in zip(classes.tolist(), shares.tolist(), strict=True):
        assert own == pytest.approx([math.exp(value - max(row)) for value in row[:-1]])
        probabilities = [math.exp(value) for value in row]
        assert own == pytest.approx([p / max(probabilities) for p in probabilities[:-1]])
    assert bool(((shares > 0) & (shares <= 1)).all())


def test_relative_shares_are_exact_far_from_zero() -> None:
    classes = torch.tensor([[500.0, 500.0, -500.0, 500.0], [-900.0, 0.0, 0.0, 90.0]])
    assert relative_shares(classes).tolist()[0] == [1.0, 1.0, 0.0]
    assert bool(relative_shares(classes).isfinite().all())


def test_equal_targets_have_a_share_of_one_each() -> None:
    classes = torch.tensor([[0.5, 0.5, 1e-9, 1e-9]]).log()
    assert relative_shares(classes).tolist()[0] == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)
