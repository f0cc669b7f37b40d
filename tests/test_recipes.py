"""Every block of docs/recipes.md runs, in the order of the page."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from spacy.cli._util import app
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import registry
from typer.testing import CliRunner

from spacy_mtlner import Entity, read_entities, write_entities

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
WORDS = ["Ada", "Lovelace", "went", "to", "London"]
TAGS = ["NNP", "NNP", "VBD", "IN", "NNP"]


def read_blocks() -> list[tuple[str, str, str]]:
    """Title, language and text of each block."""
    blocks = []
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.split("\n", 1)[0]
        found = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        blocks += [(title, language, text) for language, text in found]
    return blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the page speaks of, which is the working directory."""
    path = tmp_path_factory.mktemp("recipes")
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec")
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96, "upstream": "*"}
    nlp.add_pipe("tagger", config={"model": {"tok2vec": listener}})
    docs = [make_doc(nlp)]
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs])
    nlp.to_disk(path / "my_pipeline")
    (path / "corpus").mkdir()
    for part in ("train", "dev"):
        DocBin(docs=docs).to_disk(path / "corpus" / f"{part}.spacy")
    rows = [{"id": number, "text": " ".join(WORDS)} for number in range(300)]
    srsly.write_jsonl(path / "documents.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


def make_doc(nlp: Language) -> Doc:
    doc = Doc(nlp.vocab, words=WORDS, tags=TAGS)
    entities = [Entity("PER", ((0, 2),)), Entity("PER", ((0, 1),)), Entity("LOC", ((4, 5),))]
    write_entities(doc, entities)
    write_entities(doc, entities[::2], "names")
    return doc


def run_command(command: str) -> None:
    """Run a command, in this process, which is faster."""
    registry.cli.get_all()  # Our commands among spaCy's.
    program, *arguments = shlex.split(command)
    assert program == "python"
    if arguments[:2] == ["-m", "spacy"]:
        result = CliRunner().invoke(app, arguments[2:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")


@pytest.fixture(scope="module")
def names(folder: Path) -> dict[str, Any]:
    """What is defined once all blocks have run."""
    names: dict[str, Any] = {"__name__": "recipes"}
    for title, language, text in read_blocks():
        match = re.match(r"# (\S+\.(?:cfg|py))\n", text)
        if match:
            (folder / match[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, f"recipes.md, {title}", "exec"), names)
        else:
            assert language == "bash"
            for command in text.splitlines():
                run_command(command)
    return names


def test_frozen_components_did_not_change(names: dict[str, Any]) -> None:
    before, after = spacy.load("my_pipeline"), spacy.load("training/frozen/model-last")
    assert after.pipe_names == ["tok2vec", "tagger", "crf_ner"]
    for name in ("tok2vec", "tagger"):
        assert before.get_pipe(name).model.to_bytes() == after.get_pipe(name).model.to_bytes()
    assert after.get_pipe("crf_ner").labels == ("LOC", "PER")


def test_component_taken_out_predicts_the_same(names: dict[str, Any]) -> None:
    shared, alone = spacy.load("training/shared/model-best"), spacy.load("alone")
    text = " ".join(WORDS)
    entities = read_entities(shared(text))
    assert alone.pipe_names == ["span_ner"]
    assert read_entities(alone(text)) == entities
    assert spacy.load("tuned").get_pipe("span_ner").cfg["threshold"] == 0.25


def test_scores_of_the_evaluation(names: dict[str, Any]) -> None:
    metrics = srsly.read_json("metrics.json")
    for key in ("names", "mtlner"):
        for part in ("p", "r", "f", "flat_f", "nested_f", "discontinuous_f"):
            assert f"spans_{key}_{part}" in metrics
    assert (Path("analysis") / "report.html").exists()


def test_crf_has_no_threshold(names: dict[str, Any]) -> None:
    arguments = ["training/shared/model-best", "corpus/dev.spacy", "crf_ner"]
    result = CliRunner().invoke(
        app, ["find-threshold", *arguments, "threshold", "spans_names_f", "--n_trials", "2"]
    )
    assert result.exit_code != 0


def test_html_numbers_what_belongs_together(names: dict[str, Any]) -> None:
    assert names["html"].count("ADR 2") == 2  # Two fragments of one entity.


def test_json_lines_have_scores(names: dict[str, Any]) -> None:
    rows = list(srsly.read_jsonl("entities.jsonl"))
    assert [row["text"] for row in rows] == names["texts"]
    row = names["to_json"](make_doc(spacy.blank("en")))
    assert row["entities"][0] == {"label": "PER", "spans": [[0, 12]], "score": 1.0}


def test_every_document_comes_back_with_its_id(names: dict[str, Any]) -> None:
    assert [row["id"] for row in srsly.read_jsonl("found.jsonl")] == [*range(300)]


def test_long_document_is_read_as_a_whole(names: dict[str, Any]) -> None:
    assert len(names["doc"].text) > 1_000_000
    assert "mtlner" in names["doc"].spans
