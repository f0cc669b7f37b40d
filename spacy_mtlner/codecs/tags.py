"""Tag sequences: contiguous entities that do not overlap, as one tag per token.

Every scheme is read by one rule, legal sequence or not. A tag is `O` or a prefix and a label. An
entity begins at every tag other than `O` that

* has a beginning prefix (`B`; `U`, `S`, `W` for a single token), or
* follows `O`, the sequence's start, a tag of another label, or an ending prefix (`L`, `E`, or a
  single token's),

and runs up to the next `O`, the next beginning or the sequence's end. So BIO, IOB1, BILUO (BIOES),
BMES and BMEWO need no separate readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy
from numpy.typing import NDArray

IntArray = NDArray[numpy.int64]
BoolArray = NDArray[numpy.bool_]

SchemeName = Literal["BIO", "BILUO"]
OUTSIDE = "O"

_PREFIXES: dict[SchemeName, str] = {"BIO": "BI", "BILUO": "BILU"}
_CANONICAL = {"B": "B", "I": "I", "M": "I", "L": "L", "E": "L", "U": "U", "S": "U", "W": "U"}


@dataclass(frozen=True)
class Spans:
    """Labelled token spans of a batch of sequences, as parallel arrays ordered by position.

    rows (IntArray): The sequence of each span, shape (n_spans,).
    starts (IntArray): First token, shape (n_spans,).
    ends (IntArray): The offset behind the last token, shape (n_spans,).
    labels (IntArray): Label ids, shape (n_spans,).
    """

    rows: IntArray
    starts: IntArray
    ends: IntArray
    labels: IntArray


@dataclass(frozen=True)
class TagScheme:
    """The tags of a set of labels, their ids and their legal sequences.

    Ids are stable when labels are appended: 0 is `O`, then come all tags of the first label, of the
    second, and so on.

    name (SchemeName): "BIO" or "BILUO" (also known as BIOES).
    labels (tuple[str, ...]): The labels.
    RAISES (ValueError): If the scheme is unknown or a label repeats.
    """

    name: SchemeName
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.name not in get_args(SchemeName):
            raise ValueError(f"Unknown tag scheme {self.name!r}: use one of {[*_PREFIXES]}.")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"A tag scheme's labels must be unique: {self.labels}.")

    @property
    def prefixes(self) -> str:
        """RETURNS (str): The prefixes of one label's tags, in order of their ids."""
        return _PREFIXES[self.name]

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): All tags, by id."""
        return (OUTSIDE, *(f"{p}-{label}" for label in self.labels for p in self.prefixes))

    def __len__(self) -> int:
        return 1 + len(self.prefixes) * len(self.labels)

    def tag_id(self, label: IntArray, prefix: str) -> IntArray:
        """Look up the id of a prefix's tag for each label id.

        label (IntArray): Label ids, any shape.
        prefix (str): One of the scheme's prefixes.
        RETURNS (IntArray): Tag ids, same shape.
        """
        return 1 + label * len(self.prefixes) + self.prefixes.index(prefix)

    @cached_property
    def _parts(self) -> tuple[IntArray, BoolArray, BoolArray]:
        """Label id (-1 for O), beginning prefix and ending prefix of every tag, each (n_tags,)."""
        prefixes = [tag[0] for tag in self.tags[1:]]
        label = numpy.repeat(numpy.arange(len(self.labels)), len(self.prefixes))
        return (
            numpy.concatenate([[-1], label]),
            numpy.array([False, *(p in "BU" for p in prefixes)]),
            numpy.array([False, *(p in "LU" for p in prefixes)]),
        )

    @cached_property
    def allowed_transitions(self) -> BoolArray:
        """RETURNS (BoolArray): Whether tag i may be followed by tag j, shape (n_tags, n_tags)."""
        label, begins, ends = self._parts
        # A tag is open if its entity may go on, and inside if it needs an open one before it.
        if self.name == "BIO":
            is_open = label >= 0
            must_go_on = numpy.zeros_like(is_open)
        else:
            is_open = must_go_on = (label >= 0) & ~ends
        inside = (label >= 0) & ~begins
        continues = is_open[:, None] & inside[None, :] & (label[:, None] == label[None, :])
        return continues | (~must_go_on[:, None] & ~inside[None, :])

    @cached_property
    def allowed_start(self) -> BoolArray:
        """RETURNS (BoolArray): Whether a sequence may begin with a tag, shape (n_tags,)."""
        label, begins, _ = self._parts
        return (label < 0) | begins

    @cached_property
    def allowed_end(self) -> BoolArray:
        """RETURNS (BoolArray): Whether a sequence may end with a tag, shape (n_tags,)."""
        label, _, ends = self._parts
        return numpy.ones_like(ends) if self.name == "BIO" else (label < 0) | ends

    @cached_property
    def continuation(self) -> IntArray:
        """RETURNS (IntArray): Per label, the tag that would prolong a complete entity; -1 where the
        scheme's last tag closes it. Shape (n_labels,).
        """
        labels = numpy.arange(len(self.labels))
        return self.tag_id(labels, "I") if self.name == "BIO" else numpy.full_like(labels, -1)

    def encode(self, spans: Spans, lengths: IntArray) -> IntArray:
        """Write spans as tags.

        spans (Spans): Spans that do not overlap.
        lengths (IntArray): The sequences' lengths, shape (n_rows,).
        RETURNS (IntArray): Tag ids of all sequences in a row, shape (sum of lengths,).
        """
        offsets = numpy.cumsum(lengths) - lengths
        starts = offsets[spans.rows] + spans.starts
        sizes = spans.ends - spans.starts
        lasts = starts + sizes - 1
        tags = numpy.zeros(int(lengths.sum()), dtype=numpy.int64)
        tags[ranges(starts, sizes)] = numpy.repeat(self.tag_id(spans.labels, "I"), sizes)
        tags[starts] = self.tag_id(spans.labels, "B")
        if self.name == "BILUO":
            tags[lasts] = self.tag_id(spans.labels, "L")
            single = sizes == 1
            tags[starts[single]] = self.tag_id(spans.labels[single], "U")
        return tags

    def decode(self, tags: IntArray, lengths: IntArray) -> Spans:
        """Read tags as spans: see the module's rule.

        tags (IntArray): Tag ids of all sequences in a row, shape (sum of lengths,).
        lengths (IntArray): The sequences' lengths, shape (n_rows,).
        RETURNS (Spans): The spans, ordered by row and start.
        """
        label, begins, ends = self._parts
        return _decode(label[tags], begins[tags], ends[tags], lengths)

    def possible_tags(self, tags: IntArray, unknown: BoolArray, lengths: IntArray) -> BoolArray:
        """Tags that partial annotation leaves open: any at unknown tokens, but for those that would
        prolong a known entity; one at the others.

        tags (IntArray): Tag ids of all sequences in a row, shape (n_tokens,).
        unknown (BoolArray): Whether nothing is known of a token, shape (n_tokens,).
        lengths (IntArray): The sequences' lengths, shape (n_rows,).
        RETURNS (BoolArray): Shape (n_tokens, n_tags).
        """
        possible = numpy.arange(len(self)) == tags[:, None]
        possible[unknown] = True
        label, _, _ = self._parts
        is_first = numpy.zeros(len(tags) + 1, dtype=bool)
        is_first[numpy.cumsum(lengths) - lengths] = True
        after = numpy.flatnonzero(unknown[1:] & ~is_first[1:-1] & (label[tags[:-1]] >= 0)) + 1
        possible[after, self.tag_id(label[tags[after - 1]], "I")] = False
        return possible


def read_tags(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Read tag strings of any scheme as entities: see the module's rule.

    tags (Sequence[str]): Tags as `O` or `<prefix>-<label>`.
    RETURNS (list[tuple[str, int, int]]): Label, start and end of each entity, end exclusive.
    RAISES (ValueError): If a string is no tag.
    """
    parts = [_split_tag(tag) for tag in tags]
    names = sorted({label for _, label in parts if label})
    ids = {name: i for i, name in enumerate(names)} | {"": -1}
    spans = _decode(
        numpy.array([ids[label] for _, label in parts], dtype=numpy.int64),
        numpy.array([prefix in "BU" for prefix, _ in parts], dtype=bool),
        numpy.array([prefix in "LU" for prefix, _ in parts], dtype=bool),
        numpy.array([len(tags)]),
    )
    return [
        (names[label], int(start), int(end))
        for label, start, end in zip(spans.labels, spans.starts, spans.ends, strict=True)
    ]


