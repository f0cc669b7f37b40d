"""Columns: a token and its tags per line, a blank line behind each sentence.

CoNLL-2003 and its many relatives. Tags of every scheme (BIO, IOB1, BIOES, BILUO, BMES, BMEWO) are
read by the one rule of `codecs.tags`. Nested entities stand in several layers of tags, in a column
each, or in one column that has several tags in a cell.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, compress
from pathlib import Path
from typing import Literal, get_args

from spacy.tokens import Doc

from spacy_mtlner.codecs.tags import OUTSIDE, read_tags
from spacy_mtlner.entities import Entity, read_entities, select_flat
from spacy_mtlner.formats.base import (
    BYTE_ORDER_MARK,
    Annotation,
    CorpusError,
    Record,
    Report,
    Tally,
    make_record,
    read_lines,
)
from spacy_mtlner.formats.docs import make_annotated_doc

# Languages written without blanks between words.
UNSPACED_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "zh"})

# How a line begins where another document does.
ColumnScheme = Literal["BIO", "BILUO", "BIOES"]

DOCUMENT_START = "-DOCSTART-"
# With these separators, cells may be quoted.
_QUOTING = (",", ";")
# The place in it where a token of that name is split.
_IN_START = re.compile("(?<=^-)(?=DOCSTART-)")


@dataclass
class _Sentence:
    """A sentence's tokens with their lines, and those of its layers of tags that hold entities."""

    document: str | None
    lines: Sequence[int]
    tokens: Sequence[str]
    layers: list[Sequence[str]]


def read_columns(
    path: Path,
    report: Report,
    *,
    lang: str | None = None,
    separator: str | None = None,
    token_column: int = 0,
    tag_columns: Sequence[int] = (-1,),
    tag_separator: str | None = None,
    segmentation_digit: bool = False,
    comment: str | None = None,
    joiner: str | None = None,
    n_sents: int = 1,
) -> Iterator[Record]:
    """Read a file of tokens and tags in columns.

    A `-DOCSTART-` line begins a document, which is named after the file and the line's number among
    its like: `train-1`. No record reaches across one. A line without a token is skipped. An entity
    that the file's own scheme would not write so counts as repaired.

    All lines have as many columns as the first one; empty cells behind them are passed over.

    path (Path): The file.
    report (Report): Counts what is skipped and repaired, and comments.
    lang (Optional[str]): The text's language, which tells the default joiner.
    separator (Optional[str]): What stands between columns; any run of blanks and tabs if None or
        empty. With a comma or a semicolon, cells may be quoted as in CSV files.
    token_column (int): The tokens' column, from 0, or from the last one, -1.
    tag_columns (Sequence[int]): The tags' columns, one for each layer.
    tag_separator (Optional[str]): What stands between the tags of a cell, as in `B-ORG|I-LOC`, or
        None for one tag in a cell. The tags of each label are a layer of their own; so such a file
        cannot tell apart entities of the same label that overlap.
    segmentation_digit (bool): Whether a digit stands behind each token in its cell, as in `科0`. It
        is cut off.
    comment (Optional[str]): How lines begin that are passed over, wherever they stand, if they are
        no rows: a line with as many columns as the others, and tags in those of tags, is none.
    joiner (Optional[str]): What joins tokens to text: by default nothing in languages written
        without blanks, else a blank. Sentences are joined by it too, or by a newline if it is
        empty.
    n_sents (int): How many sentences make a record.
    YIELDS (Record): The records.
    RAISES (CorpusError): If the file is not of this format, or an option cannot be.
    """
    if not tag_columns:
        raise CorpusError(path, None, "No column is chosen for tags.", "Choose one or more.")
    if n_sents < 1:
        raise CorpusError(path, None, f"No record has {n_sents} sentences.", "Choose 1 or more.")
    if joiner is None:
        joiner = "" if lang in UNSPACED_LANGUAGES else " "
    columns = (token_column, *tag_columns)
    sentences = _read_sentences(
        path, report, columns, separator, tag_separator, segmentation_digit, comment
    )
    scheme = _SchemeCheck()
    group: list[_Sentence] = []

    def make() -> Record:
        text, annotations = _join_sentences(group, joiner, scheme, path)
        line, document = group[0].lines[0], group[0].document
        return make_record(text, annotations, path, line, report, document=document)

    for sentence in sentences:
        if group and (len(group) >= n_sents or sentence.document != group[0].document):
            yield make()
            group.clear()
        group.append(sentence)
    if group:
        yield make()
    scheme.add_to(report)


