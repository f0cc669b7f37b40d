"""Columns: layouts, schemes, layers, joining, grouping, what is skipped or lost, errors."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_mtlner.codecs.tags import SchemeName, read_tags
from spacy_mtlner.formats import CorpusError, Record, Report, read_corpus, read_docs
from spacy_mtlner.formats.base import Annotation, CharEntity, make_record
from spacy_mtlner.formats.columns import read_columns, write_columns
from spacy_mtlner.formats.docs import make_annotated_doc

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
@pytest.mark.parametrize(
    "order, options",
    [
        ([0, 1, 2], {"tag_columns": [-2]}),
        ([0, 1, 2], {"tag_columns": [1]}),
        ([2, 0, 1], {"token_column": 1}),
        ([1, 2, 0], {"token_column": -1, "tag_columns": [0]}),
    ],
)
def test_layouts(
    path: Path, separator: str, given_as: str | None, order: list[int], options: dict[str, Any]
) -> None:
    rows = [("EU", "B-ORG", "NNP"), ("rejects", "O", "VBZ"), ("Fischler", "B-PER", "NNP")]
    text = "\n".join(separator.join(row[i] for i in order) for row in rows)
    assert read_one(path, text, separator=given_as, **options) == (
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
    assert [(record.text, record.line, record.document) for record in records] == [
        ("a", 3, "corpus-1"),
        ("b", 5, "corpus-1"),
        ("c", 7, "corpus-2"),
    ]
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
        (["a\tO", "b\tO\t\tO"], {"separator": "\t"}, "Columns: 4, in the lines before: 2."),
        (["a\tO\t", "b\tO"], {"separator": "\t", "tag_columns": [1]}, "Columns: 2, in the lines"),
        (["a O", "b O"], {"tag_columns": [2]}, "No column 2: there are 2, counted from 0."),
        (["a O", "b O"], {"tag_columns": [1, -3]}, "No column -3: there are 2"),
        (["a O", "b O"], {"token_column": 2}, "No column 2: there are 2"),
        (["a O", "b O"], {"tag_columns": [0]}, "Column 0 of 2 is chosen twice"),
        (["a O", "b O"], {"tag_columns": [-2]}, "Column 0 of 2 is chosen twice"),
        (["a O", "b O"], {"tag_columns": [1, -1]}, "Column 1 of 2 is chosen twice"),
        (["a O", "b O"], {"token_column": -1}, "Column 1 of 2 is chosen twice"),
        (["a O", "b PER"], {}, "'PER' is no tag"),
        (["a O", "b X-PER"], {}, "'X-PER' is no tag"),
        (["a O", "b B-"], {}, "'B-' is no tag"),
        (["a\tO\tO", "b\tB-A\t"], {"separator": "\t", "tag_columns": [1, 2]}, "'' is no tag"),
        (["a O", "b B-A|PER"], {"tag_separator": "|"}, "'PER' is no tag"),
        (["a O", "b B-A|XXA"], {"tag_separator": "|"}, "'XXA' is no tag"),
        (["a O", "b B-A|"], {"tag_separator": "|"}, "'' is no tag"),
        (["a0 O", "b B-A"], {"segmentation_digit": True}, "No segmentation digit behind 'b'."),
        (["a0 O", "b² B-A"], {"segmentation_digit": True}, "No segmentation digit behind 'b²'."),
    ],
)
def test_wrong_structure(
    path: Path, rows: Sequence[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, "\n".join(["", "", *rows]), **options)
    assert error.value.line in (3, 4)
    assert str(error.value).startswith(f"{path}:{error.value.line}: {message}")
    assert error.value.hint


def test_the_line_of_a_wrong_tag(path: Path) -> None:
    text = "a O\n I-A\nb O\n# c\nc B-A\nd Q-A\n"
    with pytest.raises(CorpusError) as error:
        read(path, text, comment="#")
    assert error.value.line == 6


@pytest.mark.parametrize(
    "options, message",
    [({"tag_columns": []}, "No column is chosen for tags"), ({"n_sents": 0}, "No record has 0")],
)
def test_options_that_cannot_be(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError, match=message) as error:
        read(path, "a O\n", **options)
    assert error.value.line is None and error.value.hint


def test_unknown_formats_and_options(path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no format 'conll'. Choose one of: .*columns"):
        read_corpus(path, "conll", Report())
    with pytest.raises(CorpusError, match="'jsonl' has no option: joiner"):
        read_corpus(path, "jsonl", Report(), joiner="")


def test_empty_cells_behind_the_last_column(path: Path) -> None:
    text = "a\tB-A\nb\tI-A\t\t\nc\tO\t\n"
    assert read_one(path, text, separator="\t") == ("a b c", [("A", "a b")])


def test_documents(path: Path) -> None:
    text = "a O\n-DOCSTART- O\nb O\n\nc O\n-DOCSTART-\n-DOCSTART-\nd O\n"
    records, _ = read(path, text, n_sents=5)
    assert [(record.text, record.document) for record in records] == [
        ("a", None),
        ("b c", "corpus-1"),
        ("d", "corpus-3"),
    ]


def test_comments_end_no_sentence(path: Path) -> None:
    (record,), report = read(path, "# 1\na B-A\n# 2\n#\nb I-A\n# 3\n", comment="#")
    assert (record.text, record.line, surfaces(record)) == ("a b", 2, [("A", "a b")])
    assert not report.skipped
    assert read_one(path, "# O\na B-A\n# I-A\n") == ("# a #", [("A", "a #")])
    records, _ = read(path, "-DOCSTART-\n- 1\n\na O\n", comment="-")
    assert [(record.text, record.document) for record in records] == [("a", "corpus-1")]


def test_a_row_is_no_comment(path: Path) -> None:
    """Hashtags: what has as many columns as the others, with tags, is a token."""
    text = "# id 1\n#Apple\tB-ORG\nrocks\tO\n\n# x = 1\ty\n#\tO\n#NewYork\tB-LOC\t\n#x\tB-A\tO\n"
    found, report = read(path, text, separator="\t", tag_columns=[1], comment="#")
    assert [(record.text, surfaces(record)) for record in found] == [
        ("#Apple rocks", [("ORG", "#Apple")]),
        ("# #NewYork", [("LOC", "#NewYork")]),
    ]
    assert report.ignored["comment"].places == [f"{path}:1", f"{path}:5", f"{path}:8"]
    strict = Report(strict=True)
    assert list(read_columns(path, strict, separator="\t", tag_columns=[1], comment="#")) == found


def test_comments_of_several_tags_and_none_but_comments(path: Path) -> None:
    text = "a O\n#b B-X|I-Y\n# B-X|\n"
    (record,), report = read(path, text, comment="#", tag_separator="|")
    assert record.text == "a #b" and report.ignored["comment"].places == [f"{path}:3"]
    assert read(path, "# a\n#b O\n\n-DOCSTART- O\n", comment="#")[0] == []


@pytest.mark.parametrize(
    "separator, rows, tokens",
    [
        (",", ['"Smith, John",B-X', "met,O", '"Bob","O"', '"say ""a"", now",O'], None),
        (";", ['"a;b";B-X', "a,b;O"], ["a;b", "a,b"]),
        # Quotes that are tokens or parts of such.
        (",", ['",B-X', '"",O', '"x"y,O', 'a"b",O', '"""",O'], ['"', '"x"y', 'a"b"', '"']),
        ("\t", ['"a,b"\tB-X', '"a"\tO'], ['"a,b"', '"a"']),
    ],
)
def test_quoted_cells(path: Path, separator: str, rows: list[str], tokens: list[str]) -> None:
    found, _ = read(path, "\n".join(rows), separator=separator, joiner="|")
    expected = tokens or ["Smith, John", "met", "Bob", 'say "a", now']
    assert found[0].text.split("|") == expected
    assert surfaces(found[0]) == [("X", expected[0])]


