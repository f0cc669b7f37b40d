"""`.spacy` files: what is written is what DocBin reads, and every doc is kept or counted."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from srsly.msgpack import msgpack_decoders, msgpack_encoders

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.formats import CorpusError, Record, Report
from spacy_mtlner.formats.base import CharEntity
from spacy_mtlner.formats.docbin import load_docs, read_docbin, write_docbin
from tests.formats.test_docs import records

NLP = spacy.blank("en")


def read(path: Path, **options: str) -> tuple[list[Record], Report]:
    report = Report()
    return list(read_docbin(path, report, **options)), report  # type: ignore[arg-type]


def annotate(text: str, *entities: Entity, key: str = "mtlner") -> Doc:
    doc = NLP.make_doc(text)
    write_entities(doc, entities, key)
    return doc


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corpus.spacy"


@given(written=st.lists(records(), max_size=4), set_ents=st.booleans(), keep_attrs=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(path: Path, written: list[Record], set_ents: bool, keep_attrs: bool) -> None:
    counts = Report()
    write_docbin(
        written, path, counts, make_doc=NLP.make_doc, set_ents=set_ents, keep_attrs=keep_attrs
    )
    again, report = read(path)
    assert [(r.text, r.entities, r.line) for r in again] == [
        (record.text, record.entities, line) for line, record in enumerate(written, start=1)
    ]
    assert (counts.docs, counts.tokens) == (len(again), sum(len(r.doc or ()) for r in again))
    assert not report.skipped and not report.repaired and not report.ignored


def test_the_file_is_what_a_docbin_would_write(path: Path) -> None:
    """Tokens, all annotation that a DocBin keeps, user data, and vocabularies of two pipelines."""
    words = ["Ada", "met", "new", "people"]
    doc = Doc(
        NLP.vocab,
        words=words,
        tags=["NNP", "VBD", "JJ", "NNS"],
        pos=["PROPN", "VERB", "ADJ", "NOUN"],
        heads=[1, 1, 3, 1],
        deps=["nsubj", "ROOT", "amod", "dobj"],
        lemmas=["Ada", "meet", "new", "people"],
        morphs=["Number=Sing", "Tense=Past", "", "Number=Plur"],
        ents=["B-PER", "O", "O", "O"],
    )
    doc.spans["other"] = [Span(doc, 0, 2, label="X", kb_id="Q7259", span_id="T1")]
    doc.user_data["mtlner_weight"] = 0.5
    doc.cats = {"news": 1.0}
    foreign = Doc(spacy.blank("de").vocab, words=["ganz", "neu"], sent_starts=[True, True])
    docs = [doc, foreign, NLP.make_doc("")]
    written = [Record(d.text, (), path, 1, doc=d) for d in docs]
    write_docbin(written, path, Report(), make_doc=NLP.make_doc, keep_attrs=True)
    expected = DocBin(docs=docs, store_user_data=True)
    found = DocBin(store_user_data=True).from_disk(path)
    assert found.attrs == expected.attrs and found.version == expected.version
    assert found.cats == expected.cats and found.flags == expected.flags
    assert found.user_data == expected.user_data and found.span_groups == expected.span_groups
    for name in ("tokens", "spaces"):
        for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert numpy.array_equal(a, b)
    assert found.strings - {"_"} <= expected.strings, "but for the empty morphology"
    again = list(found.get_docs(spacy.blank("en").vocab))
    assert [d.to_json() for d in again] == [d.to_json() for d in docs]
    assert again[0].spans["other"][0].kb_id_ == "Q7259"
    assert "mtlner" in again[0].spans


def test_a_converted_doc_keeps_its_tokens_and_annotation(path: Path) -> None:
    doc = Doc(NLP.vocab, words=["new", "york", "-"], tags=["JJ", "NN", ":"])
    write_entities(doc, [Entity("LOC", ((0, 1), (2, 3)))], "sc")
    doc.spans["other"] = [doc[0:1]]
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    (record,), report = read(path, input_key="sc")
    assert record.entities == (CharEntity("LOC", ((0, 3), (9, 10))),)
    write_docbin([record], path, report, make_doc=NLP.make_doc, keep_attrs=True)
    (again,) = DocBin().from_disk(path).get_docs(NLP.vocab)
    assert [(t.text, t.tag_) for t in again] == [("new", "JJ"), ("york", "NN"), ("-", ":")]
    assert read_entities(again) == [Entity("LOC", ((0, 1), (2, 3)))]
    assert {*again.spans} == {"mtlner", "other"}, "re-keyed, and others kept"


def test_where_gold_is_read(path: Path) -> None:
    both = annotate("Ada met Bob", Entity("A", ((0, 1),)))
    both.set_ents([Span(both, 2, 3, label="B")])
    only_ents = NLP.make_doc("Eve")
    only_ents.set_ents([Span(only_ents, 0, 1, label="C")])
    DocBin(docs=[both, only_ents, NLP.make_doc("x")]).to_disk(path)

    def labels(**options: str) -> tuple[list[list[str]], int]:
        found, report = read(path, **options)
        n_skipped = sum(tally.count for tally in report.skipped.values())
        return [[e.label for e in record.entities] for record in found], n_skipped

    assert labels() == labels(gold="spans") == ([["A"]], 2)
    assert labels(gold="ents") == labels(input_key="none") == ([["B"], ["C"]], 1)
    with pytest.raises(CorpusError, match=r"spans\['none'\].*there: mtlner.*--input-key"):
        labels(gold="spans", input_key="none")
    with pytest.raises(CorpusError, match="Choose one of: auto, spans, ents"):
        labels(gold="tags")


def test_what_a_record_does_not_take_over_is_counted(path: Path) -> None:
    doc = annotate("Ada met Bob", Entity("A", ((0, 1),), 0.5))
    doc.spans["mtlner"].append(Span(doc, 2, 3, label="B", kb_id="Q1"))
    doc.spans["mtlner"].attrs["scores"].append(1.0)
    DocBin(docs=[doc]).to_disk(path)
    _, report = read(path)
    assert {name: tally.count for name, tally in report.ignored.items()} == {
        "scores of a doc's entities": 1,
        "knowledge base id of a span": 1,
    }


def test_broken_files(path: Path) -> None:
    doc = annotate("a b", Entity("A", ((0, 1),)))
    doc.spans["mtlner"].attrs["scores"] = [1.0, 1.0]
    DocBin(docs=[annotate("x"), doc]).to_disk(path)
    with pytest.raises(CorpusError, match=rf"{path}:2: .*1 spans, but 2 scores"):
        read(path)
    content = path.read_bytes()
    for broken in (b"", b"\x00", b"text", content[:-9], content[:20] + b"\xff" + content[21:]):
        path.write_bytes(broken)
        with pytest.raises(CorpusError, match=rf"{path}: Not a \.spacy file"):
            read(path)
    with pytest.raises(CorpusError, match="No such file"):
        read(path.with_name("none.spacy"))


def test_memory_does_not_grow_with_the_corpus(path: Path) -> None:
    def measure(n: int) -> int:
        record = Record("The same few words again and again. " * 10, (), path, 1)
        stream: Iterator[Record] = (record for _ in range(n))
        tracemalloc.start()
        write_docbin(stream, path, Report(), make_doc=NLP.make_doc)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    measure(10)
    small, large = measure(300), measure(3000)
    assert path.stat().st_size > 0
    # Three arrays and four lists are kept in memory up to 4 MB each, then go to files.
    assert large < small + 20_000_000


def test_srsly_is_left_as_it_was(path: Path) -> None:
    write_docbin([Record("a", (), path, 1)], path, Report(), make_doc=NLP.make_doc)
    read(path)
    assert "get_all" not in vars(msgpack_encoders) | vars(msgpack_decoders)


def test_bare_docs(path: Path) -> None:
    doc = annotate("a b c", Entity("A", ((0, 1), (2, 3)), 0.5))
    DocBin(docs=[doc, annotate("")], store_user_data=True).to_disk(path)
    vocab = Vocab()
    docs = list(load_docs(path, vocab))
    assert [other.text for other in docs] == ["a b c", ""]
    assert read_entities(docs[0])[0].score == 0.5
    assert all(other.vocab is vocab for other in docs)
    path.write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"Not a \.spacy file"):
        list(load_docs(path, vocab))
