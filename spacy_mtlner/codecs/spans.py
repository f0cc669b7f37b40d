"""Candidates: token sequences that may be entities, as arrays over a batch of rows.

The tokens of a batch's rows follow each other, and a candidate is the list of its tokens: those of
a discontinuous entity are its fragments' tokens, one fragment after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray

from spacy_mtlner.codecs.tags import BoolArray, IntArray, ranges
from spacy_mtlner.entities import Fragments

FloatArray = NDArray[numpy.float32]

MAX_SPANS = 2**20  # Possible spans that are compared at once.


@dataclass(frozen=True)
class Candidates:
    """Candidates of a batch.

    tokens (IntArray): Tokens of each candidate in ascending order, one candidate after the other,
        shape (n_positions,).
    sizes (IntArray): Number of tokens of each candidate, at least 1, shape (n_candidates,).
    """

    tokens: IntArray
    sizes: IntArray

    @classmethod
    def of_spans(cls, starts: IntArray, sizes: IntArray) -> "Candidates":
        """Make contiguous candidates.

        starts (IntArray): First token of each one, shape (n_candidates,).
        sizes (IntArray): Number of tokens of each one, shape (n_candidates,).
        RETURNS (Candidates): The candidates.
        """
        return cls(ranges(starts, sizes), sizes)

    @classmethod
    def of_fragments(cls, candidates: Sequence[Fragments]) -> "Candidates":
        """Make candidates of any number of fragments.

        candidates (Sequence[Fragments]): The fragments of each candidate, over the batch's tokens.
        RETURNS (Candidates): The candidates.
        """
        table = numpy.array([f for c in candidates for f in c], dtype=numpy.int64).reshape(-1, 2)
        lengths = table[:, 1] - table[:, 0]
        owners = numpy.repeat(numpy.arange(len(candidates)), [len(c) for c in candidates])
        sizes = numpy.zeros(len(candidates), dtype=numpy.int64)
        numpy.add.at(sizes, owners, lengths)
        return cls(ranges(table[:, 0], lengths), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def offsets(self) -> IntArray:
        """RETURNS (IntArray): Where each candidate's tokens begin, shape (n_candidates,)."""
        return numpy.cumsum(self.sizes) - self.sizes

    @cached_property
    def firsts(self) -> IntArray:
        """RETURNS (IntArray): The first token of each candidate, shape (n_candidates,)."""
        return self.tokens[self.offsets]

    @cached_property
    def lasts(self) -> IntArray:
        """RETURNS (IntArray): The last token of each candidate, shape (n_candidates,)."""
        return self.tokens[self.offsets + self.sizes - 1]

    @cached_property
    def is_contiguous(self) -> BoolArray:
        """RETURNS (BoolArray): Whether a candidate is one fragment, shape (n_candidates,)."""
        return self.lasts - self.firsts + 1 == self.sizes

    def select(self, chosen: BoolArray | IntArray) -> "Candidates":
        """Choose candidates.

        chosen (Union[BoolArray, IntArray]): A mask of shape (n_candidates,), or numbers.
        RETURNS (Candidates): The chosen ones.
        """
        sizes = self.sizes[chosen]
        return Candidates(self.tokens[ranges(self.offsets[chosen], sizes)], sizes)

    def join(self, other: "Candidates") -> "Candidates":
        """Put other candidates behind these.

        other (Candidates): The others.
        RETURNS (Candidates): All of them.
        """
        return Candidates(
            numpy.concatenate([self.tokens, other.tokens]),
            numpy.concatenate([self.sizes, other.sizes]),
        )

    def list_tokens(self, i: int) -> IntArray:
        """List a candidate's tokens.

        i (int): The candidate's number.
        RETURNS (IntArray): Its tokens, shape (size,).
        """
        return self.tokens[self.offsets[i] : self.offsets[i] + self.sizes[i]]

    def fragments(self, i: int, offset: int = 0) -> Fragments:
        """List a candidate's fragments.

        i (int): The candidate's number.
        offset (int): The token from which to count, its row's first.
        RETURNS (Fragments): Its fragments.
        """
        if self.is_contiguous[i]:
            return ((int(self.firsts[i]) - offset, int(self.lasts[i]) + 1 - offset),)
        tokens = self.list_tokens(i) - offset
        parts = numpy.split(tokens, numpy.flatnonzero(numpy.diff(tokens) > 1) + 1)
        return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)


