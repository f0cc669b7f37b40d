"""The grid of token pairs: entities of any form as relations between two tokens of a row.

Every pair of tokens has two cells, so that two relations can hold at once, as in nested entities:

* (i, j) with i <= j is `BEGIN_END` if an entity begins with token i and ends with token j;
* (j, i) with i < j is `INSIDE` if i and j are neighbours in an entity, that is if both are tokens
  of it and none between them is. The paper has this relation for pairs one of which is inside; here
  the two tokens of an entity of two have it as well, so that *pain ... hips* is told from *pain in
  my hips*;
* all other cells are `NONE`.

A grid is read by paths: each `BEGIN_END` pair with each way from its begin to its end over `INSIDE`
pairs is an entity, with the types that the pair has. Entities that share begin and end are
ambiguous: they share their types, and where their ways meet in an inner token, or one of another
entity crosses, parts of one go on as parts of the other. All other sets of entities come back as
they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from spacy_mtlner.codecs.fragments import TokenSets, TypedFragments
from spacy_mtlner.codecs.tags import IntArray, ranges

FloatArray = NDArray[numpy.float32]

NONE, BEGIN_END, INSIDE = 0, 1, 2
N_RELATIONS = 3
MAX_PATHS = 8  # Ways that are followed from one begin to one end.


def count_cells(lengths: IntArray) -> IntArray:
    """Find where each row's grid begins, if all grids lie behind each other, row-major.

    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    RETURNS (IntArray): The offsets and, last, the number of cells, shape (n_rows + 1,).
    """
    return numpy.concatenate([[0], numpy.cumsum(numpy.asarray(lengths, dtype=numpy.int64) ** 2)])


@dataclass(frozen=True)
class RelationTargets:
    """What the grids of a batch of rows have as gold.

    classes (IntArray): The relation in each cell, shape (n_cells,).
    pairs (IntArray): The cells of `BEGIN_END` pairs, shape (n_pairs,).
    types (FloatArray): Whether an entity of a type has that begin and end, shape (n_pairs,
        n_types).
    """

    classes: IntArray
    pairs: IntArray
    types: FloatArray


def locate_cells(entities: TokenSets, lengths: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Find the cells of entities.

    entities (TokenSets): Entities of a batch of rows.
    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    RETURNS (tuple[IntArray, IntArray, IntArray]): The `BEGIN_END` cell of each entity, shape
        (n_entities,); the `INSIDE` cells of all, those of each one in order of the text, and the
        entity that each is of, both of shape (n_links,).
    """
    offsets = count_cells(lengths)[entities.rows]
    widths = numpy.asarray(lengths, dtype=numpy.int64)[entities.rows]
    ends = numpy.cumsum(entities.sizes)
    first, last = entities.tokens[ends - entities.sizes], entities.tokens[ends - 1]
    owners = numpy.repeat(numpy.arange(len(entities)), entities.sizes)
    later = numpy.flatnonzero(owners[1:] == owners[:-1]) + 1
    owners = owners[later]
    links = offsets[owners] + entities.tokens[later] * widths[owners] + entities.tokens[later - 1]
    return offsets + first * widths + last, links, owners


def encode_relations(
    rows: Sequence[Sequence[TypedFragments]], lengths: IntArray, n_types: int
) -> RelationTargets:
    """Make the grids of a batch.

    rows (Sequence[Sequence[TypedFragments]]): The entities of each row.
    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    n_types (int): The number of types.
    RETURNS (RelationTargets): The grids.
    RAISES (ValueError): If there is not one length for each row.
    """
    if len(rows) != len(lengths):
        raise ValueError(f"{len(rows)} rows of entities, but {len(lengths)} lengths.")
    entities = TokenSets.of(rows)
    begin_ends, inside, _ = locate_cells(entities, lengths)
    pairs, places = numpy.unique(begin_ends, return_inverse=True)
    types = numpy.zeros((len(pairs), n_types), dtype=numpy.float32)
    types[places, entities.types] = 1
    classes = numpy.full(int(count_cells(lengths)[-1]), NONE, dtype=numpy.int64)
    classes[inside] = INSIDE
    classes[pairs] = BEGIN_END
    return RelationTargets(classes, pairs, types)


