from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import DocBin
from typer.testing import CliRunner

import spacy_mtlner.cli  # noqa: F401  (registers the commands)
from tests.encoder_pipeline import GOLD, TEXTS, find_names, train_over_encoder
from tests.tiny_encoders import make_tiny_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantise")
    nlp = train_over_encoder(make_tiny_encoder("bert", folder / "bert", TEXTS))
    nlp.to_disk(folder / "model")
    return folder / "model"


def run(*args: Any) -> Any:
    return CliRunner().invoke(app, ["mtlner", "quantise", *map(str, args)])


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_writes_a_copy_and_compares(model: Path, tmp_path: Path, precision: str) -> None:
    nlp = spacy.blank("en")
    docs = [nlp(text) for text in TEXTS]
    docs[0].set_ents([docs[0].char_span(0, 8, "PER")])
    for doc in docs[1:]:
        doc.set_ents([])
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    options = ["--precision", precision, "--corpus", tmp_path / "dev.spacy"]
    result = run(model, tmp_path / "new" / "out", *options)
    assert result.exit_code == 0, result.output
    assert precision in result.output and "words/s" in result.output
    # Of three entities that it finds, one is annotated.
    (row,) = (line.split() for line in result.output.splitlines() if "spans_mtlner_f" in line)
    assert row[1:] == ["50.0", "50.0"]
    loaded = spacy.load(tmp_path / "new" / "out")
    assert loaded.config["components"]["transformer"]["model"]["precision"] == precision
    assert [find_names(doc) for doc in loaded.pipe(TEXTS)] == [sorted(gold) for gold in GOLD]


def test_errors(model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "not empty" in " ".join(run(model, tmp_path / "full").output.split())
    DocBin().to_disk(tmp_path / "empty.spacy")
    for corpus, message in (("none.spacy", "Cannot be read"), ("empty.spacy", "no docs")):
        result = run(model, tmp_path / "out", "--corpus", tmp_path / corpus)
        assert result.exit_code == 1 and message in " ".join(result.output.split())
        assert not (tmp_path / "out").exists()
    result = run(tmp_path / "none", tmp_path / "out")
    assert result.exit_code == 1 and "There is no copy" in result.output
    nlp = spacy.blank("en")
    nlp.add_pipe("crf_ner").add_label("PER")  # type: ignore[attr-defined]
    nlp.initialize()
    nlp.to_disk(tmp_path / "small")
    result = run(tmp_path / "small", tmp_path / "out")
    assert result.exit_code == 1 and "no pre-trained encoder" in result.output
    assert not (tmp_path / "out").exists()
