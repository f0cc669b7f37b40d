"""The corpus files that a path holds, and what their output is called."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy_mtlner.formats.base import CorpusError, Report, UnknownFormatError, is_about_corpus
from spacy_mtlner.formats.detect import detect_columns, detect_format, read_head

AUTO = "auto"

# The suffixes of the formats' files. Brat's corpora are folders.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "cluener": (".json", ".jsonl"),
    "cmeee": (".txt", ".json", ".jsonl"),
    "columns": (
        *(".conll", ".tsv", ".csv", ".txt", ".bio", ".bioes", ".bmes", ".iob", ".iob2", ".ner"),
        *(".train", ".dev", ".test", ".testa", ".testb", ".annotated", ".data"),
    ),
    "genia": (".xml",),
    "jsonl": (".jsonl", ".json", ".ndjson"),
    "spacy": (".spacy",),
}
# Those of files that are no corpora, as often.
_COMMON = (".annotated", ".csv", ".data", ".json", ".tsv", ".txt", ".xml")
# Those that tell the parts of a corpus apart: they stay in the output's name.
_PARTS = (".train", ".dev", ".test", ".testa", ".testb", ".annotated")
_BRAT_SUFFIXES = (".ann", ".txt", ".conf")


@dataclass(frozen=True)
class Source:
    """A corpus file, or a folder of brat files.

    path (Path): The file or folder.
    format (str): The format's name in `READERS`.
    options (dict[str, Any]): Options for its reader, as far as they were found out.
    prefix (str): What tells its documents from those of the same name in other folders.
    """

    path: Path
    format: str
    options: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""

    @property
    def files(self) -> list[Path]:
        """RETURNS (list[Path]): The files to read."""
        if self.path.is_dir():
            return [path for path in self.path.iterdir() if path.suffix in (".ann", ".txt")]
        if self.format == "brat":
            paths = (self.path.with_suffix(".ann"), self.path.with_suffix(".txt"))
            return [path for path in paths if path.is_file()]
        return [self.path]

    @property
    def size(self) -> int:
        """RETURNS (int): How many bytes there are to read."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def name(self) -> str:
        """RETURNS (str): The name for its output, without a suffix."""
        suffix = self.path.suffix
        known = {*_BRAT_SUFFIXES}.union(*_SUFFIXES.values()) - {*_PARTS}
        return self.path.name.removesuffix(suffix) if suffix in known else self.path.name


def find_sources(path: Path, format_name: str, report: Report) -> list[Source]:
    """Find the corpus files at a path.

    path (Path): A file, or a folder with files in it and in the folders in it. Files of other
        kinds, hidden ones, and texts about the corpus such as README are passed over.
    format_name (str): The files' format, or "auto" to find out that of each.
    report (Report): Counts the files of a folder that are not read.
    RETURNS (list[Source]): The files in order of their names.
    RAISES (CorpusError): If there is none, or a file that is meant as a corpus cannot be told.
    """
    if not path.exists():
        raise CorpusError(path, None, "Cannot be read: there is no such file or folder.")
    if not path.is_dir():
        return [_make_source(path, format_name)]
    sources: list[Source] = []
    for folder, paths in list_files(path, report):
        inner = folder.relative_to(path)
        prefix = f"{inner.as_posix()}/" if inner.parts else ""
        found = _find_in_folder(folder, paths, format_name, report)
        sources += (replace(source, prefix=prefix) for source in found)
    if not sources:
        kind = "known format" if format_name == AUTO else f"format {format_name!r}"
        skipped = (f"{why} ({', '.join(tally.places)})" for why, tally in report.skipped.items())
        hint = f"Skipped: {'; '.join(skipped)}." if report.skipped else ""
        raise CorpusError(path, None, f"Holds no files of a {kind}.", hint)
    return sources


def list_files(path: Path, report: Report) -> Iterator[tuple[Path, list[Path]]]:
    """List the files of a folder and of those in it, linked ones included, but for hidden ones and
    links back to the folders that they are in.

    path (Path): The folder.
    report (Report): Counts links to what is not there.
    YIELDS (tuple[Path, list[Path]]): A folder and its files, both in order of their names.
    RAISES (CorpusError): If a folder cannot be read.
    """
    for folder, folders, names in os.walk(path, onerror=_refuse, followlinks=True):
        here = Path(folder).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not (name.startswith(".") or here.is_relative_to((here / name).resolve()))
        )
        paths = sorted(Path(folder) / name for name in names if not name.startswith("."))
        for broken in (file for file in paths if not file.exists()):
            report.skip("link to what is not there", broken, 1)
        yield Path(folder), [file for file in paths if file.is_file()]


def _refuse(err: OSError) -> None:
    raise CorpusError(Path(err.filename), None, f"Cannot be read: {err.strerror}.") from None


def _make_source(path: Path, format_name: str) -> Source:
    if format_name == AUTO:
        return Source(path, *detect_format(path))
    if format_name == "columns":
        return Source(path, format_name, detect_columns(read_head(path)) or {})
    return Source(path, format_name)


def pass_over(err: CorpusError, report: Report) -> None:
    """Skip a file of a folder whose format cannot be told, unless it must be meant as a corpus.

    err (CorpusError): The error.
    report (Report): Counts the file.
    RAISES (CorpusError): If the file has the suffix of a known format, and that of corpora alone or
        an error that is certain.
    """
    known = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
    is_certain = not isinstance(err, UnknownFormatError)
    suffix = err.path.suffix
    if suffix in known and err.path.stat().st_size and (is_certain or suffix not in _COMMON):
        raise err
    reason = "file of no known format"
    if suffix in known:
        reason = f"{reason}: {err.message.rstrip('.')}"
    report.skip(reason, err.path, err.line or 1)


def _find_in_folder(
    folder: Path, paths: list[Path], format_name: str, report: Report
) -> Iterator[Source]:
    if format_name in (AUTO, "brat") and any(path.suffix == ".ann" for path in paths):
        yield Source(folder, "brat")
        paths = [path for path in paths if path.suffix not in _BRAT_SUFFIXES]
    for path in paths:
        if is_about_corpus(path):
            report.ignore("file about the corpus", path, 1)
        elif format_name == AUTO:
            try:
                yield _make_source(path, AUTO)
            except CorpusError as err:
                pass_over(err, report)
        elif path.suffix in _SUFFIXES.get(format_name, ()):
            yield _make_source(path, format_name)
        else:
            report.ignore("file of another format", path, 1)
