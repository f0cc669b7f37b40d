"""What all readers share: records, the report on a corpus, errors, and the checks of an annotation.

A reader is a function `(path, report, **options)` that yields records one by one. It stops with a
`CorpusError` where the file is not what it should be. A single annotation that cannot stand is left
out, one that can be put right is put right, and the report counts both by reason.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from spacy_mtlner.entities import Fragments, merge_touching
from spacy_mtlner.scoring import split_by_form

Annotation = tuple[str, Sequence[tuple[int, int]]]

_N_PLACES = 3


class CorpusError(ValueError):
    """A corpus cannot be read.

    path (Path): The file.
    line (Optional[int]): The line, counted from 1, or None if the error is not in a line.
    message (str): What is wrong.
    hint (str): What to do about it.
    """

    def __init__(self, path: Path, line: int | None, message: str, hint: str = "") -> None:
        self.path = path
        self.line = line
        self.message = message
        self.hint = hint
        place = str(path) if line is None else f"{path}:{line}"
        super().__init__(f"{place}: {message} {hint}".rstrip())


class CharEntity(NamedTuple):
    """An entity of a text; `entities.Entity` is the same on a Doc.

    label (str): The entity's type.
    fragments (Fragments): (start, end) character offsets, end exclusive: sorted, without white
        space at their borders, with more than white space between them.
    """

    label: str
    fragments: Fragments


@dataclass(frozen=True)
class Record:
    """A text of a corpus with its entities.

    text (str): The text.
    entities (tuple[CharEntity, ...]): The entities, each one once.
    path (Path): The file.
    line (int): The line where the record begins, counted from 1.
    """

    text: str
    entities: tuple[CharEntity, ...]
    path: Path
    line: int


@dataclass
class Tally:
    """How often something happened, and where it did first.

    count (int): How often.
    places (list[str]): The first few places, as `<path>:<line>`.
    """

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, path: Path, line: int) -> None:
        """Count one more.

        path (Path): The file.
        line (int): The line.
        """
        self.count += 1
        if len(self.places) < _N_PLACES:
            self.places.append(f"{path}:{line}")


@dataclass
class Report:
    """What a corpus held and what became of it.

    docs (int): Documents.
    tokens (int): Their tokens.
    split_tokens (int): Tokens of the tokenizer that were split for an entity's border.
    entities (Counter[str]): Entities by label.
    nested (int): Entities whose range, from first start to last end, overlaps another one's.
    discontinuous (int): Entities of several fragments.
    not_in_ents (int): Entities that `doc.ents` could not hold, where it was written.
    skipped (dict[str, Tally]): What was left out, by reason.
    repaired (dict[str, Tally]): What was put right, by reason.
    """

    docs: int = 0
    tokens: int = 0
    split_tokens: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    nested: int = 0
    discontinuous: int = 0
    not_in_ents: int = 0
    skipped: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    repaired: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def skip(self, reason: str, path: Path, line: int) -> None:
        """Count something that was left out.

        reason (str): Why.
        path (Path): The file.
        line (int): The line.
        """
        self.skipped[reason].add(path, line)

    def repair(self, reason: str, path: Path, line: int) -> None:
        """Count something that was put right.

        reason (str): What was done.
        path (Path): The file.
        line (int): The line.
        """
        self.repaired[reason].add(path, line)

    def add_entities(self, entities: Sequence[CharEntity]) -> None:
        """Count a record's entities.

        entities (Sequence[CharEntity]): The entities.
        """
        self.entities.update(entity.label for entity in entities)
        self.discontinuous += sum(len(entity.fragments) > 1 for entity in entities)
        self.nested += len(split_by_form(set(entities))["nested"])


def make_record(
    text: str, annotations: Iterable[Annotation], path: Path, line: int, report: Report
) -> Record:
    """Check annotations and bring them into normal form.

    Fragments are sorted, and joined where they touch or only white space lies between them.

    text (str): The text.
    annotations (Iterable[Annotation]): Label and (start, end) offsets of each annotation.
    path (Path): The file.
    line (int): The line where the record begins.
    report (Report): Counts what is skipped and repaired.
    RETURNS (Record): The record.
    """
    entities: dict[CharEntity, None] = {}
    for label, spans in annotations:
        fault = _find_fault(text, label, spans)
        if fault:
            report.skip(fault, path, line)
            continue
        covered = merge_touching(spans)
        if _size(covered) < _size(spans):
            report.repair("overlapping fragments joined", path, line)
        joined = _join_over_space(text, covered)
        fragments = _trim(text, joined)
        if fragments != joined:
            report.repair("white space trimmed", path, line)
        entity = CharEntity(label, fragments)
        if entity in entities:
            report.skip("duplicate of another entity", path, line)
        entities[entity] = None
    return Record(text, tuple(entities), path, line)


def _find_fault(text: str, label: str, spans: Sequence[tuple[int, int]]) -> str:
    """Why an annotation cannot stand; empty if it can."""
    if not label.strip():
        return "label is empty"
    if not spans:
        return "no span"
    if any(start < 0 or end > len(text) for start, end in spans):
        return "offset outside the text"
    if any(start >= end for start, end in spans):
        return "span ends where or before it starts"
    if all(text[start:end].isspace() for start, end in spans):
        return "nothing but white space"
    return ""


def _size(spans: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in spans)


def _join_over_space(text: str, fragments: Fragments) -> Fragments:
    joined = [fragments[0]]
    for start, end in fragments[1:]:
        first, last = joined[-1]
        if text[last:start].isspace():
            joined[-1] = (first, end)
        else:
            joined.append((start, end))
    return tuple(joined)


def _trim(text: str, fragments: Fragments) -> Fragments:
    """Fragments without white space at their borders, and without those that hold nothing else."""
    trimmed = (
        (end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip()))
        for start, end in fragments
    )
    return tuple((start, end) for start, end in trimmed if start < end)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a UTF-8 file, with or without a byte order mark, line by line.

    path (Path): The file. A line may end in LF, CR LF or CR.
    YIELDS (tuple[int, str]): Each line's number, counted from 1, and its text without the end.
    RAISES (CorpusError): If the file cannot be read or is not UTF-8.
    """
    try:
        file = path.open(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as err:
        raise CorpusError(path, None, f"Cannot be read: {err.strerror}.") from None
    with file:
        for number, line in enumerate(file, start=1):
            if not _is_unicode(line):
                hint = "Convert the file, for instance with iconv."
                raise CorpusError(path, number, "Not UTF-8.", hint)
            yield number, line.rstrip("\n")


def read_json_lines(path: Path, report: Report) -> Iterator[tuple[int, Any]]:
    """Read a file with one JSON value per line; blank lines are passed over.

    path (Path): The file.
    report (Report): Counts lines skipped because a string holds half a surrogate pair.
    YIELDS (tuple[int, Any]): Each value's line and the value.
    RAISES (CorpusError): If the file cannot be read or a line is no JSON.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as err:
            hint = "Each line must be one JSON value."
            raise CorpusError(path, number, f"Not JSON ({err}).", hint) from None
        # Only an escape can bring in a lone surrogate, which no UTF-8 file can hold.
        if "\\u" in line and not _is_unicode(json.dumps(value, ensure_ascii=False)):
            report.skip("record with half a surrogate pair", path, number)
            continue
        yield number, value


def parse_spans(value: Any) -> list[tuple[int, int]] | None:
    """Read a JSON value as spans.

    value (Any): The value.
    RETURNS (Optional[list[tuple[int, int]]]): The spans, or None if the value is not a list of
        pairs of integers.
    """
    if not isinstance(value, list):
        return None
    spans = [(s[0], s[1]) for s in value if isinstance(s, list) and [*map(type, s)] == [int, int]]
    return spans if len(spans) == len(value) else None


def _is_unicode(text: str) -> bool:
    """Whether a string can be written as UTF-8: it holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Let a file appear under its name only when it is complete; its folder is made.

    path (Path): The file.
    YIELDS (Path): Where to write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
