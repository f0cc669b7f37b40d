"""Candidates of every origin, classified: recognition and typing."""

import logging
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.util import fix_random_seed

from spacy_mtlner.entities import Entity, Fragments, read_entities, read_fragments, write_entities
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.pipeline.span_ner import SpanEntityRecognizer
from spacy_mtlner.pipeline.suggesters import make_boundary_suggester
from spacy_mtlner.training.gold_candidates import make_gold_candidates

from .builders import overfit

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 32,
    "attrs": ["NORM", "SHAPE"],
    "rows": [200, 50],
    "include_static_vectors": False,
}
CNN = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 32,
    "depth": 2,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": False,
}
NGRAMS = {"@misc": "spacy.ngram_range_suggester.v1", "min_size": 1, "max_size": 5}
BOUNDARIES = {
    "@misc": "spacy_mtlner.boundary_suggester.v1",
    "max_length": 5,
    "per_token": 2.0,
}
Found = list[tuple[str, Fragments]]


@Language.component("mark_all", assigns=["doc.spans"])
def mark_all(doc: Doc) -> Doc:
    doc.spans["given"] = [doc[i : i + 1] for i in range(len(doc))]
    return doc


Language.component("mark_all_silently", func=mark_all)

# Nested entities of one type and of two types, and entities that share a start.
TRAIN: list[tuple[str, Found]] = [
    ("the king of France slept", [("PER", ((0, 4),)), ("LOC", ((3, 4),))]),
    ("my aunt 's old dog barked", [("PER", ((0, 2),)), ("ANI", ((0, 5),))]),
    ("New York City Hall", [("LOC", ((0, 4),)), ("LOC", ((0, 3),)), ("LOC", ((0, 2),))]),
    ("nothing to find here", []),
    ("", []),
    ("dog", [("ANI", ((0, 1),))]),
    (" \n ", []),
]
BROKEN: list[tuple[str, Found]] = [
    ("pain in knees and hips", [("PAIN", ((0, 3),)), ("PAIN", ((0, 2), (4, 5)))]),
    ("rash on arms or legs", [("SKIN", ((0, 3),)), ("SKIN", ((0, 2), (4, 5)))]),
]


def make_example(nlp: Language, text: str, found: Found, key: str = "mtlner") -> Example:
    reference = nlp.make_doc(text)
    write_entities(reference, [Entity(label, place) for label, place in found], key)
    return Example(nlp.make_doc(text), reference)


def make_examples(nlp: Language, data: Iterable[tuple[str, Found]] = tuple(TRAIN)) -> list[Example]:
    return [make_example(nlp, text, found) for text, found in data]


def add_spans(nlp: Language, name: str = "span_ner", **config: Any) -> SpanEntityRecognizer:
    model = {"tok2vec": EMBED, "hidden_width": 32, "span_width": 32, **config.pop("model", {})}
    defaults = {"suggester": BOUNDARIES, "model": model}
    component = nlp.add_pipe("span_ner", name=name, config={**defaults, **config})
    assert isinstance(component, SpanEntityRecognizer)
    return component


def make_nlp(**config: Any) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_spans(nlp, **config)
    return nlp


def train(nlp: Language, examples: list[Example], steps: int = 80) -> Language:
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(steps):
        nlp.update(examples, sgd=optimizer)
    return nlp


def score_update(component: SpanEntityRecognizer, examples: list[Example]) -> Any:
    """What the model says of an update's candidates, without dropout."""
    inputs = component.make_training_inputs(examples, component.read_golds(examples))
    return component.model(inputs, is_train=False)[0]


def give_gold(nlp: Language, examples: list[Example]) -> list[Example]:
    """The examples with the gold boundaries as candidates."""
    return list(make_gold_candidates(lambda _: examples, "mtlner", "given")(nlp))


def get_component(nlp: Language) -> SpanEntityRecognizer:
    component = nlp.get_pipe("span_ner")
    assert isinstance(component, SpanEntityRecognizer)
    return component


def entities_of(doc: Doc) -> list[tuple[Entity, Any]]:
    return [(entity, pytest.approx(entity.score, abs=1e-5)) for entity in read_entities(doc)]


