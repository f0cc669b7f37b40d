"""Linear-chain conditional random field: likelihood, decoding and marginals.

Shapes: B rows, L tokens, T tags. A score of `-inf` forbids a transition, a start or an end, and a
mask is a prefix mask: True for the tokens of a row, then False for its padding.

Everything runs on one uniform lattice of K = L + 2 steps and S = T + 1 tags. Its extra tag, the
boundary, stands before, after and on the padding of each row, so that `start` and `end` are plain
transitions and no step has to look at a mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchcrf
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from spacy_mtlner.nn.ragged import exact_dtype

__all__ = [
    "CRF",
    "crf_decode",
    "crf_decode_n_best",
    "crf_log_likelihood",
    "crf_log_partition",
    "crf_marginals",
    "crf_path_marginals",
]

_INF = float("inf")
_STEPS = 1024  # Of a lattice, whose views are made at once.


def crf_log_likelihood(
    emissions: Tensor,
    transitions: Tensor,
    start: Tensor,
    end: Tensor,
    tags: Tensor,
    mask: Tensor,
) -> Tensor:
    """Compute the log-probability of the tags, or of all paths that a partial annotation allows.

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    tags (Tensor): Long: the tag of every token, (B, L), or bool: its allowed tags, (B, L, T).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    RETURNS (Tensor): Log-likelihood of every row, 0 for an empty one, (B,).
    RAISES (ValueError): If a row has no path with these tags under the constraints.
    """
    scores, grid = _lattice(emissions, transitions, start, end, mask)
    if tags.dtype == torch.bool:
        annotated = crf_log_partition(emissions, transitions, start, end, mask, tags)  # (B,)
    else:
        annotated = _path_scores(scores, grid, tags, mask)  # (B,)
    impossible = annotated == -_INF  # (B,)
    if impossible.any():
        rows = impossible.nonzero().flatten().tolist()
        raise ValueError(f"no path is allowed by both the tags and the constraints in rows {rows}")
    return annotated - _log_partition(scores, grid)


def crf_log_partition(
    emissions: Tensor,
    transitions: Tensor,
    start: Tensor,
    end: Tensor,
    mask: Tensor,
    allowed: Tensor | None = None,
) -> Tensor:
    """Compute the logarithm of the summed exponential scores of all (allowed) paths.

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    allowed (Optional[Tensor]): Bool: the tags that a path may take, (B, L, T).
    RETURNS (Tensor): Once differentiable; 0 for an empty row, -inf for one without a path, (B,).
    """
    return _log_partition(*_lattice(emissions, transitions, start, end, mask, allowed))


@torch.no_grad()
def crf_decode(
    emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, mask: Tensor
) -> Tensor:
    """Find the best path of every row (Viterbi).

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    RETURNS (Tensor): Tags, 0 on padding; arbitrary in a row that has no legal path, (B, L).
    """
    scores, grid = _lattice(emissions, transitions, start, end, mask)  # (K, B, S), (S, S)
    # Reducing over the outermost dimension is fastest. There are no back-pointers: the way back
    # only asks which tag led best to the one already chosen.
    outgoing, incoming = grid[:, None], grid.T.contiguous()  # (S, 1, S), (S, S)
    columns = scores.mT[..., None]  # (K, S, B, 1)
    extended = scores.new_empty((*columns.shape[1:3], len(grid)))  # (S, B, S)
    for k, (column, state) in enumerate(_walk(columns[:-1], scores[1:])):
        if k % 32 == 31:  # the sum over a long row would swallow the digits that decide
            column -= column.amax(0)
        torch.add(column, outgoing, out=extended)
        state += extended.amax(0)
    tags = mask.new_full(mask.shape[:1], len(start), dtype=torch.long)  # (B,) from the last on
    parts = []
    for steps in reversed(scores[1:-1].split(_STEPS)):
        path = [tags]
        for state in reversed(steps.unbind()):
            path.append((state + incoming.index_select(0, path[-1])).argmax(-1))
        parts.append(torch.stack(path[::-1], 1)[:, :-1])
        tags = path[-1]
    return torch.cat(parts[::-1], 1).masked_fill(~mask, 0)


@torch.no_grad()
def crf_decode_n_best(
    emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, mask: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """Find the `n` best paths of every row, best first.

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    n (int): Number of paths per row, N.
    RETURNS (Tuple[Tensor, Tensor]): Tags, 0 on padding and where a row has fewer legal paths,
        (B, N, L), and path scores, in float64 where the device has it, -inf where a row has fewer
        legal paths, (B, N).
    """
    scores, grid = _lattice(emissions, transitions, start, end, mask)
    steps, batch, size = scores.shape
    exact = scores.to(exact_dtype(scores))  # (K, B, S)
    state = F.pad(exact[0, :, None], (0, 0, 0, n - 1), value=-_INF)  # (B, N, S)
    origins = mask.new_empty((steps, batch, n, size), dtype=torch.long)  # (K, B, N, S)
    for k in range(1, steps):
        extended = (state[..., None] + grid).flatten(1, 2)  # (B, N * S, S)
        state, origins[k] = extended.topk(n, 1)
        state += exact[k, :, None]
    best = state[..., -1]  # (B, N)
    # A node is `rank * S + tag`; every path ends in the boundary tag.
    nodes = mask.new_empty((steps, batch, n), dtype=torch.long)  # (K, B, N)
    nodes[-1] = torch.arange(1, n + 1, device=mask.device) * size - 1
    for k in range(steps - 1, 1, -1):
        torch.gather(origins[k].flatten(1), 1, nodes[k], out=nodes[k - 1])
    paths = nodes[1:-1].permute(1, 2, 0) % size  # (B, N, L)
    legal = mask[:, None] & (best > -_INF)[..., None]  # (B, N, L)
    return paths.masked_fill(~legal, 0), best


@torch.no_grad()
def crf_marginals(
    emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, mask: Tensor
) -> Tensor:
    """Compute the probability of every tag at every token.

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    RETURNS (Tensor): Probabilities, 0 on padding and in a row that has no legal path, (B, L, T).
    """
    messages = _forward_backward(*_lattice(emissions, transitions, start, end, mask))
    return messages.marginals[1:-1, :, :-1].transpose(0, 1)


@torch.no_grad()
def crf_path_marginals(
    emissions: Tensor,
    transitions: Tensor,
    start: Tensor,
    end: Tensor,
    mask: Tensor,
    rows: Tensor,
    starts: Tensor,
    lengths: Tensor,
    tags: Tensor,
    not_next: Tensor,
) -> Tensor:
    """Compute the probability that segments carry exactly the given tags.

    emissions (Tensor): Score of every tag at every token, (B, L, T).
    transitions (Tensor): Score of going from a tag (row) to a tag (column), (T, T).
    start (Tensor): Score of starting with a tag, (T,).
    end (Tensor): Score of ending with a tag, (T,).
    mask (Tensor): Bool: which positions hold a token, (B, L).
    rows (Tensor): Row of every segment, (N,).
    starts (Tensor): First position of every segment, (N,).
    lengths (Tensor): Number of tokens of every segment, at least 1, (N,).
    tags (Tensor): Tags of all segments, one after the other, (M,) with M = sum of `lengths`.
    not_next (Tensor): Tag that must not follow the segment, -1 for none, (N,).
    RETURNS (Tensor): Probability of every segment, (N,).
    """
    scores, grid = _lattice(emissions, transitions, start, end, mask)
    messages = _forward_backward(scores, grid)
    index = torch.arange(len(tags), device=tags.device)  # (M,)
    segments = index[: len(rows)].repeat_interleave(lengths)  # (M,)
    last = lengths.cumsum(0) - 1  # (N,)
    first = last - lengths + 1  # (N,)
    positions = index + (starts - first)[segments]  # (M,)
    # Given the tokens, the tags are a Markov chain: a path has the marginal of its first tag times
    # one transition probability per token, without any quotient of long products.
    logits = grid[tags] + messages.log_targets()[positions + 1, rows[segments]]  # (M, S)
    following = logits.softmax(-1)  # (M, S)
    chances = following.gather(1, tags.roll(-1)[:, None])[:, 0]  # (M,)
    excluded = following[last, not_next.clamp(min=0)]  # (N,)
    chances[last] = torch.where(not_next < 0, 1, 1 - excluded)
    chances = chances.nan_to_num(0)  # nothing can follow: the marginal is 0 as well
    marginals = messages.marginals[starts + 1, rows, tags[first]].to(chances.dtype)  # (N,)
    return marginals.scatter_reduce(0, segments, chances, "prod").clamp(0, 1).to(scores.dtype)


class CRF(torchcrf.CRF):
    """Conditional random field with the interface of pytorch-crf, constraints and partial tags.

    num_tags (int): Number of tags, T.
    batch_first (bool): Whether inputs are (B, L, ...) rather than (L, B, ...).
    allowed_transitions (Optional[Tensor]): Bool: the legal transitions, (T, T).
    allowed_start (Optional[Tensor]): Bool: the tags a row may start with, (T,).
    allowed_end (Optional[Tensor]): Bool: the tags a row may end with, (T,).
    """

    allowed_transitions: Tensor
    allowed_start: Tensor
    allowed_end: Tensor

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = False,
        *,
        allowed_transitions: Tensor | None = None,
        allowed_start: Tensor | None = None,
        allowed_end: Tensor | None = None,
    ) -> None:
        super().__init__(num_tags, batch_first)
        # Not persistent: they follow from the tag scheme, and checkpoints stay pytorch-crf's.
        for name, allowed, shape in (
            ("allowed_transitions", allowed_transitions, (num_tags, num_tags)),
            ("allowed_start", allowed_start, (num_tags,)),
            ("allowed_end", allowed_end, (num_tags,)),
        ):
            allowed = torch.ones(shape, dtype=torch.bool) if allowed is None else allowed.bool()
            if allowed.shape != shape:
                raise ValueError(f"{name} must be {shape}, got {tuple(allowed.shape)}")
            self.register_buffer(name, allowed, persistent=False)

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Get the transition, start and end scores, -inf where forbidden.

        RETURNS (Tuple[Tensor, Tensor, Tensor]): `transitions`, `start` and `end` as the functions
            of this module take them, (T, T), (T,) and (T,).
        """
        return (
            self.transitions.masked_fill(~self.allowed_transitions, -_INF),
            self.start_transitions.masked_fill(~self.allowed_start, -_INF),
            self.end_transitions.masked_fill(~self.allowed_end, -_INF),
        )

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor,
        mask: Tensor | None = None,
        reduction: str = "sum",
    ) -> Tensor:
        """Compute the log-likelihood of the tags.

        emissions (Tensor): Score of every tag at every token, (L, B, T) or (B, L, T).
        tags (Tensor): Long: tags, (L, B) or (B, L), or bool: allowed tags, shaped as `emissions`.
        mask (Optional[Tensor]): Which positions hold a token, a prefix, (L, B) or (B, L).
        reduction (str): 'none', 'sum', 'mean' (over rows) or 'token_mean' (over tokens).
        RETURNS (Tensor): Log-likelihood, (B,) for 'none' and () otherwise.
        RAISES (ValueError): If shapes do not fit, the mask has holes or tags are impossible.
        """
        partial = tags.dtype == torch.bool
        if partial and tags.shape != emissions.shape:
            raise ValueError(
                "emissions and allowed tags must match, "
                f"got {tuple(emissions.shape)} and {tuple(tags.shape)}"
            )
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        self._validate(emissions, tags=tags[..., 0] if partial else tags)
        emissions, mask = self._prepare(emissions, mask)
        tags = tags if self.batch_first else tags.transpose(0, 1)
        likelihood = crf_log_likelihood(emissions, *self.scores(), tags, mask)  # (B,)
        if reduction == "none":
            return likelihood
        if reduction == "mean":
            return likelihood.mean()
        if reduction == "token_mean":
            return likelihood.sum() / mask.sum().clamp(min=1)
        return likelihood.sum()

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """Find the best path of every row.

        emissions (Tensor): Score of every tag at every token, (L, B, T) or (B, L, T).
        mask (Optional[Tensor]): Which positions hold a token, a prefix, (L, B) or (B, L).
        RETURNS (List[List[int]]): Tags of every row, without padding.
        RAISES (ValueError): If shapes do not fit or the mask has holes.
        """
        emissions, mask = self._prepare(emissions, mask)
        paths = crf_decode(emissions, *self.scores(), mask)  # (B, L)
        lengths = mask.sum(1).tolist()
        return [path[:length] for path, length in zip(paths.tolist(), lengths, strict=True)]

    def n_best(
        self, emissions: Tensor, n: int, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the `n` best paths of every row, best first.

        emissions (Tensor): Score of every tag at every token, (L, B, T) or (B, L, T).
        n (int): Number of paths per row, N.
        mask (Optional[Tensor]): Which positions hold a token, a prefix, (L, B) or (B, L).
        RETURNS (Tuple[Tensor, Tensor]): Tags and path scores, always with the batch first, see
            `crf_decode_n_best`, (B, N, L) and (B, N).
        RAISES (ValueError): If shapes do not fit or the mask has holes.
        """
        emissions, mask = self._prepare(emissions, mask)
        return crf_decode_n_best(emissions, *self.scores(), mask, n)

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the probability of every tag at every token.

        emissions (Tensor): Score of every tag at every token, (L, B, T) or (B, L, T).
        mask (Optional[Tensor]): Which positions hold a token, a prefix, (L, B) or (B, L).
        RETURNS (Tensor): Probabilities, 0 on padding, shaped as `emissions`.
        RAISES (ValueError): If shapes do not fit or the mask has holes.
        """
        emissions, mask = self._prepare(emissions, mask)
        marginals = crf_marginals(emissions, *self.scores(), mask)  # (B, L, T)
        return marginals if self.batch_first else marginals.transpose(0, 1)

    def _prepare(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Validate emissions and mask, and return them as (B, L, T) and bool (B, L)."""
        self._validate(emissions)
        if mask is None:
            mask = emissions.new_ones(emissions.shape[:2], dtype=torch.bool)
        elif mask.shape != emissions.shape[:2]:
            raise ValueError(
                "the first two dimensions of emissions and mask must match, "
                f"got {tuple(emissions.shape[:2])} and {tuple(mask.shape)}"
            )
        mask = mask.bool()
        if not self.batch_first:
            emissions, mask = emissions.transpose(0, 1), mask.T
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("mask must be contiguous from the first timestep on")
        return emissions, mask


class _Messages(NamedTuple):
    """Result of the forward-backward recursion.

    An expected transition count is `exp(grid) * sources @ targets`, summed over rows and steps.
    Rows that need more range than a float has are 0 there, with logarithms in the `exact` fields.
    """

    log_z: Tensor  # (B,)
    marginals: Tensor  # (K, B, S)
    sources: Tensor  # (K - 1, B, S)
    targets: Tensor  # (K - 1, B, S)
    exact_rows: Tensor  # (E,)
    exact_sources: Tensor | None = None  # (K - 1, E, S)
    exact_targets: Tensor | None = None  # (K - 1, E, S)

    def log_targets(self) -> Tensor:
        """Get the logarithm of all targets, (K - 1, B, S)."""
        if self.exact_targets is None:
            return self.targets.log()
        targets = self.targets.to(self.exact_targets.dtype).log()
        return targets.index_copy(1, self.exact_rows, self.exact_targets)


class _LogPartition(Function):
    """Log-partition of a lattice, whose gradient are the marginals and the transition counts."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, grid: Tensor) -> Tensor:
        messages = _forward_backward(scores, grid)
        ctx.save_for_backward(grid, *messages[1:])
        return messages.log_z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grid, marginals, sources, targets, rows, exact_sources, exact_targets = ctx.saved_tensors
        weight = grad[:, None]  # (B, 1)
        counts = sources.flatten(0, 1).T @ (targets * weight).flatten(0, 1)  # (S, S)
        counts *= grid.exp().clamp(max=torch.finfo(grid.dtype).max)  # 0 * inf would be NaN
        if exact_sources is not None:
            exact_weight = weight[rows, :, None]  # (E, 1, 1)
            chunks = zip(exact_sources.split(32), exact_targets.split(32), strict=True)
            for source, target in chunks:  # (32, E, S)
                joint = source[..., None] + grid + target[..., None, :]  # (32, E, S, S)
                counts += (_exp_(joint) * exact_weight).sum((0, 1))
        return marginals * weight, counts


def _log_partition(scores: Tensor, grid: Tensor) -> Tensor:
    """Compute the log-partition of a lattice, (K, B, S) and (S, S), as (B,)."""
    log_z: Tensor = _LogPartition.apply(scores, grid)
    return log_z


def _lattice(
    emissions: Tensor,
    transitions: Tensor,
    start: Tensor,
    end: Tensor,
    mask: Tensor,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Build the scores (K, B, S) and the transitions (S, S) of a lattice with boundary tag T."""
    dtype = torch.promote_types(emissions.dtype, transitions.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    emissions, transitions, start, end = (x.to(dtype) for x in (emissions, transitions, start, end))
    around = (0, 1, 0, 0, 1, 1)  # one tag more, and a step before and after all others
    inside = F.pad(mask.T, around[2:])  # (K, B)
    boundary = torch.arange(len(start) + 1, device=mask.device) == len(start)  # (S,)
    illegal = inside[..., None] == boundary  # (K, B, S)
    if allowed is not None:
        illegal |= F.pad(~allowed.transpose(0, 1), around)
    scores = F.pad(emissions.transpose(0, 1), around).masked_fill(illegal, -_INF)
    grid = torch.cat((transitions, start[None]))  # (S, T)
    return scores, torch.cat((grid, F.pad(end, (0, 1))[:, None]), 1)


def _path_scores(scores: Tensor, grid: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    """Compute the score of one path per row, (B, L), through a lattice, (K, B, S), as (B,)."""
    boundary = grid.size(0) - 1
    path = F.pad(tags.masked_fill(~mask, boundary).T, (0, 0, 1, 1), value=boundary)  # (K, B)
    emitted = scores.gather(-1, path[..., None]).sum((0, 2))  # (B,)
    return emitted + grid.flatten()[path[:-1] * grid.size(0) + path[1:]].sum(0)


def _forward_backward(scores: Tensor, grid: Tensor) -> _Messages:
    """Run both recursions over a lattice, (K, B, S) and (S, S), scaled to a sum of 1 per step.

    What a float cannot hold is lost, and may have been the only way to a high score. So rows in
    which any reachable tag comes near the smallest float are run again with logarithms.
    """
    floor = _floor(scores.dtype)
    peaks = scores.amax(-1, keepdim=True)  # (K, B, 1)
    emitted = _exp_(scores - peaks)  # (K, B, S)
    # Both directions are one batch: [0] is forward, [1] is backward with its steps reversed.
    weights = torch.stack((emitted, emitted.flip(0)))  # (2, K, B, S)
    moves = torch.stack((grid, grid.T)).exp_()  # (2, S, S)
    states = torch.empty_like(weights)  # (2, K, B, S)
    norms = torch.ones_like(weights[..., :1])  # (2, K, B, 1)
    states[:, 0] = weights[:, 0]
    views = (states[:, :-1], states[:, 1:], weights[:, 1:], norms[:, 1:])
    for last, state, weight, norm in _walk(*(view.transpose(0, 1) for view in views)):
        torch.bmm(last, moves, out=state)
        state *= weight
        torch.sum(state, -1, keepdim=True, out=norm)
        state /= norm
    del weights, views

    forward, backward = states[0], states[1].flip(0)  # (K, B, S)
    joint = forward / emitted.clamp(min=floor) * backward  # (K, B, S)
    overlaps = joint.sum(-1, keepdim=True)  # (K, B, 1)
    links = (overlaps * norms[0])[1:]  # (K - 1, B, 1)
    log_z = (peaks + norms[0].log()).sum((0, 2))  # (B,)

    # A faint tag is lost if a tag before it that is not 0 leads there. By induction this finds the
    # first loss of a row, while tags that are structurally out of reach are exactly 0.
    alive = (states[:, :-1] > 0).to(grid.dtype).flatten(1, 2)  # (2, (K - 1) * B, S)
    reached = torch.bmm(alive, (torch.stack((grid, grid.T)) > -_INF).to(grid.dtype)) > 0
    legal = scores > -_INF  # (K, B, S)
    faint = (states * norms.clamp(max=1) < floor)[:, 1:]  # (2, K - 1, B, S)
    faint &= reached.view_as(faint)
    faint &= torch.stack((legal[1:], legal[:-1].flip(0)))
    inexact = faint.any((0, 1, 3)) | ~(links >= floor).all(0)[:, 0]  # (B,)
    rows = inexact.nonzero()[:, 0]  # (E,)
    messages = _Messages(log_z, joint.div_(overlaps), forward[:-1], backward[1:] / links, rows)
    return _with_exact_rows(messages, scores, grid) if len(rows) else messages


def _with_exact_rows(messages: _Messages, scores: Tensor, grid: Tensor) -> _Messages:
    """Redo the `exact_rows` of the messages of a lattice, (K, B, S) and (S, S), in log-space."""
    rows = messages.exact_rows  # (E,)
    dtype = exact_dtype(scores)
    emitted = scores[:, rows].to(dtype)  # (K, E, S)
    states = torch.stack((emitted, emitted.flip(0)), 1)  # (K, 2, E, S)
    moves = torch.stack((grid, grid.T)).to(dtype)[:, None]  # (2, 1, S, S)
    for last, state in _walk(states[:-1], states[1:]):
        moved = last[..., None] + moves  # (2, E, S, S)
        top = moved.amax(-2, keepdim=True).clamp_(min=torch.finfo(dtype).min)  # (2, E, 1, S)
        state += _exp_(moved.sub_(top)).sum(-2).log_().add_(top.squeeze(-2))
    forward, backward = states[:, 0], states[:, 1].flip(0)  # (K, E, S)
    log_z = forward[-1, :, -1]  # (E,)
    targets = backward - log_z.clamp(min=torch.finfo(dtype).min)[:, None]  # (K, E, S)
    marginals = _exp_(forward + targets - emitted.masked_fill(emitted == -_INF, 0))  # (K, E, S)
    return _Messages(
        messages.log_z.index_copy(0, rows, log_z.to(scores.dtype)),
        messages.marginals.index_copy(1, rows, marginals.to(scores.dtype)),
        messages.sources.index_fill(1, rows, 0),
        messages.targets.index_fill(1, rows, 0),
        rows,
        forward[:-1],
        targets[1:],
    )


def _walk(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Walk along the first dimension of tensors. The views of all steps of a long text would take
    more memory than what they show: they are made some at a time.
    """
    for parts in zip(*(tensor.split(_STEPS) for tensor in tensors), strict=True):
        yield from zip(*(part.unbind() for part in parts), strict=True)


def _floor(dtype: torch.dtype) -> float:
    """Get the value below which a lost summand would be more than a rounding error."""
    info = torch.finfo(dtype)
    return info.tiny / info.eps


def _exp_(logs: Tensor) -> Tensor:
    """Exponentiate in place, flushing to 0 up to the floor: exp is slow where it underflows."""
    floor = _floor(logs.dtype)
    return torch.threshold_(logs.clamp_(min=math.log(floor) - 1).exp_(), floor, 0)
