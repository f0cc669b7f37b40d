"""What all formats share: records, the report on a corpus, errors, and the checks of an annotation.

A reader is a function `(path, report, **options)` that yields records one by one. It stops with a
`CorpusError` where the file is not what it should be. A single annotation that cannot stand is left
out, one that can be put right is put right, and the report counts both by reason.

A writer is a function `(records, path, report, **options)`. What its format cannot hold is counted
by the report as lost.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

from spacy.tokens import Doc

from spacy_mtlner.entities import Fragments, find_inside, merge_touching
from spacy_mtlner.scoring import split_by_form

BYTE_ORDER_MARK = "\ufeff"
# The first words of the names of files about a corpus, and suffixes that only corpora have.
_ABOUT = (
    *("about", "changelog", "readme"),
    *("licence", "licences", "license", "licenses", "notice", "notices"),
)
_CORPORA_ALONE = (
    *(".bio", ".bioes", ".bmes", ".conll", ".iob", ".iob2", ".jsonl", ".ndjson", ".ner", ".spacy"),
)
_N_PLACES = 3
_N_LINES = 1024


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


class UnknownFormatError(CorpusError):
    """The format of a file cannot be told: it may be no corpus at all."""


class Annotation(NamedTuple):
    """An annotation as a file has it, before it is checked.

    label (str): The label.
    spans (Sequence[tuple[int, int]]): (start, end) character offsets, end exclusive, in any order.
    line (Optional[int]): The line where it stands, or None for the record's.
    """

    label: str
    spans: Sequence[tuple[int, int]]
    line: int | None = None


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
    document (Optional[str]): The name of the document that the text is, or is a part of.
    doc (Optional[Doc]): The Doc that the record was read from, if it was read from one.
    entity_lines (Optional[tuple[int, ...]]): The line of each entity; None if all are the record's.
    unknown (tuple[tuple[int, int], ...]): (start, end) of the tokens of which it is unknown what
        they belong to, as a Doc can have them.
    """

    text: str
    entities: tuple[CharEntity, ...]
    path: Path
    line: int
    document: str | None = None
    doc: Doc | None = field(default=None, compare=False, repr=False)
    entity_lines: tuple[int, ...] | None = field(default=None, compare=False, repr=False)
    unknown: tuple[tuple[int, int], ...] = field(default=(), compare=False, repr=False)

    @property
    def located(self) -> Iterator[tuple[CharEntity, int]]:
        """RETURNS (Iterator[tuple[CharEntity, int]]): The entities with their lines."""
        lines = self.entity_lines or (self.line,) * len(self.entities)
        return zip(self.entities, lines, strict=True)


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
        if len(self.places) < _N_PLACES and (place := f"{path}:{line}") not in self.places:
            self.places.append(place)

    def merge(self, other: "Tally") -> None:
        """Count what another tally has counted.

        other (Tally): The other tally.
        """
        self.count += other.count
        self.places.extend(other.places[: _N_PLACES - len(self.places)])