@pytest.mark.parametrize("separator", [",", ";"])
def test_quotes_are_written_so_that_they_are_read_again(path: Path, separator: str) -> None:
    tokens = ['"a"', '"', '""', "a"]
    record = record_of("".join(tokens), CharEntity('"', ((0, 3),)))
    write(path, record, make_doc=words(*tokens), separator=separator)
    (again,) = read_columns(path, Report(), separator=separator, joiner=" ")
    assert again.text.split(" ") == tokens and surfaces(again) == [('"', '"a"')]


def test_byte_order_marks_of_joined_files(path: Path) -> None:
    found, report = read(path, "\ufeffa O\n\ufeffb B-X\n\ufeff\n\ufeff-DOCSTART- O\nc O\n")
    assert [(record.text, record.document) for record in found] == [
        ("a b", None),
        ("c", "corpus-1"),
    ]
    assert report.repaired["byte order mark before a line removed"].count == 3


def test_germeval(path: Path) -> None:
    """An index before the token, an outer and an inner layer, comments with other columns."""
    rows = [
        "#\thttp://example.org [2014-01-01]",
        "1\tDie\tO\tO",
        "2\tUniversität\tB-ORG\tO",
        "3\tKöln\tI-ORG\tB-LOC",
        "4\tin\tO\tO",
        "5\tKöln\tB-LOC\tB-LOC",
    ]
    (record,), report = read(
        path, "\n".join(rows), separator="\t", token_column=1, tag_columns=[2, 3], comment="#"
    )
    assert record.text == "Die Universität Köln in Köln"
    assert surfaces(record) == [("ORG", "Universität Köln"), ("LOC", "Köln"), ("LOC", "Köln")]
    assert report.skipped["duplicate of another entity"].places == [f"{path}:6"]


