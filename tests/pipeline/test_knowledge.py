"""Known entities: counting, reading, writing."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.kb import InMemoryLookupKB
from spacy.vocab import Vocab

from spacy_mtlner.entities import Entity
from spacy_mtlner.pipeline.knowledge import (
    Knowledge,
    count_entities,
    read_kb,
    read_knowledge,
    select_frequent,
    write_knowledge,
)

names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=8)
frequencies = st.one_of(
    st.integers(1, 1000).map(float), st.floats(0.01, 1e6).map(lambda x: round(x, 4))
)


def test_names_of_a_corpus() -> None:
    nlp = spacy.blank("en")
    doc = nlp("My neck and  shoulder\npain, shoulder pain.")
    entities = [
        Entity("ADR", ((1, 2), (6, 7))),
        Entity("ADR", ((8, 10),)),
        Entity("ADR", ((4, 7),)),
        Entity("Body", ((1, 2),)),
        Entity("Body", ((3, 4),)),  # White space alone.
    ]
    assert [doc[i].text for i in (1, 3, 6, 8)] == ["neck", " ", "pain", "shoulder"]
    found = count_entities([(doc, entities), (doc, entities[:2])])
    assert found == {
        "ADR": {"neck pain": 2, "shoulder pain": 3},
        "Body": {"neck": 1},
    }


def test_names_of_a_language_without_blanks() -> None:
    doc = spacy.blank("zh")("左膝和踝肿胀")
    entities = [Entity("Symptom", ((0, 1), (3, 6)))]
    assert count_entities([(doc, entities)]) == {"Symptom": {"左踝肿胀": 1}}


def test_most_frequent_names() -> None:
    names = {"b": 2.0, "a": 2.0, "c": 5.0, "d": 1.0, " ": 9.0, "": 9.0}
    assert select_frequent(names, 3) == [("c", 5.0), ("a", 2.0), ("b", 2.0)]
    assert select_frequent({"x": 0.0}, 3) == select_frequent({}, 3) == []


@settings(max_examples=50, derandomize=True)
@given(st.dictionaries(names, st.dictionaries(names, frequencies, min_size=1), max_size=4))
def test_file_and_back(tmp_path_factory: pytest.TempPathFactory, knowledge: Knowledge) -> None:
    path = tmp_path_factory.mktemp("knowledge") / "known.jsonl"
    assert write_knowledge(knowledge, path) == sum(map(len, knowledge.values()))
    assert read_knowledge(path) == knowledge


def test_rare_names_come_back(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    knowledge = {"A": {"x": 1e-9, "y": 2 / 3}}
    write_knowledge(knowledge, path)
    assert read_knowledge(path) == knowledge


def test_repeated_names_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text(
        '\ufeff{"type": "A", "name": "x", "frequency": 2}\n\n'
        '{"type": "A", "name": " x "}\n{"name": "x", "type": "B", "frequency": 0.5, "more": 1}\n',
        encoding="utf-8",
    )
    assert read_knowledge(path) == {"A": {"x": 3.0}, "B": {"x": 0.5}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "is no JSON"),
        ("[]", "must be an object"),
        ('{"type": "A"}', "must be an object"),
        ('{"type": "", "name": "x"}', "must be an object"),
        ('{"type": "A", "name": " "}', "must be an object"),
        ('{"type": "A", "name": "x", "frequency": 0}', "frequency of 'x' must be above 0"),
        ('{"type": "A", "name": "x", "frequency": -1}', "must be above 0"),
        ('{"type": "A", "name": "x", "frequency": "2"}', "must be above 0, not '2'"),
        ('{"type": "A", "name": "x", "frequency": true}', "must be above 0, not True"),
        ('{"type": "A", "name": "x", "frequency": null}', "must be above 0, not None"),
        ('{"type": "A", "name": "x", "frequency": NaN}', "must be above 0"),
        ('{"type": "A", "name": "x", "frequency": Infinity}', "must be above 0"),
    ],
)
def test_bad_lines(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text(f'{{"type": "A", "name": "x"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"known\.jsonl, line 2.*{message}"):
        read_knowledge(path)


def make_kb() -> InMemoryLookupKB:
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=1)
    for entity, frequency in (("Q1", 10), ("Q2", 4), ("Q3", 0)):
        kb.add_entity(entity=entity, freq=frequency, entity_vector=[0.0])
    kb.add_alias(alias="Washington", entities=["Q1", "Q2"], probabilities=[0.5, 0.25])
    kb.add_alias(alias="D.C.", entities=["Q1"], probabilities=[1.0])
    kb.add_alias(alias="Ada", entities=["Q3"], probabilities=[0.5])
    return kb


def test_knowledge_base() -> None:
    types = {"Q1": "LOC", "Q2": "PER", "Q3": "PER", "Q9": "PER"}
    assert read_kb(make_kb(), types) == {
        "LOC": {"Washington": 5.0, "D.C.": 10.0},
        "PER": {"Washington": 1.0, "Ada": 0.5},
    }
    assert read_kb(make_kb(), {"Q3": "PER"}) == {"PER": {"Ada": 0.5}}
    assert read_kb(make_kb(), {}) == {}
