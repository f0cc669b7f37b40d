"""Sequences of symbols: every set of entities and back, and the automaton of valid sequences
against all sets there are."""

from itertools import chain, combinations
from random import Random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs.fragments import TypedFragments
from spacy_mtlner.codecs.sequence import (
    END,
    Continuations,
    decode_sequences,
    encode_sequences,
    list_allowed,
)
from spacy_mtlner.codecs.tags import IntArray
from spacy_mtlner.entities import merge_touching

Row = list[TypedFragments]


def make_entity(tokens: frozenset[int], label: int) -> TypedFragments:
    return merge_touching((t, t + 1) for t in tokens), label


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Row], list[int], int]:
    """Sets of entities of any form over rows of some tokens."""
    n_types = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    rows = []
    for length in lengths:
        tokens = st.frozensets(st.integers(0, max(0, length - 1)), min_size=1)
        entities = st.builds(make_entity, tokens, st.integers(0, n_types - 1))
        rows.append([*draw(st.sets(entities, max_size=6 if length else 0))])
    return rows, lengths, n_types


def decode(symbols: IntArray, n_types: int) -> list[Row]:
    found = decode_sequences(symbols, n_types)
    rows: list[Row] = [[] for _ in symbols]
    entities = found.entities
    for row, label, fragments in zip(
        entities.rows, entities.types, entities.fragments(), strict=True
    ):
        rows[row].append((fragments, int(label)))
    return rows


def list_sets(length: int, n_types: int) -> list[Row]:
    """All sets of entities over a row, by brute force."""
    tokens = chain.from_iterable(combinations(range(length), n) for n in range(1, length + 1))
    entities = [make_entity(frozenset(t), label) for t in tokens for label in range(n_types)]
    sizes = range(len(entities) + 1)
    return [[*s] for s in chain.from_iterable(combinations(entities, n) for n in sizes)]


def list_sequences(length: int, n_types: int, limit: int | None) -> list[tuple[int, ...]]:
    """All sequences that the automaton allows."""
    whole = []
    limits = None if limit is None else numpy.array([limit])
    stack: list[tuple[int, ...]] = [()]
    while stack:
        symbols = stack.pop()
        if symbols and symbols[-1] == END:
            whole.append(symbols)
            continue
        state = Continuations(numpy.array([length]), n_types, limits)
        for symbol in symbols:
            state.advance(numpy.array([symbol]))
        (allowed,) = state.allowed()
        assert allowed.any(), f"a dead end behind {symbols}"
        stack.extend((*symbols, int(symbol)) for symbol in numpy.flatnonzero(allowed))
    return whole


@settings(max_examples=300, derandomize=True)
@given(batches(), st.randoms(use_true_random=False))
def test_round_trip(batch: tuple[list[Row], list[int], int], random: Random) -> None:
    rows, lengths, n_types = batch
    symbols = encode_sequences(rows, n_types)
    assert symbols.shape[0] == len(rows) and (symbols[:, -1] == END).all()
    for found, row in zip(decode(symbols, n_types), rows, strict=True):
        assert len(found) == len(row) and set(found) == set(row)
    shuffled = [[*row, *row[:1]] for row in rows]
    for row in shuffled:
        random.shuffle(row)
    assert numpy.array_equal(encode_sequences(shuffled, n_types), symbols)
    # The automaton allows every one of them.
    allowed = list_allowed(symbols, numpy.array(lengths), n_types)
    assert numpy.take_along_axis(allowed, symbols[:, :, None], axis=2).all()


@pytest.mark.parametrize(("length", "n_types"), [(0, 2), (1, 1), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_valid_sequences_are_those_of_all_sets(length: int, n_types: int) -> None:
    sets = list_sets(length, n_types)
    expected = [tuple(encode_sequences([row], n_types)[0].tolist()) for row in sets]
    assert len(set(expected)) == len(sets)
    assert sorted(list_sequences(length, n_types, None)) == sorted(expected)


@pytest.mark.parametrize("limit", range(9))
@pytest.mark.parametrize(("length", "n_types"), [(1, 3), (2, 2), (3, 1)])
def test_limits_shorten_and_cut_nothing(length: int, n_types: int, limit: int) -> None:
    """Within a limit all sets are possible whose sequences are not longer."""
    sequences = list_sequences(length, n_types, None)
    expected = [sequence for sequence in sequences if len(sequence) - 1 <= limit]
    assert sorted(list_sequences(length, n_types, limit)) == sorted(expected)


def test_order() -> None:
    """As the module says it."""
    rows: list[Row] = [[(((2, 4),), 0), (((0, 1), (3, 4)), 0), (((2, 4),), 1), (((2, 3),), 1)]]
    assert encode_sequences(rows, 2).tolist() == [[3, 6, 1, 5, 2, 5, 6, 1, 5, 6, 2, END]]


def test_rows_of_a_batch_do_not_mix() -> None:
    rows: list[Row] = [[(((0, 1),), 0), (((0, 2),), 0)], [], [(((1, 2),), 1)]]
    lengths = numpy.array([2, 0, 3])
    symbols = encode_sequences(rows, 2)
    together = list_allowed(symbols, lengths, 2)
    for i in range(3):
        alone = list_allowed(symbols[i : i + 1], lengths[i : i + 1], 2)[0]
        assert numpy.array_equal(together[i, :, : alone.shape[1]], alone)
        assert not together[i, :, alone.shape[1] :].any()


def test_select_goes_on_with_copies() -> None:
    lengths = numpy.array([3, 1, 2])
    state = Continuations(lengths, 1)
    state.advance(numpy.array([2, END, 3]))
    state.select(numpy.array([2, 0, 0]))
    assert state.allowed().tolist() == [
        [False, True, False, False, False],
        [False, True, False, True, True],
        [False, True, False, True, True],
    ]
    state.advance(numpy.array([1, 3, 1]))
    assert [row.nonzero()[0].tolist() for row in state.allowed()] == [[0], [1, 4], [0, 2, 3, 4]]


def test_history_grows() -> None:
    n = 40
    rows: list[Row] = [[(((i, i + 1),), 0) for i in range(n)]]
    symbols = encode_sequences(rows, 1)
    allowed = list_allowed(symbols, numpy.array([n]), 1)
    assert numpy.take_along_axis(allowed, symbols[:, :, None], axis=2).all()
    assert decode(symbols, 1) == rows


@pytest.mark.parametrize("symbols", [[[3]], [[3, 1, 4]], [[3, 1, END, 4, 1]]])
def test_what_has_no_type_is_not_read(symbols: list[list[int]]) -> None:
    rows = decode(numpy.array(symbols), 2)
    assert rows == [[(((0, 1),), 0)] if 1 in symbols[0] else []]


def test_no_rows() -> None:
    assert encode_sequences([], 2).shape == (0, 1)
    assert decode(numpy.zeros((0, 1), dtype=numpy.int64), 2) == []
