"""The real corpora: those that a folder has are converted, and recipes are trained on them."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import spacy
import srsly
from spacy.tokens import DocBin
from spacy.util import load_config
from typer.testing import CliRunner

from spacy_mtlner.entities import read_entities

ROOT = Path(__file__).parents[2]
BMES = "在 O\n浦 B-GPE\n东 M-GPE\n区 E-GPE\n\n李 B-PER\n明 E-PER\n到 O\n京 S-GPE\n"
CMEEE = "急性肝衰竭|||0    4    dis|||2    2    bod|||\n"


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("real")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with OntoNotes 4 and CMeEE; the command runs beside it."""
    monkeypatch.chdir(tmp_path)
    for name, file, text in (
        ("ontonotes4", "train.char.bmes", BMES),
        ("ontonotes4", "dev.char.bmes", BMES),
        ("cmeee", "train.txt", CMEEE),
        ("cmeee", "dev.txt", CMEEE),
    ):
        path = tmp_path / "data" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "data"


def run(script: ModuleType, *args: object) -> tuple[int, str]:
    result = CliRunner().invoke(script.app, [str(argument) for argument in args])
    return result.exit_code, " ".join(result.output.split())


def read_labels(path: str) -> list[list[str]]:
    docs = DocBin().from_disk(path).get_docs(spacy.blank("zh").vocab)
    return [[entity.label for entity in read_entities(doc, "mtlner")] for doc in docs]


def test_found_corpora_are_converted_once(script: ModuleType, data: Path) -> None:
    names = ("msra", "ontonotes4", "cmeee")
    status, output = run(script, "convert-found", data, *names)
    assert status == 0, output
    assert "Not converted: msra" in output and "train.bio" in output
    assert read_labels("corpus/ontonotes4/dev.spacy") == [["GPE"], ["PER", "GPE"]]
    assert [sorted(doc) for doc in read_labels("corpus/cmeee/train.spacy")] == [["bod", "dis"]]

    made = Path("corpus/cmeee/dev.spacy").stat()
    os.utime(data / "ontonotes4" / "dev.char.bmes", (made.st_atime + 9, made.st_mtime + 9))
    status, output = run(script, "convert-found", data, *names)
    assert status == 0 and "Converted already: cmeee" in output
    assert "Converted already: ontonotes4" not in output
    assert Path("corpus/cmeee/dev.spacy").stat().st_mtime_ns == made.st_mtime_ns


def test_errors(script: ModuleType, data: Path) -> None:
    status, output = run(script, "convert", "msra", data)
    assert status == 1 and "--vars.data FOLDER" in output
    status, output = run(script, "convert-found", data, "mrsa")
    assert status == 1 and "Unknown corpus 'mrsa'" in output
    (data / "cmeee" / "dev.txt").write_text("{", encoding="utf-8")
    status, output = run(script, "convert-found", data, "cmeee")
    assert status == 1 and "dev.txt" in output


@pytest.fixture
def overrides(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the last training, from the project's folder, was to override; none takes place."""
    monkeypatch.chdir(ROOT)
    found: dict[str, Any] = {}

    def note(config: Path, output: Path, **settings: Any) -> None:
        found.clear()
        found.update(settings["overrides"], config=config.stem)

    monkeypatch.setattr(script, "spacy_train", note)
    monkeypatch.setattr(
        script, "vectors_cli", lambda corpora, output, **settings: found.update(settings)
    )
    return found


def test_training_finds_the_descriptions(script: ModuleType, overrides: dict[str, Any]) -> None:
    assert run(script, "train", "msra", "bilstm_crf", 5)[0] == 0
    assert "paths.descriptions" not in overrides and overrides["training.max_steps"] == 5
    assert run(script, "train", "msra", "pointer", 5)[0] == 0
    assert overrides["paths.descriptions"] == "assets/descriptions_msra.json"


@pytest.mark.parametrize(
    ("corpus", "lang", "encoder"),
    [("wnut17", "en", "bert-base-cased"), ("msra", "zh", "bert-base-chinese")],
)
def test_pointer_transformer_is_for_any_language(
    script: ModuleType, overrides: dict[str, Any], corpus: str, lang: str, encoder: str
) -> None:
    status, output = run(script, "train", corpus, "pointer_transformer", 5)
    assert status == 0, output
    assert overrides["paths.descriptions"] == f"assets/descriptions_{corpus}.json"
    stem = overrides.pop("config")
    config = load_config(ROOT / "configs" / f"{stem}.cfg", overrides=overrides, interpolate=True)
    assert stem == "pointer_transformer" and config["nlp"]["lang"] == lang
    assert config["components"]["transformer"]["model"]["name"] == encoder


def test_recipes_of_each_language(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    both = {
        "bigru_crf",
        "bilstm_crf",
        "pointer",
        "pointer_transformer",
        "seq2seq",
        "span",
        "span_encoder",
        "transformer_crf",
        "transformer_crf_scratch",
    }
    assert script.find_configs("zh").keys() == both
    assert script.find_configs("en").keys() == both | {"seq2seq_bart", "transformer_crf_curated"}


@pytest.mark.parametrize(
    ("corpus", "recipe", "reason"),
    [
        ("wnut17", "bilstm_cfr", ""),
        ("wnut17", "bilstm_crf_en", ""),
        ("msra", "seq2seq_bart", ""),
        ("msra", "multitask", "docs/multitask_crf_ner.md"),
        ("wnut17", "typing", "scripts/typing_table.py"),
    ],
)
def test_recipes_that_cannot_be_trained(
    script: ModuleType, overrides: dict[str, Any], corpus: str, recipe: str, reason: str
) -> None:
    status, output = run(script, "train", corpus, recipe, 5)
    assert status == 1 and not overrides
    assert f"Recipe '{recipe}' cannot be trained on {corpus}" in output
    assert reason in output and "bilstm_crf, pointer, pointer_transformer" in output
    assert not reason or (ROOT / reason).exists()


def test_span_gets_vectors_of_the_corpus(
    script: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the corpus to the scores, as the workflow does it."""
    Path("configs").symlink_to(ROOT / "configs")
    (data / "ontonotes4" / "train.char.bmes").write_text(f"{BMES}\n" * 10, encoding="utf-8")
    for command in (
        ["convert", "ontonotes4", data],
        ["train", "ontonotes4", "span", 2],
        ["evaluate", "ontonotes4", "span"],
    ):
        status, output = run(script, *command)
        assert status == 0, output
    nlp = spacy.load("training/ontonotes4/span/model-best")
    assert nlp.vocab["京"].vector.any()
    scores = srsly.read_json("metrics/ontonotes4/span.json")
    assert 0.0 <= scores["spans_mtlner_f"] <= 1.0


def test_every_corpus_has_descriptions(script: ModuleType) -> None:
    assets = ROOT / "assets"
    assert all((assets / f"descriptions_{name}.json").exists() for name in script.CORPORA)
