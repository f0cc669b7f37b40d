import json
from pathlib import Path

import pytest
import spacy
from spacy.kb import InMemoryLookupKB
from spacy.vocab import Vocab
from typer.testing import CliRunner, Result

from spacy_mtlner.cli import mtlner_cli
from spacy_mtlner.pipeline.knowledge import read_knowledge


def run(*arguments: object) -> Result:
    return CliRunner().invoke(mtlner_cli, ["knowledge", *map(str, arguments)])


def write_corpus(folder: Path) -> Path:
    path = folder / "train.jsonl"
    records = [
        {
            "text": "neck and shoulder pain",
            "entities": [
                {"label": "ADR", "spans": [[0, 4], [18, 22]]},
                {"label": "ADR", "spans": [[9, 22]]},
            ],
        },
        {"text": "shoulder pain", "entities": [{"label": "ADR", "spans": [[0, 13]]}]},
        {"text": "nothing", "entities": []},
    ]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_from_a_corpus(tmp_path: Path) -> None:
    output = tmp_path / "folder" / "known.jsonl"
    result = run(write_corpus(tmp_path), output, "--lang", "en")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"type": "ADR", "name": "shoulder pain", "frequency": 2},
        {"type": "ADR", "name": "neck pain", "frequency": 1},
    ]
    assert "ADR: 2" in result.output
    result = run(write_corpus(tmp_path), output, "--lang", "en", "--min-frequency", 2)
    assert read_knowledge(output) == {"ADR": {"shoulder pain": 2.0}}


def test_from_word_lists(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "Drug.txt").write_bytes(
        "\ufeffaspirin\t7\r\nibuprofen \t 3\r\n\r\nzero\t0\r\n".encode()
    )
    (folder / "places.tsv").write_text("北京\t12\n上海\n", encoding="utf-8")
    (folder / "more.jsonl").write_text('{"type": "Drug", "name": "aspirin"}\n', encoding="utf-8")
    (folder / "README.md").write_text("no list", encoding="utf-8")
    types = tmp_path / "types.json"
    types.write_text('{"places.tsv": "LOC"}', encoding="utf-8")
    output = tmp_path / "known.jsonl"
    result = run(folder, output, "--from", "wordlist", "--types", types)
    assert result.exit_code == 0, result.output
    assert read_knowledge(output) == {
        "Drug": {"aspirin": 8.0, "ibuprofen": 3.0},
        "LOC": {"北京": 12.0, "上海": 1.0},
    }
    assert "--types" not in result.output
    again = tmp_path / "again.jsonl"
    assert run(output, again, "--from", "wordlist").exit_code == 0
    assert again.read_bytes() == output.read_bytes()


def test_types_of_no_word_list_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "Drug.txt").write_text("aspirin\n", encoding="utf-8")
    (folder / "more.jsonl").write_text('{"type": "LOC", "name": "Rome"}\n', encoding="utf-8")
    types, output = tmp_path / "types.json", tmp_path / "known.jsonl"
    names = {"Drug": "Chemical", "drug.txt": "Drug", "more.jsonl": "Place"}
    types.write_text(json.dumps(names), encoding="utf-8")
    result = run(folder, output, "--from", "wordlist", "--types", types)
    assert result.exit_code == 0
    printed = " ".join(result.output.split())
    assert "has: 2" in printed and " drug.txt, more.jsonl " in printed
    assert read_knowledge(output) == {"Chemical": {"aspirin": 1.0}, "LOC": {"Rome": 1.0}}


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl"])
def test_word_list_that_is_not_utf8(name: str, tmp_path: Path) -> None:
    lines = ["Köln\n", "Ypres\n"]
    if name.endswith(".jsonl"):
        lines = [f'{{"type": "LOC", "name": "{line.strip()}"}}\n' for line in lines]
    source, output = tmp_path / name, tmp_path / "known.jsonl"
    source.write_bytes(lines[1].encode() + lines[0].encode("latin-1"))
    result = run(source, output, "--from", "wordlist")
    assert result.exit_code == 1 and not output.exists()
    printed = "".join(result.output.split())  # Paths are broken at the terminal's width.
    assert f"{name}:2:NotUTF-8" in printed or f"{name},line2isnotUTF-8" in printed
    assert "iconv" in printed


def test_from_a_knowledge_base(tmp_path: Path) -> None:
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=3)
    kb.add_entity(entity="Q1", freq=4, entity_vector=[0.0] * 3)
    kb.add_alias(alias="Ada Lovelace", entities=["Q1"], probabilities=[0.5])
    for number in range(2, 12):
        kb.add_entity(entity=f"Q{number}", freq=1, entity_vector=[0.0] * 3)
    kb.add_alias(alias="Countess", entities=["Q1", "Q2"], probabilities=[0.25, 0.5])
    kb.to_disk(tmp_path / "kb")
    types, output = tmp_path / "types.json", tmp_path / "known.jsonl"
    types.write_text('{"Q1": "PER"}', encoding="utf-8")
    result = run(tmp_path / "kb", output, "--from", "kb", "--types", types)
    assert result.exit_code == 0, result.output
    assert read_knowledge(output) == {"PER": {"Ada Lovelace": 2.0, "Countess": 1.0}}
    assert "left out: 10 of 11" in result.output and "Q10, Q11, Q2, Q3" in result.output
    types.write_text(json.dumps({f"Q{n}": "PER" for n in range(1, 12)}), encoding="utf-8")
    result = run(tmp_path / "kb", output, "--from", "kb", "--types", types)
    assert result.exit_code == 0 and "left out" not in result.output


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("x\tmany\n", ["--from", "wordlist"], "line 1: 'many' is no frequency"),
        ("x\t-1\n", ["--from", "wordlist"], "line 1: a frequency cannot be -1"),
        ("\n", ["--from", "wordlist"], "has no known entities."),
        ("x\n", ["--from", "wordlist", "-n", "2"], "entities of a frequency of 2 or more."),
        ("x\n", ["--from", "kb"], "has no types: give --types"),
        ("x\n", ["--from", "nowhere"], "nowhere"),
    ],
)
def test_errors(content: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    source, output = tmp_path / "list.txt", tmp_path / "known.jsonl"
    source.write_text(content, encoding="utf-8")
    result = run(source, output, *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert not output.exists()


@pytest.mark.parametrize("content", ["x", "[]", '{"Q1": 3}'])
def test_bad_types(content: str, tmp_path: Path) -> None:
    types = tmp_path / "types.json"
    types.write_text(content, encoding="utf-8")
    result = run(tmp_path, tmp_path / "known.jsonl", "--from", "kb", "--types", types)
    assert result.exit_code == 1 and "types.json" in result.output
    types.write_text("{}", encoding="utf-8")
    result = run(tmp_path, tmp_path / "known.jsonl", "--from", "kb", "--types", types)
    assert result.exit_code == 1 and "is no folder of a saved" in " ".join(result.output.split())


def test_component_reads_what_is_written(tmp_path: Path) -> None:
    output = tmp_path / "known.jsonl"
    run(write_corpus(tmp_path), output, "--lang", "en")
    component = spacy.blank("en").add_pipe("seq2seq_ner")
    component.set_knowledge(output)  # type: ignore[attr-defined]
    assert component.knowledge == {"ADR": {"shoulder pain": 2.0, "neck pain": 1.0}}  # type: ignore[attr-defined]
