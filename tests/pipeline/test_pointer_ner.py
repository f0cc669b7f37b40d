import functools
import gc
import importlib.util
import itertools
import math
import pickle
import re
import warnings
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import srsly
import torch
from spacy.cli.find_threshold import find_threshold
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Model

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.pointer import FIRST_LOGIT, PointerScores, prepare_spans, span_logits
from spacy_mtlner.pipeline import pointer_ner
from spacy_mtlner.pipeline.pointer_ner import PointerEntityRecognizer
from spacy_mtlner.pipeline.side_texts import SideTextEncoder

from .builders import overfit

WIDTH = 32
EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": WIDTH,
    "attrs": ["NORM", "SHAPE"],
    "rows": [200, 50],
    "include_static_vectors": False,
}
ENCODER = {
    "@architectures": "spacy.Tok2Vec.v2",
    "embed": EMBED,
    "encode": {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": WIDTH,
        "depth": 1,
        "window_size": 1,
        "maxout_pieces": 2,
    },
}
TOK2VEC_LISTENER = {
    "@architectures": "spacy.Tok2VecListener.v1",
    "width": WIDTH,
    "upstream": "*",
}
TRANSFORMER_LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
    "upstream": "*",
}
SMALL = {
    "tok2vec": EMBED,
    "rnn": "lstm",
    "hidden_width": 32,
    "match_width": 16,
    "max_length": 6,
    "description_length": 5,
}
DESCRIPTIONS = {
    "LOC": "a place such as London or Berlin",
    "ORG": "a university or bank",
    "PER": "the name of a person",
    "O": "none of these",
}
# The scores that are per token.
TOKEN_PARTS = ("starts", "ends", "span_starts", "span_ends", "span_tokens", "classes")
NOTHING = 1e-9  # What a difference of running sums may leave of a gradient.
Spans = list[tuple[str, int, int]]
# Nested, nested of one type, sharing a start, sharing an end, one span of two types.
TRAIN: list[tuple[str, Spans]] = [
    ("University of New York City opened", [("ORG", 0, 5), ("LOC", 2, 5), ("LOC", 2, 4)]),
    (
        "the Bank of Bank of England",
        [("ORG", 0, 6), ("ORG", 1, 6), ("ORG", 3, 6), ("LOC", 5, 6)],
    ),
    ("", []),
    ("Ada saw Ada and Berlin", [("PER", 0, 1), ("PER", 2, 5), ("PER", 2, 3), ("LOC", 4, 5)]),
    ("nothing to find here", []),
    ("Lovelace", [("LOC", 0, 1), ("PER", 0, 1)]),
    (" \n ", []),
]
TEXTS = [text for text, _ in TRAIN]


def make_examples(
    nlp: Language, key: str = "mtlner", data: Iterable[tuple[str, Spans]] = tuple(TRAIN)
) -> list[Example]:
    examples = []
    for text, spans in data:
        reference = nlp.make_doc(text)
        entities = [Entity(label, ((start, end),)) for label, start, end in spans]
        write_entities(reference, entities, key)
        examples.append(Example(nlp.make_doc(text), reference))
    return examples


def add_pointers(
    nlp: Language, name: str = "pointer_ner", model: dict[str, Any] | None = None, **config: Any
) -> PointerEntityRecognizer:
    """A small component, with the model's settings changed one by one."""
    config["model"] = {**SMALL, **(model or {})}
    component = nlp.add_pipe("pointer_ner", name=name, config=config)
    assert isinstance(component, PointerEntityRecognizer)
    component.set_descriptions(DESCRIPTIONS)
    return component


def step(nlp: Language, examples: list[Example], sgd: Any, **settings: Any) -> dict[str, float]:
    """Update as `spacy train` does it."""
    losses: dict[str, float] = {}
    nlp.update(examples, sgd=False, losses=losses, **settings)
    for name, pipe in nlp.pipeline:
        if name not in settings.get("exclude", ()):
            pipe.finish_update(sgd)
    return losses


def train(
    nlp: Language,
    examples: list[Example],
    steps: int = 60,
    learn_rate: float = 0.01,
    **settings: Any,
) -> Language:
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = learn_rate
    for _ in range(steps):
        step(nlp, examples, optimizer, **settings)
    return nlp


def make_trained(steps: int = 60, **config: Any) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_pointers(nlp, **config)
    return train(nlp, make_examples(nlp), steps)


@pytest.fixture(scope="module")
def trained() -> Language:
    """Not to be changed: `copy_of` makes one that may be."""
    return make_trained()


def copy_of(nlp: Language) -> Language:
    return pickle.loads(pickle.dumps(nlp))


def pointers_of(nlp: Language, name: str = "pointer_ner") -> PointerEntityRecognizer:
    component = nlp.get_pipe(name)
    assert isinstance(component, PointerEntityRecognizer)
    return component


def entities_of(doc: Doc) -> list[tuple[Entity, Any]]:
    return [(entity, pytest.approx(entity.score, abs=1e-5)) for entity in read_entities(doc)]


def assert_predicts_the_same(nlp: Language, other: Language) -> None:
    for text in TEXTS:
        assert entities_of(nlp(text)) == entities_of(other(text))


@pytest.mark.parametrize("beta", [0.5, "learned", 1.0])
@pytest.mark.parametrize("rnn", ["lstm", None])
def test_overfits_nested_entities(beta: float | str, rnn: str | None) -> None:
    tok2vec = EMBED if rnn else {**ENCODER, "encode": {**ENCODER["encode"], "depth": 3}}
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_pointers(nlp, beta=beta, model={"rnn": rnn, "tok2vec": tok2vec})
    overfit(nlp, make_examples(nlp), most=60)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["spans_mtlner_f"] == scores["spans_mtlner_nested_f"] == 1.0
    for text, spans in TRAIN:
        doc = nlp(text)
        # In order of the text, longer ones first.
        assert [(e.label, e.start, e.end) for e in read_entities(doc)] == spans
        assert all(0.5 <= e.score <= 1.0 for e in read_entities(doc))
        assert not doc.ents


