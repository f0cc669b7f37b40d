"""brat: real files' lines, what is skipped, repaired and ignored, folders, names, round trips."""

import os
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spacy_mtlner.formats import CharEntity, CorpusError, Record, Report
from spacy_mtlner.formats.brat import read_brat, write_brat
from tests.formats.test_docs import make, records

TEXT = "Pain in my shoulders, hips and feet"

# Each example of a property gets a folder of its own.
folders = map("{:06}".format, count())
any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_pair(folder: Path, text: str, *lines: str, name: str = "doc") -> Path:
    """Write a document's two files; returns the .ann."""
    (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / f"{name}.ann").write_bytes("".join(f"{line}\n" for line in lines).encode())
    return folder / f"{name}.ann"


def read(path: Path) -> tuple[list[Record], Report]:
    report = Report()
    return list(read_brat(path, report)), report


def read_one(folder: Path, text: str, *lines: str) -> tuple[list[tuple[str, str]], Report]:
    """The entities of one document as labels and texts, fragments joined by a bar."""
    (record,), report = read(write_pair(folder, text, *lines))
    return surfaces(record), report


def surfaces(record: Record) -> list[tuple[str, str]]:
    return [
        (label, "|".join(record.text[start:end] for start, end in fragments))
        for label, fragments in record.entities
    ]


def places(ann: Path, *lines: int) -> list[str]:
    return [f"{ann}:{line}" for line in lines]


def test_a_document(tmp_path: Path) -> None:
    ann = write_pair(
        tmp_path,
        TEXT,
        "T1\tADR 0 20\tPain in my shoulders",
        "T2\tADR 0 7;22 26\tPain in hips",
        "T3\tBody 11 20\tshoulders",
    )
    (record,), report = read(tmp_path)
    assert (record.text, record.path, record.line, record.document) == (TEXT, ann, 1, "doc")
    assert record.entities == (
        ("ADR", ((0, 20),)),
        ("ADR", ((0, 7), (22, 26))),
        ("Body", ((11, 20),)),
    )
    assert not report.skipped and not report.repaired and not report.ignored
    assert report.bytes_read == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "line, entity",
    [
        ("T1\tA 0 4", ("A", "Pain")),
        ("T1\tA 0 4\t", ("A", "Pain")),
        ("T1\tA 0 4\tPain\r", ("A", "Pain")),
        ("T1\t A   0  4 \t Pain ", ("A", "Pain")),
        ("T1\tA 0 7 ; 22 26\tPain in hips", ("A", "Pain in|hips")),
        ("T1\tA 0 7 ;22 26", ("A", "Pain in|hips")),
        ("T1\tA 22 26;0 7\thips Pain in", ("A", "Pain in|hips")),
        ("T1\tA 0 4;4 7\tPain  in", ("A", "Pain in")),
        ("T1\tSide effect 0 4\tPain", ("Side effect", "Pain")),
        ("T1\tA;B 0 4;22 26\tPain hips", ("A;B", "Pain|hips")),
        ("T1\t7 0 4\tPain", ("7", "Pain")),
        ("T1\tA 0 7\tPain \t in", ("A", "Pain in")),
        ("Tx\tA 0 4\tPain", ("A", "Pain")),
    ],
)
def test_lines_that_are_read(tmp_path: Path, line: str, entity: tuple[str, str]) -> None:
    entities, report = read_one(tmp_path, TEXT, "", " \t", line)
    assert entities == [entity]
    assert not report.skipped and not report.repaired


