"""Which files of a folder are read, as what, and what is counted as not read."""

from pathlib import Path

import pytest

from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.base import is_about_corpus
from spacy_mtlner.formats.files import Source, find_sources

COLUMNS = "Ada B-PER\nmet O\n"
FOUND = {"separator": None, "token_column": 0, "tag_columns": [1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "README.md": "text",
        ".hidden.jsonl": "{}",
        ".git/x.jsonl": "{}",
        "train.jsonl": '{"text": "a", "entities": []}\n',
        "b/dev.conll": COLUMNS,
        "b/notes.docx": "text",
        "c/annotation.conf": "[entities]",
        "c/d1.ann": "T1\tPER 0 3\tAda\n",
        "c/d1.txt": "Ada met Bob",
        "c/more.conll": COLUMNS,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_auto(folder: Path) -> None:
    report = Report()
    assert find_sources(folder, "auto", report) == [
        Source(folder / "train.jsonl", "jsonl"),
        Source(folder / "b/dev.conll", "columns", FOUND, "b/"),
        Source(folder / "c", "brat", {}, "c/"),
        Source(folder / "c/more.conll", "columns", FOUND, "c/"),
    ]
    assert report.skipped["file of no known format"].places == [f"{folder / 'b/notes.docx'}:1"]
    assert report.ignored["file about the corpus"].count == 1
    with pytest.raises(CorpusError, match="file of no known format"):
        find_sources(folder, "auto", Report(strict=True))


def test_links(tmp_path: Path) -> None:
    """Linked folders are read whole; what is not there is counted; none is read for ever."""
    real, corpus = tmp_path / "real", tmp_path / "corpus"
    for name in ("real/x.conll", "real/deep/y.conll", "corpus/z.conll"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(COLUMNS)
    (corpus / "linked").symlink_to(real, target_is_directory=True)
    (corpus / "back").symlink_to(corpus, target_is_directory=True)
    (corpus / "lost.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    report = Report()
    found = [source.path for source in find_sources(corpus, "auto", report)]
    names = ["z.conll", "linked/x.conll", "linked/deep/y.conll"]
    assert found == [corpus / name for name in names]
    places = report.skipped["link to what is not there"].places
    assert places == [f"{corpus / 'lost.jsonl'}:1"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("README", "readme.zh.md", "LICENSE-MIT", "NOTICES.txt")),
        *((name, False) for name in ("about_a_boy.jsonl", "noticed.txt", "licensing.tsv")),
    ],
)
def test_files_about_a_corpus(name: str, expected: bool) -> None:
    assert is_about_corpus(Path("folder") / name) is expected


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("b/x.conll", "Zoë B-PER\n".encode("latin-1"), "x.conll:1: Not UTF-8. Convert"),
        ("b/x.tsv", "Zoë\tB-PER\n".encode("latin-1"), "x.tsv:1: Not UTF-8. Convert"),
        ("x.csv", b"token,tag\nAda,B-PER\n", "x.csv:1: Looks like a header"),
        (
            "x.jsonl",
            b'{"text": "a", "entities": [{]}\n',
            "x.jsonl:1: Its format cannot be told: N",
        ),
        (
            "x.jsonl",
            b'{"text": "a", "spans": []}\n',
            "x.jsonl:1: Its format cannot be told: an obj",
        ),
        ("x.bio", b"Ada\nmet\n", "x.bio: Its format cannot be told. Name it"),
    ],
)
def test_a_corpus_is_not_passed_over(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CorpusError) as error:
        find_sources(folder, "auto", Report())
    assert message in str(error.value)


@pytest.mark.parametrize(
    "name, content, reason, line",
    [
        ("x.json", b'\n{"x": 1}', "Its format cannot be told: an object with the keys 'x'", 2),
        ("x.json", b"{\n}", "Its format cannot be told: Not JSON (.*, column 2)", 1),
        ("x.txt", b"notes\n", "Its format cannot be told", 1),
        ("x.conll", b"", "Is empty: its format cannot be told", 1),
    ],
)
def test_other_files_are_skipped_with_the_reason(
    folder: Path, name: str, content: bytes, reason: str, line: int
) -> None:
    (folder / name).write_bytes(content)
    report = Report()
    assert len(find_sources(folder, "auto", report)) == 4
    del report.skipped["file of no known format"]  # Of another suffix.
    ((found, tally),) = report.skipped.items()
    assert found.startswith("file of no known format: " + reason.split(".*")[0])
    assert found.endswith(reason.split(".*")[-1])
    assert tally.places == [f"{folder / name}:{line}"]


@pytest.mark.parametrize(
    "format_name, names, n_ignored",
    [
        ("brat", ["c"], 5),
        ("columns", ["b/dev.conll", "c/d1.txt", "c/more.conll"], 5),
        ("jsonl", ["train.jsonl"], 7),
    ],
)
def test_one_format(folder: Path, format_name: str, names: list[str], n_ignored: int) -> None:
    report = Report()
    sources = find_sources(folder, format_name, report)
    assert [str(source.path.relative_to(folder)) for source in sources] == names
    assert {source.format for source in sources} == {format_name}
    assert sum(tally.count for tally in report.ignored.values()) == n_ignored


def test_one_file_is_taken_as_it_is(folder: Path) -> None:
    report = Report()
    assert find_sources(folder / "README.md", "jsonl", report) == [
        Source(folder / "README.md", "jsonl")
    ]
    assert not report.ignored


def test_nothing_found(folder: Path) -> None:
    with pytest.raises(CorpusError, match="Holds no files of a format 'genia'"):
        find_sources(folder, "genia", Report())
    (folder / "empty").mkdir()
    with pytest.raises(CorpusError, match="Holds no files of a known format"):
        find_sources(folder / "empty", "auto", Report())
    (folder / "empty/x.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"Skipped: .*: an empty object \(.*x\.json:1\)\."):
        find_sources(folder / "empty", "auto", Report())
    with pytest.raises(CorpusError, match=r"none\.jsonl: Cannot be read"):
        find_sources(folder / "none.jsonl", "auto", Report())


@pytest.mark.parametrize(
    "name, expected",
    [
        ("train.jsonl", "train"),
        ("emerging.dev.conll", "emerging.dev"),
        ("example.train", "example.train"),
        ("corpus", "corpus"),
    ],
)
def test_name(name: str, expected: str) -> None:
    assert Source(Path("folder") / name, "columns").name == expected


def test_size(folder: Path) -> None:
    assert Source(folder / "c", "brat").size == Source(folder / "c/d1.ann", "brat").size == 15 + 11
    assert Source(folder / "b/dev.conll", "columns").size == len(COLUMNS)
