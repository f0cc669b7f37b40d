"""Columns: layouts, schemes, joining, grouping, what is skipped and repaired, errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs.tags import read_tags
from spacy_mtlner.formats import CorpusError, Record, Report, read_corpus, read_docs
from spacy_mtlner.formats.columns import read_columns

NLP = {lang: spacy.blank(lang) for lang in ("en", "zh")}

# Neither line breaks nor what separates columns by default; anything else can stand in a token.
tokens = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\t \ufeff"), min_size=1, max_size=3
).filter(lambda token: not token.isspace() and not token.startswith("-DOCSTART-"))
tags = st.just("O") | st.builds("{}-{}".format, st.sampled_from("BIMLEUSW"), st.sampled_from("XY"))
sentences = st.lists(st.tuples(tokens, tags), min_size=1, max_size=8)


def read(path: Path, text: str, **options: Any) -> tuple[list[Record], Report]:
    path.write_bytes(text.encode())
    report = Report()
    return list(read_columns(path, report, **options)), report


def read_one(path: Path, text: str, **options: Any) -> tuple[str, list[tuple[str, str]]]:
    """The text and the entities' labels and texts of a file with one record."""
    (record,), _ = read(path, text, **options)
    return record.text, surfaces(record)


def surfaces(record: Record) -> list[tuple[str, str]]:
    return [(label, record.text[slice(*fragments[0])]) for label, fragments in record.entities]


