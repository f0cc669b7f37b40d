"""Readers and writers of corpora."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spacy_mtlner.formats.base import CharEntity, CorpusError, Record, Report, Tally
from spacy_mtlner.formats.brat import read_brat
from spacy_mtlner.formats.cluener import read_cluener
from spacy_mtlner.formats.cmeee import read_cmeee
from spacy_mtlner.formats.columns import read_columns
from spacy_mtlner.formats.docbin import read_docbin
from spacy_mtlner.formats.docs import make_annotated_doc, read_char_entities, read_docs
from spacy_mtlner.formats.genia import read_genia
from spacy_mtlner.formats.jsonl import read_jsonl

__all__ = [
    "READERS",
    "CharEntity",
    "CorpusError",
    "Record",
    "Report",
    "Tally",
    "make_annotated_doc",
    "read_char_entities",
    "read_corpus",
    "read_docs",
]

# A reader takes path and report, and its format's own options by keyword.
READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "brat": read_brat,
    "cluener": read_cluener,
    "cmeee": read_cmeee,
    "columns": read_columns,
    "genia": read_genia,
    "jsonl": read_jsonl,
    "spacy": read_docbin,
}


def read_corpus(
    path: Path, format_name: str, report: Report, /, *, lang: str | None = None, **options: Any
) -> Iterator[Record]:
    """Read a corpus of any format.

    path (Path): The file.
    format_name (str): A name in `READERS`.
    report (Report): Counts what is skipped and repaired.
    lang (Optional[str]): The texts' language, for the formats that need it.
    options (Any): The format's own options; None stands for an option's default.
    RETURNS (Iterator[Record]): The records, read as they are asked for.
    RAISES (CorpusError): If there is no such format, it has no such option or the option no such
        value; while reading, if the file is not of this format.
    """
    if format_name not in READERS:
        hint = f"Choose one of: {', '.join(READERS)}."
        raise CorpusError(path, None, f"There is no format {format_name!r}.", hint)
    reader = READERS[format_name]
    parameters = inspect.signature(reader).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    needs_lang = known.pop("lang", None) is not None
    options = {name: value for name, value in options.items() if value is not None}
    unknown = ", ".join(options.keys() - known.keys())
    if unknown:
        raise CorpusError(path, None, f"The format {format_name!r} has no option: {unknown}.")
    for name, value in options.items():
        try:
            TypeAdapter(known[name]).validate_python(value, strict=True)
        except ValidationError as err:
            why = err.errors()[0]["msg"]
            message = f"The option {name} of the format {format_name!r} is {value!r}: {why}."
            raise CorpusError(path, None, message) from None
    if needs_lang:
        options["lang"] = lang
    return reader(path, report, **options)