NO_CANDIDATES = Candidates(numpy.zeros(0, numpy.int64), numpy.zeros(0, numpy.int64))


@dataclass(frozen=True)
class Runs:
    """Token sequences of which every candidate is the beginning of one.

    tokens (IntArray): Tokens of each run, one run after the other, shape (n_run_positions,).
    sizes (IntArray): Number of tokens of each run, shape (n_runs,).
    offsets (IntArray): Where each candidate's run begins in tokens, shape (n_candidates,).
    """

    tokens: IntArray
    sizes: IntArray
    offsets: IntArray


def share_runs(candidates: Candidates, *, backward: bool) -> Runs:
    """List what a recurrent layer has to read for candidates: one that reads from a token on has
    read every shorter candidate from there as well.

    candidates (Candidates): The candidates. A discontinuous one has a run of its own.
    backward (bool): Whether candidates are read from their end.
    RETURNS (Runs): The runs, those of contiguous candidates first.
    """
    is_contiguous = candidates.is_contiguous
    anchors = (candidates.lasts if backward else candidates.firsts)[is_contiguous]
    lowest = int(anchors.min()) if len(anchors) else 0
    anchors = anchors - lowest
    longest = numpy.zeros(int(anchors.max()) + 1 if len(anchors) else 0, dtype=numpy.int64)
    numpy.maximum.at(longest, anchors, candidates.sizes[is_contiguous])
    begins = numpy.flatnonzero(longest)
    sizes = longest[begins]
    begins = begins + lowest
    if backward:
        tokens = -ranges(-begins, sizes)
    else:
        tokens = ranges(begins, sizes)
    offsets = numpy.zeros(len(candidates), dtype=numpy.int64)
    offsets[is_contiguous] = (numpy.cumsum(longest) - longest)[anchors]
    others = candidates.select(~is_contiguous)
    if len(others):
        offsets[~is_contiguous] = len(tokens) + others.offsets
        read = others.tokens
        if backward:
            read = read[-ranges(1 - others.offsets - others.sizes, others.sizes)]
        tokens = numpy.concatenate([tokens, read])
        sizes = numpy.concatenate([sizes, others.sizes])
    return Runs(tokens, sizes, offsets)


def propose_spans(
    starts: FloatArray, ends: FloatArray, sizes: FloatArray, rows: IntArray, per_token: float
) -> Candidates:
    """Choose the spans of the best boundaries: those of the largest start_i + end_j + size_(j-i).

    starts (FloatArray): Logits of a span beginning at a token, shape (n_tokens,).
    ends (FloatArray): Logits of one ending with a token, shape (n_tokens,).
    sizes (FloatArray): Logits of a span's length, less 1, shape (max_length,).
    rows (IntArray): The rows' lengths, shape (n_rows,).
    per_token (float): How many spans are chosen of a row for each of its tokens; all, if it has
        not more.
    RETURNS (Candidates): The chosen spans, row by row, the best ones first.
    """
    n_tokens = int(rows.sum())
    if n_tokens * len(sizes) > MAX_SPANS:
        parts = []
        for first, length in zip((numpy.cumsum(rows) - rows).tolist(), rows.tolist(), strict=True):
            own = slice(first, first + length)
            begins, lengths = _propose_in_row(starts[own], ends[own], sizes, per_token)
            parts.append((begins + first, lengths))
        return Candidates.of_spans(*(numpy.concatenate(part) for part in zip(*parts, strict=True)))
    index = numpy.arange(n_tokens)
    lengths = numpy.minimum(numpy.repeat(numpy.cumsum(rows), rows) - index, len(sizes))
    firsts = numpy.repeat(index, lengths)
    sizes_less_1 = ranges(numpy.zeros(n_tokens, dtype=numpy.int64), lengths)
    values = starts[firsts] + ends[firsts + sizes_less_1] + sizes[sizes_less_1]
    owners = numpy.repeat(numpy.arange(len(rows)), rows)[firsts]
    order = numpy.lexsort((-values, owners))
    n_spans = numpy.bincount(owners, minlength=len(rows))
    ranks = ranges(numpy.zeros(len(rows), dtype=numpy.int64), n_spans)
    quota = numpy.repeat(numpy.ceil(per_token * rows), n_spans)
    chosen = order[ranks < quota]
    return Candidates.of_spans(firsts[chosen], sizes_less_1[chosen] + 1)