@pytest.fixture(scope="module")
def trained() -> Language:
    nlp = make_nlp()
    return train(nlp, make_examples(nlp))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"suggester": NGRAMS},
        {"suggester": NGRAMS, "negative_ratio": 3.0},
        {"model": {"rnn": None, "tok2vec": CNN}},
        {"negative_ratio": 2.0, "model": {"rnn": "gru"}},
    ],
)
def test_overfits_nested_entities(config: dict[str, Any]) -> None:
    nlp = make_nlp(**config)
    overfit(nlp, make_examples(nlp))
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["spans_mtlner_f"] == scores["spans_mtlner_nested_f"] == 1.0
    for text, found in TRAIN:
        predicted = read_entities(nlp(text))
        assert {(e.label, e.fragments) for e in predicted} == set(found)
        assert all(0.5 <= entity.score <= 1 for entity in predicted)


@pytest.mark.parametrize("suggester", [NGRAMS, BOUNDARIES])
def test_empty_docs_are_ordinary_input(suggester: dict[str, Any]) -> None:
    nlp = make_nlp(suggester=suggester)
    optimizer = nlp.initialize(lambda: make_examples(nlp))
    empty = [make_example(nlp, "", [])] * 2
    assert nlp.update(empty, sgd=optimizer)["span_ner"] == 0.0
    nlp.update([*empty, *make_examples(nlp)], sgd=optimizer)
    for doc in nlp.pipe(["", "", " ", "\n\n"]):
        assert list(doc.spans) == ["mtlner"]
    component = get_component(nlp)
    assert component.propose([Doc(nlp.vocab)]) == [[]]
    assert component.class_probabilities([], []) == []
    assert component.class_probabilities([Doc(nlp.vocab)], [[]])[0].shape == (0, 4)


def test_score_is_the_classes_probability(trained: Language) -> None:
    component = get_component(trained)
    doc = trained("the king of France slept")
    entities = read_entities(doc)
    # Whatever the label that is asked with, and whether the span is proposed or not.
    asked = [Entity("X", entity.fragments) for entity in entities] + [Entity("X", ((1, 5),))]
    (table,) = component.class_probabilities([doc], [asked])
    assert table.shape == (len(entities) + 1, len(component.labels) + 1)
    numpy.testing.assert_allclose(table.sum(1), 1, atol=1e-5)
    for row, entity in zip(table, entities, strict=False):
        assert row[component.labels.index(entity.label)] == pytest.approx(entity.score, abs=1e-5)
    assert table[-1, -1] > 0.5


def test_class_probabilities_of_several_docs(trained: Language) -> None:
    component = get_component(trained)
    docs = list(trained.pipe([text for text, _ in TRAIN]))
    entities = [read_entities(doc) for doc in docs]
    together = component.class_probabilities(docs, entities)
    assert [len(table) for table in together] == [len(found) for found in entities]
    for doc, found, table in zip(docs, entities, together, strict=True):
        numpy.testing.assert_allclose(
            component.class_probabilities([doc], [found])[0], table, atol=1e-5
        )


def test_spans_outside_their_doc_have_no_probabilities(trained: Language) -> None:
    doc = trained.make_doc("dog")
    with pytest.raises(ValueError, match="ends outside its doc, which has 1 tokens"):
        get_component(trained).class_probabilities([doc], [[Entity("X", ((0, 2),))]])


def test_threshold_keeps_the_sure_ones(trained: Language) -> None:
    component = get_component(trained)
    doc = trained("the king of France slept near New York")
    scores = sorted(entity.score for entity in read_entities(doc))
    component.cfg["threshold"] = 0.0
    try:
        everything = read_entities(trained(doc.text))
    finally:
        component.cfg["threshold"] = 0.5
    (candidates,) = component.propose([doc])
    assert len(everything) == len(candidates) * len(component.labels)
    assert sorted(e.score for e in everything if e.score >= 0.5) == pytest.approx(scores, abs=1e-5)


