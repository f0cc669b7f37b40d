"""Batched generation of sequences of symbols, greedy or by a beam, of which each is valid."""

from typing import Protocol

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_mtlner.codecs.sequence import END, Continuations
from spacy_mtlner.codecs.tags import IntArray


class Decoder(Protocol):
    """Decodes hypotheses step by step, and keeps what it needs of the steps before."""

    def step(self, symbols: Tensor) -> Tensor:
        """Decode one step.

        symbols (Tensor): The last symbol of each hypothesis, `END` before the first one, shape
            (n_hypotheses,), int64.
        RETURNS (Tensor): Logits of the next one, shape (n_hypotheses, n_symbols).
        """
        ...

    def select(self, hypotheses: Tensor, *, of_same_rows: bool) -> None:
        """Go on with some hypotheses, also with one several times.

        hypotheses (Tensor): Their numbers, shape (n_selected,), int64.
        of_same_rows (bool): Whether each stands at the place of one of its own row.
        """
        ...


@torch.no_grad()
def generate(
    decoder: Decoder,
    lengths: IntArray,
    limits: IntArray,
    n_types: int,
    beam_width: int = 1,
    device: torch.device | None = None,
) -> tuple[IntArray, NDArray[numpy.float32]]:
    """Generate the most likely sequence of each row, as far as the beam sees.

    What may come next is decided by `Continuations`, and the probabilities are those among what may
    come, as in training. There is no penalty of length: the sequence's probability is that of the
    set of entities that it stands for.

    decoder (Decoder): The decoder; its hypotheses are `beam_width` ones of each row, row by row.
    lengths (IntArray): The rows' numbers of tokens, at least 1, shape (n_rows,).
    limits (IntArray): How many symbols a row may have, `END` not counted, shape (n_rows,).
    n_types (int): The number of types.
    beam_width (int): Hypotheses per row; 1 is greedy.
    device (Optional[torch.device]): Where the decoder is.
    RETURNS (tuple[IntArray, NDArray[numpy.float32]]): The symbols of each row, padded with `END`,
        and their log-probabilities; both of shape (n_rows, n_steps).
    """
    n_rows = len(lengths)
    max_steps = int(limits.max(initial=0)) + 1
    symbols = numpy.full((n_rows, max_steps), END, dtype=numpy.int64)
    log_probs = numpy.zeros((n_rows, max_steps), dtype=numpy.float32)
    state = Continuations(lengths.repeat(beam_width), n_types, limits.repeat(beam_width))
    active = numpy.arange(n_rows)  # The rows that hypotheses are of.
    values = numpy.zeros((n_rows * beam_width, max_steps), dtype=numpy.float32)
    # Of each row, the one empty hypothesis there is to begin with.
    totals = torch.full((n_rows, beam_width), -torch.inf, device=device)
    totals[:, 0] = 0
    last = torch.zeros(n_rows * beam_width, dtype=torch.int64, device=device)
    for step in range(max_steps if n_rows else 0):
        allowed = torch.from_numpy(state.allowed()).to(last.device)
        logits = decoder.step(last).float().masked_fill(~allowed, -torch.inf)
        found = logits.log_softmax(1)  # (n_hypotheses, n_symbols)
        if beam_width == 1:
            best, last = found.max(1)
        else:
            candidates = totals[:, :, None] + found.unflatten(0, totals.shape)
            totals, places = candidates.flatten(1).topk(beam_width, dim=1)
            last = (places % found.shape[1]).flatten()
            first = torch.arange(len(totals), device=last.device)[:, None] * beam_width
            sources = (first + places // found.shape[1]).flatten()
            # Where there are not enough, the rest is closed, whatever stands there.
            last = last.where(totals.flatten() > -torch.inf, END)
            best = found[sources, last]
            rows = sources.cpu().numpy()
            state.select(rows)
            values = values[rows]
            decoder.select(sources, of_same_rows=True)
        state.advance(last.cpu().numpy())
        values[:, step] = best.cpu().numpy()
        # Hypotheses are ordered, and get less likely: what is closed and best stays so.
        is_done = state.is_done[::beam_width]
        n_done = int(is_done.sum())
        if n_done == len(active) or (n_done and 2 * n_done >= len(active)):
            done = numpy.flatnonzero(is_done) * beam_width
            symbols[active[is_done], : state.step] = state.history[done, : state.step]
            log_probs[active[is_done], : state.step] = values[done, : state.step]
            if n_done == len(active):
                break
            kept = numpy.flatnonzero((~is_done).repeat(beam_width))
            active, values = active[~is_done], values[kept]
            state.select(kept)
            index = torch.from_numpy(kept).to(last.device)
            decoder.select(index, of_same_rows=False)
            last, totals = last[index], totals[torch.from_numpy(~is_done).to(last.device)]
    return symbols[:, : state.step], log_probs[:, : state.step]
