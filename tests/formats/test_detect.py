"""Every format is told by its first lines; columns by their cells."""

import json
from pathlib import Path
from typing import Any

import pytest

from spacy_mtlner.formats import CorpusError, Report, read_corpus
from spacy_mtlner.formats.base import UnknownFormatError
from spacy_mtlner.formats.detect import detect_columns, detect_format

INTERCHANGE = '{"text": "Ada", "entities": [{"label": "PER", "spans": [[0, 3]]}]}\n'
CLUENER = '{"text": "Ada", "label": {"name": {"Ada": [[0, 2]]}}}\n'
CBLUE = json.dumps([{"text": "Ada", "entities": [{"start_idx": 0, "end_idx": 2, "type": "x"}]}])
GENIA = '<?xml version="1.0"?>\n<set><article><title><sentence>a</sentence></title></article></set>'


@pytest.mark.parametrize(
    "content, name",
    [
        (INTERCHANGE, "jsonl"),
        ("\ufeff\n" + INTERCHANGE, "jsonl"),
        ('{"text": "a", "entities": []}\n', "jsonl"),
        (CLUENER, "cluener"),
        (CBLUE, "cmeee"),
        (json.dumps(json.loads(CBLUE), indent=2), "cmeee"),
        ("no entity|||\nfever|||0    4    sym|||\n", "cmeee"),
        (GENIA, "genia"),
        ("[病因]不明|||1    2    sym|||\n", "cmeee"),
        ("<user>\tO\n|||\tO\nAda\tB-PER\n", "columns"),
        ("Ada\tB-PER\nmet\tO\n", "columns"),
    ],
)
def test_content(tmp_path: Path, content: str, name: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(content, encoding="utf-8")
    found, options = detect_format(path)
    assert found == name
    assert list(read_corpus(path, found, Report(), lang="en", **options))


def test_names(tmp_path: Path) -> None:
    assert detect_format(tmp_path) == ("brat", {})
    assert detect_format(tmp_path / "a.ann") == ("brat", {})
    assert detect_format(tmp_path / "a.spacy") == ("spacy", {})
    (tmp_path / "a.ann").touch()
    (tmp_path / "a.txt").write_text("Ada B-PER\n")
    assert detect_format(tmp_path / "a.txt") == ("brat", {})


@pytest.mark.parametrize(
    "content", ["", "\n \n", "A text.\nNo tags.\n", '{"x": 1}\n', "a\tb\nc\td\n"]
)
def test_what_cannot_be_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(content)
    with pytest.raises(UnknownFormatError, match=r"corpus\.txt(:1)?: .*format cannot be told"):
        detect_format(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ('\n{"text": "a", "label": [[0, 1, "X"]]}\n', ":2: .*object with the keys 'text', 'label'"),
        ("{}\n", ":1: .*an empty object"),
        ('[{"text": "a", "entities": []}]\n', ":1: .*a JSON list"),
        ('{\n "text": "a"\n}\n', r":1: .*Not JSON \(Expecting property name.*, column 2\)\. Exp"),
        ("[" * 100_000, ":1: .*Not JSON"),
    ],
)
def test_other_json(tmp_path: Path, content: str, message: str) -> None:
    """What is there, where, and what is expected: no word about columns."""
    path = tmp_path / "corpus.jsonl"
    path.write_text(content)
    with pytest.raises(UnknownFormatError, match=r"corpus\.jsonl" + message) as error:
        detect_format(path)
    assert error.value.hint.startswith('Expected {"text": str, "entities": [{"label": str')
    assert "olumn" not in error.value.hint


def test_a_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text("Word,POS,Tag\nAda,NNP,B-PER\nmet,VBD,O\n")
    with pytest.raises(CorpusError, match=r"corpus\.csv:1: Looks like a header"):
        detect_format(path)


def test_a_file_beside_brat_files(tmp_path: Path) -> None:
    (tmp_path / "a.ann").touch()
    (tmp_path / "a.jsonl").write_text(INTERCHANGE)
    assert detect_format(tmp_path / "a.jsonl") == ("jsonl", {})


def options(separator: str | None, token: int, *tags: int, **others: Any) -> dict[str, Any]:
    return {"separator": separator, "token_column": token, "tag_columns": [*tags], **others}


MULTICONER = options(None, 0, 3, comment="#")


