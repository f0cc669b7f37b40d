"""Training straight from corpus files, without converting them first."""

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mtlner.entities import DEFAULT_KEY, copy_tokens
from spacy_mtlner.formats import CorpusError, Report, read_docs
from spacy_mtlner.formats.convert import Settings, read_sources
from spacy_mtlner.formats.docbin import load_docs
from spacy_mtlner.formats.files import AUTO, Source, find_sources


def make_corpus(
    path: Path | None,
    format: str = AUTO,
    spans_key: str = DEFAULT_KEY,
    n_sents: int | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int = 0,
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.Corpus.v1`: a corpus in any format that `mtlner convert` reads.

    The docs of `.spacy` files are taken as they are. They are read much faster than by
    `spacy.Corpus.v1`, which searches all entry points for each doc.

    path (Optional[Path]): A corpus file, or a folder of them.
    format (str): A name in `formats.READERS`, or "auto" to find out that of each file.
    spans_key (str): Where the gold entities of other formats than `.spacy` are written: the task
        they are annotated for.
    n_sents (Optional[int]): Sentences per example, in formats other than `.spacy`. None for whole
        texts, or one in columns.
    options (Optional[Mapping[str, Any]]): Options of the format's reader, as `tag_columns` of
        `read_columns`.
    limit (int): Read that many examples; 0 for all.
    RETURNS (Callable[[Language], Iterator[Example]]): Reads the examples for a pipeline.
    RAISES (ValueError): If there is no path, or the limit is negative.
    """
    if path is None:
        raise ValueError(
            "spacy_mtlner.Corpus.v1 has no path: set it in the config, or with --paths.train and "
            "--paths.dev."
        )
    if limit < 0:
        raise ValueError(f"spacy_mtlner.Corpus.v1: limit must be 0 or above, not {limit}.")
    settings = Settings(spans_key=spans_key, n_sents=n_sents, options=options or {})
    return partial(_read_examples, Path(path), format, settings, limit)


def _read_examples(
    path: Path, format_name: str, settings: Settings, limit: int, nlp: Language
) -> Iterator[Example]:
    with closing(read_references(nlp, path, settings, format_name)) as references:
        for reference in islice(filter(len, references), limit or None):
            yield make_example(nlp, reference)


def read_references(
    nlp: Language, path: Path, settings: Settings, format_name: str = AUTO
) -> Generator[Doc]:
    """Read the annotated docs of a corpus. What is skipped or repaired is a warning.

    nlp (Language): The pipeline.
    path (Path): A corpus file, or a folder of them.
    settings (Settings): How other formats than `.spacy` are read.
    format_name (str): A name in `formats.READERS`, or "auto" to find out that of each file.
    YIELDS (Doc): The docs.
    RAISES (CorpusError): If there is no corpus or it cannot be read, or there are settings that its
        format does not have.
    """
    report = Report()
    try:
        for source in find_sources(path, format_name, report):
            yield from read_source(nlp, source, settings, report)
    except GeneratorExit:  # No more docs are wanted.
        warn_of_report(path, report)
        raise
    warn_of_report(path, report)


def read_source(nlp: Language, source: Source, settings: Settings, report: Report) -> Iterator[Doc]:
    """Read the annotated docs of one file of a corpus, or of a folder of brat files.

    nlp (Language): The pipeline.
    source (Source): The file.
    settings (Settings): How other formats than `.spacy` are read.
    report (Report): Counts what is skipped and repaired.
    YIELDS (Doc): The docs.
    RAISES (CorpusError): If it cannot be read or holds nothing, or there are settings that its
        format does not have.
    """
    if source.format != "spacy":
        settings = replace(settings, lang=nlp.lang)
        records = read_sources([source], settings, nlp.make_doc, report)
        yield from read_docs(records, nlp.make_doc, report, key=settings.spans_key)
        return
    if settings.n_sents is not None or settings.options:
        message = "A .spacy file is read as it is: n_sents and options are for other formats."
        raise CorpusError(source.path, None, message, "Remove them, or convert the file.")
    is_empty = True
    for doc in load_docs(source.path, nlp.vocab):
        is_empty = False
        yield doc
    if is_empty:
        raise CorpusError(source.path, None, "Holds no docs.")


def warn_of_report(path: Path, report: Report) -> None:
    """Warn of what was skipped or repaired.

    path (Path): The corpus.
    report (Report): What was counted.
    """
    for what, tallies in (("skipped", report.skipped), ("repaired", report.repaired)):
        for reason, tally in tallies.items():
            warnings.warn(
                f"{path}: {tally.count} {what}: {reason} ({', '.join(tally.places)})", stacklevel=2
            )


def make_example(nlp: Language, reference: Doc) -> Example:
    """Put a doc to predict beside an annotated one, as `spacy.Corpus.v1` does.

    nlp (Language): The pipeline, whose tokenizer makes the doc.
    reference (Doc): The annotated doc.
    RETURNS (Example): Both.
    """
    if not reference.has_unknown_spaces:
        return Example(nlp.make_doc(reference.text), reference)
    return Example(copy_tokens(reference, nlp.vocab), reference)
