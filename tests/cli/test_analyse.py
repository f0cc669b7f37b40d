import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import DocBin
from typer.testing import CliRunner

import spacy_mtlner.cli  # noqa: F401  (registers the commands)
from tests.evaluation.test_predictions import make_pipeline, make_references, make_typing_pipeline

LOG = '{"epoch":0,"step":0,"losses":{"crf_ner":3.0},"scores":{},"score":0.0}\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "model-best"
    with pytest.warns(UserWarning, match="left out"):
        make_pipeline(n_updates=10).to_disk(path)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    path = tmp_path / "dev.spacy"
    DocBin(docs=[*make_references(nlp), nlp.make_doc("not annotated")]).to_disk(path)
    return path


def run(*args: Any) -> Any:
    return CliRunner().invoke(app, ["mtlner", "analyse", *map(str, args)])


def test_writes_everything(model: Path, corpus: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(LOG)
    out = tmp_path / "new" / "out"
    result = run(model, corpus, out, "--train", corpus, "--log", log, "--examples", 2)
    assert result.exit_code == 0, result.output
    assert "skipped: 1" in result.output and "left out" not in result.output
    html = (out / "report.html").read_text(encoding="utf-8")
    assert f"{model.parent.name}/model-best" in html
    found = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert found["left_out"] == {} and found["total"]["gold"] == 6
    names = {path.name for path in (out / "figures").iterdir()}
    assert len(names) == 20
    assert {"pca.png", "pca.svg", "loss.png", "confusion.svg"} <= names
    # Again, over what is there.
    assert run(model, corpus, out).exit_code == 0
    left = {path.name for path in (out / "figures").iterdir()}
    gone = ("loss", "seen", "training_frequency")
    assert names - left == {f"{name}.{suffix}" for name in gone for suffix in ("png", "svg")}
    assert json.loads((out / "analysis.json").read_text(encoding="utf-8"))["log"] is None


def test_typing(corpus: Path, tmp_path: Path) -> None:
    make_typing_pipeline().to_disk(tmp_path / "typing")
    result = run(tmp_path / "typing", corpus, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Typing of given entities: accuracy" in result.output and "F1" not in result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text(encoding="utf-8"))
    assert found["is_typing"] and found["score"]["name"] == "accuracy"


def test_says_what_is_left_out(model: Path, corpus: Path, tmp_path: Path) -> None:
    result = run(model, corpus, tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("seen", "training_frequency", "loss"):
        assert f"Figure {name} is left out" in result.output
        assert not (tmp_path / "out" / "figures" / f"{name}.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pipe", "x"], "no component"),
        (["--spans-key", "x"], "no task"),
        (["--log", "missing.jsonl"], "Cannot be read"),
        (["--train", "missing.spacy"], "no such file"),
    ],
)
def test_errors(
    model: Path, corpus: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    result = run(model, corpus, out, *options)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in " ".join(result.output.split())
    assert not out.exists()


def test_empty_corpus(model: Path, tmp_path: Path) -> None:
    DocBin().to_disk(tmp_path / "dev.spacy")
    result = run(model, tmp_path / "dev.spacy", tmp_path / "out")
    assert result.exit_code == 1 and "dev.spacy: Holds no docs" in " ".join(result.output.split())


def test_missing_model(corpus: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "none", corpus, tmp_path / "out")
    assert result.exit_code == 1 and "There is no analysis" in result.output
