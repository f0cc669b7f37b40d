"""GENIA: the XML of GENIA 3.02's term annotation, with or without parts of speech.

In a `<sentence>`, `<cons sem="G#virus">` is an entity, and such elements nest freely. Coordinated
terms share text, so that they have one `<cons>` together: its `sem` is a structure of the terms'
classes, its `lex` the same structure of their full forms. The `<cons>` in it are the parts, and `*`
in the `lex` of a part stands for what is missing. The entities of

    <cons lex="(AND CD2_gene CD25_gene)" sem="(AND G#DNA_molecule G#DNA_molecule)">
      <cons lex="CD2*">CD2</cons> and <cons lex="CD25*">CD25</cons> <cons lex="*gene">genes</cons>
    </cons>

are `CD2 ... genes`, discontinuous, and `CD25 genes`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    make_record,
    open_binary,
)

_CHUNK_SIZE = 1 << 16

_Spans = tuple[tuple[int, int], ...]


@dataclass
class _Constituent:
    """A `<cons>` element: its attributes, and the place of its text in the sentence."""

    line: int
    sem: str
    lex: str
    start: int
    end: int = 0
    n_inside: int = 0  # The constituents in it, which are those that follow it.


@dataclass
class _Sentence:
    """A `<sentence>` element, its constituents in the order of their start tags."""

    line: int
    document: str | None
    text: str = ""
    constituents: list[_Constituent] = field(default_factory=list)


def read_genia(path: Path, report: Report) -> Iterator[Record]:
    """Read a file of the GENIA corpus. Labels are GENIA's own classes, without the `G#`.

    A line break in a sentence becomes a blank. Coordinated terms that their parts do not spell are
    found by the parts' position where that is plain, and skipped elsewhere.

    path (Path): The file.
    report (Report): Counts what is skipped, repaired and ignored.
    YIELDS (Record): One record per sentence; its document is the article's MEDLINE number.
    RAISES (CorpusError): If the file is not of this format.
    """
    parser = _SentenceParser(path, report)
    n_sentences = 0
    with open_binary(path) as file:
        is_last = False
        while not is_last:
            chunk = file.read(_CHUNK_SIZE)
            report.bytes_read += len(chunk)
            is_last = not chunk
            for sentence in parser.feed(chunk, is_last):
                n_sentences += 1
                if not sentence.text:
                    report.ignore("empty sentence", path, sentence.line)
                    continue
                yield make_record(
                    sentence.text,
                    list(_read_annotations(sentence, path, report)),
                    path,
                    sentence.line,
                    report,
                    document=sentence.document,
                )
    if not n_sentences:
        raise CorpusError(path, None, "Not GENIA.", "Expected an <article> with a <sentence>.")


class _SentenceParser:
    """Collects sentences from a file that is read chunk by chunk."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._document: str | None = None
        self._sentence: _Sentence | None = None
        self._finished: list[_Sentence] = []
        self._open: list[int] = []  # The constituents whose end tag is still to come.
        self._text: list[str] | None = None  # Of the sentence or of a document's name.
        self._length = 0
        self._expat = expat.ParserCreate()
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._add_text
        self._expat.EntityDeclHandler = self._refuse_entity
        self._expat.SkippedEntityHandler = self._refuse_entity

    def feed(self, chunk: bytes, is_last: bool) -> list[_Sentence]:
        """The sentences that end in the next chunk of the file."""
        try:
            self._expat.Parse(chunk, is_last)
        except CorpusError:
            raise
        except (expat.ExpatError, LookupError, ValueError) as err:
            raise self._error(f"Not XML ({err}).") from None
        finished, self._finished = self._finished, []
        return finished

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self._expat.CurrentLineNumber
        if self._sentence is not None:
            if name == "sentence":
                raise self._error("A sentence in a sentence.")
            if name == "cons":
                sem, lex = (attributes.get(key, "").strip() for key in ("sem", "lex"))
                self._open.append(len(self._sentence.constituents))
                self._sentence.constituents.append(_Constituent(line, sem, lex, self._length))
        elif name == "sentence":
            self._sentence = _Sentence(line, self._document)
            self._text = []
            self._length = 0
        elif name == "bibliomisc":
            self._text = []
        elif name == "article":
            self._document = None

    def _add_text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)
            self._length += len(text)
        elif not text.isspace():
            line = self._expat.CurrentLineNumber
            self._report.ignore("text outside a sentence", self._path, line)

    def _end(self, name: str) -> None:
        if self._sentence is None:
            if name == "bibliomisc":
                self._document = self._take_text().strip() or None
        elif name == "cons":
            index = self._open.pop()
            constituent = self._sentence.constituents[index]
            constituent.end = self._length
            constituent.n_inside = len(self._sentence.constituents) - index - 1
        elif name == "sentence":
            self._sentence.text, places = _squeeze(self._take_text())
            for constituent in self._sentence.constituents:
                constituent.start = places[constituent.start]
                constituent.end = places[constituent.end]
            self._finished.append(self._sentence)
            self._sentence = None

    def _take_text(self) -> str:
        text = "".join(self._text or ())
        self._text = None
        return text

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise self._error(f"The entity {name!r}.", "Write its characters: entities are not read.")

    def _error(self, message: str, hint: str = "") -> CorpusError:
        return CorpusError(self._path, self._expat.CurrentLineNumber, message, hint)


