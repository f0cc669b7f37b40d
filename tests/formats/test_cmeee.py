"""CMeEE: both published forms, what is skipped, errors, round trips."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_mtlner.formats import CorpusError, Record, Report
from spacy_mtlner.formats.base import Annotation, make_record
from spacy_mtlner.formats.cmeee import read_cmeee

GOOD = "咳嗽伴发热|||0    1    sym|||3    4    sym|||"


def read(path: Path, content: str, *, strict: bool = False) -> tuple[list[Record], Report]:
    path.write_bytes(content.encode())
    report = Report(strict=strict)
    return list(read_cmeee(path, report)), report


def item(text: str, *entities: dict[str, Any]) -> dict[str, Any]:
    return {"text": text, "entities": entities}


def entity(start: Any, end: Any, label: Any = "sym", **more: Any) -> dict[str, Any]:
    return {"start_idx": start, "end_idx": end, "type": label, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "CMeEE_train"


@st.composite
def records(draw: st.DrawFn, texts: st.SearchStrategy[str], labels: st.SearchStrategy[str]) -> Any:
    """Records with contiguous entities, nested and overlapping."""
    text = draw(texts)
    place = st.integers(0, len(text))
    spans = st.lists(st.tuples(place, place), min_size=1, max_size=1)
    annotations = draw(st.lists(st.builds(Annotation, labels, spans), max_size=5))
    return make_record(text, annotations, Path("corpus"), 1, Report())


def surfaces(record: Record) -> list[tuple[str, str]]:
    return [(label, record.text[start:end]) for label, ((start, end),) in record.entities]


# Neither a line's end nor the three bars that end a text can stand in it.
line_texts = (
    st.text("ab|[{ 咳嗽\t\u2028😀", max_size=12)
    | st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
).filter(lambda text: text.strip() and "|||" not in text)
line_labels = st.text("abc(咳)", min_size=1, max_size=3)


@given(expected=st.lists(records(line_texts, line_labels), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_lines(path: Path, expected: list[Record]) -> None:
    lines = [GOOD] + [
        record.text + "|||" + "".join(
            f"{start}    {end - 1}    {label}|||" for label, ((start, end),) in record.entities
        )
        for record in expected
    ]  # fmt: skip
    found, report = read(path, "\n".join(lines))
    assert [(r.text, r.entities, r.line) for r in found[1:]] == [
        (r.text, r.entities, line) for line, r in enumerate(expected, start=2)
    ]
    assert not report.skipped and not report.repaired


def test_other_keys_are_counted(path: Path) -> None:
    value = item("a", entity(0, 0, normalized="x"), entity(0, 0, "dis", normalized="y"))
    _, report = read(path, json.dumps([value | {"relations": []}]), strict=True)
    assert {kind: tally.count for kind, tally in report.ignored.items()} == {
        "key 'relations' of a record": 1,
        "key 'normalized' of an entity": 2,
    }


def test_two_bars_instead_of_three(path: Path) -> None:
    """The annotation must not become text."""
    found, report = read(path, f"{GOOD}\n患者发热三天||3    3    sym||\n收缩压||120 / 80||\n")
    assert [record.text for record in found[1:]] == ["收缩压||120 / 80||"]
    reason = "text with 'start end type' behind two bars instead of three"
    assert report.skipped[reason].places == [f"{path}:2"]


def test_byte_order_marks_within_a_file_count(path: Path) -> None:
    """Lines of the published corpus begin with one, and their offsets count it."""
    (_, record), report = read(path, f"{GOOD}\n\ufeff第十四章急性中毒|||5    8    dis|||\n")
    assert surfaces(record) == [("dis", "急性中毒")] and not report.repaired


@pytest.mark.parametrize("form", ["list", "indented list", "lines"])
@given(
    expected=st.lists(records(st.text(max_size=20), st.sampled_from(["dis", "sym"])), max_size=4),
    ends=st.sampled_from(["inclusive", "exclusive", "no surface"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_json(path: Path, form: str, expected: list[Record], ends: str) -> None:
    values = [
        item(
            record.text,
            *(
                entity(start, end - (ends != "exclusive"), label)
                | ({} if ends == "no surface" else {"entity": record.text[start:end]})
                for label, ((start, end),) in record.entities
            ),
        )
        for record in expected
    ]
    if form == "lines":
        content = "\n".join(json.dumps(value) for value in values)
    else:
        indent = 1 if form.startswith("indented") else None
        content = json.dumps(values, ensure_ascii=False, indent=indent)
    found, report = read(path, content)
    assert [(r.text, r.entities) for r in found] == [(r.text, r.entities) for r in expected]
    assert not report.skipped and not report.repaired
    assert report.bytes_read == path.stat().st_size


def test_lines_with_and_without_entities(path: Path) -> None:
    found, _ = read(path, f"\n无\n{GOOD}\n无||||\n甲|乙||||||0    2    dis|||\n")
    assert [(r.text, r.line, surfaces(r)) for r in found] == [
        ("无", 2, []),
        ("咳嗽伴发热", 3, [("sym", "咳嗽"), ("sym", "发热")]),
        ("无|", 4, []),
        ("甲|乙|||", 5, [("dis", "甲|乙")]),
    ]


def test_values_of_a_list_know_their_lines(path: Path) -> None:
    first = '{"text":\r\n"a", "entities": []}'
    found, _ = read(path, f"\ufeff \n[\r{first}\r,\n\n" + '{"text": "b", "entities": []} ] \n')
    assert [(r.text, r.line) for r in found] == [("a", 3), ("b", 7)]


def test_nothing_in_the_file(path: Path) -> None:
    assert read(path, "")[0] == read(path, " \n\n")[0] == read(path, "\n[ ]\n")[0] == []


@pytest.mark.parametrize(
    "part, reason",
    [
        ("0    1", "annotation is not 'start end type'"),
        ("0    x    sym", "annotation is not 'start end type'"),
        ("0    1    sym    dis", "annotation is not 'start end type'"),
        (f"0    {'9' * 5000}    sym", "annotation is not 'start end type'"),
        ("1    0    sym", "span ends where or before it starts"),
        ("0    1    sym||", "annotation is not 'start end type'"),
        ("0    1    sym||2    4    sym", "annotation is not 'start end type'"),
        ("-1    1    sym", "offset outside the text"),
        ("0    5    sym", "offset outside the text"),
        ("0    1    sym", "duplicate of another entity"),
    ],
)
def test_skipped_in_lines(path: Path, part: str, reason: str) -> None:
    (_, record), report = read(path, f"{GOOD}\n{GOOD}{part}|||")
    assert surfaces(record) == [("sym", "咳嗽"), ("sym", "发热")]
    assert {why: tally.places for why, tally in report.skipped.items()} == {reason: [f"{path}:2"]}
    with pytest.raises(CorpusError, match=f":2: Cannot be kept: {reason}"):
        read(path, f"{GOOD}\n{GOOD}{part}|||", strict=True)


@pytest.mark.parametrize(
    "bad, reason",
    [
        (entity(0, 1, entity="发热"), "surface differs from the text"),
        (entity(0, 3, entity="咳嗽"), "surface differs from the text"),
        (entity(-5, -4, entity="咳嗽"), "surface differs from the text"),
        (entity(4, 6, entity="热"), "surface differs from the text"),
        (entity(1, 1, entity=""), "span ends where or before it starts"),
        (entity(0, 5), "offset outside the text"),
        (entity(0, 1, ""), "label is empty"),
    ],
)
def test_skipped_in_json(path: Path, bad: dict[str, Any], reason: str) -> None:
    good = entity(3, 5, entity="发热")
    content = f"[{json.dumps(item('无'))},\n{json.dumps(item('咳嗽伴发热', bad, good))}]"
    (_, record), report = read(path, content)
    assert surfaces(record) == [("sym", "发热")]
    assert {why: tally.places for why, tally in report.skipped.items()} == {reason: [f"{path}:2"]}
    with pytest.raises(CorpusError, match=f":2: Cannot be kept: {reason}"):
        read(path, content, strict=True)


@pytest.mark.parametrize("form", ["[%s,\n%s]", "%s\n%s"])
def test_half_a_surrogate_pair(path: Path, form: str) -> None:
    whole, half = ('{"text": "\\ud83d\\ude00", "entities": []}', '{"text": "\\ud83d"}')
    found, report = read(path, form % (whole, half))
    assert [record.text for record in found] == ["😀"]
    assert report.skipped["record with half a surrogate pair"].places == [f"{path}:2"]


@pytest.mark.parametrize("form", ["[\n%s,\n%s\n]", "\n%s\n%s"])
@pytest.mark.parametrize(
    "value, message",
    [
        ({"text": "咳嗽"}, "The record has no 'entities'. It is not annotated"),
        ({"text": 1, "entities": []}, "Not a record"),
        ({"text": "咳嗽", "entities": {}}, "Not a record"),
        (["咳嗽"], "Not a record"),
        (item("咳嗽", [0, 1, "sym"]), "Not an entity"),  # type: ignore[arg-type]
        (item("咳嗽", entity(0, "1")), "Not an entity"),
        (item("咳嗽", entity(0, True)), "Not an entity"),
        (item("咳嗽", entity(0, 1.0)), "Not an entity"),
        (item("咳嗽", entity(0, 1, None)), "Not an entity"),
        (item("咳嗽", entity(0, 1, entity=3)), "Not an entity"),
    ],
)
def test_wrong_structure(path: Path, form: str, value: Any, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, form % (json.dumps(item("无")), json.dumps(value)))
    assert f"{path}:3: {message}" in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    "content, line, message",
    [
        ('[\n{"text": "a", "entities": []}', 2, "Not JSON (Expecting ',' delimiter"),
        ('[{"text": "a", "entities": []}\n{"text": "b"}]', 2, "Not JSON (Expecting ',' delimiter"),
        ('[{"text": "a", "entities": []},\n]', 2, "Not JSON (Expecting value"),
        ('[{"text": "a", "entities": []}\n]\n\nx', 4, "Not JSON (more behind the list"),
        ("[", 1, "Not JSON (Expecting value"),
        ("[\n" + "[" * 100_000, 2, "Not JSON (maximum recursion"),
        ("{", 1, "Not JSON"),
        ("咳嗽 0 1\n\n发热", 1, "No line of the file has '|||'"),
    ],
)
def test_not_this_format(path: Path, content: str, line: int, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, content)
    assert f"{path}:{line}: {message}" in str(error.value)
    assert error.value.hint


def test_unreadable(path: Path) -> None:
    with pytest.raises(CorpusError, match="Cannot be read"):
        list(read_cmeee(path, Report()))
    path.write_bytes(f"{GOOD}\n{GOOD}".encode("gb18030"))
    with pytest.raises(CorpusError, match=":1: Not UTF-8"):
        list(read_cmeee(path, Report()))


def test_real_corpus(data_dir: Path) -> None:
    report = Report()
    n_docs = []
    for part in ("train", "dev"):
        for record in read_cmeee(data_dir / f"cmeee/{part}.txt", report):
            report.add_record(record)
        n_docs.append(report.docs)
    assert n_docs == [14000, 15000]
    assert (report.entities.total(), report.inside) == (61794, 3644)
    assert {reason: tally.count for reason, tally in report.skipped.items()} == {
        "span ends where or before it starts": 2
    }
    assert not report.repaired
