"""Sememe files: both forms, definitions, what is skipped; labels' words; drafts; broken files."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.sememes import Sense, describe_labels, read_labels, read_sememes
from tests.formats.test_fuzz import mutate

GREEN = "绿色\tadj\tcolor|颜色 EnvironmentFriendly|环保"
DOCTOR = "doctor\tnoun\tDEF={human|人:domain={medical|医},{doctor|医治:agent={~}}}"


def read(path: Path, content: str, *, strict: bool = False) -> tuple[list[Sense], Report]:
    path.write_bytes(content.encode())
    report = Report(strict=strict)
    return list(read_sememes(path, report)), report


def sememes(definition: str, folder: Path) -> list[str]:
    ((sense,), report) = read(folder / "sememes", f"词\tn\t{definition}")
    assert not report.skipped
    return [*sense.sememes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sememes.txt"


english = st.text("abcXYZ09-", min_size=1, max_size=6).filter(lambda text: not text.isnumeric())
halves = st.tuples(
    english.filter(lambda t: any(map(str.isalpha, t))), st.text("颜色人医环", min_size=1)
)
atoms = halves.flatmap(lambda pair: st.sampled_from([f"{pair[0]}|{pair[1]}", *pair]))
columns = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n|\ufeff"), min_size=1)
words = columns.map(str.strip).filter(lambda text: text and text[0] != "#")
parts_of_speech = columns.map(str.strip).filter(bool)


@st.composite
def definitions(draw: st.DrawFn, depth: int = 0) -> tuple[str, list[str]]:
    """A definition with roles, and its sememes in order."""
    text = atom = draw(atoms)
    found = [atom]
    parts = []
    for form in draw(st.lists(st.sampled_from(["role", "event", "~"]), max_size=3 - depth)):
        inner, inner_sememes = draw(definitions(depth + 1))
        found += inner_sememes if form != "~" else []
        parts.append({"role": f"HostOf={inner}", "event": inner, "~": "agent={~}"}[form])
    if parts:
        text = f"{atom}:{','.join(parts)}"
    return f"{{{text}}}", found


@given(
    expected=st.lists(
        st.tuples(words, parts_of_speech, st.lists(atoms, min_size=1, max_size=4)), min_size=1
    ),
    between=st.sampled_from([" ", ",", ", ", "\t", "\u3000"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    start=st.sampled_from(["", "\ufeff", "# HowNet\n\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_rows(
    path: Path, expected: list[tuple[str, str, list[str]]], between: str, end: str, start: str
) -> None:
    lines = [f"{word}\t{pos}\t{between.join(found)}" for word, pos, found in expected]
    senses, report = read(path, start + end.join(lines))
    assert [(s.word, s.pos, [*s.sememes]) for s in senses] == expected
    first = 3 if start.startswith("#") else 1
    assert [sense.line for sense in senses] == [*range(first, first + len(lines))]
    assert not report.skipped


def test_json_is_no_sememe_file(path: Path) -> None:
    with pytest.raises(CorpusError, match=r":1: Is JSON, no sememe file"):
        read(path, '{"text": "Ada met Bob", "entities": []}\n')


@given(
    expected=st.lists(
        st.tuples(
            words.filter(lambda text: not any(map(str.isspace, text))),
            parts_of_speech.filter(lambda text: not any(map(str.isspace, text))),
            definitions(),
        ),
        min_size=1,
    ),
    between=st.sampled_from([" ", "    ", "\u3000", " \t", "\t\t"]),
    name=st.sampled_from(["DEF=", ""]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_definitions(
    path: Path, expected: list[tuple[str, str, tuple[str, list[str]]]], between: str, name: str
) -> None:
    lines = [between.join((word, pos, name + text)) for word, pos, (text, _) in expected]
    senses, report = read(path, "\n".join(lines))
    assert [(s.word, s.pos, [*s.sememes]) for s in senses] == [
        (word, pos, found) for word, pos, (_, found) in expected
    ]
    assert not report.skipped


@pytest.mark.parametrize(
    "definition, expected",
    [
        ("color|颜色 EnvironmentFriendly|环保", ["color|颜色", "EnvironmentFriendly|环保"]),
        ("human 人 medical|医", ["human", "人", "medical|医"]),
        ("human|,|人", ["human", "人"]),
        ("human|人,*FondOf|喜欢,#WhileAway|消闲", ["human|人", "FondOf|喜欢", "WhileAway|消闲"]),
        ("DEF={human|人}", ["human|人"]),
        (
            "DEF={human|人:domain={medical|医},{doctor|医治:agent={~}}}",
            ["human|人", "medical|医", "doctor|医治"],
        ),
        (
            "{human|人:HostOf={Occupation|职位},{own|有:possession={Status|身分:host={$}},scope={?}}}",
            ["human|人", "Occupation|职位", "own|有", "Status|身分"],
        ),
        (
            '{place|地方:PlaceSect={city|市},belong="China|中国"}',
            ["place|地方", "city|市", "China|中国"],
        ),
        ("DEF = { human|人 : domain = { medical|医 } }", ["human|人", "medical|医"]),
        ("{time|时间:quantity={1},unit={day|日}};{day|日}", ["time|时间", "day|日", "day|日"]),
        ("{human|人:domain={medical|医}", ["human|人", "medical|医"]),
        ("PartPosition=body|身，（头、人）", ["body|身", "头", "人"]),
    ],
)
def test_definitions(tmp_path: Path, definition: str, expected: list[str]) -> None:
    assert sememes(definition, tmp_path) == expected


def test_words_with_blanks_stand_between_tabs(path: Path) -> None:
    senses, _ = read(path, "  human being \t\tnoun [5] \t human|人\t own|有 \nhuman noun  human|人")
    assert senses == [
        Sense("human being", "noun [5]", ("human|人", "own|有"), 1),
        Sense("human", "noun", ("human|人",), 2),
    ]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("绿色", "line is not 'word, part of speech, sememes'"),
        ("绿色 adj", "line is not 'word, part of speech, sememes'"),
        ("绿色\tadj\t", "line is not 'word, part of speech, sememes'"),
        ("绿色 color|颜色 EnvironmentFriendly|环保", "line is not 'word, part of speech, sememes'"),
        ("\tadj\tcolor|颜色\tred|红", "line is not 'word, part of speech, sememes'"),
        ("绿色\tadj\tDEF={}", "line has no sememe"),
        ("绿色\tadj\t{~}", "line has no sememe"),
        ("绿色\tadj\tagent={?},quantity={1},host={$}", "line has no sememe"),
        ('绿色\tadj\t"" | ||', "line has no sememe"),
    ],
)
def test_skipped(path: Path, line: str, reason: str) -> None:
    senses, report = read(path, f"{GREEN}\n\n{line}\n{DOCTOR}")
    assert [(sense.word, sense.line) for sense in senses] == [("绿色", 1), ("doctor", 4)]
    assert {why: tally.places for why, tally in report.skipped.items()} == {reason: [f"{path}:3"]}
    with pytest.raises(CorpusError, match=f":3: Cannot be kept: {reason}"):
        read(path, f"{GREEN}\n\n{line}", strict=True)


@pytest.mark.parametrize("content", ["", " \n\n", "# word pos sememes\n", "绿色\n"])
def test_no_senses(path: Path, content: str) -> None:
    with pytest.raises(CorpusError, match=":1: Holds no senses") as error:
        read(path, content)
    assert error.value.hint


def test_unreadable(path: Path) -> None:
    for function in (read_labels, lambda path: list(read_sememes(path, Report()))):
        path.unlink(missing_ok=True)
        with pytest.raises(CorpusError, match="Cannot be read"):
            function(path)
        path.write_bytes(f"{GREEN}\n{GREEN}".encode("gb18030"))
        with pytest.raises(CorpusError, match=":1: Not UTF-8"):
            function(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"address": ["地址", "住址"], "human being": ["human being"], "O": ["O"]}',
        '\ufeff\r\n{"address": "地址 住址",\r\n"human being": [" human being "], "O": ""}',
        '{"\\u0061ddress": "地址\\t住址", "human being": ["human being"], "O": []}',
        "address 地址 住址\nhuman being\t\nO",
        "\ufeff# labels\r\n\r\n address\t地址\t住址\r\nhuman being\t\r\n O\t\r\n",
    ],
)
def test_labels(path: Path, content: str) -> None:
    path.write_bytes(content.encode())
    labels = {"address": ["地址", "住址"], "human being": ["human being"], "O": ["O"]}
    assert read_labels(path) == labels


@given(
    expected=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        st.lists(words, min_size=1, max_size=3),
    ).filter(bool),
    indent=st.sampled_from([None, 1]),
    ensure_ascii=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_labels(
    path: Path, expected: dict[str, list[str]], indent: int | None, ensure_ascii: bool
) -> None:
    text = json.dumps(expected, indent=indent, ensure_ascii=ensure_ascii)
    path.write_bytes(text.encode())
    assert read_labels(path) == expected


@pytest.mark.parametrize(
    "content, line, message",
    [
        ("", 1, "Holds no labels"),
        ("\n# none\n", 1, "Holds no labels"),
        ("{}", 1, "Holds no labels"),
        ("[]", 1, "A list has no labels"),
        ('["address"]', 1, "A list has no labels"),
        ('{"address": "地址",\n}', 2, "Not JSON"),
        ('{"address": "地址"}\n{"name": "名"}', 2, "Not JSON (Extra data"),
        ("[" * 100_000, 1, "Not JSON (maximum recursion"),
        ('{"a":' * 100_000, 1, "Not JSON (maximum recursion"),
        (f'{{"a": {"9" * 5000}}}', 1, "Not JSON"),
        ('{"a": "x",\n"b": 3}', 2, "The words of 'b' are no string and no list of words"),
        ('{"a": ["x"],\n\r\r\n"b": null}', 4, "The words of 'b' are"),
        ('{"a": "\\": {",\n"b": ["x", 3]}', 2, "The words of 'b' are"),
        ('{"a": "x",\n"b": ["x", " "]}', 2, "The words of 'b' are"),
        ('{"a": "x",\n"b": [["x"]]}', 2, "The words of 'b' are"),
        ('{"a": "x",\n"b": {"c": "x",\n"d": "x"}}', 2, "The words of 'b' are"),
        ('{"a": "x",\n"b": [{"c": "x"}],\n"d": 1}', 2, "The words of 'b' are"),
        ('{"a": "x",\n"b": "\\ud83d"}', 2, "Half a surrogate pair"),
        ('{"a": "x",\n"\\ud83d": "x"}', 2, "Half a surrogate pair"),
        ('{"a": "x",\n" ": "x"}', 2, "The label is empty"),
        ("a\tx\n\tx", 2, "The label is empty"),
        ('{"a": "x",\n"b": "a",\n"\\u0061": "y"}', 3, "The label 'a' is there twice"),
        ("a\tx\n\na y", 3, "The label 'a' is there twice"),
    ],
)
def test_wrong_labels(path: Path, content: str, line: int, message: str) -> None:
    path.write_bytes(content.encode())
    with pytest.raises(CorpusError) as error:
        read_labels(path)
    assert f"{path}:{line}: {message}" in str(error.value)
    assert error.value.hint


def sense(word: str, *found: str) -> Sense:
    return Sense(word, "n", found, 1)


SENSES = [
    sense("地址", "name|姓名", "place|地方", "EnvironmentFriendly|环保"),
    sense("狗", "animal|兽"),
    sense("住址", "reside|住下", "place|地方", "place|地方"),
    sense("地址", "reside|住下", "人", "HTMLPage"),
    sense("Place", "location|位置"),
]


@pytest.mark.parametrize(
    "lang, expected",
    [
        ("en", "住址, 地址, place, reside, name, environment friendly, 人, html page"),
        ("de", "住址, 地址, place, reside, name, environment friendly, 人, html page"),
        ("zh", "住址，地址，地方，住下，姓名，环保，人，html page"),
    ],
)
def test_describe(lang: str, expected: str) -> None:
    found, missing = describe_labels({"address": ["住址", "地址"]}, SENSES, lang=lang)
    assert found == {"address": expected, "O": "普通文本" if lang == "zh" else "general text"}
    assert [*found] == ["address", "O"] and missing == {}


def test_ties_are_in_the_words_order() -> None:
    labels = {"a": ["狗", "地址"], "b": ["地址", "狗"]}
    found, _ = describe_labels(labels, SENSES, lang="zh")
    assert found["a"] == "狗，地址，兽，姓名，地方，环保，住下，人，html page"
    assert found["b"] == "地址，狗，姓名，地方，环保，住下，人，html page，兽"


def test_each_word_once_whatever_its_case() -> None:
    labels = {"address": ["PLACE", "place", "住址"], "dog": ["狗", "狗"]}
    found, missing = describe_labels(labels, SENSES)
    assert found["address"] == "PLACE, 住址, location, reside"
    assert found["dog"] == "狗, animal"
    assert missing == {}


def test_missing() -> None:
    labels = {"address": ["地址", "街道"], "game": ["游戏", "game"], "O": ["其他"]}
    found, missing = describe_labels(labels, iter(SENSES[:2]))
    assert found["game"] == "游戏, game" and found["O"] == "其他"
    assert missing == {"address": ["街道"], "game": ["游戏", "game"], "O": ["其他"]}


@pytest.mark.parametrize(
    "max_words, expected",
    [
        (1, "human being"),  # Never empty.
        (2, "human being"),
        (3, "human being, man"),
        (4, "human being, man"),
        (5, "human being, man, environment friendly"),
        (6, "human being, man, environment friendly, big"),
        (9, "human being, man, environment friendly, big"),
    ],
)
def test_max_words(max_words: int, expected: str) -> None:
    senses = [sense("man", "EnvironmentFriendly", "big")]
    found, _ = describe_labels({"PER": ["human being", "man"]}, senses, max_words=max_words)
    assert found["PER"] == expected


@pytest.mark.parametrize(
    "english, expected",
    [
        ("EnvironmentFriendly", "environment friendly"),
        ("aValue", "a value"),
        ("PatientProduct2Be", "patient product2 be"),
        ("HTMLPage", "html page"),
        ("ACT", "act"),
        ("T恤", "T恤"),
    ],
)
def test_english_in_words(english: str, expected: str) -> None:
    found, _ = describe_labels({"A": ["x"]}, [sense("x", f"{english}|中")])
    assert found["A"] == f"x, {expected}"


# Few words, so that they have several senses, and sememes of one word, so that they can be split.
few = st.sampled_from(["甲", "乙", "b", "B"])
few_sememes = st.sampled_from(["a|人", "b|甲", "c", "丙", "d|丁", "e|戊"])


@given(
    labels=st.dictionaries(st.sampled_from("OPQ"), st.lists(few, min_size=1, max_size=3)),
    senses=st.lists(st.builds(lambda w, s: sense(w, *s), few, st.lists(few_sememes, min_size=1))),
    lang=st.sampled_from(["en", "zh"]),
    max_words=st.integers(1, 8),
)
def test_every_draft(
    labels: dict[str, list[str]], senses: list[Sense], lang: str, max_words: int
) -> None:
    found, missing = describe_labels(labels, senses, lang=lang, max_words=max_words)
    assert {*found} == {*labels, "O"}
    known = {sense.word.lower() for sense in senses}
    for label, own in labels.items():
        assert missing.get(label, []) == [word for word in own if word.lower() not in known]
        n_own = len({word.lower() for word in own})
        whole = describe_labels({label: own}, senses, lang=lang, max_words=100)[0][label]
        parts = whole.split("，" if lang == "zh" else ", ")
        assert found[label].split("，" if lang == "zh" else ", ") == parts[:max_words]
        assert len({part.lower() for part in parts}) == len(parts)
        counts = Counter(
            sememe.split("|")[-1 if lang == "zh" else 0]
            for sense in senses
            if sense.word.lower() in {word.lower() for word in own}
            for sememe in sense.sememes
        )
        order = [counts[part] for part in parts[n_own:]]
        assert order == sorted(order, reverse=True) and 0 not in order
        assert {part.lower() for part in parts} == {*map(str.lower, own), *counts}


SENSE_FILE = f"# HowNet\n{GREEN}\n{DOCTOR}\n地址 N place|地方,#name|姓名\n".encode()
LABEL_FILES = [
    json.dumps({"address": ["地址", "住址"], "PER": "doctor 人"}, ensure_ascii=False).encode(),
    json.dumps({"address": ["地址", "住址"], "PER": "doctor 人"}, indent=2).encode(),
    "# labels\naddress\t地址 住址\nPER\tdoctor\ncolor 绿色\n".encode(),
]


@pytest.mark.parametrize("what", ["sememes", "labels"])
def test_fuzz(path: Path, what: str) -> None:
    """Broken files are read, or an error names the file and the line."""
    n = 2000
    n_errors = 0
    for seed in range(n):
        rng = random.Random(seed)
        seed_file = SENSE_FILE if what == "sememes" else rng.choice(LABEL_FILES)
        content = mutate(seed_file, rng)
        path.write_bytes(content)
        report = Report()
        try:
            if what == "sememes":
                found, _ = describe_labels({"P": ["绿色", "doctor"]}, read_sememes(path, report))
            else:
                found, _ = describe_labels(read_labels(path), [])
        except CorpusError as err:
            n_errors += 1
            assert str(err).startswith(f"{path}:{err.line}: ") and err.line, (seed, content[:300])
        else:
            assert all(found.values()), (seed, content[:300])
            json.dumps(found, ensure_ascii=False).encode()
        for tally in report.skipped.values():
            assert all(place.startswith(f"{path}:") for place in tally.places)
    assert 0 < n_errors < n
