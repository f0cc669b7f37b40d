"""The CRF against all paths of small lattices, pytorch-crf and float64 recursions in log-space."""

from __future__ import annotations

from itertools import chain, product
from typing import NamedTuple

import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_mtlner.nn import crf as crf_module
from spacy_mtlner.nn.crf import (
    CRF,
    crf_decode,
    crf_decode_n_best,
    crf_log_likelihood,
    crf_log_partition,
    crf_marginals,
    crf_path_marginals,
)

INF = float("inf")
DTYPES = (torch.float32, torch.float64)


class Problem(NamedTuple):
    """Arguments that the functions have in common."""

    emissions: Tensor  # (B, L, T)
    transitions: Tensor  # (T, T)
    start: Tensor  # (T,)
    end: Tensor  # (T,)
    mask: Tensor  # (B, L)

    @property
    def lengths(self) -> list[int]:
        return self.mask.sum(1).tolist()


def assert_close(actual: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)


def make_problem(
    lengths: list[int],
    tags: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    constrained: bool = True,
    deviation: float = 1.0,
) -> Problem:
    """Draw a random problem in which staying on tag 0 is always legal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, legal: float = 1.0) -> Tensor:
        scores = torch.randn(*shape, generator=generator, dtype=dtype)
        forbidden = torch.rand(*shape, generator=generator) > legal
        forbidden[(0,) * len(shape)] = False
        return scores.masked_fill(forbidden, -INF)

    legal = 0.6 if constrained else 1.0
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    emissions = deviation * draw(*mask.shape, tags)
    transitions, start, end = (
        draw(*shape, legal=legal) for shape in ((tags, tags), (tags,), (tags,))
    )
    return Problem(emissions, transitions, start, end, mask)


def require_grad(problem: Problem) -> list[Tensor]:
    return [scores.requires_grad_() for scores in problem[:4]]


def row_paths(problem: Problem, row: int) -> tuple[Tensor, Tensor]:
    """List all paths of a row, (P, length), and their scores in float64, (P,)."""
    emissions, transitions, start, end = (x.double() for x in problem[:4])
    length = problem.lengths[row]
    paths = torch.tensor(list(product(range(len(start)), repeat=length)), dtype=torch.long)
    if not length:
        return paths.view(1, 0), emissions.new_zeros(1)
    scores = start[paths[:, 0]] + end[paths[:, -1]]
    scores = scores + emissions[row, torch.arange(length), paths].sum(1)
    return paths, scores + transitions[paths[:, :-1], paths[:, 1:]].sum(1)


def brute_log_partition(problem: Problem, allowed: Tensor | None = None) -> Tensor:
    """Sum over all (allowed) paths, as (B,)."""
    totals = []
    for row, length in enumerate(problem.lengths):
        paths, scores = row_paths(problem, row)
        if allowed is not None:
            legal = allowed[row, torch.arange(length), paths].all(1)
            scores = scores.masked_fill(~legal, -INF)
        totals.append(scores.logsumexp(0))
    return torch.stack(totals)


def log_space_partition(problem: Problem) -> Tensor:
    """Run the textbook recursion in float64, where -1e9 is as good as -inf, as (B,)."""
    emissions, transitions, start, end = (x.double().clamp(min=-1e9) for x in problem[:4])
    emitted = emissions.unbind(1)
    state = start + emitted[0]
    for emission, inside in zip(emitted[1:], problem.mask.T[1:, :, None], strict=True):
        moved = (state[..., None] + transitions).logsumexp(1) + emission
        state = torch.where(inside, moved, state)
    return (state + end).logsumexp(1)


def biluo(types: int) -> dict[str, Tensor]:
    """Constraints of the tags O, then B, I, L and U of every type."""
    prefixes, kinds = "O" + "BILU" * types, [-1] + [i // 4 for i in range(4 * types)]
    opens = torch.tensor([prefix in "BI" for prefix in prefixes])
    continues = torch.tensor([prefix in "IL" for prefix in prefixes])
    same = torch.tensor(kinds)[:, None] == torch.tensor(kinds)
    transitions = (opens[:, None] == continues) & (same | ~opens[:, None])
    return {
        "allowed_transitions": transitions,
        "allowed_start": ~continues,
        "allowed_end": ~opens,
    }


def biluo_problem(
    lengths: list[int], types: int, deviation: float, dtype: torch.dtype = torch.float32
) -> Problem:
    problem = make_problem(lengths, 4 * types + 1, 0, dtype, constrained=False, deviation=deviation)
    scores = [
        scores.masked_fill(~allowed, -INF)
        for scores, allowed in zip(problem[1:4], biluo(types).values(), strict=True)
    ]
    return Problem(problem.emissions, *scores, problem.mask)


problems = st.builds(
    make_problem,
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any),
    tags=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from(DTYPES),
    constrained=st.booleans(),
    deviation=st.sampled_from((0.0, 1.0, 100.0)),
)
exhaustive = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture
def no_exact_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the scaled recursion gives up."""

    def fail(*args: object) -> None:
        raise AssertionError("fell back to log-space")

    monkeypatch.setattr(crf_module, "_with_exact_rows", fail)


