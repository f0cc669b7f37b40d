"""Train a recipe on one of the real corpora: convert, train, evaluate.

The corpora's files lie in a folder of each corpus's name, as `spacy project assets` puts them into
assets/real, or in any other folder of that form.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from spacy.cli._util import setup_gpu
from spacy.cli.evaluate import evaluate as spacy_evaluate
from spacy.cli.train import train as spacy_train
from wasabi import msg

from spacy_mtlner.cli.convert import print_report
from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.convert import Settings, plan_jobs, run_jobs


class Corpus(NamedTuple):
    """Where a corpus's parts lie and how they are read."""

    lang: str
    format: str
    train: str
    dev: str


CORPORA = {
    "bc5cdr": Corpus("en", "columns", "train.tsv", "devel.tsv"),
    "cluener": Corpus("zh", "cluener", "train.json", "dev.json"),
    "ncbi_disease": Corpus("en", "columns", "train.tsv", "devel.tsv"),
    "wnut17": Corpus("en", "columns", "wnut17train.conll", "emerging.dev.conll"),
}

Name = Annotated[str, typer.Argument(help=f"Corpus: {', '.join(CORPORA)}")]
Recipe = Annotated[str, typer.Argument(help="Recipe: the name of a config, without its language")]
app = typer.Typer(help=__doc__, rich_markup_mode=None)


@app.command()
def convert(
    name: Name, data: Annotated[Path, typer.Argument(help="Folder with the corpora's folders")]
) -> None:
    """Convert a corpus to corpus/NAME/{train,dev}.spacy."""
    corpus = _find(name)
    for part in ("train", "dev"):
        report = Report()
        try:
            path = data / name / getattr(corpus, part)
            output = f"corpus/{name}/{part}.spacy"
            jobs = plan_jobs(path, output, report, format_name=corpus.format)
            run_jobs(jobs, Settings(lang=corpus.lang, set_ents=True), report)
        except CorpusError as err:
            hint = "Get the corpora with: python -m spacy project assets (--extra for CLUENER)."
            msg.fail(
                str(err), f"{hint} Or name a folder that has them: --vars.data FOLDER.", exits=1
            )
        print_report(report, with_ents=True)
        msg.good(f"Wrote {output}")


@app.command()
def train(name: Name, recipe: Recipe, steps: int, gpu: int = -1) -> None:
    """Train a recipe, to training/NAME/RECIPE."""
    setup_gpu(gpu)
    spacy_train(
        Path(f"configs/{recipe}_{_find(name).lang}.cfg"),
        Path(f"training/{name}/{recipe}"),
        use_gpu=gpu,
        overrides={
            "paths.train": f"corpus/{name}/train.spacy",
            "paths.dev": f"corpus/{name}/dev.spacy",
            "training.max_steps": steps,
        },
    )


@app.command()
def evaluate(name: Name, recipe: Recipe, gpu: int = -1) -> None:
    """Evaluate what was trained on the dev part, to metrics/NAME/RECIPE.json."""
    output = Path(f"metrics/{name}/{recipe}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    spacy_evaluate(
        f"training/{name}/{recipe}/model-best",
        Path(f"corpus/{name}/dev.spacy"),
        output=output,
        use_gpu=gpu,
        silent=False,
        spans_key="mtlner",
    )


def _find(name: str) -> Corpus:
    if name not in CORPORA:
        msg.fail(f"Unknown corpus {name!r}", f"Known ones: {', '.join(CORPORA)}.", exits=1)
    return CORPORA[name]


if __name__ == "__main__":
    app()