def test_proposes_per_token(trained: Language) -> None:
    docs = [trained.make_doc(text) for text, _ in TRAIN]
    for doc, found in zip(docs, get_component(trained).propose(docs), strict=True):
        n_spans = sum(min(5, len(doc) - i) for i in range(len(doc)))
        assert len(set(found)) == len(found) == min(2 * len(doc), n_spans)
        assert all(0 <= a < b <= min(a + 5, len(doc)) for ((a, b),) in found)


def test_number_of_proposals_is_a_setting_of_loading(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path)
    config = {"components": {"span_ner": {"suggester": {"per_token": 1.0}}}}
    loaded = spacy.load(tmp_path, config=config)
    doc = loaded.make_doc("the king of France slept")
    (few,), (more,) = (get_component(nlp).propose([doc]) for nlp in (loaded, trained))
    assert few == more[: len(doc)] and len(more) == 2 * len(doc)


def test_longest_proposal_is_no_setting_of_loading(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path)
    config = {"components": {"span_ner": {"suggester": {"max_length": 9}}}}
    loaded = spacy.load(tmp_path, config=config)
    message = "trained with boundaries of spans of up to 5 tokens, .* max_length = 9"
    with pytest.raises(ValueError, match=message):
        loaded("the king of France slept")
    with pytest.raises(ValueError, match=message):
        loaded.update(make_examples(loaded))


def test_entities_of_several_labels_share_their_candidate() -> None:
    nlp = make_nlp(suggester=NGRAMS, threshold=0.3)
    both = [("LOC", ((0, 1),)), ("PER", ((0, 1),))]
    data: list[tuple[str, Found]] = [("Paris sings", [*both]), ("nothing here", [])]
    train(nlp, make_examples(nlp, data))
    entities = read_entities(nlp("Paris sings"))
    assert [(e.label, e.fragments) for e in entities] == both
    assert [e.score for e in entities] == pytest.approx([0.5, 0.5], abs=0.1)


def test_add_label_enlarges_a_trained_component(trained: Language) -> None:
    loaded = pickle.loads(pickle.dumps(trained))
    component = get_component(loaded)
    assert component.add_label("NEW") == 1 and component.add_label("NEW") == 0
    asked = [Entity("X", ((0, 4),)), Entity("X", ((1, 3),))]
    doc = loaded.make_doc("the king of France slept")
    (before,) = get_component(trained).class_probabilities([doc], [asked])
    (after,) = component.class_probabilities([doc], [asked])
    assert after.shape[1] == before.shape[1] + 1
    ratios = after[:, [0, 1, 2, 4]] / before  # The new label takes its share from all others.
    numpy.testing.assert_allclose(ratios, ratios[:, :1].repeat(4, 1), rtol=1e-3)
    data: list[tuple[str, Found]] = [("a red fish swims", [("NEW", ((1, 3),))])]
    examples = make_examples(loaded, [*data, *TRAIN])
    overfit(loaded, examples, optimizer=loaded.resume_training(), most=60)
    assert loaded.evaluate(make_examples(loaded, [*data, *TRAIN]))["spans_mtlner_f"] == 1.0


# Candidates of another component


