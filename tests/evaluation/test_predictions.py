from collections import Counter
from typing import Any

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.evaluation import predictions
from spacy_mtlner.evaluation.analysis import analyse_entities
from spacy_mtlner.evaluation.predictions import (
    count_surfaces,
    find_task,
    predict_corpus,
)
from spacy_mtlner.formats.corpus import make_example
from spacy_mtlner.pipeline.base import EntityComponent
from spacy_mtlner.training.gold_candidates import give_candidates

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 16,
    "attrs": ["NORM", "SHAPE"],
    "rows": [200, 50],
    "include_static_vectors": False,
}
MODEL = {"tok2vec": EMBED, "rnn": None}
TEXTS: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("Ada likes New York City .", [("PER", (0, 1)), ("LOC", (2, 5))]),
    ("she lives there", []),
    ("New York and Berlin", [("LOC", (0, 2)), ("LOC", (3, 4))]),
    ("arms and legs hurt", [("PAIN", (0, 1), (3, 4)), ("PAIN", (2, 4))]),
]


def make_references(nlp: Language, key: str = "mtlner") -> list[Doc]:
    docs = []
    for text, entities in TEXTS:
        doc = nlp.make_doc(text)
        write_entities(doc, [Entity(label, places) for label, *places in entities], key)
        docs.append(doc)
    return docs


def make_pipeline(factory: str = "crf_ner", n_updates: int = 20, **config: Any) -> Language:
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe(factory, config={"model": MODEL, **config})
    docs = make_references(nlp)
    optimizer = nlp.initialize(lambda: [make_example(nlp, doc) for doc in docs])
    optimizer.learn_rate = 0.02
    for _ in range(n_updates):
        nlp.update([make_example(nlp, doc) for doc in docs], sgd=optimizer)
    return nlp


@pytest.fixture(scope="module")
def nlp() -> Language:
    with pytest.warns(UserWarning, match="1 gold entities are left out"):
        return make_pipeline()


def test_agrees_with_the_scorer(nlp: Language) -> None:
    task = find_task(nlp)
    docs = make_references(nlp)
    found = predict_corpus(nlp, task, docs)
    analysis = analyse_entities(found.docs, labels=task.labels)
    scores = nlp.evaluate([make_example(nlp, doc) for doc in docs])
    assert scores["spans_mtlner_f"] > 0.4  # Something is right, and something is not.
    assert scores["spans_mtlner_f"] < 1
    assert analysis.total.f1 == pytest.approx(scores["spans_mtlner_f"])
    assert analysis.total.precision == pytest.approx(scores["spans_mtlner_p"])
    assert analysis.total.recall == pytest.approx(scores["spans_mtlner_r"])
    for group in analysis.labels:
        assert group.f1 == pytest.approx(scores["spans_mtlner_per_type"][group.name]["f"])


def test_what_is_collected(nlp: Language) -> None:
    task = find_task(nlp)
    found = predict_corpus(nlp, task, make_references(nlp))
    assert (found.n_skipped, found.source, found.why_no_probabilities) == (0, "spans", "")
    first = found.docs[0]
    assert first.text == TEXTS[0][0] and first.number == 1
    assert [first.text[a:b] for a, b in first.tokens] == first.text.split()
    ada, york = sorted(first.gold, key=lambda m: m.places)
    assert (ada.surface, ada.length, ada.context, ada.score) == ("Ada", 1, 6, 1.0)
    assert york.places == york.key == ((10, 23),)
    pain = next(m for m in found.docs[3].gold if len(m.key) > 1)
    assert (pain.surface, pain.length) == ("arms … hurt", 2)
    assert found.docs[1].probabilities is not None and found.docs[1].probabilities.shape == (0, 4)


def test_probabilities_are_those_of_the_gold_spans(nlp: Language) -> None:
    task = find_task(nlp)
    found = predict_corpus(nlp, task, make_references(nlp))
    for doc in found.docs:
        assert doc.probabilities is not None
        assert doc.probabilities.sum(1) == pytest.approx(numpy.ones(len(doc.gold)))
        scores = {(m.label, m.key): m.score for m in doc.predicted}
        for mention, row in zip(doc.gold, doc.probabilities, strict=True):
            if len(mention.key) > 1:  # No tag sequence has it.
                assert row.tolist() == [0, 0, 0, 1]
            elif (mention.label, mention.key) in scores:
                p = row[task.labels.index(mention.label)]
                assert p == pytest.approx(scores[mention.label, mention.key], abs=1e-5)


