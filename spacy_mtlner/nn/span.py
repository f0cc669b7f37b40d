"""Classification of candidate spans: the model of "A Span-Level Strategy for Nested Named Entity
Recognition", with a learned proposal of boundaries beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding  # Faster than an index, and its gradient deterministic.
from torch.utils.checkpoint import checkpoint

from spacy_mtlner.codecs.spans import (
    NO_CANDIDATES,
    Candidates,
    FloatArray,
    Runs,
    find_among,
    propose_spans,
    sample_negatives,
    share_runs,
)
from spacy_mtlner.codecs.tags import BoolArray
from spacy_mtlner.nn.ragged import MAX_POSITIONS, group_rows, ungroup
from spacy_mtlner.nn.rnn import BiRNN, RNNKind


@dataclass(frozen=True)
class SpanRequest:
    """Which candidates of a batch are to be classified.

    gold (Candidates): Candidates that are classified in any case, first in the scores.
    others (Optional[Candidates]): Further ones; None for those that the model proposes.
    per_token (float): How many spans are proposed for each token of a row.
    negative_ratio (Optional[float]): With how many others for each of the gold ones it is
        trained: see `sample_negatives`.
    rows (Optional[BoolArray]): In which rows candidates are proposed, shape (n_rows,); None for
        all.
    """

    gold: Candidates = NO_CANDIDATES
    others: Candidates | None = None
    per_token: float = 1.0
    negative_ratio: float | None = None
    rows: BoolArray | None = None


class SpanScores(NamedTuple):
    """What the classifier says of a batch whose tokens follow each other.

    logits (Tensor): Scores of each candidate's classes, shape (n_candidates, n_classes).
    tokens (Tensor): Tokens of the candidates, one candidate after the other, shape (n_positions,),
        int64.
    sizes (Tensor): Number of tokens of each candidate, shape (n_candidates,), int64.
    weights (Tensor): How many candidates each one stands for, shape (n_candidates,).
    starts (Tensor): Logits of a span beginning at a token, shape (n_tokens,); (0,) where no
        boundaries are learned.
    ends (Tensor): Logits of one ending with a token, of the same shape.
    lengths (Tensor): Logits of a span's length, less 1, shape (max_length,).
    """

    logits: Tensor
    tokens: Tensor
    sizes: Tensor
    weights: Tensor
    starts: Tensor
    ends: Tensor
    lengths: Tensor


class SpanClassifier(nn.Module):
    """Classifies candidates: a bidirectional LSTM over a candidate's tokens (eq. 6-11), attention
    of its final hidden state over its outputs, a linear layer (section 2 of the paper). The sum of
    the outputs is normalised first, which the paper does not: it learns several times faster.

    Candidates that begin at the same token are read forwards together, those that end with the same
    token backwards: each state is that of an LSTM that reads the candidate alone.

    Where boundaries are learned, a candidate's start_i + end_j + length_(j-i), by which it is
    proposed, is taken from its score of class 0, no entity.

    width (int): Size of the input vectors.
    n_classes (int): Number of classes.
    rnn (Optional[RNNKind]): Recurrent layer over the rows before the candidates are read, if any.
    hidden_width (int): Size of that layer's output.
    depth (int): Number of such layers.
    span_width (int): Size of the LSTM's output, both directions together.
    length_logits (Sequence[float]): Logits at which the lengths of proposed spans begin, that of
        one token first; none where no spans are proposed.
    """

    def __init__(
        self,
        width: int,
        n_classes: int,
        *,
        rnn: RNNKind | None,
        hidden_width: int,
        depth: int,
        span_width: int,
        length_logits: Sequence[float],
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.rnn = BiRNN(rnn, width, hidden_width, depth) if rnn else None
        size = hidden_width if rnn else width
        self.forwards = nn.LSTM(size, span_width // 2, batch_first=True)
        self.backwards = nn.LSTM(size, span_width // 2, batch_first=True)
        self.norm = nn.LayerNorm(span_width)
        self.classes = nn.Linear(span_width, n_classes)
        self.boundaries = nn.Linear(size, 2) if length_logits else None
        self.lengths = nn.Parameter(torch.tensor(length_logits))

    def forward(self, x: Tensor, lengths: Sequence[int], request: SpanRequest) -> SpanScores:
        """Classify candidates of a batch of rows.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        lengths (Sequence[int]): The rows' lengths.
        request (SpanRequest): The candidates.
        RETURNS (SpanScores): The scores.
        """
        x = self.dropout(x)
        if self.rnn is not None:
            x = self.dropout(self.rnn(x, group_rows(lengths, x.device)))
        starts = ends = x.new_zeros(0)
        if self.boundaries is not None:
            starts, ends = self.boundaries(x).unbind(1)
        others = request.others
        if others is None:
            others = self._propose(starts, ends, lengths, request)
        candidates, weights = _choose(request, others)
        logits = self._classify(x, candidates)
        if self.boundaries is not None:
            logits = self._add_boundaries(logits, starts, ends, candidates)
        return SpanScores(
            logits,
            torch.from_numpy(candidates.tokens).to(x.device),
            torch.from_numpy(candidates.sizes).to(x.device),
            torch.from_numpy(weights).to(x.device),
            starts,
            ends,
            self.lengths,
        )

    def _propose(
        self,
        starts: Tensor,
        ends: Tensor,
        lengths: Sequence[int],
        request: SpanRequest,
    ) -> Candidates:
        first, last = (part.detach().float().cpu().numpy() for part in (starts, ends))
        sizes = self.lengths.detach().float().cpu().numpy()
        rows = numpy.asarray(lengths, dtype=numpy.int64)
        wanted, per_token = request.rows, request.per_token
        if wanted is None:
            return propose_spans(first, last, sizes, rows, per_token)
        tokens = numpy.flatnonzero(numpy.repeat(wanted, rows))
        found = propose_spans(first[tokens], last[tokens], sizes, rows[wanted], per_token)
        return Candidates(tokens[found.tokens], found.sizes)

    def _classify(self, x: Tensor, candidates: Candidates) -> Tensor:
        """The classes' scores of each candidate, shape (n_candidates, n_classes)."""
        if not len(candidates):
            return self.classes(x.new_zeros((0, self.classes.in_features)))
        if x.requires_grad or len(candidates.tokens) <= MAX_POSITIONS:
            return self._classify_together(x, candidates)
        # Part by part, so that only one part's outputs are in memory; neighbours share runs.
        order = numpy.argsort(candidates.firsts, kind="stable")
        parts = numpy.cumsum(candidates.sizes[order]) // MAX_POSITIONS
        logits = [
            self._classify_together(x, candidates.select(part))
            for part in numpy.split(order, numpy.flatnonzero(numpy.diff(parts)) + 1)
        ]
        return torch.cat(logits)[torch.from_numpy(numpy.argsort(order)).to(x.device)]

    def _classify_together(self, x: Tensor, candidates: Candidates) -> Tensor:
        ahead, ahead_at = self._read(self.forwards, x, share_runs(candidates, backward=False))
        back, back_at = self._read(self.backwards, x, share_runs(candidates, backward=True))
        parts, rows = [], []
        groups = group_rows(candidates.sizes, x.device)
        for group in groups:
            arguments = ahead, back, ahead_at[group.rows], back_at[group.rows], group.mask
            if len(groups) > 1 and len(candidates.tokens) > MAX_POSITIONS and x.requires_grad:
                # The outputs of every candidate's tokens: made anew for the gradient.
                parts.append(checkpoint(attend, *arguments, use_reentrant=False))
            else:
                parts.append(attend(*arguments))
            rows.append(group.rows)
        summary = torch.cat(parts)[torch.argsort(torch.cat(rows))]  # (n_candidates, span_width)
        return self.classes(self.dropout(self.norm(summary)))

    def _add_boundaries(
        self, logits: Tensor, starts: Tensor, ends: Tensor, candidates: Candidates
    ) -> Tensor:
        """What the boundaries say against class 0, no entity."""
        sizes = numpy.minimum(candidates.sizes, len(self.lengths))
        arrays = (candidates.firsts, candidates.lasts, sizes - 1)
        firsts, lasts, lengths = (torch.from_numpy(a).to(logits.device) for a in arrays)
        against = starts[firsts] + ends[lasts] + self.lengths[lengths]  # (n_candidates,)
        return torch.cat([logits[:, :1] - against[:, None], logits[:, 1:]], dim=1)

    def _read(self, lstm: nn.LSTM, x: Tensor, runs: Runs) -> tuple[Tensor, Tensor]:
        """Outputs at all positions of the runs, and where each candidate's begin."""
        groups = group_rows(runs.sizes, x.device)
        tokens = torch.from_numpy(runs.tokens).to(x.device)
        index = [group.index for group in groups]
        outputs = [lstm(embedding(tokens[i], x))[0] for i in index]
        flat = ungroup(outputs, index, [group.mask for group in groups])
        return flat, torch.from_numpy(runs.offsets).to(x.device)


