"""`python -m spacy mtlner analyse`: what a pipeline gets wrong, as figures, tables and examples."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, cast

import typer
from spacy.cli._util import setup_gpu
from spacy.tokens import Doc
from spacy.util import load_model
from tqdm import tqdm
from wasabi import msg

from spacy_mtlner.evaluation.analysis import analyse_entities
from spacy_mtlner.evaluation.predictions import (
    count_surfaces,
    find_task,
    predict_corpus,
)
from spacy_mtlner.evaluation.training_log import read_training_log
from spacy_mtlner.formats.base import replacing
from spacy_mtlner.formats.convert import Settings
from spacy_mtlner.formats.corpus import read_references


def analyse_cli(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of a pipeline")],
    corpus: Annotated[
        Path,
        typer.Argument(metavar="CORPUS", help="Annotated corpus: .spacy, or as convert reads it"),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder for report, figures and numbers"),
    ],
    pipe: Annotated[
        str | None,
        typer.Option("--pipe", "-p", help="The component, where the pipeline has several"),
    ] = None,
    spans_key: Annotated[
        str | None,
        typer.Option(
            "--spans-key",
            "-k",
            help="The task, where the component has several",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option("--train", "-t", help="Training corpus, to tell what was seen and how often"),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", "-l", help="Log of the training: output_file of spacy.ConsoleLogger.v2 or v3"
        ),
    ] = None,
    n_examples: Annotated[
        int, typer.Option("--examples", "-n", min=1, help="The most examples of each list")
    ] = 20,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for CPU")] = -1,
) -> None:
    """
    Show what a pipeline gets right and wrong, and how sure it is: confusion matrix, F1 by length
    and by what was seen in training, calibration, class probabilities, and the most confident
    errors in their texts. Writes OUT/report.html, OUT/analysis.json and OUT/figures.
    """
    try:
        from spacy_mtlner.evaluation.figures import INK, draw_figures, render_figure, save_figures
        from spacy_mtlner.evaluation.html import Source, make_html

        training_log = read_training_log(log) if log is not None else None
        setup_gpu(gpu_id, silent=True)
        nlp = load_model(model)
        task = find_task(nlp, pipe, spans_key)
        settings = Settings(spans_key=task.key)
        references = _show_progress(read_references(nlp, corpus, settings), "Predict")
        predictions = predict_corpus(nlp, task, references)
        surfaces = None
        if train is not None:
            docs = _show_progress(read_references(nlp, train, settings), "Read training data")
            surfaces = count_surfaces(docs, task.key, predictions.source)
        analysis = analyse_entities(
            predictions.docs,
            labels=task.labels,
            is_typing=task.is_typing,
            surfaces=surfaces,
            log=training_log,
            n_examples=n_examples,
            why_no_probabilities=predictions.why_no_probabilities,
        )
        source = Source(
            model=_name_model(model),
            component=task.name,
            factory=nlp.get_pipe_meta(task.name).factory,
            corpus=corpus.name,
            train=train.name if train is not None else "",
            key=task.key,
            gold=predictions.source,
            n_skipped=predictions.n_skipped,
        )
        figures = draw_figures(analysis)
        save_figures(figures, output / "figures")
        svg = {
            name: render_figure(figure, "svg", background="none").decode("utf-8")
            for name, figure in figures.items()
        }
        numbers = json.dumps(analysis.to_dict(), ensure_ascii=False, allow_nan=False)
        for name, text in (
            ("analysis.json", f"{numbers}\n"),
            ("report.html", make_html(analysis, source, svg, ink=INK)),
        ):
            with replacing(output / name) as path:
                path.write_text(text, encoding="utf-8")
    except (ImportError, OSError, ValueError) as err:
        msg.fail("There is no analysis", str(err), exits=1)
    for name, reason in analysis.left_out.items():
        msg.info(f"Figure {name} is left out: {reason}")
    if predictions.n_skipped:
        msg.warn(f"Docs without annotation for {task.name}, skipped: {predictions.n_skipped}")
    total, score = analysis.total, analysis.score
    shown = [(score.name, score.value)]
    if not analysis.is_typing:
        shown = [("P", total.precision), ("R", total.recall), *shown]
    text = ", ".join(f"{name} {100 * (value or 0):.1f}" for name, value in shown)
    if score.interval is not None:
        low, high = score.interval
        text += f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    msg.text(f"Typing of given entities: {text}" if analysis.is_typing else text)
    msg.good(f"Wrote {output / 'report.html'}")


def _show_progress(docs: Iterable[Doc], title: str) -> Iterable[Doc]:
    """Docs, counted in a terminal as they are read."""
    return cast(Iterable[Doc], tqdm(docs, title, unit=" docs", disable=None))


def _name_model(model: str) -> str:
    """The name of a pipeline: of a folder with its parent, as `training/model-best`."""
    path = Path(model)
    if not path.exists():
        return model
    return "/".join(part for part in path.resolve().parts[-2:] if part != "/")