def test_overfits_with_the_nearest_end() -> None:
    """What the paper's matching can express: one entity of a type begins or ends at a token."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_pointers(nlp, matching="nearest")
    data: list[tuple[str, Spans]] = [
        ("University of New York City opened", [("ORG", 0, 5), ("LOC", 2, 5)]),
        ("Ada saw Berlin", [("PER", 0, 1), ("LOC", 2, 3)]),
        ("nothing to find here", []),
    ]
    examples = make_examples(nlp, data=data)
    train(nlp, examples)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0


def test_batches_of_one_type_and_one_token() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, model={"max_length": 1, "description_length": 1})
    examples = make_examples(nlp, data=[("Ada", [("PER", 0, 1)]), ("", []), ("x", [])])
    train(nlp, examples, steps=40)
    assert component.labels == ("PER",)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_saves_and_loads(trained: Language, way: str, beta: float, tmp_path: Path) -> None:
    nlp = trained if beta < 1 else make_trained(beta=beta, steps=5)
    if way == "disk":
        nlp.to_disk(tmp_path)
        loaded = spacy.load(tmp_path)
    elif way == "bytes":
        loaded = spacy.blank("en")
        pointers_of_loaded = add_pointers(loaded, beta=beta)
        pointers_of_loaded.set_descriptions({})
        loaded.from_bytes(nlp.to_bytes())
    else:
        loaded = copy_of(nlp)
    assert pointers_of(loaded).cfg == pointers_of(nlp).cfg
    assert pointers_of(loaded).descriptions == DESCRIPTIONS
    assert_predicts_the_same(loaded, nlp)


def test_pipe_with_several_processes(trained: Language) -> None:
    nlp = copy_of(trained)
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)  # Nothing is encoded yet.
    docs = nlp.pipe(TEXTS * 2, n_process=2, batch_size=3)
    for doc, text in zip(docs, TEXTS * 2, strict=True):
        assert entities_of(doc) == entities_of(trained(text))


def test_long_doc(trained: Language) -> None:
    words = TRAIN[3][0].split() * 3000
    doc = trained(Doc(trained.vocab, words=words))
    entities = read_entities(doc)
    assert len(entities) >= 3000
    assert all(0 < entity.end - entity.start <= 6 for entity in entities)
    assert all(0.5 <= entity.score <= 1.0 for entity in entities)


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("beta", -0.1),
        ("beta", 1.1),
        ("threshold", -0.1),
        ("threshold", 1.1),
        ("fusion", -0.1),
        ("fusion", 1.1),
        ("positive_weight", 0.0),
        ("positive_weight", -1.0),
        ("contrast", -0.1),
        ("learn_rate_factor", 0.0),
    ],
)
def test_settings_out_of_their_range(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"pointer_ner: {setting} must be "):
        add_pointers(spacy.blank("en"), **{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"), [("matching", "farthest"), ("beta", "learnt"), ("gold", "nowhere")]
)
def test_unknown_names_in_settings(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"pointer_ner -> {setting}"):
        add_pointers(spacy.blank("en"), **{setting: value})


# Labels


def test_labels_of_the_data_in_alphabetical_order() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    nlp.initialize(lambda: make_examples(nlp))
    assert component.labels == ("LOC", "ORG", "PER")
    assert component.model.get_dim("nO") == component.n_outputs == 3


def test_pointers_begin_as_rare_as_entities_are() -> None:
    nlp = spacy.blank("en")
    add_pointers(nlp)
    data = [("Ada went to London", [("PER", 0, 1), ("LOC", 3, 4)]), ("nothing at all here", [])]
    nlp.initialize(lambda: make_examples(nlp, data=data))
    component = pointers_of(nlp)
    share = 2.5 / (8 * len(component.labels))
    for n_types in (len(component.labels), len(component.labels) + 1):
        module = get_module_shim(component.model.get_ref("output_layer")).module
        for linear in (module.starts, module.ends):
            assert linear.bias.sigmoid().tolist() == pytest.approx([share] * n_types)
        component.add_type("ANIMAL", "a dog or a cat")


def test_tokens_of_which_nothing_is_known_do_not_count_at_the_beginning() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, gold="ents")
    reference = nlp.make_doc("Ada went to London and saw Berlin or Paris")
    person = Span(reference, 0, 1, label="PER")
    reference.set_ents([person], outside=[reference[1:3], reference[4:6]], default="missing")
    component.initialize(lambda: [Example(nlp.make_doc(reference.text), reference)], nlp=nlp)
    share = 1.5 / 5
    assert component.model.attrs["first_logit"] == pytest.approx(math.log(share / (1 - share)))


def test_pointers_begin_low_where_nothing_is_annotated() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    component.add_label("PER")
    with pytest.warns(UserWarning, match="none of 1 training docs is annotated"):
        component.initialize(lambda: [Example(nlp.make_doc("Ada"), nlp.make_doc("Ada"))], nlp=nlp)
    assert component.model.attrs["first_logit"] == FIRST_LOGIT < 0


def test_given_labels_keep_their_order() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    examples = make_examples(nlp)
    given = {"labels": ["PER", "DRUG", "ORG", "LOC"]}
    descriptions = {**DESCRIPTIONS, "DRUG": "a drug"}
    nlp.config["initialize"]["components"]["pointer_ner"] = {**given, "descriptions": descriptions}
    with pytest.warns(UserWarning, match="no training example for DRUG"):
        nlp.initialize(lambda: examples)
    assert [*component.labels] == component.label_data == given["labels"]
    assert component.descriptions == descriptions
    assert "DRUG" in nlp.vocab.strings


def test_label_that_is_not_given() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    with pytest.raises(ValueError, match=r"labels that are not in the given ones: ORG, PER"):
        component.initialize(lambda: make_examples(nlp), nlp=nlp, labels=["LOC"])


def test_add_label_needs_a_description_once_trained(trained: Language) -> None:
    nlp = copy_of(trained)
    component = pointers_of(nlp)
    with pytest.raises(ValueError, match=r"use add_type\('DRUG', description\)"):
        component.add_label("DRUG")
    assert component.add_label("LOC") == 0
    assert component.labels == ("LOC", "ORG", "PER")
    component.set_descriptions({**DESCRIPTIONS, "DRUG": "a drug"})
    nlp("Ada saw Berlin")  # The descriptions of the present labels are kept from now on.
    assert component.add_label("DRUG") == 1
    assert component.labels == ("LOC", "ORG", "PER", "DRUG")
    assert component.cfg["untrained"] == ["DRUG"]
    assert component.add_label("DRUG") == 0
    added = copy_of(trained)
    pointers_of(added).add_type("DRUG", "a drug")
    assert_predicts_the_same(nlp, added)
    nlp.update(make_examples(nlp), sgd=False)


def test_added_label_is_learned() -> None:
    nlp = make_trained(beta=1.0, steps=20)
    component = pointers_of(nlp)
    assert component.add_label("DRUG") == 1
    data: list[tuple[str, Spans]] = [*TRAIN, ("take aspirin now", [("DRUG", 1, 2)])]
    examples = make_examples(nlp, data=data)
    overfit(nlp, examples, optimizer=nlp.resume_training(), most=60)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0


# Descriptions


def test_missing_and_empty_descriptions_are_listed() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    component.set_descriptions({"PER": "a person", "ORG": " \n", "DRUG": "a drug"})
    message = r"pointer_ner needs a description for: LOC, ORG, O\. .*pointer_ner\] descriptions"
    with pytest.raises(ValueError, match=message):
        nlp.initialize(lambda: make_examples(nlp))


def test_no_descriptions_at_all() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("pointer_ner", config={"model": SMALL})
    with pytest.raises(ValueError, match=r"needs a description for: LOC, ORG, PER, O\."):
        nlp.initialize(lambda: make_examples(nlp))


def test_beta_1_needs_no_descriptions() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("pointer_ner", config={"model": SMALL, "beta": 1.0})
    assert isinstance(component, PointerEntityRecognizer)
    train(nlp, make_examples(nlp), steps=2)
    scores = component.model.predict(component.make_inputs([nlp.make_doc("Ada")], is_train=False))
    assert scores.classes.shape == (1, 0)
    with pytest.raises(ValueError, match="no descriptions, as beta is 1: use add_label"):
        component.add_type("DRUG", "a drug")


@pytest.mark.parametrize("as_path", [True, False])
def test_descriptions_of_a_json_file(as_path: bool, tmp_path: Path) -> None:
    path = tmp_path / "描述.json"
    descriptions = {**DESCRIPTIONS, "PER": "人 名", "UNUSED": "of a larger file"}
    srsly.write_json(path, descriptions)
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    examples = make_examples(nlp)
    if as_path:
        component.initialize(lambda: examples, nlp=nlp, descriptions=path)
    else:
        nlp.config["initialize"]["components"]["pointer_ner"] = {"descriptions": str(path)}
        nlp.initialize(lambda: examples)
    assert component.descriptions == descriptions
    path.unlink()
    loaded = copy_of(nlp)
    assert pointers_of(loaded).descriptions == descriptions


def test_descriptions_of_a_file_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "descriptions.json"
    path.write_text('{"PER": "a person",')
    component = add_pointers(spacy.blank("en"))
    with pytest.raises(ValueError, match=rf"descriptions of {re.escape(str(path))} are no JSON: "):
        component.set_descriptions(path)
    assert component.descriptions == DESCRIPTIONS


def test_descriptions_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    component = add_pointers(spacy.blank("en"))
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ValueError, match=f"there is no file '{re.escape(str(path))}' to read"):
            component.set_descriptions(path)
    assert component.descriptions == DESCRIPTIONS


@pytest.mark.parametrize("content", [["a person"], "a person", {"PER": ["a", "person"]}, {"O": 1}])
def test_descriptions_of_another_form(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "descriptions.json"
    srsly.write_json(path, content)
    component = add_pointers(spacy.blank("en"))
    with pytest.raises(ValueError, match=r'must be an object {"<label>": "<text>"'):
        component.set_descriptions(path)
    assert component.descriptions == DESCRIPTIONS


def test_descriptions_are_a_copy() -> None:
    component = add_pointers(spacy.blank("en"))
    component.descriptions["LOC"] = "changed"
    given = dict(DESCRIPTIONS)
    component.set_descriptions(given)
    given["LOC"] = "changed"
    assert component.descriptions == DESCRIPTIONS


def classes_of(nlp: Language, text: str) -> torch.Tensor:
    component = pointers_of(nlp)
    doc = nlp(text)
    return component.model.predict(component.make_inputs([doc], is_train=False)).classes


def test_set_descriptions_changes_a_loaded_pipeline(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path)
    nlp = spacy.load(tmp_path)
    before = classes_of(nlp, TEXTS[0])
    entities = entities_of(nlp(TEXTS[0]))
    swapped = {**DESCRIPTIONS, "LOC": DESCRIPTIONS["ORG"], "ORG": DESCRIPTIONS["LOC"]}
    pointers_of(nlp).set_descriptions(swapped)
    torch.testing.assert_close(classes_of(nlp, TEXTS[0]), before[:, [1, 0, 2, 3]])
    assert entities_of(nlp(TEXTS[0])) != entities
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)
    assert entities_of(nlp(TEXTS[0])) == entities


def test_only_the_first_tokens_of_a_description_count(trained: Language) -> None:
    nlp = copy_of(trained)
    before = classes_of(nlp, TEXTS[0])
    longer = {label: f"{text} " + "and more " * 9 for label, text in DESCRIPTIONS.items()}
    longer["LOC"] = "a place such as London"
    pointers_of(nlp).set_descriptions(longer)
    after = classes_of(nlp, TEXTS[0])
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.equal(after[:, 3], before[:, 3])  # It was shorter than what counts.


def test_refused_descriptions_leave_the_old_ones(trained: Language) -> None:
    nlp = copy_of(trained)
    with pytest.raises(ValueError, match=r"needs a description for: LOC, O\."):
        pointers_of(nlp).set_descriptions({"ORG": "a bank", "PER": "a person"})
    assert pointers_of(nlp).descriptions == DESCRIPTIONS
    assert_predicts_the_same(nlp, trained)


def test_add_type_before_training() -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    component.set_descriptions({"O": "none"})
    for label in ("LOC", "ORG", "PER"):
        component.add_type(label, DESCRIPTIONS[label])
    assert component.labels == ("LOC", "ORG", "PER")
    assert component.cfg["untrained"] == []
    overfit(nlp, make_examples(nlp), most=60)
    assert nlp.evaluate(make_examples(nlp))["spans_mtlner_f"] == 1.0


@pytest.mark.parametrize("description", ["", " \n"])
def test_add_type_needs_a_description(trained: Language, description: str) -> None:
    component = pointers_of(copy_of(trained))
    with pytest.raises(ValueError, match=r"the description of 'DRUG' is empty"):
        component.add_type("DRUG", description)
    assert component.labels == ("LOC", "ORG", "PER")


@pytest.mark.parametrize("label", ["", "O"])
def test_add_type_refuses_what_is_no_type(trained: Language, label: str) -> None:
    """ "O" is the description of what is no entity."""
    component = pointers_of(copy_of(trained))
    with pytest.raises(ValueError):
        component.add_type(label, "some text")
    assert component.labels == ("LOC", "ORG", "PER")
    assert component.descriptions == DESCRIPTIONS


def test_add_type_keeps_the_scores_of_the_others(trained: Language) -> None:
    nlp = copy_of(trained)
    component = pointers_of(nlp)
    docs = [nlp.make_doc(text) for text in TEXTS]
    before = component.model.predict(component.make_inputs(docs, is_train=False))
    component.add_type("DRUG", "a drug such as aspirin")
    assert component.labels == ("LOC", "ORG", "PER", "DRUG")
    after = component.model.predict(component.make_inputs(docs, is_train=False))
    for name in ("starts", "ends"):
        torch.testing.assert_close(getattr(after, name)[:, :3], getattr(before, name))
    for name in ("span_starts", "span_ends", "span_tokens", "span_lengths"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    torch.testing.assert_close(after.span_types[:3], before.span_types)
    torch.testing.assert_close(after.classes[:, [0, 1, 2, 4]], before.classes)
    # A known type's description can be replaced that way, which adds nothing.
    component.add_type("LOC", "a place")
    assert component.labels == ("LOC", "ORG", "PER", "DRUG")
    assert component.descriptions["LOC"] == "a place"
    assert component.cfg["untrained"] == ["DRUG"]


def test_type_is_found_by_its_description_alone() -> None:
    """Types are kinds of word endings, over an encoder that sees them and is not trained. Names
    of animals are known as names only, which gives their boundaries."""
    stems = ["Al", "Ber", "Cor", "Dan", "Em", "Fal"]
    kinds = {"LOC": "burg", "PER": "sson", "ORG": "corp", "DRUG": "ine", "GENE": "kin"}
    words = {kind: [stem + ending for stem in stems] for kind, ending in kinds.items()}
    animals = [stem + "cat" for stem in stems]
    descriptions = {kind: " ".join(own) for kind, own in words.items()}
    descriptions |= {"NAME": "Alburg Bersson Corcorp Danine Emkin", "O": "saw likes went to the"}
    data: list[tuple[str, Spans]] = []
    for number, (a, b) in enumerate(itertools.product(kinds, kinds)):
        x, y = words[a][number % 6], words[b][number // 6]
        data.append((f"{x} went to {y}", [(a, 0, 1), (b, 3, 4), ("NAME", 0, 1), ("NAME", 3, 4)]))
        data.append((f"the {y} likes {x}", [(b, 1, 2), (a, 3, 4), ("NAME", 1, 2), ("NAME", 3, 4)]))
    for word in animals:
        data.append((f"the {word} likes {word}", [("NAME", 1, 2), ("NAME", 3, 4)]))
        data.append((f"{word} went", [("NAME", 0, 1)]))
    fix_random_seed(0)
    nlp = spacy.blank("en")
    embed = {**EMBED, "attrs": ["SUFFIX", "SHAPE"], "rows": [500, 50]}
    # Its boundaries are those of any name: only the classification can tell it from the others.
    config: dict[str, Any] = {"learn_rate_factor": 20000.0, "fusion": 0.5}
    component = add_pointers(nlp, model={"tok2vec": embed, "rnn": None}, **config)
    component.set_descriptions(descriptions)
    train(nlp, make_examples(nlp, data=data), learn_rate=1e-6)
    texts = [f"the {animals[2]} likes Alsson", f"{animals[4]} went to Alburg"]

    def found(nlp: Language) -> list[list[int]]:
        docs = [nlp(text) for text in texts]
        return [[e.start for e in read_entities(d) if e.label == "ANIMAL"] for d in docs]

    assert found(nlp) == [[], []]
    component.add_type("ANIMAL", " ".join(animals))
    assert found(nlp) == [[1], [0]]
    loaded = copy_of(nlp)
    loaded.from_bytes(nlp.to_bytes())
    assert found(loaded) == [[1], [0]]
    # Another description makes another type of it.
    component.add_type("ANIMAL", descriptions["PER"])
    assert 3 in found(nlp)[0]
    # Training with its own examples ends the borrowing.
    learn = make_examples(nlp, data=[(texts[0], [("ANIMAL", 1, 2), ("PER", 3, 4)])])
    nlp.update(learn, sgd=False)
    assert component.cfg["untrained"] == ["ANIMAL"]
    component.finish_update(nlp.create_optimizer())
    assert component.cfg["untrained"] == []


def test_added_type_keeps_borrowing_until_weights_change(trained: Language) -> None:
    nlp = copy_of(trained)
    component = pointers_of(nlp)
    component.add_type("DRUG", "a drug")
    optimizer = nlp.resume_training()
    examples = make_examples(nlp, data=[("Ada saw aspirin", [("DRUG", 2, 3)])])
    component.get_loss(examples, scores_of(component, examples))
    step(nlp, make_examples(nlp), optimizer)
    assert component.cfg["untrained"] == ["DRUG"]
    examples[0].reference.user_data["mtlner_weight"] = 0.0
    step(nlp, examples, optimizer)
    assert component.cfg["untrained"] == ["DRUG"]
    examples[0].reference.user_data["mtlner_weight"] = 1.0
    step(nlp, examples, optimizer)
    assert component.cfg["untrained"] == []


# The classification's cache


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[list[list[str]]]:
    """The tokens of the descriptions, each time that they are encoded for prediction."""
    made: list[list[list[str]]] = []
    predict = SideTextEncoder.predict

    def record(self: SideTextEncoder) -> Any:
        made.append([[token.text for token in doc] for doc in self.docs])
        return predict(self)

    monkeypatch.setattr(SideTextEncoder, "predict", record)
    return made


def test_descriptions_are_encoded_once(trained: Language, encodings: list[Any]) -> None:
    nlp = copy_of(trained)
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)
    for text in TEXTS:
        nlp(text)
    list(nlp.pipe(TEXTS * 3, batch_size=2))
    nlp.evaluate(make_examples(nlp))
    assert encodings == [
        [
            ["a", "place", "such", "as", "London"],
            ["a", "university", "or", "bank"],
            ["the", "name", "of", "a", "person"],
            ["none", "of", "these"],
        ]
    ]


def test_without_descriptions_nothing_is_encoded(encodings: list[Any]) -> None:
    nlp = make_trained(beta=1.0, steps=1)
    nlp("Ada saw Berlin")
    assert encodings == []


@pytest.mark.parametrize(
    "event", ["update", "disk", "bytes", "set_descriptions", "add_type", "initialize"]
)
def test_descriptions_are_encoded_again_after(
    event: str, trained: Language, encodings: list[Any], tmp_path: Path
) -> None:
    nlp = copy_of(trained)
    component = pointers_of(nlp)
    component.set_descriptions(DESCRIPTIONS)
    nlp("Ada saw Berlin")
    assert len(encodings) == 1
    if event == "update":
        step(nlp, make_examples(nlp), nlp.resume_training())
    elif event == "disk":
        component.to_disk(tmp_path)
        component.from_disk(tmp_path)
    elif event == "bytes":
        component.from_bytes(component.to_bytes())
    elif event == "set_descriptions":
        component.set_descriptions(DESCRIPTIONS)
    elif event == "add_type":
        component.add_type("DRUG", "a drug")
    else:
        nlp.initialize(lambda: make_examples(nlp))
    nlp("Ada saw Berlin")
    nlp("Ada saw Berlin")
    assert len(encodings) == 2


def test_descriptions_are_encoded_by_the_weights_in_use(trained: Language) -> None:
    nlp = copy_of(trained)
    text = "Ada saw Berlin"
    before = classes_of(nlp, text)
    params = {
        (node.id, name): 0.5 * node.get_param(name)
        for node in pointers_of(nlp).model.walk()
        for name in node.param_names
        if node.has_param(name)
    }
    with nlp.use_params(params):
        assert not torch.allclose(classes_of(nlp, text), before)
        assert_predicts_as_if_loaded(nlp)
    torch.testing.assert_close(classes_of(nlp, text), before)


def assert_predicts_as_if_loaded(nlp: Language) -> None:
    """The same with nothing left over from before."""
    loaded = spacy.util.load_model_from_config(nlp.config, auto_fill=True)
    loaded.from_bytes(nlp.to_bytes())
    component, other = pointers_of(nlp), pointers_of(loaded)
    for text in TEXTS[:2]:
        torch.testing.assert_close(classes_of(nlp, text), classes_of(loaded, text))
        assert entities_of(nlp(text)) == entities_of(loaded(text))
    assert component.descriptions == other.descriptions


def test_cache_is_dropped_after_predictions_within_an_update(trained: Language) -> None:
    """With `annotating_components`, prediction comes between the gradient and the step."""
    nlp = copy_of(trained)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.05
    step(nlp, make_examples(nlp), optimizer, annotates=["pointer_ner"])
    assert_predicts_as_if_loaded(nlp)


def add_curated_transformer(nlp: Language, folder: str) -> dict[str, Any]:
    """Have the pipeline begin with a tiny BERT; returns the config of a listener."""
    package = "spacy-curated-transformers"
    sizes = srsly.read_json(Path(folder) / "config.json")
    model = {
        "@architectures": f"{package}.BertTransformer.v1",
        "vocab_size": sizes["vocab_size"],
        "hidden_width": sizes["hidden_size"],
        "intermediate_width": sizes["intermediate_size"],
        "num_hidden_layers": sizes["num_hidden_layers"],
        "num_attention_heads": sizes["num_attention_heads"],
        "max_position_embeddings": sizes["max_position_embeddings"],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "piece_encoder": {"@architectures": f"{package}.BertWordpieceEncoder.v1"},
        # Where windows overlap, the package halves the gradient twice.
        "with_spans": {
            "@architectures": f"{package}.WithStridedSpans.v1",
            "window": 62,
            "stride": 62,
        },
    }
    nlp.add_pipe("curated_transformer", name="transformer", config={"model": model})
    nlp.config["initialize"]["components"]["transformer"] = {
        f"{part}_loader": {"@model_loaders": f"{package}.{loader}.v1", "name": folder}
        for part, loader in (
            ("encoder", "HFTransformerEncoderLoader"),
            ("piecer", "HFPieceEncoderLoader"),
        )
    }
    return {
        "@architectures": f"{package}.LastTransformerLayerListener.v1",
        "width": sizes["hidden_size"],
        "pooling": {"@layers": "reduce_mean.v1"},
    }


def make_shared(
    encoder: str = "tok2vec",
    *,
    crf: str | None = None,
    folder: Path | None = None,
    tiny_bert: Callable[[Path], str] | None = None,
    model: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[Language, list[Example]]:
    """An initialized pipeline over an inline or shared encoder, with a `crf_ner` of its own task
    before or after pointer_ner, or none."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    listener: dict[str, Any] = ENCODER
    if encoder == "tok2vec":
        nlp.add_pipe("tok2vec", config={"model": ENCODER})
        listener = TOK2VEC_LISTENER
    elif encoder == "transformer":
        assert folder is not None and tiny_bert is not None
        transformer = {
            "@architectures": "spacy-transformers.TransformerModel.v3",
            "name": tiny_bert(folder),
            "tokenizer_config": {"use_fast": True, "model_max_length": 64},
            # Without dropout, so that two runs can be compared.
            "transformer_config": {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0},
            "get_spans": {
                "@span_getters": "spacy-transformers.strided_spans.v1",
                "window": 32,
                "stride": 24,
            },
        }
        nlp.add_pipe("transformer", config={"model": transformer})
        listener = TRANSFORMER_LISTENER
    elif encoder == "curated":
        assert folder is not None and tiny_bert is not None
        listener = add_curated_transformer(nlp, tiny_bert(folder))
    for place in ("before", "pointers", "after"):
        if place == "pointers":
            add_pointers(nlp, model={"tok2vec": listener, **(model or {})}, **config)
        elif place == crf:
            head = {"tok2vec": listener, "hidden_width": 32}
            nlp.add_pipe("crf_ner", config={"model": head, "spans_key": "flat"})
    examples = make_examples(nlp)
    if crf:
        for example, (_, spans) in zip(examples, TRAIN, strict=True):
            entities = [Entity(label, ((a, b),)) for label, a, b in spans[-1:]]
            write_entities(example.reference, entities, "flat")
    nlp.initialize(lambda: examples)
    return nlp, examples


