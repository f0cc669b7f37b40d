"""`python -m spacy mtlner quantise`: a copy of a pipeline that predicts faster on the CPU."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from spacy.language import Language
from spacy.util import combine_score_weights, load_model
from wasabi import msg, table

from spacy_mtlner.cli.options import SpansKey
from spacy_mtlner.entities import DEFAULT_KEY
from spacy_mtlner.formats.base import CorpusError, replacing
from spacy_mtlner.formats.convert import Settings
from spacy_mtlner.formats.corpus import make_example, read_references
from spacy_mtlner.pipeline.precision import convert_precision


class SmallPrecision(str, Enum):
    """What an encoder may compute in, other than float32."""

    int8 = "int8"
    bfloat16 = "bfloat16"


def quantise_cli(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of a pipeline")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the copy; must be new")],
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus", "-c", help="Annotated corpus, to compare scores and speed before and after"
        ),
    ] = None,
    precision: Annotated[
        SmallPrecision, typer.Option("--precision", "-p", help="What the encoder computes in")
    ] = SmallPrecision.int8,
    spans_key: SpansKey = DEFAULT_KEY,
) -> None:
    """
    Save a copy of a pipeline whose pre-trained encoder computes in fewer bits: int8, which also
    makes it smaller, runs on the CPU alone and cannot be trained further, or bfloat16.
    """
    try:
        if output.exists() and any(output.iterdir()):
            raise CorpusError(output, None, "The folder is not empty.", "Name a new one.")
        before = load_model(model)
        with replacing(output) as folder:
            after = convert_precision(before.path, folder, precision.value)
            rows = [("MB", _measure_size(before.path), _measure_size(folder))]
            if corpus is not None:
                rows += _compare(before, after, corpus, spans_key)
    except (OSError, ValueError) as err:
        msg.fail("There is no copy", str(err), exits=1)
    cells = [(name, *(f"{value:,.1f}" for value in values)) for name, *values in rows]
    header = ("", "before", precision.value)
    print(table(cells, header=header, divider=True, aligns=("l", "r", "r")))
    msg.good(f"Wrote {output}")


def _measure_size(folder: Path) -> float:
    """Megabytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _compare(
    before: Language, after: Language, corpus: Path, spans_key: str
) -> list[tuple[str, float, float]]:
    """What the pipeline was trained for, in percent, and words a second."""
    pairs: list[dict[str, Any]] = []
    for nlp in (before, after):
        references = list(read_references(nlp, corpus, Settings(spans_key=spans_key)))
        nlp.evaluate([make_example(nlp, doc) for doc in references[:8]])  # Warms up.
        pairs.append(nlp.evaluate([make_example(nlp, doc) for doc in references]))
    metas = [before.get_pipe_meta(name) for name in before.pipe_names]
    weights = before.config["training"]["score_weights"] or combine_score_weights(
        [meta.default_score_weights or {} for meta in metas]
    )
    names = [name for name, weight in weights.items() if weight and pairs[0].get(name) is not None]
    rows = [(name, *(100 * scores[name] for scores in pairs)) for name in names]
    return [*rows, ("words/s", *(scores["speed"] for scores in pairs))]
