"""Finding out the format of a file, and the columns of one that has columns."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from spacy_mtlner.formats.base import (
    CorpusError,
    Report,
    UnknownFormatError,
    describe_json_error,
    read_lines,
)
from spacy_mtlner.formats.cmeee import find_annotation
from spacy_mtlner.formats.columns import DOCUMENT_START, is_row, make_splitter
from spacy_mtlner.formats.jsonl import EXPECTED

_N_LINES = 3000
_TAG = re.compile(r"O|[BIMELUSW]-[^\s|,;]+")
# A character of a script without blanks, and its place in the word.
_DIGIT_TOKEN = re.compile(r"[^\x00-\u02ff][0-9]")
_DIGITS = frozenset("0123456789")
_NUMBER = re.compile(r"[0-9]+([-.:][0-9]+)*")  # Also CoNLL-U's ranges, and offsets.
_PHRASES = frozenset(
    {"ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP"}
)
# The first one that gives columns of tags: blanks after tabs, as tokens may hold blanks.
_SEPARATORS = ("\t", None, ",", ";", "|")
_TAG_SEPARATORS = ("|", ",", ";")
_NO_SEPARATOR = "\n"
_COMMENT = "#"
_OTHER_JSON = "One object per line: docs/formats.md tells how to make them of other JSON."


def detect_format(path: Path) -> tuple[str, dict[str, Any]]:
    """Find out a corpus file's format by its name and its first lines.

    path (Path): The file, or a folder of brat files.
    RETURNS (tuple[str, dict[str, Any]]): The format's name in `READERS`, and options for its
        reader.
    RAISES (UnknownFormatError): If the format cannot be told.
    RAISES (CorpusError): If the file cannot be read or has a header.
    """
    is_pair = path.suffix == ".txt" and path.with_suffix(".ann").is_file()
    if path.is_dir() or path.suffix == ".ann" or is_pair:
        return "brat", {}
    if path.suffix.lower() == ".spacy":
        return "spacy", {}
    lines = read_head(path)
    filled = [line for line in lines if line.strip()]
    if not filled:
        raise UnknownFormatError(path, None, "Is empty: its format cannot be told.")
    first = filled[0].lstrip()
    if first.startswith(("<?xml", "<!DOCTYPE", "<set", "<article")):
        return "genia", {}
    if first.startswith(("[", "{")) and (name := _detect_json(filled)):
        return name, {}
    if any(map(find_annotation, filled)):
        return "cmeee", {}
    options = detect_columns(lines)
    if options is not None:
        return "columns", options
    if first.startswith(("[", "{")):
        number = lines.index(filled[0]) + 1
        message = f"Its format cannot be told: {_describe_json(first)}"
        raise UnknownFormatError(path, number, message, f"{EXPECTED} {_OTHER_JSON}")
    if detect_columns(lines[1:]) is not None:
        raise CorpusError(path, 1, "Looks like a header above columns.", "Remove that line.")
    hint = (
        "Name it with --format, and columns with --separator, --token-column, --tag-columns, "
        "--comment."
    )
    raise UnknownFormatError(path, None, "Its format cannot be told.", hint)


def read_head(path: Path) -> list[str]:
    """Read the first lines of a file.

    path (Path): The file.
    RETURNS (list[str]): So many lines as tell its format.
    RAISES (CorpusError): If the file cannot be read or is not UTF-8.
    """
    return [line for _, line in islice(read_lines(path, Report()), _N_LINES)]


def _detect_json(lines: Sequence[str]) -> str | None:
    if any('"start_idx"' in line for line in lines):
        return "cmeee"
    try:
        value = json.loads(lines[0])
    except (ValueError, RecursionError):
        return None
    match value:
        case {"text": str(), "label": dict()}:
            return "cluener"
        case {"text": str(), "entities": list()}:
            return "jsonl"
    return None


def _describe_json(line: str) -> str:
    """What a line is that begins as JSON."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as err:
        return describe_json_error(err)
    if isinstance(value, list):
        return "a JSON list."
    keys = ", ".join(map(repr, value))
    return f"an object with the keys {keys}." if keys else "an empty object."


def detect_columns(lines: Sequence[str]) -> dict[str, Any] | None:
    """Find out how a file's columns are separated and which ones hold tokens and tags.

    A column is one of tags if all its cells are, but for the phrases in CoNLL-2003's third one.
    Tokens are in that of the others with the most distinct cells, without those that number the
    tokens or have empty cells, as names of documents or sentences have. Lines that begin with # are
    comments if they do not fit the others' columns.

    lines (Sequence[str]): The first lines of the file.
    RETURNS (Optional[dict[str, Any]]): Options for `read_columns`, or None if no column has tags.
    """
    rows = [line for line in lines if line.strip() and not line.startswith(DOCUMENT_START)]
    plain = [row for row in rows if not row.startswith(_COMMENT)]
    found = _detect_columns(plain)
    if len(plain) == len(rows):
        return found
    if found is None:
        return _detect_columns(rows)
    split = make_splitter(found["separator"])
    width = _find_width([*map(split, plain)])
    how = (width, found["tag_columns"], found.get("tag_separator"))
    kept = [row for row in rows if not row.startswith(_COMMENT) or is_row(split(row), *how)]
    options = _detect_columns(kept) or found
    return options if len(kept) == len(rows) else {**options, "comment": _COMMENT}


def _find_width(rows: Sequence[Sequence[str]]) -> int:
    # A broken line does not tell the format: it is for the reader to name it.
    return Counter(map(len, rows)).most_common(1)[0][0]


def _detect_columns(rows: Sequence[str]) -> dict[str, Any] | None:
    if not rows:
        return None
    for separator in _SEPARATORS:
        cells = [*map(make_splitter(separator), rows)]
        width = _find_width(cells)
        columns = [*zip(*(c for c in cells if len(c) == width), strict=True)]
        tags = {i: found for i, column in enumerate(columns) if (found := _tag_separator(column))}
        others = [i for i in range(width) if i not in tags and not _is_about_tokens(columns[i])]
        if not tags or not others:
            continue
        token_column = max(others, key=lambda i: len({*columns[i]}))  # The first one of them.
        tag_columns = [i for i in tags if not _are_phrases(columns[i])] or [*tags]
        options = {"separator": separator, "token_column": token_column, "tag_columns": tag_columns}
        tag_separators = {tags[i] for i in tag_columns} - {_NO_SEPARATOR}
        if tag_separators:
            options["tag_separator"] = min(tag_separators)
        tokens = columns[token_column]
        if any(map(_DIGIT_TOKEN.fullmatch, tokens)) and all(t[1:] in _DIGITS for t in tokens):
            options["segmentation_digit"] = True
        return options
    return None


def _tag_separator(cells: Sequence[str]) -> str | None:
    """What separates the tags in a column's cells; None if the column is not one of tags."""
    distinct = {*cells}
    for separator in (_NO_SEPARATOR, *_TAG_SEPARATORS):
        if all(_TAG.fullmatch(tag) for cell in distinct for tag in cell.split(separator)):
            return separator
    return None


def _is_about_tokens(cells: Sequence[str]) -> bool:
    """Whether a column numbers the tokens, or names what several of them are parts of."""
    return not all(cells) or all(map(_NUMBER.fullmatch, cells))


def _are_phrases(cells: Sequence[str]) -> bool:
    return {*cells} != {"O"} and {cell[2:] for cell in cells} - {""} <= _PHRASES
