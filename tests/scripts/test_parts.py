"""Parts of converted corpora."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import spacy
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_mtlner.entities import Entity, read_entities, write_entities


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("parts")


def write(path: Path, texts: list[str]) -> Path:
    nlp, doc_bin = spacy.blank("zh"), DocBin(store_user_data=True)
    for text in texts:
        doc = nlp.make_doc(text)
        write_entities(doc, [Entity("X", ((0, 1),), 0.5)])
        doc_bin.add(doc)
    doc_bin.to_disk(path)
    return path


def read(path: Path) -> list[str]:
    docs = list(DocBin().from_disk(path).get_docs(spacy.blank("zh").vocab))
    assert all(read_entities(doc) == [Entity("X", ((0, 1),), 0.5)] for doc in docs)
    return [doc.text for doc in docs]


def run(script: ModuleType, *args: object) -> str:
    result = CliRunner().invoke(script.app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.output


def test_cut(script: ModuleType, tmp_path: Path) -> None:
    texts = [f"第{i}句" for i in range(40)]
    path = write(tmp_path / "train.spacy", texts)
    run(script, "cut", path, 8, 4)
    eighth, quarter = read(tmp_path / "train_8.spacy"), read(tmp_path / "train_4.spacy")
    assert (len(eighth), len(quarter)) == (5, 10) and {*eighth} < {*quarter}
    assert eighth != texts[:5]
    rest = (tmp_path / "train_8_rest.txt").read_text(encoding="utf-8").splitlines()
    assert rest == [text for text in texts if text not in eighth]
    run(script, "cut", path, 8, "--seed", 1)
    assert read(tmp_path / "train_8.spacy") != eighth


def test_clean(script: ModuleType, tmp_path: Path) -> None:
    """A text goes if it shares a run of 15 characters, blanks aside, with any of the others."""
    run_of_15 = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰"
    texts = [f"前{run_of_15}后", f"前{run_of_15[:14]}后", f"{run_of_15[:7]} {run_of_15[7:]}", "短"]
    corpus = write(tmp_path / "a.spacy", texts)
    others = [
        write(tmp_path / "b.spacy", ["别的"]),
        write(tmp_path / "c.spacy", [f"在{run_of_15}"]),
    ]
    output = run(script, "clean", corpus, tmp_path / "out" / "a.spacy", *others)
    assert read(tmp_path / "out" / "a.spacy") == [texts[1], texts[3]]
    assert "Left out 2 of 4" in output


def test_pool(script: ModuleType, tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.spacy", ["一"]), write(tmp_path / "b.spacy", ["二", "三"])]
    run(script, "pool", tmp_path / "both.spacy", *paths)
    assert read(tmp_path / "both.spacy") == ["一", "二", "三"]


def test_pool_keeps_what_is_not_known(script: ModuleType, tmp_path: Path) -> None:
    vocab = Vocab()
    for name in ("a", "b"):
        doc = Doc(vocab, words=[name])
        doc.user_data["mtlner_unknown"] = {"mtlner": (0,)}
        DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / f"{name}.spacy")
    run(script, "pool", tmp_path / "both.spacy", tmp_path / "a.spacy", tmp_path / "b.spacy")
    docs = list(DocBin().from_disk(tmp_path / "both.spacy").get_docs(vocab))
    assert [doc.user_data["mtlner_unknown"] for doc in docs] == [{"mtlner": (0,)}] * 2
