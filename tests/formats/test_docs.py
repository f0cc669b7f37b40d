"""Records to docs and back: any text, any entities, the tokenizers of two kinds of languages."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_mtlner.entities import read_entities
from spacy_mtlner.formats import CharEntity, CorpusError, Record, Report
from spacy_mtlner.formats.base import Annotation, make_record
from spacy_mtlner.formats.docs import make_annotated_doc, read_char_entities, read_docs

PATH = Path("corpus")
TOKENIZERS = {lang: spacy.blank(lang).make_doc for lang in ("en", "zh")}

texts = st.text(max_size=40) | st.text("ab. \n\t\u3000-'北京😀e\u0301", max_size=40)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any text with any annotations that stand: nested, overlapping, discontinuous."""
    text = draw(texts)
    span = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))
    spans = st.lists(span, min_size=1, max_size=3)
    annotation = st.builds(Annotation, st.sampled_from(["A", "B"]), spans)
    return make_record(text, draw(st.lists(annotation, max_size=6)), PATH, 1, Report())


def make(text: str, *entities: tuple[str, tuple[tuple[int, int], ...]]) -> Record:
    return Record(text, tuple(CharEntity(*entity) for entity in entities), PATH, 7)


@pytest.mark.parametrize("lang", TOKENIZERS)
@given(record=records())
def test_round_trip_over_tokens(lang: str, record: Record) -> None:
    doc, n_split = make_annotated_doc(TOKENIZERS[lang], record, set_ents=True)
    assert doc.text == record.text
    assert tuple(read_char_entities(doc)) == record.entities
    assert 0 <= n_split <= len(doc)
    for entity in read_entities(doc):
        for start, end in entity.fragments:
            assert not doc[start].is_space and not doc[end - 1].is_space


@pytest.mark.parametrize("lang", TOKENIZERS)
@given(record=records())
def test_tokens_are_only_split_where_they_must(lang: str, record: Record) -> None:
    plain = TOKENIZERS[lang](record.text)
    doc, n_split = make_annotated_doc(TOKENIZERS[lang], record)
    kept = {(t.idx, len(t)) for t in plain} & {(t.idx, len(t)) for t in doc}
    assert len(plain) - len(kept) == n_split
    borders = {i for entity in record.entities for fragment in entity.fragments for i in fragment}
    assert {t.idx for t in doc} <= {t.idx for t in plain} | borders


def test_a_token_is_split_for_several_entities() -> None:
    text = "  IL-2-mediated\n\nactivation 😀 "
    record = make(text, ("protein", ((2, 6),)), ("process", ((7, 10), (17, 27))))
    doc, n_split = make_annotated_doc(TOKENIZERS["en"], record)
    assert doc.text == text
    assert n_split == 1
    found = [[doc[s:e].text for s, e in entity.fragments] for entity in read_entities(doc)]
    assert found == [["IL-2"], ["med", "activation"]]


def test_key_without_entities_and_empty_text() -> None:
    docs = list(read_docs([make(""), make("a b")], TOKENIZERS["en"], Report(), key="task"))
    doc_bin = DocBin(docs=docs, store_user_data=True)
    for doc in doc_bin.get_docs(Vocab()):
        assert "task" in doc.spans and len(doc.spans["task"]) == 0
        assert all(not token.ent_iob_ for token in doc), "missing, not outside"


def test_ents_hold_what_they_can() -> None:
    nested = make("New York University", ("LOC", ((0, 8),)), ("ORG", ((0, 19),)))
    report = Report()
    records = [nested, make("nothing")]
    docs = list(read_docs(records, TOKENIZERS["en"], report, set_ents=True))
    assert [[ent.text for ent in doc.ents] for doc in docs] == [["New York University"], []]
    assert all(token.ent_iob_ for doc in docs for token in doc), "annotated, not missing"
    assert report.not_in_ents == 1


def test_report_counts() -> None:
    record = make("New York City", ("A", ((0, 8),)), ("B", ((0, 3), (9, 12))), ("A", ((4, 8),)))
    report = Report()
    list(read_docs([record], TOKENIZERS["en"], report))
    assert (report.docs, report.tokens, report.split_tokens) == (1, 4, 1)
    assert report.entities == {"A": 2, "B": 1}
    assert report.overlapping == 3, "both A lie between the ends of B"
    assert report.inside == 1
    assert report.discontinuous == 1
    assert report.not_in_ents == 0


@pytest.mark.parametrize(
    "fragments, n_overlapping, n_inside",
    [
        ([(0, 5), (5, 9)], 0, 0),
        ([(0, 5), (3, 9)], 2, 0),
        ([(3, 5), (0, 9)], 2, 1),
        ([(0, 5), (0, 5)], 2, 0),
        ([(0, 5), (0, 5), (0, 6)], 3, 2),
        ([(0, 9), (0, 5), (4, 9), (2, 3), (10, 12)], 4, 3),
    ],
)
def test_nesting(fragments: list[tuple[int, int]], n_overlapping: int, n_inside: int) -> None:
    report = Report()
    entities = [CharEntity(str(i), (span,)) for i, span in enumerate(fragments)]
    report.add_record(Record("", tuple(entities), PATH, 1))
    assert (report.overlapping, report.inside) == (n_overlapping, n_inside)


def test_a_tokenizer_that_changes_the_text() -> None:
    with pytest.raises(CorpusError, match=r"corpus:7: .* does not keep"):
        make_annotated_doc(lambda text: Doc(Vocab(), words=text.split()), make("a  b"))
