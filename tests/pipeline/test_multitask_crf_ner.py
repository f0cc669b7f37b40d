"""Several tasks over one encoder, each learned from the docs that are annotated for it."""

import copy
import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.pipeline.multitask_crf_ner import MultiTaskEntityRecognizer
from spacy_mtlner.pipeline.tagging import tag_loss

from .builders import overfit

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 32,
    "attrs": ["NORM", "SHAPE"],
    "rows": [200, 50],
    "include_static_vectors": False,
}
TASKS = {"food": "auxiliary", "places": "main"}
Spans = list[tuple[str, int, int]]
# "Berlin" is a place to one task, and, as a doughnut, food to the other.
PLACES: list[tuple[str, Spans]] = [
    ("I like London and Berlin .", [("CITY", 2, 3), ("CITY", 4, 5)]),
    ("Angela went to New York City", [("CITY", 3, 6)]),
    ("France is near Spain", [("LAND", 0, 1), ("LAND", 3, 4)]),
    ("bread and butter", []),
    ("", []),
]
FOOD: list[tuple[str, Spans]] = [
    ("a Berlin and coffee please", [("DISH", 1, 2), ("DRINK", 3, 4)]),
    ("bread and butter", [("DISH", 0, 1), ("DISH", 2, 3)]),
    ("nothing in Spain", []),
    (" \n ", []),
]


def make_example(nlp: Language, text: str, gold: dict[str, Spans], weight: float = 1.0) -> Example:
    reference = nlp.make_doc(text)
    for key, spans in gold.items():
        entities = [Entity(label, ((start, end),)) for label, start, end in spans]
        write_entities(reference, entities, key)
    if weight != 1.0:
        reference.user_data[WEIGHT] = weight
    return Example(nlp.make_doc(text), reference)


def make_examples(nlp: Language) -> list[Example]:
    examples = [make_example(nlp, text, {"places": spans}) for text, spans in PLACES]
    examples += [make_example(nlp, text, {"food": spans}) for text, spans in FOOD]
    return examples


def make_nlp(tasks: Mapping[str, str | None] = TASKS, **config: Any) -> Language:
    nlp = spacy.blank("en")
    model = {"tok2vec": EMBED, "hidden_width": 32, **config.pop("model", {})}
    nlp.add_pipe("multitask_crf_ner", config={"tasks": tasks, "model": model, **config})
    return nlp


def get_component(nlp: Language) -> MultiTaskEntityRecognizer:
    component = nlp.get_pipe("multitask_crf_ner")
    assert isinstance(component, MultiTaskEntityRecognizer)
    return component


def train(nlp: Language, examples: list[Example], steps: int = 60) -> Language:
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(steps):
        nlp.update(examples, sgd=optimizer)
    return nlp


def found(doc: Doc, key: str) -> Spans:
    return [(entity.label, entity.start, entity.end) for entity in read_entities(doc, key)]


def get_heads(nlp: Language) -> Any:
    return get_module_shim(get_component(nlp).model.get_ref("output_layer")).module.heads


def get_weights(component: MultiTaskEntityRecognizer) -> list[Any]:
    nodes = list(component.model.walk())
    weights = [node.get_param(name).copy() for node in nodes for name in node.param_names]
    module = get_module_shim(component.model.get_ref("output_layer")).module
    return weights + [parameter.detach().clone().numpy() for parameter in module.parameters()]


@pytest.fixture(scope="module")
def trained() -> Language:
    fix_random_seed(0)
    nlp = make_nlp(predicted_tasks="all")
    return train(nlp, make_examples(nlp))


@pytest.mark.parametrize("fusion", ["attention", "none"])
@pytest.mark.parametrize("rnn", ["lstm", None])
def test_overfits_both_tasks(fusion: str, rnn: str | None) -> None:
    fix_random_seed(0)
    nlp = make_nlp(predicted_tasks="all", model={"fusion": fusion, "rnn": rnn})
    overfit(nlp, make_examples(nlp), *TASKS)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["spans_places_f"] == scores["spans_food_f"] == 1.0
    assert set(scores["spans_food_per_type"]) == {"DISH", "DRINK"}
    doc = nlp("a Berlin and coffee please")
    assert found(doc, "food") == [("DISH", 1, 2), ("DRINK", 3, 4)]
    assert "mtlner" not in doc.spans