def _split_tag(tag: str) -> tuple[str, str]:
    """Canonical prefix and label of a tag string; `O` and no label outside."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, label = tag[:1], tag[2:]
    if prefix not in _CANONICAL or tag[1:2] != "-" or not label:
        raise ValueError(
            f"{tag!r} is no tag: expected 'O' or a prefix ({', '.join(_CANONICAL)}) and a label, "
            f"as in 'B-PER'."
        )
    return _CANONICAL[prefix], label


def _decode(label: IntArray, begins: BoolArray, ends: BoolArray, lengths: IntArray) -> Spans:
    """The module's rule on arrays over all tokens: label id (-1 outside) and kind of prefix."""
    if len(label) == 0:
        empty = numpy.zeros(0, dtype=numpy.int64)
        return Spans(empty, empty, empty, empty)
    inside = label >= 0
    breaks = numpy.zeros(len(label) + 1, dtype=bool)  # A border before token i.
    breaks[1:-1] = (label[1:] != label[:-1]) | begins[1:] | ends[:-1]
    breaks[numpy.cumsum(lengths)] = True
    breaks[0] = True
    first = numpy.flatnonzero(breaks[:-1] & inside)
    last = numpy.flatnonzero(breaks[1:] & inside)
    rows = numpy.searchsorted(numpy.cumsum(lengths), first, side="right")
    offsets = (numpy.cumsum(lengths) - lengths)[rows]
    return Spans(rows, first - offsets, last + 1 - offsets, label[first])


def ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """List the integers of ranges, one range after the other.

    starts (IntArray): First integer of each range, shape (n_ranges,).
    sizes (IntArray): Number of integers in each, shape (n_ranges,).
    RETURNS (IntArray): Shape (sum of sizes,).
    """
    ends = numpy.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return numpy.arange(total) + numpy.repeat(starts - (ends - sizes), sizes)