def attend(ahead: Tensor, back: Tensor, ahead_at: Tensor, back_at: Tensor, mask: Tensor) -> Tensor:
    """Sum up the outputs of each candidate's tokens by their attention to its final hidden state:
    sum_t softmax_t(h o_t) o_t.

    ahead (Tensor): Forward outputs at the positions of all runs, shape (n_run_positions, half).
    back (Tensor): Backward outputs at those of the runs that are read from the end, of the same
        form.
    ahead_at (Tensor): Where each candidate's forward run begins, shape (n_candidates,), int64.
    back_at (Tensor): Where its backward run does, shape (n_candidates,), int64.
    mask (Tensor): Whether a candidate has so many tokens, shape (n_candidates, length), bool.
    RETURNS (Tensor): Shape (n_candidates, 2 half).
    """
    last = mask.sum(1, keepdim=True) - 1  # (n_candidates, 1)
    places = torch.arange(mask.shape[1], device=mask.device).minimum(last)  # (n, length)
    from_start, from_end = ahead_at[:, None] + places, back_at[:, None] + last - places
    parts = embedding(from_start, ahead), embedding(from_end, back)
    outputs = torch.cat(parts, dim=-1)  # (n, length, 2 half)
    ends = embedding(ahead_at + last[:, 0], ahead), embedding(back_at + last[:, 0], back)
    final = torch.cat(ends, dim=-1)  # (n, 2 half)
    weights = torch.einsum("nth,nh->nt", outputs, final)
    weights = weights.masked_fill(~mask, -torch.inf).softmax(1)
    return torch.einsum("nth,nt->nh", outputs, weights)


def _choose(request: SpanRequest, others: Candidates) -> tuple[Candidates, FloatArray]:
    """All candidates of a request, the gold ones first, and how many each one stands for."""
    gold = request.gold
    if not len(gold) and request.negative_ratio is None:
        return others, numpy.ones(len(others), dtype=numpy.float32)
    others = others.select(~find_among(others, gold))
    chosen, weights = sample_negatives(gold, others, request.negative_ratio)
    return gold.join(chosen), numpy.concatenate([numpy.ones(len(gold), numpy.float32), weights])
