from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_mtlner.entities import Entity, read_entities
from spacy_mtlner.formats import CorpusError
from spacy_mtlner.formats.corpus import make_corpus

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
    with pytest.raises(CorpusError, match=r"c\.spacy: Use spacy\.Corpus\.v1"):
        list(make_corpus(tmp_path)(spacy.blank("en")))


def test_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--paths\.train"):
        make_corpus(None)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match=r"none\.jsonl"):
        list(make_corpus(tmp_path / "none.jsonl")(spacy.blank("en")))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"empty\.jsonl: Is empty"):
        list(make_corpus(tmp_path / "empty.jsonl")(spacy.blank("en")))