@dataclass(frozen=True)
class CellScores:
    """Scores of some cells of the grids of a batch; all others' are 0.

    pairs (IntArray): Cells on or above the diagonal, rising, shape (n_pairs,).
    types (FloatArray): Score of each of them as begin and end of an entity of each type, shape
        (n_pairs, n_types).
    links (IntArray): Cells below the diagonal, rising, shape (n_links,).
    inside (FloatArray): Their scores as `INSIDE`, shape (n_links,).
    """

    pairs: IntArray
    types: FloatArray
    links: IntArray
    inside: FloatArray


def decode_relations(
    cells: CellScores, lengths: IntArray, threshold: float
) -> tuple[TokenSets, FloatArray]:
    """Read the entities of a batch of grids.

    An entity's score is that of its pair for its type, times the lowest one of the links of its
    way, so that all are found by following links of at least the threshold. Of a pair that has more
    than `MAX_PATHS` ways, only those that begin best are followed.

    cells (CellScores): The scores.
    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    threshold (float): The lowest score of an entity, above 0.
    RETURNS (tuple[TokenSets, FloatArray]): The entities in order of rows, tokens and types, and
        their scores.
    """
    lengths = numpy.asarray(lengths, dtype=numpy.int64)
    first_tokens = numpy.cumsum(lengths) - lengths  # Tokens count through all rows.
    offsets = count_cells(lengths)

    def locate(flat: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        rows = numpy.searchsorted(offsets, flat, side="right") - 1
        i, j = numpy.divmod(flat - offsets[rows], lengths[rows])
        return rows, first_tokens[rows] + i, first_tokens[rows] + j

    is_pair = cells.types.max(axis=1, initial=0) >= threshold
    types = cells.types[is_pair]
    rows, begins, ends = locate(cells.pairs[is_pair])
    is_link = cells.inside >= threshold
    _, later, earlier = locate(cells.links[is_link])
    graph = _Graph.of(earlier, later, cells.inside[is_link], int(lengths.sum()))
    positions = ranges(numpy.zeros_like(lengths), lengths)
    owners, sizes, tokens, scores = _find_paths(graph, positions, begins, ends)

    paths, labels = numpy.nonzero(types[owners] * scores[:, None] >= threshold)
    values = types[owners[paths], labels] * scores[paths]
    tokens = tokens - numpy.repeat(first_tokens[rows[owners]], sizes)
    order = _sort_paths(rows[owners], sizes, tokens)
    rank = numpy.empty(len(order), dtype=numpy.int64)
    rank[order] = numpy.arange(len(order))
    sort = numpy.lexsort((labels, rank[paths]))
    paths, labels, values = paths[sort], labels[sort], values[sort]
    starts = numpy.cumsum(sizes) - sizes
    kept = tokens[ranges(starts[paths], sizes[paths])]
    entities = TokenSets(rows[owners[paths]], labels, sizes[paths], kept)
    return entities, values.astype(numpy.float32)


@dataclass(frozen=True)
class _Graph:
    """Links from tokens to later ones, ordered by the token that they begin at.

    firsts (IntArray): Where each token's links begin, and the number of all, shape (n_tokens + 1,).
    targets (IntArray): The token that each link ends at, shape (n_links,).
    scores (FloatArray): The links' scores, shape (n_links,).
    """

    firsts: IntArray
    targets: IntArray
    scores: FloatArray

    @classmethod
    def of(
        cls, sources: IntArray, targets: IntArray, scores: FloatArray, n_tokens: int
    ) -> "_Graph":
        order = numpy.lexsort((targets, sources))
        firsts = numpy.searchsorted(sources[order], numpy.arange(n_tokens + 1))
        return cls(firsts, targets[order], scores[order])

    def follow(self, tokens: IntArray) -> tuple[IntArray, IntArray]:
        """All links from some tokens: the token's place among them, and the link."""
        sizes = self.firsts[tokens + 1] - self.firsts[tokens]
        return numpy.repeat(numpy.arange(len(tokens)), sizes), ranges(self.firsts[tokens], sizes)


def _find_paths(
    graph: _Graph, positions: IntArray, begins: IntArray, ends: IntArray
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """All ways from begins to ends: pair, number of tokens, tokens and lowest score of each."""
    reaches = _find_reachable(graph, positions)
    owners = numpy.arange(len(begins))
    paths, scores = begins[:, None], numpy.ones(len(begins), dtype=numpy.float32)
    found: list[tuple[IntArray, IntArray, FloatArray]] = []
    while len(owners):
        is_whole = paths[:, -1] == ends[owners]
        if is_whole.any():
            found.append((owners[is_whole], paths[is_whole], scores[is_whole]))
        # No way goes on behind its end, as links lead to later tokens.
        owners, paths, scores = owners[~is_whole], paths[~is_whole], scores[~is_whole]
        places, links = graph.follow(paths[:, -1])
        targets = graph.targets[links]
        kept = reaches[targets, positions[ends[owners[places]]]]
        places, links, targets = places[kept], links[kept], targets[kept]
        owners = owners[places]
        scores = numpy.minimum(scores[places], graph.scores[links])
        paths = numpy.concatenate([paths[places], targets[:, None]], axis=1)
        best = _select_best(owners, scores)
        owners, paths, scores = owners[best], paths[best], scores[best]
    if not found:
        empty = numpy.zeros(0, dtype=numpy.int64)
        return empty, empty, empty, numpy.zeros(0, dtype=numpy.float32)
    return (
        numpy.concatenate([part[0] for part in found]),
        numpy.concatenate([numpy.full(len(p), p.shape[1], dtype=numpy.int64) for _, p, _ in found]),
        numpy.concatenate([part[1].reshape(-1) for part in found]),
        numpy.concatenate([part[2] for part in found]),
    )


def _select_best(owners: IntArray, scores: FloatArray) -> IntArray:
    """The best `MAX_PATHS` ways of each pair, in their order."""
    order = numpy.lexsort((-scores, owners))
    counts = numpy.bincount(owners) if len(owners) else owners
    ranks = ranges(numpy.zeros(len(counts), dtype=numpy.int64), counts)
    return numpy.sort(order[ranks < MAX_PATHS])


def _find_reachable(graph: _Graph, positions: IntArray) -> NDArray[numpy.bool_]:
    """To which tokens of its row, by their positions, a way leads from each: (n_tokens, length)."""
    reaches = numpy.zeros((len(positions), positions.max(initial=-1) + 1), dtype=bool)
    reaches[numpy.arange(len(positions)), positions] = True
    sources = numpy.flatnonzero(numpy.diff(graph.firsts))
    sources = sources[numpy.argsort(-positions[sources], kind="stable")]
    # Links lead to later tokens, whose ways are known by then: tokens of one position at a time.
    for some in numpy.split(sources, numpy.flatnonzero(numpy.diff(positions[sources])) + 1):
        places, links = graph.follow(some)
        if len(some):
            starts = numpy.searchsorted(places, numpy.arange(len(some)))
            reaches[some] |= numpy.logical_or.reduceat(reaches[graph.targets[links]], starts)
    return reaches


def _sort_paths(rows: IntArray, sizes: IntArray, tokens: IntArray) -> IntArray:
    """Order of paths by row and, lexicographically, tokens."""
    longest = int(sizes.max(initial=0))
    padded = numpy.full((len(rows), longest), -1, dtype=numpy.int64)
    padded[numpy.arange(longest) < sizes[:, None]] = tokens
    return numpy.lexsort((*padded.T[::-1], rows))
