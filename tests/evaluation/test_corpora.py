"""The data report: figures computed by hand, comparisons, warnings, the written form."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.evaluation.corpora import (
    Comparison,
    CorpusStats,
    DataReport,
    LabelStats,
    describe_corpora,
    format_report,
)
from spacy_mtlner.formats import Report, read_corpus, read_docs

KEY = "task"
VOCAB = Vocab()


def make(text: str, *entities: tuple[Any, ...]) -> Doc:
    """A doc of the words between blanks; each entity a label and its fragments."""
    doc = Doc(VOCAB, words=text.split(" "))
    write_entities(doc, [Entity(label, fragments) for label, *fragments in entities], KEY)
    return doc


def describe(*corpora: Iterable[Doc]) -> DataReport:
    return describe_corpora(dict(zip(("train", "dev", "test"), corpora, strict=False)), key=KEY)


def describe_one(*docs: Doc) -> CorpusStats:
    (stats,) = describe(iter(docs)).corpora
    return stats


def warn(*corpora: Iterable[Doc]) -> str:
    return "\n".join(describe(*corpora).warnings)


PAIN = make(
    "Pain in my shoulders , hips and feet .",
    ("ADR", (0, 4)),
    ("ADR", (0, 2), (5, 6)),
    ("ADR", (0, 2), (5, 6), (7, 8)),
    ("BODY", (3, 4)),
    ("BODY", (5, 6)),
    ("SITE", (5, 6)),
)


def test_labels() -> None:
    assert describe_one(PAIN).labels == {
        "ADR": LabelStats(
            count=3,
            tokens=4 + 3 + 4,
            max_length=4,
            surfaces=3,
            inside=1,
            overlapping=3,
            discontinuous=2,
            max_fragments=3,
            max_gap=3,
        ),
        "BODY": LabelStats(
            count=2, tokens=2, max_length=1, surfaces=2, inside=2, overlapping=2, max_fragments=1
        ),
        "SITE": LabelStats(
            count=1, tokens=1, max_length=1, surfaces=1, inside=1, overlapping=1, max_fragments=1
        ),
    }


def test_entities() -> None:
    stats = describe_one(PAIN)
    assert (stats.entities, stats.multi_label, stats.inside_same_label) == (6, 2, 1)
    assert (stats.ambiguous, stats.ambiguous_surfaces) == (1, {"hips": {"BODY": 1, "SITE": 1}})


def test_docs() -> None:
    lacks_key = Doc(VOCAB, words=["no", "key"])
    docs = [*(make(" ".join("a" * n)) for n in range(1, 20)), make("A \n a", ("X", (0, 1)))]
    stats = describe_one(*docs, lacks_key, make(" ".join("a" * 129)))
    assert (stats.docs, stats.not_annotated, stats.without_entities) == (22, 1, 20)
    assert stats.tokens == 190 + 3 + 2 + 129
    assert stats.mean_length == pytest.approx(324 / 22)
    # Lengths: 1, 2, 2, 3, 3, 4, 5, 6, ... 19, 129; the 11th of 22, and the 21st.
    assert (stats.median_length, stats.length_95, stats.max_length) == (9, 19, 129)
    assert stats.longer == {128: 1, 512: 0}
    assert stats.duplicates == 1, "white space and case make no difference"


def test_surfaces_with_several_labels_are_ranked_by_doubt() -> None:
    def repeat(surface: str, **counts: int) -> list[Doc]:
        return [make(surface, (label, (0, 1))) for label in counts for _ in range(counts[label])]

    docs = repeat("b", X=9, Y=1) + repeat("a", Y=1, X=1) + repeat("c", Y=4, X=2) + repeat("d", X=3)
    stats = describe_one(*docs)
    assert stats.ambiguous == 3
    assert [*stats.ambiguous_surfaces.items()] == [
        ("c", {"Y": 4, "X": 2}),
        ("a", {"X": 1, "Y": 1}),
        ("b", {"X": 9, "Y": 1}),
    ]


@pytest.mark.parametrize(
    ("text", "fragments", "is_odd"),
    [
        ("New York", [(0, 2)], False),
        ("New York ,", [(0, 3)], True),
        ("- New York", [(0, 3)], True),
        ("New \n York", [(0, 3)], False),
        ("New \n York", [(0, 2)], True),
        ("《 红楼 》", [(0, 3)], False),
        ("《 红楼 》", [(1, 3)], True),
        ("PP ( 1 )", [(0, 4)], False),
        ("PP ( 1 )", [(0, 2)], True),
        ('" A "', [(0, 3)], False),
        ('" A "', [(0, 2)], True),
        ("U.S.", [(0, 1)], False),
        ("C- and D", [(0, 1), (2, 3)], False),
        ("C , and D", [(0, 2), (3, 4)], True),
        ("50 %", [(0, 2)], False),
        ("# spaCy", [(0, 2)], False),
    ],
)
def test_odd_borders(text: str, fragments: list[tuple[int, int]], is_odd: bool) -> None:
    stats = describe_one(make(text, ("X", *fragments)))
    assert (stats.odd_borders, len(stats.odd_surfaces)) == (is_odd, is_odd)


def test_odd_surfaces_are_given_once_and_not_all() -> None:
    docs = [make(f"{letter} ,", ("X", (0, 2))) for letter in "aabcdefghijklmnop"]
    stats = describe_one(*docs)
    assert stats.odd_borders == 17
    assert stats.odd_surfaces == [f"{letter} ," for letter in "abcdefghij"]


def test_comparison() -> None:
    text = "Angela Merkel moved to New York City in the spring of last year"
    train = [make(text, ("PER", (0, 2)), ("LOC", (4, 7))), make("Hips and feet", ("BODY", (0, 1)))]
    dev = [
        make(text.upper()),
        make(f"{text} again", ("PER", (0, 2)), ("ORG", (4, 7)), ("LOC", (4, 6))),
        make("Something entirely new , then Angela Merkel moved"),
        make("Hips or feet", ("BODY", (0, 1)), ("BODY", (0, 1), (2, 3))),
    ]
    report = describe(iter(train), iter(dev), iter(train[1:]))
    assert [stats.against_first for stats in report.corpora] == [
        None,
        Comparison(duplicates=1, near_duplicates=1, seen_entities=2),
        Comparison(duplicates=1, near_duplicates=0, seen_entities=1),
    ]


def many(label: str, n: int) -> list[Doc]:
    return [make(f"doc {label} {i}", (label, (1, 2))) for i in range(n)]


def test_no_warnings() -> None:
    assert warn(many("A", 60), [make("another A text", ("A", (1, 2)))]) == ""


def test_warnings_of_labels() -> None:
    warnings = warn(many("A", 60) + many("B", 10) + many("C", 9), [*many("D", 1), *many("B", 1)])
    assert "fewer than 10 examples in train, too few to learn: C (9)." in warnings
    assert "fewer than 50 examples in train: B (10)." in warnings
    assert "Labels of dev that are not in train: D (1)." in warnings
    assert "Labels of train that are not in dev: A (60), C (9)." in warnings
    assert "split" in warnings


def test_warnings_of_leakage() -> None:
    docs = many("A", 60)
    warnings = warn(docs, docs[:2])
    assert "2 of 2 docs of dev stand in train, and 0 nearly do" in warnings
    assert "split" in warnings


def test_warnings_of_docs() -> None:
    long_doc = make(" ".join("a" * 513))
    bare = Doc(VOCAB, words=["bare"])
    warnings = warn([*many("A", 60), make("x ,", ("A", (0, 2))), long_doc, bare, bare], [])
    assert f"2 of 64 docs of train have no doc.spans[{KEY!r}]" in warnings
    assert "1 of 64 docs of train are copies of others" in warnings
    assert "1 of 64 docs of train have more than 512 tokens" in warnings
    assert "1 of 61 entities of train begin or end with punctuation" in warnings
    assert "“x ,”" in warnings
    assert "dev holds no docs" in warnings


def test_warnings_of_entities() -> None:
    assert "train holds no entities" in warn([make("a b")])
    warnings = warn([PAIN, *many("A", 60)])
    assert "6 of 66 entities of train overlap others and 2 are discontinuous" in warnings


def test_written_form() -> None:
    docs = [PAIN, make("a|b \n 北京 。", ("A", (0, 4))), make("a|b 北京 。", ("B", (0, 3)))]
    report = describe(docs, docs[:1])
    text = format_report(report)
    assert text.startswith("# Data\n\n|")
    assert "| entities                           |          8 |           6 |\n" in text
    assert "| docs in train                      |          - | 1 (100.0 %) |\n" in text
    for heading in ("Labels of train", "Labels of dev", "Warnings"):
        assert f"\n## {heading}\n" in text
    assert "| a\\|b 北京 。 | A (1), B (1)" in text
    assert "“a|b 北京 。”" in text
    assert text == format_report(describe(docs, docs[:1]))


def test_columns_are_aligned() -> None:
    docs = [make("北京", ("地名", (0, 1))), make("New York", ("location", (0, 2)))]
    lines = format_report(describe(docs)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| label    | entities"))
    table = lines[first : first + 4]
    widths = {len(line) + line.count("地") + line.count("名") for line in table}
    assert len(widths) == 1


def test_json() -> None:
    report = describe([PAIN], [PAIN])
    value = json.loads(json.dumps(report.to_dict()))
    assert value["key"] == KEY
    assert value["corpora"][0]["labels"]["ADR"]["max_gap"] == 3
    assert value["corpora"][1]["against_first"]["seen_entities"] == 6
    assert value["warnings"] == report.warnings


@pytest.mark.parametrize("corpora", [[], [[]], [[], []], [[], [PAIN]]])
def test_nothing(corpora: list[list[Doc]]) -> None:
    report = describe(*corpora)
    assert format_report(report)
    assert ("train holds no docs" in "\n".join(report.warnings)) == bool(corpora)


def read_genia(data_dir: Path, part: str) -> Iterable[Doc]:
    records = read_corpus(data_dir / f"genia/genia5.{part}.jsonl", "jsonl", Report())
    return read_docs(records, spacy.blank("en").make_doc, Report(), key=KEY)


def test_genia_dev(data_dir: Path) -> None:
    (stats,) = describe(read_genia(data_dir, "dev")).corpora
    assert (stats.docs, stats.entities, len(stats.labels)) == (1669, 4568, 5)
    assert stats.count("discontinuous") == 114
    assert stats.count("inside") / stats.entities == pytest.approx(0.094, abs=0.001)
    report = Report()
    for record in read_corpus(data_dir / "genia/genia5.dev.jsonl", "jsonl", Report()):
        report.add_record(record)
    assert stats.count("inside") == report.inside
    assert stats.count("overlapping") == report.overlapping
    assert {label: s.count for label, s in stats.labels.items()} == report.entities


@pytest.mark.slow
def test_genia(data_dir: Path) -> None:
    train, dev = describe(read_genia(data_dir, "train"), read_genia(data_dir, "dev")).corpora
    assert (train.entities, train.count("discontinuous")) == (47970, 1063)
    assert train.count("inside") / train.entities == pytest.approx(0.092, abs=0.001)
    # 0.18 of the contiguous ones.
    assert train.count("overlapping") / train.entities == pytest.approx(0.211, abs=0.001)
    assert dev.against_first == Comparison(duplicates=5, near_duplicates=15, seen_entities=2628)
