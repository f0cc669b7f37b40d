"""brat's standoff format: a folder with a `<name>.txt` and a `<name>.ann` for each document.

A line `T1<TAB>label start end;start end<TAB>surface` of the `.ann` is an entity: offsets count the
characters of the `.txt`, ends are exclusive. All other lines say more about entities.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    is_about_corpus,
    make_record,
    open_binary,
    read_lines,
    read_text,
)

# What a line is, by its first character; that of an entity is T.
_IGNORED_MARKS = {
    "E": "event",
    "R": "relation",
    "A": "attribute",
    "M": "attribute",
    "N": "normalization",
    "#": "note",
    "*": "equivalence",
}

# No text is longer, and Python refuses to read numbers of thousands of digits.
_INTEGER = re.compile("-?[0-9]{1,18}")

# White space would end a label, and a ";" at its end would be one between offsets.
_NOT_IN_A_LABEL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]|;\Z")
# A part of a fragment without the tabs and line ends that brat's lines cannot hold.
_PIECE = re.compile("\\S(?:[^\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]*\\S)?")

_NOT_IN_A_FILE_NAME = re.compile(r'^\.|[\x00-\x1f\x7f<>:"/\\|?*]')
_MAX_NAME_BYTES = 200  # Of 255 on most systems, so that a number and a suffix have room.

# Without the rule on overlap, brat marks nested entities as errors.
_CONFIG = """\
[entities]
{labels}
[relations]
<OVERLAP>\tArg1:<ENTITY>, Arg2:<ENTITY>, <OVL-TYPE>:<ANY>

[events]

