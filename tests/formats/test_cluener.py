"""CLUENER: inclusive ends, surfaces that must agree with the text, errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from spacy_mtlner.formats import CorpusError, Record, Report
from spacy_mtlner.formats.cluener import read_cluener

GOOD: dict[str, Any] = {"text": "张三在北京见张三", "label": {"name": {"张三": [[0, 1], [6, 7]]}}}


def read(path: Path, *values: Any) -> tuple[list[Record], Report]:
    path.write_text("\n".join(json.dumps(value) for value in values), encoding="utf-8")
    report = Report()
    return list(read_cluener(path, report)), report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.json"


def test_ends_are_inclusive(path: Path) -> None:
    value = {**GOOD, "label": {**GOOD["label"], "address": {"北京": [[3, 4]]}}}
    (record,), report = read(path, value)
    assert record.entities == (("name", ((0, 2),)), ("name", ((6, 8),)), ("address", ((3, 5),)))
    assert not report.skipped and not report.repaired


def test_no_entities(path: Path) -> None:
    (record,), _ = read(path, {"text": "无", "label": {}})
    assert record == Record("无", (), path, 1)


@pytest.mark.parametrize("span", [[0, 2], [1, 1], [-8, -7], [5, 99], [99, 100]])
def test_surface_differs(path: Path, span: list[int]) -> None:
    (_, record), report = read(path, GOOD, {**GOOD, "label": {"name": {"张三": [span, [6, 7]]}}})
    assert record.entities == (("name", ((6, 8),)),)
    assert report.skipped["surface differs from the text"].places == [f"{path}:2"]


def test_an_empty_surface(path: Path) -> None:
    (record,), report = read(path, {"text": "张", "label": {"name": {"": [[1, 0]]}}})
    assert record.entities == ()
    assert report.skipped["span ends where or before it starts"].count == 1


@pytest.mark.parametrize(
    "value, message",
    [
        ({"id": 0, "text": "四川"}, "The record has no 'label'. It is not annotated"),
        ({"text": 1, "label": {}}, "Not a record"),
        ({"text": "a", "label": []}, "Not a record"),
        ({"text": "a", "label": {"name": [[0, 1]]}}, "The surfaces of 'name' are no object"),
        ({"text": "a", "label": {"name": {"a": [0, 1]}}}, "No list of spans for 'a'"),
        ({"text": "a", "label": {"name": {"a": [["0", 1]]}}}, "No list of spans for 'a'"),
    ],
)
def test_wrong_structure(path: Path, value: Any, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, GOOD, value)
    assert f"{path}:2: {message}" in str(error.value)


def test_other_keys_are_counted(path: Path) -> None:
    value = {"text": "Ada", "label": {"name": {"Ada": [[0, 2]]}}, "id": 3, "relations": []}
    path.write_text(json.dumps(value))
    report = Report(strict=True)
    (record,) = read_cluener(path, report)
    assert len(record.entities) == 1
    assert {kind: tally.places for kind, tally in report.ignored.items()} == {
        "key 'id' of a record": [f"{path}:1"],
        "key 'relations' of a record": [f"{path}:1"],
    }


def test_real_corpus(data_dir: Path) -> None:
    n_docs, report = 0, Report()
    for part in ("train", "dev"):
        for record in read_cluener(data_dir / f"cluener/{part}.json", report):
            n_docs += 1
            report.add_record(record)
    assert (n_docs, report.entities.total()) == (9672 + 1076, 23971)
    assert not report.skipped and not report.repaired