@pytest.mark.parametrize(
    "rows, expected",
    [
        ("Ada B-PER|met O", options(None, 0, 1)),
        ("Ada\tB-PER|New York\tB-LOC", options("\t", 0, 1)),
        ("Ada,B-PER|met,O", options(",", 0, 1)),
        ("Ada;S-PER|met;O", options(";", 0, 1)),
        ('"Smith, John",B-PER|met,O', options(",", 0, 1)),
        ('"Ada","B-PER"|"met","O"', options(",", 0, 1)),
        ("B-PER\tAda|O\tmet", options("\t", 1, 0)),
        # CoNLL-2003: parts of speech and phrases stand between.
        ("-DOCSTART- -X- -X- O||EU NNP B-NP B-ORG|rejects VBZ B-VP O", options(None, 0, 3)),
        ("EU NNP B-NP|rejects VBZ B-VP", options(None, 0, 2)),
        # LitBank: layers.
        ("a\tB-PER\tO\tO|man\tI-PER\tB-X\tO", options("\t", 0, 1, 2, 3)),
        # GermEval 2014: comments, and numbers of tokens.
        (
            "#\thttp://x\t[2009]|1\tAda\tB-PER\tO|2\t1984\tO\tO||#\thttp://y\t[2009]|1\tx\tO\tO",
            options("\t", 1, 2, 3, comment="#"),
        ),
        # A comment may have as many cells, but no tags there.
        ("# id 7 domain=en|the _ _ O|ada _ _ B-PER||# id 8|#ai _ _ B-X", MULTICONER),
        ("Ada\tB-PER|# text = x\ty|#NLP\tB-ORG", options("\t", 0, 1, comment="#")),
        ("#Apple\tB-ORG|rocks\tO|#NewYork\tB-LOC", options("\t", 0, 1)),
        ("#a\tB-X|#b\tO", options("\t", 0, 1)),
        ("#\tO|1\tO|2\tB-X", options("\t", 0, 1)),
        ("# x|a\tO|b\tB-X|#c\tB-X,B-Y", options("\t", 0, 1, tag_separator=",", comment="#")),
        # Weibo: a digit of segmentation.
        ("科0\tO|技1\tB-ORG.NOM", options("\t", 0, 1, segmentation_digit=True)),
        # Several labels in a cell.
        ("flu\tB-DIS,B-SYM|is\tO", options("\t", 0, 1, tag_separator=",")),
        ("#\tO|1\tO|tag\tB-X", options("\t", 0, 1)),
        ("a1\tO|b2\tB-X", options("\t", 0, 1)),
        ("a b c|d e f", None),
    ],
)
def test_columns(rows: str, expected: dict[str, Any] | None) -> None:
    assert detect_columns(rows.split("|")) == expected


def test_several_tags_are_separated_by_bars() -> None:
    assert detect_columns(["a B-X|I-Y", "b O"]) == options(None, 0, 1, tag_separator="|")


def test_a_broken_line_is_left_to_the_reader() -> None:
    rows = ["a\tO", "b\tB-X", "", "c"]
    assert detect_columns(rows) == options("\t", 0, 1)


@pytest.mark.parametrize(
    "path, name",
    [
        ("bc5cdr/train.tsv", "columns"),
        ("cluener/dev.json", "cluener"),
        ("cmeee/dev.txt", "cmeee"),
        ("genia/genia5.dev.jsonl", "jsonl"),
        ("litbank/brat/dev", "brat"),
        ("msra/dev.bio", "columns"),
        ("ncbi_disease/devel.tsv", "columns"),
        ("peoples_daily/example.dev", "columns"),
        ("wnut17/emerging.dev.conll", "columns"),
    ],
)
def test_real_corpora(data_dir: Path, path: str, name: str) -> None:
    found, columns = detect_format(data_dir / path)
    assert found == name
    assert {*columns} - {"separator", "token_column", "tag_columns"} == set()


@pytest.mark.parametrize(
    "rows, token_column",
    [
        ("doc1\tAda\tB-PER\ndoc1\tmet\tO\n\ndoc1\tBob\tB-PER\n", 1),
        ("7\tAda\tB-PER\n8\tmet\tO\n\n9\tBob\tB-PER\n", 1),
        ("1-2\tdu\tO\n1\tde\tO\n2\tle\tO\n3\tAda\tB-PER\n", 1),
        ("0:3\tAda\tB-PER\n4:7\tmet\tO\n", 1),
        ("Sentence: 1,Ada,NNP,B-PER\n,met,VB,O\nSentence: 2,Bob,NNP,B-PER\n", 1),
        ("Ada\tNNP\tada\tB-PER\nmet\tVB\tmeet\tO\n", 0),
        ("1984\tB-DATE\n5\tO\n", None),
    ],
)
def test_columns_about_tokens_are_no_tokens(rows: str, token_column: int | None) -> None:
    found = detect_columns(rows.splitlines())
    assert (found and found["token_column"]) == token_column
