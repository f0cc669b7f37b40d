"""Training straight from corpus files, without converting them first."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from spacy.language import Language
from spacy.training import Example

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import Report, read_corpus, read_docs


def make_corpus(
    path: Path, format: str = "jsonl", spans_key: str = DEFAULT_KEY
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.Corpus.v1`: a corpus in any format that `mtlner convert` reads.

    path (Path): The corpus.
    format (str): A name in `formats.READERS`.
    spans_key (str): Where the gold entities are written: the task they are annotated for.
    RETURNS (Callable[[Language], Iterator[Example]]): Reads the examples for a pipeline.
    """
    if path is None:
        raise ValueError(
            "spacy_mtlner.Corpus.v1 has no path: set it in the config, or with --paths.train and "
            "--paths.dev."
        )
    return partial(_read_examples, path=Path(path), format_name=format, spans_key=spans_key)


def _read_examples(
    nlp: Language, *, path: Path, format_name: str, spans_key: str
) -> Iterator[Example]:
    report = Report()
    records = read_corpus(path, format_name, report, lang=nlp.lang)
    for doc in read_docs(records, nlp.make_doc, report, key=spans_key):
        yield Example(nlp.make_doc(doc.text), doc)
    n_skipped = sum(tally.count for tally in report.skipped.values())
    if n_skipped:
        reasons = "; ".join(
            f"{reason}: {tally.count} ({', '.join(tally.places)})"
            for reason, tally in report.skipped.items()
        )
        warnings.warn(f"{path}: {n_skipped} annotations skipped. {reasons}", stacklevel=2)
