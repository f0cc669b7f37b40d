"""The comparison of encoders: how they are found, what is planned, and what is written."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import spacy
import srsly
import typer
from spacy.tokens import DocBin
from spacy.util import load_config
from typer.testing import CliRunner

from spacy_mtlner.entities import Entity, write_entities
from tests.tiny_encoders import make_tiny_encoder

ROOT = Path(__file__).parents[2]
KNOWN = srsly.read_yaml(ROOT / "assets" / "encoders.yml")
TEXTS = ["王小明在北京工作。", "没有人来。"]
FIELDS = {"hub", "kind", "lang", "layers", "width", "parameters", "licence", "note"}


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    sys.path.insert(0, str(ROOT / "scripts"))  # It imports others.
    try:
        return load_script("encoders")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the project's, with a small corpus and an encoder; the hub is not asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True)
    for name in ("configs", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    nlp = spacy.blank("zh")
    docs = [nlp.make_doc(text) for text in TEXTS * 4]
    for doc in docs:
        entities = [Entity("PER", ((0, 3),)), Entity("LOC", ((4, 6),))]
        write_entities(doc, entities if len(doc) > 6 else [], "mtlner")
    for part in ("train", "dev"):
        path = tmp_path / "corpus" / "tiny_zh" / f"{part}.spacy"
        path.parent.mkdir(parents=True, exist_ok=True)
        DocBin(docs=docs, store_user_data=True).to_disk(path)
    make_tiny_encoder("bert", tmp_path / "tiny", TEXTS)
    return tmp_path


def run_script(script: ModuleType, *args: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(script.main)
    result = CliRunner().invoke(app, [*map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


@pytest.mark.parametrize("name", KNOWN)
def test_known_encoders(name: str) -> None:
    facts = KNOWN[name]
    assert set(facts) == FIELDS and facts["lang"] in ("zh", "en", "multilingual")
    assert "," not in name and (facts["hub"] or facts["note"])
    assert 1 <= facts["layers"] <= 24 and facts["width"] % 2 == 0
    if facts["parameters"] is not None:
        # A layer has 12 times the square of its width; ALBERT has one layer's weights.
        layers = 1 if facts["kind"] == "albert" else facts["layers"]
        assert facts["parameters"] > 12 * layers * facts["width"] ** 2 / 1e6


def test_encoders_of_the_workflow_are_known() -> None:
    names = srsly.read_yaml(ROOT / "project.yml")["vars"]["encoders"].split(",")
    assert len(names) > 1 and set(names) <= KNOWN.keys()


def test_find_encoder(script: ModuleType, workplace: Path) -> None:
    known = {"short": {"hub": "some/encoder", "note": ""}, "gone": {"hub": None, "note": "why"}}
    found = script.find_encoder("tiny", known)
    assert found == script.Encoder("tiny", os.path.join(".", "tiny"))
    assert script.find_encoder(str(workplace / "tiny"), known)[:2] == (
        "tiny",
        str(workplace / "tiny"),
    )
    short = script.find_encoder("short", known)
    assert short[:2] == ("short", "some/encoder") and short.problem
    assert script.find_encoder("gone", known).problem.endswith("why")
    for path in ("./none", "/no/such/folder", "a/b/c"):
        assert script.find_encoder(path, known).problem == f"there is no folder {path}"
    (workplace / "empty").mkdir()
    assert "config.json" in script.find_encoder("empty", known).problem
    (workplace / "tiny" / "config.json").write_text("{")
    assert "valid JSON" in script.find_encoder("tiny", known).problem


def test_names_in_the_table_differ(script: ModuleType) -> None:
    a, b, c = (script.Encoder(name, at) for name, at in (("x", "p/x"), ("x", "q/x"), ("y", "y")))
    assert [encoder.name for encoder in script.list_names([a, b, c, a])] == ["p/x", "q/x", "y"]
    clash = script.Encoder(script.BASELINE, "z/BiGRU-CRF")
    assert [encoder.name for encoder in script.list_names([clash])] == ["z/BiGRU-CRF"]


@pytest.mark.parametrize(
    ("n_docs", "epochs", "min_steps", "steps"),
    [(42000, 2, 300, 5252), (335, 2, 300, 300), (335, 2, 0, 44), (1, 0, 0, 4), (17, 1.5, 0, 4)],
)
def test_steps(script: ModuleType, n_docs: int, epochs: float, min_steps: int, steps: int) -> None:
    assert script.plan_steps(script.Size(n_docs, 0), epochs, min_steps) == steps


def test_plan(script: ModuleType, workplace: Path) -> None:
    size = script.measure_corpus(Path("corpus/tiny_zh/train.spacy"))
    assert size == (8, 56)
    encoders = [script.Encoder("tiny", "./tiny"), script.Encoder("none", "none", "why")]
    study = script.make_study(
        "tiny_zh",
        encoders,
        size,
        lang="zh",
        seeds=[0, 1],
        steps=20,
        baseline_factor=2.5,
        overrides={"training.dropout": 0.3},
    )
    (group,) = study.groups
    baseline, tiny, none = group.variants
    assert [v.name for v in group.variants] == ["BiGRU-CRF", "tiny", "none"]
    assert [v.problem for v in group.variants] == [None, None, "why"]
    assert baseline.overrides["training.max_steps"] == 52
    assert baseline.overrides["training.batcher.size"] == 112  # 16 sentences of 7 words.
    assert tiny.overrides["training.eval_frequency"] == 5
    assert none.overrides["paths.encoder"] == "none" and none.test is None
    for variant in group.variants:
        assert variant.overrides["training.dropout"] == 0.3
        config = load_config(variant.config)
        for name in variant.overrides:
            section: Any = config
            for part in name.split("."):
                section = section[part]


def test_what_cannot_be_compared(script: ModuleType, workplace: Path) -> None:
    args = ["tiny", "--output", "out", "--corpus"]
    for more, message in (
        (["tiny"], "No recipe for the language"),
        (["other", "--lang", "zh"], "There is no corpus/other/train.spacy"),
        (["tiny_zh", "--seeds", "a"], "not whole numbers"),
        (["tiny_zh", "--seeds", "1,1"], "one is there twice"),
        (["tiny_zh", "--set", "steps=1"], "is no setting"),
        (["tiny_zh", "--set", "training.max_steps=1"], "use --min-steps and --epochs"),
    ):
        status, output = run_script(script, *args, *more)
        assert status == 1 and message in output


def test_table(script: ModuleType, workplace: Path) -> None:
    """Two good trainings, one encoder that is not there and one whose weights are broken."""
    shutil.copytree("tiny", "broken")
    (workplace / "broken" / "model.safetensors").write_bytes(b"none")
    args = ["tiny,broken,no/such", "--corpus", "tiny_zh", "--output", "out", "--min-steps", 4]
    args += ["--epochs", 0, "--baseline-factor", 1]
    status, output = run_script(script, *args)
    assert status == 1 and "Some variants were not run" in output and "Some runs failed" in output
    text = re.sub(" +", " ", (workplace / "out" / "study.md").read_text(encoding="utf-8"))
    text, of_each_type = text.split("| F1 of each type |")
    assert "| tiny |" in of_each_type and "| broken |" not in of_each_type
    rows = {line.split(" | ")[0].strip("| "): line for line in text.split("\n") if "|" in line}
    assert "1 of" not in rows["tiny"] and "| 1 |" in rows["tiny"] and "M | dev |" in rows["tiny"]
    assert "| 1 |" in rows["BiGRU-CRF"]
    assert any(name.startswith("broken; failed: ") for name in rows)
    assert any(name.startswith("no/such; not run: ") for name in rows)
    data = srsly.read_json(workplace / "out" / "study.json")
    _, tiny, *_ = data["groups"][0]["rows"]
    (result,) = tiny["results"]
    # The encoder's, and a layer and a CRF on a width of 16.
    assert 5000 < result["parameters"] < 10000 and result["speed"] > 0
    assert (workplace / "out" / "study.png").exists() and (workplace / "out" / "study.svg").exists()

    # The good ones are not trained again.
    kept = {path: path.stat().st_mtime_ns for path in (workplace / "out" / "runs").glob("*.json")}
    assert len(kept) == 2
    status, _ = run_script(script, "no/such,tiny", *args[1:])
    assert status == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