def test_labels(trained: Language) -> None:
    component = get_component(trained)
    assert component.keys == ("places", "food")
    assert component.label_data == {"places": ["CITY", "LAND"], "food": ["DISH", "DRINK"]}
    assert component.labels == ("CITY", "LAND", "DISH", "DRINK")


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_saves_and_loads(trained: Language, way: str, tmp_path: Path) -> None:
    if way == "disk":
        trained.to_disk(tmp_path)
        loaded = spacy.load(tmp_path)
    elif way == "bytes":
        loaded = make_nlp(predicted_tasks="all").from_bytes(trained.to_bytes())
    else:
        loaded = pickle.loads(pickle.dumps(trained))
    assert get_component(loaded).cfg == get_component(trained).cfg
    for text, _ in PLACES + FOOD:
        for key in TASKS:
            assert read_entities(loaded(text), key) == read_entities(trained(text), key)
            assert loaded(text).spans[key].attrs == trained(text).spans[key].attrs


@pytest.mark.parametrize(("predicted", "keys"), [("main", ["places"]), ("food", ["food"])])
def test_predicts_one_task_without_running_the_other(
    trained: Language, tmp_path: Path, predicted: str, keys: list[str]
) -> None:
    trained.to_disk(tmp_path)
    nlp = spacy.load(tmp_path)
    get_component(nlp).predicted_tasks = predicted
    runs = []
    for task, head in enumerate(get_heads(nlp)):
        head.register_forward_hook(lambda *_, task=task: runs.append(task))
    docs = list(nlp.pipe(text for text, _ in PLACES + FOOD))
    assert {key for doc in docs for key in doc.spans} == set(keys)
    assert set(runs) == {get_component(nlp).keys.index(keys[0])}
    for doc in docs:
        assert found(doc, keys[0]) == found(trained(doc.text), keys[0])
    assert set(nlp.evaluate(make_examples(nlp))) & {"spans_places_f", "spans_food_f"} == {
        f"spans_{keys[0]}_f"
    }


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_pipe_equals_call_whatever_the_batch(trained: Language, batch_size: int) -> None:
    texts = [text for text, _ in PLACES + FOOD] * 2 + ["Berlin " * 40, "", " "]
    for doc, text in zip(trained.pipe(texts, batch_size=batch_size), texts, strict=True):
        for key in TASKS:
            assert found(doc, key) == found(trained(text), key)


@pytest.mark.parametrize("texts", [[], [""], ["", ""], [" "], [" \n ", ""]])
def test_docs_without_words(trained: Language, texts: list[str]) -> None:
    for doc in trained.pipe(texts):
        assert {key: found(doc, key) for key in doc.spans} == {"places": [], "food": []}


def test_sentences_of_one_task_leave_the_other_head_as_it_is() -> None:
    """Not even the optimizer's momentum moves it."""
    nlp = make_nlp()
    train(nlp, make_examples(nlp), steps=2)
    heads = get_heads(nlp)
    text, spans = PLACES[0]
    optimizer = Adam(0.01)
    nlp.update(make_examples(nlp), sgd=optimizer)
    before = [[p.clone() for p in head.parameters()] for head in heads]
    for _ in range(2):
        nlp.update([make_example(nlp, text, {"places": spans})], sgd=optimizer)
    moved = [
        any(not torch.equal(old, new) for old, new in zip(weights, head.parameters(), strict=True))
        for weights, head in zip(before, heads, strict=True)
    ]
    assert moved == [True, False]


def test_order_and_batching_do_not_change_the_loss() -> None:
    """The sum of w_i l_i, whatever the batches: by the number of annotations in each."""
    fix_random_seed(0)
    nlp = make_nlp()
    train(nlp, make_examples(nlp), steps=1)
    component = get_component(nlp)
    examples = make_examples(nlp)
    examples.append(make_example(nlp, "bread in Spain", {"places": [], "food": []}, weight=0.3))

    def total(batches: list[list[Example]]) -> float:
        loss = 0.0
        for batch in batches:
            scores, _ = component.model.begin_update(
                component.make_training_inputs(batch, component.read_golds(batch))
            )
            value, _ = component.get_loss(batch, scores)
            loss += value * sum(len(example.reference.spans) for example in batch)
        return loss

    expected = total([examples])
    assert expected > 0
    assert total([[example] for example in examples]) == pytest.approx(expected, rel=1e-4)
    random.Random(0).shuffle(examples)
    assert total([examples]) == pytest.approx(expected, rel=1e-4)
    assert total([examples[:4], examples[4:]]) == pytest.approx(expected, rel=1e-4)