def test_segmentation_digits(path: Path) -> None:
    text = "科0 B-A\n技1 I-A\n30 O\n0 O\n大0 B-A\n"
    (record,), report = read(path, text, lang="zh", segmentation_digit=True)
    assert (record.text, surfaces(record)) == ("科技3大", [("A", "科技"), ("A", "大")])
    assert report.skipped["line without a token"].places == [f"{path}:4"]


def test_annotations_know_their_lines(path: Path) -> None:
    text = "a B-A B-A\n O O\nb I-A I-A\nc O O\n\nd O O\ne B-B B-B\n"
    _, report = read(path, text, tag_columns=[1, 2], n_sents=2)
    assert report.skipped["duplicate of another entity"].places == [f"{path}:1", f"{path}:7"]


spans = st.lists(st.integers(0, 6), min_size=2, max_size=2, unique=True).map(sorted)
nested = st.sets(st.builds(lambda label, span: (label, *span), st.sampled_from("XY"), spans))


def bio(entities: Sequence[tuple[str, int, int]]) -> list[str]:
    """Tags of six tokens."""
    tags = ["O"] * 6
    for label, start, end in entities:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def overlaps(entity: tuple[str, int, int], others: Sequence[tuple[str, int, int]]) -> bool:
    return any(entity[1] < end and start < entity[2] for _, start, end in others)


