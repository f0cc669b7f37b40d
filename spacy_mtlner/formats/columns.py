"""Columns: a token and its tag per line, a blank line behind each sentence.

CoNLL-2003 and its many relatives. Tags of every scheme (BIO, IOB1, BIOES, BILUO, BMES, BMEWO) are
read by the one rule of `codecs.tags`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from spacy_mtlner.codecs.tags import read_tags
from spacy_mtlner.formats.base import (
    Annotation,
    CorpusError,
    Record,
    Report,
    Tally,
    make_record,
    read_lines,
)

# Languages written without blanks between words.
UNSPACED_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "zh"})

_DOCUMENT_START = "-DOCSTART-"


@dataclass
class _Sentence:
    """Tokens, tags and line numbers, in parallel, of one sentence."""

    opens_document: bool
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_columns(
    path: Path,
    report: Report,
    *,
    lang: str | None = None,
    separator: str | None = None,
    tag_column: int = -1,
    joiner: str | None = None,
    n_sents: int = 1,
) -> Iterator[Record]:
    """Read a file of tokens and tags in columns.

    `-DOCSTART-` lines are passed over, and no record reaches across one. A line without a token is
    skipped. An entity that the file's own scheme would not write so counts as repaired.

    path (Path): The file.
    report (Report): Counts what is skipped and repaired.
    lang (Optional[str]): The text's language, which tells the default joiner.
    separator (Optional[str]): What stands between columns; any run of blanks and tabs if
            None or empty.
    tag_column (int): The tag's column, from 0, or from the last one, -1. The token's is 0.
    joiner (Optional[str]): What joins tokens to text: by default nothing in languages written
        without blanks, else a blank. Sentences are joined by it too, or by a newline if it is
        empty.
    n_sents (int): How many sentences make a record.
    YIELDS (Record): The records.
    RAISES (CorpusError): If the file is not of this format.
    """
    if joiner is None:
        joiner = "" if lang in UNSPACED_LANGUAGES else " "
    scheme = _SchemeCheck()
    group: list[_Sentence] = []

    def make() -> Record:
        text, annotations = _join_sentences(group, joiner, scheme, path)
        return make_record(text, annotations, path, group[0].lines[0], report)

    for sentence in _read_sentences(path, report, _make_splitter(separator), tag_column):
        if group and (len(group) >= n_sents or sentence.opens_document):
            yield make()
            group.clear()
        group.append(sentence)
    if group:
        yield make()
    scheme.add_to(report)


def _make_splitter(separator: str | None) -> Callable[[str], list[str]]:
    if separator:
        return lambda line: line.split(separator)
    # Not str.split: U+3000 and other white space can be a token.
    split = re.compile("[ \t]+").split
    return lambda line: split(line.rstrip(" \t"))


def _read_sentences(
    path: Path, report: Report, split: Callable[[str], list[str]], tag_column: int
) -> Iterator[_Sentence]:
    sentence = _Sentence(opens_document=True)
    n_columns = 0
    tags: set[str] = set()
    for number, line in read_lines(path):
        is_start = line.startswith(_DOCUMENT_START)
        if is_start or not line or line.isspace():
            if sentence.tokens:
                yield sentence
                sentence = _Sentence(opens_document=False)
            sentence.opens_document |= is_start
            continue
        columns = split(line)
        if len(columns) != n_columns:
            _check_columns(len(columns), n_columns, tag_column, path, number)
            n_columns = len(columns)
        token, tag = columns[0], columns[tag_column]
        if tag not in tags:
            _check_tag(tag, path, number)
            tags.add(tag)
        if not token:
            report.skip("line without a token", path, number)
            continue
        sentence.tokens.append(token)
        sentence.tags.append(tag)
        sentence.lines.append(number)
    if sentence.tokens:
        yield sentence


def _check_columns(n: int, n_before: int, tag_column: int, path: Path, line: int) -> None:
    """Check a line's number of columns; `n_before` is that of the lines before, 0 at first."""
    hint = "Choose the separator and the tag's column, or correct the line."
    if n_before:
        raise CorpusError(path, line, f"Columns: {n}, in the lines before: {n_before}.", hint)
    if n < 2:
        raise CorpusError(path, line, "No token and tag in columns.", hint)
    if not -n < tag_column < n or tag_column == 0:
        message = f"The tag cannot be in column {tag_column} of {n}: 0 is the token's."
        raise CorpusError(path, line, message, hint)


def _check_tag(tag: str, path: Path, line: int) -> None:
    try:
        read_tags([tag])
    except ValueError as err:
        raise CorpusError(path, line, str(err), "Choose the tag's column.") from None


def _join_sentences(
    sentences: list[_Sentence], joiner: str, scheme: "_SchemeCheck", path: Path
) -> tuple[str, list[Annotation]]:
    """Text and annotations of some sentences."""
    border = joiner or "\n"
    texts: list[str] = []
    annotations: list[Annotation] = []
    offset = 0
    for sentence in sentences:
        tokens = sentence.tokens
        starts = [*accumulate((len(token) + len(joiner) for token in tokens), initial=offset)]
        for label, start, end in read_tags(sentence.tags):
            span = (starts[start], starts[end - 1] + len(tokens[end - 1]))
            annotations.append((label, [span]))
            scheme.see(sentence.tags, label, start, end, path, sentence.lines[start])
        texts.append(joiner.join(tokens))
        offset += len(texts[-1]) + len(border)
    return border.join(texts), annotations


@dataclass
class _SchemeCheck:
    """Entities that break the file's scheme, which is only known when all of them are seen.

    The scheme has beginning tags unless they stand behind an entity of the same label alone, as in
    IOB1; it has ending tags if there is one.
    """

    has_beginning: bool = False
    has_ending: bool = False
    without_beginning: Tally = field(default_factory=Tally)
    without_ending: Tally = field(default_factory=Tally)

    def see(self, tags: list[str], label: str, start: int, end: int, path: Path, line: int) -> None:
        if tags[start][0] not in "BUSW":
            self.without_beginning.add(path, line)
        elif start == 0 or tags[start - 1][2:] != label:
            self.has_beginning = True
        if tags[end - 1][0] in "BIM":
            self.without_ending.add(path, line)
        else:
            self.has_ending = True

    def add_to(self, report: Report) -> None:
        if self.has_beginning and self.without_beginning.count:
            report.repaired["entity without a beginning tag"] = self.without_beginning
        if self.has_ending and self.without_ending.count:
            report.repaired["entity without an ending tag"] = self.without_ending
