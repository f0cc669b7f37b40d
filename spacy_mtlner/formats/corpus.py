"""Training straight from corpus files, without converting them first."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import CorpusError, Report, read_docs
from spacy_mtlner.formats.convert import Settings, read_sources
from spacy_mtlner.formats.files import AUTO, find_sources


def make_corpus(
    path: Path,
    format: str = AUTO,
    spans_key: str = DEFAULT_KEY,
    n_sents: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.Corpus.v1`: a corpus in any text format that `mtlner convert`
    reads.

    path (Path): A corpus file, or a folder of them.
    format (str): A name in `formats.READERS`, or "auto" to find out that of each file.
    spans_key (str): Where the gold entities are written: the task they are annotated for.
    n_sents (Optional[int]): Sentences per example. None for whole texts, or one in columns.
    options (Optional[Mapping[str, Any]]): Options of the format's reader, as `tag_columns` of
        `read_columns`.
    RETURNS (Callable[[Language], Iterator[Example]]): Reads the examples for a pipeline.
    RAISES (ValueError): If there is no path.
    """
    if path is None:
        raise ValueError(
            "spacy_mtlner.Corpus.v1 has no path: set it in the config, or with --paths.train and "
            "--paths.dev."
        )
    settings = Settings(spans_key=spans_key, n_sents=n_sents, options=options or {})
    return partial(_read_examples, Path(path), format, settings)


def _read_examples(
    path: Path, format_name: str, settings: Settings, nlp: Language
) -> Iterator[Example]:
    report = Report()
    sources = find_sources(path, format_name, report)
    for source in sources:
        if source.format == "spacy":
            raise CorpusError(source.path, None, "Use spacy.Corpus.v1 for .spacy files.")
    records = read_sources(sources, replace(settings, lang=nlp.lang), nlp.make_doc, report)
    for doc in read_docs(records, nlp.make_doc, report, key=settings.spans_key):
        yield Example(nlp.make_doc(doc.text), doc)
    for what, tallies in (("skipped", report.skipped), ("repaired", report.repaired)):
        for reason, tally in tallies.items():
            warnings.warn(
                f"{path}: {tally.count} {what}: {reason} ({', '.join(tally.places)})", stacklevel=2
            )
