"""What every component does alike: saving, processes, threads, empty docs, labels, errors."""

import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import srsly
import torch
from spacy.cli._util import app
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example
from typer.testing import CliRunner

from spacy_mtlner.entities import Entity, read_entities
from spacy_mtlner.models.torch_layer import get_module_shim

from .builders import (
    ENCODER,
    FACTORIES,
    LABELS,
    LISTENER,
    TEXTS,
    add_component,
    assert_predicts_the_same,
    component_of,
    copy_of,
    entities_of,
    make_examples,
    make_nlp,
    step,
    train,
)

STEPS = {"seq2seq_ner": 80}  # Of training, until everything is known; 40 for the others.
START_METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture(scope="session")
def get_trained() -> Callable[[str], Language]:
    """Trains the pipeline of a factory once."""
    return cache(lambda factory: train(make_nlp(factory), STEPS.get(factory, 40)))


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trained(factory: str, get_trained: Callable[[str], Language]) -> Language:
    """Not to be changed: `copy_of` makes one that may be."""
    return get_trained(factory)


@pytest.fixture
def all_trained(get_trained: Callable[[str], Language]) -> Language:
    """One pipeline with all components, from their own ones."""
    nlp = spacy.blank("en")
    for name in FACTORIES:
        nlp.add_pipe(name, source=get_trained(name))
    return nlp


def test_overfits(trained: Language, factory: str) -> None:
    """Without which nothing below would say much."""
    scores = trained.evaluate(make_examples(trained))
    assert scores[f"spans_{factory}_f"] == 1.0
    for text in TEXTS:
        assert all(0.3 < entity.score <= 1.0 for entity in read_entities(trained(text), factory))


# Saving


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_saves_and_loads(trained: Language, factory: str, way: str, tmp_path: Path) -> None:
    if way == "disk":
        trained.to_disk(tmp_path)
        loaded = spacy.load(tmp_path)
    elif way == "bytes":
        loaded = make_nlp(factory).from_bytes(trained.to_bytes())
    else:
        loaded = copy_of(trained)
    component = component_of(loaded, factory)
    assert component.labels == component_of(trained, factory).labels
    for name, value in component_of(trained, factory).cfg.items():
        same = pytest.approx(value) if isinstance(value, float) else value
        assert component.cfg[name] == same, name
    assert_predicts_the_same(loaded, trained, factory)
    # What is loaded can be trained further.
    losses = step(loaded, make_examples(loaded), loaded.resume_training())
    assert losses[factory] > 0


@pytest.mark.parametrize("way", ["disk", "bytes"])
def test_saves_and_loads_before_initialization(factory: str, way: str, tmp_path: Path) -> None:
    nlp, other = make_nlp(factory), make_nlp(factory)
    component_of(nlp, factory).add_label("LOC")
    if way == "disk":
        nlp.to_disk(tmp_path)
        other = spacy.load(tmp_path)
    else:
        other.from_bytes(nlp.to_bytes())
    assert component_of(other, factory).labels == ("LOC",)
    with pytest.raises(ValueError, match=f"{factory} is not initialized"):
        other("text")


def test_sourced_components_predict_the_same(
    all_trained: Language, get_trained: Callable[[str], Language], tmp_path: Path
) -> None:
    all_trained.to_disk(tmp_path)
    for nlp in (all_trained, spacy.load(tmp_path)):
        for factory in FACTORIES:
            assert_predicts_the_same(nlp, get_trained(factory), factory)


# Prediction


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_pipe_equals_call_whatever_the_batch(
    trained: Language, factory: str, batch_size: int
) -> None:
    texts = [*TEXTS * 2, "Berlin " * 50, "Ada and Angela Merkel"]
    docs = list(trained.pipe(texts, batch_size=batch_size))
    assert [doc.text for doc in docs] == texts
    for doc in docs:
        assert entities_of(doc, factory) == entities_of(trained(doc.text), factory)


