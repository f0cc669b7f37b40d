"""Gold boundaries on predicted docs."""

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mtlner.entities import Entity, read_entities, read_fragments, write_entities
from spacy_mtlner.training.gold_candidates import CANDIDATE, make_gold_candidates

NLP = spacy.blank("en")


def read(example: Example) -> Example:
    (found,) = make_gold_candidates(lambda nlp: [example], "mtlner", "given")(NLP)
    return found


def test_predicted_docs_hold_places_and_no_labels() -> None:
    reference = NLP("pain in knees and hips")
    places = [((0, 3),), ((0, 2), (4, 5))]
    gold = [Entity("A", places[0]), Entity("B", places[0]), Entity("B", places[1])]
    write_entities(reference, gold)
    found = read(Example(NLP.make_doc(reference.text), reference))
    assert read_fragments(found.predicted, "given") == places
    assert {entity.label for entity in read_entities(found.predicted, "given")} == {CANDIDATE}
    assert read_entities(found.reference) == gold


def test_predicted_docs_have_the_tokens_of_the_gold() -> None:
    words, spaces = ["New", "York", "-", "based"], [True, False, False, False]
    reference = Doc(NLP.vocab, words=words, spaces=spaces)
    gold = [Entity("A", ((0, 2),)), Entity("A", ((3, 4),))]
    write_entities(reference, gold)
    found = read(Example(NLP.make_doc(reference.text), reference)).predicted
    assert [token.text for token in found] == words and found.text == "New York-based"
    assert read_fragments(found, "given") == [entity.fragments for entity in gold]
    assert not found.has_annotation("ENT_IOB") and "mtlner" not in found.spans


def test_gold_in_ents() -> None:
    reference = NLP("Ada met Bob")
    reference.set_ents([Span(reference, 0, 1, "PER"), Span(reference, 2, 3, "PER")])
    found = read(Example(NLP.make_doc(reference.text), reference))
    assert read_fragments(found.predicted, "given") == [((0, 1),), ((2, 3),)]


def test_docs_without_gold_have_no_candidates() -> None:
    found = read(Example(NLP.make_doc("text"), NLP.make_doc("text")))
    assert list(found.predicted.spans) == ["given"] and not len(found.predicted.spans["given"])


def test_keys_must_differ() -> None:
    with pytest.raises(ValueError, match="must differ from spans_key"):
        make_gold_candidates(lambda nlp: [], "x", "x")