def test_weights_scale_the_sentences_losses() -> None:
    nlp = make_nlp()
    train(nlp, make_examples(nlp), steps=1)
    component = get_component(nlp)

    def loss(*weights: float) -> float:
        texts = (PLACES[0], PLACES[2])
        batch = [
            make_example(nlp, text, {"places": spans}, weight)
            for (text, spans), weight in zip(texts, weights, strict=True)
        ]
        scores, _ = component.model.begin_update(
            component.make_training_inputs(batch, component.read_golds(batch))
        )
        return component.get_loss(batch, scores)[0]

    assert loss(0.25, 0.5) == pytest.approx(0.25 * loss(1, 0) + 0.5 * loss(0, 1), rel=1e-5)
    assert loss(0.0, 0.0) == 0.0


def test_unannotated_docs_teach_nothing() -> None:
    fix_random_seed(0)
    nlp = make_nlp()
    train(nlp, make_examples(nlp), steps=1)
    component = get_component(nlp)
    before = get_weights(component)
    losses: dict[str, float] = {}
    example = make_example(nlp, "London", {})
    optimizer = Adam(0.01, L2=0.0)
    others = make_example(nlp, "Berlin", {"other": []})
    nlp.update([example, others], sgd=optimizer, losses=losses)
    assert losses == {"multitask_crf_ner": 0.0}
    nlp.update([example], sgd=optimizer)
    for old, new in zip(before, get_weights(component), strict=True):
        numpy.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_encoder_reads_each_sentence_once_whatever_the_tasks(
    n_tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["places", "food", "names"][:n_tasks]
    nlp = make_nlp({key: "auxiliary" if i else "main" for i, key in enumerate(keys)})
    gold: Spans = [("X", 0, 1)]
    texts = ["bread in Spain", "Ada and I", "London", ""]
    examples = [
        make_example(nlp, text, {keys[i % n_tasks]: gold[: len(text)]})
        for i, text in enumerate(texts)
    ]
    examples.append(make_example(nlp, "a Berlin please", {key: gold for key in keys}))
    train(nlp, examples, steps=1)
    tok2vec = get_component(nlp).model.layers[0]
    read: list[str] = []
    forward = tok2vec._func

    def reading(model: Any, docs: list[Doc], is_train: bool) -> Any:
        read.extend(doc.text for doc in docs)
        return forward(model, docs, is_train)

    monkeypatch.setattr(tok2vec, "_func", reading)
    nlp.update(examples)
    assert sorted(read) == sorted([*texts, "a Berlin please"])


def test_tasks_may_share_a_label() -> None:
    """Each learns its own meaning of it."""
    fix_random_seed(0)
    nlp = make_nlp(predicted_tasks="all")
    text = "a Berlin in London"
    spans: dict[str, Spans] = {"food": [("THING", 1, 2)], "places": [("THING", 3, 4)]}
    train(nlp, [make_example(nlp, text, {key: spans[key]}) for key in spans], steps=40)
    assert get_component(nlp).labels == ("THING",)
    assert {key: found(nlp(text), key) for key in spans} == spans


def test_one_task_alone_equals_its_crf_loss() -> None:
    nlp = make_nlp({"places": "main"})
    examples = [make_example(nlp, text, {"places": spans}) for text, spans in PLACES]
    train(nlp, examples, steps=1)
    component = get_component(nlp)
    task_golds = component.read_golds(examples)
    scores, _ = component.model.begin_update(component.make_training_inputs(examples, task_golds))
    loss, _ = component.get_loss(examples, scores)
    (golds,) = task_golds
    lengths = [len(example.predicted) for example in examples]
    scheme = component.tag_scheme("places")
    assert loss == pytest.approx(float(tag_loss(scores.of_task(0), golds, lengths, scheme)))


def test_adds_labels_to_a_task() -> None:
    fix_random_seed(0)
    nlp = make_nlp(predicted_tasks="all")
    train(nlp, make_examples(nlp), steps=40)
    before = {key: found(nlp("a Berlin and London"), key) for key in TASKS}
    component = get_component(nlp)
    assert component.add_label("FRUIT", "food") == 1 == component.add_label("RIVER")
    assert component.add_label("RIVER", "places") == 0
    assert component.label_data["food"] == ["DISH", "DRINK", "FRUIT"]
    assert {key: found(nlp("a Berlin and London"), key) for key in TASKS} == before
    text, spans = "an apple by the Rhine", {"food": [("FRUIT", 1, 2)], "places": [("RIVER", 4, 5)]}
    example = make_example(nlp, text, spans)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.01
    for _ in range(30):
        nlp.update([example], sgd=optimizer)
    assert {key: found(nlp(text), key) for key in TASKS} == spans
    with pytest.raises(ValueError, match="unknown task 'drinks'"):
        component.add_label("X", "drinks")


def test_doc_ents_hold_one_task() -> None:
    fix_random_seed(0)
    nlp = make_nlp(predicted_tasks="all", annotate_ents=True)
    examples = make_examples(nlp)
    for example, (_, spans) in zip(examples, PLACES + FOOD, strict=True):
        doc = example.reference
        doc.set_ents([Span(doc, start, end, label) for label, start, end in spans])
    overfit(nlp, examples, *TASKS)
    text = PLACES[0][0]
    assert [(ent.label_, ent.start, ent.end) for ent in nlp(text).ents] == PLACES[0][1]
    # The other task's doc.ents are no gold for these.
    scores = nlp.evaluate(examples)
    assert scores["ents_f"] == 1.0 and set(scores["ents_per_type"]) == {"CITY", "LAND"}


def test_confidence(trained: Language) -> None:
    """1 - P(second best tags) / P(best tags), by all tag sequences of a doc of two tokens."""
    component = get_component(trained)
    docs = [trained.make_doc("London bread")]
    entities, confidence = component.predict_with_confidence(docs)
    assert [(e.label, e.start, e.end) for e in entities[0]] == found(
        trained("London bread"), "places"
    )
    inputs = component._want_tasks(docs, ["places"])
    scores = component.model.predict(inputs).of_task(0)
    paths = (
        scores.start[:, None]
        + scores.emissions[0][:, None]
        + scores.transitions
        + scores.emissions[1]
        + scores.end
    )
    best, second = numpy.sort(paths.flatten().exp().numpy())[::-1][:2]
    assert confidence == pytest.approx([(best - second) / best], rel=1e-4)
    assert 0 <= confidence[0] <= 1


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({}, "none has"),
        ({"a": "auxiliary"}, "none has"),
        ({"a": "main", "b": "main"}, "'a', 'b' has"),
        ({"a": "main", "b": "helper"}, "role of task 'b' is 'helper'"),
        ({"main": "main"}, "a task cannot have the key 'main'"),
    ],
)
def test_tasks_that_do_not_do(tasks: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_nlp(tasks)


def test_task_set_to_null_is_left_out(tmp_path: Path) -> None:
    nlp = make_nlp({"food": None, "places": "main"})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    nlp.to_disk(tmp_path)
    for pipeline in (nlp, spacy.load(tmp_path)):
        component = pipeline.get_pipe("multitask_crf_ner")
        assert component.keys == ("places",)  # type: ignore[attr-defined]
        assert component.labels == ("CITY", "LAND")  # type: ignore[attr-defined]


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="predicted_tasks is 'drinks', which is no task"):
        make_nlp(predicted_tasks="drinks")
    nlp = make_nlp()
    examples = make_examples(nlp)
    nlp.config["initialize"]["components"] = {"multitask_crf_ner": {"labels": {"drinks": ["A"]}}}
    with pytest.raises(ValueError, match="unknown task 'drinks'"):
        nlp.initialize(lambda: examples)
    nlp.config["initialize"]["components"] = {"multitask_crf_ner": {"labels": {"food": ["DISH"]}}}
    with pytest.raises(ValueError, match=r"task 'food': the training data has labels .*: DRINK"):
        nlp.initialize(lambda: examples)


