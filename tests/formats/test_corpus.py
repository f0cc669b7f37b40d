from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Corpus

from spacy_mtlner.entities import Entity, read_entities
from spacy_mtlner.formats import CorpusError
from spacy_mtlner.formats.convert import Settings
from spacy_mtlner.formats.corpus import make_corpus, read_references

LINES = """\
{"text": "Pain in hips and feet", "entities": [{"label": "ADR", "spans": [[0, 7], [17, 21]]}]}
{"text": "Fine", "entities": []}
{"text": "Ok", "entities": [{"label": "ADR", "spans": [[0, 9]]}]}
"""


def test_yields_examples_with_gold_under_the_key(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(LINES)
    nlp = spacy.blank("en")
    read = spacy.registry.get("readers", "spacy_mtlner.Corpus.v1")(path, spans_key="task")
    with pytest.warns(UserWarning, match=r"1 skipped: offset outside the text .*jsonl:3"):
        examples = list(read(nlp))
    assert [len(example.reference.spans["task"]) for example in examples] == [2, 0, 0]
    assert read_entities(examples[0].reference, "task") == [Entity("ADR", ((0, 2), (4, 5)))]
    assert not examples[0].predicted.spans


def test_reads_every_format(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("Ada B-PER\nwrote O\n")
    (example,) = make_corpus(path, format="columns")(spacy.blank("en"))
    assert read_entities(example.reference) == [Entity("PER", ((0, 1),))]
    path.write_text("New York\tB-LOC\tx\nis\tO\tx\n")
    read = make_corpus(path, "columns", options={"separator": "\t", "tag_columns": [1]})
    (example,) = read(spacy.blank("en"))
    assert read_entities(example.reference) == [Entity("LOC", ((0, 2),))]
    path.write_text("a O\n\nb O\n\nc O\n")
    assert len([*make_corpus(path, n_sents=2)(spacy.blank("en"))]) == 2


def test_reads_folders(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES.splitlines()[0])
    (tmp_path / "b.conll").write_text("Ada B-PER\n")
    examples = list(make_corpus(tmp_path)(spacy.blank("en")))
    assert [len(example.reference.spans["mtlner"]) for example in examples] == [2, 1]
    DocBin(docs=[examples[0].reference]).to_disk(tmp_path / "c.spacy")
    examples = list(make_corpus(tmp_path)(spacy.blank("en")))
    assert [len(example.reference.spans["mtlner"]) for example in examples] == [2, 1, 2]


def make_docs(nlp: Language) -> list[Doc]:
    """Annotation of all kinds; an empty doc; one without known spaces."""
    first = Doc(nlp.vocab, ["Ada", "wrote", "."], tags=["N", "V", "P"], ents=["B-PER", "O", ""])
    first.spans["a"] = [Span(first, 0, 2, label="X")]
    first.user_data["known"] = "yes"
    plain = Doc(nlp.vocab, ["un", "known"], spaces=None)
    return [first, Doc(nlp.vocab), plain, nlp.make_doc("two  words")]


def test_reads_docbins_as_spacy_does(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=make_docs(nlp), store_user_data=True).to_disk(tmp_path / "a.spacy")
    DocBin(docs=make_docs(nlp)[:1], store_user_data=True).to_disk(tmp_path / "b.spacy")
    read = make_corpus(tmp_path, spans_key="other")
    found, expected = list(read(nlp)), list(Corpus(tmp_path)(nlp))
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        for doc, other in [(ours.reference, theirs.reference), (ours.predicted, theirs.predicted)]:
            assert doc.to_json() == other.to_json()
            assert doc.to_bytes() == other.to_bytes()
            assert doc.vocab is nlp.vocab
    assert found[0].reference.user_data["known"] == "yes"


@pytest.mark.parametrize("limit", [0, 1, 2, 9])
@pytest.mark.parametrize("name", ["a.spacy", "a.jsonl"])
def test_limits_the_examples(name: str, limit: int, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=make_docs(nlp)).to_disk(tmp_path / "a.spacy")
    (tmp_path / "a.jsonl").write_text("".join(LINES.splitlines(keepends=True)[:2]))
    n_all = {"a.spacy": 3, "a.jsonl": 2}[name]
    found = list(make_corpus(tmp_path / name, limit=limit)(nlp))
    assert len(found) == (min(limit, n_all) if limit else n_all)
    with pytest.raises(ValueError, match="limit must be 0 or above, not -1"):
        make_corpus(tmp_path / name, limit=-1)


@pytest.mark.parametrize("settings", [{"n_sents": 1}, {"options": {"comment": "#"}}])
def test_a_docbin_takes_no_settings_of_other_formats(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    DocBin(docs=make_docs(spacy.blank("en"))).to_disk(tmp_path / "a.spacy")
    with pytest.raises(CorpusError, match=r"a\.spacy: .* n_sents and options .* Remove them"):
        list(make_corpus(tmp_path / "a.spacy", **settings)(spacy.blank("en")))


def test_a_docbin_without_docs_is_an_error(tmp_path: Path) -> None:
    DocBin().to_disk(tmp_path / "a.spacy")
    with pytest.raises(CorpusError, match=r"a\.spacy: Holds no docs"):
        list(make_corpus(tmp_path)(spacy.blank("en")))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"n_sents": 0}, "n_sents must be at least 1, not 0"),
        ({"options": {"tag_columns": 1}}, "option tag_columns of the format 'columns' is 1: "),
        ({"options": {"path": "x"}}, "'columns' has no option: path"),
        ({"options": {"token_column": "x"}}, "option token_column .* is 'x': "),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\n")
    with pytest.raises(ValueError, match=message):
        list(make_corpus(tmp_path / "a.conll", **settings)(spacy.blank("en")))


def test_threads_read_at_once(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=[nlp.make_doc("some words")] * 600).to_disk(tmp_path / "a.spacy")
    read = make_corpus(tmp_path / "a.spacy")
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: len(list(read(spacy.blank("en")))), range(12))
        assert [*found] == [600] * 12


