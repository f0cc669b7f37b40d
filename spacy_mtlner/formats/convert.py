"""Conversion: corpus files of any format to files of another one."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import spacy
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import READERS, read_corpus
from spacy_mtlner.formats.base import CorpusError, Record, Report, replacing
from spacy_mtlner.formats.brat import write_brat
from spacy_mtlner.formats.columns import ColumnScheme, write_columns
from spacy_mtlner.formats.docbin import write_docbin
from spacy_mtlner.formats.files import AUTO, Source, find_sources
from spacy_mtlner.formats.jsonl import write_jsonl
from spacy_mtlner.formats.transform import Labels, relabel, split_sentences

# The formats that can be written, with the suffix of their files; brat's are folders.
WRITER_SUFFIXES = {"spacy": ".spacy", "jsonl": ".jsonl", "columns": ".conll", "brat": ""}
_BY_SUFFIX = {".spacy": "spacy", ".jsonl": "jsonl", ".conll": "columns", ".tsv": "columns"}


@dataclass(frozen=True)
class Job:
    """Sources that become one output.

    target (Path): The output's file, or folder for brat.
    writer (str): A name in `WRITER_SUFFIXES`.
    sources (tuple[Source, ...]): The sources.
    """

    target: Path
    writer: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Settings:
    """How corpora are converted.

    lang (Optional[str]): The language whose tokenizer is used. None where it is not needed: from
        `.spacy` files, and to formats without tokens.
    spans_key (str): The key of `doc.spans` to write to, and to read from in `.spacy` files without
        an option "input_key".
    set_ents (bool): Write `doc.ents` as well.
    labels (Labels): Which labels become which, and which are kept.
    n_sents (Optional[int]): Sentences per doc. None for whole texts, or one in columns.
    tag_scheme (ColumnScheme): The scheme of tags in columns.
    lossy (bool): Write what the output's format can hold, if it cannot hold all.
    options (Mapping[str, Any]): Options of the readers, None for defaults.
    RAISES (ValueError): If a setting cannot be.
    """

    lang: str | None = None
    spans_key: str = DEFAULT_KEY
    set_ents: bool = False
    labels: Labels = field(default_factory=Labels)
    n_sents: int | None = None
    tag_scheme: ColumnScheme = "BIO"
    lossy: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.spans_key:
            raise ValueError("The spans key is empty: it must name a key of doc.spans.")
        if self.n_sents is not None and self.n_sents < 1:
            raise ValueError(f"n_sents must be at least 1, not {self.n_sents}.")
        if self.tag_scheme not in get_args(ColumnScheme):
            schemes = ", ".join(get_args(ColumnScheme))
            raise ValueError(f"--tag-scheme {self.tag_scheme!r}: choose one of {schemes}.")


def plan_jobs(
    input_path: Path,
    output: str,
    report: Report,
    *,
    format_name: str = AUTO,
    writer: str | None = None,
) -> list[Job]:
    """Find out what is to be converted to what.

    input_path (Path): A corpus file, or a folder of them.
    output (str): The output's file, for all input; or a folder, which exists or ends in "/", for
        one output a file, which is named after it.
    report (Report): Counts the files of a folder that are not read.
    format_name (str): A name in `READERS`, or "auto".
    writer (Optional[str]): A name in `WRITER_SUFFIXES`. None to choose it by the output's suffix,
        or ".spacy" if it is a folder.
    RETURNS (list[Job]): One job per output.
    RAISES (CorpusError): If there is no such input, format or output.
    """
    target = Path(output)
    if format_name not in (AUTO, *READERS):
        hint = f"Choose one of: {', '.join((AUTO, *READERS))}."
        raise CorpusError(input_path, None, f"There is no format {format_name!r}.", hint)
    if writer not in (None, *WRITER_SUFFIXES):
        hint = f"Choose one of: {', '.join(WRITER_SUFFIXES)}."
        raise CorpusError(target, None, f"The format {writer!r} cannot be written.", hint)
    sources = find_sources(input_path, format_name, report)
    is_folder = output.endswith("/") or target.is_dir()
    if writer == "brat":
        is_folder = len(sources) > 1
    elif not is_folder:
        writer = writer or _BY_SUFFIX.get(target.suffix)
        if writer is None:
            hint = f"Use one of {', '.join(_BY_SUFFIX)}, a folder with '/' behind it, or --to."
            raise CorpusError(target, None, "The output's name does not tell its format.", hint)
    if not is_folder:
        jobs = [Job(target, writer or "spacy", tuple(sources))]
    else:
        jobs = [_make_job(source, input_path, target, writer or "spacy") for source in sources]
    check_targets(jobs)
    return jobs


def _make_job(source: Source, root: Path, folder: Path, writer: str) -> Job:
    inner = source.path.relative_to(root).parent if source.path != root else Path()
    return Job(folder / inner / f"{source.name}{WRITER_SUFFIXES[writer]}", writer, (source,))


def check_targets(jobs: Sequence[Job]) -> None:
    """Check that no output is another one's, or a source's, or a folder with something in it.

    jobs (Sequence[Job]): The jobs.
    RAISES (CorpusError): If one is.
    """
    sources = {
        path.resolve()
        for job in jobs
        for source in job.sources
        for path in (source.path, *source.files)
    }
    taken: dict[str, Job] = {}
    for job in jobs:
        first = taken.setdefault(str(job.target).casefold(), job)
        if first is not job:
            paths = f"{first.sources[0].path} and {job.sources[0].path}"
            hint = "Convert them one by one."
            raise CorpusError(job.target, None, f"{paths} would both become this file.", hint)
        if job.target.resolve() in sources:
            raise CorpusError(job.target, None, "The output is the input, too.")
        if job.target.is_dir() and (job.writer != "brat" or any(job.target.iterdir())):
            raise CorpusError(job.target, None, "The output is a folder that is not empty.")


def run_jobs(
    jobs: Iterable[Job], settings: Settings, report: Report, *, show_progress: bool = False
) -> dict[Path, int]:
    """Convert corpora. An output appears when it is complete.

    jobs (Iterable[Job]): What is to be converted to what.
    settings (Settings): How.
    report (Report): Counts what the corpora hold and what becomes of it.
    show_progress (bool): Show a progress bar, if it takes longer.
    RETURNS (dict[Path, int]): How many docs were written to each output.
    RAISES (CorpusError): If a corpus cannot be read, or its output not hold it.
    RAISES (ValueError): If a setting has no effect on any output.
    RAISES (ImportError): If the language is unknown or its tokenizer is not installed.
    """
    jobs = list(jobs)
    if settings.set_ents and not any(job.writer == "spacy" for job in jobs):
        raise ValueError("--ents writes doc.ents, which .spacy files alone can hold.")
    make_doc = make_tokenizer(jobs, settings)
    n_docs: dict[Path, int] = {}
    n_bytes = sum(source.size for job in jobs for source in job.sources)
    with tqdm(
        total=n_bytes, unit="B", unit_scale=True, delay=2, disable=None if show_progress else True
    ) as bar:
        for job in jobs:
            before = report.docs
            records = _watch(read_sources(job.sources, settings, make_doc, report), report, bar)
            with replacing(job.target) as part:
                write_records(records, part, job, settings, make_doc, report)
            n_docs[job.target] = report.docs - before
    return n_docs


def _check_lang(job: Job, settings: Settings) -> None:
    if settings.lang is not None:
        return
    for source in job.sources:
        needs = {
            "tokens": source.format != "spacy" and job.writer in ("spacy", "columns"),
            "sentences": settings.n_sents and source.format not in ("spacy", "columns"),
            "the text of columns": source.format == "columns"
            and settings.options.get("joiner") is None,
        }
        if any(needs.values()):
            needed = next(name for name, value in needs.items() if value)
            hint = "Name it with --lang, as 'en' or 'zh'."
            raise CorpusError(source.path, None, f"Making {needed} needs the language.", hint)


def make_tokenizer(jobs: Iterable[Job], settings: Settings) -> Callable[[str], Doc]:
    """Make the tokenizer for the language of some jobs.

    jobs (Iterable[Job]): What is to be converted to what.
    settings (Settings): How.
    RETURNS (Callable[[str], Doc]): The tokenizer.
    RAISES (CorpusError): If the language is needed and not set.
    RAISES (ImportError): If the language is unknown or its tokenizer is not installed.
    """
    for job in jobs:
        _check_lang(job, settings)
    lang = settings.lang or "xx"
    try:
        nlp = spacy.blank(lang)
    except ImportError as err:
        hint = "Choose another one, or 'xx' for rules of no certain language."
        raise ImportError(f"No tokenizer for language {lang!r}: {err} {hint}") from err
    nlp.max_length = sys.maxsize  # A limit for parsers, not for tokenizers.
    return nlp.make_doc


def read_sources(
    sources: Iterable[Source],
    settings: Settings,
    make_doc: Callable[[str], Doc],
    report: Report,
) -> Iterator[Record]:
    """Read corpora, with the labels and in units of the size that are asked for.

    sources (Iterable[Source]): The corpora.
    settings (Settings): How they are read.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    report (Report): Counts what is skipped, repaired and left out.
    YIELDS (Record): The records.
    RAISES (CorpusError): If a corpus cannot be read or holds no records.
    """
    for source in sources:
        given = {name: value for name, value in settings.options.items() if value is not None}
        options = {**source.options, **given}
        if source.format == "spacy":
            options.setdefault("input_key", settings.spans_key)
        n_sents = settings.n_sents
        if source.format == "columns" and n_sents is not None:
            options["n_sents"] = n_sents
            n_sents = None
        records = read_corpus(source.path, source.format, report, lang=settings.lang, **options)
        if settings.labels:
            records = relabel(records, settings.labels, report)
        if n_sents is not None:
            records = split_sentences(records, n_sents, make_doc, report)
        is_empty = True
        for record in records:
            is_empty = False
            if source.prefix and record.document is not None:
                record = replace(record, document=f"{source.prefix}{record.document}")
            yield record
        if is_empty:
            raise CorpusError(source.path, None, "Holds no records.", "Is it of another format?")


def _watch(records: Iterable[Record], report: Report, bar: "tqdm[Any]") -> Iterator[Record]:
    for record in records:
        bar.update(report.bytes_read - bar.n)
        yield record


def write_records(
    records: Iterable[Record],
    path: Path,
    job: Job,
    settings: Settings,
    make_doc: Callable[[str], Doc],
    report: Report,
) -> None:
    """Write records in the format of a job.

    records (Iterable[Record]): The records.
    path (Path): Where to write them.
    job (Job): The job.
    settings (Settings): How they are written.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    report (Report): Counts what is written and what is lost.
    RAISES (CorpusError): If the output cannot hold the records and the settings are not lossy.
    """
    if job.writer != "spacy":
        records = _count_of_docs(records, report)
    match job.writer:
        case "brat":
            write_brat(records, path, report)
        case "columns":
            write_columns(records, path, report, make_doc=make_doc, tag_scheme=settings.tag_scheme)
        case "jsonl":
            write_jsonl(records, path, report)
        case "spacy":
            write_docbin(
                records,
                path,
                report,
                make_doc=make_doc,
                key=settings.spans_key,
                set_ents=settings.set_ents,
                keep_attrs=any(source.format == "spacy" for source in job.sources),
                intact=settings.options.get("intact", False),
            )
    if report.lost and not settings.lossy:
        losses = "; ".join(f"{tally.count} x {reason}" for reason, tally in report.lost.items())
        hint = "Write another format, or use --lossy to write the rest."
        message = f"The format {job.writer!r} cannot hold: {losses}."
        raise CorpusError(job.target, None, message, hint)


def _count_of_docs(records: Iterable[Record], report: Report) -> Iterator[Record]:
    """Count what `.spacy` files alone can hold."""
    for record in records:
        for _ in record.unknown:
            report.lose("token without annotation, read as outside", record.path, record.line)
        if record.doc is not None:
            for _ in chain.from_iterable(record.doc.spans.values()):
                report.ignore("span of another group of a doc", record.path, record.line)
        yield record