def _read_sentences(
    path: Path,
    report: Report,
    columns: Sequence[int],
    separator: str | None,
    tag_separator: str | None,
    segmentation_digit: bool,
    comment: str | None,
) -> Iterator[_Sentence]:
    """The file's sentences; `columns` are the token's and those of the tags."""
    split = make_splitter(separator)
    n_columns = 0
    is_comment = _make_comment_test(path, comment, split, columns[1:], tag_separator)
    # A whole sentence at a time: large files have millions of lines.
    for document, block in _read_blocks(path, report, comment, is_comment):
        lines: Sequence[int]
        lines, texts = zip(*block, strict=True)
        rows = [*map(split, texts)]
        if not n_columns:
            n_columns = len(rows[0])
            columns = _find_columns(columns, n_columns, path, lines[0])
        if {*map(len, rows)} != {n_columns}:
            _check_rows(rows, n_columns, path, lines)
        # Not strict: what is longer has empty cells there.
        cells: list[Sequence[str]] = [*zip(*rows, strict=False)]
        tokens, *layers = [cells[column] for column in columns]
        if segmentation_digit:
            tokens = [_cut_digit(*item, path) for item in zip(tokens, lines, strict=True)]
        if "" in tokens:
            for line in compress(lines, [not token for token in tokens]):
                report.skip("line without a token", path, line)
            lines = [*compress(lines, tokens)]
            layers = [[*compress(tags, tokens)] for tags in layers]
            tokens = [*filter(None, tokens)]
        layers = [tags for tags in layers if tags.count(OUTSIDE) < len(tags)]
        if tag_separator:
            layers = [
                layer
                for tags in layers
                for layer in _split_labels(tags, tag_separator, path, lines, report)
            ]
        if tokens:
            yield _Sentence(document, lines, tokens, layers)


def _read_blocks(
    path: Path, report: Report, comment: str | None, is_comment: Callable[[str], bool]
) -> Iterator[tuple[str | None, list[tuple[int, str]]]]:
    """The numbered lines of each sentence, and the document that it is in."""
    special = (DOCUMENT_START, comment) if comment else (DOCUMENT_START,)
    document = None
    n_documents = 0
    block: list[tuple[int, str]] = []
    for numbered in read_lines(path, report):
        line = numbered[1]
        if line and not line.isspace() and not line.startswith(special):
            block.append(numbered)
            continue
        is_start = line.startswith(DOCUMENT_START)
        if comment and line.startswith(comment) and not is_start:
            if is_comment(line):
                report.ignore("comment", path, numbered[0])
            else:
                block.append(numbered)
            continue
        if block:
            yield document, block
            block = []
        if is_start:
            n_documents += 1
            document = f"{path.stem}-{n_documents}"
    if block:
        yield document, block


def _make_comment_test(
    path: Path,
    comment: str | None,
    split: Callable[[str], list[str]],
    tag_columns: Sequence[int],
    tag_separator: str | None,
) -> Callable[[str], bool]:
    """The function that tells whether a line that begins as a comment is one."""
    width = 0
    if comment:
        lines = (line for _, line in read_lines(path, Report()))
        others = (
            line
            for line in lines
            if line.strip() and not line.startswith((DOCUMENT_START, comment))
        )
        width = len(split(next(others, "")))
    return lambda line: not is_row(split(line), width, tag_columns, tag_separator)


def is_row(
    cells: Sequence[str], width: int, tag_columns: Sequence[int], tag_separator: str | None
) -> bool:
    """Tell whether a line is a token's and not a comment.

    cells (Sequence[str]): The line's cells.
    width (int): How many columns the file has.
    tag_columns (Sequence[int]): Those of the tags.
    tag_separator (Optional[str]): What stands between the tags of a cell; None for one in a cell.
    RETURNS (bool): Whether it has as many columns, with tags in those of tags.
    """
    if width < 2 or len(cells) < width or any(cells[width:]):
        return False
    found = [cells[column % width] for column in tag_columns]
    if tag_separator:
        found = [tag for cell in found for tag in cell.split(tag_separator)]
    try:
        read_tags(found)
    except ValueError:
        return False
    return True


def make_splitter(separator: str | None) -> Callable[[str], list[str]]:
    """Make the function that splits a line into its cells.

    separator (Optional[str]): What stands between columns; any run of blanks and tabs if None or
        empty.
    RETURNS (Callable[[str], list[str]]): The function.
    """
    if not separator:
        return _split_at_blanks
    if separator in _QUOTING:
        return partial(_split_quoted, separator=separator)
    return lambda line: line.split(separator)


def _split_quoted(line: str, separator: str) -> list[str]:
    if '"' not in line:
        return line.split(separator)
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True)
    except (csv.Error, ValueError):  # The quotes are tokens, or parts of such.
        return line.split(separator)
    return cells


def _split_at_blanks(line: str) -> list[str]:
    # Not str.split: U+3000 and other white space can be a token.
    cells = line.rstrip(" \t").replace(" ", "\t").split("\t")
    return [cells[0], *filter(None, cells[1:])] if "" in cells else cells


