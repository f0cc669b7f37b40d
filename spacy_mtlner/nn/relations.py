"""Relations of token pairs, and what they tell about single tokens: sections 2.2 and 2.3 of
"Multi-task Transformer with Relation-attention and Type-attention".
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spacy_mtlner.codecs.relations import N_RELATIONS, NONE

CHUNK_VALUES = 2**21  # Features of pairs, cells times width, that are made at once.
KEPT_VALUES = 2**25  # Those of which all are kept for the gradient; more are made anew.
N_DISTANCES = 32  # Buckets of the distance from one token to another.
_EPSILON = 1e-5
_COMMON = 2.0  # Logit at which "none" begins: few pairs have a relation.


class ConditionalLayerNorm(nn.Module):
    """Layer norm whose gain and bias depend on another vector (eq. 1-3).

    width (int): Size of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Linear(width, width)
        self.bias = nn.Linear(width, width)
        # The plain layer norm, to begin with, and a condition that is learned from there.
        nn.init.normal_(self.gain.weight, std=width**-0.5)
        nn.init.ones_(self.gain.bias)

    def forward(self, condition: Tensor, x: Tensor) -> Tensor:
        """Normalise each vector under each condition.

        condition (Tensor): h_i, shape (..., n_conditions, width).
        x (Tensor): h_j, shape (..., n, width).
        RETURNS (Tensor): r_ij, shape (..., n_conditions, n, width).
        """
        deviation = x - x.mean(-1, keepdim=True)
        scale = (deviation.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
        normal = (deviation * scale).unsqueeze(-3)
        return self.gain(condition).unsqueeze(-2) * normal + self.bias(condition).unsqueeze(-2)


class PairScores(NamedTuple):
    """What the relations of a group of rows' token pairs are.

    cells (Tensor): Logits of the relations, then of the types as that of an entity from the first
        to the second token; shape (n_rows, length, length, N_RELATIONS + n_types), or (n_rows,
        length, 0, ...) if they were not asked for.
    tokens (Tensor): R*, each token's relations to all others, shape (n_rows, length, width), or
        (n_rows, length, 0) without relation attention.
    """

    cells: Tensor
    tokens: Tensor


class PairClassifier(nn.Module):
    """Predicts the relation of each pair of tokens (eq. 1-4), and extracts from the pairs what they
    tell about each token, by a convolution over its pairs and their maximum (eq. 6).

    The pairs are n^2 vectors. So that a window of 512 tokens takes no gigabytes, vectors are
    reduced to the relations' width before the norm, not behind it as in the paper, and the pairs of
    some tokens are made at a time; in training, those of large grids are made anew for the
    gradient.

    The distance from one token to the other is added, in buckets: models that are trained from
    scratch find it hard to tell from the tokens' vectors.

    width (int): Size of the tokens' vectors.
    n_types (int): Number of types.
    relation_width (int): Size of the pairs' vectors.
    has_tokens (bool): Whether to extract what they tell about each token.
    """

    def __init__(self, width: int, n_types: int, *, relation_width: int, has_tokens: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, relation_width)
        self.norm = ConditionalLayerNorm(relation_width)
        self.distances = nn.Embedding(2 * N_DISTANCES + 1, relation_width)
        self.hidden = nn.Linear(relation_width, relation_width)
        self.dropout = nn.Dropout()
        self.classes = nn.Linear(relation_width, N_RELATIONS + n_types)
        nn.init.normal_(self.distances.weight, std=0.1)
        nn.init.zeros_(self.classes.bias)
        with torch.no_grad():
            self.classes.bias[NONE] = _COMMON
        self.convolution = (
            nn.Conv1d(relation_width, relation_width, 3, padding=1) if has_tokens else None
        )

    def forward(
        self, x: Tensor, mask: Tensor, *, with_cells: bool, with_tokens: bool
    ) -> PairScores:
        """Predict the relations of all pairs of each row.

        x (Tensor): The tokens' vectors, shape (n_rows, length, width).
        mask (Tensor): Whether a token is no padding, shape (n_rows, length), bool.
        with_cells (bool): Whether the cells' logits are wanted.
        with_tokens (bool): Whether what the pairs tell about each token is wanted.
        RETURNS (PairScores): The relations.
        """
        n_rows, length, _ = x.shape
        x = self.dropout(self.reduce(x))  # Cheaper than of n^2 pairs.
        width = x.shape[2]
        places = torch.arange(length, device=x.device)
        buckets = bucket_distances(places[None, :] - places[:, None])  # (length, length)
        # Whole rows at once where they are short, else some tokens of one row.
        row_step = max(1, CHUNK_VALUES // (length * length * width))
        token_step = max(1, min(length, CHUNK_VALUES // (row_step * length * width)))
        run: Any = self._classify
        if torch.is_grad_enabled() and n_rows * length * length * width > KEPT_VALUES:
            run = partial(checkpoint, self._classify, use_reentrant=False)
        rows = [
            [
                run(part, part_mask, some, buckets[some], with_cells, with_tokens)
                for some in places.split(token_step)
            ]
            for part, part_mask in zip(x.split(row_step), mask.split(row_step), strict=True)
        ]
        cells, tokens = (
            torch.cat([torch.cat([part[i] for part in parts], dim=1) for parts in rows])
            for i in range(2)
        )
        return PairScores(cells, tokens)

    def _classify(
        self,
        x: Tensor,
        mask: Tensor,
        some: Tensor,
        buckets: Tensor,
        with_cells: bool,
        with_tokens: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits, (n_rows, n_some, length, n_classes), and R* of some tokens of each row."""
        pairs = self.hidden(self.norm(x[:, some], x)) + self.distances(buckets)
        pairs = nn.functional.gelu(pairs)  # (n_rows, n_some, length, width)
        if with_cells:
            cells = self.classes(pairs)
        else:
            cells = x.new_zeros((*pairs.shape[:2], 0, self.classes.out_features))
        if self.convolution is None or not with_tokens:
            return cells, x.new_zeros((*pairs.shape[:2], 0))
        outside = ~mask[:, None, :, None]
        # The convolution must see the same behind the row's end as in a row without padding.
        series = pairs.masked_fill(outside, 0).flatten(0, 1).transpose(1, 2)
        features = self.convolution(series).transpose(1, 2).unflatten(0, pairs.shape[:2])
        tokens = features.masked_fill(outside, -torch.inf).amax(2)
        return cells, tokens.masked_fill(~mask[:, some, None], 0)


def bucket_distances(distances: Tensor) -> Tensor:
    """Number distances: small ones each for itself, larger ones in ranges that double.

    distances (Tensor): Differences of positions, int64.
    RETURNS (Tensor): Numbers in [0, 2 N_DISTANCES], same shape.
    """
    sizes = distances.abs()
    exact = N_DISTANCES // 2
    octaves = torch.log2(sizes.clamp(min=1).float() / exact) * 4  # Four ranges each.
    large = (exact + octaves.long()).clamp(max=N_DISTANCES)
    return N_DISTANCES + distances.sign() * torch.where(sizes < exact, sizes, large)
