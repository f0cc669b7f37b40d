"""The interchange format: normal form, what is skipped and repaired, errors, round trips."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from spacy_mtlner.formats import CorpusError, Record, Report
from spacy_mtlner.formats.jsonl import read_jsonl, write_jsonl
from tests.formats.test_docs import records


def entity(label: Any, *spans: Any) -> dict[str, Any]:
    return {"label": label, "spans": spans}


def read(path: Path, *lines: Any) -> tuple[list[Record], Report]:
    """Write lines, values as JSON, to the path and read them."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(text.encode())
    report = Report()
    return list(read_jsonl(path, report)), report


def read_entities(path: Path, text: str, *entities: dict[str, Any]) -> tuple[list[Any], Report]:
    (record,), report = read(path, {"text": text, "entities": entities})
    return [(label, *fragments) for label, fragments in record.entities], report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corpus.jsonl"


@given(record=records())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(path: Path, record: Record) -> None:
    written = [record, replace(record, document='the "one"')]
    counts = Report()
    write_jsonl(written, path, counts)
    assert (counts.docs, counts.entities.total()) == (2, 2 * len(record.entities))
    report = Report()
    again = list(read_jsonl(path, report))
    assert again == [
        replace(record, path=path, line=line) for line, record in enumerate(written, start=1)
    ]
    assert not report.skipped and not report.repaired


def test_records_know_their_lines(path: Path) -> None:
    found, _ = read(path, "\ufeff", {"text": "a", "entities": [], "id": 3}, "", " \r", "", {
        "text": "b\u2028\u0085\r\n", "entities": []
    })  # fmt: skip
    assert [(r.text, r.path, r.line) for r in found] == [
        ("a", path, 2),
        ("b\u2028\u0085\r\n", path, 6),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(path: Path, end: bytes) -> None:
    path.write_bytes(end.join([b'{"text": "a", "entities": []}'] * 3))
    assert [record.line for record in read_jsonl(path, Report())] == [1, 2, 3]


def test_normal_form_is_no_repair(path: Path) -> None:
    entities, report = read_entities(
        path,
        "severe left \t arm pain",
        entity("A", [14, 17], [7, 11], [0, 6]),
        entity("B", [7, 9], [9, 11]),
        entity("C", [18, 22], [7, 12]),
    )
    assert entities == [("A", (0, 17)), ("B", (7, 11)), ("C", (7, 11), (18, 22))]
    assert not report.skipped
    assert {reason: tally.count for reason, tally in report.repaired.items()} == {
        "white space trimmed": 1
    }


@pytest.mark.parametrize(
    "spans, fragments, reason",
    [
        ([[0, 3]], [(0, 2)], "white space trimmed"),
        ([[2, 9]], [(3, 5)], "white space trimmed"),
        ([[0, 2], [8, 9]], [(0, 2)], "white space trimmed"),
        ([[3, 5], [0, 2], [4, 5]], [(0, 5)], "overlapping fragments joined"),
    ],
)
def test_repaired(path: Path, spans: Any, fragments: Any, reason: str) -> None:
    entities, report = read_entities(path, "ab cd \u3000\n ", entity("A", *spans))
    assert entities == [("A", *fragments)]
    assert [*report.repaired] == [reason]
    assert report.repaired[reason].places == [f"{path}:1"]


@pytest.mark.parametrize(
    "bad, reason",
    [
        (entity("", [0, 2]), "label is empty"),
        (entity("A"), "no span"),
        (entity("A", [0, 99]), "offset outside the text"),
        (entity("A", [-1, 2]), "offset outside the text"),
        (entity("A", [0, 2], [3, 3]), "span ends where or before it starts"),
        (entity("A", [2, 1]), "span ends where or before it starts"),
        (entity("A", [2, 3], [6, 7]), "nothing but white space"),
        (entity("GOOD", [0, 2]), "duplicate of another entity"),
    ],
)
def test_skipped(path: Path, bad: Any, reason: str) -> None:
    good = entity("GOOD", [0, 2])
    entities, report = read_entities(path, "ab cd   ", good, bad, entity("ALSO", [3, 5]))
    assert entities == [("GOOD", (0, 2)), ("ALSO", (3, 5))]
    assert [*report.skipped] == [reason]
    assert report.skipped[reason].places == [f"{path}:1"]


def test_all_are_counted_and_the_first_named(path: Path) -> None:
    bad = {"text": "a", "entities": [entity("A", [0, 5])]}
    _, report = read(path, *[bad] * 5)
    tally = report.skipped["offset outside the text"]
    assert (tally.count, tally.places) == (5, [f"{path}:{line}" for line in (1, 2, 3)])


def test_half_a_surrogate_pair(path: Path) -> None:
    whole = '{"text": "\\ud83d\\ude00", "entities": []}'
    half = '{"text": "\\ud83d", "entities": []}'
    found, report = read(path, half, whole)
    assert [record.text for record in found] == ["😀"]
    assert report.skipped["record with half a surrogate pair"].places == [f"{path}:1"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "Not JSON"),
        ("[" * 100_000, "Not JSON"),
        ('{"text": "b"} x', "Not JSON"),
        ([], "Not a record"),
        ({"text": "b"}, "Not a record"),
        ({"text": 1, "entities": []}, "Not a record"),
        ({"text": "b", "entities": [["A", 0, 1]]}, "Not an entity"),
        ({"text": "b", "entities": [entity(1, [0, 1])]}, "Not an entity"),
        ({"text": "b", "entities": [entity("A", [0, 1, 2])]}, "Not an entity"),
        ({"text": "b", "entities": [entity("A", [0, 1.0])]}, "Not an entity"),
        ({"text": "b", "entities": [entity("A", [0, True])]}, "Not an entity"),
        ({"text": "b", "entities": [entity("A", 0, 1)]}, "Not an entity"),
    ],
)
def test_wrong_structure(path: Path, line: Any, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, {"text": "a", "entities": []}, line)
    assert (error.value.path, error.value.line) == (path, 2)
    assert f"{path}:2: {message}" in str(error.value)
    assert error.value.hint