def test_a_config_needs_a_path() -> None:
    config = {"corpus": {"@readers": "spacy_mtlner.Corpus.v1", "path": None}}
    with pytest.raises(ValueError, match=r"no path: set it .* --paths\.train"):
        spacy.registry.resolve(config)


def test_references_of_any_format(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    (tmp_path / "a.jsonl").write_text(LINES.splitlines()[0])
    DocBin(docs=make_docs(nlp)).to_disk(tmp_path / "b.spacy")
    found = list(read_references(nlp, tmp_path, Settings(spans_key="x")))
    assert [len(doc.spans.get("x", ())) for doc in found] == [2, 0, 0, 0, 0]
    assert [len(doc) for doc in found] == [5, 3, 0, 2, 3]  # The empty one is there, too.
    with pytest.raises(CorpusError, match="no such file"):
        list(read_references(nlp, tmp_path / "none.spacy", Settings()))


def test_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--paths\.train"):
        make_corpus(None)
    with pytest.raises(CorpusError, match=r"none\.jsonl"):
        list(make_corpus(tmp_path / "none.jsonl")(spacy.blank("en")))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"empty\.jsonl: Is empty"):
        list(make_corpus(tmp_path / "empty.jsonl")(spacy.blank("en")))


@pytest.mark.parametrize("limit", [2, 3])
def test_what_was_skipped_is_told_within_the_limit(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    bad = '{"text": "Ok", "entities": [{"label": "ADR", "spans": [[0, 9]]}]}\n'
    path.write_text(bad * 3)
    with pytest.warns(UserWarning, match=rf"{limit} skipped: offset outside the text"):
        examples = list(make_corpus(path, limit=limit)(spacy.blank("en")))
    assert len(examples) == limit