def make_cascade(annotating: list[str], **config: Any) -> Language:
    """A span_ruler marks spans of one to five words that begin with certain ones."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.config["training"]["annotating_components"] = annotating
    nlp.add_pipe("span_ruler", config={"spans_key": "given"})
    starts = {"LOWER": {"IN": ["the", "my", "new", "dog", "france"]}}
    patterns = [{"label": "x", "pattern": [starts, *[{} for _ in range(n)]]} for n in range(5)]
    nlp.config["initialize"]["components"]["span_ruler"] = {"patterns": patterns}
    add_spans(nlp, suggester=None, candidates_key="given", **config)
    return nlp


def test_learns_from_what_another_component_suggests() -> None:
    nlp = make_cascade(["span_ruler"])
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(80):
        nlp.update(examples, sgd=optimizer, annotates=["span_ruler"])
    assert nlp.evaluate(make_examples(nlp))["spans_mtlner_f"] == 1.0
    doc = nlp("the king of France slept")
    assert {e.fragments for e in read_entities(doc)} < set(read_fragments(doc, "given"))


def test_source_of_the_candidates_is_checked() -> None:
    nlp = make_cascade([])
    with pytest.raises(ValueError, match=r"'span_ruler' writes: add it to annotating_components"):
        nlp.initialize(lambda: make_examples(nlp))
    nlp = make_nlp(suggester=None, candidates_key="given")
    with pytest.raises(ValueError, match=r"no component before it writes doc.spans\['given'\]"):
        nlp.initialize(lambda: make_examples(nlp))


@pytest.mark.parametrize("how", ["frozen", "sourced"])
def test_a_source_that_training_disables_is_found(how: str, tmp_path: Path) -> None:
    """As `spacy train` does with frozen and sourced components, while it initialises the others."""
    nlp = make_cascade(["span_ruler"])
    nlp.initialize(lambda: make_examples(nlp))
    DocBin(docs=[example.reference for example in make_examples(nlp)]).to_disk(tmp_path / "c.spacy")
    nlp.to_disk(tmp_path / "before")
    config = nlp.config.copy()
    config["paths"] = {
        "vectors": None,
        "init_tok2vec": None,
        "train": str(tmp_path / "c.spacy"),
        "dev": str(tmp_path / "c.spacy"),
    }
    config["initialize"]["components"] = {}
    if how == "sourced":
        config["components"]["span_ruler"] = {"source": str(tmp_path / "before")}
    else:
        config["training"]["frozen_components"] = ["span_ruler"]
    made = init_nlp(config)
    assert get_component(made).is_initialized


def test_a_component_that_does_not_tell_its_key_may_be_the_source() -> None:
    nlp = make_nlp(suggester=None, candidates_key="given")
    nlp.config["training"]["annotating_components"] = ["mark_all"]
    nlp.add_pipe("mark_all", first=True)
    nlp.initialize(lambda: make_examples(nlp))
    nlp.remove_pipe("mark_all")
    nlp.add_pipe("mark_all_silently", name="mark_all", first=True)
    with pytest.raises(ValueError, match=r"must name doc\.spans among what it assigns"):
        nlp.initialize(lambda: make_examples(nlp))


def test_a_suggester_that_reads_other_spans_is_not_counted_before_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    preset = {"@misc": "spacy.preset_spans_suggester.v1", "spans_key": "given"}
    nlp = make_nlp(suggester=preset)
    with caplog.at_level(logging.INFO, logger="spacy"):
        nlp.initialize(lambda: make_examples(nlp))
    assert "not counted yet" in caplog.text


def test_docs_without_candidates_are_an_error() -> None:
    nlp = make_cascade(["span_ruler"])
    optimizer = nlp.initialize(lambda: make_examples(nlp))
    with pytest.raises(ValueError, match="candidates_key, is missing in 'the king of France slept"):
        nlp.update(make_examples(nlp), sgd=optimizer)
    nlp.remove_pipe("span_ruler")
    with pytest.raises(ValueError, match="is missing in 'a text'"):
        nlp("a text")
    assert list(nlp("").spans) == ["mtlner"]


def test_candidates_without_tokens_are_an_error() -> None:
    nlp = make_nlp(suggester=None, candidates_key="given")
    examples = give_gold(nlp, make_examples(nlp))
    nlp.initialize(lambda: examples)
    doc = nlp.make_doc("the king slept")
    doc.spans["given"] = [doc[0:2], doc[3:3]]
    with pytest.raises(ValueError, match=r"has a span without tokens at token 3 of the doc 'the k"):
        nlp(doc)


def test_discontinuous_candidates_of_the_reader() -> None:
    nlp = make_nlp(suggester=None, candidates_key="given")
    examples = give_gold(nlp, make_examples(nlp, BROKEN))
    # One that is no entity, beside the gold ones.
    for example in examples:
        given = read_entities(example.predicted, "given")
        given.append(Entity("candidate", ((1, 2), (3, 5))))
        write_entities(example.predicted, given, "given")
    train(nlp, examples)
    scores = nlp.evaluate(examples)
    assert scores["spans_mtlner_f"] == scores["spans_mtlner_discontinuous_f"] == 1.0


# Typing


def make_typing() -> Language:
    nlp = make_nlp(suggester=None, candidates_key="given", typing=True)
    weights = {"typing_mtlner_acc": 1.0, **dict.fromkeys(("spans_mtlner_f",))}
    nlp.config["training"]["score_weights"] = weights
    return nlp


def test_typing_has_scores_of_its_own() -> None:
    nlp = make_typing()
    data = [*TRAIN, *BROKEN]
    train(nlp, make_examples(nlp, data))
    examples = give_gold(nlp, make_examples(nlp, data))
    scores = nlp.evaluate(examples)
    assert scores["typing_mtlner_acc"] == scores["typing_mtlner_macro_f"] == 1.0
    assert set(scores["typing_mtlner_per_type"]) == {"ANI", "LOC", "PAIN", "PER", "SKIN"}
    assert not any(name.startswith("spans_") for name in scores)
    component = get_component(nlp)
    (table,) = component.class_probabilities([nlp.make_doc("dog")], [[Entity("X", ((0, 1),))]])
    assert table.shape == (1, 6) and table[0, -1] == 0


def test_typing_gives_every_candidate_its_best_label() -> None:
    nlp = make_typing()
    nlp.initialize(lambda: make_examples(nlp))
    doc = nlp.make_doc("one two  three")
    assert doc[2].is_space
    places: list[Fragments] = [((0, 1),), ((0, 1), (3, 4)), ((1, 3),)]  # The last as it is.
    write_entities(doc, [Entity("candidate", place) for place in places], "given")
    doc = get_component(nlp)(doc)
    entities = read_entities(doc)
    assert sorted(e.fragments for e in entities) == sorted(places)
    assert all(e.score >= 1 / 3 for e in entities)  # The best of three labels.


def test_typing_needs_no_component_that_suggests() -> None:
    nlp = make_typing()
    nlp.initialize(lambda: make_examples(nlp))
    with pytest.raises(ValueError, match="is missing in 'dog'"):
        nlp.evaluate(make_examples(nlp, TRAIN[-2:]))


def test_score_weights_of_typing_and_recognition_are_told_apart() -> None:
    nlp = make_nlp(suggester=None, candidates_key="given", typing=True)
    with pytest.warns(UserWarning, match="Scores of span_ner: typing_mtlner_acc, typing_mtlner_m"):
        nlp.initialize(lambda: make_examples(nlp))


def test_without_context_neighbours_do_not_matter() -> None:
    model = {"context": "none", "rnn": None}
    nlp = make_nlp(suggester=NGRAMS, model=model)
    train(nlp, make_examples(nlp), steps=5)
    component = get_component(nlp)
    tables = [
        component.class_probabilities([nlp.make_doc(text)], [[Entity("X", ((2, 4),))]])[0]
        for text in ("in the old dog sat", "b c old dog", "1 2 old dog , 3")
    ]
    numpy.testing.assert_allclose(tables[1:], tables[:1] * 2, atol=1e-5)


def test_a_listener_is_no_embedding() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": CNN})
    tok2vec = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32}
    add_spans(nlp, suggester=NGRAMS, model={"context": "none", "rnn": None, "tok2vec": tok2vec})
    with pytest.raises(ValueError, match="and no listener"):
        nlp.initialize(lambda: make_examples(nlp))


def test_context_is_refused_where_none_is_wanted() -> None:
    nlp = make_nlp(suggester=NGRAMS, model={"context": "none", "rnn": None, "tok2vec": CNN})
    with pytest.raises(ValueError, match="this one sees the tokens beside it"):
        nlp.initialize(lambda: make_examples(nlp))


# What is learned from which docs


def test_docs_without_the_key_teach_nothing() -> None:
    for suggester in (NGRAMS, BOUNDARIES):
        nlp = make_nlp(suggester=suggester)
        nlp.initialize(lambda nlp=nlp: make_examples(nlp))
        component = get_component(nlp)
        other = make_example(nlp, "the king of Spain", [("PER", ((0, 4),))], key="other")
        known = make_examples(nlp, TRAIN[:2])

        def find_loss(
            examples: list[Example], component: SpanEntityRecognizer = component
        ) -> float:
            scores = score_update(component, examples)
            return component.get_loss(examples, scores)[0]

        assert find_loss([other]) == 0.0
        assert find_loss([known[0], other, known[1]]) == pytest.approx(find_loss(known), rel=1e-4)


def test_tokens_of_unknown_gold_do_not_count() -> None:
    nlp = make_nlp(suggester=NGRAMS, gold="ents")
    reference = nlp.make_doc("the king of France slept")
    reference.set_ents([reference.char_span(12, 18, "LOC")], missing=[reference[0:3]])
    example = Example(nlp.make_doc(reference.text), reference)
    nlp.initialize(lambda: [example])
    component = get_component(nlp)
    scores, _ = component.model(
        component.make_training_inputs([example], component.read_golds([example])), is_train=False
    )
    _, d_scores = component.get_loss([example], scores)
    firsts = scores.tokens[scores.sizes.cumsum(0) - scores.sizes]
    moved = d_scores.logits.abs().sum(1) > 0
    assert moved.any() and (moved == (firsts >= 3)).all()


def test_loss_is_weighted_by_sample() -> None:
    nlp = make_nlp()
    nlp.initialize(lambda: make_examples(nlp))
    component = get_component(nlp)

    def find_loss(weight: float) -> float:
        example = make_example(nlp, *TRAIN[0])
        example.reference.user_data["mtlner_weight"] = weight
        scores, _ = component.model(
            component.make_training_inputs([example], component.read_golds([example])),
            is_train=False,
        )
        return component.get_loss([example], scores)[0]

    assert find_loss(0.25) == pytest.approx(0.25 * find_loss(1.0), rel=1e-4)
    assert find_loss(0.0) == 0.0


def test_scores_of_prediction_are_refused_by_the_loss(trained: Language) -> None:
    component = get_component(trained)
    (example,) = make_examples(trained, TRAIN[:1])
    inputs = component.make_inputs([example.predicted], is_train=False)
    scores = component.model.predict(inputs)
    with pytest.raises(ValueError, match="not of an update"):
        component.get_loss([example], scores)


def test_gold_longer_than_what_was_proposed_is_learned_by_other_suggesters(
    trained: Language, tmp_path: Path
) -> None:
    trained.to_disk(tmp_path)
    grams = {"components": {"span_ner": {"suggester": {**NGRAMS, "max_size": 7}}}}
    loaded = spacy.load(tmp_path, config=grams)
    data: list[tuple[str, Found]] = [("a b c d e f", [("LOC", ((0, 6),))])]
    examples = make_examples(loaded, [*data, *TRAIN])
    overfit(loaded, examples, optimizer=loaded.resume_training(), most=60)
    assert loaded.evaluate(examples)["spans_mtlner_f"] == 1.0


def test_same_seed_same_negatives() -> None:
    def weights() -> list[Any]:
        nlp = make_nlp(negative_ratio=1.0, suggester=NGRAMS)
        train(nlp, make_examples(nlp), steps=4)
        layer = get_component(nlp).model.get_ref("output_layer")
        return [p.detach().numpy() for p in get_module_shim(layer).module.parameters()]

    for a, b in zip(weights(), weights(), strict=True):
        numpy.testing.assert_array_equal(a, b)


def test_what_cannot_be_suggested_is_counted() -> None:
    nlp = make_nlp()
    data = [*TRAIN, *BROKEN, ("a b c d e f", [("LOC", ((0, 6),))])]
    message = "3 gold entities are left out: the component learns contiguous ones of at most 5"
    with pytest.warns(UserWarning, match=message):
        nlp.initialize(lambda: make_examples(nlp, data))


def test_lengths_of_proposed_spans_begin_as_those_of_the_gold() -> None:
    nlp = make_nlp()
    nlp.initialize(lambda: make_examples(nlp))
    layer = get_component(nlp).model.get_ref("output_layer")
    shares = torch.exp(get_module_shim(layer).module.lengths.detach()).tolist()
    assert shares == pytest.approx([n / 10.5 for n in (2.5, 2.5, 1.5, 2.5, 1.5)], rel=1e-5)


def test_candidates_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    short = {**NGRAMS, "max_size": 2}
    nlp = make_nlp(suggester=short)
    with caplog.at_level(logging.INFO, logger="spacy"):
        nlp.initialize(lambda: make_examples(nlp))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "span_ner: 1.7 candidates a token, 50.0 % of 8 gold entities among them. What is not among "
        "them cannot be found: suggest spans of up to 5 tokens, or use "
        "spacy_mtlner.boundary_suggester.v1."
    ]


def test_advice_where_candidates_are_long_enough(caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"@misc": "spacy.ngram_suggester.v1", "sizes": [1, 5, 6]}
    nlp = make_nlp(suggester=sizes)
    with caplog.at_level(logging.WARNING, logger="spacy"):
        nlp.initialize(lambda: make_examples(nlp, [*TRAIN, ("a b c d e f g", [])]))
    assert "found: use spacy_mtlner.boundary_suggester.v1." in caplog.text


def test_good_candidates_bring_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    nlp = make_nlp(suggester={**NGRAMS, "max_size": 5})
    with caplog.at_level(logging.INFO, logger="spacy"):
        nlp.initialize(lambda: make_examples(nlp))
    assert "100.0 % of 8 gold entities" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@pytest.mark.parametrize(
    "config, message",
    [
        ({"suggester": None}, "either a suggester or a candidates_key"),
        ({"suggester": None, "candidates_key": ""}, "either a suggester or a candidates_key"),
        ({"candidates_key": "given"}, "either a suggester or a candidates_key"),
        ({"typing": True}, "set suggester = null"),
        ({"suggester": None, "candidates_key": "mtlner"}, "must differ from spans_key"),
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\]"),
        ({"negative_ratio": 0.0}, "negative_ratio must be above 0"),
        ({"model": {"context": "all"}}, "'all' is not"),
        ({"model": {"context": "none"}}, "rnn must be null with context = 'none'"),
        ({"model": {"span_width": 5}}, "span_width must be even"),
        ({"suggester": {**BOUNDARIES, "max_length": 0}}, "max_length must be at least 1"),
    ],
)
def test_refuses_wrong_settings(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_nlp(**config)


def test_boundary_suggester_works_here_alone() -> None:
    with pytest.raises(ValueError, match="spancat needs another suggester"):
        make_boundary_suggester()([])


@pytest.mark.parametrize("listener", ["tok2vec", "transformer"])
def test_learns_over_a_shared_encoder(
    listener: str, tmp_path: Path, tiny_bert: Callable[[Path], str]
) -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    if listener == "tok2vec":
        nlp.add_pipe("tok2vec", config={"model": EMBED})
        tok2vec = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32}
    else:
        spans = {"@span_getters": "spacy-transformers.doc_spans.v1"}
        model = {
            "@architectures": "spacy-transformers.TransformerModel.v3",
            "name": tiny_bert(tmp_path),
            "tokenizer_config": {"use_fast": True, "model_max_length": 64},
            "get_spans": spans,
        }
        nlp.add_pipe("transformer", config={"model": model})
        tok2vec = {
            "@architectures": "spacy-transformers.TransformerListener.v1",
            "grad_factor": 1.0,
            "pooling": {"@layers": "reduce_mean.v1"},
            "upstream": "*",
        }
    add_spans(nlp, model={"tok2vec": tok2vec})
    examples = make_examples(nlp, [pair for pair in TRAIN if pair[0].strip()])
    overfit(nlp, examples, learn_rate=0.005, most=100)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert entities_of(loaded(TRAIN[0][0])) == entities_of(nlp(TRAIN[0][0]))


def test_long_doc(trained: Language) -> None:
    text = "the king of France slept and " * 400
    entities = read_entities(trained(text))
    assert {e.label for e in entities if e.end - e.start == 4} == {"PER"}
    assert len(entities) >= 400
