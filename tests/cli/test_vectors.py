"""The `vectors` command, through spaCy's own command line."""

import re
from pathlib import Path

import pytest
import spacy
from spacy.cli import app
from typer.testing import CliRunner, Result

import spacy_mtlner.cli  # noqa: F401


def run(*args: object) -> tuple[Result, str]:
    """The result, and its output without colours and line breaks."""
    result = CliRunner().invoke(app, ["mtlner", "vectors", *map(str, args)])
    return result, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("The cat ate the fish.\nThe dog ate the bone.\n" * 10, encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["glove", "word2vec", "floret"])
def test_vectors(tmp_path: Path, corpus: Path, method: str) -> None:
    if method != "glove":
        pytest.importorskip({"word2vec": "gensim", "floret": "floret"}[method])
    args = ("--lang", "en", "-m", method, "-d", 5, "-e", 2, "-w", 3, "--buckets", 99)
    result, output = run(corpus, corpus, tmp_path / "out", *args)
    assert result.exit_code == 0, output
    assert "240 words in 40 texts; 7 of 7 different ones occur 5 times or more" in output
    assert re.search(rf"{method}: 2 epochs over 240 words in [\d.]+ s, [\d,]+ words/s", output)
    assert ("Loss per pair of words: " in output) == (method == "glove")
    # Frequent words that are no stop words, the most frequent first, and all other words.
    assert re.search(r"Nearest [ -]+ate +\S+, \S+, \S+, \S+, \S+, \S+ bone ", output)
    n_rows = 99 if method == "floret" else 7
    assert f"Wrote {n_rows} vectors of 5 numbers: " in output
    assert spacy.load(tmp_path / "out").vocab.vectors.shape == (n_rows, 5)


def test_neighbours(tmp_path: Path, corpus: Path) -> None:
    result, output = run(corpus, tmp_path / "out", "-l", "en", "-n", "Dog, unheard,")
    assert result.exit_code == 0, output
    assert re.search(r"Nearest [ -]+Dog +\S+, ", output)
    assert "Words without a vector unheard" in output


def test_what_is_passed_over_is_told(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    corpus.rename(folder / "a.txt")
    (folder / "code.py").write_text("import this")
    result, output = run(folder, tmp_path / "out", "-l", "en")
    assert result.exit_code == 0 and "Skipped: file of no known format: 1" in output


def test_force(tmp_path: Path, corpus: Path) -> None:
    args = (corpus, tmp_path / "out", "-l", "en", "-e", 1)
    assert run(*args)[0].exit_code == 0
    result, output = run(*args)
    assert result.exit_code == 1 and "exists: --force replaces it." in output
    assert run(*args, "--force")[0].exit_code == 0


@pytest.mark.parametrize(
    "args, message",
    [
        (["-l", "en", "-m", "bert"], "--method 'bert': choose one of glove, floret, word2vec."),
        (["-l", "en", "-c", "99"], "No word occurs 99 times"),
        (["-l", "qq"], "No tokenizer for language 'qq'"),
        (["-l", "en", "--x-max", "-1"], "--x-max must be a number above 0"),
        (["none.txt", "-l", "en"], "none.txt: Cannot be read: there is no such file or folder."),
        (["empty.txt", "-l", "en"], "empty.txt: Holds no text."),
    ],
)
def test_errors(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    before = {*tmp_path.iterdir()}
    paths = [path for path in args if path.endswith(".txt")]
    options = [arg for arg in args if arg not in paths]
    result, output = run(corpus, *paths, "out", *options)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in output
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "args", [[], ["corpus.txt", "-l", "en"], ["corpus.txt", "out"]], ids=["none", "no OUT", "lang"]
)
def test_usage(args: list[str]) -> None:
    assert run(*args)[0].exit_code == 2


@pytest.mark.parametrize("option", ["--dim", "--min-count", "--window", "--epochs", "--threads"])
def test_numbers_out_of_range(corpus: Path, option: str) -> None:
    result, output = run(corpus, "out", "-l", "en", option, 0)
    assert result.exit_code == 2 and option in output


def test_help() -> None:
    result, output = run("--help")
    assert result.exit_code == 0
    assert "--initialize.vectors OUT" in output and "include_static_vectors = true" in output
