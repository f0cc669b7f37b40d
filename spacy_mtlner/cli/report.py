"""`python -m spacy mtlner report`: the metrics of several pipelines as one table."""

from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg

from spacy_mtlner.evaluation.report import make_report, read_metrics


def report_cli(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="METRICS", help="Folder of <corpus>/<recipe>.json, as `spacy evaluate` writes"
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Markdown file to write")],
) -> None:
    """
    Put the metrics of several pipelines into one table.
    """
    try:
        report = make_report(read_metrics(folder))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report, encoding="utf-8")
    except (ValueError, OSError) as err:
        msg.fail(str(err), exits=1)
    print(report)
    msg.good(f"Wrote {output}")
