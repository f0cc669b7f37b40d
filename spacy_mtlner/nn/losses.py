"""The components' losses: pure functions of scores, targets and the examples' weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    embedding,  # Faster than an index, and its gradient deterministic.
    log_softmax,
    logsigmoid,
    softplus,
)
from torch.utils.checkpoint import checkpoint

from spacy_mtlner.codecs.relations import N_RELATIONS
from spacy_mtlner.nn.crf import crf_log_likelihood
from spacy_mtlner.nn.pointer import (
    PointerScores,
    list_spans,
    prepare_spans,
    span_logits,
)
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.span import SpanScores
from spacy_mtlner.nn.tagger import CRFScores

if TYPE_CHECKING:  # It imports transformers' models, which takes seconds.
    from spacy_mtlner.nn.seq2seq import Seq2SeqScores

SPAN_CHUNK = 256  # Tokens whose spans are learned at once: what the gradient needs takes memory.
MAX_CHUNKS = 64  # Of a batch: the gradient of each is added to that of all tokens.
NO_RIVAL = -1e4  # Instead of minus infinity, of which gradients are no numbers.


def weighted_mean(losses: Tensor, weights: Tensor, annotated: Tensor) -> Tensor:
    """Sum of w_i l_i over the number of annotated examples; 0 if there is none.

    losses (Tensor): Loss of each example, shape (n_examples,).
    weights (Tensor): Weight of each example, shape (n_examples,).
    annotated (Tensor): Whether an example is annotated for the task, shape (n_examples,), bool.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    return (losses * weights * annotated).sum() / annotated.sum().clamp(min=1)


def crf_loss(
    scores: CRFScores, tags: Tensor, lengths: Sequence[int], weights: Tensor, annotated: Tensor
) -> Tensor:
    """Negative log-likelihood of the gold tags of a batch of rows.

    scores (CRFScores): The scores.
    tags (Tensor): Gold tags of all tokens, shape (n_tokens,), int64; or the tags that are possible
        at each token, shape (n_tokens, n_tags), bool, where some are unknown.
    lengths (Sequence[int]): The rows' lengths.
    weights (Tensor): Weight of each row, shape (n_rows,).
    annotated (Tensor): Whether a row is annotated for the task, shape (n_rows,), bool.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    losses = scores.emissions.new_zeros(len(lengths))
    for group in group_rows(lengths, scores.emissions.device):
        log_likelihood = crf_log_likelihood(
            scores.emissions[group.index],  # (rows, length, n_tags)
            scores.transitions,
            scores.start,
            scores.end,
            tags[group.index],  # (rows, length) or (rows, length, n_tags)
            group.mask,
        )
        losses = losses.index_copy(0, group.rows, -log_likelihood)
    return weighted_mean(losses, weights, annotated)


class PointerGold(NamedTuple):
    """Targets of the pointers and of the classification, of a batch whose tokens follow each other.

    starts (Tensor): Whether an entity of a type begins at a token, shape (n_tokens, n_types).
    ends (Tensor): Whether one ends with a token, shape (n_tokens, n_types).
    spans (Tensor): First token, length less 1 and type of each entity, shape (n_spans, 3), int64.
    classes (Tensor): A token's shares in the types and in "O", shape (n_tokens, n_types + 1).
    known (Tensor): Whether a token's annotation is known, shape (n_tokens,), bool.
    """

    starts: Tensor
    ends: Tensor
    spans: Tensor
    classes: Tensor
    known: Tensor


def pointer_loss(
    scores: PointerScores,
    gold: PointerGold,
    lengths: Sequence[int],
    weights: Tensor,
    annotated: Tensor,
    *,
    beta: float | None,
    positive_weight: float,
    contrast: float,
    match_spans: bool,
) -> Tensor:
    """Joint loss of pointers and classification: beta L_pointers + (1 - beta) L_classes (eq. 15).

    L_pointers is the binary cross-entropy of starts and ends (eq. 13, with the negative part of
    the cross-entropy, which the paper leaves out), and of spans where they are matched; L_classes
    the cross-entropy of a token's shares (eq. 14, where the paper swaps prediction and target).
    Both are sums over types, per token of the annotated examples.

    Where spans are matched, contrast times log(1 + sum_n exp(z_n - z)) is added for each entity of
    logit z, where n are the spans of its type that are none and begin where it begins, and the same
    for those that end where it ends.

    Where beta is learned, -log beta - log(1 - beta) is added: without it, all weight would go to
    the task of the smaller loss.

    scores (PointerScores): The scores.
    gold (PointerGold): The targets.
    lengths (Sequence[int]): The rows' lengths.
    weights (Tensor): Weight of each row, shape (n_rows,).
    annotated (Tensor): Whether a row is annotated for the task, shape (n_rows,), bool.
    beta (Optional[float]): The weight of the pointers; None to learn it.
    positive_weight (float): Weight of starts, ends and spans that are there, relative to others.
    contrast (float): Weight of the contrast between entities and spans beside them.
    match_spans (bool): Whether spans are scored.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    device = scores.starts.device
    sizes = torch.tensor(lengths, device=device)
    row_weights = weights * annotated / (sizes * annotated).sum().clamp(min=1)
    token_weights = row_weights.repeat_interleave(sizes) * gold.known  # (n_tokens,)
    cross_entropy = partial(
        binary_cross_entropy_with_logits,
        reduction="none",
        pos_weight=scores.starts.new_tensor(positive_weight),
    )
    losses = cross_entropy(scores.starts, gold.starts) + cross_entropy(scores.ends, gold.ends)
    pointers = token_weights @ losses.sum(1)
    if match_spans:
        row_ends = sizes.cumsum(0).repeat_interleave(sizes)
        matched, rivalry = _span_losses(scores, gold, row_ends, token_weights, cross_entropy)
        pointers = pointers + matched + contrast * rivalry
    if scores.classes.shape[1] == 0:
        return pointers
    losses = -(log_softmax(scores.classes, dim=1) * gold.classes).sum(1)
    classes = (losses * token_weights).sum()
    if beta is not None:
        return beta * pointers + (1 - beta) * classes
    learned = scores.balance.sigmoid().squeeze()
    barrier = (logsigmoid(scores.balance) + logsigmoid(-scores.balance)).squeeze()
    # By how much the batch counts: one that teaches nothing must not move beta either.
    return learned * pointers + (1 - learned) * classes - token_weights.sum() * barrier


