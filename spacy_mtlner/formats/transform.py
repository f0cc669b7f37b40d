"""What may be done to records between reading and writing: other labels, smaller units."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain

from spacy.pipeline import Sentencizer
from spacy.tokens import Doc, Span

from spacy_mtlner.entities import UNKNOWN_KEY
from spacy_mtlner.formats.base import CharEntity, Record, Report

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Labels:
    """Which labels become which, and which are kept.

    names (Mapping[str, str]): New labels by old ones; other labels stay as they are.
    only (frozenset[str]): The new labels to keep; all if empty.
    drop (frozenset[str]): The new labels to leave out.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls, mappings: Sequence[str] = (), only: Sequence[str] = (), drop: Sequence[str] = ()
    ) -> "Labels":
        """Read the labels from a command line's options.

        mappings (Sequence[str]): "OLD=NEW" or "OLD,OLD,...=NEW" each.
        only (Sequence[str]): "LABEL" or "LABEL,LABEL,..." each.
        drop (Sequence[str]): The same.
        RETURNS (Labels): The labels.
        RAISES (ValueError): If a mapping is malformed, or maps a label twice.
        """
        names: dict[str, str] = {}
        for mapping in mappings:
            old_names, equals, new = mapping.rpartition("=")
            old = _split_list(old_names)
            if not equals or not old or not new.strip():
                raise ValueError(f"--map {mapping!r} is not OLD=NEW or OLD,OLD,...=NEW.")
            for name in old:
                if names.setdefault(name, new.strip()) != new.strip():
                    raise ValueError(f"--map names {name!r} twice: it can have one new label only.")
        kept = frozenset(name for names_ in only for name in _split_list(names_))
        dropped = frozenset(name for names_ in drop for name in _split_list(names_))
        both = ", ".join(sorted(kept & dropped))
        if both:
            raise ValueError(f"--only and --drop both name: {both}.")
        return cls(names, kept, dropped)

    def __bool__(self) -> bool:
        return bool(self.names or self.only or self.drop)

    def find_unknown(self, read: set[str]) -> list[str]:
        """Find labels of the settings that no entity has.

        read (set[str]): The labels of all entities, before mapping.
        RETURNS (list[str]): The labels.
        """
        new = {self.names.get(label, label) for label in read}
        return sorted((self.names.keys() - read) | ((self.only | self.drop) - new))


def _split_list(value: str) -> list[str]:
    return [name for part in value.split(",") if (name := part.strip())]


def relabel(records: Iterable[Record], labels: Labels, report: Report) -> Iterator[Record]:
    """Give entities other labels, and leave out those whose label is not wanted.

    records (Iterable[Record]): The records.
    labels (Labels): The labels.
    report (Report): Counts what is left out, and collects the labels that were read.
    YIELDS (Record): The records.
    """
    for record in records:
        entities: dict[CharEntity, int] = {}
        renamed: dict[CharEntity, str | None] = {}
        for (label, fragments), line in record.located:
            new = labels.names.get(label, label)
            report.labels_read.add(label)
            entity = CharEntity(new, fragments)
            is_wanted = new not in labels.drop and (not labels.only or new in labels.only)
            renamed[CharEntity(label, fragments)] = new if is_wanted else None
            if not is_wanted:
                report.ignore(f"entity with label {new!r}", record.path, line)
            elif entity in entities:
                report.ignore("equal to another entity after mapping", record.path, line)
            else:
                entities[entity] = line
        if record.doc is not None:
            _relabel_ents(record.doc, renamed)
        yield replace(record, entities=tuple(entities), entity_lines=tuple(entities.values()))


def _relabel_ents(doc: Doc, renamed: Mapping[CharEntity, str | None]) -> None:
    """Relabel the gold entities in `doc.ents` as well, so that they do not tell another story."""
    kept, left_out = [], []
    for ent in doc.ents:
        entity = CharEntity(ent.label_, ((ent.start_char, ent.end_char),))
        label = renamed.get(entity, ent.label_)
        if label is None:
            left_out.append(ent)
        elif label != ent.label_:
            kept.append(Span(doc, ent.start, ent.end, label, kb_id=ent.kb_id, span_id=ent.id))
        else:
            kept.append(ent)
    if left_out or kept != [*doc.ents]:
        doc.set_ents(kept, outside=left_out, default="unmodified")


