"""The interchange format: JSON lines with character offsets, for entities of any kind.

`{"text": str, "entities": [{"label": str, "spans": [[start, end], ...]}]}`: ends are exclusive,
several spans make a discontinuous entity, other keys have no meaning here.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    make_record,
    parse_spans,
    read_json_lines,
    replacing,
)
from spacy_mtlner.formats.docs import read_char_entities

_EXPECTED = 'Expected {"text": str, "entities": [{"label": str, "spans": [[start, end], ...]}]}.'


def read_jsonl(path: Path, report: Report) -> Iterator[Record]:
    """Read a file of the interchange format.

    path (Path): The file.
    report (Report): Counts what is skipped and repaired.
    YIELDS (Record): One record per line.
    RAISES (CorpusError): If the file is not of this format.
    """
    for line, value in read_json_lines(path, report):
        match value:
            case {"text": str(text), "entities": list(entities)}:
                annotations = [_parse_entity(entity, path, line) for entity in entities]
                yield make_record(text, annotations, path, line, report)
            case _:
                raise CorpusError(path, line, "Not a record with text and entities.", _EXPECTED)


def write_jsonl(docs: Iterable[Doc], path: Path, key: str = DEFAULT_KEY) -> None:
    """Write docs to a file of the interchange format.

    docs (Iterable[Doc]): The docs.
    path (Path): The file; it appears when it is complete.
    key (str): The spans key to read.
    RAISES (ValueError): If a doc lacks the key: it is not annotated.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for i, doc in enumerate(docs):
            if key not in doc.spans:
                raise ValueError(f"Doc {i} has no doc.spans[{key!r}]: it is not annotated for it.")
            entities = [
                {"label": label, "spans": fragments}
                for label, fragments in read_char_entities(doc, key)
            ]
            line = json.dumps({"text": doc.text, "entities": entities}, ensure_ascii=False)
            file.write(f"{line}\n")


def _parse_entity(value: Any, path: Path, line: int) -> Annotation:
    match value:
        case {"label": str(label), "spans": list(value)}:
            spans = parse_spans(value)
            if spans is not None:
                return label, spans
    raise CorpusError(path, line, f"Not an entity: {json.dumps(value)[:80]}.", _EXPECTED)