@dataclass
class Report:
    """What a corpus held and what became of it.

    strict (bool): Whether to stop where something would be left out.
    docs (int): Documents.
    tokens (int): Their tokens, where the output has tokens.
    split_tokens (int): Tokens of the tokenizer that were split for an entity's border.
    entities (Counter[str]): Entities by label.
    overlapping (int): Entities whose range, from first start to last end, overlaps another one's.
    inside (int): Entities that lie, fragment by fragment, inside another one.
    discontinuous (int): Entities of several fragments.
    not_in_ents (int): Entities that `doc.ents` could not hold, where it was written.
    bytes_read (int): How much of the input was read.
    skipped (dict[str, Tally]): What was left out, by reason.
    repaired (dict[str, Tally]): What was put right, by reason.
    ignored (dict[str, Tally]): What is no entity, or was not asked for, by kind.
    lost (dict[str, Tally]): What the output's format cannot hold, by reason.
    labels_read (set[str]): The entities' labels before mapping, where labels are mapped.
    """

    strict: bool = False
    docs: int = 0
    tokens: int = 0
    split_tokens: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    overlapping: int = 0
    inside: int = 0
    discontinuous: int = 0
    not_in_ents: int = 0
    bytes_read: int = 0
    skipped: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    repaired: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    ignored: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    lost: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    labels_read: set[str] = field(default_factory=set)

    def skip(self, reason: str, path: Path, line: int) -> None:
        """Count something that was left out.

        reason (str): Why.
        path (Path): The file.
        line (int): The line.
        RAISES (CorpusError): If the report is strict.
        """
        if self.strict:
            hint = "Correct it, or leave out --strict to skip it."
            raise CorpusError(path, line, f"Cannot be kept: {reason}.", hint)
        self.skipped[reason].add(path, line)

    def repair(self, reason: str, path: Path, line: int) -> None:
        """Count something that was put right.

        reason (str): What was done.
        path (Path): The file.
        line (int): The line.
        """
        self.repaired[reason].add(path, line)

    def ignore(self, kind: str, path: Path, line: int) -> None:
        """Count something that is no entity, or was not asked for.

        kind (str): What it is.
        path (Path): The file.
        line (int): The line.
        """
        self.ignored[kind].add(path, line)

    def lose(self, reason: str, path: Path, line: int) -> None:
        """Count something that the output's format cannot hold.

        reason (str): What it is.
        path (Path): The file it was read from.
        line (int): The line.
        """
        self.lost[reason].add(path, line)

    def add_record(self, record: Record) -> None:
        """Count a record with its entities.

        record (Record): The record.
        """
        self.docs += 1
        entities = record.entities
        if not entities:
            return
        self.entities.update([entity.label for entity in entities])
        if len(entities) > 1:
            self.overlapping += len(split_by_form(set(entities))["nested"])
            self.inside += sum(find_inside([entity.fragments for entity in entities]))
        self.discontinuous += sum(len(entity.fragments) > 1 for entity in entities)


def make_record(
    text: str,
    annotations: Iterable[Annotation],
    path: Path,
    line: int,
    report: Report,
    *,
    document: str | None = None,
) -> Record:
    """Check annotations and bring them into normal form.

    Fragments are sorted, and joined where they touch or only white space lies between them.

    text (str): The text.
    annotations (Iterable[Annotation]): The annotations.
    path (Path): The file.
    line (int): The line where the record begins.
    report (Report): Counts what is skipped and repaired.
    document (Optional[str]): The document's name.
    RETURNS (Record): The record.
    """
    entities: dict[CharEntity, int] = {}
    has_lines = False
    for label, spans, own_line in annotations:
        has_lines |= own_line is not None
        place = own_line or line
        fault = _find_fault(text, label, spans)
        if fault:
            report.skip(fault, path, place)
            continue
        covered = merge_touching(spans)
        if _size(covered) < _size(spans):
            report.repair("overlapping fragments joined", path, place)
        joined = _join_over_space(text, covered)
        fragments = _trim(text, joined)
        if fragments != joined:
            report.repair("white space trimmed", path, place)
        entity = CharEntity(label, fragments)
        if entity in entities:
            report.skip("duplicate of another entity", path, place)
        entities.setdefault(entity, place)
    lines = tuple(entities.values()) if has_lines else None
    return Record(text, tuple(entities), path, line, document, entity_lines=lines)


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


def read_lines(
    path: Path, report: Report, *, keep_marks: bool = False
) -> Iterator[tuple[int, str]]:
    """Read a UTF-8 file, with or without a byte order mark, line by line.

    path (Path): The file. A line may end in LF, CR LF or CR.
    report (Report): Counts the bytes that are read, and byte order marks that are removed.
    keep_marks (bool): Leave byte order marks before other lines than the first, where offsets
        count them; otherwise they are taken for those of files that were joined.
    YIELDS (tuple[int, str]): Each line's number, counted from 1, and its text without the end.
    RAISES (CorpusError): If the file cannot be read or is not UTF-8.
    """
    with open_binary(path) as binary, TextIOWrapper(binary, encoding="utf-8-sig") as file:
        before = report.bytes_read
        try:
            for number, line in enumerate(file, start=1):
                if number % _N_LINES == 0:  # Each call asks the system.
                    report.bytes_read = before + binary.tell()
                if line[0] == BYTE_ORDER_MARK and not keep_marks:
                    report.repair("byte order mark before a line removed", path, number)
                    line = line.lstrip(BYTE_ORDER_MARK)
                yield number, line.rstrip("\n")
        except UnicodeDecodeError as err:
            raise _not_utf8(path, err) from None
        report.bytes_read = before + binary.tell()