def split_sentences(
    records: Iterable[Record],
    n_sents: int,
    make_doc: Callable[[str], Doc],
    report: Report,
) -> Iterator[Record]:
    """Split texts into units of some sentences, but never inside an entity's range.

    Sentences are those of the record's Doc where that has any, else they are found by spaCy's
    sentencizer; a blank line ends a sentence, too. Units have no white space at their borders,
    but for white space in a token of the record's Doc.

    records (Iterable[Record]): The records.
    n_sents (int): Sentences per unit.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    report (Report): Counts units that an entity made longer.
    YIELDS (Record): One record per unit; its document is the record's.
    """
    sentencizer = Sentencizer()
    for record in records:
        if not record.text.strip():
            yield record
            continue
        document = record.document or f"{record.path.stem}-{record.line}"
        doc = record.doc if record.doc is not None else make_doc(record.text)
        borders = _sentence_borders(doc, sentencizer)
        units = _find_units(record, borders, n_sents, report)
        yield from _cut(replace(record, document=document), units, report)


def _sentence_borders(doc: Doc, sentencizer: Sentencizer) -> list[int]:
    """Character offsets where another sentence begins, sorted; no sentence is white space alone."""
    if doc.has_annotation("SENT_START"):
        is_start = (doc.to_array("SENT_START") == 1).tolist()
    else:
        is_start = sentencizer.predict([doc])[0]
    text = doc.text
    offsets = doc.to_array("IDX").tolist()
    found = {offset for offset, starts in zip(offsets, is_start, strict=True) if starts}
    found |= {match.end() for match in _BLANK_LINE.finditer(text)}.intersection(offsets)
    borders: list[int] = []
    last = 0
    for border in sorted(found):
        if text[last:border].strip():
            borders.append(border)
            last = border
    return borders


def _find_units(
    record: Record, borders: list[int], n_sents: int, report: Report
) -> list[tuple[int, int]]:
    """(start, end) of the units: they end at every n-th border that is not inside an entity."""
    ranges = sorted((e.fragments[0][0], e.fragments[-1][1]) for e in record.entities)
    starts = [start for start, _ in ranges]
    furthest = [*accumulate((end for _, end in ranges), max)]
    units: list[tuple[int, int]] = []
    first = n = 0
    for border in (*borders, len(record.text)):
        n += 1
        n_before = bisect_left(starts, border)
        is_inside = n_before > 0 and furthest[n_before - 1] > border
        if is_inside or (n < n_sents and border < len(record.text)):
            continue
        if n > n_sents:
            reason = "unit longer than asked for: an entity crosses the end of a sentence"
            report.repair(reason, record.path, record.line)
        units.append((first, border))
        first, n = border, 0
    return units


def _cut(record: Record, units: list[tuple[int, int]], report: Report) -> Iterator[Record]:
    """The record's units, without white space at their borders and without empty ones."""
    unit_starts = [start for start, _ in units]
    groups: list[list[CharEntity]] = [[] for _ in units]
    for entity in record.entities:
        groups[bisect_right(unit_starts, entity.fragments[0][0]) - 1].append(entity)
    doc = record.doc
    n_ents = 0
    for (start, end), group in zip(units, groups, strict=True):
        text = record.text[start:end]
        first = start + len(text) - len(text.lstrip())
        text = text.strip()
        if not text:
            continue
        part = None
        if doc is not None:
            # Whole tokens, as a unit begins and ends where tokens do: they may hold white space.
            tokens = doc.char_span(first, first + len(text), alignment_mode="expand")
            assert tokens is not None  # Any text of a doc is in some tokens.
            first = tokens.start_char
            part = tokens.as_doc(copy_user_data=True)
            part.user_data.pop(UNKNOWN_KEY, None)  # By tokens of the whole doc.
            text = part.text
            n_ents += len(part.ents)
        entities = tuple(
            CharEntity(label, tuple((a - first, b - first) for a, b in fragments))
            for label, fragments in group
        )
        unknown = tuple(
            (a - first, b - first)
            for a, b in record.unknown
            if first <= a and b <= first + len(text)
        )
        yield replace(
            record, text=text, entities=entities, doc=part, entity_lines=None, unknown=unknown
        )
    if doc is not None:
        for _ in range(len(doc.ents) - n_ents):
            report.skip("entity of doc.ents across the end of a unit", record.path, record.line)
        for _ in doc.cats:
            report.skip("category of a split doc", record.path, record.line)
        for _ in chain.from_iterable(doc.spans.values()):
            report.skip("span of another group of a split doc", record.path, record.line)