def test_docs_without_annotation_are_skipped_and_counted(nlp: Language) -> None:
    docs = [nlp.make_doc("not annotated"), *make_references(nlp), nlp.make_doc("nor this")]
    found = predict_corpus(nlp, find_task(nlp), docs)
    assert found.n_skipped == 2
    assert [doc.number for doc in found.docs] == [2, 3, 4, 5]


def test_gold_inside_tokens_has_no_probabilities(nlp: Language) -> None:
    reference = Doc(nlp.vocab, words=["Ada", "Love", "lace"], spaces=[True, False, False])
    write_entities(reference, [Entity("PER", ((0, 2),)), Entity("PER", ((0, 3),))])
    (doc,) = predict_corpus(nlp, find_task(nlp), [reference]).docs
    assert len(doc.tokens) == 2 and doc.probabilities is not None
    rows = dict(zip((m.places for m in doc.gold), doc.probabilities, strict=True))
    assert numpy.isnan(rows[((0, 8),)]).all()
    assert rows[((0, 12),)].sum() == pytest.approx(1)
    analysis = analyse_entities([doc], labels=find_task(nlp).labels)
    assert analysis.points is not None
    assert (analysis.points.n_unaligned, len(analysis.points.gold)) == (1, 1)


def test_texts_that_differ_in_white_space(nlp: Language) -> None:
    """The gold's places are shown in the text that was predicted."""

    class Pipeline:
        vocab = nlp.vocab

        def make_doc(self, text: str) -> Doc:
            return Doc(nlp.vocab, words=["Ada", "saw", "Bob"], spaces=[True, True, False])

    reference = Doc(nlp.vocab, words=["Ada", "saw", "Bob"], spaces=[False, False, False])
    write_entities(reference, [Entity("PER", ((0, 1),)), Entity("PER", ((2, 3),))])
    example = make_example(Pipeline(), reference)  # type: ignore[arg-type]
    write_entities(example.predicted, [Entity("PER", ((2, 3),), 0.5)])
    doc, _ = predictions._collect(1, example, "mtlner", "spans")
    assert [doc.text[a:b] for m in doc.gold for a, b in m.places] == ["Ada", "Bob"]
    assert [doc.text[a:b] for m in doc.predicted for a, b in m.places] == ["Bob"]
    assert doc.gold[1].key == doc.predicted[0].key


def test_sentences_of_the_gold(nlp: Language) -> None:
    doc = Doc(nlp.vocab, words="a b c d e".split(), sent_starts=[True, False, True, False, False])
    write_entities(doc, [Entity("PER", ((1, 2),)), Entity("PER", ((3, 5),))])
    (found,) = predict_corpus(nlp, find_task(nlp), [doc]).docs
    assert [m.context for m in found.gold] == [2, 3]


def test_empty_docs_and_no_docs(nlp: Language) -> None:
    empty = nlp.make_doc("")
    write_entities(empty, [])
    (doc,) = predict_corpus(nlp, find_task(nlp), [empty]).docs
    assert doc.tokens.shape == (0, 2) and not doc.gold
    with pytest.raises(ValueError, match="holds no docs"):
        predict_corpus(nlp, find_task(nlp), [])
    other = nlp.make_doc("other")
    other.spans["x"] = []
    with pytest.raises(ValueError, match=r"None of 1 docs.*doc.spans\['mtlner'\].*found: 'x'"):
        predict_corpus(nlp, find_task(nlp), [other])


def test_gold_in_ents() -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc("Ada likes Berlin")
    doc.ents = [Span(doc, 0, 1, "PER")]
    nlp.add_pipe("crf_ner", config={"model": MODEL})
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc)])
    found = predict_corpus(nlp, find_task(nlp), [doc, nlp.make_doc("nothing")])
    assert (found.source, found.n_skipped) == ("ents", 1)
    assert [m.surface for m in found.docs[0].gold] == ["Ada"]
    assert count_surfaces([doc], "mtlner", "ents") == {"Ada": Counter({"PER": 1})}


def test_components_behind_do_not_run(nlp: Language) -> None:
    called = []

    @Language.component("test_predictions_clear")
    def clear(doc: Doc) -> Doc:
        called.append(doc)
        return doc

    nlp.add_pipe("test_predictions_clear", last=True)
    try:
        predict_corpus(nlp, find_task(nlp), make_references(nlp))
        assert not called
        assert nlp.pipe_names == ["crf_ner", "test_predictions_clear"]
    finally:
        nlp.remove_pipe("test_predictions_clear")