@pytest.mark.parametrize("texts", [[""], ["", ""], [" \n "], ["", " \n ", ""]])
def test_docs_without_words_are_ordinary_input(
    trained: Language, factory: str, texts: list[str]
) -> None:
    for doc in trained.pipe(texts):
        assert factory in doc.spans and not doc.spans[factory]
    nlp = copy_of(trained)
    examples = make_examples(nlp, data=[(text, []) for text in texts])
    loss = step(nlp, examples, nlp.resume_training())[factory]
    assert (loss > 0) == any(texts)
    mixed = make_examples(nlp, data=[("", []), ("Ada", [("PER", 0, 1)]), (texts[0], [])])
    assert step(nlp, mixed, nlp.resume_training())[factory] > 0


def test_entities_have_no_white_space_at_their_ends(trained: Language, factory: str) -> None:
    component = component_of(trained, factory)
    doc = trained.make_doc("  Ada \n Byron \n\n")
    assert [token.is_space for token in doc] == [True, False, True, False, True]
    found = [Entity("PER", ((0, 5),)), Entity("LOC", ((1, 3),)), Entity("LOC", ((4, 5),))]
    is_one_of_several = factory == "multitask_crf_ner"
    component.set_annotations([doc], [{factory: found} if is_one_of_several else found])
    expected = [Entity("PER", ((1, 4),)), Entity("LOC", ((1, 2),))]
    assert read_entities(doc, factory) == expected


def test_memory_zones(trained: Language, factory: str) -> None:
    """At the end of a zone the words are freed that became known in it."""
    plain, zoned = copy_of(trained), copy_of(trained)
    expected = [entities_of(doc, factory) for doc in plain.pipe(TEXTS)]
    for _ in range(2):
        with zoned.memory_zone():
            assert [entities_of(doc, factory) for doc in zoned.pipe(TEXTS)] == expected
    for _ in range(2):
        losses = [step(nlp, make_examples(nlp), nlp.resume_training()) for nlp in (plain, zoned)]
        assert losses[0] == losses[1]
    assert_predicts_the_same(zoned, plain, factory)


def test_no_docs_at_all(trained: Language, factory: str) -> None:
    assert component_of(trained, factory).predict([]) == []
    assert list(trained.pipe([])) == []
    assert component_of(trained, factory).update([], losses={}) == {factory: 0.0}


def test_several_threads_predict_the_same(trained: Language, factory: str) -> None:
    nlp = copy_of(trained)
    # With dropout, a thread that meets the module in training mode is wrong.
    layer = component_of(nlp, factory).model.get_ref("output_layer")
    for module in get_module_shim(layer).module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    expected = {text: entities_of(trained(text), factory) for text in TEXTS}
    texts = [text for text in TEXTS if text] * 10
    with ThreadPoolExecutor(4) as pool:
        docs = list(pool.map(nlp, texts))
        batches = list(pool.map(lambda _: list(nlp.pipe(TEXTS)), range(4)))
    for doc in [*docs, *(doc for batch in batches for doc in batch)]:
        assert entities_of(doc, factory) == expected[doc.text]


def assert_processes_agree(nlp: Language) -> None:
    texts = TEXTS * 2
    docs = list(nlp.pipe(texts, n_process=2, batch_size=3))
    assert [doc.text for doc in docs] == texts
    for doc in docs:
        same = nlp(doc.text)
        assert same.text == doc.text and same.spans.keys() >= {*FACTORIES}
        for factory in FACTORIES:
            assert entities_of(doc, factory) == entities_of(same, factory)


def test_pipe_with_several_processes(all_trained: Language) -> None:
    # So that torch has threads to leave behind when it forks.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        all_trained(TEXTS[0])
        assert_processes_agree(all_trained)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in START_METHODS if m != "fork"])
