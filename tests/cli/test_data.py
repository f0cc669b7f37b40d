"""The `data` command, through spaCy's own command line."""

import json
import re
from pathlib import Path

import pytest
from spacy.cli import app
from typer.testing import CliRunner, Result

import spacy_mtlner.cli  # noqa: F401


def run(command: str, *args: object) -> tuple[Result, str]:
    """The result, and its output without colours and line breaks."""
    result = CliRunner().invoke(app, ["mtlner", command, *map(str, args)])
    return result, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


def write(path: Path, *labels: str) -> Path:
    records = [
        {"text": f"word {i} here", "entities": [{"label": label, "spans": [[0, 4], [7, 11]]}]}
        for i, label in enumerate(labels)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_data(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", *["A"] * 12, "B")
    dev = write(tmp_path / "dev.jsonl", "A", "C")
    run("convert", train, tmp_path / "train.spacy", "-l", "en", "-k", "task")
    result, output = run("data", tmp_path / "train.spacy", dev, "-l", "en", "-k", "task")
    assert result.exit_code == 0, output
    assert "| docs | 13 | 2 |" in output
    assert "| entities discontinuous | 13 (100.0 %) | 2 (100.0 %) |" in output
    assert "| docs in train | - | 2 (100.0 %) |" in output
    assert "Labels with fewer than 10 examples in train, too few to learn: B (1)" in output
    assert "Labels of dev that are not in train: C (1)" in output


def test_output(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", "A")
    for name in ("report.md", "report.json"):
        result, output = run("data", train, "-l", "en", "-o", tmp_path / "new" / name)
        assert result.exit_code == 0, output
    assert (tmp_path / "new/report.md").read_text().startswith("# Data\n")
    found = json.loads((tmp_path / "new/report.json").read_text())
    assert found["corpora"][0]["labels"]["A"]["count"] == 1


def test_what_is_skipped_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "entities": [{"label": "A", "spans": [[0, 2]]}]}')
    _, output = run("data", path, "-l", "en", "-o", tmp_path / "x.md")
    assert f"Skipped: offset outside the text: 1 {path}:1" in output
    written = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert f"- Skipped: offset outside the text: 1, as at {path}:1." in written


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "Making tokens needs the language"),
        (["-l", "en", "-f", "genia"], "x.jsonl:1: Not XML"),
        (["-l", "en", "-o", "x.txt"], "The report's file must be .md or .json"),
        (["x.jsonl", "x.jsonl", "-l", "en"], "x.jsonl is named more than once"),
    ],
)
def test_errors(tmp_path: Path, args: list[str], message: str) -> None:
    result, output = run("data", write(tmp_path / "x.jsonl", "A"), *args)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in output
