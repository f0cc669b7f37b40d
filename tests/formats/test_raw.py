"""Texts of corpora of any format, annotated or not."""

import json
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.raw import read_raw, read_raw_docs


@pytest.fixture
def nlp() -> Language:
    return spacy.blank("en")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, nlp: Language) -> list[str]:
    return [doc.text for doc in read_raw_docs(path, nlp, Report())]


def write_docbin(path: Path, nlp: Language, *texts: list[str]) -> Path:
    DocBin(docs=[Doc(nlp.vocab, words=words) for words in texts]).to_disk(path)
    return path


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.txt", "\ufefffirst text\r\n\n  second \n", ["first text", "second"]),
        ("a.jsonl", '{"text": "a b"}\n\n{"text": ""}\n{"text": "c", "x": 1}', ["a b", "c"]),
        ("a.json", '{"text": "a", "entities": [{"label": "no spans"}]}', ["a"]),
        ("a.ndjson", '{"text": "a", "label": {"X": {"a": [[0, 0]]}}}', ["a"]),
        ("a.conll", "Ada B-PER\nran O\n\nHe O\n", ["Ada ran", "He"]),
        ("a.txt", "Ada\tB-PER\nran\tO\n", ["Ada ran"]),
        ("a.dat", '{"text": "a b", "entities": []}', ["a b"]),
    ],
)
def test_texts(tmp_path: Path, nlp: Language, name: str, content: str, expected: list[str]) -> None:
    assert read(write(tmp_path / name, content), nlp) == expected


def test_docs_keep_their_tokens(tmp_path: Path, nlp: Language) -> None:
    """They need no annotation."""
    path = write_docbin(tmp_path / "a.spacy", nlp, ["New York", "is"], [])
    docs = list(read_raw_docs(path, nlp, Report()))
    assert [[token.text for token in doc] for doc in docs] == [["New York", "is"], []]
    assert docs[0].vocab is nlp.vocab and docs[0][0].lower_ == "new york"


def test_texts_beside_annotation(tmp_path: Path, nlp: Language) -> None:
    write(tmp_path / "a.ann", "T1\tA 0 9\ttoo far\n")
    assert read(write(tmp_path / "a.txt", "text O\nO\n"), nlp) == ["text O", "O"]


def test_folder(tmp_path: Path, nlp: Language) -> None:
    folder = tmp_path / "corpus"
    write(folder / "b.txt", "second")
    write(folder / "inner" / "c.jsonl", '{"text": "third"}')
    write_docbin(folder / "a.spacy", nlp, ["first"])
    write(folder / "README.txt", "about")
    write(folder / "x.ann", "T1\tA 0 1\tx\n")
    write(folder / ".hidden" / "d.txt", "hidden")
    write(folder / "code.py", "import this")
    write(tmp_path / "elsewhere" / "e.txt", "linked")
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "lost.txt").symlink_to(tmp_path / "nowhere.txt")
    report = Report()
    texts = [doc.text.strip() for doc in read_raw_docs(folder, nlp, report)]
    assert texts == ["first", "second", "third", "linked"]
    assert report.ignored.keys() == {"file about the corpus"}
    lost = report.skipped["link to what is not there"].places
    assert lost == [f"{folder / 'lost.txt'}:1"]
    assert report.skipped["file of no known format"].places == [f"{folder / 'code.py'}:1"]


def test_a_corpus_of_a_folder_is_not_passed_over(tmp_path: Path, nlp: Language) -> None:
    write(tmp_path / "a.txt", "first")
    (tmp_path / "b.conll").write_bytes("schön O\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"b\.conll:1: Not UTF-8\. Convert the file"):
        read(tmp_path, nlp)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", "", "a.txt: Holds no text. Raw text is a .txt file"),
        ("a.txt", " \n\n", "a.txt: Holds no text"),
        ("a.jsonl", '{"text": ""}', "a.jsonl: Holds no text"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}', "a.jsonl:2: Raw text is a .txt file"),
        ("a.jsonl", '{"text": "a"}\n["text"]', "a.jsonl:2: Raw text is"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: Raw text is"),
        ("a.py", "import this", "a.py: Its format cannot be told. Raw text is"),
        ("a.spacy", "text", "a.spacy: Not a .spacy file"),
        ("none/a.py", "", "none: Holds no text"),
    ],
)
def test_errors(tmp_path: Path, nlp: Language, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(CorpusError) as error:
        read(tmp_path / name.split("/")[0] if "/" in name else path, nlp)
    assert message in str(error.value)


def test_missing_file(tmp_path: Path, nlp: Language) -> None:
    with pytest.raises(CorpusError, match="there is no such file or folder"):
        read(tmp_path / "a.txt", nlp)


def test_not_utf8(tmp_path: Path, nlp: Language) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("good\nschön".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"a\.txt:2: Not UTF-8"):
        read(path, nlp)


def test_read_raw_counts_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f"{json.dumps({'text': 'a'})}\n")
    report = Report()
    assert [*read_raw(path, report)] == ["a"]
    assert report.bytes_read == path.stat().st_size


def test_half_a_surrogate_pair_is_skipped(tmp_path: Path, nlp: Language) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "good"}\n{"text": "\\ud83d"}\n')
    report = Report()
    assert [doc.text for doc in read_raw_docs(path, nlp, report)] == ["good"]
    assert report.skipped["record with half a surrogate pair"].places == [f"{path}:2"]
