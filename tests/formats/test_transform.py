"""Labels that are mapped and left out; units of sentences that never cut an entity."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span

from spacy_mtlner.formats import CharEntity, Record, Report
from spacy_mtlner.formats.docs import make_annotated_doc, read_char_entities
from spacy_mtlner.formats.transform import Labels, relabel, split_sentences
from tests.formats.test_docs import PATH, make, records

NLP = spacy.blank("en")


def counts(tallies: dict) -> dict[str, int]:  # type: ignore[type-arg]
    return {name: tally.count for name, tally in tallies.items()}


def test_labels() -> None:
    labels = Labels.parse(["name=PER", "company, organization,government=ORG"], ["PER,ORG"], ["X"])
    assert labels == Labels(
        {"name": "PER", "company": "ORG", "organization": "ORG", "government": "ORG"},
        frozenset({"PER", "ORG"}),
        frozenset({"X"}),
    )
    assert labels and not Labels.parse()
    assert Labels.parse(["a=b=c"]).names == {"a=b": "c"}


@pytest.mark.parametrize(
    "mappings, only, drop, message",
    [
        (["name"], [], [], "'name' is not OLD=NEW"),
        (["=PER"], [], [], "'=PER' is not OLD=NEW"),
        (["name="], [], [], "'name=' is not OLD=NEW"),
        (["a=B", "a,c=D"], [], [], "'a' twice"),
        ([], ["A,B"], ["B"], "both name: B"),
    ],
)
def test_malformed_labels(
    mappings: list[str], only: list[str], drop: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Labels.parse(mappings, only, drop)


def test_relabel() -> None:
    record = make(
        "Ada of New York",
        ("name", ((0, 3),)),
        ("company", ((7, 15),)),
        ("organization", ((7, 15),)),
        ("place", ((7, 15),)),
    )
    report = Report()
    labels = Labels.parse(["company,organization,club=ORG"], drop=["name,nothing"])
    (found,) = relabel([record], labels, report)
    assert found == replace(
        record, entities=(CharEntity("ORG", ((7, 15),)), CharEntity("place", ((7, 15),)))
    )
    assert counts(report.ignored) == {
        "entity with label 'name'": 1,
        "equal to another entity after mapping": 1,
    }
    assert labels.find_unknown(report.labels_read) == ["club", "nothing"]
    (found,) = relabel([record], Labels.parse(["name=PER"], only=["PER"]), Report())
    assert found.entities == (CharEntity("PER", ((0, 3),)),)


def split(record: Record, n_sents: int = 1) -> tuple[list[Record], Report]:
    report = Report()
    return list(split_sentences([record], n_sents, NLP.make_doc, report)), report


def test_ents_that_are_gold_are_relabelled_too() -> None:
    doc = NLP.make_doc("Ada met Bob in Rome")
    ents = [
        Span(doc, i, i + 1, label, kb_id=f"Q{i}") for i, label in ((0, "A"), (2, "B"), (4, "C"))
    ]
    doc.set_ents(ents, missing=[doc[1:2]], default="outside")
    record = replace(make(doc.text, ("A", ((0, 3),)), ("B", ((8, 11),))), doc=doc)
    labels = Labels.parse(["A=PER"], [], ["B"])
    (found,) = relabel([record], labels, Report())
    assert found.doc is doc
    assert [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents] == [
        ("Ada", "PER", "Q0"),
        ("Rome", "C", "Q4"),
    ]
    assert [token.ent_iob_ for token in doc] == ["B", "", "O", "O", "B"]


def test_sentences() -> None:
    text = "One is. Two are!\n\n Three \n\nFour? "
    assert [r.text for r in split(make(text))[0]] == ["One is.", "Two are!", "Three", "Four?"]
    assert [r.text for r in split(make(text), 3)[0]] == ["One is. Two are!\n\n Three", "Four?"]
    assert [r.text for r in split(make(" \n"))[0]] == [" \n"], "an empty doc is a doc"
    (first, *_), _ = split(make(text))
    assert (first.document, first.path, first.line) == ("corpus-7", PATH, 7)
    (first, *_), _ = split(replace(make(text), document="d"))
    assert first.document == "d"


def test_no_entity_is_cut() -> None:
    text = "St. Louis is far. So is Rome. Yes. No."
    record = make(
        text,
        ("LOC", ((0, 9),)),
        ("X", ((13, 16), (24, 28))),
        ("LOC", ((24, 28),)),
        ("Y", ((30, 33),)),
    )
    found, report = split(record)
    assert [r.text for r in found] == ["St. Louis is far. So is Rome.", "Yes.", "No."]
    assert found[0].entities == record.entities[:3]
    assert found[1].entities == (CharEntity("Y", ((0, 3),)),)
    assert counts(report.repaired) == {
        "unit longer than asked for: an entity crosses the end of a sentence": 1
    }


@given(record=records(), n_sents=st.integers(1, 3))
def test_nothing_is_lost(record: Record, n_sents: int) -> None:
    dotted = replace(record, text=re.sub("[ab]", ".", record.text))
    found, _ = split(dotted, n_sents)
    texts = [e.label + "|".join(dotted.text[a:b] for a, b in e.fragments) for e in dotted.entities]
    again = [
        e.label + "|".join(unit.text[a:b] for a, b in e.fragments)
        for unit in found
        for e in unit.entities
    ]
    assert sorted(again) == sorted(texts)
    joined = "".join("".join(unit.text.split()) for unit in found)
    assert joined == "".join(dotted.text.split())
    for unit in found:
        assert len(found) == 1 or unit.text == unit.text.strip() != ""


def test_units_of_docs_keep_tokens_and_annotation() -> None:
    words = ["a", "b", ".", "c", "\n\n", "d", "e"]
    starts = [True, False, False, True, False, False, True]
    doc = Doc(NLP.vocab, words=words, tags=[*"ABCDEFG"], sent_starts=starts)
    doc.user_data["mtlner_weight"] = 0.5
    doc.spans["other"] = [doc[0:1], doc[2:4]]
    doc.ents = [Span(doc, 1, 2, "B"), Span(doc, 2, 4, "CD")]
    doc.cats = {"good": 1.0}
    text = doc.text
    start = text.index("d")
    record = replace(make(text, ("X", ((start, start + 3),))), doc=doc)
    found, report = split(record)
    docs = [unit.doc for unit in found if unit.doc is not None]
    assert [[token.tag_ for token in d] for d in docs] == [[*"ABC"], ["D"], ["F", "G"]]
    assert [d.text for d in docs] == [unit.text for unit in found]
    assert all(d.user_data["mtlner_weight"] == 0.5 for d in docs)
    assert counts(report.skipped) == {
        "span of another group of a split doc": 2,
        "entity of doc.ents across the end of a unit": 1,
        "category of a split doc": 1,
    }
    assert [[ent.label_ for ent in d.ents] for d in docs] == [["B"], [], []]
    last, n_split = make_annotated_doc(NLP.make_doc, found[-1])
    assert n_split == 0 and read_char_entities(last) == [CharEntity("X", ((0, 3),))]


@given(
    words=st.lists(st.sampled_from([".", "a", "\n\n", "\n\nb", "c \n", " ", "!"]), max_size=8),
    n_sents=st.integers(1, 3),
)
def test_units_of_any_doc(words: list[str], n_sents: int) -> None:
    """Tokens may hold white space."""
    doc = Doc(NLP.vocab, words=words)
    found, _ = split(replace(make(doc.text), doc=doc), n_sents)
    tokens = [t.text for unit in found for t in unit.doc or ()]
    assert [word for word in tokens if word.strip()] == [word for word in words if word.strip()]
    for unit in found:
        assert unit.doc is not None and unit.doc.text == unit.text


def test_litbank(data_dir: Path) -> None:
    from spacy_mtlner.formats.brat import read_brat

    whole = list(read_brat(data_dir / "litbank/brat/dev", Report()))
    report = Report()
    found = list(split_sentences(whole, 2, NLP.make_doc, report))
    assert len({unit.document for unit in found}) == 10
    assert sum(len(unit.entities) for unit in found) == 1422
    assert max(len(unit.text) for unit in found) < 3000
