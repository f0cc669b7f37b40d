"""`python -m spacy mtlner convert`: corpora of any format to spaCy's or another one."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from wasabi import msg

from spacy_mtlner.cli.options import FormatName, Lang, Lossy, SpansKey
from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import Report
from spacy_mtlner.formats.columns import ColumnScheme
from spacy_mtlner.formats.convert import WRITER_SUFFIXES, Job, Settings, plan_jobs, run_jobs
from spacy_mtlner.formats.files import AUTO
from spacy_mtlner.formats.transform import Labels


def convert_cli(
    input_path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Corpus file, or folder of corpus files")
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Output file for all input (*.spacy, *.jsonl, *.conll, *.tsv), or a folder (one "
            "that exists, or a name that ends in '/') for an output per file",
        ),
    ],
    format_name: FormatName = AUTO,
    writer: Annotated[
        str | None,
        typer.Option(
            "--to",
            "-t",
            help=f"Format of the output: {', '.join(WRITER_SUFFIXES)} [default: by OUTPUT's "
            "suffix; spacy in a folder]",
        ),
    ] = None,
    lang: Lang = None,
    spans_key: SpansKey = DEFAULT_KEY,
    ents: Annotated[
        bool, typer.Option("--ents", "-e", help="Write doc.ents as well: what it can hold")
    ] = False,
    mappings: Annotated[
        list[str] | None,
        typer.Option(
            "--map", "-m", metavar="OLD,OLD=NEW", help="Give labels another name; may be repeated"
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL,LABEL", help="Keep entities of these (new) labels alone"),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL,LABEL", help="Leave out entities of these (new) labels"),
    ] = None,
    n_sents: Annotated[
        int | None,
        typer.Option(
            "--n-sents",
            "-n",
            min=1,
            help="Sentences per doc; entities are never cut [default: whole texts; 1 in columns]",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Stop where an annotation would have to be skipped")
    ] = False,
    lossy: Lossy = False,
    separator: Annotated[
        str | None,
        typer.Option(
            help=r"Columns: what separates them, '\t' for a tab [default: any run of blanks, tabs]"
        ),
    ] = None,
    token_column: Annotated[
        int | None,
        typer.Option(help="Columns: the token's, from 0 [default: 0]"),
    ] = None,
    tag_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns: the tags', from 0, or backwards from -1; several layers as '1,2' "
            "[default: -1]"
        ),
    ] = None,
    tag_separator: Annotated[
        str | None,
        typer.Option(help="Columns: what separates several tags of a token, as '|'"),
    ] = None,
    segmentation_digit: Annotated[
        bool | None,
        typer.Option(
            "--segmentation-digit", help="Columns: a digit stands behind each token, as in Weibo"
        ),
    ] = None,
    comment: Annotated[
        str | None, typer.Option(help="Columns: how lines begin that are no tokens, as '#'")
    ] = None,
    joiner: Annotated[
        str | None,
        typer.Option(
            help="Columns: what joins tokens to text [default: a blank, or nothing in languages "
            "written without]"
        ),
    ] = None,
    tag_scheme: Annotated[
        str, typer.Option(help="Columns as output: the tags, BIO, BILUO or BIOES")
    ] = "BIO",
    input_key: Annotated[
        str | None,
        typer.Option(help=".spacy as input: key of doc.spans [default: --spans-key]"),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            help=".spacy as input: where the entities are, spans, ents or auto [default: auto]"
        ),
    ] = None,
) -> None:
    """
    Convert corpora, by default to spaCy's binary format with their entities in doc.spans. Nested,
    overlapping and discontinuous entities are kept; tokens are split where an entity begins or ends
    inside. What has to be skipped, repaired or left out is counted, with file and line.
    """
    options: dict[str, Any] = {
        "separator": separator and separator.replace(r"\t", "\t"),
        "token_column": token_column,
        "tag_separator": tag_separator,
        "segmentation_digit": segmentation_digit,
        "comment": comment,
        "joiner": joiner,
        "input_key": input_key,
        "gold": gold,
    }
    report = Report(strict=strict)
    try:
        if tag_columns is not None:
            options["tag_columns"] = _parse_columns(tag_columns)
        settings = Settings(
            lang=lang,
            spans_key=spans_key,
            set_ents=ents,
            labels=Labels.parse(mappings or (), only or (), drop or ()),
            n_sents=n_sents,
            tag_scheme=cast(ColumnScheme, tag_scheme),  # Settings check it.
            lossy=lossy,
            options=options,
        )
        jobs = plan_jobs(input_path, output, report, format_name=format_name, writer=writer)
        if format_name in (AUTO, "columns"):
            _print_formats(jobs)
        n_docs = run_jobs(jobs, settings, report, show_progress=True)
    except (ImportError, OSError, ValueError) as err:
        msg.fail("The corpus was not converted", str(err), exits=1)
    print_report(report, with_ents=ents)
    unknown = settings.labels.find_unknown(report.labels_read) if settings.labels else []
    if unknown:
        msg.warn("No entity has these labels of --map, --only, --drop", ", ".join(unknown))
    for path, n in n_docs.items():
        msg.good(f"Wrote {n} docs: {path}")


def _parse_columns(value: str) -> list[int]:
    try:
        return [int(column) for column in value.split(",")]
    except ValueError:
        raise ValueError(f"--tag-columns {value!r} is no list of numbers, as '1,2'.") from None


def _print_formats(jobs: list[Job]) -> None:
    """Print what was found out about the sources."""
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for source in (source for job in jobs for source in job.sources):
        options = (_as_option(name, value) for name, value in source.options.items())
        paths[" ".join([source.format, *filter(None, options)])].append(source.path)
    for found, places in paths.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        msg.info(f"Read as {found}: {places[0]}{more}")


def _as_option(name: str, value: Any) -> str:
    """An option of a reader as on the command line; empty for none."""
    flag = f"--{name.replace('_', '-')}"
    match value:
        case None:
            return ""
        case True:
            return flag
        case list():
            return f"{flag} {','.join(map(str, value))}"
    return f"{flag} {value!r}"


def print_report(report: Report, *, with_ents: bool = False) -> None:
    """Print what a corpus held and what became of it.

    report (Report): The report.
    with_ents (bool): Whether `doc.ents` was written.
    """
    n_entities = report.entities.total()
    rows: list[tuple[str, int, int]] = [("Docs", report.docs, 0)]
    if report.tokens:
        rows.append(("Tokens", report.tokens, 0))
        rows.append(("Tokens split", report.split_tokens, report.tokens))
    rows.append(("Entities", n_entities, 0))
    rows.append(("Inside another", report.inside, n_entities))
    rows.append(("Overlapping another", report.overlapping, n_entities))
    rows.append(("Discontinuous", report.discontinuous, n_entities))
    if with_ents:
        rows.append(("Not in doc.ents", report.not_in_ents, n_entities))
    labels = [(label, n, n_entities) for label, n in report.entities.most_common()]
    _print_counts(rows)
    if not labels:
        msg.warn(
            "There are no entities",
            "Check the format, its columns or --input-key, and --only, --drop.",
        )
    else:
        _print_counts(labels, header=("Label", "Entities", "%"), divider=True)
    print_tallies(report)


def _print_counts(rows: list[tuple[str, int, int]], **options: Any) -> None:
    """Print names, counts, and percentages of wholes, where there are any."""
    cells = [(name, n, f"{100 * n / whole:.1f} %" if whole else "") for name, n, whole in rows]
    msg.table(cells, aligns=("l", "r", "r"), **options)


def print_tallies(report: Report) -> None:
    """Print what was left out, skipped, repaired and lost.

    report (Report): The report.
    """
    for title, tallies, show in (
        ("Left out", report.ignored, msg.info),
        ("Skipped", report.skipped, msg.warn),
        ("Repaired", report.repaired, msg.warn),
        ("Lost", report.lost, msg.warn),
    ):
        for what, tally in tallies.items():
            n_more = tally.count - len(tally.places)
            more = f", and {n_more} more" if n_more else ""
            show(f"{title}: {what}: {tally.count}", f"{', '.join(tally.places)}{more}")