def _find_columns(columns: Sequence[int], n: int, path: Path, line: int) -> list[int]:
    """The token's and the tags' columns, counted from 0; `n` is how many a line has."""
    hint = "Choose the separator and the columns, or correct the line."
    if n < 2:
        raise CorpusError(path, line, "No token and tag in columns.", hint)
    for column in columns:
        if not -n <= column < n:
            message = f"No column {column}: there are {n}, counted from 0."
            raise CorpusError(path, line, message, hint)
    found = [column % n for column in columns]
    for i, column in enumerate(found):
        if column in found[:i]:
            message = f"Column {column} of {n} is chosen twice, for the token or a tag."
            raise CorpusError(path, line, message, hint)
    return found


def _check_rows(
    rows: Sequence[Sequence[str]], n_columns: int, path: Path, lines: Sequence[int]
) -> None:
    for line, row in zip(lines, rows, strict=True):
        if len(row) < n_columns or any(row[n_columns:]):
            message = f"Columns: {len(row)}, in the lines before: {n_columns}."
            raise CorpusError(path, line, message, "Choose the separator, or correct the line.")


def _cut_digit(cell: str, line: int, path: Path) -> str:
    if cell and cell[-1] not in "0123456789":
        hint = "Choose the token's column, or leave segmentation digits alone."
        raise CorpusError(path, line, f"No segmentation digit behind {cell!r}.", hint)
    return cell[:-1]


def _split_labels(
    cells: Sequence[str], separator: str, path: Path, lines: Sequence[int], report: Report
) -> Iterable[Sequence[str]]:
    """A layer for each label in cells of several tags."""
    layers: dict[str, list[str]] = {}
    for i, cell in enumerate(cells):
        for tag in cell.split(separator):
            if tag == OUTSIDE:
                continue
            # What is no tag gets into a layer as well and is reported where layers are read.
            layer = layers.setdefault(tag[2:], [OUTSIDE] * len(cells))
            if layer[i] == OUTSIDE:
                layer[i] = tag
            else:
                _check_tag(tag, path, lines[i])
                report.skip("second tag of a label in a cell", path, lines[i])
    return layers.values()


def _join_sentences(
    sentences: list[_Sentence], joiner: str, scheme: "_SchemeCheck", path: Path
) -> tuple[str, list[Annotation]]:
    """Text and annotations of some sentences."""
    border = joiner or "\n"
    texts: list[str] = []
    annotations: list[Annotation] = []
    offset = 0
    for sentence in sentences:
        tokens, lines = sentence.tokens, sentence.lines
        if sentence.layers:
            sizes = [len(token) + len(joiner) for token in tokens]
            starts = [*accumulate(sizes, initial=offset)]
        for tags in sentence.layers:
            for label, start, end in _read_layer(tags, path, lines):
                span = (starts[start], starts[end - 1] + len(tokens[end - 1]))
                annotations.append(Annotation(label, [span], lines[start]))
                scheme.see(tags, label, start, end, path, lines[start])
        texts.append(joiner.join(tokens))
        offset += len(texts[-1]) + len(border)
    return border.join(texts), annotations


def _read_layer(
    tags: Sequence[str], path: Path, lines: Sequence[int]
) -> list[tuple[str, int, int]]:
    try:
        return read_tags(tags)
    except ValueError:
        for line, tag in zip(lines, tags, strict=True):
            _check_tag(tag, path, line)
        raise


def _check_tag(tag: str, path: Path, line: int) -> None:
    try:
        read_tags([tag])
    except ValueError as err:
        raise CorpusError(path, line, str(err), "Choose the tags' columns.") from None


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

    def see(
        self, tags: Sequence[str], label: str, start: int, end: int, path: Path, line: int
    ) -> None:
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
            report.repaired["entity without a beginning tag"].merge(self.without_beginning)
        if self.has_ending and self.without_ending.count:
            report.repaired["entity without an ending tag"].merge(self.without_ending)


