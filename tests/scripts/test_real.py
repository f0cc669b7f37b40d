"""The real corpora: those that a folder has are converted."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_mtlner.entities import read_entities

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


def test_training_finds_the_descriptions(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    found = {}
    monkeypatch.setattr(
        script, "spacy_train", lambda config, output, **kwargs: found.update(kwargs["overrides"])
    )
    assert run(script, "train", "msra", "bilstm_crf", 5)[0] == 0
    assert "paths.descriptions" not in found and found["training.max_steps"] == 5
    assert run(script, "train", "msra", "pointer", 5)[0] == 0
    assert found["paths.descriptions"] == "assets/descriptions_msra.json"


def test_every_corpus_has_descriptions(script: ModuleType) -> None:
    assets = Path(__file__).parents[2] / "assets"
    assert all((assets / f"descriptions_{name}.json").exists() for name in script.CORPORA)
