"""Typing beside recognition: the baseline, and the table."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import spacy
import srsly
from spacy.tokens import DocBin

from spacy_mtlner.entities import Entity, write_entities
from tests.scripts.conftest import SCRIPTS

PLACES, PEOPLE = ("Berlin", "New York", "Porto", "Lyon"), ("Ada", "Grace Hopper", "Emmy", "Mary")


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> Any:
    sys.path.insert(0, str(SCRIPTS))  # As when it is run: it imports study_run.
    try:
        return load_script("typing_table")
    finally:
        sys.path.remove(str(SCRIPTS))


def write_corpus(path: Path) -> Path:
    nlp = spacy.blank("en")
    docs = []
    for label, names in (("LOC", PLACES), ("PER", PEOPLE)):
        for name in names:
            doc = nlp(f"{name} is here")
            write_entities(doc, [Entity(label, ((0, len(name.split())),))])
            docs.append(doc)
    DocBin(docs=docs).to_disk(path)
    return path


def test_linear_baseline_learns_its_spans(script: Any, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.spacy")
    assert sorted(script.read_spans(path, "en"), key=str)[2] == (("Emmy",), {"PER"})
    found = script.train_linear(path, path, "en")
    assert found.accuracy == found.macro_f == found.f == 1.0


def test_linear_baseline_with_one_label(script: Any, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = nlp("Berlin is here")
    write_entities(doc, [Entity("LOC", ((0, 1),))])
    path = tmp_path / "one.spacy"
    DocBin(docs=[doc, doc]).to_disk(path)
    assert script.train_linear(path, path, "en").accuracy == 1.0


def test_features(script: Any) -> None:
    grams = script.list_features(("a", "b"))
    assert grams[:3] == ["wa", "wb", "wa_b"]
    assert {"c<", "c<a", "ca b>", "c<a b>"} <= {*grams} and "c<a b>c" not in grams


def test_page_tells_the_protocols_apart(script: Any) -> None:
    rows = [
        script.Row("linear", script.Typing(0.9, 0.8, 2.0)),
        script.Row("LSTM", script.Typing(0.5, 0.4, 9.0), script.Recognition(0.3, 0.2, 0.24, 7.0)),
    ]
    page = script.make_page(Path("a.spacy"), Path("b.spacy"), Path("b.spacy"), 10, 20, rows)
    page = re.sub(" +", " ", page)
    assert "| linear | 90.0 | 90.0 | 100.0 | 94.7 | 80.0 | 2 | - | - | - | - |" in page
    assert "| LSTM | 50.0 | 50.0 | 100.0 | 66.7 | 40.0 | 9 | 30.0 | 20.0 | 24.0 | 7 |" in page
    assert "chosen on the same part" in page
    assert "typing: accuracy" in page and "recognition: P" in page


def test_trains_all_systems(script: Any, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.spacy")
    nlp = spacy.blank("en")
    for name in (*PLACES, *PEOPLE):
        for word in name.split():
            nlp.vocab.set_vector(word, numpy.full(8, len(word), dtype="f"))
    nlp.to_disk(tmp_path / "vectors")
    out = tmp_path / "out"
    script.main(
        path, path, path, out, "en", vectors=tmp_path / "vectors", steps=3, words=20, seed=0
    )
    rows = srsly.read_json(out / "typing.json")
    assert [row["name"] for row in rows] == [
        "linear, hashed n-grams",
        "no vectors",
        "vectors of the corpus",
    ]
    assert rows[0]["recognition"] is None and rows[0]["typing"]["accuracy"] == 1.0
    assert all(0 <= row["typing"]["accuracy"] <= 1 for row in rows)
    assert all(row["recognition"]["f"] is not None for row in rows[1:])
    assert (out / "typing.md").read_text(encoding="utf-8").count("\n| ") == 5