def test_task_without_a_sentence_is_an_error() -> None:
    nlp = make_nlp()
    examples = [make_example(nlp, text, {"places": spans}) for text, spans in PLACES]
    with pytest.raises(
        ValueError, match=r"task 'food': none of 5 training docs .* Spans keys found: 'places'"
    ):
        nlp.initialize(lambda: examples)


def test_label_of_another_task_is_an_error() -> None:
    nlp = make_nlp()
    train(nlp, make_examples(nlp), steps=1)
    example = make_example(nlp, "London", {"food": [("CITY", 0, 1)]})
    with pytest.raises(ValueError, match=r"task 'food': label 'CITY' .* Labels: DISH, DRINK"):
        nlp.update([example])


def test_two_taggers_on_one_encoder_learn_from_their_own_corpora() -> None:
    """Any component of this package takes an absent spans key for "not annotated"."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    tok2vec = {"model": {"@architectures": "spacy.Tok2Vec.v2", "embed": EMBED, "encode": {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": 32, "depth": 1, "window_size": 1, "maxout_pieces": 2,
    }}}  # fmt: skip
    nlp.add_pipe("tok2vec", config=tok2vec)
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32, "upstream": "*"}
    for key in TASKS:
        nlp.add_pipe("crf_ner", name=key, config={"spans_key": key, "model": {"tok2vec": listener}})
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    losses: dict[str, float] = {}
    nlp.update(examples[:1], losses=losses)
    assert losses["places"] > 0 and losses["food"] == 0
    overfit(nlp, examples, *TASKS, optimizer=optimizer)
    scores = nlp.evaluate(examples)
    assert scores["spans_places_f"] == scores["spans_food_f"] == 1.0
    # What one corpus does not annotate is no "O" to the other's component.
    doc = nlp("bread and butter")
    assert found(doc, "places") == [] and found(doc, "food") == FOOD[1][1]


@pytest.mark.parametrize("fusion", ["attention", "none"])
def test_over_a_transformer(fusion: str, tmp_path: Path, tiny_bert: Callable[[Path], str]) -> None:
    """Batches of one task, of none and without words; saving, with the listener replaced."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "transformer",
        config={
            "model": {
                "@architectures": "spacy-transformers.TransformerModel.v3",
                "name": tiny_bert(tmp_path),
            }
        },
    )
    listener = {
        "@architectures": "spacy-transformers.TransformerListener.v1",
        "grad_factor": 1.0,
        "pooling": {"@layers": "reduce_mean.v1"},
    }
    model = {"tok2vec": listener, "hidden_width": 16, "fusion": fusion}
    nlp.add_pipe(
        "multitask_crf_ner", config={"tasks": TASKS, "model": model, "predicted_tasks": "all"}
    )
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.01)
    encoder = (
        nlp.get_pipe("transformer").model.shims
        or next(node for node in nlp.get_pipe("transformer").model.walk() if node.shims).shims
    )
    weights = next(iter(encoder[0]._model.parameters()))
    batches = [examples[:3], examples[5:7], [make_example(nlp, "London", {})], examples]
    for batch in batches:
        before = weights.detach().clone()
        losses: dict[str, float] = {}
        nlp.update(batch, sgd=False, losses=losses)
        for _, pipe in nlp.pipeline:
            pipe.finish_update(optimizer)
        is_taught = any(example.reference.spans for example in batch)
        assert (losses["multitask_crf_ner"] > 0) == is_taught
        if is_taught:
            assert not torch.equal(before, weights)
    docs = list(nlp.pipe(["London and bread", "", " "]))
    assert set(docs[0].spans) == set(TASKS)
    confidence = get_component(nlp).predict_with_confidence([nlp.make_doc("")])[1]
    assert confidence.tolist() == [1.0]
    nlp.replace_listeners("transformer", "multitask_crf_ner", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    for doc in docs:
        for key in TASKS:
            assert read_entities(loaded(doc.text), key) == read_entities(doc, key)


def test_class_probabilities_of_each_task(trained: Language) -> None:
    component = get_component(copy.deepcopy(trained))
    component.predicted_tasks = "all"
    doc = trained.make_doc("I like London and Berlin .")
    (tasks,) = component.predict([doc])
    for key, entities in tasks.items():
        (rows,) = component.class_probabilities([doc], [entities], task=key)
        labels = component.labels_of(key)
        assert rows.shape == (len(entities), len(labels) + 1)
        for row, entity in zip(rows, entities, strict=True):
            score = row[labels.index(entity.label)]
            assert score == pytest.approx(entity.score, abs=1e-5)
    assert tasks["places"]
    (main,) = component.class_probabilities([doc], [tasks["places"]])
    (same,) = component.class_probabilities([doc], [tasks["places"]], task="places")
    assert (main == same).all()
    with pytest.raises(ValueError, match="unknown task 'x'"):
        component.class_probabilities([doc], [[]], task="x")
