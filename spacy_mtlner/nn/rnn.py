"""Bidirectional recurrent layers over rows of any length."""

from typing import Literal

import torch
from torch import Tensor, nn

from spacy_mtlner.nn.ragged import PART_TOKENS, RowGroup, ungroup

RNNKind = Literal["lstm", "gru"]

_KINDS: dict[RNNKind, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


def _run(layer: nn.Module, x: Tensor, index: Tensor) -> Tensor:
    """Outputs, (rows, length, size), of a layer that reads x at places, (rows, length). Without
    gradient a long row is read part by part, each from the state behind the one before.
    """
    if torch.is_grad_enabled() or index.shape[1] <= PART_TOKENS:
        whole: Tensor = layer(x[index])[0]
        return whole
    parts, state = [], None
    for some in index.split(PART_TOKENS, dim=1):
        part, state = layer(x[some], state)
        parts.append(part)
    return torch.cat(parts, dim=1)


class BiRNN(nn.Module):
    """Bidirectional LSTM or GRU layers, each direction a unidirectional torch layer.

    The backward direction reads every row from its own end. That equals a packed bidirectional
    layer, but runs on rectangles, for which torch has kernels several times faster.

    kind (RNNKind): "lstm" or "gru".
    width (int): Size of the input vectors.
    hidden_width (int): Size of the output vectors, half of it for each direction.
    depth (int): Number of layers.
    RAISES (ValueError): If the kind is unknown, the hidden width odd or below 2, or the depth below
        1.
    """

    def __init__(self, kind: RNNKind, width: int, hidden_width: int, depth: int) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(f"Unknown rnn {kind!r}: use one of {[*_KINDS]} or null.")
        if hidden_width < 2 or hidden_width % 2 or depth < 1:
            raise ValueError(
                f"A layer of kind {kind!r} needs an even hidden_width of at least 2 (two "
                f"directions) and a depth of at least 1, not {hidden_width} and {depth}."
            )
        self.hidden_width = hidden_width
        widths = [width] + [hidden_width] * (depth - 1)
        layer, half = _KINDS[kind], hidden_width // 2
        self.forwards = nn.ModuleList(layer(w, half, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(layer(w, half, batch_first=True) for w in widths)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor, groups: list[RowGroup]) -> Tensor:
        """Run all layers, with dropout between them.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        groups (list[RowGroup]): The rows in groups.
        RETURNS (Tensor): Shape (n_tokens, hidden_width).
        """
        if not groups:
            return x.new_zeros((0, self.hidden_width))
        index = [group.index for group in groups]
        backward_index = [group.backward_index for group in groups]
        mask = [group.mask for group in groups]
        layers = zip(self.forwards, self.backwards, strict=True)
        for depth, (forwards, backwards) in enumerate(layers):
            if depth > 0:
                x = self.dropout(x)
            ahead = ungroup([_run(forwards, x, i) for i in index], index, mask)
            back = ungroup([_run(backwards, x, i) for i in backward_index], backward_index, mask)
            x = torch.cat([ahead, back], dim=-1)
        return x
