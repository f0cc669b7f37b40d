"""The Transformer encoder of the MTL-NER paper, with attention over a sliding window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import embedding  # Faster than an index, and its gradient deterministic.

from spacy_mtlner.codecs.tags import IntArray, ranges
from spacy_mtlner.nn.ragged import PART_TOKENS, group_rows


def sinusoidal_positions(positions: Tensor, width: int) -> Tensor:
    """Encode positions by sines and cosines of rising wave length (eq. 1, 2).

    Equation 2 of the paper prints a second sine; the cosine is meant, as in "Attention Is All You
    Need", from which it is taken.

    positions (Tensor): Positions in the row, shape (n_tokens,).
    width (int): Size of the encoding, even.
    RETURNS (Tensor): Shape (n_tokens, width), float32.
    """
    dims = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None] * torch.exp(dims * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


@dataclass(frozen=True)
class RowLayout:
    """How the rows of a batch are laid out for attention over a window: short rows in groups of
    similar length, long ones behind each other. It is the same for all layers.

    short (Optional[Tensor]): The tokens of the short rows, shape (n_short,), int64; None if these
        are all tokens.
    index (list[Tensor]): Of each group of short rows, the place of every token among those of all
        short rows, shape (rows, length); padding repeats a row's last place.
    sees (list[Optional[Tensor]]): What each token of a group attends to, bool, in a form that
        broadcasts to (rows, n_heads, length, length); None for its whole row.
    long (Optional[Tensor]): The tokens of the long rows, shape (n_long,), int64; None if these are
        all tokens.
    long_rows (Tensor): The row of each of these, shape (n_long,), int64.
    places (Optional[Tensor]): Where each token is in the groups behind each other, with padding,
        and the long rows' tokens behind them, shape (n_tokens,), int64; None if that is its own
        number.
    positions (Tensor): Position of each token in its row, shape (n_tokens,), int64.
    """

    short: Tensor | None
    index: list[Tensor]
    sees: list[Tensor | None]
    long: Tensor | None
    long_rows: Tensor
    places: Tensor | None
    positions: Tensor

    @classmethod
    def of(
        cls, lengths: Sequence[int], window: int, device: torch.device | None = None
    ) -> "RowLayout":
        """Lay out the rows of a batch.

        lengths (Sequence[int]): The rows' lengths.
        window (int): Reach of the attention to either side, in tokens.
        device (Optional[torch.device]): Where the attention runs.
        RETURNS (RowLayout): The layout.
        """
        sizes = numpy.asarray(lengths, dtype=numpy.int64)
        # In blocks, a token meets three windows of keys; here all of its row, and the padding.
        is_short = numpy.repeat(sizes <= 2 * window, sizes)  # (n_tokens,)
        short, long = numpy.flatnonzero(is_short), numpy.flatnonzero(~is_short)
        groups = group_rows(sizes[sizes <= 2 * window])
        places = numpy.empty(len(is_short), dtype=numpy.int64)
        n_places = 0
        for group in groups:
            index, mask = group.index.numpy(), group.mask.numpy()
            places[short[index[mask]]] = n_places + numpy.flatnonzero(mask)
            n_places += mask.size
        places[long] = n_places + numpy.arange(len(long))
        rows = numpy.repeat(numpy.arange(len(sizes)), sizes)

        def to_torch(array: IntArray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            to_torch(short) if len(long) else None,
            [group.index.to(device) for group in groups],
            [_find_seen(group.mask, window, device) for group in groups],
            to_torch(long) if len(short) else None,
            to_torch(rows[long]),
            to_torch(places) if len(short) else None,
            to_torch(ranges(numpy.zeros_like(sizes), sizes)),
        )


def _find_seen(mask: Tensor, window: int, device: torch.device | None) -> Tensor | None:
    """What tokens of rows attend to, of which the mask tells the padding: see `RowLayout`."""
    sees = None if mask.all() else mask[:, None, None]  # (rows, 1, 1, length)
    length = mask.shape[1]
    if length > window + 1:
        place = torch.arange(length)
        near = (place[:, None] - place).abs() <= window  # (length, length)
        # The padding must see something, too.
        sees = near if sees is None else near & (sees | ~mask[:, None, :, None])
    return None if sees is None else sees.to(device)


class WindowedAttention(nn.Module):
    """Multi-head self-attention (eq. 4-7) of each token over those of its row that are at most
    `window` tokens away; time and memory grow linearly with the tokens.

    Rows of up to two windows attend as wholes, padded to rows of similar length. Longer ones lie
    behind each other in one sequence, which is cut into blocks: a block's tokens see themselves and
    the blocks before and behind, as far as the mask lets them. In prediction, some blocks run at a
    time.

    width (int): Size of the vectors.
    n_heads (int): Number of heads.
    window (int): Reach of the attention to either side, in tokens.
    """

    def __init__(self, width: int, n_heads: int, window: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.window = window
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor, layout: RowLayout) -> Tensor:
        """Attend.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        layout (RowLayout): The rows, laid out for this window.
        RETURNS (Tensor): Shape (n_tokens, width).
        """
        parts = []
        if layout.index:
            parts += self._attend_in_rows(_select(x, layout.short), layout)
        if len(layout.long_rows):
            parts += self._attend_in_parts(_select(x, layout.long), layout.long_rows)
        attended = _select(torch.cat(parts), layout.places)  # (n_tokens, width)
        projected: Tensor = self.project_out(attended)
        return projected

    def _attend_in_rows(self, x: Tensor, layout: RowLayout) -> list[Tensor]:
        """Attention of short rows, (n_short, width): of each group, (n_places, width)."""
        heads = self.project_in(x)  # (n_short, 3 width)
        attended = []
        for index, sees in zip(layout.index, layout.sees, strict=True):
            padded = embedding(index, heads).unflatten(2, (3, self.n_heads, -1))
            # (rows, n_heads, length, head width) each.
            query, key, value = padded.transpose(1, 3).unbind(2)
            attended.append(self._attend(query, key, value, sees))
        return attended

    def _attend_in_parts(self, x: Tensor, row: Tensor) -> list[Tensor]:
        """Attention of long rows, (n_long, width), part by part if no gradient is asked for."""
        step = len(x)
        if not torch.is_grad_enabled():
            step = max(1, PART_TOKENS // self.window) * self.window
        parts = []
        for start in range(0, len(x), step):
            first = max(0, start - self.window)
            part = slice(first, start + step + self.window)
            attended = self._attend_in_blocks(x[part], row[part])
            parts.append(attended[start - first : start - first + step])
        return parts

    def _attend_in_blocks(self, x: Tensor, row: Tensor) -> Tensor:
        """Attention of rows behind each other, (n_tokens, width); row, (n_tokens,), has the row of
        each token.
        """
        n_tokens, size = len(x), self.window
        padding = -n_tokens % size
        heads = F.pad(self.project_in(x), (0, 0, 0, padding))
        heads = heads.unflatten(1, (3, self.n_heads, -1))  # (n_places, 3, n_heads, head width)
        row = F.pad(row, (0, padding), value=-1)  # The padding is no row's.
        key_row = F.pad(row, (size, size), value=-2).unfold(0, 3 * size, size)
        place = torch.arange(3 * size, device=x.device)
        near = (place[size : 2 * size, None] - place).abs() <= size  # (size, 3 size)
        sees = near & (row.view(-1, size, 1) == key_row[:, None])  # (n_blocks, size, 3 size)
        query = heads[:, 0].unflatten(0, (-1, size)).transpose(1, 2)
        # (n_blocks, 2, n_heads, 3 size, head width)
        key, value = _join_neighbours(heads[:, 1:], size).unbind(1)
        return self._attend(query, key, value, sees[:, None])[:n_tokens]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, sees: Tensor | None) -> Tensor:
        """Attention of (n, n_heads, length, head width): (n * length, width)."""
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=sees,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(0, 1).flatten(1)


def _select(x: Tensor, tokens: Tensor | None) -> Tensor:
    """Some tokens' vectors; all of them if tokens is None."""
    return x if tokens is None else embedding(tokens, x)