def _squeeze(raw: str) -> tuple[str, list[int]]:
    """A text in one line without white space at its ends, and where each old offset is in it."""
    pieces: list[str] = []
    places = [0] * (len(raw) - len(raw.lstrip()))
    length = 0
    for piece in re.findall(r"\s+|\S+", raw.strip()):
        kept = " " if "\n" in piece else piece
        places += [length + min(i, len(kept)) for i in range(len(piece))]
        pieces.append(kept)
        length += len(kept)
    places += [length] * (len(raw) + 1 - len(places))
    return "".join(pieces), places


def _read_annotations(sentence: _Sentence, path: Path, report: Report) -> Iterator[Annotation]:
    end_of_coordination = 0
    for i, constituent in enumerate(sentence.constituents):
        if _is_structure(constituent.sem):
            end = i + 1 + constituent.n_inside
            end_of_coordination = max(end_of_coordination, end)
            inner = sentence.constituents[i + 1 : end]
            yield from _read_coordination(constituent, inner, sentence.text, path, report)
        elif constituent.sem:
            span = (constituent.start, constituent.end)
            yield Annotation(_get_label(constituent.sem), [span], constituent.line)
        elif i >= end_of_coordination:
            report.ignore("constituent without a class", path, constituent.line)


def _read_coordination(
    whole: _Constituent, inner: Sequence[_Constituent], text: str, path: Path, report: Report
) -> Iterator[Annotation]:
    classes = _get_atoms(whole.sem) or [""]
    forms = _get_atoms(whole.lex)
    if len(forms) != len(classes):
        forms = [""] * len(classes)
    parts = [
        _Part(part.lex or text[part.start : part.end], part.start, part.end)
        for part in inner
        if part.start < part.end and not _is_structure(part.sem) and not _is_structure(part.lex)
    ]
    by_position = _find_by_position(len(classes), parts, text)
    for i, (label, form) in enumerate(zip(classes, forms, strict=True)):
        spans = _spell(form, parts, _get_key) or _spell(form, parts, _get_loose_key)
        if not spans and by_position:
            spans = by_position[i]
            report.repair("coordinated term found by position", path, whole.line)
        if spans:
            yield Annotation(_get_label(label), spans, whole.line)
        else:
            report.skip("coordinated term that its parts do not spell", path, whole.line)


class _Part(NamedTuple):
    """A part of coordinated terms: its form, and the place of its text in the sentence."""

    form: str
    start: int
    end: int


class _Way(NamedTuple):
    """Parts that spell the beginning of a form; of two ways the smaller one is better."""

    n_parts: int = 0
    gaps: int = 0
    end: int = 0
    spans: _Spans = ()

    def add(self, part: _Part) -> "_Way":
        gap = part.start - self.end if self.spans else 0
        spans = (*self.spans, (part.start, part.end))
        return _Way(self.n_parts + 1, self.gaps + gap, part.end, spans)


def _spell(form: str, parts: Sequence[_Part], get_key: Callable[[str], str]) -> _Spans:
    """The fewest parts, and of those the closest ones, that spell a form in the text's order."""
    key = get_key(form)
    ways: dict[int, list[_Way]] = {0: [_Way()]}  # By how much of the key they spell.
    for part in parts:
        part_key = get_key(part.form)
        for length in [n for n in ways if part_key and key.startswith(part_key, n)]:
            longer = [way.add(part) for way in ways[length] if way.end <= part.start]
            if longer:
                rest = key[length + len(part_key) :].lstrip("_")
                ways.setdefault(len(key) - len(rest), []).append(min(longer))
    return min(ways[len(key)]).spans if len(key) in ways else ()


def _find_by_position(n_terms: int, parts: Sequence[_Part], text: str) -> list[_Spans]:
    """Find terms that are a part each with what stands right before the first and behind the last
    one, as in `human CD2 and CD25 genes`; returns nothing if the parts do not stand so."""
    groups: list[list[_Part]] = []  # Parts with nothing but white space between them.
    end = -1
    for part in parts:
        if part.start < end:
            continue  # It stands in the last part.
        if groups and not text[end : part.start].strip():
            groups[-1].append(part)
        else:
            groups.append([part])
        end = part.end
    if len(groups) != n_terms or n_terms < 2 or any(len(group) > 1 for group in groups[1:-1]):
        return []
    *head, first = groups[0]
    last, *tail = groups[-1]
    own = [first, *(group[0] for group in groups[1:-1]), last]
    # What a form says to be missing must be there, on the same sides of all of them.
    missing = {(part.form.startswith("*"), part.form.endswith("*")) for part in own}
    if missing not in ({(False, False)}, {(bool(head), bool(tail))}):
        return []
    return [tuple((p.start, p.end) for p in (*head, part, *tail)) for part in own]


def _is_structure(value: str) -> bool:
    """Whether an attribute is a structure, `(OPERATOR atom atom)`; an atom may have parentheses."""
    return value.startswith("(") and " " in value


def _get_atoms(structure: str) -> list[str]:
    """The atoms of a structure, in order and without the operators; an atom is its own one."""
    atoms = []
    for word in structure.split():
        n_closed = word.count(")") - word.count("(")
        if n_closed > 0 and word.endswith(")" * n_closed):
            word = word[:-n_closed]
        is_operator = n_closed < 0 and word.startswith("(")
        if word and not is_operator:
            atoms.append(word)
    return atoms


def _get_label(sem: str) -> str:
    return sem.rpartition("#")[2]


def _get_key(form: str) -> str:
    """What a form is compared by; the text of a part without a form has blanks for underscores."""
    return "_".join(re.sub(r"[*\\]", "", form).split()).strip("_")


def _get_loose_key(form: str) -> str:
    """The same for forms that have their punctuation or capitals in one place only."""
    return re.sub(r"[^\w+]|_", "", form).casefold()