@given(problem=problems)
@exhaustive
def test_partition_and_gradients_equal_brute_force(problem: Problem) -> None:
    inputs = require_grad(problem)
    weight = torch.arange(1.0, len(problem.mask) + 1, dtype=torch.float64)
    ours, expected = crf_log_partition(*problem), brute_log_partition(problem)
    assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(ours @ weight.to(ours.dtype), inputs)
    wanted = torch.autograd.grad(expected @ weight, inputs, allow_unused=True)
    for gradient, want in zip(gradients, wanted, strict=True):
        want = torch.zeros_like(gradient) if want is None else want
        assert_close(gradient, want)


@given(problem=problems, seed=st.integers(0, 1000))
@exhaustive
def test_partial_annotation_equals_brute_force(problem: Problem, seed: int) -> None:
    inputs = require_grad(problem)
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(problem.emissions.shape, generator=generator) > 0.5
    allowed[..., 0] = True
    ours = crf_log_likelihood(*problem[:4], allowed, problem.mask)
    expected = brute_log_partition(problem, allowed) - brute_log_partition(problem)
    assert_close(ours, expected, rtol=1e-4, atol=1e-3)
    gradients = torch.autograd.grad(ours.sum(), inputs)
    wanted = torch.autograd.grad(expected.sum(), inputs, allow_unused=True)
    for gradient, want in zip(gradients, wanted, strict=True):
        want = torch.zeros_like(gradient) if want is None else want
        assert_close(gradient, want)


@given(problem=problems)
@exhaustive
def test_annotation_of_all_or_nothing(problem: Problem) -> None:
    tags = crf_decode(*problem)
    full = crf_log_likelihood(*problem[:4], tags, problem.mask)
    one_hot = torch.nn.functional.one_hot(tags, len(problem.start)).bool()
    partial = crf_log_likelihood(*problem[:4], one_hot, problem.mask)
    assert_close(partial, full)
    unknown = crf_log_likelihood(*problem[:4], torch.ones_like(one_hot), problem.mask)
    assert unknown.eq(0).all()


@given(problem=problems)
@exhaustive
def test_marginals_equal_brute_force(problem: Problem) -> None:
    expected = torch.zeros_like(problem.emissions, dtype=torch.float64)
    for row, length in enumerate(problem.lengths):
        paths, scores = row_paths(problem, row)
        one_hot = torch.nn.functional.one_hot(paths, len(problem.start)).to(scores.dtype)
        expected[row, :length] = torch.einsum("p,plt->lt", scores.softmax(0), one_hot)
    assert_close(crf_marginals(*problem), expected)


