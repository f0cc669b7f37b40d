"""The `describe` command, through spaCy's own command line."""

import json
import re
from pathlib import Path

import pytest
from spacy.cli import app
from typer.testing import CliRunner, Result

import spacy_mtlner.cli  # noqa: F401


def run(*args: object) -> tuple[Result, str]:
    """The result, and its output without colours and line breaks."""
    result = CliRunner().invoke(app, ["mtlner", "describe", *map(str, args)])
    return result, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.tsv"
    path.write_text("color\t绿色 颜料\nPER\tdoctor\ngame\n", encoding="utf-8")
    return path


@pytest.fixture
def sememes(tmp_path: Path) -> Path:
    path = tmp_path / "sememes.txt"
    path.write_text(
        "绿色 adj color|颜色\n"
        "绿色 adj\n"
        "绿色 adj EnvironmentFriendly|环保\n"
        "doctor\tnoun\tDEF={human|人:domain={medical|医},{doctor|医治:agent={~}}}\n",
        encoding="utf-8",
    )
    return path


def test_describe(labels: Path, sememes: Path) -> None:
    output_path = labels.parent / "new" / "descriptions.json"
    result, output = run(labels, output_path, "--sememes", sememes)
    assert result.exit_code == 0, output
    assert output_path.read_text(encoding="utf-8") == (
        "{\n"
        '  "color": "绿色, 颜料, color, environment friendly",\n'
        '  "PER": "doctor, human, medical",\n'
        '  "game": "game",\n'
        '  "O": "general text"\n'
        "}\n"
    )
    assert [*output_path.parent.iterdir()] == [output_path]
    assert "Skipped: line is not 'word, part of speech, sememes': 1" in output
    assert f"{sememes}:2" in output.replace(" ", "")
    assert "does not have: 2 color: 颜料; game: game" in output
    assert "Labels described by their own words alone game" in output
    assert "Wrote drafts of 4 descriptions" in output and "Edit them" in output


def test_options(labels: Path, sememes: Path) -> None:
    output_path = labels.parent / "descriptions.json"
    labels.write_text('{"color": ["绿色"], "PER": "doctor"}', encoding="utf-8")
    args = (labels, output_path, "-s", sememes, "--lang", "zh", "--max-words", 3)
    result, output = run(*args)
    assert result.exit_code == 0, output
    assert json.loads(output_path.read_text(encoding="utf-8")) == {
        "color": "绿色，颜色，环保",
        "PER": "doctor，人，医",
        "O": "普通文本",
    }
    assert "Words that" not in output and "alone" not in output


def test_no_draft_takes_the_place_of_an_edited_one(labels: Path, sememes: Path) -> None:
    output_path = labels.parent / "descriptions.json"
    output_path.write_text("edited")
    result, output = run(labels, output_path, "-s", sememes)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "exists and may be edited by hand: --force overwrites it." in output
    assert output_path.read_text() == "edited"
    result, _ = run(labels, output_path, "-s", sememes, "--force")
    assert result.exit_code == 0
    assert [*json.loads(output_path.read_text(encoding="utf-8"))] == ["color", "PER", "game", "O"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("labels", '{"a": "x",\n"a": "y"}', "labels.tsv:2: The label 'a' is there twice."),
        ("labels", "", "labels.tsv:1: Holds no labels."),
        ("labels", None, "labels.tsv: Cannot be read"),
        ("sememes", "绿色\n", "sememes.txt:1: Holds no senses."),
        ("sememes", None, "sememes.txt: Cannot be read"),
    ],
)
def test_errors(labels: Path, sememes: Path, name: str, content: str | None, message: str) -> None:
    path = labels if name == "labels" else sememes
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    before = {*labels.parent.iterdir()}
    result, output = run(labels, labels.parent / "out.json", "-s", sememes)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message.replace(" ", "") in output.replace(" ", "")
    assert {*labels.parent.iterdir()} == before


@pytest.mark.parametrize("args", [[], ["-s", "x", "--max-words", 0]])
def test_usage(labels: Path, args: list[object]) -> None:
    result, _ = run(labels, labels.parent / "out.json", *args)
    assert result.exit_code == 2


def test_help() -> None:
    result, output = run("--help")
    assert result.exit_code == 0
    assert "draft, to be edited by hand" in output