def test_not_utf8(path: Path) -> None:
    path.write_bytes('{"text": "a", "entities": []}\n{"text": "é"}'.encode("latin-1"))
    with pytest.raises(CorpusError) as error:
        list(read_jsonl(path, Report()))
    assert f"{path}:2: Not UTF-8" in str(error.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError) as error:
        list(read_jsonl(tmp_path / name, Report()))
    assert f"{tmp_path / name}: Cannot be read" in str(error.value)


def test_other_keys_are_counted(path: Path) -> None:
    record = {"text": "a", "entities": [entity("A", [0, 1]) | {"id": "T1"}], "meta": {"x": 1}}
    _, report = read(path, record, record)
    assert {name: tally.count for name, tally in report.ignored.items()} == {
        "key 'meta' of a record": 2,
        "key 'id' of an entity": 2,
    }


def test_byte_order_marks_of_joined_files(path: Path) -> None:
    line = json.dumps({"text": "\ufeffa", "entities": []}, ensure_ascii=False)
    found, report = read(path, f"\ufeff{line}", line, f"\ufeff{line}")
    assert [record.text for record in found] == ["\ufeffa"] * 3
    assert report.repaired["byte order mark before a line removed"].count == 1


def test_strict(path: Path) -> None:
    path.write_text(json.dumps({"text": "a", "entities": [entity("A", [0, 2])]}))
    with pytest.raises(CorpusError, match=rf"{path}:1: .*offset outside the text.*--strict"):
        list(read_jsonl(path, Report(strict=True)))


def test_genia(data_dir: Path, path: Path) -> None:
    report, written = Report(), Report()
    records = list(read_jsonl(data_dir / "genia/genia5.dev.jsonl", report))
    write_jsonl(records, path, written)
    counts = (written.docs, written.entities.total(), written.discontinuous)
    assert counts == (1669, 4568, 114)
    assert not report.skipped and not report.repaired
    again = read_jsonl(path, Report())
    assert all(
        a.text == b.text and a.entities == b.entities for a, b in zip(records, again, strict=True)
    )
