"""Rows of different lengths: all rows' positions in one flat tensor, and padded groups of rows.

Tensors over the tokens of a batch are kept flat, (n_tokens, ...), one row (document) after the
other. What needs a rectangle works on groups of rows of similar length, so that one long document
among many short ones costs no padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from spacy_mtlner.codecs.tags import IntArray

MAX_POSITIONS = 65_536  # Padded positions of one group, unless a single row has more.
PART_TOKENS = 8192  # Of a longer text, that are run at once where no gradient is asked for.
MIN_ROWS = 32  # Below that, more rows at once are worth their padding.


@dataclass(frozen=True)
class RowGroup:
    """Rows that are padded to the longest of them.

    rows (Tensor): The rows' numbers in the batch, shape (rows,), int64.
    index (Tensor): Flat position of every place, shape (rows, length); padding repeats a row's last
        position.
    backward_index (Tensor): The same with every row read from its end; padding repeats its first
        position.
    mask (Tensor): Whether a place is no padding, shape (rows, length), bool; the same for both.
    """

    rows: Tensor
    index: Tensor
    backward_index: Tensor
    mask: Tensor


def group_rows(
    lengths: Sequence[int] | IntArray, device: torch.device | None = None
) -> list[RowGroup]:
    """Group the rows of a batch by length; empty rows are in no group.

    Within a group no row is shorter than half of the longest; beyond `MIN_ROWS` rows it takes only
    rows of at least 7/8 of it.

    lengths (Union[Sequence[int], IntArray]): The rows' lengths.
    device (Optional[torch.device]): Where the groups' tensors are made.
    RETURNS (list[RowGroup]): The groups, longest rows first.
    """
    sizes = numpy.asarray(lengths, dtype=numpy.int64)
    offsets = numpy.cumsum(sizes) - sizes
    order = numpy.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    groups = []
    begin = 0
    while begin < len(order):
        longest = int(sizes[order[begin]])
        ratio = sizes[order[begin:]] / longest
        n_rows = int((ratio >= 1 / 2).sum())
        if n_rows > MIN_ROWS:
            n_rows = max(MIN_ROWS, int((ratio >= 7 / 8).sum()))
        n_rows = min(n_rows, max(1, MAX_POSITIONS // longest))
        rows = order[begin : begin + n_rows]
        begin += n_rows
        places = numpy.arange(longest)
        last = sizes[rows, None] - 1
        within = numpy.minimum(places, last)
        first = offsets[rows, None]
        arrays = (rows, first + within, first + last - within, places <= last)
        groups.append(RowGroup(*(torch.from_numpy(array).to(device) for array in arrays)))
    return groups


def ungroup(values: Sequence[Tensor], index: Sequence[Tensor], mask: Sequence[Tensor]) -> Tensor:
    """Bring the groups' values back into flat order.

    values (Sequence[Tensor]): Values of each group, shape (rows, length, ...).
    index (Sequence[Tensor]): Flat position of every value, shape (rows, length); together the
        groups hold every position once.
    mask (Sequence[Tensor]): Whether a place is no padding, shape (rows, length), bool.
    RETURNS (Tensor): Shape (n_tokens, ...).
    """
    positions = torch.cat([i[m] for i, m in zip(index, mask, strict=True)])  # (n_tokens,)
    flat = torch.cat([v[m] for v, m in zip(values, mask, strict=True)])  # (n_tokens, ...)
    return flat[torch.argsort(positions)]


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """Get the widest float of a tensor's device: Apple's GPUs have no float64.

    tensor (Tensor): The tensor.
    RETURNS (torch.dtype): float64, or the tensor's own.
    """
    return tensor.dtype if tensor.device.type == "mps" else torch.float64
