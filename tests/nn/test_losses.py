"""Losses: weights, rows without annotation, row by row equality."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from spacy_mtlner.nn import losses
from spacy_mtlner.nn.crf import crf_log_likelihood
from spacy_mtlner.nn.losses import (
    PointerGold,
    Seq2SeqGold,
    SpanGold,
    crf_loss,
    focal_loss,
    pointer_loss,
    seq2seq_loss,
    span_loss,
    weighted_mean,
)
from spacy_mtlner.nn.pointer import PointerScores, prepare_spans, span_logits
from spacy_mtlner.nn.seq2seq import Seq2SeqScores
from spacy_mtlner.nn.span import SpanScores
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


# Pointers

N_TYPES, MAX_LENGTH, MATCH = 2, 4, 3
NOTHING = 1e-12  # What a difference of running sums may leave.
# First token, length less one and type: nested, sharing a start or an end, of the longest length.
SPANS = [(0, 2, 0), (0, 0, 0), (1, 1, 1), (3, 3, 1), (5, 1, 1), (5, 1, 0), (9, 0, 0), (10, 1, 1)]
ROW_OF = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
TOKEN_PARTS = (
    *("starts", "ends", "span_starts", "span_ends", "span_tokens", "span_peaks"),
    *("gate_starts", "gate_ends", "classes"),
)
# Rows with different weights, one of them not annotated.
WEIGHTS = torch.tensor([0.5, 3.0, 1.0, 2.0, 7.0], dtype=torch.double)
ANNOTATED = torch.tensor([True, True, True, True, False])


def make_pointer_scores(described: bool = True, n_tokens: int = sum(LENGTHS)) -> PointerScores:
    generator = torch.Generator().manual_seed(1)
    shapes = (
        (n_tokens, N_TYPES),
        (n_tokens, N_TYPES),
        *[(n_tokens, MATCH)] * 6,
        (MAX_LENGTH, MATCH),
        (MATCH, MATCH),
        (MATCH,),
        (N_TYPES, MATCH),
        (n_tokens, (N_TYPES + 1) * described),
        (1,),
    )
    scores = [torch.randn(s, generator=generator, dtype=torch.double) for s in shapes]
    return PointerScores(*(score.requires_grad_() for score in scores))


def make_gold(
    spans: list[tuple[int, int, int]] = SPANS,
    unknown: tuple[int, ...] = (),
    n_tokens: int = sum(LENGTHS),
) -> PointerGold:
    starts, ends = torch.zeros(2, n_tokens, N_TYPES, dtype=torch.double)
    classes = torch.zeros(n_tokens, N_TYPES + 1, dtype=torch.double)
    for first, size, label in spans:
        starts[first, label] = ends[first + size, label] = 1
        classes[first : first + size + 1, label] = 1
    classes[classes.sum(1) == 0, -1] = 1
    known = torch.ones(n_tokens, dtype=torch.bool)
    known[list(unknown)] = False
    table = torch.tensor(spans, dtype=torch.long).reshape(-1, 3)
    return PointerGold(starts, ends, table, classes / classes.sum(1, keepdim=True), known)


def joint_loss(scores: PointerScores, gold: PointerGold, **settings: Any) -> Tensor:
    defaults: dict[str, Any] = {
        "lengths": LENGTHS,
        "weights": WEIGHTS,
        "annotated": ANNOTATED,
        "beta": 0.3,
        "positive_weight": 1.0,
        "contrast": 0.5,
        "match_spans": True,
    }
    return pointer_loss(scores, gold, **(defaults | settings))


def parts_by_loop(
    scores: PointerScores,
    gold: PointerGold,
    weights: Tensor,
    annotated: Tensor,
    positive_weight: float,
    match_spans: bool,
    contrast: float = 0.5,
) -> tuple[float, float]:
    """The losses of pointers and of classes, one number after the other."""

    def cross_entropy(logit: Any, is_there: Any) -> float:
        p = 1 / (1 + math.exp(-float(logit)))
        return -positive_weight * math.log(p) if is_there else -math.log(1 - p)

    scores = PointerScores(*(score.detach() for score in scores))
    prepared = prepare_spans(scores)
    n_counted = sum(n for n, counts in zip(LENGTHS, annotated.tolist(), strict=True) if counts)
    spans = set(map(tuple, gold.spans.tolist()))
    pointers = classes = 0.0
    known: dict[tuple[int, int, int], float] = {}
    for i, row in enumerate(ROW_OF):
        if not annotated[row] or not gold.known[i]:
            continue
        weight = float(weights[row]) / n_counted
        for r in range(N_TYPES):
            pointers += weight * cross_entropy(scores.starts[i, r], gold.starts[i, r])
            pointers += weight * cross_entropy(scores.ends[i, r], gold.ends[i, r])
        if scores.classes.shape[1]:
            total = math.log(sum(math.exp(float(c)) for c in scores.classes[i]))
            for share, value in zip(gold.classes[i], scores.classes[i], strict=True):
                classes -= weight * float(share) * (float(value) - total)
        for size, r in product(range(MAX_LENGTH * match_spans), range(N_TYPES)):
            j = i + size
            if j >= len(ROW_OF) or ROW_OF[j] != row or not gold.known[i : j + 1].all():
                continue
            logits = span_logits(scores, prepared, torch.tensor([i]), torch.tensor([size]))
            pointers += weight * cross_entropy(logits[0, r], (i, size, r) in spans)
            known[i, size, r] = float(logits[0, r])
    for i, size, r in known.keys() & spans:
        weight = contrast * float(weights[ROW_OF[i]]) / n_counted
        others = known.keys() - spans
        starting = [known[x] for x in others if x[0] == i and x[2] == r]
        ending = [known[x] for x in others if x[0] + x[1] == i + size and x[2] == r]
        for rivals in (starting, ending):
            pointers += weight * math.log1p(sum(math.exp(z - known[i, size, r]) for z in rivals))
    return pointers, classes


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("match_spans", [True, False])
@pytest.mark.parametrize("unknown", [(), (4, 7, 11)])
@pytest.mark.parametrize("positive_weight", [1.0, 4.0])
@pytest.mark.parametrize("contrast", [0.0, 0.7])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_pointer_loss_against_loops(
    described: bool,
    match_spans: bool,
    unknown: tuple[int, ...],
    positive_weight: float,
    contrast: float,
    beta: float,
) -> None:
    scores, gold = make_pointer_scores(described), make_gold(unknown=unknown)
    settings = {
        "positive_weight": positive_weight,
        "contrast": contrast,
        "match_spans": match_spans,
    }
    loss = joint_loss(scores, gold, beta=beta, **settings)
    pointers, classes = parts_by_loop(scores, gold, WEIGHTS, ANNOTATED, **settings)
    assert loss.shape == ()
    expected = beta * pointers + (1 - beta) * classes if described else pointers
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    gradients = torch.autograd.grad(loss, scores, allow_unused=True)
    assert all(bool(g.isfinite().all()) for g in gradients if g is not None)


@pytest.mark.parametrize("match_spans", [True, False])
def test_learned_beta_against_loops(match_spans: bool) -> None:
    scores, gold = make_pointer_scores(), make_gold()
    weights = torch.ones(len(LENGTHS)).double()
    loss = joint_loss(scores, gold, beta=None, match_spans=match_spans, weights=weights)
    pointers, classes = parts_by_loop(scores, gold, weights, ANNOTATED, 1.0, match_spans)
    beta = 1 / (1 + math.exp(-scores.balance.item()))
    expected = beta * pointers + (1 - beta) * classes - math.log(beta) - math.log(1 - beta)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("beta", [0.3, None])
@pytest.mark.parametrize("match_spans", [True, False])
def test_pointer_loss_gradients_are_those_of_differences(
    beta: float | None, match_spans: bool
) -> None:
    scores, gold = make_pointer_scores(), make_gold(unknown=(4,))

    def loss(*scores: Tensor) -> Tensor:
        return joint_loss(
            PointerScores(*scores), gold, beta=beta, match_spans=match_spans, positive_weight=2.0
        )

    assert torch.autograd.gradcheck(loss, tuple(scores))


@pytest.mark.parametrize(("chunk", "most"), [(1, 64), (4, 64), (7, 64), (1, 3)])
def test_chunks_of_spans_make_no_difference(
    chunk: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, gold = make_pointer_scores(), make_gold(unknown=(4,))
    whole = joint_loss(scores, gold, positive_weight=2.0)
    monkeypatch.setattr(losses, "SPAN_CHUNK", chunk)
    monkeypatch.setattr(losses, "MAX_CHUNKS", most)
    parts = joint_loss(scores, gold, positive_weight=2.0)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(parts, scores, allow_unused=True),
        torch.autograd.grad(whole, scores, allow_unused=True),
    )


@pytest.mark.parametrize("beta", [0.3, None])
@pytest.mark.parametrize("match_spans", [True, False])
def test_order_and_batching_of_rows_do_not_matter(beta: float | None, match_spans: bool) -> None:
    """The loss of a batch is the mean of its rows' losses by tokens, in whichever order."""
    scores, weights = make_pointer_scores(), torch.ones(len(LENGTHS)).double()
    everything = torch.ones(len(LENGTHS)).bool()
    settings = {"beta": beta, "match_spans": match_spans, "positive_weight": 3.0}

    def rows_loss(rows: list[int]) -> tuple[Tensor, list[int]]:
        tokens = [i for row in rows for i, owner in enumerate(ROW_OF) if owner == row]
        places = {token: place for place, token in enumerate(tokens)}
        spans = [(places[i], size, label) for i, size, label in SPANS if i in places]
        parts = {name: getattr(scores, name)[tokens] for name in TOKEN_PARTS}
        loss = joint_loss(
            scores._replace(**parts),
            make_gold(spans, n_tokens=len(tokens)),
            lengths=[LENGTHS[row] for row in rows],
            weights=weights[: len(rows)],
            annotated=everything[: len(rows)],
            **settings,
        )
        return loss, tokens

    whole, _ = rows_loss([0, 1, 2, 3, 4])
    shuffled, _ = rows_loss([3, 1, 4, 0, 2])
    torch.testing.assert_close(whole, shuffled)
    for one, other in zip(
        torch.autograd.grad(whole, scores, allow_unused=True, retain_graph=True),
        torch.autograd.grad(shuffled, scores, allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    parts = [rows_loss(rows) for rows in ([4, 1], [0, 3], [2])]
    total = sum(loss * len(tokens) for loss, tokens in parts) / sum(LENGTHS)
    torch.testing.assert_close(whole, torch.as_tensor(total))


def gradients_by_row(loss: Tensor, scores: PointerScores) -> list[bool]:
    """Whether a row's tokens have any gradient."""
    parts = torch.autograd.grad(loss, [getattr(scores, name) for name in TOKEN_PARTS])
    reached = (torch.cat(parts, dim=1).abs() > NOTHING).any(1)
    return [bool(row.any()) for row in reached.split(LENGTHS)]


@pytest.mark.parametrize("beta", [0.3, None])
def test_rows_that_do_not_count_teach_no_pointers(beta: float | None) -> None:
    scores = make_pointer_scores()
    weights = torch.tensor([1.0, 1.0, 5.0, 0.0, 1.0]).double()
    annotated = torch.tensor([True, True, False, True, True])
    loss = joint_loss(scores, make_gold(), beta=beta, weights=weights, annotated=annotated)
    assert gradients_by_row(loss, scores) == [True, False, False, False, True]


@pytest.mark.parametrize("beta", [0.3, 1.0, None])
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("cause", ["annotation", "weight"])
def test_a_batch_that_does_not_count_teaches_nothing(
    beta: float | None, described: bool, cause: str
) -> None:
    """The weight of the tasks is among what is learned."""
    scores = make_pointer_scores(described)
    n = len(LENGTHS)
    weights = torch.full((n,), float(cause != "weight")).double()
    annotated = torch.full((n,), cause != "annotation")
    loss = joint_loss(scores, make_gold(), beta=beta, weights=weights, annotated=annotated)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, scores, allow_unused=True):
        assert gradient is None or not gradient.any()


@pytest.mark.parametrize("beta", [0.3, None])
@pytest.mark.parametrize("match_spans", [True, False])
def test_what_is_unknown_teaches_nothing(beta: float | None, match_spans: bool) -> None:
    scores, gold = make_pointer_scores(), make_gold(unknown=(4, 7))
    settings = {"beta": beta, "match_spans": match_spans}
    loss = joint_loss(scores, gold, **settings)
    parts = [getattr(scores, name) for name in TOKEN_PARTS]
    for part in torch.autograd.grad(loss, parts, allow_unused=True):
        if part is not None:
            assert bool((part[[4, 7]].abs() < NOTHING).all())
            assert part[[3, 5, 6, 8]].any()
    # Neither its scores nor its targets matter.
    with torch.no_grad():
        for part in parts:
            part[[4, 7]] += 10.0
    gold.starts[4], gold.ends[7], gold.classes[4] = 1, 1, 0.5
    torch.testing.assert_close(joint_loss(scores, gold, **settings), loss)


def test_all_unknown_is_zero() -> None:
    scores = make_pointer_scores()
    loss = joint_loss(scores, make_gold(unknown=tuple(range(len(ROW_OF)))))
    assert loss.item() == 0.0


@pytest.mark.parametrize("match_spans", [True, False])
def test_pointer_loss_of_no_tokens(match_spans: bool) -> None:
    loss = joint_loss(
        make_pointer_scores(n_tokens=0),
        make_gold([], n_tokens=0),
        lengths=[0, 0],
        weights=torch.ones(2).double(),
        annotated=torch.ones(2).bool(),
        match_spans=match_spans,
    )
    assert loss.item() == 0.0


def test_no_gold_spans() -> None:
    scores, gold = make_pointer_scores(), make_gold([])
    pointers, classes = parts_by_loop(scores, gold, WEIGHTS, ANNOTATED, 1.0, True)
    assert joint_loss(scores, gold).item() == pytest.approx(0.3 * pointers + 0.7 * classes)
    # Without positives, their weight has no influence.
    torch.testing.assert_close(
        joint_loss(scores, gold, positive_weight=9.0), joint_loss(scores, gold)
    )


def test_spans_are_learned_only_where_they_are_matched() -> None:
    scores, gold = make_pointer_scores(), make_gold()
    names = ("span_starts", "span_ends", "span_tokens", "span_lengths", "span_types")
    parts = [getattr(scores, name) for name in names]
    loss = joint_loss(scores, gold, match_spans=False)
    assert torch.autograd.grad(loss, parts, allow_unused=True) == (None,) * 5
    loss = joint_loss(scores, gold, match_spans=True)
    assert all(bool(g.any()) for g in torch.autograd.grad(loss, parts))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("beta", [0.3, None])
def test_loss_of_extreme_scores_is_finite(sign: int, beta: float | None) -> None:
    scores = make_pointer_scores()
    with torch.no_grad():
        for score in scores:
            score *= 1e4 * sign
    loss = joint_loss(scores, make_gold(), beta=beta)
    assert bool(loss.isfinite())
    gradients = torch.autograd.grad(loss, scores, allow_unused=True)
    assert all(bool(g.isfinite().all()) for g in gradients if g is not None)


@pytest.mark.parametrize("balance", [-80.0, -12.0, 12.0, 80.0])
def test_learned_beta_is_pushed_back_from_its_ends(balance: float) -> None:
    """Descent moves the weight away from 0 and from 1."""
    scores, gold = make_pointer_scores(), make_gold()
    with torch.no_grad():
        scores.balance.fill_(balance)
    loss = joint_loss(scores, gold, beta=None)
    gradient = torch.autograd.grad(loss, scores.balance)[0].item()
    assert math.isfinite(gradient)
    assert gradient * balance > 0


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_learned_beta_converges_inside(factor: float) -> None:
    """Where one task's loss is far larger, it gets less weight, but never none."""
    scores, gold = make_pointer_scores(), make_gold()
    weights = torch.ones(len(LENGTHS)).double()
    with torch.no_grad():
        scores.classes.mul_(factor)
    optimizer = torch.optim.SGD([scores.balance], lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        joint_loss(scores, gold, beta=None, weights=weights).backward()
        optimizer.step()
    beta = scores.balance.sigmoid().item()
    pointers, classes = parts_by_loop(scores, gold, weights, ANNOTATED, 1.0, True)
    assert 0.0 < beta < 1.0
    assert (beta < 0.5) == (pointers > classes)
    # Of beta P + (1 - beta) C - log beta - log(1 - beta), the minimum.
    assert pointers - classes == pytest.approx(1 / beta - 1 / (1 - beta), rel=0.02)


# Candidate spans


def make_span_case(
    max_length: int,
) -> tuple[SpanScores, SpanGold, list[tuple[list[int], float, list[float]]]]:
    """Scores and targets of LENGTHS; each candidate's tokens, weight and target."""
    generator = torch.Generator().manual_seed(0)
    n_tokens, n_classes = sum(LENGTHS), 3
    candidates = [
        ([0, 1], 1.0, [0.0, 1.0, 0.0]),
        ([4, 6, 7], 1.0, [0.0, 0.5, 0.5]),
        ([2], 2.5, [1.0, 0.0, 0.0]),
        ([3, 4], 1.0, [1.0, 0.0, 0.0]),
        ([9], 1.0, [1.0, 0.0, 0.0]),
        ([10, 11], 4.0, [1.0, 0.0, 0.0]),
    ]
    parts = [
        torch.randn(len(candidates), n_classes, generator=generator, dtype=torch.double),
        torch.tensor([i for tokens, *_ in candidates for i in tokens]),
        torch.tensor([len(tokens) for tokens, *_ in candidates]),
        torch.tensor([weight for _, weight, _ in candidates], dtype=torch.double),
    ]
    for size in (n_tokens * bool(max_length), n_tokens * bool(max_length), max_length):
        parts.append(torch.randn(size, generator=generator, dtype=torch.double))
    known = torch.ones(n_tokens, dtype=torch.bool)
    known[5] = False
    gold = SpanGold(
        torch.tensor([target for *_, target in candidates[:2]], dtype=torch.double),
        torch.tensor([0]),
        torch.tensor([1]),
        known,
    )
    return SpanScores(*parts), gold, candidates


@pytest.mark.parametrize("max_length", [0, 1, 4])
def test_span_loss_candidate_by_candidate(max_length):
    scores, gold, candidates = make_span_case(max(2, max_length) if max_length else 0)
    weights = torch.tensor([0.5, 3.0, 1.0, 2.0, 7.0], dtype=torch.double)
    annotated = torch.tensor([True, True, True, True, False])
    rows = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
    of_row = weights * annotated / 4

    expected = torch.zeros((), dtype=torch.double)
    for logits, (tokens, weight, target) in zip(scores.logits, candidates, strict=True):
        # The gold one over the unknown token counts, other candidates over it do not.
        if target[0] and any(not gold.known[i] for i in range(tokens[0], tokens[-1] + 1)):
            continue
        loss = -(logits.log_softmax(0) * torch.tensor(target)).sum()
        expected = expected + of_row[rows[tokens[0]]] * weight * loss
    for i, row in enumerate(rows):
        for size in range(len(scores.lengths)):
            j = i + size
            if j >= len(rows) or rows[j] != row or not gold.known[i : j + 1].all():
                continue
            logit = scores.starts[i] + scores.ends[j] + scores.lengths[size]
            probability = logit.sigmoid()
            loss = -probability.log() if (i, size) == (0, 1) else -(1 - probability).log()
            expected = expected + of_row[row] * loss
    torch.testing.assert_close(span_loss(scores, gold, LENGTHS, weights, annotated), expected)


def test_candidates_over_unknown_tokens_do_not_count():
    scores, gold, _ = make_span_case(3)
    leaves = [scores.logits.requires_grad_(), scores.starts.requires_grad_()]
    known = gold.known.clone()
    known[3:5] = False
    gold = gold._replace(known=known)
    loss = span_loss(scores, gold, LENGTHS, torch.ones(5), torch.ones(5, dtype=torch.bool))
    d_logits, d_starts = torch.autograd.grad(loss, leaves)
    assert (d_logits.abs().sum(1) > 0).tolist() == [True, True, True, False, True, True]
    assert (d_starts == 0).tolist() == [3 <= i <= 5 for i in range(12)]


def test_span_loss_without_annotation_is_zero():
    scores, gold, _ = make_span_case(3)
    nothing = gold._replace(
        classes=gold.classes[:0], firsts=gold.firsts[:0], offsets=gold.offsets[:0]
    )
    loss = span_loss(scores, nothing, LENGTHS, torch.ones(5), torch.zeros(5, dtype=torch.bool))
    assert loss == 0


# The encoder-decoder's


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_focal_loss_is_the_cross_entropy_at_tau_0(alpha: float) -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(20, 3) * 5, torch.randint(3, (20,))
    expected = alpha * torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(focal_loss(logits, classes, alpha, 0.0), expected)
    # And nearly so near it.
    torch.testing.assert_close(
        focal_loss(logits, classes, alpha, 1e-6), expected, rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_focal_loss_against_its_formula(tau: float) -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(20, 3), torch.randint(3, (20,))
    p = logits.softmax(1)[torch.arange(20), classes]
    torch.testing.assert_close(focal_loss(logits, classes, 5.0, tau), -5 * (1 - p) ** tau * p.log())


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_is_finite_at_its_ends(tau: float) -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), 1.0, tau)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.0, 100.0])
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_seq2seq_loss_by_hand() -> None:
    torch.manual_seed(0)
    nothing = torch.zeros(0)
    scores = Seq2SeqScores(torch.randn(3, 4), torch.randn(5, 3 + 2), nothing, nothing)
    allowed = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]).bool()
    gold = Seq2SeqGold(
        torch.tensor([3, 2, 0]),
        allowed,
        torch.tensor([0.5, 1.0, 0.25]),
        torch.tensor([0, 1, 2, 0, 1]),
        torch.tensor([1.0, 0.5, 1.0, 0.0, 0.25]),
        torch.tensor([1, 4]),
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
    )
    expected = 0.0
    for row, symbol, can, weight in zip(*scores[:1], *gold[:3], strict=True):
        expected -= float(weight * (row[symbol].exp() / row[can].exp().sum()).log())
    generation = expected
    for i in range(5):
        p = scores.cells[i, :3].softmax(0)[gold.classes[i]]
        expected += 0.3 * float(gold.cell_weights[i] * -2 * (1 - p) * p.log())
    for cell, types in zip(gold.pairs, gold.types, strict=True):
        p = scores.cells[cell, 3:].sigmoid()
        losses = -(types * p.log() + (1 - types) * (1 - p).log())
        expected += 0.3 * float(gold.cell_weights[cell] * losses.sum())
    settings = {"alpha": 2.0, "tau": 1.0}
    found = seq2seq_loss(scores, gold, relation_weight=0.3, **settings)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    alone = seq2seq_loss(scores, gold, relation_weight=0.0, **settings)
    assert float(alone) == pytest.approx(generation, rel=1e-5)


def test_seq2seq_loss_has_no_gradient_where_nothing_is_to_learn() -> None:
    """What is not allowed, and what has no weight."""
    steps = torch.randn(2, 3, requires_grad=True)
    nothing = torch.zeros(0)
    gold = Seq2SeqGold(
        torch.tensor([0, 1]),
        torch.tensor([[True, False, True], [True, True, True]]),
        torch.tensor([1.0, 0.0]),
        *(torch.zeros(0, dtype=torch.int64),) * 4,
    )
    scores = Seq2SeqScores(steps, torch.zeros(0, 5), nothing, nothing)
    seq2seq_loss(scores, gold, relation_weight=0.3, alpha=5.0, tau=1.0).backward()
    assert steps.grad is not None
    assert (steps.grad != 0).tolist() == [[True, False, True], [False] * 3]