@pytest.mark.parametrize(
    "line, reason",
    [
        ("T1", "offsets cannot be read"),
        ("T1\tA", "offsets cannot be read"),
        ("T1\t\tPain", "offsets cannot be read"),
        ("T1\tA 0\tP", "offsets cannot be read"),
        ("T1\tA 0 4.0\tPain", "offsets cannot be read"),
        ("T1\tA 0 4,5 6\tPain", "offsets cannot be read"),
        ("T1\tA 0 four\tPain", "offsets cannot be read"),
        ("T1\tA 0 4;\tPain", "offsets cannot be read"),
        ("T1\tA x y;22 26\thips", "offsets cannot be read"),
        ("T1\tA 0 ٤\tPain", "offsets cannot be read"),
        (f"T1\tA 0 {'9' * 5000}\tPain", "offsets cannot be read"),
        ("T1 A 0 4 Pain", "offsets cannot be read"),
        ("T1\t0 4\tPain", "label is empty"),
        ("T1\tA 0 36\tPain", "offset outside the text"),
        (f"T1\tA 0 {'9' * 18}\tPain", "offset outside the text"),
        ("T1\tA -4 4\tPain", "offset outside the text"),
        ("T1\tA 4 0\tPain", "span ends where or before it starts"),
        ("T1\tA 4 4\tPain", "span ends where or before it starts"),
        ("T1\tA 4 5\t ", "nothing but white space"),
        ("T9\tGOOD 0 4\tPain", "duplicate of another entity"),
        ("T1\tA 1 5\tPain", "surface differs from the text"),
        ("T1\tA 0 4\tPain i", "surface differs from the text"),
        ("T1\tA 0 4;8 10\tPainmy", "surface differs from the text"),
        ("T1\tA 0 7\tPainin", "surface differs from the text"),
        ("X1\tA 0 4\tPain", "no brat annotation"),
        (" T1\tA 0 4\tPain", "no brat annotation"),
        ("\x00", "no brat annotation"),
        ("0 4 A", "no brat annotation"),
    ],
)
def test_lines_that_are_skipped(tmp_path: Path, line: str, reason: str) -> None:
    good = "T1\tGOOD 0 4\tPain"
    entities, report = read_one(tmp_path, TEXT, good, "", line, "T1\tALSO 22 26\thips")
    assert entities == [("GOOD", "Pain"), ("ALSO", "hips")]
    ann = tmp_path / "doc.ann"
    assert {reason: tally.places for reason, tally in report.skipped.items()} == {
        reason: places(ann, 3)
    }
    assert not report.repaired
    with pytest.raises(CorpusError, match=reason) as error:
        list(read_brat(tmp_path, Report(strict=True)))
    assert (error.value.path, error.value.line) == (ann, 3)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("T1\tA 0 5\tPain ", "white space trimmed"),
        ("T1\tA 0 4;2 7\tPain in in", "overlapping fragments joined"),
    ],
)
def test_lines_that_are_repaired(tmp_path: Path, line: str, reason: str) -> None:
    _, report = read_one(tmp_path, TEXT, "", line)
    assert [*report.repaired] == [reason]
    assert report.repaired[reason].places == places(tmp_path / "doc.ann", 2)


def test_what_is_no_entity(tmp_path: Path) -> None:
    entities, report = read_one(
        tmp_path,
        TEXT,
        "T1\tADR 0 4\tPain",
        "E1\tADR:T1",
        "R1\tPart Arg1:T1 Arg2:T1",
        "A1\tNegated T1",
        "M1\tSpeculated T1",
        "N1\tReference T1 MedDRA:10033371\tPain",
        "#1\tAnnotatorNotes T1\tsure?",
        "*\tEquiv T1 T1",
    )
    assert entities == [("ADR", "Pain")]
    assert not report.skipped
    lines = {
        "event": [2],
        "relation": [3],
        "attribute": [4, 5],
        "normalization": [6],
        "note": [7],
        "equivalence": [8],
    }
    ann = tmp_path / "doc.ann"
    assert {kind: tally.places for kind, tally in report.ignored.items()} == {
        kind: places(ann, *numbers) for kind, numbers in lines.items()
    }


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\u2028", " \n\t\n "])
def test_an_entity_over_lines(tmp_path: Path, line_end: str) -> None:
    text = f"in New{line_end}York"
    end = len(text)
    for place, surface in [(f"3 6;{end - 4} {end}", "New York"), (f"3 {end}", "New York")]:
        entities, report = read_one(tmp_path, text, f"T1\tLOC {place}\t{surface}")
        assert entities == [("LOC", f"New{line_end}York")]
        assert not report.skipped and not report.repaired


