"""Training straight from corpus files, without converting them first."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import CorpusError, Report, read_corpus, read_docs


def make_corpus(
    path: Path,
    format: str = "jsonl",
    spans_key: str = DEFAULT_KEY,
    separator: str | None = None,
    tag_column: int | None = None,
    joiner: str | None = None,
    n_sents: int | None = None,
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.Corpus.v1`: a corpus in any format that `mtlner convert` reads.

    path (Path): The corpus.
    format (str): A name in `formats.READERS`.
    spans_key (str): Where the gold entities are written: the task they are annotated for.
    separator, tag_column, joiner, n_sents: The options of the format "columns", see `read_columns`;
        None for its defaults.
    RETURNS (Callable[[Language], Iterator[Example]]): Reads the examples for a pipeline.
    """
    if path is None:
        raise ValueError(
            "spacy_mtlner.Corpus.v1 has no path: set it in the config, or with --paths.train and "
            "--paths.dev."
        )
    options = {
        "separator": separator,
        "tag_column": tag_column,
        "joiner": joiner,
        "n_sents": n_sents,
    }
    return partial(_read_examples, Path(path), format, spans_key, options)


def _read_examples(
    path: Path, format_name: str, spans_key: str, options: dict[str, Any], nlp: Language
) -> Iterator[Example]:
    report = Report()
    records = read_corpus(path, format_name, report, lang=nlp.lang, **options)
    for doc in read_docs(records, nlp.make_doc, report, key=spans_key):
        yield Example(nlp.make_doc(doc.text), doc)
    if report.docs == 0:
        raise CorpusError(path, None, "Holds no records.", "Is it of another format?")
    for what, tallies in (("skipped", report.skipped), ("repaired", report.repaired)):
        for reason, tally in tallies.items():
            warnings.warn(
                f"{path}: {tally.count} {what}: {reason} ({', '.join(tally.places)})", stacklevel=2
            )