def _join_neighbours(x: Tensor, size: int) -> Tensor:
    """Each block with the ones before and behind: (n_blocks * size, ..., width) to (n_blocks, ...,
    3 * size, width), zeros outside.
    """
    x = F.pad(x, (0, 0) * (x.ndim - 1) + (size, size))
    if torch.is_grad_enabled():  # The gradient of overlapping views is slow.
        blocks = x.unflatten(0, (-1, size)).movedim(1, -2)
        return torch.cat([blocks[:-2], blocks[1:-1], blocks[2:]], dim=-2)
    return x.unfold(0, 3 * size, size).transpose(-1, -2)


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each with residual connection and norm (eq. 4-8).

    The paper's text adds the feed-forward network's residual from the layer's input; as in the
    Transformer it follows, it is added here from the attention's output, X_attention.

    width (int): Size of the vectors.
    n_heads (int): Number of heads.
    hidden_width (int): Size of the feed-forward network's hidden layer.
    window (int): Reach of the attention to either side, in tokens.
    """

    def __init__(self, width: int, n_heads: int, hidden_width: int, window: int) -> None:
        super().__init__()
        self.attention = WindowedAttention(width, n_heads, window)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden_width),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden_width, width),
        )
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor, layout: RowLayout) -> Tensor:
        """Run the layer: arguments and result as in `WindowedAttention.forward`."""
        x = self.attention_norm(x + self.dropout(self.attention(x, layout)))
        if torch.is_grad_enabled() or len(x) <= PART_TOKENS:
            return self._run_feed_forward(x)
        return torch.cat([self._run_feed_forward(part) for part in x.split(PART_TOKENS)])

    def _run_feed_forward(self, x: Tensor) -> Tensor:
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x


class TransformerEncoder(nn.Module):
    """Shared feature extractor of "A Named Entity Recognition Model Based on Multi-Task Learning
    and Cascading Pointer Network" (section II B, eq. 1-8), over embedded tokens.

    width (int): Size of the vectors, even and a multiple of the number of heads.
    depth (int): Number of layers.
    n_heads (int): Number of attention heads.
    hidden_width (int): Size of the feed-forward networks' hidden layer.
    window (int): Reach of the attention to either side, in tokens.
    RAISES (ValueError): If the settings do not fit each other.
    """

    def __init__(
        self, width: int, *, depth: int, n_heads: int, hidden_width: int, window: int
    ) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads or width % 2:
            raise ValueError(
                f"The encoder's width ({width}) must be even and a multiple of n_heads ({n_heads})."
            )
        if window < 1:
            raise ValueError(f"The attention's window must be at least 1, not {window}.")
        if depth < 0 or hidden_width < 1:
            raise ValueError(
                f"The encoder's depth must be 0 or more, not {depth}, and its hidden_width at "
                f"least 1, not {hidden_width}."
            )
        self.window = window
        self.layers = nn.ModuleList(
            TransformerLayer(width, n_heads, hidden_width, window) for _ in range(depth)
        )
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Encode the tokens of a batch of rows.

        x (Tensor): Embeddings of all tokens, shape (n_tokens, width).
        lengths (Sequence[int]): The rows' lengths.
        RETURNS (Tensor): Shape (n_tokens, width).
        """
        if len(x) == 0:
            return x
        layout = RowLayout.of(lengths, self.window, x.device)
        positions = sinusoidal_positions(layout.positions, x.shape[1])
        x = self.dropout(x + positions.to(x.dtype))  # eq. 3
        for layer in self.layers:
            x = layer(x, layout)
        return x