def write_columns(
    records: Iterable[Record],
    path: Path,
    report: Report,
    *,
    make_doc: Callable[[str], Doc],
    tag_scheme: ColumnScheme = "BIO",
    separator: str = "\t",
) -> None:
    """Write records to a file of tokens and tags, with a blank line behind each record.

    The format keeps neither the text's white space nor entities that overlap or are discontinuous:
    of overlapping ones those that `select_flat` chooses are written. A `-DOCSTART-` line stands
    where another document begins.

    A token is split at line breaks and at white space that separates columns, and `-DOCSTART-`
    behind its first sign. Other separators in a token, and white space and separators in a label,
    are written as "_". As tokens may hold white space that does not separate columns, the file
    should be read with the same separator.

    records (Iterable[Record]): The records.
    path (Path): The file.
    report (Report): Counts the records, their entities and tokens, and what is lost.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    tag_scheme (ColumnScheme): "BIO", "BILUO" or, the same with other letters, "BIOES".
    separator (str): What stands between token and tag.
    RAISES (CorpusError): If scheme or separator cannot be, or the tokenizer does not keep a text.
    """
    if tag_scheme not in get_args(ColumnScheme):
        hint = f"Choose one of: {', '.join(get_args(ColumnScheme))}."
        raise CorpusError(path, None, f"There is no tag scheme {tag_scheme!r}.", hint)
    if not separator or any(c.isalnum() or c in "-_\n\r" for c in separator):
        hint = "Choose white space within a line, or a sign that is not part of a tag."
        raise CorpusError(path, None, f"Columns cannot be separated by {separator!r}.", hint)
    document = None
    with path.open("w", encoding="utf-8", newline="\n") as file:
        quoted = None
        if separator in _QUOTING:
            quoted = csv.writer(
                file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n"
            )
        for record in records:
            report.add_record(record)
            doc, n_split = make_annotated_doc(make_doc, record)
            report.split_tokens += n_split
            pieces = [_make_writable(token.text, separator, record, report) for token in doc]
            tokens = [piece for of_token in pieces for piece in of_token]
            if not tokens:
                report.lose("record without a token", record.path, record.line)
                continue
            tags = [OUTSIDE] * len(tokens)
            starts = [*accumulate(map(len, pieces), initial=0)]
            for entity in _choose_flat(read_entities(doc), record, report):
                start, end = starts[entity.start], starts[entity.end]
                label = _clean_label(entity.label, separator, record, report)
                tags[start:end] = _make_tags(label, end - start, tag_scheme)
            if record.document != document:  # None included: it is no part of the one before.
                document = record.document
                file.write(f"{DOCUMENT_START}{separator}{OUTSIDE}\n\n")
            for cells in zip(tokens, tags, strict=True):
                if quoted is not None and any('"' in cell for cell in cells):
                    quoted.writerow(cells)
                else:
                    file.write(f"{separator.join(cells)}\n")
            file.write("\n")
            report.tokens += len(tokens)


def _make_writable(text: str, separator: str, record: Record, report: Report) -> list[str]:
    """The tokens to write for a token: none for white space, several where it must be split."""
    if text.startswith(BYTE_ORDER_MARK):  # It would be taken for that of a file.
        report.lose("byte order mark before a token, left out", record.path, record.line)
        text = text.lstrip(BYTE_ORDER_MARK)
    if not text or text.isspace():
        return []
    if _is_writable(text, separator):
        return [text]
    breaks = f"\n\r{''.join(filter(str.isspace, separator))}"
    parts = [part for line in re.split(f"[{breaks}]", text) for part in _IN_START.split(line)]
    tokens = [part for part in parts if part and not part.isspace()]
    if len(tokens) > 1:
        report.lose("token that no line can hold, split", record.path, record.line)
    if not all(_is_writable(token, separator) for token in tokens):
        report.lose("separator in a token, written as _", record.path, record.line)
        in_separator = str.maketrans(dict.fromkeys(separator, "_"))
        tokens = [token.translate(in_separator) for token in tokens]
    return tokens


def _is_writable(text: str, separator: str) -> bool:
    """Whether a line can begin with a token and a separator and be read as that."""
    if "\n" in text or "\r" in text or text.startswith(DOCUMENT_START):
        return False
    # Not just whether it holds one: the end of "a|" would begin the "||" behind it.
    return f"{text}{separator}".index(separator) == len(text)


def _choose_flat(entities: list[Entity], record: Record, report: Report) -> list[Entity]:
    flat = select_flat(entities)
    n_contiguous = sum(entity.is_contiguous for entity in entities)
    for _ in range(len(entities) - n_contiguous):
        report.lose("discontinuous entity", record.path, record.line)
    for _ in range(n_contiguous - len(flat)):
        report.lose("overlapping entity", record.path, record.line)
    return flat


def _clean_label(label: str, separator: str, record: Record, report: Report) -> str:
    cleaned = re.sub(r"\s", "_", label)
    if cleaned != label:
        report.lose("white space in a label, written as _", record.path, record.line)
    if separator in cleaned:
        report.lose("separator in a label, written as _", record.path, record.line)
    return cleaned.replace(separator, "_")


def _make_tags(label: str, size: int, scheme: ColumnScheme) -> list[str]:
    if scheme == "BIO":
        prefixes = "B" + "I" * (size - 1)
    else:
        last, single = "LU" if scheme == "BILUO" else "ES"
        prefixes = "B" + "I" * (size - 2) + last if size > 1 else single
    return [f"{prefix}-{label}" for prefix in prefixes]
