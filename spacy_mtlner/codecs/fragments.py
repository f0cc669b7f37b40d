"""Entities as sets of tokens, from which fragments are read: what decoders of discontinuous
entities have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy

from spacy_mtlner.codecs.tags import IntArray
from spacy_mtlner.entities import Fragments

TypedFragments = tuple[Fragments, int]  # Fragments and the type's number.


def list_tokens(fragments: Fragments) -> list[int]:
    """List the tokens of an entity.

    fragments (Fragments): Its fragments.
    RETURNS (list[int]): Its tokens, rising.
    """
    return [token for start, end in fragments for token in range(start, end)]


@dataclass(frozen=True)
class TokenSets:
    """Entities of a batch of rows as sets of tokens.

    rows (IntArray): Row of each entity, shape (n_entities,).
    types (IntArray): Its type, shape (n_entities,).
    sizes (IntArray): Its number of tokens, at least 1, shape (n_entities,).
    tokens (IntArray): The tokens of all entities, those of each one rising, shape (sum of sizes,).
    """

    rows: IntArray
    types: IntArray
    sizes: IntArray
    tokens: IntArray

    @classmethod
    def of(cls, rows: Sequence[Sequence[TypedFragments]]) -> "TokenSets":
        """List the tokens of a batch's entities.

        rows (Sequence[Sequence[TypedFragments]]): The entities of each row.
        RETURNS (TokenSets): The same entities.
        """
        tokens = [list_tokens(fragments) for entities in rows for fragments, _ in entities]
        arrays = (
            [row for row, entities in enumerate(rows) for _ in entities],
            [label for entities in rows for _, label in entities],
            list(map(len, tokens)),
            [token for own in tokens for token in own],
        )
        return cls(*(numpy.array(values, dtype=numpy.int64) for values in arrays))

    def __len__(self) -> int:
        return len(self.rows)

    def fragments(self) -> list[Fragments]:
        """Join neighbouring tokens.

        RETURNS (list[Fragments]): The fragments of each entity.
        """
        if len(self.tokens) == 0:
            return []
        begins = numpy.ones(len(self.tokens), dtype=bool)
        begins[1:] = numpy.diff(self.tokens) != 1
        offsets = numpy.cumsum(self.sizes) - self.sizes
        begins[offsets] = True
        first = numpy.flatnonzero(begins)
        last = numpy.append(first[1:], len(self.tokens)) - 1
        pairs = list(
            zip(self.tokens[first].tolist(), (self.tokens[last] + 1).tolist(), strict=True)
        )
        borders = [*numpy.searchsorted(first, offsets).tolist(), len(pairs)]
        return [tuple(pairs[a:b]) for a, b in pairwise(borders)]


def cut_into_windows(
    entities: Sequence[TypedFragments], ends: Sequence[int]
) -> list[list[TypedFragments]]:
    """Give the entities of a row to its windows, over whose own tokens they then are.

    entities (Sequence[TypedFragments]): Entities, none of which crosses a window's border.
    ends (Sequence[int]): The offset behind the last token of each window, rising.
    RETURNS (list[list[TypedFragments]]): Each window's entities.
    """
    windows: list[list[TypedFragments]] = [[] for _ in ends]
    places = numpy.searchsorted(ends, [e[0][0][0] for e in entities], side="right").tolist()
    for (fragments, label), place in zip(entities, places, strict=True):
        start = ends[place - 1] if place else 0
        windows[place].append((tuple((a - start, b - start) for a, b in fragments), label))
    return windows