def test_offsets_count_characters(tmp_path: Path) -> None:
    text = "\ufeff😀 é\r\n北京 😀!"
    entities, report = read_one(tmp_path, text, "T1\tA 2 3\té", "T2\tB 5 9\t北京 😀")
    assert entities == [("A", "é"), ("B", "北京 😀")], "the byte order mark is no character"
    assert not report.skipped and not report.repaired


@pytest.mark.parametrize(
    "text, lines, reason, repaired",
    [
        (
            "ab，😀 cd 😀 ef",
            ["T1\tA 0 2\tab", "T2\tA 6 8\tcd", "T3\tA 6 8;12 14\tcd ef", "T4\tB 3 5"],
            "offsets counted in UTF-16",
            [2, 3, 4],
        ),
        (
            "ab\r\ncd😀\r\n\r\ngh",
            ["T1\tA 0 2\tab", "T2\tA 3 5\tcd", "T3\tA 0 2;8 10\tab gh", "T4\tB 5 6"],
            "offsets counted with one character per line end",
            [2, 3, 4],
        ),
    ],
)
def test_other_counts(
    tmp_path: Path, text: str, lines: list[str], reason: str, repaired: list[int]
) -> None:
    entities, report = read_one(tmp_path, text, *lines)
    last = lines[2].rpartition("\t")[2].replace(" ", "|")
    assert entities == [("A", "ab"), ("A", "cd"), ("A", last), ("B", "😀")]
    assert not report.skipped
    assert {reason: tally.places for reason, tally in report.repaired.items()} == {
        reason: places(tmp_path / "doc.ann", *repaired)
    }


def test_other_counts_reach_the_end(tmp_path: Path) -> None:
    """As characters are counted, the offsets lie behind the text."""
    for text in ("😀😀😀 ab", "\r\n\r\n\r\nab"):
        start = len(text.replace("\r\n", "\n").encode("utf-16-le")) // 2 - 2
        entities, report = read_one(tmp_path, text, f"T1\tA {start} {start + 2}\tab")
        assert entities == [("A", "ab")]
        assert not report.skipped


@pytest.mark.parametrize(
    "lines, n_skipped",
    [
        (["T1\tA 5 7", "T2\tA 0 2"], 0),  # No surface tells.
        (["T1\tA 6 8\tcd", "T2\tA 5 7\tcd"], 1),  # Each count has one that does not fit.
        (["T1\tA 6 8\tcd", "T2\tA 0 2\tba"], 2),
        (["T1\tA 6 8\tcd", "T2\tA 4 5\t😀"], 2),  # Between the two halves of a character.
        (["T1\tA 6 8\tcd", "T2\tA 0 4\tab 😀 cd e"], 2),
    ],
)
def test_other_counts_must_fit_all_surfaces(
    tmp_path: Path, lines: list[str], n_skipped: int
) -> None:
    _, report = read_one(tmp_path, "ab 😀 cd ef", *lines)
    assert report.skipped["surface differs from the text"].count == n_skipped
    assert not report.repaired


@given(text=st.text(), data=st.binary() | st.text("T1\t AB-05;9\n\r\x00a😀").map(str.encode))
@any_folder
def test_no_file_makes_another_error(tmp_path: Path, text: str, data: bytes) -> None:
    write_pair(tmp_path, text).write_bytes(data)
    try:
        records, _ = read(tmp_path)
    except CorpusError as error:
        assert "Not UTF-8" in str(error)
    else:
        assert len(records) == 1