def places(record: Record) -> list[tuple[str, int, int]]:
    """The entities of a text of words of one letter each, over these words."""
    return sorted((label, a // 2, (b + 1) // 2) for label, ((a, b),) in record.entities)


@given(entities=nested)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_layers(path: Path, entities: set[tuple[str, int, int]]) -> None:
    layers: list[list[tuple[str, int, int]]] = [[]]
    for entity in sorted(entities):
        if all(overlaps(entity, layer) for layer in layers):
            layers.append([])
        next(layer for layer in layers if not overlaps(entity, layer)).append(entity)
    rows = zip(*map(bio, layers), "abcdef", strict=True)
    text = "\n".join(map(" ".join, rows))
    (record,), report = read(path, text, token_column=-1, tag_columns=range(len(layers)))
    assert record.text == "a b c d e f"
    assert places(record) == sorted(entities)
    assert not report.skipped and not report.repaired


@given(entities=nested)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_several_tags_in_a_cell(path: Path, entities: set[tuple[str, int, int]]) -> None:
    kept: list[tuple[str, int, int]] = []
    for entity in sorted(entities):
        if not overlaps(entity, [other for other in kept if other[0] == entity[0]]):
            kept.append(entity)
    layers = [bio([entity for entity in kept if entity[0] == label]) for label in "XY"]
    cells = ["|".join(tag for tag in tags if tag != "O") for tags in zip(*layers, strict=True)]
    text = "\n".join(f"{token} {cell or 'O'}" for token, cell in zip("abcdef", cells, strict=True))
    (record,), report = read(path, text, tag_separator="|")
    assert places(record) == sorted(kept)
    assert not report.skipped and not report.repaired


def test_one_label_twice_in_a_cell(path: Path) -> None:
    text = "a\tB-X\nb\tI-X|B-X|B-Y\nc\tO|I-Y\nd\tB-X,B-Z\n"
    (record,), report = read(path, text, tag_separator="|")
    assert surfaces(record) == [("X", "a b"), ("Y", "b c"), ("X,B-Z", "d")]
    assert report.skipped["second tag of a label in a cell"].places == [f"{path}:2"]


@st.composite
def flat_records(draw: st.DrawFn) -> Record:
    text = " ".join(draw(st.lists(tokens, min_size=1, max_size=5)))
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    labels = st.sampled_from([None, "A", "A-B", "O", "I_"])
    annotations = [(draw(labels), span) for span in pairwise(borders)]
    kept = [Annotation(label, [span]) for label, span in annotations if label]
    return make_record(text, kept, Path("source"), 1, Report())


def without_space(record: Record) -> list[tuple[str, list[int]]]:
    """The entities by offsets that do not count white space."""
    before = [0, *accumulate(not char.isspace() for char in record.text)]
    return sorted(
        (label, [before[i] for fragment in fragments for i in fragment])
        for label, fragments in record.entities
    )


@pytest.mark.parametrize("tag_scheme", ["BIO", "BILUO"])
@pytest.mark.parametrize("separator", ["\t", " ", "||", "\u3000", " | ", ",", ";"])
@given(corpus=st.lists(flat_records(), max_size=3), lang=st.sampled_from(["en", "zh"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(
    path: Path, corpus: list[Record], lang: str, tag_scheme: SchemeName, separator: str
) -> None:
    report, again = Report(), Report()
    make_doc = NLP[lang].make_doc
    write_columns(
        corpus, path, report, make_doc=make_doc, tag_scheme=tag_scheme, separator=separator
    )
    found = list(read_columns(path, again, separator=separator, joiner="\n"))
    assert not again.skipped and not again.repaired
    assert [*map(without_space, found)] == [*map(without_space, corpus)]
    written = [record.text.split("\n") for record in found]
    if not report.lost:
        docs = [make_annotated_doc(make_doc, record)[0] for record in corpus]
        assert written == [[token.text for token in doc if not token.is_space] for doc in docs]
    assert report.docs == len(corpus)
    assert report.tokens == sum(map(len, written))


def write(
    path: Path,
    *records: Record,
    make_doc: Callable[[str], Doc] = NLP["en"].make_doc,
    **options: Any,
) -> tuple[str, dict[str, int]]:
    """What is written for records, and the counts of what is lost."""
    report = Report()
    write_columns(records, path, report, make_doc=make_doc, **options)
    assert all(tally.places[0] == "source:7" for tally in report.lost.values())
    return path.read_bytes().decode(), {reason: t.count for reason, t in report.lost.items()}


def record_of(text: str, *entities: CharEntity, document: str | None = None) -> Record:
    return Record(text, entities, Path("source"), 7, document)


def words(*texts: str) -> Callable[[str], Doc]:
    """A tokenizer of a text that these words make up."""
    return lambda _: Doc(NLP["en"].vocab, words=[*texts], spaces=[False] * len(texts))


@pytest.mark.parametrize(
    "tag_scheme, tags",
    [("BIO", "O B-A I-A I-A B-A B-B I-B O"), ("BILUO", "O B-A I-A L-A U-A B-B L-B O")],
)
def test_tag_schemes(path: Path, tag_scheme: SchemeName, tags: str) -> None:
    entities = [
        CharEntity("A", ((2, 7),)),
        CharEntity("A", ((8, 9),)),
        CharEntity("B", ((10, 13),)),
    ]
    text, lost = write(path, record_of("a b c d e f g h", *entities), tag_scheme=tag_scheme)
    assert text == column("a b c d e f g h", tags) + "\n"
    assert not lost


def test_records_and_white_space(path: Path) -> None:
    report = Report()
    first = record_of(" a\n\nb  c ", CharEntity("A", ((1, 5),)), CharEntity("B", ((7, 8),)))
    second = record_of("non-smokers", CharEntity("A", ((4, 8),)))
    write_columns([first, second], path, report, make_doc=NLP["en"].make_doc)
    assert path.read_text() == ("a\tB-A\nb\tI-A\nc\tB-B\n\nnon\tO\n-\tO\nsmok\tB-A\ners\tO\n\n")
    assert (report.docs, report.tokens, report.split_tokens) == (2, 7, 1)
    assert report.entities == {"A": 2, "B": 1} and not report.lost


def test_entities_that_columns_cannot_hold(path: Path) -> None:
    entities = [
        CharEntity("X", ((0, 1), (4, 5))),
        CharEntity("Y", ((2, 5),)),
        CharEntity("Z", ((2, 7),)),
        CharEntity("X", ((2, 7),)),
        CharEntity("X", ((0, 1),)),
    ]
    text, lost = write(path, record_of("a b c d", *entities))
    assert text == column("a b c d", "B-X B-Z I-Z I-Z") + "\n"
    assert lost == {"discontinuous entity": 1, "overlapping entity": 2}


def test_labels_that_columns_cannot_hold(path: Path) -> None:
    labels = ["LOC city", "a\u3000\n ", "B|-", "x"]
    entities = [CharEntity(label, ((2 * i, 2 * i + 1),)) for i, label in enumerate(labels)]
    text, lost = write(path, record_of("a b c d", *entities), separator="|")
    assert text == "a|B-LOC_city\nb|B-a___\nc|B-B_-\nd|B-x\n\n"
    assert lost == {
        "white space in a label, written as _": 2,
        "separator in a label, written as _": 1,
    }


@pytest.mark.parametrize(
    "token, separator, written, lost",
    [
        ("a b", "\t", ["a b"], ""),
        ("a b", " ", ["a", "b"], "token that no line can hold, split"),
        ("a\tb c", "\t", ["a", "b c"], "token that no line can hold, split"),
        ("a\r\nb\nc", "|", ["a", "b", "c"], "token that no line can hold, split"),
        ("a\n", "|", ["a"], ""),
        ("a|b", "|", ["a_b"], "separator in a token, written as _"),
        ("|", "|", ["_"], "separator in a token, written as _"),
        ("a|b", "||", ["a|b"], ""),
        ("a|", "||", ["a_"], "separator in a token, written as _"),
        ("a | b", " | ", ["a", "|", "b"], "token that no line can hold, split"),
        ("-DOCSTART-", "\t", ["-", "DOCSTART-"], "token that no line can hold, split"),
        ("-DOCSTART-ed", "\t", ["-", "DOCSTART-ed"], "token that no line can hold, split"),
        ("a-DOCSTART-", "\t", ["a-DOCSTART-"], ""),
        ("\ufeffa", "\t", ["a"], "byte order mark before a token, left out"),
    ],
)
def test_tokens_that_columns_cannot_hold(
    path: Path, token: str, separator: str, written: list[str], lost: str
) -> None:
    record = record_of(f"{token}.", CharEntity("A", ((0, len(token.rstrip())),)))
    text, losses = write(path, record, make_doc=words(token, "."), separator=separator)
    tags = ["B-A", *["I-A"] * (len(written) - 1), "O"]
    rows = zip([*written, "."], tags, strict=True)
    assert text == "".join(f"{row[0]}{separator}{row[1]}\n" for row in rows) + "\n"
    assert losses == ({lost: 1} if lost else {})
    (again,) = read_columns(path, Report(), separator=separator, joiner="\n")
    assert again.text.split("\n") == [*written, "."]


def test_documents_are_written(path: Path) -> None:
    names = [None, "x", "x", "y", None, None, "y"]
    text, lost = write(path, *[record_of("a", document=name) for name in names])
    assert text.count("-DOCSTART-\tO\n\n") == 4
    assert not lost
    found = [record.document for record in read_columns(path, Report())]
    expected = [None, 1, 1, 2, 3, 3, 4]
    assert found == [number and f"corpus-{number}" for number in expected]


def test_records_without_tokens(path: Path) -> None:
    empty = [record_of(text, document="x") for text in ("", " \n")]
    text, lost = write(path, *empty, record_of("a", document="x"))
    assert text == "-DOCSTART-\tO\n\na\tO\n\n"
    assert lost == {"record without a token": 2}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"separator": ""}, "Columns cannot be separated by ''"),
        ({"separator": "\n"}, "Columns cannot be separated by '\\n'"),
        ({"separator": " - "}, "Columns cannot be separated by ' - '"),
        ({"separator": "O"}, "Columns cannot be separated by 'O'"),
        ({"separator": "_"}, "Columns cannot be separated by '_'"),
        ({"tag_scheme": "IOB1"}, "There is no tag scheme 'IOB1'"),
    ],
)
def test_columns_that_cannot_be_written(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError) as error:
        write(path, record_of("a"), **options)
    assert error.value.hint and message in str(error.value)
    assert not path.exists()


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


@pytest.mark.parametrize(
    "part, n_documents, n_sents, n_entities", [("train", 80, 6892, 11164), ("dev", 10, 852, 1422)]
)
@pytest.mark.parametrize("separator", [None, "\t"])
def test_litbank(
    data_dir: Path,
    part: str,
    n_documents: int,
    n_sents: int,
    n_entities: int,
    separator: str | None,
) -> None:
    """Four layers; behind them, a column without tags in some files and an empty one in all."""
    paths = [*(data_dir / "litbank/tsv" / part).iterdir()]
    assert len(paths) == n_documents
    report = Report()
    for path in paths:
        for record in read_columns(path, report, separator=separator, tag_columns=range(1, 5)):
            report.add_record(record)
    assert (report.docs, report.entities.total()) == (n_sents, n_entities)
    assert report.inside == {"train": 1760, "dev": 210}[part]
    assert not report.skipped and not report.repaired