@given(problem=problems, data=st.data())
@exhaustive
def test_path_marginals_equal_brute_force(problem: Problem, data: st.DataObject) -> None:
    tag = st.integers(0, len(problem.start) - 1)
    rows, starts, segments, not_next, expected = [], [], [], [], []
    for _ in range(data.draw(st.integers(0, 4))):
        row = data.draw(st.sampled_from([r for r, length in enumerate(problem.lengths) if length]))
        start = data.draw(st.integers(0, problem.lengths[row] - 1))
        end = data.draw(st.integers(start + 1, problem.lengths[row]))
        segment = data.draw(st.lists(tag, min_size=end - start, max_size=end - start))
        excluded = data.draw(st.none() | tag)
        paths, scores = row_paths(problem, row)
        fits = (paths[:, start:end] == torch.tensor(segment)).all(1)
        if excluded is not None and end < problem.lengths[row]:
            fits &= paths[:, end] != excluded
        expected.append(scores.softmax(0)[fits].sum())
        rows.append(row)
        starts.append(start)
        segments.append(segment)
        not_next.append(-1 if excluded is None else excluded)
    marginals = crf_path_marginals(
        *problem,
        rows=torch.tensor(rows, dtype=torch.long),
        starts=torch.tensor(starts, dtype=torch.long),
        lengths=torch.tensor([len(segment) for segment in segments], dtype=torch.long),
        tags=torch.tensor(list(chain.from_iterable(segments)), dtype=torch.long),
        not_next=torch.tensor(not_next, dtype=torch.long),
    )
    assert marginals.dtype == problem.emissions.dtype
    wanted = torch.stack(expected) if expected else torch.zeros(0, dtype=marginals.dtype)
    assert_close(marginals, wanted)


@given(problem=problems, n=st.integers(1, 6))
@exhaustive
def test_best_paths_equal_brute_force(problem: Problem, n: int) -> None:
    best = crf_decode(*problem)
    paths, scores = crf_decode_n_best(*problem, n)
    for row, length in enumerate(problem.lengths):
        all_paths, all_scores = row_paths(problem, row)
        wanted = torch.cat((all_scores, all_scores.new_full((n,), -INF))).sort(descending=True)[0]
        assert_close(scores[row], wanted[:n], rtol=1e-5, atol=1e-4)
        score_of = dict(zip(map(tuple, all_paths.tolist()), all_scores, strict=True))
        found = [tuple(path[:length]) for path in paths[row].tolist()]
        legal = int((scores[row] > -INF).sum())
        assert len(set(found[:legal])) == legal
        for path, score in zip(found[:legal], scores[row], strict=False):
            assert_close(score_of[path], score, rtol=1e-5, atol=1e-4)
        viterbi = score_of[tuple(best[row, :length].tolist())]
        assert_close(viterbi, wanted[0], rtol=1e-5, atol=1e-4)
        assert not best[row, length:].any()
        assert not paths[row, :, length:].any()
        assert not paths[row, legal:].any()


@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("mask_dtype", (None, torch.bool, torch.uint8))
def test_equals_pytorch_crf(batch_first: bool, mask_dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    theirs, ours = torchcrf.CRF(7, batch_first), CRF(7, batch_first)
    ours.load_state_dict(theirs.state_dict())
    shape = (5, 9) if batch_first else (9, 5)
    emissions, tags = torch.randn(*shape, 7), torch.randint(7, shape)
    mask = None
    if mask_dtype is not None:
        mask = (torch.arange(9) < torch.tensor([9, 1, 4, 8, 2])[:, None]).to(mask_dtype)
        mask = mask if batch_first else mask.T
    their_mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask.bool()
    for reduction in ("none", "sum", "mean", "token_mean"):
        results = []
        for crf, crf_mask in ((ours, mask), (theirs, their_mask)):
            inputs = [emissions.clone().requires_grad_(), *crf.parameters()]
            loss = crf(inputs[0], tags, crf_mask, reduction=reduction)
            results.append((loss, torch.autograd.grad(loss.sum(), inputs)))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert ours.decode(emissions, mask) == theirs.decode(emissions, their_mask)
    paths, scores = ours.n_best(emissions, 3, mask)
    assert paths.shape == (5, 3, 9)
    assert scores.shape == (5, 3)
    marginals = ours.marginals(emissions, mask)
    assert marginals.shape == emissions.shape
    kept = marginals.sum(-1) if mask is None else marginals.sum(-1)[mask.bool()]
    torch.testing.assert_close(kept, torch.ones_like(kept))


def test_initialisation_and_checkpoint_equal_pytorch_crf() -> None:
    torch.manual_seed(0)
    theirs = torchcrf.CRF(5)
    torch.manual_seed(0)
    ours = CRF(5, **{name: x[:5] if x.dim() == 1 else x for name, x in biluo(1).items()})
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)


