"""Small pipelines of every factory, and what their tests share."""

import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.pipeline.base import DEFAULT_SCORE_WEIGHTS, EntityComponent

WIDTH = 16
ENCODER = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": WIDTH,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": False,
}
LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH, "upstream": "*"}
# Each writes under a spans key of its own, its name, so that one pipeline can hold them all.
CONFIGS: dict[str, dict[str, Any]] = {
    "crf_ner": {"model": {"hidden_width": 16}},
    "multitask_crf_ner": {
        "tasks": {"multitask_crf_ner": "main", "others": "auxiliary"},
        "model": {"hidden_width": 16},
    },
    "pointer_ner": {
        "model": {"hidden_width": 16, "match_width": 8, "max_length": 5, "description_length": 6}
    },
    "span_ner": {
        "model": {"hidden_width": 16, "span_width": 16},
        "suggester": {
            "@misc": "spacy_mtlner.boundary_suggester.v1",
            "max_length": 5,
            "per_token": 2.0,
        },
    },
    "seq2seq_ner": {
        "model": {
            "width": 16,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "hidden_width": 32,
            "relation_width": 16,
            "type_width": 8,
            "n_names": 2,
            "window": 24,
        }
    },
}
FACTORIES = tuple(CONFIGS)
INITIALIZE = {
    "pointer_ner": {
        "descriptions": {
            "LOC": "a place such as London or Berlin",
            "PER": "the name of a person",
            "O": "none of these",
        }
    }
}
# Contiguous entities that do not overlap, which all components find.
TRAIN: list[tuple[str, list[tuple[str, int, int]]]] = [
    ("I like London and Berlin .", [("LOC", 2, 3), ("LOC", 4, 5)]),
    ("Angela Merkel went to New York City", [("PER", 0, 2), ("LOC", 4, 7)]),
    ("", []),
    ("nothing to find here", []),
    ("Ada", [("PER", 0, 1)]),
    (" \n ", []),
]
TEXTS = [text for text, _ in TRAIN]
LABELS = ["LOC", "PER"]


def make_nlp(*factories: str, tok2vec: dict[str, Any] = ENCODER) -> Language:
    """A pipeline of some factories, with the descriptions where they are needed."""
    nlp = spacy.blank("en")
    if "Listener" in tok2vec["@architectures"]:
        nlp.add_pipe("tok2vec", config={"model": ENCODER})
    for factory in factories:
        add_component(nlp, factory, tok2vec=tok2vec)
    nlp.config["training"]["score_weights"] = {
        **dict.fromkeys(DEFAULT_SCORE_WEIGHTS),
        **{f"spans_{factory}_f": 1.0 for factory in factories},
    }
    return nlp


def add_component(
    nlp: Language, factory: str, *, tok2vec: dict[str, Any] = ENCODER, **config: Any
) -> EntityComponent:
    """Add a small component of a factory."""
    keys = {} if factory == "multitask_crf_ner" else {"spans_key": factory}
    settings = {**CONFIGS[factory], **keys, **config}
    settings["model"] = {**CONFIGS[factory]["model"], "tok2vec": tok2vec}
    component = nlp.add_pipe(factory, config=settings)
    assert isinstance(component, EntityComponent)
    if factory in INITIALIZE:
        nlp.config["initialize"]["components"][factory] = dict(INITIALIZE[factory])
    return component


def make_examples(
    nlp: Language, keys: Iterable[str] = (*FACTORIES, "others"), data: Any = TRAIN
) -> list[Example]:
    """TRAIN as examples, annotated for every task."""
    examples = []
    for text, spans in data:
        reference = nlp.make_doc(text)
        for key in keys:
            entities = [Entity(label, ((start, end),)) for label, start, end in spans]
            write_entities(reference, entities, key)
        examples.append(Example(nlp.make_doc(text), reference))
    return examples


def step(nlp: Language, examples: list[Example], sgd: Any, **settings: Any) -> dict[str, float]:
    """Update as `spacy train` does it."""
    losses: dict[str, float] = {}
    fresh = [Example(nlp.make_doc(example.text), example.reference) for example in examples]
    nlp.update(fresh, sgd=False, losses=losses, **settings)
    for name, pipe in nlp.pipeline:
        if name not in settings.get("exclude", ()):
            pipe.finish_update(sgd)
    return losses


def train(nlp: Language, steps: int, *, seed: int = 0, drop: float = 0.0) -> Language:
    """Initialise a pipeline and train it with TRAIN."""
    fix_random_seed(seed)
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(steps):
        step(nlp, examples, optimizer, drop=drop)
    return nlp


def overfit(
    nlp: Language,
    examples: list[Example],
    *keys: str,
    most: int = 80,
    learn_rate: float = 0.01,
    optimizer: Any = None,
) -> None:
    """Train until the entities of some keys are known, but for so many steps at the most; whether
    they are known is for the test to check.

    optimizer (Any): That of a pipeline that is initialised; None to do that.
    """
    optimizer = optimizer or nlp.initialize(lambda: examples)
    optimizer.learn_rate = learn_rate
    names = [f"spans_{key}_f" for key in keys or ("mtlner",)]
    for number in range(1, most + 1):
        step(nlp, examples, optimizer)
        if number % 10 == 0:
            scores = nlp.evaluate([Example(nlp.make_doc(e.text), e.reference) for e in examples])
            if all(scores[name] == 1.0 for name in names):
                break


def copy_of(nlp: Language) -> Language:
    """A copy that a test may change."""
    return pickle.loads(pickle.dumps(nlp))


def component_of(nlp: Language, factory: str) -> EntityComponent:
    """The component of a factory, which has its name."""
    component = nlp.get_pipe(factory)
    assert isinstance(component, EntityComponent)
    return component


def entities_of(doc: Doc, key: str) -> list[tuple[Entity, Any]]:
    """Entities, which compare by label and fragments, and scores, which compare nearly."""
    return [(entity, pytest.approx(entity.score, abs=1e-5)) for entity in read_entities(doc, key)]


def assert_predicts_the_same(nlp: Language, other: Language, *keys: str) -> None:
    for doc, same in zip(nlp.pipe(TEXTS), other.pipe(TEXTS), strict=True):
        for key in keys:
            assert entities_of(doc, key) == entities_of(same, key)