def test_long_lines(tmp_path: Path) -> None:
    n = 200_000
    lines = [f"T1\tA {'0 1;' * n}x", f"T2\t{'A ' * n}0 1\ta", f"T3\tA 0 1\t{'a ' * n}", "x" * n]
    entities, report = read_one(tmp_path, "a b", *lines)
    assert entities == [(" ".join("A" * n), "a")]
    assert sum(tally.count for tally in report.skipped.values()) == 3


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a.2", "a", ".hidden"):
        write_pair(tmp_path, name, "T1\tA 0 1", name=name)
    (tmp_path / "annotation.conf").write_text("[entities]")
    (tmp_path / "a.a1").write_text("T1\tA 0 1")
    (tmp_path / "later.txt").write_text("not annotated")
    (tmp_path / "README.txt").write_text("about the corpus")
    (tmp_path / "lost.ann").write_text("T1\tA 0 1")
    (tmp_path / "more").mkdir()
    write_pair(tmp_path / "more", "c", name="c")
    found, report = read(tmp_path)
    assert [record.document for record in found] == ["a", "a.2", "b"]
    assert [record.text for record in found] == ["a", "a.2", "b"]
    assert {reason: tally.places for reason, tally in report.skipped.items()} == {
        "text without an .ann file": places(tmp_path / "later.txt", 1),
        "annotation without a .txt file": places(tmp_path / "lost.ann", 1),
    }
    assert {reason: tally.places for reason, tally in report.ignored.items()} == {
        "file about the corpus": places(tmp_path / "README.txt", 1),
    }


@pytest.mark.parametrize("suffix", [".txt", ".ann"])
def test_one_document(tmp_path: Path, suffix: str) -> None:
    ann = write_pair(tmp_path, "a", "T1\tA 0 1", name="a.b")
    write_pair(tmp_path, "c", name="c")
    (record,), _ = read(tmp_path / f"a.b{suffix}")
    assert record == Record("a", (CharEntity("A", ((0, 1),)),), ann, 1, "a.b")


