"""Windows: the parts of docs that a model reads at once, as its cost grows faster than they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy
from numpy.typing import NDArray
from spacy.strings import get_string_id
from spacy.tokens import Doc

from spacy_mtlner.codecs.fragments import list_tokens
from spacy_mtlner.codecs.tags import BoolArray, IntArray
from spacy_mtlner.entities import Entity

FloatArray = NDArray[numpy.float64]

# As spaCy's ids of strings, which are the same in all vocabs.
_FULL_STOPS = numpy.array(
    [*map(get_string_id, (".", "!", "?", "。", "！", "？", "…", "...", "......", "\n", "\n\n"))],
    dtype=numpy.uint64,
)
_STOPS = numpy.append(
    _FULL_STOPS, numpy.array([*map(get_string_id, ";；,，、")], dtype=numpy.uint64)
)


@dataclass(frozen=True)
class Windows:
    """The windows of a doc. Those of one sentence may overlap.

    starts (IntArray): The first token of each window, rising, shape (n_windows,).
    ends (IntArray): The offset behind its last one, rising, shape (n_windows,).
    is_first (BoolArray): Whether a window begins with its sentence, shape (n_windows,).
    is_last (BoolArray): Whether it ends with it, shape (n_windows,).
    """

    starts: IntArray
    ends: IntArray
    is_first: BoolArray
    is_last: BoolArray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def has_overlap(self) -> bool:
        """RETURNS (bool): Whether any of them overlap."""
        return bool((self.starts[1:] < self.ends[:-1]).any())

    def measure_context(self, entities: Sequence[Entity], windows: IntArray) -> FloatArray:
        """Measure how many tokens of its window an entity has around it, on the side where they are
        fewer. Where the sentence ends with the window, no more could be seen: that side counts as
        endless.

        entities (Sequence[Entity]): Entities of the doc.
        windows (IntArray): The number of a window that each one lies in, shape (n_entities,).
        RETURNS (FloatArray): Shape (n_entities,).
        """
        before = numpy.array([entity.start for entity in entities]) - self.starts[windows]
        behind = self.ends[windows] - numpy.array([entity.end for entity in entities])
        return numpy.minimum(
            numpy.where(self.is_first[windows], numpy.inf, before),
            numpy.where(self.is_last[windows], numpy.inf, behind),
        )

    def locate(self, entities: Sequence[Entity]) -> IntArray:
        """Find the window that shows most of each entity's context, among those that hold it as a
        whole.

        entities (Sequence[Entity]): Entities of the doc.
        RETURNS (IntArray): Its number, or -1 where there is none, shape (n_entities,).
        """
        return self._find_best(entities)[0]

    def _find_best(self, entities: Sequence[Entity]) -> tuple[IntArray, FloatArray]:
        """That window and the context it shows, -1 and -1 where there is none."""
        # If any hold an entity as a whole, all from the first to the last one do.
        first = numpy.searchsorted(self.ends, [e.end for e in entities], side="left")
        last = numpy.searchsorted(self.starts, [e.start for e in entities], side="right") - 1
        places = numpy.full(len(entities), -1)
        best = numpy.full(len(entities), -1.0)
        for step in range(int((last - first).max(initial=-1)) + 1):
            other = (first + step).clip(max=len(self) - 1)
            context = self.measure_context(entities, other)
            is_better = (first + step <= last) & (context > best)
            places = numpy.where(is_better, other, places)
            best = numpy.where(is_better, context, best)
        return places, best

    def merge(self, entities: Sequence[Entity], windows: IntArray) -> list[Entity]:
        """Merge what was found in windows that overlap.

        Whether an entity stands is decided by the window that shows most of its context, among
        those that hold it as a whole: so an entity that a border cut short in one window gives way
        to what the other one, which sees all of it, has found. It has the highest score with which
        it was found.

        entities (Sequence[Entity]): Entities of the doc.
        windows (IntArray): The number of the window in which each one was found, shape
            (n_entities,).
        RETURNS (list[Entity]): The entities that stand, each once, ordered by their tokens.
        """
        if not len(entities):
            return []
        best = self._find_best(entities)[1]
        stands = self.measure_context(entities, windows) >= best
        scores: dict[Entity, float] = {}
        for entity in entities:
            scores[entity] = max(entity.score, scores.get(entity, 0.0))
        kept = {e for e, is_kept in zip(entities, stands.tolist(), strict=True) if is_kept}
        merged = [Entity(e.label, e.fragments, s) for e, s in scores.items() if e in kept]
        return sorted(merged, key=lambda entity: list_tokens(entity.fragments))


def find_windows(doc: Doc, size: int, overlap: int = 0) -> Windows:
    """Cut a doc into windows: its sentences, as they are set or else as full stops and line ends
    tell; one that is longer than a window is cut behind the last mark of punctuation in the
    window's second half, if there is one, and goes on with the last tokens before the cut.

    An entity of at most `overlap` + 1 tokens, from the first to the last one, lies in a window as a
    whole, if it crosses no sentence's border.

    doc (Doc): The doc.
    size (int): The longest window, in tokens.
    overlap (int): How many tokens of a window the next one has as well, less than the size.
    RETURNS (Windows): The windows; none for an empty doc.
    """
    borders = _find_sentences(doc)
    if numpy.diff(borders).max(initial=0) <= size:
        is_whole = numpy.ones(len(borders) - 1, dtype=bool)
        return Windows(borders[:-1], borders[1:], is_whole, is_whole)
    is_stop = numpy.isin(doc.to_array("ORTH"), _STOPS)
    starts, ends = [], []
    for start, border in pairwise(borders.tolist()):
        while border - start > size:
            middle = start + max(size // 2, overlap)
            stops = numpy.flatnonzero(is_stop[middle : start + size])
            starts.append(start)
            ends.append(middle + int(stops[-1]) + 1 if len(stops) else start + size)
            start = ends[-1] - overlap
        starts.append(start)
        ends.append(border)
    found = numpy.array(starts), numpy.array(ends)
    return Windows(*found, *(numpy.isin(places, borders) for places in found))


def _find_sentences(doc: Doc) -> IntArray:
    """Where sentences begin, and the doc's end: (n_sentences + 1,)."""
    n_tokens = len(doc)
    if n_tokens == 0:
        return numpy.zeros(1, dtype=numpy.int64)
    if doc.has_annotation("SENT_START"):
        is_start = doc.to_array("SENT_START").astype(numpy.int64) == 1
    else:
        # As spaCy's sentencizer: at the first token behind a stop that is no punctuation.
        is_stop = numpy.isin(doc.to_array("ORTH"), _FULL_STOPS)
        flags = doc.to_array(["IS_PUNCT", "IS_SPACE"]).astype(bool)
        is_word = ~(is_stop | flags.any(axis=1))
        token = numpy.arange(n_tokens)
        last_stop = numpy.maximum.accumulate(numpy.where(is_stop, token, -1))
        last_word = numpy.maximum.accumulate(numpy.where(is_word, token, -1))
        is_start = numpy.zeros(n_tokens, dtype=bool)
        is_start[1:] = is_word[1:] & (last_stop[:-1] > last_word[:-1])
    is_start[0] = True
    return numpy.append(numpy.flatnonzero(is_start), n_tokens)


def cut_doc(doc: Doc, size: int) -> list[int]:
    """Cut a doc into windows that do not overlap: see `find_windows`.

    doc (Doc): The doc.
    size (int): The longest window, in tokens.
    RETURNS (list[int]): The offset behind the last token of each window; none for an empty doc.
    """
    ends: list[int] = find_windows(doc, size).ends.tolist()
    return ends


def select_inside(entities: Sequence[Entity], ends: Sequence[int]) -> list[Entity]:
    """Select the entities that lie within one window.

    entities (Sequence[Entity]): Entities of a doc.
    ends (Sequence[int]): The offset behind the last token of each window.
    RETURNS (list[Entity]): Those that do.
    """
    firsts = numpy.searchsorted(ends, [entity.start for entity in entities], side="right")
    lasts = numpy.searchsorted(ends, [entity.end - 1 for entity in entities], side="right")
    return [e for e, inside in zip(entities, (firsts == lasts).tolist(), strict=True) if inside]
