"""Windows: the parts of docs that a model reads at once, as its cost grows faster than they do."""

from collections.abc import Sequence

import numpy
from spacy.strings import get_string_id
from spacy.tokens import Doc

from spacy_mtlner.codecs.tags import BoolArray
from spacy_mtlner.entities import Entity

_STOPS = [".", "!", "?", ";", "。", "！", "？", "；", "…", "......", "\n", "\n\n"]
_STOP_HASHES = numpy.array([get_string_id(text) for text in _STOPS], dtype=numpy.uint64)


def cut_doc(doc: Doc, size: int) -> list[int]:
    """Cut a doc into windows: its sentences where they are set, else the whole doc; what of these
    is longer than a window is cut behind the last full stop in the window's second half, if there
    is one.

    doc (Doc): The doc.
    size (int): The longest window, in tokens.
    RETURNS (list[int]): The offset behind the last token of each window; none for an empty doc.
    """
    if len(doc) == 0:
        return []
    borders = [0, len(doc)]
    if doc.has_annotation("SENT_START"):
        starts = doc.to_array("SENT_START").astype(numpy.int64) == 1
        starts[0] = True
        borders = [*numpy.flatnonzero(starts).tolist(), len(doc)]
    if max(numpy.diff(borders)) <= size:
        return borders[1:]
    is_stop: BoolArray = numpy.isin(doc.to_array("ORTH"), _STOP_HASHES)
    ends = []
    start = 0
    for border in borders[1:]:
        while border - start > size:
            middle = start + size // 2
            stops = numpy.flatnonzero(is_stop[middle : start + size])
            start = middle + int(stops[-1]) + 1 if len(stops) else start + size
            ends.append(start)
        ends.append(border)
        start = border
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
