"""Sequences of symbols: entities of any form as what an autoregressive decoder generates.

An entity is written as the pointers to all tokens of its fragments, rising, and then its type; a
set of entities as one after the other, in lexicographic order of their tokens, those of equal
tokens by their type, and `END` behind the last one. So "neck and shoulder pain" with *neck ...
pain* and *shoulder pain* becomes `0 3 ADR 2 3 ADR END`. As fragments do not touch each other, they
are the runs of neighbouring tokens; as the order is strict, every set of entities, be they nested,
of several types on one span or discontinuous, has exactly one sequence, and each valid sequence is
that of one set.

The symbols are numbers: 0 is `END`, then come the types, then the tokens of the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from spacy_mtlner.codecs.fragments import TokenSets, TypedFragments, list_tokens
from spacy_mtlner.codecs.tags import BoolArray, IntArray

END = 0


def encode_sequences(rows: Sequence[Sequence[TypedFragments]], n_types: int) -> IntArray:
    """Write sets of entities as sequences.

    rows (Sequence[Sequence[TypedFragments]]): The entities of each row, in any order.
    n_types (int): The number of types.
    RETURNS (IntArray): The symbols of each row, padded with `END`, of which every row has at least
        one: shape (n_rows, n_steps).
    """
    sequences = []
    for entities in rows:
        keys = sorted({(*list_tokens(fragments), -1, label) for fragments, label in entities})
        sequences.append(
            [
                symbol
                for key in keys
                for symbol in (*(1 + n_types + t for t in key[:-2]), 1 + key[-1])
            ]
        )
    n_steps = 1 + max(map(len, sequences), default=0)
    symbols = numpy.full((len(sequences), n_steps), END, dtype=numpy.int64)
    for row, sequence in zip(symbols, sequences, strict=True):
        row[: len(sequence)] = sequence
    return symbols


@dataclass(frozen=True)
class Decoded:
    """Entities read from sequences.

    entities (TokenSets): The entities, in order of rows and sequences.
    steps (IntArray): The step of each one's type, shape (n_entities,): its symbols are this one and
        as many before it as it has tokens.
    """

    entities: TokenSets
    steps: IntArray


def decode_sequences(symbols: IntArray, n_types: int) -> Decoded:
    """Read the entities of valid sequences.

    symbols (IntArray): The symbols of each row, shape (n_rows, n_steps); what is behind a row's
        first `END` is not read.
    n_types (int): The number of types.
    RETURNS (Decoded): The entities.
    """
    is_open = numpy.cumsum(symbols == END, axis=1) == 0
    is_type = is_open & (symbols <= n_types)
    rows, steps = numpy.nonzero(is_type)
    before = numpy.concatenate([[-1], steps[:-1]]) if len(steps) else steps
    is_first = numpy.ones(len(rows), dtype=bool)
    is_first[1:] = rows[1:] != rows[:-1]
    sizes = steps - numpy.where(is_first, -1, before) - 1
    # Pointers behind the last type of a row belong to no entity.
    is_token = is_open & ~is_type
    last = numpy.full(len(symbols), -1)
    last[rows] = steps  # The last one of equal rows stays.
    is_token &= numpy.arange(symbols.shape[1]) < last[:, None]
    tokens = symbols[is_token] - 1 - n_types
    types = symbols[is_type] - 1
    return Decoded(TokenSets(rows, types, sizes, tokens), steps)


class Continuations:
    """The automaton of valid sequences: which symbols may follow what a batch of rows has so far.

    A pointer must be behind the entity's last one, and an entity behind the one before it in
    lexicographic order, which is decided where the two first differ; until then, `tie` is the step
    at which the entity before had the symbol that comes now. No symbol is allowed behind which no
    valid end would be left, within the row's limit: neither a tie that nothing can follow, nor a
    token that no type could follow.

    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    n_types (int): The number of types.
    limits (Optional[IntArray]): How many symbols a row may have, `END` not counted, shape
        (n_rows,); None for no limit.
    """

    def __init__(self, lengths: IntArray, n_types: int, limits: IntArray | None = None) -> None:
        n_rows = len(lengths)
        self.n_types = n_types
        self.lengths = numpy.asarray(lengths, dtype=numpy.int64)
        self.limits = numpy.full(n_rows, numpy.iinfo(numpy.int64).max) if limits is None else limits
        self.n_symbols = 1 + n_types + int(self.lengths.max(initial=0))
        self.step = 0
        self.history = numpy.zeros((n_rows, 16), dtype=numpy.int64)  # Symbols so far.
        self.last = numpy.full(n_rows, -1)  # The entity's last token; -1 before its first one.
        self.start = numpy.zeros(n_rows, dtype=numpy.int64)  # Step of its first token.
        self.tie = numpy.full(n_rows, -1)  # -1 where there is none.
        self.is_done = numpy.zeros(n_rows, dtype=bool)

    def allowed(self) -> BoolArray:
        """Find the symbols that may come next.

        RETURNS (BoolArray): Shape (n_rows, n_symbols), at least one in every row.
        """
        n_types = self.n_types
        is_tied = self.tie >= 0
        other, second, third = self._look_ahead()
        left = self.limits - self.step
        is_inside = self.last >= 0
        meets_token = is_tied & (other > n_types)
        meets_type = is_tied & ~meets_token
        # The lowest token: the entity before's own, or the one behind it, or behind the last one.
        final = n_types + self.lengths  # The symbol of the row's last token.
        is_dead = ((second == n_types) & (other == final)) | (
            (second == final) & (third == n_types)
        )
        is_short = (second <= n_types) & (second < n_types)  # A later type may close it.
        may_tie = ~is_dead & (left >= numpy.where(is_short, 2, 3))
        lowest = numpy.where(meets_token, other + ~may_tie, self.last + 2 + n_types)
        lowest = numpy.where((left >= 2) & ~self.is_done, lowest, self.n_symbols)
        # The lowest type: behind the entity before's one, where all tokens are the same.
        lowest_type = numpy.where(meets_type, other + 1, 1)
        lowest_type = numpy.where(is_inside & ~meets_token, lowest_type, n_types + 1)
        symbols = numpy.arange(self.n_symbols)
        allowed = (symbols >= lowest[:, None]) & (symbols <= final[:, None])
        allowed[:, : n_types + 1] |= symbols[: n_types + 1] >= lowest_type[:, None]
        allowed[:, END] = ~is_inside
        return allowed

    def _look_ahead(self) -> tuple[IntArray, IntArray, IntArray]:
        """The tied symbol and the two behind it, where the entity before goes on that far."""
        places = self.tie[:, None] + numpy.arange(3)
        places = places.clip(0, self.history.shape[1] - 1)
        other, second, third = numpy.take_along_axis(self.history, places, axis=1).T
        return other, second, third

    def advance(self, symbols: IntArray) -> None:
        """Append a symbol to each row.

        symbols (IntArray): Symbols that are allowed, shape (n_rows,).
        """
        if self.step == self.history.shape[1]:
            self.history = numpy.concatenate([self.history, numpy.zeros_like(self.history)], axis=1)
        other = self._look_ahead()[0]
        self.history[:, self.step] = symbols
        self.step += 1
        is_type = (symbols > END) & (symbols <= self.n_types)
        goes_on = (self.tie >= 0) & (symbols == other) & ~is_type
        self.tie = numpy.where(is_type, self.start, numpy.where(goes_on, self.tie + 1, -1))
        self.start = numpy.where(is_type, self.step, self.start)
        self.last = numpy.where(symbols > self.n_types, symbols - 1 - self.n_types, -1)
        self.is_done |= symbols == END

    def select(self, rows: IntArray) -> None:
        """Go on with some of the rows, also with one several times.

        rows (IntArray): Their numbers, shape (n_selected,).
        """
        for name in ("lengths", "limits", "history", "last", "start", "tie", "is_done"):
            setattr(self, name, getattr(self, name)[rows])


def list_allowed(symbols: IntArray, lengths: IntArray, n_types: int) -> BoolArray:
    """Find the symbols that could come at each step of given sequences.

    symbols (IntArray): Valid sequences, shape (n_rows, n_steps).
    lengths (IntArray): The rows' numbers of tokens, shape (n_rows,).
    n_types (int): The number of types.
    RETURNS (BoolArray): Shape (n_rows, n_steps, 1 + n_types + longest row).
    """
    state = Continuations(lengths, n_types)
    allowed = numpy.empty((*symbols.shape, state.n_symbols), dtype=bool)
    for step, column in enumerate(symbols.T):
        allowed[:, step] = state.allowed()
        state.advance(column)
    return allowed
