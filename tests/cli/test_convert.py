"""The `convert` command, through spaCy's own command line."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli import app
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner, Result

import spacy_mtlner.cli  # noqa: F401
from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.entities import Entity, read_entities
from spacy_mtlner.formats import Report

RECORDS: list[dict[str, Any]] = [
    {
        "text": "left and right arm",
        "entities": [
            {"label": "BODY", "spans": [[0, 4], [15, 18]]},
            {"label": "BODY", "spans": [[9, 18]]},
            {"label": "BODY", "spans": [[40, 44]]},
            {"label": "SIDE", "spans": [[8, 14]]},
        ],
    },
    {"text": "nothing", "entities": []},
]


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["mtlner", "convert", *map(str, args)])


def unwrap(result: Result) -> str:
    """The output without colours and the line breaks of wrapping."""
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


def load(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS), encoding="utf-8")
    return path


def test_convert(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "train.spacy"
    result = run(corpus, output, "-f", "jsonl", "-l", "en", "--spans-key", "task", "--ents")
    assert result.exit_code == 0, result.output
    docs = load(output)
    assert [doc.text for doc in docs] == [record["text"] for record in RECORDS]
    assert read_entities(docs[0], "task") == [
        Entity("BODY", ((0, 1), (3, 4))),
        Entity("BODY", ((2, 4),)),
        Entity("SIDE", ((2, 3),)),
    ]
    assert [[ent.text for ent in doc.ents] for doc in docs] == [["right arm"], []]
    assert "task" in docs[1].spans
    assert [*output.parent.iterdir()] == [output]


def test_report(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "x.spacy", "-l", "en", "-e")
    figures = dict(re.findall(r"^(\S.*?) {2,}(\d+)", result.output, re.MULTILINE))
    expected = {"Docs": 2, "Tokens": 5, "Tokens split": 0, "Entities": 3, "BODY": 2, "SIDE": 1}
    expected |= {"Inside another": 1, "Overlapping another": 3, "Discontinuous": 1}
    expected |= {"Not in doc.ents": 2}
    assert figures == {name: str(n) for name, n in expected.items()}
    assert re.search(r"^Overlapping another +3 +100\.0 %$", result.output, re.MULTILINE)
    for fault in ("Skipped: offset outside the text", "Repaired: white space trimmed"):
        assert re.search(rf"{fault}: 1\S* {re.escape(str(corpus))}:1", unwrap(result))
    assert f"Read as jsonl: {corpus}" in unwrap(result)


def test_labels(corpus: Path, tmp_path: Path) -> None:
    args = ["-m", "BODY=PART", "-m", "LIMB=PART", "--drop", "SIDE"]
    result = run(corpus, tmp_path / "x.jsonl", *args)
    assert result.exit_code == 0, result.output
    assert re.search(r"^PART +2 ", result.output, re.MULTILINE)
    assert f"Left out: entity with label 'SIDE': 1 {corpus}:1" in unwrap(result)
    assert "No entity has these labels of --map, --only, --drop LIMB" in unwrap(result)


def test_strict(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "x.jsonl", "--strict")
    assert result.exit_code == 1
    assert f"{corpus}:1: Cannot be kept: offset outside the text" in unwrap(result)


def test_lossy(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "x.conll", "-l", "en")
    assert result.exit_code == 1 and "--lossy" in unwrap(result)
    result = run(corpus, tmp_path / "x.conll", "-l", "en", "--lossy", "--tag-scheme", "BILUO")
    assert result.exit_code == 0, result.output
    assert f"Lost: discontinuous entity: 1 {corpus}:1" in unwrap(result)
    assert (tmp_path / "x.conll").read_text().split()[:6] == "left O and O right B-BODY".split()


@pytest.mark.parametrize("folder", ["new/", "."])
def test_output_folder(corpus: Path, tmp_path: Path, folder: str) -> None:
    result = run(corpus, f"{tmp_path}/{folder}", "-f", "jsonl", "-l", "en")
    assert result.exit_code == 0, result.output
    assert len(load(tmp_path / folder / "corpus.spacy")) == 2


def test_options_reach_the_reader(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("New York\tB-LOC\tX\n\nis\tO\tX\n", encoding="utf-8")
    output = tmp_path / "corpus.spacy"
    args = ["--separator", r"\t", "--tag-columns", "1", "--joiner", "-", "--n-sents", "2"]
    result = run(corpus, output, "-f", "columns", "-l", "en", *args)
    assert result.exit_code == 0, result.output
    (doc,) = load(output)
    assert doc.text == "New York-is"
    assert [span.text for span in doc.spans["mtlner"]] == ["New York"]


def test_language_tells_the_joiner(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.bio"
    corpus.write_text("北 B-LOC\n京 I-LOC\n", encoding="utf-8")
    assert run(corpus, f"{tmp_path}/", "-f", "columns", "-l", "zh").exit_code == 0
    assert [doc.text for doc in load(tmp_path / "corpus.spacy")] == ["北京"]


@pytest.mark.parametrize(
    "text, args, message",
    [
        ("{}", ["-f", "jsonl", "-l", "en"], "corpus.jsonl:1: Not a record"),
        ("\n", ["-f", "jsonl", "-l", "en"], "corpus.jsonl: Holds no records."),
        ("{}", ["-f", "docx", "-l", "en"], "corpus.jsonl: There is no format 'docx'."),
        ("{}", ["-f", "jsonl", "-l", "en", "--comment", "#"], "'jsonl' has no option: comment."),
        ("{}", ["--tag-columns", "1;2"], "--tag-columns '1;2' is no list of numbers"),
        ("{}", ["--map", "A"], "--map 'A' is not OLD=NEW"),
        ("{}", ["-t", "genia"], "The format 'genia' cannot be written."),
        ("text", [], "corpus.jsonl: Its format cannot be told."),
        ("{}", ["-f", "jsonl", "-l", "qq"], "No tokenizer for language 'qq'"),
    ],
)
def test_errors(corpus: Path, text: str, args: list[str], message: str) -> None:
    corpus.write_text(text, encoding="utf-8")
    output = corpus.with_name("old.spacy")
    output.write_bytes(b"old")
    result = run(corpus, output, *args)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert message in unwrap(result)
    assert output.read_bytes() == b"old"


def test_missing_input_and_wrong_output(corpus: Path, tmp_path: Path) -> None:
    missing = run(tmp_path / "none.jsonl", f"{tmp_path}/", "-f", "jsonl", "-l", "en")
    assert (missing.exit_code, "none.jsonl: Cannot be read" in unwrap(missing)) == (1, True)
    wrong = run(corpus, tmp_path / "corpus.bin", "-f", "jsonl", "-l", "en")
    assert (wrong.exit_code, "does not tell its format" in unwrap(wrong)) == (1, True)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.conll").write_text("Ada B-PER\n")
    result = run(tmp_path / "in", f"{tmp_path}/out/", "-l", "en")
    assert result.exit_code == 0, result.output
    found = f"{tmp_path}/in/a.conll and 1 more"
    assert "Read as columns --token-column 0 --tag-columns 1: " in unwrap(result)
    assert found in unwrap(result)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.spacy", "b.spacy"}


def test_help() -> None:
    """In a process of its own, as spaCy starts it once it has found the entry point."""
    code = "import spacy_mtlner.cli; from spacy.cli import setup_cli; setup_cli()"
    command = [sys.executable, "-c", code, "mtlner", "convert", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "python -m spacy mtlner convert" in output
    for option in (
        "--separator",
        "--tag-columns",
        "--joiner",
        "--n-sents",
        "--map",
        "--lossy",
        "--ents",
    ):
        assert option in output


def test_a_report_says_how_many_more_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for line in range(1, 6):
        report.skip("reason", Path("x"), line)
        report.ignore("kind", Path("x"), min(line, 3))
    print_tallies(report)
    output = " ".join(capsys.readouterr().out.split())
    assert "Skipped: reason: 5" in output and output.count("x:1, x:2, x:3, and 2 more") == 2