def _propose_in_row(
    starts: FloatArray, ends: FloatArray, sizes: FloatArray, per_token: float
) -> tuple[IntArray, IntArray]:
    """First token and length of the chosen spans of one row, the best ones first. Of the spans seen
    so far, only as many as can be chosen are kept.
    """
    n_tokens, quota = len(starts), int(numpy.ceil(per_token * len(starts)))
    firsts = lengths = numpy.zeros(0, dtype=numpy.int64)
    values = numpy.zeros(0, dtype=numpy.float32)
    step = max(1, MAX_SPANS // len(sizes))
    for begin in range(0, n_tokens, step):
        index = numpy.arange(begin, min(begin + step, n_tokens))
        counts = numpy.minimum(n_tokens - index, len(sizes))
        new = numpy.repeat(index, counts)
        less_1 = ranges(numpy.zeros_like(index), counts)
        values = numpy.append(values, starts[new] + ends[new + less_1] + sizes[less_1])
        firsts, lengths = numpy.append(firsts, new), numpy.append(lengths, less_1 + 1)
        if len(values) > quota:
            lowest = numpy.partition(values, len(values) - quota)[len(values) - quota]
            chosen = values > lowest
            # Of equal ones the first, as in a stable order.
            ties = numpy.flatnonzero(values == lowest)
            chosen[ties[: quota - int(chosen.sum())]] = True
            firsts, lengths, values = firsts[chosen], lengths[chosen], values[chosen]
    order = numpy.argsort(-values, kind="stable")
    return firsts[order], lengths[order]


def find_among(candidates: Candidates, others: Candidates) -> BoolArray:
    """Tell which candidates are among others.

    candidates (Candidates): The candidates.
    others (Candidates): The others.
    RETURNS (BoolArray): Shape (n_candidates,).
    """
    listed = others.select(others.is_contiguous)
    beyond = 1 + max(int(c.sizes.max(initial=0)) for c in (candidates, listed))
    keys, known = (c.firsts * beyond + c.sizes for c in (candidates, listed))
    is_among = candidates.is_contiguous & numpy.isin(keys, known)
    known_tokens = {others.list_tokens(i).tobytes() for i in _find_broken(others)}
    for i in _find_broken(candidates):
        is_among[i] = candidates.list_tokens(i).tobytes() in known_tokens
    return is_among


def _find_broken(candidates: Candidates) -> list[int]:
    """Numbers of the discontinuous candidates, of which there are few."""
    return [int(i) for i in numpy.flatnonzero(~candidates.is_contiguous)]


def sample_negatives(
    gold: Candidates, others: Candidates, ratio: float | None
) -> tuple[Candidates, FloatArray]:
    """Choose candidates that are no entities: all that begin or end where an entity does, which
    are the hard ones, and others at random, drawn by numpy's global generator.

    gold (Candidates): The entities.
    others (Candidates): Candidates that are none.
    ratio (Optional[float]): How many of the others are drawn for each entity; None for all.
    RETURNS (tuple[Candidates, FloatArray]): The chosen ones, and how many each one stands for,
        shape (n_chosen,), so that their weighted loss is that of all, in expectation.
    """
    is_hard = numpy.isin(others.firsts, gold.firsts) | numpy.isin(others.lasts, gold.lasts)
    easy = numpy.flatnonzero(~is_hard)
    n_drawn = len(easy) if ratio is None else min(len(easy), math.ceil(ratio * max(1, len(gold))))
    if n_drawn == len(easy):
        return others, numpy.ones(len(others), dtype=numpy.float32)
    drawn = numpy.random.permutation(len(easy))[:n_drawn]
    weights = numpy.ones(len(others), dtype=numpy.float32)
    weights[easy] = len(easy) / n_drawn
    chosen = is_hard
    chosen[easy[drawn]] = True
    return others.select(chosen), weights[chosen]