def test_pipe_with_several_processes_that_start_afresh(
    all_trained: Language, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spacy.language.mp", multiprocessing.get_context(method))
    assert_processes_agree(all_trained)


def test_components_reach_processes_that_start_afresh(trained: Language, factory: str) -> None:
    """Such a process gets them pickled, together with what makes docs."""
    parts = (trained.make_doc, component_of(trained, factory))
    make_doc, component = pickle.loads(pickle.dumps(parts))
    for text in TEXTS:
        doc = component(make_doc(text))
        assert entities_of(doc, factory) == entities_of(trained(text), factory)


def test_selected_pipes(all_trained: Language, factory: str) -> None:
    everything = {text: all_trained(text) for text in TEXTS}
    with all_trained.select_pipes(enable=factory):
        for text in TEXTS:
            doc = all_trained(text)
            assert [*doc.spans] == [factory]
            assert entities_of(doc, factory) == entities_of(everything[text], factory)
    with all_trained.select_pipes(disable=factory):
        doc = all_trained(TEXTS[0])
        assert {*doc.spans} == {*FACTORIES} - {factory}
    assert {*all_trained(TEXTS[0]).spans} == {*FACTORIES}


# A shared encoder


def test_replaced_listeners(tmp_path: Path) -> None:
    """All components over one encoder, then each over a copy of its own."""
    nlp = train(make_nlp(*FACTORIES, tok2vec=LISTENER), 3)
    nlp.to_disk(tmp_path / "shared")
    alone = spacy.load(tmp_path / "shared")
    for factory in FACTORIES:
        alone.replace_listeners("tok2vec", factory, ["model.tok2vec"])
    alone.remove_pipe("tok2vec")
    assert_predicts_the_same(alone, nlp, *FACTORIES)
    alone.to_disk(tmp_path / "alone")
    assert_predicts_the_same(spacy.load(tmp_path / "alone"), nlp, *FACTORIES)
    # What one of them learns does not reach the others' encoders.
    before = {name: component_of(alone, name).model.to_bytes() for name in FACTORIES}
    first, *others = FACTORIES
    step(alone, make_examples(alone), alone.resume_training(), exclude=others)
    after = {name: component_of(alone, name).model.to_bytes() for name in FACTORIES}
    assert [name for name in FACTORIES if before[name] != after[name]] == [first]


# Labels and training


def test_same_seed_same_weights(factory: str) -> None:
    weights = [
        component_of(train(make_nlp(factory), 2, seed=seed, drop=0.2), factory).model.to_bytes()
        for seed in (3, 3, 4)
    ]
    assert weights[0] == weights[1] != weights[2]


def test_labels_of_the_command(factory: str, tmp_path: Path) -> None:
    """What `spacy init labels` writes is what initialisation without it finds."""
    nlp = make_nlp(factory)
    examples = make_examples(nlp)
    DocBin(docs=[example.reference for example in examples]).to_disk(tmp_path / "train.spacy")
    config = nlp.config
    config["paths"] = {
        **dict.fromkeys(("vectors", "init_tok2vec")),
        **dict.fromkeys(("train", "dev"), str(tmp_path / "train.spacy")),
    }
    config.to_disk(tmp_path / "config.cfg")
    arguments = ["init", "labels", str(tmp_path / "config.cfg"), str(tmp_path / "labels")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    written = srsly.read_json(tmp_path / "labels" / f"{factory}.json")
    nlp.initialize(lambda: examples)
    assert written == component_of(nlp, factory).label_data
    is_multitask = factory == "multitask_crf_ner"
    assert written == ({factory: LABELS, "others": LABELS} if is_multitask else LABELS)
    given = make_nlp(factory)
    given.config["initialize"]["components"].setdefault(factory, {})["labels"] = {
        "@readers": "spacy.read_labels.v1",
        "path": str(tmp_path / "labels" / f"{factory}.json"),
    }
    given.initialize(lambda: examples)
    assert component_of(given, factory).label_data == written


@pytest.mark.parametrize("label", ["", 3])
def test_add_label_refuses_what_is_none(factory: str, label: Any) -> None:
    with pytest.raises(ValueError, match="label must be a non-empty string"):
        component_of(make_nlp(factory), factory).add_label(label)


def test_label_that_is_not_known(trained: Language, factory: str) -> None:
    nlp = copy_of(trained)
    examples = make_examples(nlp, data=[("take aspirin", [("DRUG", 1, 2)])])
    with pytest.raises(ValueError, match=rf"{factory}.*: label 'DRUG' of the training data is unk"):
        nlp.update(examples, sgd=False)


def test_no_labels_is_an_error(factory: str) -> None:
    with pytest.raises(ValueError, match=rf"{factory}.*( has no labels|: none of 1 training)"):
        make_nlp(factory).initialize()


def test_update_before_initialize_is_an_error(factory: str) -> None:
    nlp = make_nlp(factory)
    for label in LABELS:
        component_of(nlp, factory).add_label(label)
    with pytest.raises(ValueError, match=f"{factory} is not initialized"):
        nlp.update(make_examples(nlp, [factory]), sgd=False)


@pytest.mark.parametrize("has_nlp", [True, False])
def test_static_vectors_that_are_not_there(factory: str, has_nlp: bool) -> None:
    nlp = make_nlp(factory, tok2vec={**ENCODER, "pretrained_vectors": True})
    with pytest.raises(ValueError, match=rf"^{factory}: .*static vectors.*mtlner vectors"):
        if has_nlp:
            nlp.initialize(lambda: make_examples(nlp))
        else:
            component_of(nlp, factory).initialize(lambda: make_examples(nlp))
    nlp.vocab.set_vector("London", numpy.ones(4, dtype="f"))
    nlp.initialize(lambda: make_examples(nlp))


def test_static_vectors_that_are_not_initialised(factory: str) -> None:
    """As spaCy leaves out frozen and sourced components."""
    source = make_nlp(factory, tok2vec={**ENCODER, "pretrained_vectors": True})
    source.vocab.set_vector("London", numpy.ones(4, dtype="f"))
    source.initialize(lambda: make_examples(source))
    nlp = make_nlp("crf_ner")
    with pytest.warns(UserWarning, match="W113"):
        nlp.add_pipe(factory, source=source, name="frozen")
    with nlp.select_pipes(disable="frozen"):
        nlp.initialize(lambda: make_examples(nlp))


def test_initialize_warns_of_nothing_on_good_data(factory: str) -> None:
    nlp = make_nlp(factory)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nlp.initialize(lambda: make_examples(nlp))


def test_components_that_overwrite_each_other(factory: str) -> None:
    nlp = make_nlp(factory)
    key = component_of(nlp, factory).predicted_keys[0]
    other = nlp.add_pipe(
        "crf_ner", "other", config={"spans_key": key, "model": {"tok2vec": ENCODER}}
    )
    message = rf"other and {factory} both write to doc.spans\['{key}'\]: .* another spans_key"
    with pytest.warns(UserWarning, match=message):
        other.initialize(lambda: make_examples(nlp), nlp=nlp)


def test_dropout_follows_the_training(trained: Language, factory: str) -> None:
    nlp = copy_of(trained)
    examples = make_examples(nlp)
    component = component_of(nlp, factory)

    def losses(drop: float) -> set[float]:
        return {component.update(examples, drop=drop, losses={})[factory] for _ in range(3)}

    assert len(losses(0.0)) == 1
    assert len(losses(0.5)) == 3


def test_docs_without_the_key_teach_nothing(trained: Language, factory: str) -> None:
    """And change nothing about the others of their batch."""
    nlp = copy_of(trained)
    component = component_of(nlp, factory)
    examples = make_examples(nlp)
    others = make_examples(nlp, ["quite_another"])

    def loss_of(batch: list[Example]) -> float:
        return component.update(batch, losses={})[factory]

    assert loss_of(others) == 0.0
    alone = loss_of(examples)
    assert alone > 0
    assert loss_of([*others[:3], *examples, *others[3:]]) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_learn_rate_factor_must_be_positive(factory: str, factor: float) -> None:
    with pytest.raises(ValueError, match=f"{factory}: learn_rate_factor must be above 0"):
        add_component(spacy.blank("en"), factory, learn_rate_factor=factor)


def test_factories_are_in_order() -> None:
    """No factory is left out of these tests."""
    from importlib.metadata import distribution

    points = distribution("spacy-mtlner").entry_points.select(group="spacy_factories")
    assert {point.name for point in points} == {*FACTORIES}
