"""Commands under `python -m spacy mtlner`."""

import typer
from spacy.cli._util import app

from spacy_mtlner.cli.analyse import analyse_cli
from spacy_mtlner.cli.convert import convert_cli
from spacy_mtlner.cli.data import data_cli
from spacy_mtlner.cli.describe import describe_cli
from spacy_mtlner.cli.knowledge import knowledge_cli
from spacy_mtlner.cli.quantise import quantise_cli
from spacy_mtlner.cli.report import report_cli
from spacy_mtlner.cli.split import split_cli
from spacy_mtlner.cli.vectors import vectors_cli

mtlner_cli = typer.Typer(
    name="mtlner",
    help="Flat, nested and discontinuous named entities: corpora and models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
mtlner_cli.command("convert", no_args_is_help=True)(convert_cli)
mtlner_cli.command("data", no_args_is_help=True)(data_cli)
mtlner_cli.command("describe", no_args_is_help=True)(describe_cli)
mtlner_cli.command("knowledge", no_args_is_help=True)(knowledge_cli)
mtlner_cli.command("split", no_args_is_help=True)(split_cli)
mtlner_cli.command("vectors", no_args_is_help=True)(vectors_cli)
mtlner_cli.command("quantise", no_args_is_help=True)(quantise_cli)
mtlner_cli.command("report", no_args_is_help=True)(report_cli)
mtlner_cli.command("analyse", no_args_is_help=True)(analyse_cli)
app.add_typer(mtlner_cli)
