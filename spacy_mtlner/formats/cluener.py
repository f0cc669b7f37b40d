"""CLUENER: JSON lines that list each label's surfaces, with the places where they stand.

`{"text": str, "label": {label: {surface: [[start, end], ...]}}}`: ends are **inclusive**, and each
pair is an entity of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    make_record,
    parse_spans,
    read_json_lines,
)

_EXPECTED = 'Expected {"text": str, "label": {label: {surface: [[start, end], ...]}}}.'


def read_cluener(path: Path, report: Report) -> Iterator[Record]:
    """Read a file of the CLUENER corpus. An entity whose surface differs from the text is skipped.

    path (Path): The file.
    report (Report): Counts what is skipped, repaired and ignored.
    YIELDS (Record): One record per line.
    RAISES (CorpusError): If the file is not of this format, or has no labels, as the test part.
    """
    for line, value in read_json_lines(path, report):
        match value:
            case {"text": str(text), "label": dict(labels)}:
                for name in sorted(value.keys() - {"text", "label"}):
                    report.ignore(f"key {name!r} of a record", path, line)
                annotations = list(_read_annotations(text, labels, path, line, report))
                yield make_record(text, annotations, path, line, report)
            case {"text": str()} if "label" not in value:
                hint = "It is not annotated; CLUENER's test file has no labels."
                raise CorpusError(path, line, "The record has no 'label'.", hint)
            case _:
                raise CorpusError(path, line, "Not a record with text and label.", _EXPECTED)


def _read_annotations(
    text: str, labels: dict[str, Any], path: Path, line: int, report: Report
) -> Iterator[Annotation]:
    for label, surfaces in labels.items():
        if not isinstance(surfaces, dict):
            raise CorpusError(path, line, f"The surfaces of {label!r} are no object.", _EXPECTED)
        for surface, places in surfaces.items():
            spans = parse_spans(places)
            if spans is None:
                raise CorpusError(path, line, f"No list of spans for {surface!r}.", _EXPECTED)
            for start, last in spans:
                if start >= 0 and text[start : last + 1] == surface:
                    yield Annotation(label, [(start, last + 1)])
                else:
                    report.skip("surface differs from the text", path, line)
