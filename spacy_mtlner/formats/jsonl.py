"""The interchange format: JSON lines with character offsets, for entities of any kind.

`{"text": str, "entities": [{"label": str, "spans": [[start, end], ...]}]}`: ends are exclusive,
several spans make a discontinuous entity. `"document": str` beside the text may name the document
that it is a part of; other keys are ignored.
"""

import json
from collections.abc import Iterable, Iterator
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

_RECORD_KEYS = frozenset({"text", "entities", "document"})
_ENTITY_KEYS = frozenset({"label", "spans"})
EXPECTED = 'Expected {"text": str, "entities": [{"label": str, "spans": [[start, end], ...]}]}.'


def read_jsonl(path: Path, report: Report) -> Iterator[Record]:
    """Read a file of the interchange format.

    path (Path): The file.
    report (Report): Counts what is skipped, repaired and ignored.
    YIELDS (Record): One record per line.
    RAISES (CorpusError): If the file is not of this format.
    """
    for line, value in read_json_lines(path, report):
        match value:
            case {"text": str(text), "entities": list(entities)}:
                document = value.get("document")
                if not (document is None or isinstance(document, str)):
                    raise CorpusError(path, line, "The document's name is no string.", EXPECTED)
                for name in sorted(value.keys() - _RECORD_KEYS):
                    report.ignore(f"key {name!r} of a record", path, line)
                annotations = [_parse_entity(entity, path, line, report) for entity in entities]
                yield make_record(text, annotations, path, line, report, document=document)
            case _:
                raise CorpusError(path, line, "Not a record with text and entities.", EXPECTED)


def write_jsonl(records: Iterable[Record], path: Path, report: Report) -> None:
    """Write records to a file of the interchange format, which can hold all of them.

    records (Iterable[Record]): The records.
    path (Path): The file.
    report (Report): Counts the records and their entities.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            report.add_record(record)
            entities = [{"label": label, "spans": spans} for label, spans in record.entities]
            value: dict[str, Any] = {"text": record.text, "entities": entities}
            if record.document is not None:
                value["document"] = record.document
            file.write(f"{json.dumps(value, ensure_ascii=False)}\n")


def _parse_entity(value: Any, path: Path, line: int, report: Report) -> Annotation:
    match value:
        case {"label": str(label), "spans": list(pairs)}:
            spans = parse_spans(pairs)
            if spans is not None:
                for name in sorted(value.keys() - _ENTITY_KEYS):
                    report.ignore(f"key {name!r} of an entity", path, line)
                return Annotation(label, spans)
    raise CorpusError(path, line, f"Not an entity: {json.dumps(value)[:80]}.", EXPECTED)
