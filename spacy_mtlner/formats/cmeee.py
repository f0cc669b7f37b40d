"""CMeEE: Chinese medical text with nested entities, in the two forms that are published.

Lines (CHIP 2020) `text|||start    end    type|||start    end    type|||`: ends are **inclusive**.

JSON (CBLUE), one list or an object per line: `{"text": str, "entities": [{"start_idx": int,
"end_idx": int, "type": str, "entity": str}, ...]}`. Ends are inclusive in some versions and
exclusive in others: the surface in "entity" tells.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    describe_json_error,
    is_unicode,
    make_record,
    read_json_lines,
    read_lines,
    read_text,
)

_EXPECTED_LINES = "Expected lines `text|||start    end    type|||...`, or JSON."
_EXPECTED_LIST = "The file must be one JSON list, or have one JSON value per line."
_EXPECTED_JSON = (
    'Expected {"text": str, "entities": [{"start_idx": int, "end_idx": int, "type": str, '
    '"entity": str}, ...]}; "entity" may be missing.'
)
_RECORD_KEYS = frozenset({"text", "entities"})
_ENTITY_KEYS = frozenset({"start_idx", "end_idx", "type", "entity"})

# Where there are more than three bars, the first ones belong to what stands before.
_split_line = re.compile(r"\|\|\|(?!\|)").split
_match_part = re.compile(r"\s*(-?\d{1,9})\s+(-?\d{1,9})\s+([^\s|]+)\s*").fullmatch
_find_two_bars = re.compile(r"(?<!\|)\|\|(?!\|)\s*\d+\s+\d+\s+[^\s|]").search
# Tells a line from JSON, as a text may begin with a bracket.
find_annotation = re.compile(r"\|\|\|\s*\d+\s+\d+\s").search
_decode = json.JSONDecoder().raw_decode


def read_cmeee(path: Path, report: Report) -> Iterator[Record]:
    """Read a file of the CMeEE corpus. An entity whose surface differs from the text is skipped.

    path (Path): The file.
    report (Report): Counts what is skipped, repaired and ignored.
    YIELDS (Record): One record per text.
    RAISES (CorpusError): If the file is not of this format, or has no entities, as the test part.
    """
    lines = read_lines(path, Report())
    first_line = next((content for _, line in lines if (content := line.strip())), "")
    first = first_line[:1]
    if first not in {"[", "{"} or find_annotation(first_line):
        yield from _read_bar_lines(path, report)
        return
    values = _read_json_list(path, report) if first == "[" else read_json_lines(path, report)
    for line, value in values:
        yield _parse_record(value, path, line, report)


def _read_bar_lines(path: Path, report: Report) -> Iterator[Record]:
    n_texts = n_annotated = 0
    # The offsets of the published lines count byte order marks within the file.
    for number, line in read_lines(path, report, keep_marks=True):
        if not line.strip():
            continue
        text, *parts = _split_line(line)
        n_texts += 1
        n_annotated += bool(parts)
        if _find_two_bars(text):
            report.skip("text with 'start end type' behind two bars instead of three", path, number)
            continue
        annotations = list(_parse_parts(parts, path, number, report))
        yield make_record(text, annotations, path, number, report)
    if n_texts and not n_annotated:
        raise CorpusError(path, 1, "No line of the file has '|||'.", _EXPECTED_LINES)


def _parse_parts(parts: list[str], path: Path, line: int, report: Report) -> Iterator[Annotation]:
    for part in parts:
        found = _match_part(part)
        if found:
            start, last, label = found.groups()
            yield Annotation(label, [(int(start), int(last) + 1)])
        elif part.strip():
            report.skip("annotation is not 'start end type'", path, line)


def _read_json_list(path: Path, report: Report) -> Iterator[tuple[int, Any]]:
    """Read a JSON list value by value, each one with the line where it begins."""
    text = re.sub("\r\n?", "\n", read_text(path, report))
    start = _skip_space(text, text.index("[") + 1)
    line = 1 + text.count("\n", 0, start)
    end = start  # Of the list; until it is reached, the comma behind each value.
    while not text.startswith("]", end):
        try:
            value, end = _decode(text, start)
            unicode_text = json.dumps(value, ensure_ascii=False)
            end = _skip_space(text, end)
            if not text.startswith((",", "]"), end):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
        except (ValueError, RecursionError) as err:
            place = getattr(err, "lineno", line)
            raise CorpusError(path, place, describe_json_error(err), _EXPECTED_LIST) from None
        if is_unicode(unicode_text):
            yield line, value
        else:
            report.skip("record with half a surrogate pair", path, line)
        next_start = _skip_space(text, end + 1)
        line += text.count("\n", start, next_start)
        start = next_start
    behind = _skip_space(text, end + 1)
    if behind < len(text):
        line = 1 + text.count("\n", 0, behind)
        raise CorpusError(path, line, "Not JSON (more behind the list).", _EXPECTED_LIST)


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1].isspace():
        position += 1
    return position


def _parse_record(value: Any, path: Path, line: int, report: Report) -> Record:
    match value:
        case {"text": str(text), "entities": list(entities)}:
            for name in sorted(value.keys() - _RECORD_KEYS):
                report.ignore(f"key {name!r} of a record", path, line)
            annotations = list(_parse_entities(entities, text, path, line, report))
            return make_record(text, annotations, path, line, report)
        case {"text": str()} if "entities" not in value:
            hint = "It is not annotated; CMeEE's test file has no entities."
            raise CorpusError(path, line, "The record has no 'entities'.", hint)
    raise CorpusError(path, line, "Not a record with text and entities.", _EXPECTED_JSON)


def _parse_entities(
    values: list[Any], text: str, path: Path, line: int, report: Report
) -> Iterator[Annotation]:
    for value in values:
        match value:
            case {"start_idx": start, "end_idx": end, "type": str(label)} if {
                type(start),
                type(end),
            } == {int} and isinstance(surface := value.get("entity"), str | None):
                for name in sorted(value.keys() - _ENTITY_KEYS):
                    report.ignore(f"key {name!r} of an entity", path, line)
                if surface is None:
                    yield Annotation(label, [(start, end + 1)])
                elif _is_at(surface, text, start, end):
                    yield Annotation(label, [(start, start + len(surface))])
                else:
                    report.skip("surface differs from the text", path, line)
            case _:
                message = f"Not an entity: {json.dumps(value)[:80]}."
                raise CorpusError(path, line, message, _EXPECTED_JSON)


def _is_at(surface: str, text: str, start: int, end: int) -> bool:
    """Whether a surface stands in a text from start to end, be the end inclusive or exclusive."""
    fits = len(surface) in {end - start, end - start + 1}
    return start >= 0 and fits and text.startswith(surface, start)
