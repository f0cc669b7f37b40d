"""`python -m spacy mtlner data`: what corpora hold, and what may go wrong with them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg

from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.cli.options import FormatName, Lang, SpansKey
from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.evaluation.corpora import describe_corpora, format_report
from spacy_mtlner.formats import Report, read_docs
from spacy_mtlner.formats.convert import Job, Settings, make_tokenizer, read_sources
from spacy_mtlner.formats.files import AUTO, find_sources


def data_cli(
    corpora: Annotated[
        list[Path],
        typer.Argument(
            metavar="CORPUS...",
            help="Corpus files or folders of them; the first one is the one to train on",
        ),
    ],
    spans_key: SpansKey = DEFAULT_KEY,
    format_name: FormatName = AUTO,
    lang: Lang = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the report to a file as well, *.md or *.json"),
    ] = None,
) -> None:
    """
    Report on corpora: lengths, labels, nesting, discontinuity, ambiguous and odd entities, labels
    with few examples, and how much of dev and test stands in train.
    """
    report = Report()
    try:
        if output is not None and output.suffix not in (".md", ".json"):
            raise ValueError(f"{output}: The report's file must be .md or .json.")
        repeated = [str(path) for path in corpora if corpora.count(path) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} is named more than once.")
        settings = Settings(lang=lang, spans_key=spans_key)
        docs = {}
        for path in corpora:
            job = Job(path, "spacy", tuple(find_sources(path, format_name, report)))
            make_doc = make_tokenizer([job], settings)
            records = read_sources(job.sources, settings, make_doc, report)
            is_unique = [other.stem for other in corpora].count(path.stem) == 1
            docs[path.stem if is_unique else str(path)] = read_docs(
                records, make_doc, report, key=spans_key
            )
        found = describe_corpora(docs, key=spans_key)
        if output is not None:
            skipped = [
                f"Skipped: {why}: {tally.count}, as at {', '.join(tally.places)}."
                for why, tally in report.skipped.items()
            ]
            written = replace(found, warnings=[*found.warnings, *skipped])
            is_json = output.suffix == ".json"
            text = json.dumps(written.to_dict(), indent=2, ensure_ascii=False)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text if is_json else format_report(written), encoding="utf-8")
    except (ImportError, OSError, ValueError) as err:
        msg.fail("There is no report", str(err), exits=1)
    encoding = sys.stdout.encoding or "utf-8"
    print(format_report(found).encode(encoding, "replace").decode(encoding))
    print_tallies(report)