def test_encoder_that_another_component_trains() -> None:
    """The cache does not outlive the weights, also where pointer_ner is not updated itself."""
    nlp, examples = make_shared(crf="after")
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.05
    for _ in range(2):
        step(nlp, examples, optimizer)
    nlp("Ada saw Berlin")
    for _ in range(2):
        step(nlp, examples, optimizer, exclude=["pointer_ner"])
    assert_predicts_as_if_loaded(nlp)


def test_replaced_listeners() -> None:
    nlp, examples = make_shared(crf="after")
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.05
    step(nlp, examples, optimizer)
    before = [entities_of(nlp(text)) for text in TEXTS]
    nlp.replace_listeners("tok2vec", "pointer_ner", ["model.tok2vec"])
    assert [entities_of(nlp(text)) for text in TEXTS] == before
    # Each has an encoder of its own from now on, and the descriptions pass the component's.
    shared = nlp.get_pipe("tok2vec").model.to_bytes()
    losses = step(nlp, examples, optimizer, exclude=["crf_ner", "tok2vec"])
    assert losses["pointer_ner"] > 0
    assert nlp.get_pipe("tok2vec").model.to_bytes() == shared
    assert_predicts_as_if_loaded(nlp)


def test_replaced_listeners_of_an_encoder_that_has_changed(encodings: list[Any]) -> None:
    nlp, _ = make_shared()
    nlp("Ada saw Berlin")
    for node in nlp.get_pipe("tok2vec").model.walk():
        for name in node.param_names:
            node.set_param(name, node.get_param(name) * 1.5)
    nlp.replace_listeners("tok2vec", "pointer_ner", ["model.tok2vec"])
    nlp("Ada saw Berlin")
    assert len(encodings) == 2
    assert_predicts_as_if_loaded(nlp)


