"""Generation by decoders that are tables of random logits, against all sequences there are."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_mtlner.codecs.sequence import END, Continuations, decode_sequences, list_allowed
from spacy_mtlner.nn.generation import generate

N_TYPES = 2


class TableDecoder:
    """Logits that depend on the row and on all symbols before."""

    def __init__(self, lengths: list[int], beam_width: int, seed: int, scale: float) -> None:
        self.n_symbols = 1 + N_TYPES + max(lengths)
        self.seed, self.scale = seed, scale
        self.history = [[row] for row in range(len(lengths)) for _ in range(beam_width)]
        self.n_steps = 0

    def logits(self, history: list[int]) -> Tensor:
        seed = hash((self.seed, *history)) % 2**31
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.n_symbols, generator=generator) * self.scale

    def step(self, symbols: Tensor) -> Tensor:
        if self.n_steps:
            for row, symbol in zip(self.history, symbols.tolist(), strict=True):
                row.append(symbol)
        else:
            assert not symbols.any()  # They begin with END.
        self.n_steps += 1
        return torch.stack([self.logits(row) for row in self.history])

    def select(self, hypotheses: Tensor, *, of_same_rows: bool) -> None:
        rows = [row[0] for row in self.history]
        self.history = [[*self.history[i]] for i in hypotheses.tolist()]
        if of_same_rows:
            assert rows == [row[0] for row in self.history]


def list_scored(
    decoder: TableDecoder, row: int, length: int, limit: int
) -> dict[tuple[int, ...], list[float]]:
    """All sequences of a row, with their symbols' log-probabilities."""
    found: dict[tuple[int, ...], list[float]] = {}
    stack: list[tuple[tuple[int, ...], list[float]]] = [((), [])]
    while stack:
        symbols, values = stack.pop()
        if symbols and symbols[-1] == END:
            found[symbols] = values
            continue
        state = Continuations(numpy.array([length]), N_TYPES, numpy.array([limit]))
        for symbol in symbols:
            state.advance(numpy.array([symbol]))
        (allowed,) = state.allowed()
        allowed = numpy.pad(allowed, (0, decoder.n_symbols - len(allowed)))
        logits = decoder.logits([row, *symbols]).masked_fill(~torch.from_numpy(allowed), -torch.inf)
        for symbol in numpy.flatnonzero(allowed).tolist():
            value = float(logits.log_softmax(0)[symbol])
            stack.append(((*symbols, symbol), [*values, value]))
    return found


def run(
    lengths: list[int], limit: int, beam_width: int, seed: int = 0, scale: float = 2.0
) -> tuple[list[list[int]], list[list[float]], TableDecoder]:
    decoder = TableDecoder(lengths, beam_width, seed, scale)
    limits = numpy.full(len(lengths), limit)
    symbols, log_probs = generate(decoder, numpy.array(lengths), limits, N_TYPES, beam_width)
    return symbols.tolist(), log_probs.tolist(), decoder


def strip(symbols: list[int]) -> tuple[int, ...]:
    return (*symbols[: symbols.index(END)], END)


@pytest.mark.parametrize("seed", range(10))
def test_widest_beam_finds_the_best_sequence(seed: int) -> None:
    lengths = [2, 1, 2, 3]
    symbols, log_probs, decoder = run(lengths, 4, 200, seed)
    for row, (found, values) in enumerate(zip(symbols, log_probs, strict=True)):
        scored = list_scored(decoder, row, lengths[row], 4)
        best = max(scored, key=lambda s: sum(scored[s]))
        assert strip(found) == best
        assert values[: len(best)] == pytest.approx(scored[best], abs=1e-5)
        assert not any(values[len(best) :])


@pytest.mark.parametrize("seed", range(10))
def test_greedy_takes_the_best_symbol(seed: int) -> None:
    lengths = [3, 1, 4, 2, 2]
    symbols, log_probs, decoder = run(lengths, 7, 1, seed)
    for row, (found, values) in enumerate(zip(symbols, log_probs, strict=True)):
        state = Continuations(numpy.array([lengths[row]]), N_TYPES, numpy.array([7]))
        history = [row]
        for symbol, value in zip(strip(found), values, strict=False):
            (allowed,) = state.allowed()
            logits = decoder.logits(history)[: len(allowed)]
            logits = logits.masked_fill(~torch.from_numpy(allowed), -torch.inf)
            assert symbol == int(logits.argmax())
            assert value == pytest.approx(float(logits.log_softmax(0)[symbol]), abs=1e-5)
            state.advance(numpy.array([symbol]))
            history.append(symbol)


@pytest.mark.parametrize("beam_width", [1, 2, 5])
def test_rows_of_a_batch_do_not_mix(beam_width: int) -> None:
    """Rows are done at different steps; each gets what it would get alone."""
    lengths = [3, 1, 4, 2, 5, 1, 2]
    symbols, log_probs, _ = run(lengths, 9, beam_width)
    n_symbols = 1 + N_TYPES + max(lengths)
    for row, length in enumerate(lengths):
        decoder = TableDecoder([length], beam_width, 0, 2.0)
        decoder.history = [[row] for _ in range(beam_width)]
        decoder.n_symbols = n_symbols
        decoder.step = (  # type: ignore[method-assign]
            lambda s, step=decoder.step, n=length: step(s)[:, : 1 + N_TYPES + n]
        )
        alone, values = generate(
            decoder, numpy.array([length]), numpy.array([9]), N_TYPES, beam_width
        )
        assert strip(alone[0].tolist()) == strip(symbols[row])
        n = len(strip(symbols[row]))
        assert values[0, :n].tolist() == pytest.approx(log_probs[row][:n], abs=1e-5)


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(0, 25),
    st.integers(1, 4),
    st.integers(0, 1000),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_all_sequences_are_valid(
    lengths: list[int], limit: int, beam_width: int, seed: int, scale: float
) -> None:
    """Whatever the logits: the automaton allows each symbol, and each row ends within its limit."""
    symbols, log_probs, _ = run(lengths, limit, beam_width, seed, scale)
    array = numpy.array(symbols)
    allowed = list_allowed(array, numpy.array(lengths), N_TYPES)
    assert numpy.take_along_axis(allowed, array[:, :, None], axis=2).all()
    assert (array == END).any(1).all()
    assert (array != END).sum(1).max() <= limit
    assert (numpy.array(log_probs) <= 0).all()
    entities = decode_sequences(array, N_TYPES).entities
    assert entities.sizes.sum() + len(entities) == (array != END).sum()
    keys = [
        (row, fragments, label)
        for row, fragments, label in zip(
            entities.rows.tolist(), entities.fragments(), entities.types.tolist(), strict=True
        )
    ]
    assert len(set(keys)) == len(keys)
    for row, fragments, label in keys:
        assert fragments[-1][1] <= lengths[row] and label < N_TYPES


def test_wider_beams_are_not_worse() -> None:
    lengths = [4] * 6
    totals = [numpy.array(run(lengths, 9, width)[1]).sum(1) for width in (1, 400)]
    assert (totals[1] >= totals[0] - 1e-4).all() and (totals[1] > totals[0] + 0.1).any()


def test_no_rows() -> None:
    symbols, log_probs = generate(
        TableDecoder([1], 1, 0, 1.0), numpy.zeros(0, dtype=int), numpy.zeros(0, dtype=int), N_TYPES
    )
    assert len(symbols) == len(log_probs) == 0