def test_forbidden_scores_are_never_used_and_get_no_gradient() -> None:
    constraints = biluo(2)
    crf = CRF(9, batch_first=True, **constraints)
    emissions = 5 * torch.randn(4, 12, 9)
    tags = torch.tensor([crf.decode(torch.randn_like(emissions))[0]] * 4)
    (-crf(emissions, tags)).backward()
    for parameter, allowed in zip(
        (crf.transitions, crf.start_transitions, crf.end_transitions),
        constraints.values(),
        strict=True,
    ):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert not parameter.grad[~allowed].any()
    for path in crf.decode(emissions):
        assert constraints["allowed_start"][path[0]]
        assert constraints["allowed_end"][path[-1]]
        assert constraints["allowed_transitions"][path[:-1], path[1:]].all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("deviation", (30.0, 200.0))
def test_huge_emissions_with_constraints_equal_float64(
    dtype: torch.dtype, deviation: float
) -> None:
    problem = biluo_problem([40, 17, 1, 33], 5, deviation, dtype)
    # One row of the batch needs no logarithms.
    problem.emissions[1] /= deviation
    inputs = require_grad(problem)
    ours, expected = crf_log_partition(*problem), log_space_partition(problem)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-4)
    gradients = torch.autograd.grad(ours.sum(), inputs)
    for gradient, want in zip(gradients, torch.autograd.grad(expected.sum(), inputs), strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-4)
    marginals = crf_marginals(*problem)
    torch.testing.assert_close(marginals, gradients[0])
    tags = crf_decode(*problem)
    assert crf_log_likelihood(*problem[:4], tags, problem.mask).isfinite().all()
    rows, starts = problem.mask.nonzero().unbind(1)
    ones = torch.ones_like(rows)
    singles = crf_path_marginals(*problem, rows, starts, ones, tags[rows, starts], -ones)
    expected_singles = marginals[rows, starts, tags[rows, starts]]
    torch.testing.assert_close(singles, expected_singles, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("low", (-60.0, -90.0, -1000.0))
def test_a_lost_tag_may_be_the_only_way(low: float) -> None:
    # Tag 1 is improbable at the first token, and the only legal tag before the second one.
    emissions = torch.tensor([[[0.0, low], [-INF, 5.0], [1.0, 2.0]]], requires_grad=True)
    transitions = torch.tensor([[0.0, -INF], [0.0, 0.0]])
    zeros, mask = torch.zeros(2), torch.ones(1, 3, dtype=torch.bool)
    log_z = crf_log_partition(emissions, transitions, zeros, zeros, mask)
    expected = low + 5 + torch.tensor([1.0, 2.0]).logsumexp(0)
    torch.testing.assert_close(log_z[0], expected)
    (gradient,) = torch.autograd.grad(log_z.sum(), emissions)
    last = torch.tensor([1.0, 2.0]).softmax(0)
    want = torch.stack((torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]), last))
    torch.testing.assert_close(gradient[0], want)


@pytest.mark.parametrize("shift", (-300.0, -50.0, 50.0, 300.0))
def test_shifted_transitions(shift: float) -> None:
    problem = make_problem([5, 3], 3, seed=1, dtype=torch.float32, constrained=False)
    shifted = problem._replace(transitions=problem.transitions + shift)
    steps = torch.tensor([4.0, 2.0])
    expected = crf_log_partition(*problem) + shift * steps
    torch.testing.assert_close(crf_log_partition(*shifted), expected, rtol=1e-5, atol=1e-3)
    assert_close(crf_marginals(*shifted), crf_marginals(*problem))
    gradients = []
    for each in (shifted, problem):
        inputs = require_grad(Problem(*(x.clone() for x in each)))
        gradients.append(torch.autograd.grad(crf_log_partition(*inputs, each.mask).sum(), inputs))
    for gradient, want in zip(*gradients, strict=True):
        assert_close(gradient, want)