def test_replaced_transformer_listener(
    tmp_path: Path, tiny_bert: Callable[[Path], str], encodings: list[Any]
) -> None:
    nlp, examples = make_shared("transformer", folder=tmp_path, tiny_bert=tiny_bert)
    nlp("Ada saw Berlin")
    before = classes_of(nlp, TEXTS[0])
    nlp.replace_listeners("transformer", "pointer_ner", ["model.tok2vec"])
    torch.testing.assert_close(classes_of(nlp, TEXTS[0]), before)
    module = get_module_shim(pointers_of(nlp).model.get_ref("output_layer")).module
    nlp.update(examples, sgd=False, exclude=["transformer"])
    assert module.view.grad.any()


# Another pipeline


@pytest.mark.parametrize("is_alive", [True, False])
def test_sourced_component_predicts_the_same(trained: Language, is_alive: bool) -> None:
    source = copy_of(trained)
    nlp = spacy.blank("en")
    nlp.add_pipe("pointer_ner", name="entities", source=source)
    component = pointers_of(nlp, "entities")
    if not is_alive:
        del source
        gc.collect()
    component.set_descriptions(DESCRIPTIONS)
    assert_predicts_the_same(nlp, trained)
    loaded = copy_of(nlp)
    pointers_of(loaded, "entities").set_descriptions(DESCRIPTIONS)
    assert_predicts_the_same(loaded, trained)


def test_dead_proxies_do_not_disturb_the_search_for_the_pipeline(trained: Language) -> None:
    source = copy_of(trained)
    nlp = spacy.blank("en")
    nlp.add_pipe("pointer_ner", source=source)
    proxy = weakref.proxy(source)
    del source
    gc.collect()
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)
    assert_predicts_the_same(nlp, trained)
    assert type(proxy) in weakref.ProxyTypes


@pytest.mark.parametrize("is_alive", [True, False])
def test_sourced_component_reads_descriptions_as_its_pipeline_does(
    trained: Language, is_alive: bool, encodings: list[Any]
) -> None:
    source = copy_of(trained)
    pointers_of(source).set_descriptions(DESCRIPTIONS)
    source("Ada saw Berlin")
    nlp = spacy.blank("zh")  # Its tokens are characters.
    nlp.add_pipe("pointer_ner", source=source)
    if not is_alive:
        del source
        gc.collect()
    nlp("Ada saw Berlin")
    assert encodings[-1] == [
        [token.text for token in nlp.make_doc(DESCRIPTIONS[label])[:5]]
        for label in ("LOC", "ORG", "PER", "O")
    ]


def test_sourced_component_over_another_encoder() -> None:
    """Texts and descriptions pass the same encoder, that of the pipeline that reads the text."""
    source, _ = make_shared()
    source("Ada saw Berlin")
    fix_random_seed(7)
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": ENCODER})
    nlp.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nlp.add_pipe("pointer_ner", source=source)
    assert_predicts_as_if_loaded(nlp)


def test_initialized_in_another_pipeline_of_the_same_vocab() -> None:
    """Its descriptions are read by the encoder that trains with it, not by the source's."""
    source, _ = make_shared()
    nlp = spacy.blank("en", vocab=source.vocab)
    nlp.add_pipe("tok2vec", config={"model": ENCODER})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nlp.add_pipe("pointer_ner", source=source)
    nlp.config["initialize"]["components"]["pointer_ner"] = {"descriptions": DESCRIPTIONS}
    nlp.initialize(lambda: make_examples(nlp))
    assert pointers_of(nlp).side_texts.find_pipeline(nlp.vocab) is nlp
    assert_predicts_as_if_loaded(nlp)


def test_sourced_together_with_the_encoder() -> None:
    source, _ = make_shared()
    expected = [classes_of(source, text) for text in TEXTS[:2]]
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", name="encoder", source=source)
    nlp.add_pipe("pointer_ner", source=source)
    del source
    gc.collect()
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)
    for text, classes in zip(TEXTS, expected, strict=False):
        torch.testing.assert_close(classes_of(nlp, text), classes)


@pytest.mark.parametrize("replace", [True, False])
def test_sourced_by_a_config(replace: bool, tmp_path: Path) -> None:
    source, _ = make_shared()
    source.to_disk(tmp_path)
    names = ["pointer_ner"] if replace else ["tok2vec", "pointer_ner"]
    components: dict[str, dict[str, Any]] = {name: {"source": str(tmp_path)} for name in names}
    if replace:
        components["pointer_ner"]["replace_listeners"] = ["model.tok2vec"]
    config = {"nlp": {"lang": "en", "pipeline": names}, "components": components}
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    for text in TEXTS[:2]:
        torch.testing.assert_close(classes_of(nlp, text), classes_of(source, text))


def test_renamed_components() -> None:
    nlp, examples = make_shared()
    expected = classes_of(nlp, TEXTS[0])
    nlp.rename_pipe("pointer_ner", "entities")
    nlp.rename_pipe("tok2vec", "encoder")
    component = pointers_of(nlp, "entities")
    component.set_descriptions(DESCRIPTIONS)
    doc = nlp(TEXTS[0])
    scores = component.model.predict(component.make_inputs([doc], is_train=False))
    torch.testing.assert_close(scores.classes, expected)
    assert nlp.update(examples, sgd=False)["entities"] > 0


def test_component_that_was_disabled() -> None:
    """spaCy links listeners of enabled components only, but predicts with any."""
    nlp, _ = make_shared()
    expected = classes_of(nlp, TEXTS[0])
    with nlp.select_pipes(disable=["pointer_ner"]):
        nlp.add_pipe("sentencizer", first=True)
    pointers_of(nlp).set_descriptions(DESCRIPTIONS)
    torch.testing.assert_close(classes_of(nlp, TEXTS[0]), expected)


