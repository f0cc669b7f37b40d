"""Compare pre-trained encoders on one corpus: each with a fully connected layer and a CRF (table I
of "Named Entity Recognition Based on Pre-trained Models"), beside a BiGRU-CRF trained from scratch.

ENCODERS are names with commas between them: folders, names of the model hub, or short names of
assets/encoders.yml. The corpus is corpus/NAME, with train.spacy, dev.spacy and perhaps test.spacy.
Results are those of a study: see docs/encoders.md and docs/studies.md.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import srsly
import typer
from real import CORPORA, convert_found
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from study import (
    Group,
    Study,
    StudyError,
    Variant,
    check_matplotlib,
    parse_overrides,
    parse_seeds,
    run_and_report,
)
from wasabi import msg

KNOWN = Path("assets/encoders.yml")
BATCH = 16  # Sentences, the paper's number.
EVALUATIONS = 4
BASELINE = "BiGRU-CRF"


class Size(NamedTuple):
    """How many sentences, or documents, a corpus has, and how many words."""

    n_docs: int
    n_words: int


class Encoder(NamedTuple):
    """An encoder by the name that somebody gave it.

    name (str): Its name in the table.
    location (str): A folder, or a name of the model hub.
    problem (Optional[str]): Why it cannot be had.
    """

    name: str
    location: str
    problem: str | None = None


def find_encoder(name: str, known: Mapping[str, Mapping[str, Any]]) -> Encoder:
    """Find an encoder, and read its config and tokenizer to see whether it can be loaded.

    name (str): A folder, a short name, or a name of the model hub.
    known (Mapping[str, Mapping[str, Any]]): Facts about encoders by their short names.
    RETURNS (Encoder): The encoder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        # With a separator it is no name of the hub, and its files belong to the run's key.
        location = os.path.join(os.curdir, path) if len(path.parts) == 1 else str(path)
        encoder = Encoder(path.resolve().name, location)
        if not (path / "config.json").exists():
            return encoder._replace(problem=f"there is no config.json in {name}")
    elif name in known:
        hub = known[name]["hub"]
        if hub is None:
            return Encoder(name, name, f"it is not on the model hub: {known[name]['note']}")
        encoder = Encoder(name, hub)
    elif name.startswith((".", "~", os.sep)) or len(path.parts) > 2:
        return Encoder(name, name, f"there is no folder {name}")
    else:
        encoder = Encoder(name, name)
    return encoder._replace(problem=_find_problem(encoder.location))


def _find_problem(location: str) -> str | None:
    """Why an encoder cannot be loaded."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(location)
        AutoTokenizer.from_pretrained(location, use_fast=True)
    except Exception as err:  # Of any kind: the others shall be trained all the same.
        return (str(err).strip() or type(err).__name__).split("\n")[0]
    return None


def plan_steps(size: Size, epochs: float, min_steps: int) -> int:
    """Count the steps of so many epochs.

    size (Size): The size of the training corpus.
    epochs (float): How often it is read.
    min_steps (int): How many steps there are at least.
    RETURNS (int): The steps, which can be divided into equal parts between the evaluations.
    """
    steps = max(min_steps, math.ceil(size.n_docs / BATCH) * epochs, EVALUATIONS)
    return EVALUATIONS * math.ceil(steps / EVALUATIONS)


def make_study(
    corpus: str,
    encoders: Iterable[Encoder],
    size: Size,
    *,
    lang: str,
    seeds: list[int],
    steps: int,
    baseline_factor: float = 5.0,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Make the study that compares encoders.

    corpus (str): The corpus's name.
    encoders (Iterable[Encoder]): The encoders.
    size (Size): The size of the training corpus.
    lang (str): The corpus's language, that of the recipes.
    seeds (list[int]): The seeds.
    steps (int): The steps of an encoder's training.
    baseline_factor (float): How many times as many the baseline's has.
    overrides (Optional[Mapping[str, Any]]): Further settings of all trainings.
    RETURNS (Study): The study, of one group.
    """
    folder = Path("corpus") / corpus
    test = folder / "test.spacy"

    # Batches of as many sentences as the encoders', of the same words by and large.
    words = max(1, round(BATCH * size.n_words / max(1, size.n_docs)))
    n_baseline = EVALUATIONS * math.ceil(steps * baseline_factor / EVALUATIONS)

    def make_variant(
        name: str, recipe: str, n_steps: int, own: Mapping[str, Any], problem: str | None = None
    ) -> Variant:
        settings = {
            "training.max_steps": n_steps,
            "training.eval_frequency": n_steps // EVALUATIONS,
            "training.optimizer.learn_rate.warmup_steps": n_steps // 10,
            **own,
            **(overrides or {}),
        }
        return Variant(
            name,
            Path(f"configs/{recipe}_{lang}.cfg"),
            folder / "train.spacy",
            folder / "dev.spacy",
            test if test.exists() else None,
            settings,
            problem,
        )

    variants = [make_variant(BASELINE, "bigru_crf", n_baseline, {"training.batcher.size": words})]
    for encoder in encoders:
        own = {"paths.encoder": encoder.location, "training.batcher.size": BATCH}
        variants.append(make_variant(encoder.name, "transformer_crf", steps, own, encoder.problem))
    epochs = steps * BATCH / max(1, size.n_docs)
    # Short: it stands above a panel.
    title = f"{steps} steps, {epochs:.3g} epochs; the baseline {n_baseline}"
    return Study(f"Pre-trained encoders on {corpus}", seeds, [Group(title, None, variants)])


