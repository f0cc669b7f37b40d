"""Train a recipe on one of the real corpora: convert, train, evaluate.

The corpora's files lie in a folder of each corpus's name, as `spacy project assets` puts them into
assets/real, or in any other folder of that form. OntoNotes 4 is licensed by the LDC (LDC2011T03):
put your own train.char.bmes and dev.char.bmes, a character and its tag a line, into
FOLDER/ontonotes4.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from spacy.cli._util import setup_gpu
from spacy.cli.evaluate import evaluate as spacy_evaluate
from spacy.cli.train import train as spacy_train
from spacy.util import load_config
from thinc.api import Config
from wasabi import msg

from spacy_mtlner.cli.convert import print_report
from spacy_mtlner.cli.vectors import vectors_cli
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
    "cmeee": Corpus("zh", "cmeee", "train.txt", "dev.txt"),
    "genia": Corpus("en", "jsonl", "genia5.train.jsonl", "genia5.dev.jsonl"),
    "msra": Corpus("zh", "columns", "train.bio", "dev.bio"),
    "ncbi_disease": Corpus("en", "columns", "train.tsv", "devel.tsv"),
    "ontonotes4": Corpus("zh", "columns", "train.char.bmes", "dev.char.bmes"),
    "peoples_daily": Corpus("zh", "columns", "example.train", "example.dev"),
    "wnut17": Corpus("en", "columns", "wnut17train.conll", "emerging.dev.conll"),
}

Name = Annotated[str, typer.Argument(help=f"Corpus: {', '.join(CORPORA)}")]
Data = Annotated[Path, typer.Argument(help="Folder with the corpora's folders")]
# Recipes that a corpus alone does not train, or evaluate.
OTHERS = {
    "multitask": "It learns from a second corpus as well: see docs/multitask_crf_ner.md.",
    "typing": "It is given where entities are, and scored otherwise: see scripts/typing_table.py.",
}

Recipe = Annotated[str, typer.Argument(help="Recipe: the name of a config, without its language")]
app = typer.Typer(help=__doc__, rich_markup_mode=None)


@app.command()
def convert(name: Name, data: Data) -> None:
    """Convert a corpus to corpus/NAME/{train,dev}.spacy."""
    try:
        _convert(name, data)
    except CorpusError as err:
        hint = (
            "Get the corpora with: python -m spacy project assets (--extra for CLUENER). MSRA, "
            "CMeEE, GENIA and OntoNotes 4 are not among them: name a folder that has them, with: "
            "--vars.data FOLDER."
        )
        msg.fail(str(err), hint, exits=1)


@app.command()
def convert_found(data: Data, names: list[Name]) -> None:
    """Convert those corpora that the folder has, unless that is done already."""
    for name in names:
        corpus = _find(name)
        sources = [data / name / corpus.train, data / name / corpus.dev]
        outputs = [Path(f"corpus/{name}/{part}.spacy") for part in ("train", "dev")]
        missing = [str(path) for path in sources if not path.exists()]
        if missing:
            msg.warn(f"Not converted: {name}", f"There is no {', no '.join(missing)}.")
        elif all(path.exists() for path in outputs) and (
            max(_time(path) for path in sources) <= min(_time(path) for path in outputs)
        ):
            msg.info(f"Converted already: {name} (delete corpus/{name} to do it again)")
        else:
            try:
                _convert(name, data)
            except CorpusError as err:
                msg.fail(str(err), exits=1)


@app.command()
def train(name: Name, recipe: Recipe, steps: int, gpu: int = -1) -> None:
    """Train a recipe, to training/NAME/RECIPE; descriptions are assets/descriptions_NAME.json, and
    static vectors are made from the training part."""
    config = _find_config(recipe, name)
    lang = _find(name).lang
    setup_gpu(gpu)
    corpus = Path(f"corpus/{name}/train.spacy")
    overrides = {
        "paths.train": str(corpus),
        "paths.dev": f"corpus/{name}/dev.spacy",
        "training.max_steps": steps,
    }
    settings = load_config(config)
    if settings["nlp"]["lang"] != lang:
        encoder = load_config(f"configs/transformer_crf_{lang}.cfg")["paths"]["encoder"]
        overrides |= {"nlp.lang": lang, "paths.encoder": encoder}
    if "descriptions" in settings["paths"]:
        overrides["paths.descriptions"] = f"assets/descriptions_{name}.json"
    if _reads_vectors(settings):
        vectors = Path(f"training/{name}/vectors")
        vectors_cli([corpus], vectors, lang=lang, force=True)
        overrides["paths.vectors"] = str(vectors)
    spacy_train(config, Path(f"training/{name}/{recipe}"), use_gpu=gpu, overrides=overrides)


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


def _convert(name: str, data: Path) -> None:
    corpus = _find(name)
    for part in ("train", "dev"):
        report = Report()
        path = data / name / getattr(corpus, part)
        output = f"corpus/{name}/{part}.spacy"
        jobs = plan_jobs(path, output, report, format_name=corpus.format)
        run_jobs(jobs, Settings(lang=corpus.lang, set_ents=True), report)
        print_report(report, with_ents=True)
        msg.good(f"Wrote {output}")


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _find(name: str) -> Corpus:
    if name not in CORPORA:
        msg.fail(f"Unknown corpus {name!r}", f"Known ones: {', '.join(CORPORA)}.", exits=1)
    return CORPORA[name]


def _find_config(recipe: str, name: str) -> Path:
    """The config of a recipe for a corpus's language."""
    configs = find_configs(_find(name).lang)
    if recipe not in configs:
        reason = f"{OTHERS[recipe]} " if recipe in OTHERS else ""
        known = f"Recipes that can be: {', '.join(sorted(configs))}."
        msg.fail(f"Recipe {recipe!r} cannot be trained on {name}", f"{reason}{known}", exits=1)
    return configs[recipe]


def find_configs(lang: str) -> dict[str, Path]:
    """Find the configs of the recipes that a corpus is enough for.

    lang (str): The corpus's language.
    RETURNS (dict[str, Path]): Recipes and configs.
    """
    configs: dict[str, Path] = {}
    for path in sorted(Path("configs").glob("*.cfg")):
        own = load_config(path)["nlp"]["lang"]
        recipe = path.stem.removesuffix(f"_{own}")
        # pointer_transformer takes any encoder and language.
        if recipe not in OTHERS and (own == lang or recipe == "pointer_transformer"):
            configs[recipe] = path
    return configs


def _reads_vectors(config: Config) -> bool:
    models = (component.get("model", {}) for component in config["components"].values())
    return any(model.get("tok2vec", {}).get("include_static_vectors") for model in models)


if __name__ == "__main__":
    app()