def test_component_that_is_loaded_disabled(tmp_path: Path) -> None:
    nlp, _ = make_shared()
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path, disable=["pointer_ner"])
    loaded.enable_pipe("pointer_ner")
    torch.testing.assert_close(classes_of(loaded, TEXTS[0]), classes_of(nlp, TEXTS[0]))


# Gold


def scores_of(component: PointerEntityRecognizer, examples: list[Example]) -> PointerScores:
    docs = [example.predicted for example in examples]
    return component.model.predict(component.make_inputs(docs, is_train=False))


@pytest.mark.parametrize("beta", [0.5, "learned", 1.0])
def test_docs_without_the_key_teach_nothing(beta: float | str) -> None:
    """A batch of another task leaves the head as it is, and scales nothing in a mixed batch."""
    nlp = make_trained(steps=3, beta=beta)
    component = pointers_of(nlp)
    examples, others = make_examples(nlp), make_examples(nlp, key="other")
    scores = scores_of(component, examples)
    loss, gradient = component.get_loss(examples, scores)
    mixed, mixed_gradient = component.get_loss(
        examples + others, scores_of(component, examples + others)
    )
    assert mixed == pytest.approx(loss, rel=1e-5)
    n_tokens = len(gradient.starts)
    for part, other in zip(gradient, mixed_gradient, strict=True):
        torch.testing.assert_close(other[: len(part)], part)
    for name in TOKEN_PARTS:
        assert not bool((getattr(mixed_gradient, name)[n_tokens:].abs() > NOTHING).any())
    nothing, no_gradient = component.get_loss(others, scores)
    assert nothing == 0.0
    assert not any(bool(part.any()) for part in no_gradient)


@pytest.mark.parametrize("beta", [0.5, "learned"])
def test_sample_weight_0_teaches_nothing(beta: float | str) -> None:
    nlp = make_trained(steps=3, beta=beta)
    component = pointers_of(nlp)
    examples = make_examples(nlp)
    scores = scores_of(component, examples)
    full, _ = component.get_loss(examples, scores)
    examples[0].reference.user_data["mtlner_weight"] = 0.0
    part, gradient = component.get_loss(examples, scores)
    assert part < full
    assert not gradient.starts[:6].any() and not gradient.classes[:6].any()
    assert gradient.starts[6:].any()
    for example in examples:
        example.reference.user_data["mtlner_weight"] = 0.0
    nothing, no_gradient = component.get_loss(examples, scores)
    assert nothing == 0.0
    assert not any(bool(part.any()) for part in no_gradient)


def test_unknown_tokens_get_no_gradient() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, gold="ents")
    reference = nlp.make_doc("Ada Lovelace went to New York")
    known = [Span(reference, 0, 2, label="PER"), Span(reference, 4, 5, label="LOC")]
    reference.set_ents(known, outside=[reference[2:3]], default="missing")
    example = Example(nlp.make_doc(reference.text), reference)
    component.initialize(lambda: [example], nlp=nlp)
    loss, gradient = component.get_loss([example], scores_of(component, [example]))
    assert loss > 0
    for name in TOKEN_PARTS:
        reached = (getattr(gradient, name).abs() > NOTHING).any(1).tolist()
        assert reached == [True, True, True, False, True, False], name


def test_gold_is_read_from_ents_where_there_are_no_spans() -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    examples = make_examples(nlp)
    for example, (_, spans) in zip(examples, TRAIN, strict=True):
        del example.reference.spans["mtlner"]
        label, start, end = spans[0] if spans else ("", 0, 0)
        ents = [Span(example.reference, start, end, label=label)] if spans else []
        example.reference.set_ents(ents)
    overfit(nlp, examples, most=60)
    assert component.cfg["gold_source"] == "ents"
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0


def test_what_it_cannot_learn_is_counted() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, model={"max_length": 3})
    reference = nlp.make_doc("University of New York and Chicago")
    entities = [
        Entity("ORG", ((0, 4),)),
        Entity("LOC", ((2, 4),)),
        Entity("ORG", ((0, 3),)),
        Entity("ORG", ((0, 2), (5, 6))),
    ]
    write_entities(reference, entities)
    example = Example(nlp.make_doc(reference.text), reference)
    message = r"2 gold entities are left out: .* contiguous ones of at most 3 tokens \(2 are kept"
    with pytest.warns(UserWarning, match=message):
        component.initialize(lambda: [example], nlp=nlp)
    gold = component.read_gold(example)
    assert gold is not None
    assert gold.entities == [entities[1], entities[2]]
    assert nlp.update([example], sgd=False)["pointer_ner"] > 0


@pytest.mark.parametrize(
    ("predicted", "reference", "end", "is_kept"),
    [
        (["a", "b", "c", "d", "x"], ["abcd", "x"], 1, False),
        (["abcd", "x"], ["a", "b", "c", "d", "x"], 4, True),
    ],
)
def test_longest_entity_is_measured_in_predicted_tokens(
    predicted: list[str], reference: list[str], end: int, is_kept: bool
) -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, model={"max_length": 3})

    def make_doc(words: list[str]) -> Doc:
        return Doc(nlp.vocab, words=words, spaces=[False] * (len(words) - 2) + [True, False])

    gold_doc = make_doc(reference)
    write_entities(gold_doc, [Entity("LOC", ((0, end),))])
    example = Example(make_doc(predicted), gold_doc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        component.initialize(lambda: [example], nlp=nlp, labels=["LOC"])
    gold = component.read_gold(example)
    assert gold is not None
    assert (gold.n_dropped, len(gold.entities)) == ((0, 1) if is_kept else (1, 0))
    assert component.update([example])["pointer_ner"] > 0


def test_gold_inside_tokens_is_unknown() -> None:
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    reference = Doc(nlp.vocab, words=["un", "London", "ish", "London"], spaces=[0, 0, 1, 0])
    write_entities(reference, [Entity("LOC", ((1, 2),)), Entity("LOC", ((3, 4),))])
    example = Example(nlp.make_doc(reference.text), reference)
    with pytest.warns(UserWarning, match="1 gold entities begin or end inside a token"):
        component.initialize(lambda: [example], nlp=nlp)
    _, gradient = component.get_loss([example], scores_of(component, [example]))
    assert gradient.starts.ne(0).any(1).tolist() == [False, True]


# Decoding


LENGTHS = [4, 0, 7, 1, 3]
LABELS = ["A", "B", "C"]
LONGEST = 4
MATCH = 2


def make_decoder(**config: Any) -> tuple[PointerEntityRecognizer, list[Doc]]:
    nlp = spacy.blank("en")
    component = add_pointers(nlp, **config)
    for label in LABELS:
        component.add_label(label)
    return component, [Doc(nlp.vocab, words=["w"] * length) for length in LENGTHS]


def random_scores(seed: int = 0, *, described: bool = True, scale: float = 1.0) -> PointerScores:
    n_tokens, n_types = sum(LENGTHS), len(LABELS)
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (n_tokens, n_types),
        (n_tokens, n_types),
        *[(n_tokens, MATCH)] * 6,
        (LONGEST, MATCH),
        (MATCH, MATCH),
        (MATCH,),
        (n_types, MATCH),
        (n_tokens, (n_types + 1) * described),
        (1,),
    )
    return PointerScores(
        *(torch.randn(s, generator=generator, dtype=torch.double) * scale for s in shapes)
    )


def decode_by_loop(
    scores: PointerScores,
    *,
    matching: str,
    threshold: float,
    fusion: float,
    untrained: Iterable[str] = (),
) -> list[list[tuple[str, int, int, float]]]:
    """All candidates, one after the other, as the component's docstring tells."""
    starts, ends, classes = scores.starts, scores.ends, scores.classes
    prepared = prepare_spans(scores)
    n_types = len(LABELS)
    trained = [r for r, label in enumerate(LABELS) if label not in untrained]

    def sigmoid(x: Any) -> float:
        return float(torch.as_tensor(x).sigmoid())

    def borrow(logit: Callable[[int], Any], r: int) -> float:
        return sigmoid(logit(r) if r in trained else max(logit(other) for other in trained))

    def span(i: int, j: int, r: int) -> Any:
        return span_logits(scores, prepared, torch.tensor([i]), torch.tensor([j - i]))[0, r]

    def likeliest(logits: torch.Tensor) -> float:
        return max(sigmoid(logits[r]) for r in trained)

    weight = 1 - fusion * bool(classes.shape[1])
    least = threshold ** (1 / weight) / 100 if weight else 0.0

    def fuse(p: float, i: int, j: int, r: int) -> float:
        if not classes.shape[1]:
            return p
        near = [float((classes[t, r] - classes[t].max()).exp()) for t in range(i, j + 1)]
        return p ** (1 - fusion) * (sum(near) / len(near)) ** fusion

    found: list[list[tuple[str, int, int, float]]] = []
    offset = 0
    for length in LENGTHS:
        row = range(offset, offset + length)
        candidates = []
        for i, r in itertools.product(row, range(n_types)):
            reach = [j for j in row if i <= j < i + LONGEST]
            if matching == "spans":
                for j in reach:
                    if min(likeliest(starts[i]), likeliest(ends[j])) < least:
                        continue
                    p = borrow(lambda r, i=i, j=j: span(i, j, r), r)
                    candidates.append((i, j, r, fuse(p, i, j, r)))
                continue
            p_start = borrow(lambda r, i=i: starts[i, r], r)
            p_ends = {j: borrow(lambda r, j=j: ends[j, r], r) for j in reach}
            near_ends = [j for j in reach if p_ends[j] >= threshold]
            if p_start >= threshold and near_ends:
                j = near_ends[0]
                candidates.append((i, j, r, fuse(math.sqrt(p_start * p_ends[j]), i, j, r)))
        kept = sorted(
            (i - offset, -(j + 1 - offset), r, score)
            for i, j, r, score in candidates
            if score >= threshold
        )
        found.append([(LABELS[r], i, -end, score) for i, end, r, score in kept])
        offset += length
    return found