def measure_corpus(path: Path) -> Size:
    """Count what a corpus has.

    path (Path): The corpus, .spacy.
    RETURNS (Size): Its size.
    """
    lengths = [len(doc) for doc in DocBin().from_disk(path).get_docs(Vocab())]
    return Size(len(lengths), sum(lengths))


def list_names(encoders: Iterable[Encoder]) -> Iterator[Encoder]:
    """Tell encoders of the same name apart by their folders.

    encoders (Iterable[Encoder]): The encoders.
    YIELDS (Encoder): Each that is not there already.
    """
    encoders = list(dict.fromkeys(encoders))
    names = [BASELINE, *(encoder.name for encoder in encoders)]
    for encoder in encoders:
        is_alone = names.count(encoder.name) == 1
        yield encoder if is_alone else encoder._replace(name=encoder.location)


def main(
    encoders: Annotated[str, typer.Argument(help="Encoders, as NAME,FOLDER,...")],
    corpus: Annotated[str, typer.Option(help="Corpus, the name of a folder in corpus/")],
    output: Annotated[Path, typer.Option(help="Folder to write results into")],
    lang: Annotated[str | None, typer.Option(help="Its language, if that is not known")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the corpora of scripts/real.py")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 0,1,2")] = "0",
    epochs: Annotated[float, typer.Option(help="Epochs of the encoders' training", min=0)] = 2,
    min_steps: Annotated[int, typer.Option(help="Its least number of steps", min=0)] = 300,
    baseline_factor: Annotated[
        float, typer.Option(help="How many times as many steps the baseline has", min=0)
    ] = 5,
    jobs: Annotated[int, typer.Option(help="How many runs go on at the same time", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run", min=1)] = 1,
    gpu_id: Annotated[int, typer.Option(help="GPU, or -1 for the CPU")] = -1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of all trainings, as training.dropout=0.2"),
    ] = None,
) -> None:
    check_matplotlib()
    numbers = parse_seeds(seeds)
    if len(set(numbers)) < len(numbers):
        msg.fail(f"--seeds {seeds}: one is there twice.", exits=1)
    try:
        overrides = parse_overrides(settings or [])
        if "training.max_steps" in overrides:  # Schedules and the baseline's steps depend on it.
            raise StudyError("--set training.max_steps: use --min-steps and --epochs instead.")
    except StudyError as err:
        msg.fail(str(err), exits=1)
    names = [name.strip() for name in encoders.split(",") if name.strip()]
    lang = lang or (CORPORA[corpus].lang if corpus in CORPORA else corpus.rpartition("_")[2])
    if not Path(f"configs/transformer_crf_{lang}.cfg").exists():
        hint = "Tell its language with --lang: en, for words, or zh, for characters."
        msg.fail(f"No recipe for the language {lang!r} of {corpus!r}", hint, exits=1)
    if corpus in CORPORA and data is not None:
        convert_found(data, [corpus])
    train = Path("corpus") / corpus / "train.spacy"
    if not train.exists():
        known = ", ".join(CORPORA)
        hint = f"Convert it first; of {known}, name the folder that has them with --data."
        msg.fail(f"There is no {train}", hint, exits=1)
    size = measure_corpus(train)
    known_encoders = srsly.read_yaml(KNOWN)
    study = make_study(
        corpus,
        list_names(find_encoder(name, known_encoders) for name in names),
        size,
        lang=lang,
        seeds=numbers,
        steps=plan_steps(size, epochs, min_steps),
        baseline_factor=baseline_factor,
        overrides=overrides,
    )
    run_and_report(study, output, jobs=jobs, gpu_id=gpu_id, threads=threads)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None)
    app.command(help=__doc__)(main)
    app()