@pytest.mark.parametrize(
    "files, path, place, message",
    [
        ([], ".", ".", "Holds no pairs of .txt and .ann files."),
        (["a.txt", "b.conf", ".c.txt", ".c.ann"], ".", ".", "Holds no pairs of .txt and .ann"),
        (["a.txt", "b.ann"], ".", ".", "Holds no pairs of .txt and .ann"),
        (["a.txt"], "a.txt", "a.txt", "There is no a.ann beside it."),
        (["a.ann"], "a.ann", "a.ann", "There is no a.txt beside it."),
        (["a.ann"], "a.txt", "a.txt", "Cannot be read: No such file"),
        ([], "a.ann", "a.ann", "Cannot be read: No such file"),
        ([], "folder", "folder", "Cannot be read: No such file"),
        (["a.json"], "a.json", "a.json", "Neither a folder nor a .txt or .ann file."),
    ],
)
def test_files_that_are_missing(
    tmp_path: Path, files: list[str], path: str, place: str, message: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("")
    with pytest.raises(CorpusError) as error:
        read(tmp_path / path)
    assert str(error.value).startswith(f"{tmp_path / place}: {message}")


@pytest.mark.parametrize("suffix, line", [(".txt", 2), (".ann", 2)])
def test_not_utf8(tmp_path: Path, suffix: str, line: int) -> None:
    path = write_pair(tmp_path, "a\n").with_suffix(suffix)
    path.write_bytes("#1\nT1\té".encode("latin-1"))
    with pytest.raises(CorpusError) as error:
        read(tmp_path)
    assert str(error.value).startswith(f"{path}:{line}: Not UTF-8.")


def test_a_file_name_that_is_no_unicode(tmp_path: Path) -> None:
    try:
        write_pair(tmp_path, "a", name=os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system has Unicode names only")
    (record,), _ = read(tmp_path)
    assert record.document == "caf?"


# Letters, and between them what ends a line or a column, here or there.
LINE_ENDS = "a".join(["", *"\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029", ""])


@given(corpus=st.lists(records(), min_size=1, max_size=3))
@example(corpus=[make(LINE_ENDS, ("A", ((0, len(LINE_ENDS)),)))])
@any_folder
def test_round_trip(tmp_path: Path, corpus: list[Record]) -> None:
    path = tmp_path / next(folders)
    corpus = [replace(record, document=f"Tom's dog, {i}.é") for i, record in enumerate(corpus)]
    counts, report = Report(), Report()
    write_brat(iter(corpus), path, counts)
    assert counts.docs == len(corpus)
    assert counts.entities.total() == sum(len(record.entities) for record in corpus)
    assert not counts.lost
    again = list(read_brat(path, report))
    assert again == [
        replace(record, path=path / f"{record.document}.ann", line=1) for record in corpus
    ]
    assert not report.skipped and not report.repaired and not report.ignored
    for record in corpus:
        check_by_brats_rules((path / f"{record.document}.ann").read_text("utf-8"), record.text)


def check_by_brats_rules(content: str, text: str) -> None:
    """A line for each entity, its surface just what the text has, fragments apart from each other.

    brat ends a line where `str.splitlines` does.
    """
    for number, line in enumerate(content.splitlines(), start=1):
        name, place, surface = line.split("\t")
        assert name == f"T{number}"
        label, offsets = place.split(" ", 1)
        assert label in ("A", "B")
        spans = [[int(offset) for offset in span.split(" ")] for span in offsets.split(";")]
        assert surface == " ".join(text[start:end] for start, end in spans)
        flat = [offset for span in spans for offset in span]
        assert flat == sorted(set(flat))


def test_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    text = "New\r\n\tYork \tCity\u00a0is \x0b big"
    record = make(text, ("LOC", ((0, 16),)), ("A B", ((6, 16), (22, 25))), ("LOC", ((6, 19),)))
    report = Report()
    write_brat([record, make("")], path, report)
    assert {file.name: file.read_bytes().decode() for file in path.iterdir()} == {
        "000001.txt": text,
        "000001.ann": (
            "T1\tLOC 0 3;6 10;12 16\tNew York City\n"
            "T2\tA_B 6 10;12 16;22 25\tYork City big\n"
            "T3\tLOC 6 10;12 19\tYork City\u00a0is\n"
        ),
        "000002.txt": "",
        "000002.ann": "",
        "annotation.conf": (
            "[entities]\nA_B\nLOC\n\n"
            "[relations]\n<OVERLAP>\tArg1:<ENTITY>, Arg2:<ENTITY>, <OVL-TYPE>:<ANY>\n\n"
            "[events]\n\n[attributes]\n"
        ),
    }
    assert (report.docs, report.entities) == (2, {"LOC": 2, "A B": 1})
    assert [*report.lost] == ["white space in a label, written as _"]


@pytest.mark.parametrize(
    "label, written",
    [
        ("side effect", "side_effect"),
        (" \t\nA\u3000", "___A_"),
        ("A\x00\x7f\x9f", "A___"),
        ("A;", "A_"),
        (";", "_"),
    ],
)
def test_labels_that_brat_cannot_hold(tmp_path: Path, label: str, written: str) -> None:
    path = tmp_path / "corpus"
    record = make("a b c", (label, ((0, 1),)), ("B", ((0, 1),)), (label, ((0, 1), (4, 5))))
    report = Report()
    write_brat([record], path, report)
    tally = report.lost["white space in a label, written as _"]
    assert (tally.count, tally.places[0]) == (2, "corpus:7")
    (again,), _ = read(path)
    assert surfaces(again) == [(written, "a"), ("B", "a"), (written, "a|c")]


@pytest.mark.parametrize("label", ["人名", "B-PER", "A;B", "9", "a.b:c/d", "#1", "{labels}"])
def test_labels_that_brat_can_hold(tmp_path: Path, label: str) -> None:
    path = tmp_path / "corpus"
    report = Report()
    write_brat([make("a b", (label, ((0, 1),)), (label, ((2, 3),)))], path, report)
    (again,), _ = read(path)
    assert surfaces(again) == [(label, "a"), (label, "b")]
    assert not report.lost
    assert f"\n{label}\n" in (path / "annotation.conf").read_text("utf-8")


@pytest.mark.parametrize("text", ["\ufeff", "\ufeffab", "\ufeff\ufeff\r\n", "\ufffe"])
def test_a_text_that_begins_with_a_byte_order_mark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "corpus"
    write_brat([make(text)], path, Report())
    (again,), _ = read(path)
    assert again.text == text


def test_names_of_documents(tmp_path: Path) -> None:
    names = {
        "a/b\\c:d": "a_b_c_d",
        "..": "_.",
        ".hidden": "_hidden",
        'x\n\0\x7f<>"|?*': "x_________",
        "con.ann": "con.ann",
        "北" * 100: "北" * 66,
        "a" * 1000: "a" * 200,
        "half \ud83d": "half _",
        None: "000009",
        "": "000010",
    }
    path = tmp_path / "corpus"
    write_brat((replace(make("a"), document=name) for name in names), path, Report())
    assert {file.stem for file in path.glob("*.txt")} == {*names.values()}
    found, _ = read(path)
    assert {record.document for record in found} == {*names.values()}


def test_records_of_one_document(tmp_path: Path) -> None:
    documents = [
        "a",
        "a-000002",
        "a",
        "A",
        "a-000002",
        "e\u0301",
        "\u00e9",
        "ß",
        "ss",
        None,
        "000010",
    ]
    path = tmp_path / "corpus"
    write_brat(
        (replace(make(f"{i}"), document=name) for i, name in enumerate(documents)), path, Report()
    )
    assert {file.stem: file.read_text() for file in path.glob("*.txt")} == {
        "a": "0",
        "a-000002": "1",
        "a-000003": "2",
        "A-000004": "3",
        "a-000002-000002": "4",
        "e\u0301": "5",
        "\u00e9-000002": "6",
        "ß": "7",
        "ss-000002": "8",
        "000010": "9",
        "000010-000002": "10",
    }
    found, _ = read(path)
    assert len(found) == len(documents)


def test_many_records_of_one_document_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    texts = [str(i) for i in range(1200)]
    write_brat((replace(make(text), document="novel") for text in texts), path, Report())
    assert [record.text for record in read(path)[0]] == texts


def test_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_brat([], tmp_path, Report())


def read_layers(path: Path) -> tuple[list[str], list[tuple[str, int, int]]]:
    """The tokens of LitBank's columns, and the entities of its layers of BIO tags over them."""
    tokens: list[str] = []
    entities: list[tuple[str, int, int]] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.rstrip("\t").split("\t") for line in block.splitlines()]
        for layer in [*zip(*rows, strict=True)][1:]:
            for i, tag in enumerate(layer):
                if tag.startswith("B-"):
                    inside = f"I-{tag[2:]}"
                    n = sum(1 for _ in takewhile(inside.__eq__, layer[i + 1 :]))
                    entities.append((tag[2:], len(tokens) + i, len(tokens) + i + 1 + n))
        tokens += (row[0] for row in rows)
    return tokens, entities


@pytest.mark.parametrize(
    "part, n_docs, n_entities, n_inside_tokens", [("train", 80, 11164, 18), ("dev", 10, 1422, 2)]
)
def test_litbank(
    data_dir: Path, part: str, n_docs: int, n_entities: int, n_inside_tokens: int
) -> None:
    """The same entities as its columns have, but for those that begin or end inside a token.

    In `train` nine lack their last letter, one a full stop, and eight are a part of a token with a
    hyphen or dash, as both of `dev` are. The columns have the whole token.
    """
    report = Report()
    found = list(read_brat(data_dir / "litbank/brat" / part, report))
    assert (len(found), sum(len(record.entities) for record in found)) == (n_docs, n_entities)
    assert not report.skipped and not report.repaired and not report.ignored
    n_widened = 0
    for record in found:
        tokens, expected = read_layers(data_dir / f"litbank/tsv/{part}/{record.document}.tsv")
        assert "".join(record.text.split()) == "".join(tokens)
        # The token of each character that is no white space, in order.
        owners = [i for i, token in enumerate(tokens) for _ in token]
        widened = []
        for label, ((start, end),) in record.entities:
            first = len("".join(record.text[:start].split()))
            last = first + len("".join(record.text[start:end].split())) - 1
            widened.append((label, owners[first], owners[last] + 1))
            n_widened += owners[first - 1 : first] == [owners[first]]
            n_widened += owners[last + 1 : last + 2] == [owners[last]]
        assert sorted(widened) == sorted(expected)
    assert n_widened == n_inside_tokens


def test_litbank_round_trip(data_dir: Path, tmp_path: Path) -> None:
    folder, path = data_dir / "litbank/brat/dev", tmp_path / "corpus"
    found, _ = read(folder)
    write_brat(found, path, Report())
    again, report = read(path)
    assert again == [replace(record, path=path / record.path.name) for record in found]
    assert not report.skipped and not report.repaired
