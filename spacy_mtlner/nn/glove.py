"""GloVe: vectors of words from how often they stand near each other.

Equations are those of "GloVe: Global Vectors for Word Representation" (Pennington, Socher and
Manning, 2014). Its reference implementation updates the vectors pair by pair; here the pairs come
in shuffled batches, and a word that several of them share is updated once, by the sum of their
gradients.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

X_MAX = 10.0  # The count from which on pairs weigh the same; the paper's 100 is for 1e9 tokens.
ALPHA = 0.75
LEARN_RATE = 0.1
SQUARES = 1.0  # What AdaGrad's sums of squares begin with.
MAX_BATCH = 2**14
MIN_BATCHES = 64  # An epoch has as many steps as that, unless it has fewer pairs.

_BLOCK = 2**23  # Pairs that are counted at once.


class Cooccurrences(NamedTuple):
    """Words that stand near each other: both orders of a pair, each once.

    rows (Tensor): The words, shape (n_pairs,), int64.
    columns (Tensor): The words in their context, shape (n_pairs,), int64.
    counts (Tensor): X_ij of the paper, above 0, shape (n_pairs,), float32.
    """

    rows: Tensor
    columns: Tensor
    counts: Tensor


def count_cooccurrences(
    words: NDArray[numpy.int64],
    lengths: Sequence[int] | NDArray[numpy.int64],
    *,
    n_words: int,
    window: int,
) -> Cooccurrences:
    """Count how often words stand near each other: a pair at a distance of d words counts 1 / d.

    No pair reaches from one text into another. Memory grows with the number of different pairs.

    words (NDArray[numpy.int64]): The words of all texts as numbers below n_words, one text after
        the other, shape (n_tokens,).
    lengths (Sequence[int] | NDArray[numpy.int64]): The texts' lengths.
    n_words (int): Number of different words.
    window (int): The largest distance.
    RETURNS (Cooccurrences): The counts.
    """
    sizes = numpy.asarray(lengths, dtype=numpy.int64)
    window = int(min(window, max(sizes.max(initial=0) - 1, 1)))
    texts = numpy.arange(len(sizes)).repeat(sizes)  # (n_tokens,)
    size = max(1, _BLOCK // window)
    parts: list[tuple[NDArray[numpy.int64], NDArray[numpy.float64]]] = []
    for begin in range(0, len(words), size):
        stop = begin + size + window
        parts.append(_count(words[begin:stop], texts[begin:stop], size, n_words, window))
        # Merging parts of like size alone takes n log n time over all blocks.
        while len(parts) > 1 and 2 * len(parts[-1][0]) > len(parts[-2][0]):
            parts[-2:] = [_merge(parts[-2:])]
    keys, counts = _merge(parts)
    first, second = numpy.divmod(keys, n_words)
    is_other = first != second
    counts[~is_other] *= 2  # A word near itself is in its own context in both orders.
    rows = numpy.concatenate([first, second[is_other]])
    columns = numpy.concatenate([second, first[is_other]])
    counts = numpy.concatenate([counts, counts[is_other]]).astype(numpy.float32)
    return Cooccurrences(*map(torch.from_numpy, (rows, columns, counts)))


def _count(
    words: NDArray[numpy.int64],
    texts: NDArray[numpy.int64],
    size: int,
    n_words: int,
    window: int,
) -> tuple[NDArray[numpy.int64], NDArray[numpy.float64]]:
    """Counts of the pairs that begin with one of the first `size` tokens: sorted keys of pairs, the
    lower word times n_words plus the higher one, and their counts.
    """
    keys = []
    for distance in range(1, window + 1):
        left, right = words[:-distance][:size], words[distance:][:size]
        is_one = texts[:-distance][:size] == texts[distance:][:size]
        left, right = left[is_one], right[is_one]
        pairs = numpy.minimum(left, right) * n_words + numpy.maximum(left, right)
        keys.append(pairs * window + (distance - 1))
    found, times = numpy.unique(numpy.concatenate(keys), return_counts=True)
    pairs, distances = numpy.divmod(found, window)
    return _sum(pairs, times / (distances + 1))


def _merge(
    parts: Sequence[tuple[NDArray[numpy.int64], NDArray[numpy.float64]]],
) -> tuple[NDArray[numpy.int64], NDArray[numpy.float64]]:
    keys = numpy.concatenate([numpy.empty(0, dtype=numpy.int64), *(keys for keys, _ in parts)])
    counts = numpy.concatenate([numpy.empty(0), *(counts for _, counts in parts)])
    order = numpy.argsort(keys, kind="stable")
    return _sum(keys[order], counts[order])


def _sum(
    keys: NDArray[numpy.int64], counts: NDArray[numpy.float64]
) -> tuple[NDArray[numpy.int64], NDArray[numpy.float64]]:
    """Different keys, of sorted ones, and the sums of their counts."""
    if not len(keys):
        return keys, counts
    starts = numpy.flatnonzero(numpy.diff(keys, prepend=-1))
    return keys[starts], numpy.add.reduceat(counts, starts)


def weigh_counts(counts: Tensor, *, x_max: float = X_MAX, alpha: float = ALPHA) -> Tensor:
    """Compute f(x) of eq. 9: (x / x_max)^alpha below x_max, else 1.

    counts (Tensor): The counts, any shape.
    x_max (float): The count from which on pairs weigh the same.
    alpha (float): The power.
    RETURNS (Tensor): The weights, of the counts' shape.
    """
    return (counts / x_max).clamp(max=1) ** alpha


class GloVe(nn.Module):
    """Vectors of words and of words as contexts, whose products plus biases are the logarithms of
    how often they stand near each other.

    n_words (int): Number of words.
    dim (int): Size of the vectors.
    x_max (float): The count from which on pairs weigh the same, eq. 9.
    alpha (float): The power of eq. 9.
    learn_rate (float): AdaGrad's learning rate.
    generator (Optional[torch.Generator]): Draws the weights to begin with.
    """

    words: Tensor
    contexts: Tensor
    word_squares: Tensor
    context_squares: Tensor

    def __init__(
        self,
        n_words: int,
        dim: int,
        *,
        x_max: float = X_MAX,
        alpha: float = ALPHA,
        learn_rate: float = LEARN_RATE,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.x_max = x_max
        self.alpha = alpha
        self.learn_rate = learn_rate
        for name in ("word", "context"):
            # The last column holds the biases.
            weights = (torch.rand((n_words, dim + 1), generator=generator) - 0.5) / dim
            self.register_parameter(f"{name}s", nn.Parameter(weights))
            self.register_buffer(f"{name}_squares", torch.full_like(weights, SQUARES))

    @property
    def vectors(self) -> Tensor:
        """RETURNS (Tensor): Sums of the words' two vectors, shape (n_words, dim)."""
        return (self.words + self.contexts)[:, :-1].detach()

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Compute w_i w~_j + b_i + b~_j.

        rows (Tensor): Words i, shape (n_pairs,), int64.
        columns (Tensor): Words j in their context, shape (n_pairs,), int64.
        RETURNS (Tensor): What eq. 8 compares with log X_ij, shape (n_pairs,).
        """
        words, contexts = self.words[rows], self.contexts[columns]  # (n_pairs, dim + 1)
        products = (words[:, :-1] * contexts[:, :-1]).sum(1)
        return products + words[:, -1] + contexts[:, -1]

    def loss(self, pairs: Cooccurrences) -> Tensor:
        """Compute eq. 8, the sum of f(X_ij) (w_i w~_j + b_i + b~_j - log X_ij)^2.

        pairs (Cooccurrences): The pairs.
        RETURNS (Tensor): The loss, a scalar.
        """
        errors = self(pairs.rows, pairs.columns) - pairs.counts.log()
        weights = weigh_counts(pairs.counts, x_max=self.x_max, alpha=self.alpha)
        return (weights * errors**2).sum()

    @torch.no_grad()
    def step(self, pairs: Cooccurrences) -> float:
        """Take a step of AdaGrad by the gradient of `loss`. Time and memory depend on the number of
        pairs, not on that of words.

        pairs (Cooccurrences): The pairs of a batch.
        RETURNS (float): The loss before the step.
        """
        words = self.words.index_select(0, pairs.rows)  # (n_pairs, dim + 1)
        contexts = self.contexts.index_select(0, pairs.columns)  # (n_pairs, dim + 1)
        errors = words[:, -1] + contexts[:, -1] - pairs.counts.log()
        # A bias is a weight whose counterpart is always 1.
        words[:, -1] = contexts[:, -1] = 1
        errors += (words * contexts).sum(1) - 1
        slopes = weigh_counts(pairs.counts, x_max=self.x_max, alpha=self.alpha) * errors
        loss = float(slopes @ errors)
        slopes *= 2
        self._descend(self.words, self.word_squares, pairs.rows, contexts.mul_(slopes[:, None]))
        self._descend(
            self.contexts, self.context_squares, pairs.columns, words.mul_(slopes[:, None])
        )
        return loss

    def _descend(self, weights: Tensor, squares: Tensor, index: Tensor, gradients: Tensor) -> None:
        """Update some rows of weights and of their sums of squared gradients.

        index (Tensor): The row of each gradient, shape (n_pairs,), int64.
        gradients (Tensor): The gradients, shape (n_pairs, dim + 1).
        """
        rows, places = index.unique(return_inverse=True)  # (n_rows,), (n_pairs,)
        totals = gradients.new_zeros((len(rows), gradients.shape[1]))
        totals.index_add_(0, places, gradients)  # (n_rows, dim + 1)
        sums = squares.index_select(0, rows).addcmul_(totals, totals)
        squares.index_copy_(0, rows, sums)
        weights.index_add_(0, rows, totals.div_(sums.sqrt_()), alpha=-self.learn_rate)


def train_epoch(
    model: GloVe,
    pairs: Cooccurrences,
    *,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], object] | None = None,
) -> float:
    """Step once through all pairs, in random order.

    model (GloVe): The vectors.
    pairs (Cooccurrences): All pairs.
    generator (Optional[torch.Generator]): Draws the order.
    on_step (Optional[Callable[[int], object]]): Called after each step with its number of pairs.
    RETURNS (float): Eq. 8 per pair, each at its step.
    """
    n_pairs = len(pairs.counts)
    size = min(MAX_BATCH, max(1, n_pairs // MIN_BATCHES))
    total = 0.0
    order = torch.randperm(n_pairs, generator=generator, device="cpu").to(pairs.rows.device)
    for index in order.split(size):
        total += model.step(Cooccurrences(*(values[index] for values in pairs)))
        if on_step is not None:
            on_step(len(index))
    return total / max(n_pairs, 1)
