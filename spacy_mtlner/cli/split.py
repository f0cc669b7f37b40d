"""`python -m spacy mtlner split`: a corpus into parts for training and evaluation."""

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg

from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.cli.options import FormatName, Lang, Lossy, SpansKey
from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats import Report
from spacy_mtlner.formats.convert import WRITER_SUFFIXES, Settings
from spacy_mtlner.formats.files import AUTO, Source
from spacy_mtlner.formats.parts import Parts, split_corpus


def split_cli(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="Corpus file, or folder of corpus files")
    ],
    dev: Annotated[float, typer.Option(help="Share of the records for dev")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the records for test")] = 0.1,
    seed: Annotated[int, typer.Option(help="Chooses among equally good splits")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the parts [default: CORPUS-split]"),
    ] = None,
    format_name: FormatName = AUTO,
    writer: Annotated[
        str | None,
        typer.Option(
            "--to",
            "-t",
            help=f"Format of the parts: {', '.join(WRITER_SUFFIXES)} [default: spacy for .spacy, "
            "brat for brat, else jsonl]",
        ),
    ] = None,
    lang: Lang = None,
    spans_key: SpansKey = DEFAULT_KEY,
    lossy: Lossy = False,
) -> None:
    """
    Split a corpus into train, dev and test by document, so that each label, also among
    discontinuous and nested entities, is in every part. Texts that nearly stand in two parts are
    reported.
    """
    report = Report()
    try:
        path = corpus.resolve()
        folder = output or path.with_name(f"{Source(path, format_name).name}-split")
        settings = Settings(lang=lang, spans_key=spans_key, lossy=lossy)
        parts = split_corpus(
            corpus,
            folder,
            {"dev": dev, "test": test},
            report,
            settings,
            seed=seed,
            format_name=format_name,
            writer=writer,
        )
    except (ImportError, OSError, ValueError) as err:
        msg.fail("The corpus was not split", str(err), exits=1)
    print_tallies(report)
    _print_parts(parts)
    for name, path in parts.targets.items():
        msg.good(f"Wrote {parts.split.records[name]} docs: {path}")


def _print_parts(parts: Parts) -> None:
    """Print what the parts hold, what they lack, and what stands in two of them."""
    split = parts.split
    rows = [("Docs", split.records), ("Documents", split.units)]
    rows += [(str(stratum), counts) for stratum, counts in split.strata.items()]
    names = [*parts.targets]
    cells = [(title, *(counts[name] for name in names)) for title, counts in rows]
    msg.table(cells, header=("", *names), divider=True, aligns=("l", *"r" * len(names)))
    if split.missing:
        missing = ", ".join(map(str, split.missing))
        msg.warn("Too few documents have these for every part", missing)
    if split.n_apart:
        msg.warn(f"Texts that documents in several parts share: {split.n_apart}")
    for (first, second), tally in parts.leaks.items():
        more = ", ..." if tally.count > len(tally.places) else ""
        title = f"Texts of {second} of which half or more stands in {first}: {tally.count}"
        msg.warn(title, f"{', '.join(tally.places)}{more}")