@pytest.mark.usefixtures("no_exact_rows")
def test_structural_zeros_need_no_logarithms() -> None:
    problem = biluo_problem([12, 1, 0, 7], 3, deviation=3.0)
    tags = crf_decode(*problem)
    crf_log_likelihood(*problem[:4], tags, problem.mask)
    one_hot = torch.nn.functional.one_hot(tags, 13).bool()
    one_hot[:, ::2] = True
    crf_log_likelihood(*problem[:4], one_hot, problem.mask)


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_without_legal_path(dtype: torch.dtype) -> None:
    problem = make_problem([3, 2], 3, seed=0, dtype=dtype, constrained=False)
    problem.transitions[:] = -INF
    problem.emissions[1] = 0
    problem.mask[1, 1:] = False
    inputs = require_grad(problem)
    log_z = crf_log_partition(*problem)
    expected = (problem.start + problem.end).logsumexp(0)
    assert log_z[0] == -INF
    torch.testing.assert_close(log_z[1], expected)
    for gradient in torch.autograd.grad(log_z[1], inputs):
        assert gradient.isfinite().all()
    paths, scores = crf_decode_n_best(*problem, 2)
    assert scores[0].eq(-INF).all()
    assert not paths[0].any()
    assert (crf_decode(*problem) < 3).all()
    assert not crf_marginals(*problem)[0].any()


def test_not_a_number_is_not_hidden() -> None:
    problem = make_problem([3, 3], 3, seed=0)
    problem.emissions[0, 1, 1] = float("nan")
    log_z = crf_log_partition(*problem)
    assert log_z[0].isnan()
    assert log_z[1].isfinite()


def test_padding_may_hold_anything() -> None:
    problem = make_problem([2, 4], 3, seed=0)
    tags = crf_decode(*problem)
    likelihood = crf_log_likelihood(*problem[:4], tags, problem.mask)
    problem.emissions[0, 2:] = float("nan")
    tags[0, 2:] = -100
    emissions = problem.emissions.requires_grad_()
    padded = crf_log_likelihood(*problem[:4], tags, problem.mask)
    torch.testing.assert_close(padded, likelihood)
    (gradient,) = torch.autograd.grad(padded.sum(), emissions)
    assert gradient.isfinite().all()
    assert not gradient[0, 2:].any()


@pytest.mark.parametrize("shape", ((3, 0), (0, 4), (2, 5)))
def test_empty_batches(shape: tuple[int, int]) -> None:
    crf = CRF(3, batch_first=True)
    emissions = torch.randn(*shape, 3, requires_grad=True)
    tags = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    likelihood = crf(emissions, tags, mask, reduction="none")
    assert likelihood.tolist() == [0.0] * shape[0]
    assert crf(emissions, tags, mask, reduction="token_mean") == 0
    assert not torch.autograd.grad(likelihood.sum(), emissions)[0].any()
    assert crf.decode(emissions, mask) == [[]] * shape[0]
    assert not crf.marginals(emissions, mask).any()
    paths, scores = crf.n_best(emissions, 2, mask)
    assert not paths.any()
    assert scores.tolist() == [[0.0, -INF]] * shape[0]


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    problem = make_problem([30, 20], 5, seed=0, dtype=torch.float32)
    half = problem._replace(emissions=problem.emissions.to(dtype).requires_grad_())
    wide = problem._replace(emissions=half.emissions.detach().float())
    expected = crf_log_partition(*wide)
    torch.testing.assert_close(crf_log_partition(*half), expected)
    with torch.autocast("cpu", torch.bfloat16):
        log_z = crf_log_partition(*half)
    torch.testing.assert_close(log_z, expected)
    (gradient,) = torch.autograd.grad(log_z.sum(), half.emissions)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.float(), crf_marginals(*wide), rtol=1e-2, atol=1e-3)


