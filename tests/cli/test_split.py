"""The `split` command, through spaCy's own command line."""

import json
import re
from pathlib import Path

import pytest
from spacy.cli import app
from typer.testing import CliRunner, Result

import spacy_mtlner.cli  # noqa: F401


def run(*args: object) -> tuple[Result, str]:
    """The result, and its output without colours and line breaks."""
    result = CliRunner().invoke(app, ["mtlner", "split", *map(str, args)])
    return result, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "all.jsonl"
    records = [
        {"text": f"text {i}", "entities": [{"label": "A" if i else "RARE", "spans": [[0, 4]]}]}
        for i in range(20)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_split(corpus: Path) -> None:
    result, output = run(corpus, "--dev", 0.2, "--test", 0.1, "--seed", 5)
    assert result.exit_code == 0, output
    folder = corpus.parent / "all-split"
    counts = {path.stem: len(path.read_text().splitlines()) for path in folder.iterdir()}
    assert counts == {"train": 14, "dev": 4, "test": 2}
    assert "train dev test" in output and "Docs 14 4 2" in output
    assert "Too few documents have these for every part RARE" in output
    assert f"Wrote 4 docs: {folder}/dev.jsonl" in output


def test_without_test(corpus: Path) -> None:
    result, _ = run(corpus, "--test", 0, "-o", corpus.parent / "parts", "-t", "brat")
    assert result.exit_code == 0
    assert {path.name for path in (corpus.parent / "parts").iterdir()} == {"train", "dev"}


@pytest.mark.parametrize(
    "args, message",
    [
        (["--dev", 2], "--dev is 2.0: a share must be"),
        (["--dev", 0.5, "--test", 0.5], "--dev and --test are 1 together"),
        (["-f", "conll"], "There is no format 'conll'"),
        (["-t", "spacy"], "Making tokens needs the language"),
        (["-t", "docx"], "The format 'docx' cannot be written"),
    ],
)
def test_errors(corpus: Path, args: list[object], message: str) -> None:
    result, output = run(corpus, *args)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in output


def test_leaks(corpus: Path) -> None:
    text = "the very same words stand in this text and in all others of this corpus"
    records = [{"text": f"{text} {i}", "entities": []} for i in range(10)]
    corpus.write_text("\n".join(map(json.dumps, records)))
    _, output = run(corpus)
    assert re.search(
        r"Texts of dev of which half or more stands in train: 1 \S*all.jsonl:\d", output
    )