def assert_decodes_as_by_loop(
    component: PointerEntityRecognizer, docs: list[Doc], scores: PointerScores, **settings: Any
) -> int:
    component.cfg.update(settings)
    found = component.decode(docs, scores)
    expected = decode_by_loop(scores, **settings)
    assert len(found) == len(expected) == len(docs)
    for entities, wanted in zip(found, expected, strict=True):
        assert [(e.label, e.start, e.end) for e in entities] == [w[:3] for w in wanted]
        assert [e.score for e in entities] == pytest.approx([w[3] for w in wanted], abs=1e-5)
        assert all(0.0 <= e.score <= 1.0 for e in entities)
    return sum(map(len, found))


@pytest.mark.parametrize("matching", ["spans", "nearest"])
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("fusion", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_decodes_as_by_loop(
    matching: str, described: bool, fusion: float, threshold: float
) -> None:
    component, docs = make_decoder()
    settings = {"matching": matching, "threshold": threshold, "fusion": fusion}
    n_found = 0
    for seed in range(3):
        scores = random_scores(seed, described=described)
        n_found += assert_decodes_as_by_loop(component, docs, scores, **settings)
    assert n_found >= 10
    if matching == "spans" and threshold == 0:
        n_spans = sum(min(LONGEST, length - i) for length in LENGTHS for i in range(length))
        assert n_found == 3 * n_spans * len(LABELS)


@pytest.mark.parametrize("matching", ["spans", "nearest"])
@pytest.mark.parametrize("fusion", [0.0, 0.5, 1.0])
def test_threshold_1_is_reached_by_certainty(matching: str, fusion: float) -> None:
    component, docs = make_decoder()
    component.cfg.update(matching=matching, threshold=1.0, fusion=fusion)
    if fusion < 1:
        assert not any(component.decode(docs, random_scores()))
    scores = PointerScores(*(torch.zeros(score.shape) for score in random_scores()))
    for logits in (scores.starts, scores.ends, scores.classes):
        logits.fill_(-200.0)
    # The third row's tokens 1 and 4.
    scores.classes[:, -1] = 200.0
    for token, label in ((5, 0), (8, 2)):
        for logits in (scores.starts, scores.ends, scores.classes):
            logits[token, label] = 200.0
    expected = [[], [], [Entity("A", ((1, 2),)), Entity("C", ((4, 5),))], [], []]
    found = component.decode(docs, scores)
    assert found == expected
    assert {entity.score for entities in found for entity in entities} == {1.0}


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8])
def test_beta_0_finds_runs_of_tokens_near_a_type(threshold: float) -> None:
    component, docs = make_decoder(beta=0.0, threshold=threshold)
    n_found = 0
    for seed in range(5):
        scores = random_scores(seed)
        for row, entities in enumerate(component.decode(docs, scores)):
            offset = sum(LENGTHS[:row])
            expected = []
            for r, label in enumerate(LABELS):
                classes = scores.classes[offset : offset + LENGTHS[row]]
                near = [float((c[r] - c.max()).exp()) for c in classes]
                for is_near, run in itertools.groupby(
                    range(len(near)), lambda i, near=near: near[i] >= threshold
                ):
                    places = list(run)
                    if is_near and len(places) <= LONGEST:
                        score = sum(near[i] for i in places) / len(places)
                        expected.append((places[0], -places[-1] - 1, label, score))
            expected.sort()
            assert [(e.start, -e.end, e.label) for e in entities] == [w[:3] for w in expected]
            assert [e.score for e in entities] == pytest.approx([w[3] for w in expected], abs=1e-5)
            n_found += len(entities)
    assert n_found > 0


def test_beta_0_trains_the_classification_alone() -> None:
    nlp = make_trained(beta=0.0, steps=80)
    docs = [nlp("Ada"), nlp("nothing to find here")]
    assert {(e.label, e.start, e.end) for e in read_entities(docs[0])} == {("PER", 0, 1)}
    assert not read_entities(docs[1])


@pytest.mark.parametrize("scale", [0.0, 30.0])
@pytest.mark.parametrize("matching", ["spans", "nearest"])
@pytest.mark.parametrize("fusion", [0.0, 0.5, 1.0])
def test_decodes_extreme_scores_as_by_loop(scale: float, matching: str, fusion: float) -> None:
    component, docs = make_decoder()
    scores = random_scores(1, scale=scale)
    settings = {"matching": matching, "threshold": 0.4, "fusion": fusion}
    n_found = assert_decodes_as_by_loop(component, docs, scores, **settings)
    assert n_found > 0


