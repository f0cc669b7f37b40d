"""`python -m spacy mtlner convert`: a corpus to spaCy's binary format."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy.language import Language
from spacy.tokens import DocBin
from srsly.msgpack import msgpack_encoders  # type: ignore[import-untyped]
from wasabi import msg

from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import READERS, CorpusError, Report, Tally, read_corpus, read_docs
from spacy_mtlner.formats.base import replacing


def convert_cli(
    input_path: Annotated[Path, typer.Argument(metavar="INPUT", help="Corpus file")],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Output file, *.spacy, or a folder (one that exists, or a name that ends in '/')",
        ),
    ],
    format_name: Annotated[
        str, typer.Option("--format", "-f", help=f"Format of the corpus: {', '.join(READERS)}")
    ],
    lang: Annotated[
        str, typer.Option("--lang", "-l", help="Language whose tokenizer is used, as 'en' or 'zh'")
    ],
    spans_key: Annotated[
        str, typer.Option("--spans-key", "-k", help="Key of doc.spans for the entities")
    ] = DEFAULT_KEY,
    ents: Annotated[
        bool, typer.Option("--ents", "-e", help="Write doc.ents as well: what it can hold")
    ] = False,
    separator: Annotated[
        str | None,
        typer.Option(
            help=r"Columns: what separates them, '\t' for a tab [default: any run of blanks, tabs]"
        ),
    ] = None,
    tag_column: Annotated[
        int | None,
        typer.Option(help="Columns: the tag's, from 0, or backwards from -1 [default: -1]"),
    ] = None,
    joiner: Annotated[
        str | None,
        typer.Option(
            help="Columns: what joins tokens to text [default: a blank, or nothing in languages "
            "written without]"
        ),
    ] = None,
    n_sents: Annotated[
        int | None,
        typer.Option("--n-sents", "-n", min=1, help="Columns: sentences per doc [default: 1]"),
    ] = None,
) -> None:
    """
    Convert a corpus to spaCy's binary format, with its entities in doc.spans. Nested, overlapping
    and discontinuous entities are kept; tokens are split where an entity begins or ends inside.
    """
    options = {
        "separator": separator and separator.replace(r"\t", "\t"),
        "tag_column": tag_column,
        "joiner": joiner,
        "n_sents": n_sents,
    }
    report = Report()
    try:
        output_path = convert(
            input_path,
            output,
            report,
            format_name=format_name,
            lang=lang,
            spans_key=spans_key,
            set_ents=ents,
            **options,
        )
    except (CorpusError, ImportError, OSError) as err:
        msg.fail("The corpus was not converted", str(err), exits=1)
    print_report(report, with_ents=ents)
    msg.good(f"Wrote {report.docs} docs: {output_path}")


def convert(
    input_path: Path,
    output: str,
    report: Report,
    *,
    format_name: str,
    lang: str,
    spans_key: str = DEFAULT_KEY,
    set_ents: bool = False,
    **options: Any,
) -> Path:
    """Convert a corpus to spaCy's binary format.

    input_path (Path): The corpus.
    output (str): A file that ends in `.spacy`; or a folder, which exists or ends in `/`, for a file
        named after the corpus.
    report (Report): Counts what the corpus holds and what is skipped and repaired.
    format_name (str): A name in `READERS`.
    lang (str): The language whose tokenizer is used.
    spans_key (str): The key of `doc.spans` to write to.
    set_ents (bool): Write `doc.ents` as well.
    options (Any): The format's own options.
    RETURNS (Path): The file, which appears when it is complete.
    RAISES (CorpusError): If the corpus cannot be read.
    RAISES (ImportError): If the language is unknown or its tokenizer is not installed.
    """
    output_path = Path(output)
    if output_path.is_dir() or output.endswith("/"):
        output_path /= f"{input_path.stem}.spacy"
    elif output_path.suffix != ".spacy":
        raise CorpusError(output_path, None, "The output must be a .spacy file or a folder.")
    nlp = _make_nlp(lang)
    nlp.max_length = sys.maxsize  # A limit for parsers, not for tokenizers.
    records = read_corpus(input_path, format_name, report, lang=nlp.lang, **options)
    docs = read_docs(records, nlp.make_doc, report, key=spans_key, set_ents=set_ents)
    with _encoders_found_once():
        doc_bin = DocBin(docs=docs, store_user_data=True)
    if len(doc_bin) == 0:
        raise CorpusError(input_path, None, "Holds no records.", "Is it of another format?")
    with replacing(output_path) as part:
        doc_bin.to_disk(part)
    return output_path


def _make_nlp(lang: str) -> Language:
    try:
        return spacy.blank(lang)
    except ImportError as err:
        hint = "Choose another one, or 'xx' for rules of no certain language."
        raise ImportError(f"No tokenizer for language {lang!r}: {err} {hint}") from err


@contextmanager
def _encoders_found_once() -> Iterator[None]:
    """Within this context, srsly does not search all entry points for encoders at every message.

    A DocBin packs three messages per doc: the search would take two thirds of a conversion.
    """
    encoders = msgpack_encoders.get_all()
    msgpack_encoders.get_all = lambda: encoders
    try:
        yield
    finally:
        del msgpack_encoders.get_all


def print_report(report: Report, *, with_ents: bool) -> None:
    """Print what a corpus held and what became of it.

    report (Report): The report.
    with_ents (bool): Whether `doc.ents` was written.
    """
    figures = {
        "Docs": report.docs,
        "Tokens": report.tokens,
        "Tokens split": report.split_tokens,
        "Entities": report.entities.total(),
        "Nested": report.nested,
        "Discontinuous": report.discontinuous,
    }
    if with_ents:
        figures["Not in doc.ents"] = report.not_in_ents
    msg.table(figures.items(), aligns=("l", "r"))
    if report.entities:
        msg.table(
            report.entities.most_common(),
            header=("Label", "Entities"),
            divider=True,
            aligns=("l", "r"),
        )
    _print_tallies("Skipped", report.skipped)
    _print_tallies("Repaired", report.repaired)


def _print_tallies(title: str, tallies: dict[str, Tally]) -> None:
    for reason, tally in tallies.items():
        more = ", ..." if tally.count > len(tally.places) else ""
        msg.warn(f"{title}: {reason}: {tally.count}", f"{', '.join(tally.places)}{more}")
