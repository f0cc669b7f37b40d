"""The Transformer encoder of the MTL-NER paper, with attention over a sliding window."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class WindowedAttention(nn.Module):
    """Multi-head self-attention (eq. 4-7) of each token over those of its row that are at most
    `window` tokens away; time and memory grow linearly with the tokens.

    All rows lie behind each other in one sequence, which is cut into blocks: a block's tokens see
    themselves and the blocks before and behind, as far as the mask lets them.

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

    def forward(self, x: Tensor, row: Tensor, longest: int) -> Tensor:
        """Attend.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        row (Tensor): Row number of every token, shape (n_tokens,).
        longest (int): Length of the longest row.
        RETURNS (Tensor): Shape (n_tokens, width).
        """
        n_tokens, width = x.shape
        size = min(self.window, longest)
        n_blocks = -(-n_tokens // size)
        padding = n_blocks * size - n_tokens
        heads = self.project_in(x).view(n_tokens, 3, self.n_heads, -1)
        # (n_blocks, size, 3, n_heads, head width); the padding is no row's.
        heads = F.pad(heads, (0, 0, 0, 0, 0, 0, 0, padding)).unflatten(0, (n_blocks, size))
        row = F.pad(row, (0, padding), value=-1).view(n_blocks, size)
        query, key, value = heads.unbind(2)
        key_row = _with_neighbours(row, -2)  # (n_blocks, 3 * size)
        place = torch.arange(3 * size, device=x.device)
        distance = place[size : 2 * size, None] - place[None, :]  # (size, 3 * size)
        sees = (distance.abs() <= self.window) & (row[:, :, None] == key_row[:, None, :])
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2),  # (n_blocks, n_heads, size, head width)
            _with_neighbours(key, 0).transpose(1, 2),
            _with_neighbours(value, 0).transpose(1, 2),
            attn_mask=sees[:, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).reshape(n_blocks * size, width)[:n_tokens]
        return self.project_out(attended)


def _with_neighbours(blocks: Tensor, fill: int) -> Tensor:
    """Each block between the one before and the one behind: (n, size, ...) to (n, 3 size, ...)."""
    edge = blocks.new_full((1, *blocks.shape[1:]), fill)
    before = torch.cat([edge, blocks[:-1]])
    behind = torch.cat([blocks[1:], edge])
    return torch.cat([before, blocks, behind], dim=1)


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

    def forward(self, x: Tensor, row: Tensor, longest: int) -> Tensor:
        """Run the layer: arguments and result as in `WindowedAttention.forward`."""
        x = self.attention_norm(x + self.dropout(self.attention(x, row, longest)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


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
        if width % n_heads or width % 2:
            raise ValueError(
                f"The encoder's width ({width}) must be even and a multiple of n_heads ({n_heads})."
            )
        if window < 1:
            raise ValueError(f"The attention's window must be at least 1, not {window}.")
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
        sizes = torch.tensor(lengths, device=x.device)
        row = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes)
        first = torch.cumsum(sizes, 0) - sizes
        position = torch.arange(len(x), device=x.device) - first[row]
        x = self.dropout(x + sinusoidal_positions(position, x.shape[1]).to(x.dtype))  # eq. 3
        for layer in self.layers:
            x = layer(x, row, max(lengths))
        return x
