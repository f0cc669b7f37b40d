"""Grids of token pairs against loops over cells and depth-first search."""

from collections import defaultdict
from itertools import pairwise, product

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs import relations
from spacy_mtlner.codecs.fragments import TypedFragments, list_tokens
from spacy_mtlner.codecs.relations import (
    BEGIN_END,
    INSIDE,
    NONE,
    CellScores,
    count_cells,
    decode_relations,
    encode_relations,
)
from spacy_mtlner.entities import merge_touching

Row = list[TypedFragments]
Found = dict[tuple[int, tuple[int, ...], int], float]  # Row, tokens and type to score.


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Row], list[int], int]:
    n_types = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
    rows = []
    for length in lengths:
        tokens = st.frozensets(st.integers(0, max(0, length - 1)), min_size=1)
        entities = st.builds(
            lambda t, label: (merge_touching((i, i + 1) for i in t), label),
            tokens,
            st.integers(0, n_types - 1),
        )
        rows.append([*draw(st.sets(entities, max_size=5 if length else 0))])
    return rows, lengths, n_types


@st.composite
def grids(draw: st.DrawFn) -> tuple[CellScores, list[int], float]:
    """Any scores in any cells."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    n_types = draw(st.integers(1, 2))
    offsets = count_cells(numpy.array(lengths)).tolist()
    cells = [
        (o + i * n + j, i <= j)
        for o, n in zip(offsets, lengths, strict=False)
        for i, j in product(range(n), repeat=2)
    ]
    chosen = sorted(draw(st.sets(st.sampled_from(cells)))) if cells else []
    pairs = [cell for cell, is_pair in chosen if is_pair]
    links = [cell for cell, is_pair in chosen if not is_pair]
    scores = st.floats(0, 1, width=16)
    types = [[draw(scores) for _ in range(n_types)] for _ in pairs]
    return (
        CellScores(
            numpy.array(pairs, dtype=numpy.int64),
            numpy.array(types, dtype=numpy.float32).reshape(-1, n_types),
            numpy.array(links, dtype=numpy.int64),
            numpy.array([draw(scores) for _ in links], dtype=numpy.float32),
        ),
        lengths,
        draw(st.sampled_from([0.1, 0.25, 0.5, 1.0])),
    )


def to_scores(rows: list[Row], lengths: list[int], n_types: int) -> CellScores:
    """Scores of 1 where the gold has something."""
    targets = encode_relations(rows, numpy.array(lengths), n_types)
    links = numpy.flatnonzero(targets.classes == INSIDE)
    return CellScores(targets.pairs, targets.types, links, numpy.ones(len(links), dtype="f"))


def decode(cells: CellScores, lengths: list[int], threshold: float = 0.5) -> Found:
    entities, scores = decode_relations(cells, numpy.array(lengths), threshold)
    found: Found = {}
    for row, label, fragments, score in zip(
        entities.rows, entities.types, entities.fragments(), scores, strict=True
    ):
        found[int(row), tuple(list_tokens(fragments)), int(label)] = float(score)
    assert len(found) == len(scores)
    # In order of rows, tokens and types.
    assert [*found] == sorted(found)
    return found


def search(cells: CellScores, lengths: list[int], threshold: float) -> Found:
    """The rule, by depth-first search."""
    found: Found = {}
    offsets = count_cells(numpy.array(lengths)).tolist()
    for row, (offset, n) in enumerate(zip(offsets, lengths, strict=False)):
        links = {
            divmod(int(cell) - offset, n)[::-1]: float(score)
            for cell, score in zip(cells.links, cells.inside, strict=True)
            if offset <= cell < offset + n * n
        }
        for cell, types in zip(cells.pairs, cells.types, strict=True):
            if not offset <= cell < offset + n * n:
                continue
            begin, end = divmod(int(cell) - offset, n)
            stack = [((begin,), 1.0)]
            while stack:
                path, low = stack.pop()
                if path[-1] == end:
                    for label, score in enumerate(types):
                        value = numpy.float32(score) * numpy.float32(low)
                        if value >= threshold:
                            found[row, path, label] = float(value)
                stack.extend(
                    ((*path, b), min(low, score))
                    for (a, b), score in links.items()
                    if a == path[-1] and b <= end
                )
    return found


def keys_of(rows: list[Row]) -> set[tuple[int, tuple[int, ...], int]]:
    return {(i, tuple(list_tokens(f)), label) for i, row in enumerate(rows) for f, label in row}


@settings(max_examples=200, derandomize=True)
@given(batches())
def test_grid_against_loops(batch: tuple[list[Row], list[int], int]) -> None:
    rows, lengths, n_types = batch
    targets = encode_relations(rows, numpy.array(lengths), n_types)
    offsets = count_cells(numpy.array(lengths)).tolist()
    assert len(targets.classes) == offsets[-1]
    types = dict(zip(targets.pairs.tolist(), targets.types.tolist(), strict=True))
    assert [*types] == sorted(types)
    for row, n, offset in zip(rows, lengths, offsets, strict=False):
        token_lists = [(list_tokens(fragments), label) for fragments, label in row]
        for i, j in product(range(n), repeat=2):
            labels = {label for t, label in token_lists if (t[0], t[-1]) == (i, j)}
            follows = any((j, i) in pairwise(tokens) for tokens, _ in token_lists)
            cell = offset + i * n + j
            assert targets.classes[cell] == (BEGIN_END if labels else INSIDE if follows else NONE)
            assert not (labels and follows)
            if labels:
                assert types.pop(cell) == [float(label in labels) for label in range(n_types)]
    assert not types


@settings(max_examples=300, derandomize=True)
@given(grids())
def test_decoder_against_search(grid: tuple[CellScores, list[int], float]) -> None:
    found, expected = decode(*grid), search(*grid)
    assert found.keys() == expected.keys()
    for key, score in found.items():
        assert score == pytest.approx(expected[key])
        assert grid[2] <= score <= 1.0


@settings(max_examples=300, derandomize=True)
@given(batches())
def test_gold_comes_back(batch: tuple[list[Row], list[int], int]) -> None:
    """Wholly, and alone unless entities share begin and end or their ways cross."""
    rows, lengths, _ = batch
    found = decode(to_scores(*batch), lengths)
    gold = keys_of(rows)
    assert found.keys() >= gold
    assert set(found.values()) <= {1.0}
    for i, row in enumerate(rows):
        ways: dict[tuple[int, int], set[tuple[int, ...]]] = defaultdict(set)
        labels: dict[tuple[int, int], set[int]] = defaultdict(set)
        for fragments, label in row:
            tokens = list_tokens(fragments)
            ways[tokens[0], tokens[-1]].add(tuple(tokens))
            labels[tokens[0], tokens[-1]].add(label)
        spurious = {key for key in found if key[0] == i} - gold
        if not any(len(set(w)) > 1 for w in _successors(row).values()):
            # Every token is followed by one other: there is one way from begin to end.
            assert all(len(way) == 1 for way in ways.values())
            assert not spurious


def _successors(row: Row) -> dict[int, list[int]]:
    found = defaultdict(list)
    for fragments, _ in row:
        for a, b in pairwise(list_tokens(fragments)):
            found[a].append(b)
    return found


def test_coordination_is_not_ambiguous() -> None:
    """Two muscles' pains that share a begin, with links that fork, and a nested entity."""
    rows: list[Row] = [
        [
            (((0, 2),), 0),
            (((0, 1), (3, 4)), 0),
            (((0, 1), (5, 6)), 1),
            (((1, 2),), 2),
            (((0, 6),), 2),
        ]
    ]
    # The way from 0 to 5 over all tokens and the direct one share begin and end, and so types.
    extra = {(0, (0, 5), 2), (0, (0, 1, 2, 3, 4, 5), 1)}
    # Ways that cross: 0 to 3, then on with the tokens between.
    extra |= {(0, (0, 3, 4, 5), 1), (0, (0, 3, 4, 5), 2), (0, (0, 1, 2, 3), 0)}
    assert decode(to_scores(rows, [6], 3), [6]).keys() == keys_of(rows) | extra
    del rows[0][4]
    assert decode(to_scores(rows, [6], 3), [6]).keys() == keys_of(rows)


