"""Splitting files: every record in one part, docs as they were, leaks found."""

from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.formats import CharEntity, CorpusError, Record, Report, read_corpus
from spacy_mtlner.formats.brat import write_brat
from spacy_mtlner.formats.convert import Settings
from spacy_mtlner.formats.jsonl import write_jsonl
from spacy_mtlner.formats.parts import split_corpus

NLP = spacy.blank("en")
SHARES = {"dev": 0.2, "test": 0.2}


def make_records(n: int) -> list[Record]:
    return [
        Record(f"text number {i} here", (CharEntity("AB"[i % 2], ((0, 4),)),), Path("x"), i + 1)
        for i in range(n)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "all.jsonl"
    write_jsonl(make_records(20), path, Report())
    return path


def test_every_record_is_in_one_part(path: Path) -> None:
    report = Report()
    folder = path.parent / "parts"
    parts = split_corpus(path, folder, SHARES, report, Settings())
    assert parts.targets == {name: folder / f"{name}.jsonl" for name in ("train", "dev", "test")}
    found = {
        name: [(r.text, r.entities) for r in read_corpus(target, "jsonl", Report())]
        for name, target in parts.targets.items()
    }
    assert {name: len(records) for name, records in found.items()} == parts.split.records
    assert parts.split.records == {"train": 12, "dev": 4, "test": 4}
    expected = [(record.text, record.entities) for record in make_records(20)]
    assert sorted(record for records in found.values() for record in records) == sorted(expected)
    for name, records in found.items():
        assert records == [r for r, p in zip(expected, parts.split.parts, strict=True) if p == name]
        assert {entities[0].label for _, entities in records} == {"A", "B"}


def test_docs_are_written_as_they_are(tmp_path: Path) -> None:
    """Those without annotation as well, with scores, other groups and other attributes."""
    docs = []
    for i in range(10):
        doc = Doc(NLP.vocab, words=["text", str(i), "x-y"], tags=["A", "B", "C"])
        doc.spans["other"] = [doc[0:1]]
        doc.user_data["mtlner_weight"] = i / 10
        if i % 3:
            write_entities(doc, [Entity("X", ((0, 1), (2, 3)), score=0.25)], "task")
        docs.append(doc)
    path = tmp_path / "all.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    report = Report()
    parts = split_corpus(path, tmp_path, SHARES, report, Settings(spans_key="task"))
    found = [
        (doc.to_json(), doc.user_data, doc.spans.to_bytes())
        for target in parts.targets.values()
        for doc in DocBin(store_user_data=True).from_disk(target).get_docs(NLP.vocab)
    ]
    expected = [(doc.to_json(), doc.user_data, doc.spans.to_bytes()) for doc in docs]
    assert sorted(found, key=lambda f: f[0]["text"]) == expected
    assert not report.skipped and not report.ignored


def test_brat_stays_brat(tmp_path: Path) -> None:
    write_brat(make_records(6), tmp_path / "all", Report())
    parts = split_corpus(tmp_path / "all", tmp_path / "parts", SHARES, Report(), Settings())
    names = sorted(path.name for target in parts.targets.values() for path in target.glob("*.ann"))
    assert names == sorted(path.name for path in (tmp_path / "all").glob("*.ann"))


def test_leaks_are_found(path: Path) -> None:
    long = "a rather long sentence that stands in two texts of this corpus with another end"
    records = [
        *make_records(20),
        Record(f"{long} one", (), path, 1),
        Record(f"{long} 2", (), path, 1),
    ]
    write_jsonl(records, path, Report())
    for seed in range(9):
        parts = split_corpus(path, path.parent, SHARES, Report(), Settings(), seed=seed)
        first, second = parts.split.parts[20:]
        leaks = {pair: tally.places for pair, tally in parts.leaks.items()}
        # A part is compared with those before it.
        order = ["train", "dev", "test"]
        pair = sorted((first, second), key=order.index)
        line = 21 if first == pair[1] else 22
        assert leaks == ({} if first == second else {(pair[0], pair[1]): [f"{path}:{line}"]})


def test_what_is_skipped_is_counted_once(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"text": "x", "entities": [{"label": "A", "spans": [[0, 9]]}]}\n')
    report = Report()
    split_corpus(path, path.parent, SHARES, report, Settings())
    assert {reason: tally.count for reason, tally in report.skipped.items()} == {
        "offset outside the text": 1
    }


def test_losses(path: Path) -> None:
    records = [Record("a b c", (CharEntity("A", ((0, 1), (4, 5))),), path, 1)] * 1
    write_jsonl([*make_records(9), *records], path, Report())
    how = Settings(lang="en")
    with pytest.raises(CorpusError, match=r"cannot hold: 1 x discontinuous entity.*--lossy"):
        split_corpus(path, path.parent, SHARES, Report(), how, writer="columns")
    report = Report()
    split_corpus(
        path, path.parent, SHARES, report, Settings(lang="en", lossy=True), writer="columns"
    )
    assert report.lost["discontinuous entity"].count == 1


def test_errors(path: Path) -> None:
    with pytest.raises(CorpusError, match="'genia' cannot be written"):
        split_corpus(path, path.parent, SHARES, Report(), Settings(), writer="genia")
    with pytest.raises(ValueError, match="--dev"):
        split_corpus(path, path.parent, {"dev": 1.5}, Report(), Settings())
    train = path.rename(path.with_name("train.jsonl"))
    with pytest.raises(CorpusError, match="The output is the input, too"):
        split_corpus(train, path.parent, SHARES, Report(), Settings())
    assert [p.name for p in path.parent.iterdir()] == ["train.jsonl"]