@pytest.mark.parametrize("fusion", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("chunk", [1, 3, 8, 14])
def test_chunks_make_no_difference(
    chunk: int, fusion: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    component, docs = make_decoder(threshold=0.1, fusion=fusion)
    whole = component.decode(docs, random_scores())
    monkeypatch.setattr(pointer_ner, "SPAN_CHUNK", chunk)
    parts = component.decode(docs, random_scores())
    assert parts == whole
    for entities, others in zip(parts, whole, strict=True):
        assert [e.score for e in entities] == pytest.approx([e.score for e in others], abs=1e-6)


@pytest.mark.parametrize("matching", ["spans", "nearest"])
@pytest.mark.parametrize("untrained", [["B"], ["C", "A"]])
def test_untrained_types_have_the_likeliest_boundaries(matching: str, untrained: list[str]) -> None:
    component, docs = make_decoder()
    component.cfg["untrained"] = untrained
    for seed in range(3):
        assert_decodes_as_by_loop(
            component,
            docs,
            random_scores(seed),
            matching=matching,
            threshold=0.4,
            fusion=0.5,
            untrained=untrained,
        )


def test_untrained_types_do_not_decide_what_is_scored() -> None:
    component, docs = make_decoder(matching="spans", fusion=0.0)
    scores = random_scores()
    component.cfg["untrained"] = ["C"]
    for pointers in (scores.starts, scores.ends):
        pointers -= 50.0
    likely = scores._replace(span_types=scores.span_types + 100.0)
    assert not any(component.decode(docs, likely))
    for pointers in (likely.starts, likely.ends):
        pointers[:, 2] = 0.0
    assert not any(component.decode(docs, likely))
    component.cfg["untrained"] = []
    assert any(component.decode(docs, likely))


@pytest.mark.parametrize("matching", ["spans", "nearest"])
def test_nothing_reaches_the_threshold(matching: str) -> None:
    component, docs = make_decoder(matching=matching)
    scores = random_scores()
    scores = scores._replace(starts=scores.starts - 100.0)
    assert component.decode(docs, scores) == [[]] * len(docs)


# Scores and annotation


def test_find_threshold(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "pipeline")
    docs = [example.reference for example in make_examples(trained)]
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    best, score, scores = find_threshold(
        str(tmp_path / "pipeline"),
        tmp_path / "dev.spacy",
        "pointer_ner",
        threshold_key="threshold",
        scores_key="spans_mtlner_f",
        n_trials=5,
    )
    assert sorted(scores) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert score == scores[best] == 1.0
    assert 0.0 < scores[0.0] < scores[0.5]


def test_a_lower_threshold_finds_more(trained: Language) -> None:
    nlp = copy_of(trained)
    found = {}
    for threshold in (0.9, 0.5, 0.1, 0.001):
        pointers_of(nlp).cfg["threshold"] = threshold
        entities = read_entities(nlp(TEXTS[0]))
        assert all(entity.score >= threshold for entity in entities)
        found[threshold] = {(e.label, e.fragments) for e in entities}
    assert found[0.9] <= found[0.5] <= found[0.1] < found[0.001]


def test_ents_are_written_where_asked_for(trained: Language) -> None:
    nlp = copy_of(trained)
    pointers_of(nlp).cfg["annotate_ents"] = True
    doc = nlp(TEXTS[3])
    assert len(read_entities(doc)) == 4
    assert doc.ents
    assert {(e.label_, e.start, e.end) for e in doc.ents} <= set(TRAIN[3][1])


def test_scores_are_written(trained: Language) -> None:
    doc = trained(TEXTS[0])
    scores = doc.spans["mtlner"].attrs["scores"]
    assert len(scores) == 3
    assert all(isinstance(score, float) and 0.5 <= score <= 1.0 for score in scores)


# The descriptions' gradient


HAS_CURATED = importlib.util.find_spec("spacy_curated_transformers") is not None
CURATED = pytest.param(
    "curated",
    marks=pytest.mark.skipif(
        not HAS_CURATED or tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4),
        reason="no spacy-curated-transformers, or numpy 2.4, with which 0.3 cannot train",
    ),
)
ENCODERS = ["inline", "tok2vec", "transformer", CURATED]


def encoder_of(nlp: Language) -> Model:
    for name in ("tok2vec", "transformer"):
        if name in nlp.pipe_names:
            return nlp.get_pipe(name).model
    return pointers_of(nlp).model.get_ref("tok2vec")


def weights_of(model: Model) -> list[tuple[Any, Callable[[], Any]]]:
    """Each weight's memory, and what gets its gradient."""
    found: list[tuple[Any, Callable[[], Any]]] = []
    for node in model.walk():
        for name in node.param_names:
            found.append(
                (
                    node.get_param(name),
                    lambda node=node, name=name: (
                        node.get_grad(name) if node.has_grad(name) else node.get_param(name) * 0
                    ),
                )
            )
        for shim in node.shims:
            for weight in shim._model.parameters():
                array = weight.detach().numpy()
                found.append(
                    (
                        array,
                        lambda weight=weight, array=array: (
                            array * 0 if weight.grad is None else weight.grad.numpy()
                        ),
                    )
                )
    return found


def gradient_of(model: Model) -> list[Any]:
    """The gradient of each weight."""
    return [get_gradient().copy() for _, get_gradient in weights_of(model)]


def norm(arrays: Iterable[Any]) -> float:
    return math.sqrt(sum(float((array.astype("d") ** 2).sum()) for array in arrays))


def difference(arrays: list[Any], others: list[Any]) -> float:
    return norm(a - b for a, b in zip(arrays, others, strict=True))


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptions are encoded, but the encoder does not learn from them."""
    monkeypatch.setattr(
        SideTextEncoder, "begin_update", lambda self: (self.predict(), lambda d_rows: None)
    )


@pytest.fixture
def make_encoded(
    tmp_path: Path, tiny_bert: Callable[[Path], str]
) -> Callable[..., tuple[Language, list[Example]]]:
    """`make_shared`, as often as needed."""
    folders = (tmp_path / str(number) for number in itertools.count())

    def make(encoder: str, **settings: Any) -> tuple[Language, list[Example]]:
        folder = next(folders)
        folder.mkdir()
        torch.manual_seed(0)  # The tiny BERT's weights are made at random.
        return make_shared(encoder, folder=folder, tiny_bert=tiny_bert, **settings)

    return make


@pytest.mark.parametrize("crf", [None, "before", "after"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoder_learns_from_descriptions(
    encoder: str,
    crf: str | None,
    make_encoded: Callable[..., tuple[Language, list[Example]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is that of the loss, by finite differences along its own direction; without
    the descriptions' part, it is another one."""

    def run() -> tuple[list[Any], Callable[[float, list[Any]], float]]:
        nlp, examples = make_encoded(encoder, crf=crf, beta=0.3)
        head = get_module_shim(pointers_of(nlp).model.get_ref("output_layer")).module
        with torch.no_grad():
            head.view.fill_(1.0)  # Descriptions matter more than they do to begin with.
        nlp.update(examples, sgd=False, drop=0.0)
        gradient = gradient_of(encoder_of(nlp))

        def loss_at(distance: float, direction: list[Any]) -> float:
            """The loss with the weights moved along a direction."""
            kept = [(array, array.copy()) for array, _ in weights_of(encoder_of(nlp))]
            length = norm(direction)
            for (array, _), part in zip(kept, direction, strict=True):
                array += distance * part / length
            losses: dict[str, float] = {}
            nlp.update(make_like(examples, nlp), sgd=False, drop=0.0, losses=losses)
            for array, old in kept:
                array[...] = old
            return losses["pointer_ner"] + losses.get("crf_ner", 0.0)

        return gradient, loss_at

    gradient, loss_at = run()
    cut_off(monkeypatch)
    text_gradient, _ = run()
    monkeypatch.undo()
    of_descriptions = [a - b for a, b in zip(gradient, text_gradient, strict=True)]
    assert norm(of_descriptions) > 0.02 * norm(gradient)
    step = 0.002
    for direction in (gradient, of_descriptions):
        slope = (loss_at(step, direction) - loss_at(-step, direction)) / (2 * step)
        expected, without = (
            sum(float((a * b).sum()) for a, b in zip(g, direction, strict=True)) / norm(direction)
            for g in (gradient, text_gradient)
        )
        assert slope == pytest.approx(expected, rel=0.02)
    assert abs(slope - without) > 0.1 * abs(slope)


def make_like(examples: list[Example], nlp: Language) -> list[Example]:
    return [Example(nlp.make_doc(eg.reference.text), eg.reference) for eg in examples]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_is_the_texts_alone_without_descriptions(
    encoder: str,
    make_encoded: Callable[..., tuple[Language, list[Example]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients = []
    for is_cut in (False, True):
        if is_cut:
            cut_off(monkeypatch)
        nlp, examples = make_encoded(encoder, beta=1.0)
        nlp.update(examples, sgd=False, drop=0.0)
        gradients.append(gradient_of(encoder_of(nlp)))
    assert norm(gradients[0]) > 0
    assert difference(*gradients) == 0.0


@pytest.fixture
def passed_back(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[list[str]], list[Any]]]:
    """What models that read docs get back in an update: the model, texts and gradients."""
    calls: list[tuple[int, list[list[str]], list[Any]]] = []
    begin_update = Model.begin_update

    def record(self: Model, X: Any) -> Any:
        Y, backprop = begin_update(self, X)
        if not isinstance(X, list) or not X or not isinstance(X[0], Doc):
            return Y, backprop
        words = [[token.text for token in doc] for doc in X]

        def record_backprop(dY: Any) -> Any:
            parts = dY.model_output.values() if hasattr(dY, "model_output") else dY
            if isinstance(dY[0] if isinstance(dY, list) else None, list):  # Layers of each doc.
                parts = [layer.dataXd for layers in dY for layer in layers]
            calls.append((self.id, words, [numpy.array(part, copy=True) for part in parts]))
            return backprop(dY)

        return Y, record_backprop

    monkeypatch.setattr(Model, "begin_update", record)
    return calls


@pytest.mark.parametrize("crf", ["before", "after"])
@pytest.mark.parametrize("encoder", ["tok2vec", "transformer", CURATED])
def test_gradients_of_other_listeners_are_left_alone(
    encoder: str,
    crf: str,
    make_encoded: Callable[..., tuple[Language, list[Example]]],
    passed_back: list[tuple[int, list[list[str]], list[Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the encoder gets back for the texts is the sum of both heads' gradients, whether or not
    descriptions pass the listener in between; descriptions are passed back once."""

    def run(is_cut: bool, *keys: str) -> tuple[list[Any], list[Any]]:
        passed_back.clear()
        nlp, examples = make_encoded(encoder, crf=crf)
        for example in examples:
            for key in {"mtlner", "flat"} - {*keys}:
                del example.reference.spans[key]
        with monkeypatch.context() as patch:
            if is_cut:
                cut_off(patch)
            nlp.update(examples, sgd=False, drop=0.0)
        calls = [call for call in passed_back if call[0] == encoder_of(nlp).id]
        own = [[token.text for token in eg.predicted] for eg in examples]
        of_texts = [gradients for _, words, gradients in calls if words == own]
        of_descriptions = [gradients for _, words, gradients in calls if words != own]
        assert len(of_texts) == 1
        assert len(of_descriptions) == (not is_cut)
        return of_texts[0], of_descriptions[0] if of_descriptions else []

    together, of_descriptions = run(False, "mtlner", "flat")
    without_descriptions, _ = run(True, "mtlner", "flat")
    pointers, _ = run(False, "mtlner")
    flat, nothing = run(False, "flat")
    assert norm(of_descriptions) > 0 and norm(nothing) == 0
    assert norm(pointers) > 0 and norm(flat) > 0
    assert difference(together, without_descriptions) < 1e-5 * norm(together)
    total = [a + b for a, b in zip(pointers, flat, strict=True)]
    assert difference(together, total) < 1e-5 * norm(together)


@pytest.mark.parametrize("crf", ["before", "after"])
@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_listener_gets_its_state_back(
    encoder: str, crf: str, make_encoded: Callable[..., tuple[Language, list[Example]]]
) -> None:
    nlp, examples = make_encoded(encoder, crf=crf)
    component = pointers_of(nlp)
    listener = next(n for n in component.model.walk() if hasattr(n, "receive"))
    examples = make_like(examples, nlp)
    nlp.get_pipe(encoder).update(examples)
    if crf == "before":
        nlp.get_pipe("crf_ner").update(examples)
    state = listener._batch_id, listener._outputs, listener._backprop
    assert state[0] is not None
    docs = [example.predicted for example in examples]
    inputs = component.make_inputs(docs, is_train=True)
    assert (listener._batch_id, listener._outputs, listener._backprop) == state
    inputs.backprop([row * 0 for row in inputs.descriptions])
    assert (listener._batch_id, listener._outputs, listener._backprop) == state


@pytest.mark.parametrize("encoder", [CURATED])
def test_curated_transformer(
    encoder: str, make_encoded: Callable[..., tuple[Language, list[Example]]], tmp_path: Path
) -> None:
    nlp, examples = make_encoded(encoder, crf="after")
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.01
    for _ in range(3):
        losses = step(nlp, examples, optimizer)
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    found = [classes_of(nlp, text) for text in TEXTS]
    for text, classes in zip(TEXTS, found, strict=True):
        torch.testing.assert_close(classes_of(loaded, text), classes)
    assert_predicts_as_if_loaded(nlp)

    # With its own setting it runs in updates, but gets no gradient of the descriptions.
    loaded.get_pipe("transformer").frozen = True  # type: ignore[attr-defined]
    before = encoder_of(loaded).to_bytes()
    losses = step(loaded, make_like(examples, loaded), loaded.resume_training())
    assert losses["pointer_ner"] > 0 and encoder_of(loaded).to_bytes() == before
    assert norm(gradient_of(encoder_of(loaded))) == 0

    nlp.replace_listeners("transformer", "pointer_ner", ["model.tok2vec"])
    for text, classes in zip(TEXTS, found, strict=True):
        torch.testing.assert_close(classes_of(nlp, text), classes)
    module = get_module_shim(pointers_of(nlp).model.get_ref("output_layer")).module
    nlp.update(examples, sgd=False, exclude=["transformer", "crf_ner"])
    assert module.view.grad.any()


def test_listener_gets_its_state_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    nlp, examples = make_shared()
    component = pointers_of(nlp)
    listener = component.model.get_ref("tok2vec")
    nlp.get_pipe("tok2vec").update(examples)
    state = listener._batch_id, listener._outputs, listener._backprop
    inputs = component.make_inputs([eg.predicted for eg in examples], is_train=True)
    with pytest.raises((IndexError, ValueError)):
        inputs.backprop([])
    assert (listener._batch_id, listener._outputs, listener._backprop) == state


@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_frozen_encoder_is_only_predicted(
    encoder: str,
    make_encoded: Callable[..., tuple[Language, list[Example]]],
    passed_back: list[Any],
    encodings: list[Any],
) -> None:
    # spaCy's own listeners refuse an empty doc over a frozen encoder.
    data = [(text, spans) for text, spans in TRAIN if text]
    nlp, _ = make_encoded(encoder)
    examples = make_examples(nlp, data=data)
    component = pointers_of(nlp)
    before = encoder_of(nlp).to_bytes()
    optimizer = nlp.resume_training()
    losses = step(nlp, examples, optimizer, exclude=[encoder], annotates=[encoder])
    assert encoder_of(nlp).id not in {call[0] for call in passed_back}
    assert norm(gradient_of(encoder_of(nlp))) == 0.0
    assert encoder_of(nlp).to_bytes() == before
    assert losses["pointer_ner"] > 0
    assert encodings
    # The head learns, from the same scores as over an encoder that is trained.
    assert len(component.make_inputs([nlp(TEXTS[0])], is_train=False).descriptions) == 4
    other, _ = make_encoded(encoder)
    trained = other.update(make_examples(other, data=data), sgd=False, drop=0.0)
    assert losses["pointer_ner"] == pytest.approx(trained["pointer_ner"], rel=1e-4)
    view = get_module_shim(component.model.get_ref("output_layer")).module.view
    fresh = get_module_shim(pointers_of(other).model.get_ref("output_layer")).module.view
    assert not torch.equal(view, fresh)


@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_learns_over_a_shared_encoder(
    encoder: str, make_encoded: Callable[..., tuple[Language, list[Example]]], tmp_path: Path
) -> None:
    nlp, examples = make_encoded(encoder, crf="after")
    rate = 0.01 if encoder == "tok2vec" else 0.005
    optimizer = nlp.resume_training()
    overfit(nlp, examples, "mtlner", "flat", optimizer=optimizer, learn_rate=rate, most=100)
    scores = nlp.evaluate(make_like(examples, nlp))
    assert scores["spans_mtlner_f"] == scores["spans_flat_f"] == 1.0
    nlp.to_disk(tmp_path / "pipeline")
    assert_predicts_the_same(spacy.load(tmp_path / "pipeline"), nlp)


@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_batches_with_empty_docs_over_a_shared_encoder(
    encoder: str, make_encoded: Callable[..., tuple[Language, list[Example]]]
) -> None:
    nlp, _ = make_encoded(encoder)
    empty: list[tuple[str, Spans]] = [("", []), ("", [])]
    assert nlp.update(make_examples(nlp, data=empty), sgd=False)["pointer_ner"] == 0.0
    docs = list(nlp.pipe(["", "", "Ada", ""]))
    assert all("mtlner" in doc.spans for doc in docs)
    mixed: list[tuple[str, Spans]] = [("", []), (" \n ", []), ("Ada", [("PER", 0, 1)])]
    assert nlp.update(make_examples(nlp, data=mixed), sgd=False)["pointer_ner"] > 0.0


def test_gradient_scaler_of_a_shared_encoder_is_refused(
    make_encoded: Callable[..., tuple[Language, list[Example]]],
) -> None:
    nlp, examples = make_encoded("transformer")
    nlp.get_pipe("transformer").model.layers[0].shims[0]._grad_scaler._enabled = True
    message = r"cannot learn descriptions over 'transformer' with a gradient scaler"
    with pytest.raises(ValueError, match=message):
        nlp.update(examples, sgd=False)
    nlp("Ada saw Berlin")


def test_gradient_scaler_of_an_inline_encoder_is_refused(
    make_encoded: Callable[..., tuple[Language, list[Example]]],
) -> None:
    nlp, examples = make_encoded("transformer")
    nlp.replace_listeners("transformer", "pointer_ner", ["model.tok2vec"])
    for node in pointers_of(nlp).model.get_ref("tok2vec").walk():
        for shim in node.shims:
            shim._grad_scaler._enabled = True
    with pytest.raises(ValueError, match=r"pointer_ner cannot learn .* gradient scaler"):
        nlp.update(examples, sgd=False, exclude=["transformer"])


def test_gradient_scaler_does_no_harm_without_descriptions(
    make_encoded: Callable[..., tuple[Language, list[Example]]],
) -> None:
    nlp, examples = make_encoded("transformer", beta=1.0)
    nlp.get_pipe("transformer").model.layers[0].shims[0]._grad_scaler._enabled = True
    # It is thinc that cannot scale on a CPU.
    with pytest.raises(ValueError, match="Gradient scaling is "):
        nlp.update(examples, sgd=False)


def test_unknown_encoder_is_refused(
    make_encoded: Callable[..., tuple[Language, list[Example]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose listeners are fed with something else than is known here."""
    from spacy_transformers.data_classes import FullTransformerBatch

    nlp, examples = make_encoded("transformer")
    component = pointers_of(nlp)
    nlp.get_pipe("transformer").update(make_like(examples, nlp))
    monkeypatch.delattr(FullTransformerBatch, "unsplit_by_doc")
    message = r"cannot learn descriptions over 'transformer', a Transformer: .*beta = 1"
    with pytest.raises(ValueError, match=message):
        component.make_inputs([eg.predicted for eg in examples], is_train=True)


@pytest.mark.parametrize("action", ["update", "predict"])
def test_listener_without_an_encoder_is_an_error(action: str) -> None:
    nlp = spacy.blank("en")
    add_pointers(nlp, model={"tok2vec": TOK2VEC_LISTENER})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    message = r"pointer_ner listens to '\*', but no component of the pipeline feeds it: put a tok2"
    with pytest.raises(ValueError, match=message):
        if action == "update":
            nlp.update(examples, sgd=False)
        else:
            nlp("Ada saw Berlin")


def test_component_in_no_pipeline_is_an_error() -> None:
    nlp = make_trained(steps=1)
    component = pointers_of(nlp)
    nlp.remove_pipe("pointer_ner")
    component.set_descriptions(DESCRIPTIONS)
    with pytest.raises(ValueError, match="pointer_ner is in no pipeline"):
        component.predict([nlp.make_doc("Ada saw Berlin")])


# The registry


def test_names_resolve() -> None:
    assert spacy.registry.get("architectures", "spacy_mtlner.PointerTagger.v1")
    nlp = spacy.blank("en")
    component = nlp.add_pipe("pointer_ner")
    assert isinstance(component, PointerEntityRecognizer)
    assert nlp.get_pipe_meta("pointer_ner").default_score_weights["spans_mtlner_f"] == 1.0
    config = nlp.get_pipe_config("pointer_ner")
    assert (config["matching"], config["beta"], config["threshold"]) == ("spans", 0.5, 0.5)


@pytest.mark.parametrize(
    "config",
    [{}, {"beta": 1.0}, {"matching": "nearest"}, {"beta": 0.0}],
    ids=lambda config: str(config),
)
def test_class_probabilities(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each candidate with its scores for all types; of one that is none, no type has any."""
    nlp = make_trained(steps=8, **config)
    component = pointers_of(nlp)
    component.cfg["threshold"] = 0.0
    docs = [nlp.make_doc(text) for text in TEXTS]
    predicted = component.predict(docs)
    spans = [sorted({entity.fragments for entity in entities}) for entities in predicted]
    asked = [[Entity("LOC", fragments) for fragments in group] for group in spans]
    found = component.class_probabilities(docs, asked)
    n_compared = 0
    for group, entities, rows in zip(spans, predicted, found, strict=True):
        assert rows.shape == (len(group), 4) and rows.dtype == numpy.float32
        assert rows.sum(1) == pytest.approx(numpy.ones(len(rows)))
        scores = {(e.fragments, e.label): e.score for e in entities}
        for fragments, row in zip(group, rows, strict=True):
            for i, label in enumerate(component.labels):
                if (fragments, label) in scores:
                    # The odds of each type against none are those of its score.
                    score = min(scores[fragments, label], 1 - 1e-9)
                    assert row[i] / row[-1] == pytest.approx(score / (1 - score), rel=1e-3)
                    n_compared += 1
    assert n_compared > 5
    monkeypatch.setattr(pointer_ner, "SPAN_CHUNK", 2)
    in_chunks = component.class_probabilities(docs, asked)
    assert all(map(functools.partial(numpy.allclose, atol=1e-6), in_chunks, found))


def test_class_probabilities_of_one_type_are_its_scores() -> None:
    data: list[tuple[str, Spans]] = [("Ada saw Ada", [("PER", 0, 1), ("PER", 2, 3)])]
    nlp = spacy.blank("en")
    component = add_pointers(nlp)
    train(nlp, make_examples(nlp, data=data), steps=5)
    component.cfg["threshold"] = 0.0
    doc = nlp.make_doc("Ada saw Ada")
    (entities,) = component.predict([doc])
    (rows,) = component.class_probabilities([doc], [entities])
    assert rows[:, 0] == pytest.approx([entity.score for entity in entities], abs=1e-5)


def test_class_probabilities_of_what_cannot_be_found(trained: Language) -> None:
    component = pointers_of(trained)
    doc = trained.make_doc("a b c d e f g h")
    spans = [Entity("LOC", ((0, 7),)), Entity("LOC", ((0, 1), (3, 4)))]  # Longer than 6 tokens.
    (rows, none) = component.class_probabilities([doc, trained.make_doc("")], [spans, []])
    assert rows.tolist() == [[0, 0, 0, 1]] * 2
    assert none.shape == (0, 4)
    sure = trained.make_doc("University of New York City opened")
    (rows,) = component.class_probabilities([sure], [[Entity("ORG", ((0, 5),))]])
    assert numpy.isfinite(rows).all() and rows.argmax() == component.labels.index("ORG")