def test_component_without_probabilities(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    task = find_task(nlp)
    method = EntityComponent.class_probabilities
    monkeypatch.setattr(type(task.component), "class_probabilities", method)
    found = predict_corpus(nlp, task, make_references(nlp))
    assert "has no probabilities of the labels" in found.why_no_probabilities
    assert all(doc.probabilities is None for doc in found.docs)


def test_choice_of_component_and_task() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    with pytest.raises(ValueError, match="no component of spacy_mtlner: sentencizer"):
        find_task(nlp)
    nlp.add_pipe("crf_ner", name="one", config={"spans_key": "x"})
    assert (find_task(nlp).name, find_task(nlp).key) == ("one", "x")
    with pytest.raises(ValueError, match="no task with the spans key 'y': it has 'x'"):
        find_task(nlp, key="y")
    tasks = {"a": "main", "b": "auxiliary"}
    nlp.add_pipe("multitask_crf_ner", name="two", config={"tasks": tasks})
    with pytest.raises(ValueError, match="--pipe: 'one', 'two'"):
        find_task(nlp)
    with pytest.raises(ValueError, match="'sentencizer' is no component"):
        find_task(nlp, "sentencizer")
    assert find_task(nlp, "two").key == "a"
    task = find_task(nlp, "two", "b")
    assert task.component.predicted_keys == ("b",)


def test_auxiliary_task() -> None:
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    config = {"tasks": {"a": "main", "b": "auxiliary"}, "model": {**MODEL, "fusion": "none"}}
    nlp.add_pipe("multitask_crf_ner", config=config)
    docs = []
    for text in ("Ada and Bob", "Bob and Ada"):
        doc = nlp.make_doc(text)
        write_entities(doc, [Entity("A", ((0, 1),))], "a")
        write_entities(doc, [Entity("B", ((2, 3),)), Entity("C", ((0, 3),))], "b")
        docs.append(doc)
    with pytest.warns(UserWarning, match="left out"):
        nlp.initialize(lambda: [make_example(nlp, doc) for doc in docs])
    task = find_task(nlp, key="b")
    found = predict_corpus(nlp, task, docs)
    assert task.labels == ("C",)
    assert found.docs[0].probabilities is not None
    assert found.docs[0].probabilities.shape == (2, 2)


def test_surfaces_of_training_data(nlp: Language) -> None:
    docs = [nlp.make_doc("not annotated"), *make_references(nlp)]
    surfaces = count_surfaces(docs, "mtlner", "spans")
    assert surfaces["New York"] == Counter({"LOC": 1})
    assert surfaces["arms … hurt"] == Counter({"PAIN": 1})
    with pytest.raises(ValueError, match=r"doc.spans\['x'\]"):
        count_surfaces(docs, "x", "spans")


def make_typing_pipeline() -> Language:
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    config = {"typing": True, "suggester": None, "candidates_key": "given"}
    model = {"context": "none", "rnn": None, "span_width": 16, "tok2vec": EMBED}
    nlp.add_pipe("span_ner", config={**config, "model": model})
    examples = [give_candidates(nlp, doc, "mtlner", "given") for doc in make_references(nlp)]
    weights = {"typing_mtlner_acc": 1.0, "spans_mtlner_f": None}
    nlp.config["training"]["score_weights"] = weights
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.02
    nlp.update(examples, sgd=optimizer)
    return nlp


def test_typing_is_no_recognition() -> None:
    """The fragments of the gold are given, and nothing is missed or spurious."""
    nlp = make_typing_pipeline()
    task = find_task(nlp)
    assert task.is_typing
    # One entity of a token that the tokenizer does not make.
    reference = Doc(nlp.vocab, words=["New", "York", "-", "based"], spaces=[True, *[False] * 3])
    write_entities(reference, [Entity("LOC", ((0, 2),))])
    references = [*make_references(nlp), reference, nlp.make_doc("not annotated")]
    found = predict_corpus(nlp, task, references)
    assert found.n_skipped == 1 and not found.why_no_probabilities
    for doc in found.docs:
        assert {m.key for m in doc.gold} == {m.key for m in doc.predicted}
        assert doc.probabilities is not None
        assert doc.probabilities.sum(1) == pytest.approx(numpy.ones(len(doc.gold)))
        assert not doc.probabilities[:, -1].any()
    analysis = analyse_entities(found.docs, labels=task.labels, is_typing=True)
    examples = [task.make_example(nlp, doc) for doc in references]
    assert analysis.score.value == pytest.approx(nlp.evaluate(examples)["typing_mtlner_acc"])
    assert {kind for kind, counts in analysis.kinds.items() if any(counts)} <= {"right", "label"}