def read_text(path: Path, report: Report) -> str:
    """Read a UTF-8 file, with or without a byte order mark, and leave its line ends as they are.

    path (Path): The file.
    report (Report): Counts the bytes that are read.
    RETURNS (str): The text.
    RAISES (CorpusError): If the file cannot be read or is not UTF-8.
    """
    with open_binary(path) as file:
        content = file.read()
    report.bytes_read += len(content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise _not_utf8(path, err) from None


def open_binary(path: Path) -> IO[bytes]:
    """Open a file to read its bytes.

    path (Path): The file.
    RETURNS (IO[bytes]): The open file.
    RAISES (CorpusError): If the file cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as err:
        raise CorpusError(path, None, f"Cannot be read: {err.strerror}.") from None


def _not_utf8(path: Path, err: UnicodeDecodeError) -> CorpusError:
    """The error for a file that is not UTF-8, with the first line that is not."""
    # Any byte string decodes to latin-1, one character a byte.
    with path.open(encoding="latin-1") as file:
        line = next((i for i, line in enumerate(file, start=1) if not _is_utf8(line)), None)
    hint = f"Convert the file to UTF-8, for instance with iconv ({err.reason})."
    return CorpusError(path, line, "Not UTF-8.", hint)


def _is_utf8(line: str) -> bool:
    try:
        line.encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


def read_json_lines(path: Path, report: Report) -> Iterator[tuple[int, Any]]:
    """Read a file with one JSON value per line; blank lines are passed over.

    path (Path): The file.
    report (Report): Counts lines skipped because a string holds half a surrogate pair.
    YIELDS (tuple[int, Any]): Each value's line and the value.
    RAISES (CorpusError): If the file cannot be read or a line is no JSON.
    """
    for number, line in read_lines(path, report):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as err:
            hint = "Each line must be one JSON value."
            raise CorpusError(path, number, describe_json_error(err), hint) from None
        # Only an escape can bring in a lone surrogate, which no UTF-8 file can hold.
        if "\\u" in line and not is_unicode(json.dumps(value, ensure_ascii=False)):
            report.skip("record with half a surrogate pair", path, number)
            continue
        yield number, value


def describe_json_error(err: ValueError | RecursionError) -> str:
    """Say what is wrong with a JSON value.

    err (Union[ValueError, RecursionError]): What `json` raised.
    RETURNS (str): The message, which does not name a line, as that may be one of many values.
    """
    if isinstance(err, json.JSONDecodeError):
        return f"Not JSON ({err.msg}, column {err.colno})."
    return f"Not JSON ({err})."


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


def is_about_corpus(path: Path) -> bool:
    """Tell whether a file of a corpus's folder is a text about the corpus, as README.

    path (Path): The file.
    RETURNS (bool): Whether it is.
    """
    return path.suffix not in _CORPORA_ALONE and re.split(r"[\W_]", path.name.lower())[0] in _ABOUT


def is_unicode(text: str) -> bool:
    """Tell whether a string can be written as UTF-8, which has no place for half a surrogate pair.

    text (str): The string.
    RETURNS (bool): Whether it can.
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Let a file or folder appear under its name only when it is complete; its parent is made.

    path (Path): The file, or the folder, which must not exist yet or be empty. A link stays one.
    YIELDS (Path): Where to write it.
    RAISES (CorpusError): If there is something else than a file or folder, as a device.
    """
    target = path.resolve()
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise CorpusError(path, None, "The output is no regular file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        part = Path(folder) / target.name
        yield part
        part.replace(target)