[attributes]
"""


class _TextBound(NamedTuple):
    """An annotation with the text that its line says it covers, which is empty if it says none."""

    label: str
    spans: list[tuple[int, int]]
    surface: str
    line: int


def read_brat(path: Path, report: Report) -> Iterator[Record]:
    """Read a folder of brat's standoff format, or one document of it.

    An entity whose surface differs from the text is skipped. Where a file's surfaces show that its
    offsets count something other than the text's characters, the offsets are converted.

    path (Path): The folder, whose sub-folders are not read, or a document's `.txt` or `.ann`.
    report (Report): Counts what is skipped, repaired and ignored.
    YIELDS (Record): One record per document, sorted by name.
    RAISES (CorpusError): If a file is missing or cannot be read.
    """
    for ann_path in _find_documents(path, report):
        text = read_text(ann_path.with_suffix(".txt"), report)
        bounds = _convert(text, [*_read_text_bounds(ann_path, report)], ann_path, report)
        annotations = [*_check_surfaces(text, bounds, ann_path, report)]
        # A file's name need not be Unicode, but a document's name is stored as such.
        document = ann_path.stem.encode(errors="replace").decode()
        yield make_record(text, annotations, ann_path, 1, report, document=document)


def write_brat(records: Iterable[Record], path: Path, report: Report) -> None:
    """Write records to a folder of brat's standoff format, with an `annotation.conf`.

    A file is named after the document, as far as a file's name can be, and numbered where that
    name is taken or there is none.

    records (Iterable[Record]): The records.
    path (Path): The folder, which must not exist yet.
    report (Report): Counts the records with their entities, and labels that brat cannot hold.
    """
    path.mkdir()
    numbers: dict[str, int] = {}
    labels: set[str] = set()
    for i, record in enumerate(records, start=1):
        report.add_record(record)
        name = _choose_name(record.document or f"{i:06}", numbers)
        # A reader takes off a byte order mark, so a text that begins with one needs another.
        mark = "\ufeff" if record.text.startswith("\ufeff") else ""
        _write(path / f"{name}.txt", mark + record.text)
        lines: list[str] = []
        for (label, fragments), line in record.located:
            written = _NOT_IN_A_LABEL.sub("_", label)
            if written != label:
                report.lose("white space in a label, written as _", record.path, line)
            labels.add(written)
            spans = [
                piece.span()
                for start, end in fragments
                for piece in _PIECE.finditer(record.text, start, end)
            ]
            offsets = ";".join(f"{start} {end}" for start, end in spans)
            surface = _cover(record.text, spans)
            lines.append(f"T{len(lines) + 1}\t{written} {offsets}\t{surface}\n")
        _write(path / f"{name}.ann", "".join(lines))
    config = _CONFIG.format(labels="".join(f"{label}\n" for label in sorted(labels)))
    _write(path / "annotation.conf", config)


def _find_documents(path: Path, report: Report) -> list[Path]:
    """The `.ann` files beside which there is a `.txt`."""
    try:
        names = os.listdir(path) if path.is_dir() else None
    except OSError as err:
        raise CorpusError(path, None, f"Cannot be read: {err.strerror}.") from None
    if names is None:
        return [_find_document(path)]
    texts, annotated = (
        {name.removesuffix(suffix) for name in names if name.endswith(suffix) and name[0] != "."}
        for suffix in (".txt", ".ann")
    )
    if not annotated & texts:
        hint = "Name the folder that holds them itself."
        raise CorpusError(path, None, "Holds no pairs of .txt and .ann files.", hint)
    for stem in sorted(texts - annotated):
        text = path / f"{stem}.txt"
        if is_about_corpus(text):
            report.ignore("file about the corpus", text, 1)
        else:
            report.skip("text without an .ann file", text, 1)
    for stem in sorted(annotated - texts):
        report.skip("annotation without a .txt file", path / f"{stem}.ann", 1)
    return [path / f"{stem}.ann" for stem in sorted(annotated & texts)]


def _find_document(path: Path) -> Path:
    open_binary(path).close()
    if path.suffix not in (".txt", ".ann"):
        raise CorpusError(path, None, "Neither a folder nor a .txt or .ann file.")
    other = path.with_suffix(".ann" if path.suffix == ".txt" else ".txt")
    if not other.exists():
        raise CorpusError(path, None, f"There is no {other.name} beside it.")
    return path.with_suffix(".ann")


def _read_text_bounds(path: Path, report: Report) -> Iterator[_TextBound]:
    for number, line in read_lines(path, report):
        if not line or line.isspace():
            continue
        if line[0] in _IGNORED_MARKS:
            report.ignore(_IGNORED_MARKS[line[0]], path, number)
            continue
        if line[0] != "T":
            report.skip("no brat annotation", path, number)
            continue
        _, place, surface, *_ = [*line.split("\t", 2), "", ""]
        label_and_spans = _parse_place(place)
        if label_and_spans is None:
            report.skip("offsets cannot be read", path, number)
            continue
        yield _TextBound(*label_and_spans, surface, number)


def _parse_place(place: str) -> tuple[str, list[tuple[int, int]]] | None:
    """The label and the spans of `label start end;start end`; None if there are no spans."""
    spans: list[tuple[int, int]] = []
    # From the right: a label may hold blanks and semicolons.
    parts = place.split(";")
    while parts:
        label, *offsets = ["", *parts.pop().rsplit(None, 2)][-3:]
        if len(offsets) < 2 or not all(map(_INTEGER.fullmatch, offsets)):
            return None
        spans.append((int(offsets[0]), int(offsets[1])))
        if label:
            return ";".join([*parts, label]).strip(), spans[::-1]
    return "", spans[::-1]


def _convert(text: str, bounds: list[_TextBound], path: Path, report: Report) -> list[_TextBound]:
    """Convert offsets if all surfaces of a file fit then, and as they are not all of them do."""
    if all(_fits(text, bound) for bound in bounds):
        return bounds
    for reason, count_units in _OTHER_COUNTS.items():
        # Where two characters share an offset, the first one counts as nothing.
        offsets = {n: i for i, n in enumerate(accumulate(count_units(text), initial=0))}
        converted = [
            bound._replace(
                spans=[(offsets.get(start, -1), offsets.get(end, -1)) for start, end in bound.spans]
            )
            for bound in bounds
        ]
        if all(_fits(text, bound) for bound in converted):
            for before, after in zip(bounds, converted, strict=True):
                if after != before:
                    report.repair(reason, path, before.line)
            return converted
    return bounds


def _utf16_units(text: str) -> Iterator[int]:
    return (1 + (char > "\uffff") for char in text)


def _line_end_units(text: str) -> Iterator[int]:
    return (int(pair != ("\r", "\n")) for pair in pairwise(f" {text}"))


# What offsets count, and how many units each character is then.
_OTHER_COUNTS: dict[str, Callable[[str], Iterator[int]]] = {
    "offsets counted in UTF-16": _utf16_units,
    "offsets counted with one character per line end": _line_end_units,
}


def _check_surfaces(
    text: str, bounds: list[_TextBound], path: Path, report: Report
) -> Iterator[Annotation]:
    for bound in bounds:
        # Offsets that are none of the text's are reported as such where the record is made.
        if _fits(text, bound) or not _lies_inside(text, bound.spans):
            yield Annotation(bound.label, bound.spans, bound.line)
        else:
            report.skip("surface differs from the text", path, bound.line)


def _fits(text: str, bound: _TextBound) -> bool:
    """Whether an annotation's surface, if there is one, is the text at its offsets."""
    surface = bound.surface.split()
    return not surface or (
        _lies_inside(text, bound.spans) and _cover(text, bound.spans).split() == surface
    )


def _lies_inside(text: str, spans: list[tuple[int, int]]) -> bool:
    return all(0 <= start < end <= len(text) for start, end in spans)


def _cover(text: str, spans: list[tuple[int, int]]) -> str:
    return " ".join(text[start:end] for start, end in spans)


def _choose_name(document: str, numbers: dict[str, int]) -> str:
    """A file's name that is not in `numbers`, which holds the last number of each name in use."""
    start = document.encode(errors="replace")[:_MAX_NAME_BYTES].decode(errors="ignore")
    base = name = _NOT_IN_A_FILE_NAME.sub("_", start)
    while _fold(name) in numbers:
        numbers[_fold(base)] += 1
        name = f"{base}-{numbers[_fold(base)]:06}"
    numbers[_fold(name)] = 1
    return name


def _fold(name: str) -> str:
    """What names have in common that some file systems take for the same."""
    return unicodedata.normalize("NFC", name.casefold())


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
