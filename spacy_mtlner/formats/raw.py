"""Raw text: what corpora of any format say, whatever annotation they have."""

import json
from collections.abc import Iterator
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc

from spacy_mtlner.formats import read_corpus
from spacy_mtlner.formats.base import (
    CorpusError,
    Report,
    UnknownFormatError,
    is_about_corpus,
    is_unicode,
    read_lines,
)
from spacy_mtlner.formats.detect import detect_format
from spacy_mtlner.formats.docbin import load_docs
from spacy_mtlner.formats.files import list_files, pass_over

_RAW = "raw"
_HINT = 'Raw text is a .txt file, .spacy, or JSON lines with "text".'
_JSON = (".jsonl", ".json", ".ndjson")
_ANNOTATION = (".ann", ".conf")  # Of brat's texts, which are .txt files beside them.


def read_raw(path: Path, report: Report) -> Iterator[str]:
    """Read raw text. Empty texts are passed over.

    path (Path): A .txt file with a text per line, or JSON lines with "text".
    report (Report): Counts the bytes that are read, and what is skipped.
    YIELDS (str): The texts.
    RAISES (CorpusError): If the file cannot be read or is not of this format.
    """
    for number, line in read_lines(path, report):
        if not line.strip():
            continue
        if path.suffix == ".txt":
            yield line.strip()
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise CorpusError(path, number, _HINT)
        if not is_unicode(text):
            report.skip("record with half a surrogate pair", path, number)
        elif text:
            yield text


def read_raw_docs(path: Path, nlp: Language, report: Report) -> Iterator[Doc]:
    """Read the texts of a corpus: a `.spacy` file's docs with the tokens that they have, all other
    texts with those of the pipeline's tokenizer.

    path (Path): A `.spacy` file, a .txt file with a text per line, JSON lines with "text", a file
        of any other format in `READERS`, or a folder of such files.
    nlp (Language): The pipeline.
    report (Report): Counts what is skipped and passed over.
    YIELDS (Doc): The docs.
    RAISES (CorpusError): If there is no text, or a file cannot be read.
    """
    if not path.exists():
        raise CorpusError(path, None, "Cannot be read: there is no such file or folder.")
    kinds = _find_in_folder(path, report) if path.is_dir() else {path: _find_kind(path)}
    is_empty = True
    for file, kind in kinds.items():
        for doc in _read_file(file, kind, nlp, report):
            is_empty = False
            yield doc
    if is_empty:
        raise CorpusError(path, None, "Holds no text.", _HINT)


def _find_in_folder(folder: Path, report: Report) -> dict[Path, str]:
    """The files with text in a folder and the folders in it, and what they are."""
    kinds: dict[Path, str] = {}
    for path in (path for _, paths in list_files(folder, report) for path in paths):
        if path.suffix in _ANNOTATION:
            continue
        if is_about_corpus(path):
            report.ignore("file about the corpus", path, 1)
            continue
        try:
            kinds[path] = _find_kind(path)
        except CorpusError as err:
            pass_over(err, report)
    return kinds


def _find_kind(path: Path) -> str:
    """The name of a file's reader, or `_RAW`."""
    if path.suffix == ".txt" and path.with_suffix(".ann").is_file():
        return _RAW
    try:
        name = detect_format(path)[0]
    except CorpusError as err:
        if path.suffix in (".txt", *_JSON):
            return _RAW
        hint = _HINT if isinstance(err, UnknownFormatError) else err.hint
        raise type(err)(path, err.line, err.message, hint) from None
    # The text is all that is wanted of JSON lines: their entities need not be right.
    return _RAW if path.suffix in _JSON and name in ("cluener", "jsonl") else name


def _read_file(path: Path, kind: str, nlp: Language, report: Report) -> Iterator[Doc]:
    if kind == "spacy":
        yield from load_docs(path, nlp.vocab)
        return
    if kind == _RAW:
        texts = read_raw(path, report)
    else:
        options = detect_format(path)[1]
        records = read_corpus(path, kind, report, lang=nlp.lang, **options)
        texts = (record.text for record in records)
    yield from map(nlp.make_doc, texts)