def test_ways_without_end_cost_nothing() -> None:
    """All tokens linked to all later ones: only the best ways to an end are followed."""
    n = 60
    i, j = numpy.triu_indices(n, 1)
    links = numpy.sort(j * n + i)
    cells = CellScores(
        numpy.array([0 * n + 39, 10 * n + 11]),
        numpy.array([[1.0], [0.75]], dtype="f"),
        links,
        numpy.full(len(links), 0.5, dtype="f"),
    )
    found = decode(cells, [n])
    ways = [key[1] for key in found if key[1][-1] == 39]
    assert 1 <= len(ways) <= n * relations.MAX_PATHS
    assert all(way[0] == 0 for way in ways)
    assert (0, (10, 11), 0) not in found  # 0.75 * 0.5 is below the threshold.


@pytest.mark.parametrize("lengths", [[], [0], [0, 3]])
def test_nothing_to_find(lengths: list[int]) -> None:
    rows: list[Row] = [[] for _ in lengths]
    assert decode(to_scores(rows, lengths, 2), lengths) == {}


def test_threshold() -> None:
    cells = CellScores(
        numpy.array([1]),
        numpy.array([[0.8, 0.3]], dtype="f"),
        numpy.array([2]),
        numpy.array([0.5], dtype="f"),
    )
    assert decode(cells, [2], 0.1) == {
        (0, (0, 1), 0): pytest.approx(0.4),
        (0, (0, 1), 1): pytest.approx(0.15),
    }
    assert [*decode(cells, [2], 0.3)] == [(0, (0, 1), 0)]
    assert decode(cells, [2], 0.5) == {}


def test_any_order_of_entities() -> None:
    rows: list[Row] = [[(((0, 1),), 0), (((2, 3),), 1), (((0, 1), (2, 3)), 1)]]
    one = encode_relations(rows, numpy.array([3]), 2)
    other = encode_relations([rows[0][::-1]], numpy.array([3]), 2)
    for name in ("classes", "pairs", "types"):
        assert numpy.array_equal(getattr(one, name), getattr(other, name))