def test_long_row_equals_float64() -> None:
    problem = biluo_problem([20_000], 2, deviation=2.0)
    double = Problem(*(x.double() for x in problem[:4]), problem.mask)
    inputs = require_grad(double)
    expected = log_space_partition(double)
    wanted = torch.autograd.grad(expected, inputs)
    single_inputs = require_grad(problem)
    log_z = crf_log_partition(*problem)
    torch.testing.assert_close(log_z.double(), expected, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(log_z, single_inputs)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), want, rtol=1e-4, atol=1e-4)
    assert crf_decode(*problem).equal(crf_decode(*double))
    # An entity is a segment O U-0 here and there: its probability is local.
    starts = torch.arange(0, 19_990, 7)
    rows, lengths = torch.zeros_like(starts), torch.full_like(starts, 2)
    segments = (rows, starts, lengths, torch.tensor([0, 4] * len(starts)), rows)
    single, exact = crf_path_marginals(*problem, *segments), crf_path_marginals(*double, *segments)
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-6)


def test_a_segment_may_be_long() -> None:
    problem = make_problem([300, 300], 3, seed=0, constrained=False)
    problem.emissions[..., 1] += 12
    tags = crf_decode(*problem)[1]
    row, length = torch.tensor([1]), torch.tensor([300])
    marginal = crf_path_marginals(*problem, row, row * 0, length, tags, -row)
    likelihood = crf_log_likelihood(*problem[:4], tags.expand(2, -1), problem.mask)
    torch.testing.assert_close(marginal[0], likelihood[1].exp())


def test_gradcheck() -> None:
    problem = make_problem([4, 0, 2], 3, seed=3)
    *inputs, mask = problem._replace(
        transitions=problem.transitions.clamp(min=-3),
        start=problem.start.clamp(min=-3),
        end=problem.end.clamp(min=-3),
    )
    tags = torch.tensor([[0, 1, 2, 1], [0, 0, 0, 0], [2, 2, 0, 0]])
    allowed = torch.rand(3, 4, 3) > 0.3
    allowed[..., 0] = True
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: crf_log_partition(*x, mask), inputs)
    assert torch.autograd.gradcheck(lambda *x: crf_log_likelihood(*x, tags, mask), inputs)
    assert torch.autograd.gradcheck(lambda *x: crf_log_likelihood(*x, allowed, mask), inputs)


@pytest.mark.parametrize("partial", (False, True))
def test_impossible_tags_raise(partial: bool) -> None:
    crf = CRF(9, batch_first=True, **biluo(2))
    tags = torch.tensor([[0, 0, 0], [0, 2, 3], [1, 3, 0]])  # O I-0 L-0 has no beginning
    annotation = torch.nn.functional.one_hot(tags, 9).bool() if partial else tags
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        crf(torch.randn(3, 3, 9), annotation)


def test_invalid_arguments_raise() -> None:
    crf = CRF(3, batch_first=True)
    emissions, tags = torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.long)
    holes = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    with pytest.raises(ValueError, match="invalid number of tags"):
        CRF(0)
    with pytest.raises(ValueError, match="allowed_start must be"):
        CRF(3, allowed_start=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="emissions must have dimension of 3"):
        crf(emissions[0], tags)
    with pytest.raises(ValueError, match="expected last dimension"):
        crf.decode(emissions[..., :2])
    with pytest.raises(ValueError, match="emissions and tags must match"):
        crf(emissions, tags[:, :3])
    with pytest.raises(ValueError, match="emissions and allowed tags must match"):
        crf(emissions, torch.ones(2, 4, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="emissions and mask must match"):
        crf(emissions, tags, holes[:, :3])
    with pytest.raises(ValueError, match="contiguous"):
        crf(emissions, tags, holes)
    with pytest.raises(ValueError, match="contiguous"):
        crf.decode(emissions, holes)
    with pytest.raises(ValueError, match="invalid reduction"):
        crf(emissions, tags, reduction="max")