def _span_losses(
    scores: PointerScores,
    gold: PointerGold,
    row_ends: Tensor,
    token_weights: Tensor,
    cross_entropy: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Sums of all spans' losses and of the entities' contrasts, each with the weight of its first
    token.
    """
    # A span over a token of which nothing is known may be an entity or not.
    n_unknown = torch.cat([row_ends.new_zeros(1), (~gold.known).cumsum(0)])
    n_tokens, longest = len(row_ends), len(scores.span_lengths)
    entities = gold.spans[gold.spans[:, 0].argsort(stable=True)]
    step = max(SPAN_CHUNK, n_tokens // MAX_CHUNKS)

    def score_chunk(start: int, *parts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the spans that begin in a chunk: their loss, the logits of the entities, and the
        strength of the others at their first tokens and at their last ones.
        """
        scores = PointerScores(*parts)
        behind = min(start + step, n_tokens)
        index = torch.arange(start, behind, device=row_ends.device)
        firsts, offsets = list_spans(index, row_ends[index], longest)
        prepared = prepare_spans(scores, start, behind)
        logits = span_logits(scores, prepared, firsts, offsets)  # (n_spans, n_types)
        targets = torch.zeros_like(logits)
        is_here = (entities[:, 0] >= start) & (entities[:, 0] < behind)
        first, offset, label = entities[is_here].T.contiguous()
        places = torch.searchsorted(firsts, first) + offset
        targets[places, label] = 1
        is_known = n_unknown[firsts + offsets + 1] == n_unknown[firsts]
        loss = (token_weights[firsts] * is_known) @ cross_entropy(logits, targets).sum(1)
        others = logits.masked_fill((targets > 0) | ~is_known[:, None], NO_RIVAL)
        at_starts = _logsumexp_by(firsts - start, others, len(index))
        at_ends = _logsumexp_by(firsts + offsets - start, others, len(index) + longest - 1)
        return loss, logits[places, label], at_starts, at_ends

    starts = range(0, max(1, n_tokens), step)
    if len(starts) == 1:
        chunks = [score_chunk(0, *scores)]
    else:
        # The features of all spans would take up to 90 kB a token: they are made anew for the
        # gradient.
        chunks = [checkpoint(score_chunk, i, *scores, use_reentrant=False) for i in starts]
    losses, chunk_logits, at_starts, at_ends = zip(*chunks, strict=True)
    logits = torch.cat(chunk_logits)
    # Spans of several chunks may end with the same token.
    ends = [
        torch.arange(i, i + len(x), device=x.device) for i, x in zip(starts, at_ends, strict=True)
    ]
    at_end = _logsumexp_by(torch.cat(ends), torch.cat(at_ends), n_tokens + longest)
    first, offset, label = entities.T
    weights = token_weights[first] * (n_unknown[first + offset + 1] == n_unknown[first])
    rivalry = logits.new_zeros(())
    for strengths, token in ((torch.cat(at_starts), first), (at_end, first + offset)):
        rivals = embedding(token * strengths.shape[1] + label, strengths.reshape(-1, 1))[:, 0]
        rivalry = rivalry + weights @ softplus(rivals - logits)
    return torch.stack(losses).sum(), rivalry


def _logsumexp_by(keys: Tensor, values: Tensor, n_keys: int) -> Tensor:
    """log(sum exp) of the values of each key, by column; where there are none, `NO_RIVAL`.

    keys (Tensor): Key of each row, shape (n,), int64.
    values (Tensor): Values, shape (n, n_columns).
    n_keys (int): The number of keys.
    RETURNS (Tensor): Shape (n_keys, n_columns).
    """
    columns = keys[:, None].expand_as(values)
    largest = values.new_full((n_keys, values.shape[1]), NO_RIVAL)
    largest = largest.scatter_reduce(0, columns, values.detach(), "amax")
    sums = torch.zeros_like(largest).index_add(0, keys, (values - largest[keys]).exp())
    return largest + sums.clamp(min=1).log()  # Where there are values, it is at least 1.


class SpanGold(NamedTuple):
    """Targets of a batch's candidates, whose first ones are the gold entities.

    classes (Tensor): Shares of the gold entities in the classes, shape (n_gold, n_classes).
    firsts (Tensor): First token of each contiguous one, shape (n_spans,), int64.
    offsets (Tensor): Its length, less 1, of the same shape.
    known (Tensor): Whether a token's annotation is known, shape (n_tokens,), bool.
    """

    classes: Tensor
    firsts: Tensor
    offsets: Tensor
    known: Tensor


def span_loss(
    scores: SpanScores,
    gold: SpanGold,
    lengths: Sequence[int],
    weights: Tensor,
    annotated: Tensor,
) -> Tensor:
    """Cross-entropy of the candidates' classes and, where boundaries are learned, the binary
    cross-entropy of all spans that may be proposed.

    A candidate beyond the gold ones is of class 0, no entity. One over a token of which nothing is
    known may be an entity or not: it does not count.

    scores (SpanScores): The scores.
    gold (SpanGold): The targets.
    lengths (Sequence[int]): The rows' lengths.
    weights (Tensor): Weight of each row, shape (n_rows,).
    annotated (Tensor): Whether a row is annotated for the task, shape (n_rows,), bool.
    RETURNS (Tensor): The batch's loss, a scalar: its sum over the number of annotated rows.
    """
    device = scores.logits.device
    sizes = torch.tensor(lengths, device=device)
    row_weights = weights * annotated / annotated.sum().clamp(min=1)
    token_weights = row_weights.repeat_interleave(sizes)  # (n_tokens,)
    n_unknown = torch.cat([sizes.new_zeros(1), (~gold.known).cumsum(0)])

    targets = torch.zeros_like(scores.logits)
    targets[:, 0] = 1
    targets[: len(gold.classes)] = gold.classes
    offsets = scores.sizes.cumsum(0) - scores.sizes
    firsts, lasts = scores.tokens[offsets], scores.tokens[offsets + scores.sizes - 1]
    is_known = n_unknown[lasts + 1] == n_unknown[firsts]
    is_known[: len(gold.classes)] = True
    losses = -(log_softmax(scores.logits, dim=1) * targets).sum(1)  # (n_candidates,)
    loss = (losses * scores.weights * is_known * token_weights[firsts]).sum()
    if not len(scores.lengths):
        return loss
    row_ends = sizes.cumsum(0).repeat_interleave(sizes)
    index = torch.arange(len(row_ends), device=device)
    firsts, offsets = list_spans(index, row_ends, len(scores.lengths))
    logits = scores.starts[firsts] + scores.ends[firsts + offsets] + scores.lengths[offsets]
    is_entity = torch.zeros_like(logits)
    is_listed = gold.offsets < len(scores.lengths)
    places = torch.searchsorted(firsts, gold.firsts[is_listed]) + gold.offsets[is_listed]
    is_entity[places] = 1
    is_known = n_unknown[firsts + offsets + 1] == n_unknown[firsts]
    losses = binary_cross_entropy_with_logits(logits, is_entity, reduction="none")
    return loss + (losses * is_known * token_weights[firsts]).sum()


def focal_loss(logits: Tensor, classes: Tensor, alpha: float, tau: float) -> Tensor:
    """Focal loss, -alpha (1 - p)^tau log p, of the probability p of each gold class (eq. 5 of
    "Multi-task Transformer with Relation-attention and Type-attention").

    logits (Tensor): Shape (n, n_classes).
    classes (Tensor): The gold, shape (n,), int64.
    alpha (float): Factor of the loss.
    tau (float): How much less classes count that are predicted well; at 0 it is the cross-entropy.
    RETURNS (Tensor): The losses, shape (n,).
    """
    log_p = log_softmax(logits, dim=1).gather(1, classes[:, None])[:, 0]
    if tau == 0:
        return -alpha * log_p
    # Below 1, the power has no gradient at 0.
    missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    return -alpha * missing**tau * log_p


class Seq2SeqGold(NamedTuple):
    """Targets of the sequences' steps and of the grids of token pairs of a batch of windows.

    symbols (Tensor): The gold symbol of each step, shape (n_steps,), int64.
    allowed (Tensor): Whether a symbol could come there in any valid sequence, shape (n_steps,
        n_symbols), bool.
    step_weights (Tensor): Shape (n_steps,).
    classes (Tensor): The relation in each cell, shape (n_cells,), int64; empty without relations,
        like all that follows.
    cell_weights (Tensor): Shape (n_cells,).
    pairs (Tensor): The cells of begin and end of an entity, shape (n_pairs,), int64.
    types (Tensor): Whether it is one of each type, shape (n_pairs, n_types).
    """

    symbols: Tensor
    allowed: Tensor
    step_weights: Tensor
    classes: Tensor
    cell_weights: Tensor
    pairs: Tensor
    types: Tensor


def seq2seq_loss(
    scores: "Seq2SeqScores",
    gold: Seq2SeqGold,
    *,
    relation_weight: float,
    alpha: float,
    tau: float,
) -> Tensor:
    """Joint loss of generation and relations: L_entity + w L_relation (eq. 13 of "Multi-task
    Transformer with Relation-attention and Type-attention").

    L_entity is the negative log-likelihood of the gold sequences (eq. 12), among valid ones alone:
    what could not come anyhow needs no learning. L_relation is the sum of the cells' focal losses
    and of the binary cross-entropy of the types of each gold begin and end. Both are weighted sums.

    scores (Seq2SeqScores): The scores.
    gold (Seq2SeqGold): The targets.
    relation_weight (float): w.
    alpha (float): Factor of the focal loss.
    tau (float): Its exponent.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    logits = scores.steps.masked_fill(~gold.allowed, -torch.inf)
    log_p = log_softmax(logits, dim=1).gather(1, gold.symbols[:, None])[:, 0]
    loss = -(gold.step_weights @ log_p)
    if relation_weight == 0 or len(gold.classes) == 0:
        return loss
    relations, types = scores.cells[:, :N_RELATIONS], scores.cells[gold.pairs, N_RELATIONS:]
    cells = gold.cell_weights @ focal_loss(relations, gold.classes, alpha, tau)
    losses = binary_cross_entropy_with_logits(types, gold.types, reduction="none")
    return loss + relation_weight * (cells + gold.cell_weights[gold.pairs] @ losses.sum(1))