def column(words: str, tags: str) -> str:
    return "".join(f"{w}\t{t}\n" for w, t in zip(words.split(), tags.split(), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corpus.conll"


@given(corpus=st.lists(sentences, max_size=4), lang=st.sampled_from(["en", "zh"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tags(path: Path, corpus: list[list[tuple[str, str]]], lang: str) -> None:
    text = "\n\n".join("\n".join("\t".join(row) for row in rows) for rows in corpus)
    records, report = read(path, text, lang=lang)
    joiner = {"en": " ", "zh": ""}[lang]
    assert [record.text for record in records] == [joiner.join(t for t, _ in s) for s in corpus]
    for record, rows in zip(records, corpus, strict=True):
        expected = [
            (label, joiner.join(token for token, _ in rows[start:end]).strip())
            for label, start, end in read_tags([tag for _, tag in rows])
        ]
        assert surfaces(record) == expected
    assert not report.skipped
    docs = read_docs(records, NLP[lang].make_doc, report)
    assert [doc.text for doc in docs] == [record.text for record in records]


@pytest.mark.parametrize(
    "tags",
    [
        "B-LOC I-LOC O B-PER O",
        "I-LOC I-LOC O I-PER O",
        "B-LOC L-LOC O U-PER O",
        "B-LOC E-LOC O S-PER O",
        "B-LOC E-LOC O W-PER O",
    ],
)
def test_legal_sequences_of_all_schemes(path: Path, tags: str) -> None:
    (record,), report = read(path, column("New York with Ann .", tags))
    assert record.text == "New York with Ann ."
    assert surfaces(record) == [("LOC", "New York"), ("PER", "Ann")]
    assert not report.repaired


def test_iob1_beginnings_stand_behind_their_own_label(path: Path) -> None:
    (record,), report = read(path, column("a b c d", "I-A B-A I-B I-A"))
    assert surfaces(record) == [("A", "a"), ("A", "b"), ("B", "c"), ("A", "d")]
    assert not report.repaired


@pytest.mark.parametrize(
    "tags, repaired",
    [
        ("B-A O I-A I-B O", {"entity without a beginning tag": [3, 4]}),
        ("B-A E-A B-A M-A O", {"entity without an ending tag": [3]}),
        ("S-A M-A O B-A O", {
            "entity without a beginning tag": [2], "entity without an ending tag": [2, 4]
        }),
    ],
)  # fmt: skip
def test_illegal_sequences(path: Path, tags: str, repaired: dict[str, list[int]]) -> None:
    (_,), report = read(path, column("a b c d e", tags))
    assert {reason: tally.places for reason, tally in report.repaired.items()} == {
        reason: [f"{path}:{line}" for line in lines] for reason, lines in repaired.items()
    }


@pytest.mark.parametrize("separator, given_as", [("\t", None), (" \t  ", ""), ("||", "||")])
@pytest.mark.parametrize("tag_column", [-2, 1])
def test_layouts(path: Path, separator: str, given_as: str | None, tag_column: int) -> None:
    rows = [("EU", "B-ORG", "NNP"), ("rejects", "O", "VBZ"), ("Fischler", "B-PER", "NNP")]
    text = "\n".join(separator.join(row) for row in rows)
    assert read_one(path, text, separator=given_as, tag_column=tag_column) == (
        "EU rejects Fischler",
        [("ORG", "EU"), ("PER", "Fischler")],
    )


def test_a_separator_leaves_blanks_in_tokens(path: Path) -> None:
    text = "New York\tB-LOC\nis\tO\n"
    assert read_one(path, text, separator="\t") == ("New York is", [("LOC", "New York")])


def test_real_sentence_borders(path: Path) -> None:
    """WNUT's blank lines hold a tab, CoNLL's files have document starts, others CR LF and BOM."""
    text = "\ufeff-DOCSTART- -X- O\r\n\r\na O\r\n\t\r\nb O\r\n-DOCSTART- O\r\nc O\r\n\r\n\r\n"
    records, report = read(path, text)
    assert [(record.text, record.line) for record in records] == [("a", 3), ("b", 5), ("c", 7)]
    assert not report.skipped


@pytest.mark.parametrize(
    "lang, joiner, text",
    [
        ("en", None, "a b|c d|e f|g h"),
        ("en", "_", "a_b|c_d|e_f|g_h"),
        ("zh", None, "ab|cd|ef|gh"),
        ("zh", " ", "a b|c d|e f|g h"),
        (None, None, "a b|c d|e f|g h"),
    ],
)
def test_joiner(path: Path, lang: str | None, joiner: str | None, text: str) -> None:
    rows = [column(words, "O O") for words in ("a b", "c d", "e f", "g h")]
    records, _ = read(path, "\n".join(rows), lang=lang, joiner=joiner)
    assert [record.text for record in records] == text.split("|")


@pytest.mark.parametrize("lang, border", [("en", " "), ("zh", "\n")])
def test_sentences_grouped(path: Path, lang: str, border: str) -> None:
    sentences = [column(word, "B-A") for word in "abcdef"]
    sentences.insert(3, "-DOCSTART- O\n")
    records, _ = read(path, "\n".join(sentences), lang=lang, n_sents=2)
    groups = [border.join(group) for group in ("ab", "c", "de", "f")]
    assert [record.text for record in records] == groups
    assert [[s for _, s in surfaces(r)] for r in records] == [g.split(border) for g in groups]
    assert [record.line for record in records] == [1, 5, 9, 13]


def test_lines_without_a_token(path: Path) -> None:
    (record,), report = read(path, "a B-A\n I-A\n\tI-A\nb I-A\n\n O\n")
    assert surfaces(record) == [("A", "a b")]
    tally = report.skipped["line without a token"]
    assert tally.places == [f"{path}:{line}" for line in (2, 3, 6)]


def test_white_space_can_be_a_token(path: Path) -> None:
    (record,), report = read(path, "北\tB-A\n京\tI-A\n\u3000\tI-A\n\u3000\tB-B\n。\tO\n", lang="zh")
    assert record.text == "北京\u3000\u3000。"
    assert surfaces(record) == [("A", "北京")]
    assert report.repaired["white space trimmed"].count == 1
    assert report.skipped["nothing but white space"].count == 1


@pytest.mark.parametrize(
    "rows, options, message",
    [
        (["a", "b"], {}, "No token and tag in columns."),
        (["a O", "b"], {}, "Columns: 1, in the lines before: 2."),
        (["a\tO", "New York\tB-A"], {}, "Columns: 3, in the lines before: 2."),
        (["a O", "b O"], {"tag_column": 2}, "The tag cannot be in column 2 of 2"),
        (["a O", "b O"], {"tag_column": -3}, "The tag cannot be in column -3 of 2"),
        (["a O", "b O"], {"tag_column": 0}, "The tag cannot be in column 0 of 2"),
        (["a O", "b O"], {"tag_column": -2}, "The tag cannot be in column -2 of 2"),
        (["a O", "b PER"], {}, "'PER' is no tag"),
        (["a O", "b X-PER"], {}, "'X-PER' is no tag"),
        (["a O", "b B-"], {}, "'B-' is no tag"),
    ],
)
def test_wrong_structure(
    path: Path, rows: Sequence[str], options: dict[str, Any], message: str
) -> None:
    line = next(i for i, row in enumerate(rows, 3) if row[0] == "a" or "O" not in row)
    with pytest.raises(CorpusError) as error:
        read(path, "\n".join(["", "", *rows]), **options)
    assert error.value.line in (line, line + 1)
    assert str(error.value).startswith(f"{path}:{error.value.line}: {message}")
    assert error.value.hint


def test_unknown_formats_and_options(path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no format 'conll'. Choose one of: cluener, columns"):
        read_corpus(path, "conll", Report())
    with pytest.raises(CorpusError, match="'jsonl' has no option: joiner"):
        read_corpus(path, "jsonl", Report(), joiner="")


@pytest.mark.parametrize(
    "name, lang, n_docs, n_entities",
    [
        ("wnut17/wnut17train.conll", "en", 3394, 1975),
        ("wnut17/emerging.dev.conll", "en", 1009, 836),
        ("bc5cdr/train.tsv", "en", 4560, 9385),
        ("bc5cdr/devel.tsv", "en", 4581, 9593),
        ("ncbi_disease/train.tsv", "en", 5424, 5134),
        ("ncbi_disease/devel.tsv", "en", 923, 787),
        ("peoples_daily/example.dev", "zh", 2318, 3819),
        ("msra/dev.bio", "zh", 3000, 2961),
        pytest.param("peoples_daily/example.train", "zh", 20864, 33992, marks=pytest.mark.slow),
        pytest.param("msra/train.bio", "zh", 42000, 75059 - 2961, marks=pytest.mark.slow),
    ],
)
def test_real_corpora(data_dir: Path, name: str, lang: str, n_docs: int, n_entities: int) -> None:
    report = Report()
    records = list(read_columns(data_dir / name, report, lang=lang))
    assert len(records) == n_docs
    assert sum(len(record.entities) for record in records) == n_entities
    assert not report.skipped and not report.repaired
