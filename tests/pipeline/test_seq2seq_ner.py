import math
import pickle
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from spacy.cli.find_threshold import find_threshold
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_mtlner.codecs.sequence import encode_sequences, list_allowed
from spacy_mtlner.entities import (
    UNKNOWN_KEY,
    Entity,
    Fragments,
    read_entities,
    shift_fragments,
    write_entities,
)
from spacy_mtlner.models.seq2seq import Seq2SeqInputs
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.seq2seq import Seq2Seq, Seq2SeqScores
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.pipeline.knowledge import Knowledge, write_knowledge
from spacy_mtlner.pipeline.seq2seq_ner import Seq2SeqEntityRecognizer
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
TOK2VEC_LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH, "upstream": "*"}
TRANSFORMER_LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
    "upstream": "*",
}
SMALL = {
    "tok2vec": EMBED,
    "width": 32,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "hidden_width": 48,
    "relation_width": 16,
    "type_width": 8,
    "n_names": 4,
    "window": 24,
}
Gold = list[tuple[str, Fragments]]
# Nested, sharing a start, discontinuous on either side and on both, of two types on one span.
TRAIN: list[tuple[str, Gold]] = [
    (
        "my neck and shoulder pain is back",
        [("ADR", ((1, 2), (4, 5))), ("ADR", ((3, 5),)), ("Body", ((1, 2),)), ("Body", ((3, 4),))],
    ),
    (
        "muscle pain , weakness",
        [("ADR", ((0, 1), (3, 4))), ("ADR", ((0, 2),)), ("Body", ((0, 1),))],
    ),
    ("", []),
    (
        "University of New York City opened",
        [("LOC", ((2, 4),)), ("LOC", ((2, 5),)), ("ORG", ((0, 5),))],
    ),
    (
        "left knee and ankle swelled up",
        [("ADR", ((0, 1), (3, 6))), ("ADR", ((0, 2), (4, 6))), ("Body", ((0, 2),))],
    ),
    ("nothing to find here", []),
    ("Lovelace", [("LOC", ((0, 1),)), ("PER", ((0, 1),))]),
    (" \n ", []),
]
TEXTS = [text for text, _ in TRAIN]
LABELS = ("ADR", "Body", "LOC", "ORG", "PER")


def make_examples(
    nlp: Language, key: str = "mtlner", data: Iterable[tuple[str, Gold]] = tuple(TRAIN)
) -> list[Example]:
    examples = []
    for text, spans in data:
        reference = nlp.make_doc(text)
        write_entities(reference, [Entity(label, fragments) for label, fragments in spans], key)
        examples.append(Example(nlp.make_doc(text), reference))
    return examples


def make_like(examples: list[Example], nlp: Language) -> list[Example]:
    return [Example(nlp.make_doc(eg.reference.text), eg.reference) for eg in examples]


def add_seq2seq(
    nlp: Language, name: str = "seq2seq_ner", model: dict[str, Any] | None = None, **config: Any
) -> Seq2SeqEntityRecognizer:
    """A small component that generates, with the model's settings changed one by one."""
    config = {"decoder": "generate", **config, "model": {**SMALL, **(model or {})}}
    component = nlp.add_pipe("seq2seq_ner", name=name, config=config)
    assert isinstance(component, Seq2SeqEntityRecognizer)
    return component


def step(nlp: Language, examples: list[Example], sgd: Any, **settings: Any) -> dict[str, float]:
    """Update as `spacy train` does it."""
    losses: dict[str, float] = {}
    nlp.update(make_like(examples, nlp), sgd=False, losses=losses, **settings)
    for name, pipe in nlp.pipeline:
        if name not in settings.get("exclude", ()):
            pipe.finish_update(sgd)
    return losses


def train(
    nlp: Language, examples: list[Example], steps: int = 120, learn_rate: float = 0.005
) -> Language:
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = learn_rate
    for _ in range(steps):
        step(nlp, examples, optimizer, drop=0.0)
    return nlp


def make_trained(steps: int = 120, **config: Any) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_seq2seq(nlp, **config)
    return train(nlp, make_examples(nlp), steps)


@pytest.fixture(scope="module")
def trained() -> Language:
    """Not to be changed: `copy_of` makes one that may be."""
    return make_trained()


def copy_of(nlp: Language) -> Language:
    return pickle.loads(pickle.dumps(nlp))


def component_of(nlp: Language, name: str = "seq2seq_ner") -> Seq2SeqEntityRecognizer:
    component = nlp.get_pipe(name)
    assert isinstance(component, Seq2SeqEntityRecognizer)
    return component


def module_of(nlp: Language) -> Seq2Seq:
    module = get_module_shim(component_of(nlp).model.get_ref("output_layer")).module
    assert isinstance(module, Seq2Seq)
    return module


def entities_of(doc: Doc) -> list[tuple[Entity, Any]]:
    return [(entity, pytest.approx(entity.score, abs=1e-4)) for entity in read_entities(doc)]


def keys_of(doc: Doc) -> Gold:
    return [(entity.label, entity.fragments) for entity in read_entities(doc)]


def assert_predicts_the_same(nlp: Language, other: Language) -> None:
    for decoder in ("generate", "relations", "both"):
        component_of(nlp).decoder = component_of(other).decoder = decoder  # type: ignore[assignment]
        for text in TEXTS:
            assert entities_of(nlp(text)) == entities_of(other(text))


def assert_knows_the_texts(nlp: Language) -> None:
    scores = nlp.evaluate(make_examples(nlp))
    for part in ("", "_nested", "_discontinuous"):
        assert scores[f"spans_mtlner{part}_f"] == 1.0


@pytest.mark.parametrize("beam_width", [1, 3])
def test_overfits_by_generation(trained: Language, beam_width: int) -> None:
    nlp = copy_of(trained)
    component_of(nlp).cfg["beam_width"] = beam_width
    assert_knows_the_texts(nlp)
    for text, gold in TRAIN:
        doc = nlp(text)
        # In order of the text, then of the labels.
        assert keys_of(doc) == sorted(gold, key=lambda e: ([*_tokens(e[1])], e[0]))
        assert all(0.3 <= e.score <= 1.0 for e in read_entities(doc))
        assert not doc.ents


def _tokens(fragments: Fragments) -> Iterable[int]:
    return (i for start, end in fragments for i in range(start, end))


def test_overfits_by_relations(trained: Language) -> None:
    """Also the two ways from "left" to "up", which fork and meet."""
    nlp = copy_of(trained)
    component_of(nlp).decoder = "relations"
    assert_knows_the_texts(nlp)
    for text, gold in TRAIN:
        assert keys_of(nlp(text)) == sorted(gold, key=lambda e: ([*_tokens(e[1])], e[0]))


@pytest.mark.parametrize(
    "model",
    [
        {"relations": False, "relation_attention": False, "type_attention": False},
        {"relation_attention": False},
        {"type_attention": False},
    ],
)
def test_overfits_with_parts_switched_off(model: dict[str, Any]) -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_seq2seq(nlp, model=model)
    overfit(nlp, make_examples(nlp), learn_rate=0.005, most=120)
    assert_knows_the_texts(nlp)


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_saves_and_loads(trained: Language, way: str, tmp_path: Path) -> None:
    nlp = copy_of(trained)
    if way == "disk":
        nlp.to_disk(tmp_path)
        loaded = spacy.load(tmp_path)
    elif way == "bytes":
        loaded = spacy.blank("en")
        add_seq2seq(loaded)
        loaded.from_bytes(nlp.to_bytes())
    else:
        loaded = copy_of(nlp)
    cfg = component_of(nlp).cfg
    assert component_of(loaded).cfg == {
        name: pytest.approx(value) if isinstance(value, float) else value
        for name, value in cfg.items()
    }
    assert component_of(loaded).knowledge == component_of(nlp).knowledge != {}
    assert_predicts_the_same(loaded, nlp)


@pytest.mark.parametrize("decoder", ["generate", "relations", "both"])
@pytest.mark.parametrize("batch_size", [3])
def test_pipe_equals_call_whatever_the_batch(
    trained: Language, batch_size: int, decoder: Any
) -> None:
    nlp = copy_of(trained)
    component_of(nlp).decoder = decoder
    texts = [*TEXTS * 2, "pain " * 50, "my neck and muscle pain . " * 9]
    docs = list(nlp.pipe(texts, batch_size=batch_size))
    assert [doc.text for doc in docs] == texts
    for doc in docs:
        assert entities_of(doc) == entities_of(nlp(doc.text))


@pytest.mark.parametrize("decoder", ["generate", "relations", "both"])
@pytest.mark.parametrize("text", ["", " \n "])
def test_docs_without_words_are_ordinary_input(trained: Language, text: str, decoder: Any) -> None:
    nlp = copy_of(trained)
    component = component_of(nlp)
    component.decoder = decoder
    assert component.predict([]) == []
    docs = [nlp.make_doc(text), nlp.make_doc(text)]
    component.set_annotations(docs, component.predict(docs))
    assert all("mtlner" in doc.spans and not doc.spans["mtlner"] for doc in docs)
    losses = component.update(make_examples(nlp, data=[(text, []), (text, [])]), losses={})
    assert (losses["seq2seq_ner"] > 0) == bool(text)


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("threshold", -0.1),
        ("threshold", 1.1),
        ("beam_width", 0),
        ("relation_weight", -0.1),
        ("alpha", 0.0),
        ("tau", -1.0),
        ("learn_rate_factor", 0.0),
    ],
)
def test_settings_out_of_their_range(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"seq2seq_ner: {setting} must be "):
        add_seq2seq(spacy.blank("en"), **{setting: value})


def test_unknown_decoder(trained: Language) -> None:
    with pytest.raises(ValueError, match="seq2seq_ner -> decoder"):
        add_seq2seq(spacy.blank("en"), decoder="generation")
    with pytest.raises(ValueError, match="must be 'generate', 'relations' or 'both', not 'beam'"):
        component_of(copy_of(trained)).decoder = "beam"  # type: ignore[assignment]


@pytest.mark.parametrize("decoder", ["relations", "both"])
@pytest.mark.parametrize("config", [{"model": {"relations": False}}, {"relation_weight": 0.0}])
def test_decoder_without_relations(config: dict[str, Any], decoder: Any) -> None:
    message = (
        rf"decoder = '{decoder}' needs relations, .*relations = true .*relation_weight above 0, or "
        r"decoder = 'generate'"
    )
    with pytest.raises(ValueError, match=message):
        add_seq2seq(spacy.blank("en"), decoder=decoder, **config)
    component = add_seq2seq(spacy.blank("en"), **config)
    with pytest.raises(ValueError, match=message):
        component.decoder = decoder


# Labels


def test_labels_of_the_data_and_given_ones() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    nlp.initialize(lambda: make_examples(nlp))
    assert component.labels == LABELS
    assert component.model.get_dim("nO") == component.n_outputs == 5
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    given = [*reversed(LABELS), "DRUG"]
    nlp.config["initialize"]["components"]["seq2seq_ner"] = {"labels": given}
    with pytest.warns(UserWarning, match="no training example for DRUG"):
        nlp.initialize(lambda: make_examples(nlp))
    assert [*component.labels] == component.label_data == given
    nlp("my neck and shoulder pain")


def test_added_label_is_learned(trained: Language) -> None:
    nlp = copy_of(trained)
    component = component_of(nlp)
    before = [entities_of(nlp(text)) for text in TEXTS]
    assert component.add_label("DRUG") == 1 and component.add_label("DRUG") == 0
    assert component.labels == (*LABELS, "DRUG")
    nlp(TEXTS[0])
    examples = make_examples(nlp, data=[*TRAIN, ("take aspirin now", [("DRUG", ((1, 2),))])])
    overfit(nlp, examples, optimizer=nlp.resume_training(), learn_rate=0.005, most=60)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0
    assert [[e for e, _ in found] for found in before] == [read_entities(nlp(t)) for t in TEXTS]


# Gold


def test_other_tasks_have_no_weight() -> None:
    """Docs without the key teach nothing, and change nothing about the others."""
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    others = make_examples(nlp, "other")

    def loss_of(batch: list[Example]) -> float:
        return component.update(batch, losses={})["seq2seq_ner"]

    alone = loss_of(examples)
    assert loss_of([*others[:3], *examples, *others[3:]]) == pytest.approx(alone, rel=1e-4)
    assert loss_of(others) == 0.0
    weighted = make_examples(nlp)
    for example in weighted:
        example.reference.user_data[WEIGHT] = 0.5
    assert loss_of(weighted) == pytest.approx(alone / 2, rel=1e-4)
    weighted[0].reference.user_data[WEIGHT] = -1.0
    with pytest.raises(ValueError, match="weight must be 0 or more"):
        loss_of(weighted)


def test_loss_by_hand() -> None:
    """Generation per token of each doc; relations over pairs; whatever the batch's order."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, relation_weight=0.0)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    loss = component.update(examples, losses={})["seq2seq_ner"]
    total = 0.0
    n_tokens = sum(len(example.predicted) for example in examples)
    for example in examples:
        if not len(example.predicted):
            continue
        golds = component.read_golds([example])
        inputs = component.make_training_inputs([example], golds)
        expected = encode_sequences(
            [[(e.fragments, LABELS.index(e.label)) for e in read_entities(example.reference)]], 5
        )
        assert numpy.array_equal(golds.symbols, expected)
        scores = component.model.predict(inputs)
        value, _ = component.get_loss([example], scores)
        total += value * len(example.predicted)
    assert loss == pytest.approx(total / n_tokens, rel=1e-4)
    assert component.update(examples[::-1], losses={})["seq2seq_ner"] == pytest.approx(
        loss, rel=1e-4
    )
    component.cfg["relation_weight"] = 0.3
    assert component.update(examples, losses={})["seq2seq_ner"] > loss + 0.1


def test_targets_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    calls: list[int] = []
    read_golds = Seq2SeqEntityRecognizer.read_golds
    monkeypatch.setattr(
        Seq2SeqEntityRecognizer,
        "read_golds",
        lambda self, batch: calls.append(len(batch)) or read_golds(self, batch),
    )
    component.update(examples, losses={})
    assert calls == [len(examples)]


def test_unknown_tokens_teach_nothing() -> None:
    """No generation in their window, and no relation to them; but others' relations."""
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, model={"window": 4})
    text = "neck pain is back and nothing to find"
    gold: Gold = [("ADR", ((0, 2),)), ("Body", ((6, 7),))]
    examples = make_examples(nlp, data=[(text, gold)])
    nlp.initialize(lambda: examples)
    examples[0].reference.user_data[UNKNOWN_KEY] = {"mtlner": [5]}
    golds = component.read_golds(examples)
    assert golds.windows.tolist() == [4, 4]
    scores = component.model.predict(component.make_training_inputs(examples, golds))
    _, gradient = component.get_loss(examples, scores)
    n_first = 4  # Two pointers, the type, END.
    assert gradient.steps[:n_first].any(1).all() and not gradient.steps[n_first:].any()
    relations = gradient.cells.abs().sum(1).view(2, 4, 4)
    assert relations[0].all()
    assert not relations[1, 1].any() and not relations[1, :, 1].any()
    assert relations[1, 0, 0] and relations[1, 2, 3]


def test_unknown_tokens_between_fragments_stay_unknown() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    (example,) = make_examples(nlp, data=[("a b c d e", [("ADR", ((0, 1), (3, 4)))])])
    component.cfg["gold_source"] = "spans"
    example.reference.user_data[UNKNOWN_KEY] = {"mtlner": [1, 3, 4]}
    gold = component.read_gold(example)
    assert gold is not None and gold.unknown is not None
    assert gold.unknown.tolist() == [False, True, False, False, True]


def test_entities_across_windows_are_counted() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, model={"window": 4})
    gold: Gold = [("ADR", ((0, 2),)), ("ADR", ((3, 5),)), ("ADR", ((0, 1), (6, 7)))]
    examples = make_examples(nlp, data=[("a b c d e f g", gold)])
    message = r"2 gold entities are left out: .*within one window: .*at most 4 tokens \(1 are kept"
    with pytest.warns(UserWarning, match=message):
        nlp.initialize(lambda: examples)
    kept = component.read_gold(examples[0])
    assert kept is not None and (len(kept.entities), kept.n_dropped) == (1, 2)


def test_sentences_are_windows() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    component = add_seq2seq(nlp)
    doc = nlp.get_pipe("sentencizer")(nlp.make_doc("Ada saw me. Bob did. " * 3))  # type: ignore[operator]
    assert component.make_inputs([doc, nlp.make_doc("a b")], is_train=False).windows == [
        *([4, 3] * 3),
        2,
    ]


@pytest.mark.parametrize("decoder", ["generate", "relations", "both"])
def test_long_doc(trained: Language, decoder: Any) -> None:
    """Windows of a doc are as if they were docs, if they do not overlap."""
    nlp = copy_of(trained)
    component_of(nlp).decoder = decoder
    component_of(nlp).cfg["overlap"] = 0
    words = [*TEXTS[0].split(), "."] * 300
    found = read_entities(nlp(Doc(nlp.vocab, words=words)))
    window = read_entities(nlp(Doc(nlp.vocab, words=words[:24])))
    assert [(e.label, e.fragments) for e in found][: len(window)] == [
        (e.label, e.fragments) for e in window
    ]
    n = len(window)
    assert len(found) == 100 * n
    assert {(e.label, e.start - 24) for e in found[n : 2 * n]} == {
        (e.label, e.start) for e in window
    }


@pytest.mark.parametrize("overlap", [None, 0, 3, 11])
def test_entities_on_every_border(
    trained: Language, overlap: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that finds whatever lies in a window as a whole: with an overlap, entities across all
    borders are found, once; without, none of them.
    """
    nlp = copy_of(trained)
    component = component_of(nlp)
    component.cfg["overlap"] = overlap
    doc = Doc(nlp.vocab, words=["a"] * 300)
    (windows,) = component._find_windows([doc])
    reach = {None: 6, 0: 1}.get(overlap, overlap)  # None is a quarter of the window of 24 tokens.
    assert reach is not None
    borders = [*windows.ends.tolist()[:-1], *windows.starts.tolist()[1:]]
    gold: set[tuple[int, Fragments]] = set()
    for border in borders:
        for first in range(max(0, border - reach), border):
            gold.add((first % 5, ((first, first + reach + 1),)))
            if reach > 2:
                gold.add((0, ((first, first + 1), (first + 2, first + reach + 1))))
    gold = {(label, parts) for label, parts in gold if parts[-1][1] <= len(doc)}

    model_class = type(component.model)
    predict_as_ever = model_class.predict

    def predict(self: Any, inputs: Any) -> Any:
        if not isinstance(inputs, Seq2SeqInputs):
            return predict_as_ever(self, inputs)
        ends = numpy.cumsum(inputs.windows)
        places = ends - inputs.windows
        starts = places if inputs.tokens is None else inputs.tokens[places]
        rows = [
            [
                (shift_fragments(parts, -start), label)
                for label, parts in gold
                if start <= parts[0][0] and parts[-1][1] <= start + size
            ]
            for start, size in zip(starts.tolist(), inputs.windows, strict=True)
        ]
        symbols = torch.from_numpy(encode_sequences(rows, len(LABELS)))
        nothing = torch.zeros(0, 0)
        return Seq2SeqScores(nothing, nothing, symbols, torch.zeros(symbols.shape))

    monkeypatch.setattr(model_class, "predict", predict)
    found = [(e.label, e.fragments) for e in component.predict([doc])[0]]
    expected = {(LABELS[label], parts) for label, parts in gold if overlap != 0}
    assert len(found) == len(expected) and set(found) == expected
    if overlap != 0:
        assert len(expected) >= len(borders)


@pytest.mark.parametrize("overlap", [-1, 24])
def test_overlap_out_of_its_range(overlap: int) -> None:
    with pytest.raises(ValueError, match=r"overlap must be at least 0 and below .* \(24\)"):
        add_seq2seq(spacy.blank("en"), overlap=overlap)


def test_long_training_doc_is_cut_to_the_positions() -> None:
    """More gold symbols than there are positions: the first ones are learned, with a warning."""
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, model={"window": 8, "max_symbols": 1.0})
    gold: Gold = [("ADR", ((i, j),)) for i in range(8) for j in range(i + 1, 9)]
    examples = make_examples(nlp, data=[("a b c d e f g h", gold)])
    nlp.initialize(lambda: examples)
    with pytest.warns(UserWarning, match="gold of 1 windows of a batch is longer .* 16 at most"):
        golds = component.read_golds(examples)
    assert golds.symbols.shape[1] == component.model.attrs["max_steps"] == 17
    with pytest.warns(UserWarning, match="raise max_symbols"):
        assert component.update(examples, losses={})["seq2seq_ner"] > 0
    nlp("a b c d e f g h")


def test_gold_of_a_short_window_that_is_never_generated() -> None:
    """A window has fewer symbols than there are positions."""
    nlp = spacy.blank("en")
    add_seq2seq(nlp, model={"window": 24, "max_symbols": 2.0})
    gold: Gold = [("ADR", ((i, j),)) for i in range(5) for j in range(i + 1, 6)]
    examples = make_examples(nlp, data=[("a b c d e", gold)])
    nlp.initialize(lambda: examples)
    with pytest.warns(UserWarning, match="gold of 1 windows .* 8 symbols and 2 for each token"):
        nlp.update(examples)


def test_ents_as_gold() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, annotate_ents=True)
    reference = nlp.make_doc("Ada saw Berlin")
    reference.set_ents([reference.char_span(0, 3, "PER"), reference.char_span(8, 14, "LOC")])
    examples = [Example(nlp.make_doc(reference.text), reference)]
    train(nlp, examples, 60)
    assert component.cfg["gold_source"] == "ents"
    assert [(e.text, e.label_) for e in nlp("Ada saw Berlin").ents] == [
        ("Ada", "PER"),
        ("Berlin", "LOC"),
    ]


# Scores


def make_unsure(trained: Language, scale: float) -> Language:
    """A copy that is less sure of everything, and leaves out nothing that it finds."""
    nlp = copy_of(trained)
    component_of(nlp).cfg["threshold"] = 0.0
    with torch.no_grad():
        module_of(nlp).types.weight.mul_(scale)
    return nlp


def test_score_is_the_probability_of_the_entitys_symbols(trained: Language) -> None:
    """Given those before: the product over its steps, from a pass over the whole sequence."""
    nlp = make_unsure(trained, 0.5)
    component = component_of(nlp)
    examples = []
    for text in ("my left knee and shoulder pain", "neck pain and weakness"):
        doc = nlp(text)
        reference = nlp.make_doc(text)
        write_entities(reference, read_entities(doc))
        examples.append(Example(nlp.make_doc(text), reference))
        golds = component.read_golds(examples[-1:])
        scores = component.model.predict(component.make_training_inputs(examples[-1:], golds))
        entities = read_entities(doc)
        assert entities
        place = 0
        allowed = list_allowed(golds.symbols, golds.windows, 5)[0]
        logits = scores.steps.masked_fill(~torch.from_numpy(allowed), -torch.inf)
        found = logits.softmax(1)[torch.arange(len(logits)), torch.from_numpy(golds.symbols[0])]
        for entity in entities:
            n = len([*_tokens(entity.fragments)]) + 1
            assert entity.score == pytest.approx(float(found[place : place + n].prod()), rel=1e-3)
            place += n
        assert golds.symbols[0, place] == 0
    assert any(e.score < 0.95 for eg in examples for e in read_entities(eg.reference))


@pytest.mark.parametrize("decoder", ["generate", "relations", "both"])
def test_class_probabilities_are_those_of_relations(
    trained: Language, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever decoder is set; windows that overlap, several docs and parts of docs."""
    nlp = copy_of(trained)
    component = component_of(nlp)
    component.cfg["threshold"] = 0.0
    component.decoder = "relations"
    docs = [nlp.make_doc(text) for text in TEXTS]
    docs.append(Doc(nlp.vocab, words=TEXTS[0].split() * 10))  # One sentence, several windows.
    predicted = component.predict(docs)
    component.decoder = decoder
    asked = [[Entity("LOC", f) for f in sorted({e.fragments for e in own})] for own in predicted]
    found = component.class_probabilities(docs, asked)
    n_compared = 0
    for doc, spans, entities, rows in zip(docs, asked, predicted, found, strict=True):
        assert rows.shape == (len(spans), 6) and rows.dtype == numpy.float32
        assert rows.sum(1) == pytest.approx(numpy.ones(len(rows)))
        scores = {(e.fragments, e.label): e.score for e in entities}
        for span, row in zip(spans, rows, strict=True):
            own = [scores.get((span.fragments, label), 0.0) for label in LABELS]
            if doc is docs[-1]:  # Its score is the best of several windows.
                continue
            assert (row[:-1] <= numpy.array(own) + 0.05).all()
            if max(own) > 0.5:
                assert row[:-1].argmax() == numpy.argmax(own)
                n_compared += len(span.fragments) > 1
    assert n_compared >= 4
    monkeypatch.setattr("spacy_mtlner.pipeline.seq2seq_ner.PREDICTED_TOKENS", 30)
    monkeypatch.setattr("spacy_mtlner.pipeline.base.PREDICTED_TOKENS", 20)
    (windows,) = component._find_windows(docs[-1:])
    assert len(windows) > 3 and windows.has_overlap
    for rows, again in zip(found, component.class_probabilities(docs, asked), strict=True):
        numpy.testing.assert_allclose(again, rows, atol=1e-4)


def test_class_probabilities_of_one_type_are_its_scores() -> None:
    data: list[tuple[str, Gold]] = [
        ("Ada saw Ada", [("PER", ((0, 1), (2, 3))), ("PER", ((0, 2),))])
    ]
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, decoder="relations", threshold=0.0)
    train(nlp, make_examples(nlp, data=data), steps=20)
    doc = nlp.make_doc("Ada saw Ada")
    (entities,) = component.predict([doc])
    assert {len(entity.fragments) for entity in entities} == {1, 2}
    (rows,) = component.class_probabilities([doc], [entities])
    assert rows[:, 0] == pytest.approx([entity.score for entity in entities], abs=1e-5)


def test_scores_of_both_decoders_are_means(trained: Language) -> None:
    nlp = make_unsure(trained, 0.5)
    component = component_of(nlp)
    docs = [nlp.make_doc(text) for text in (*TEXTS, "my left knee and shoulder pain")]
    found: dict[str, list[dict[Any, float]]] = {}
    for decoder in ("generate", "relations", "both"):
        component.decoder = decoder  # type: ignore[assignment]
        found[decoder] = [
            {(e.label, e.fragments): e.score for e in own} for own in component.predict(docs)
        ]
    component.cfg["threshold"] = 0.3
    above = [{(e.label, e.fragments) for e in own} for own in component.predict(docs)]
    n_generated = n_read = 0
    for generated, read, both, kept in zip(*found.values(), above, strict=True):
        assert both.keys() == generated.keys() | read.keys()
        assert kept == {key for key, score in both.items() if score >= 0.3}
        for key, score in both.items():
            # What has no way over links of at least 0.05 scores less than that.
            lowest = (generated.get(key, 0.0) + read.get(key, 0.0)) / 2
            slack = 1e-5 if key in read else 0.05 / 2
            assert lowest - 1e-5 <= score <= lowest + slack
            n_generated += key in generated
            n_read += key not in generated
    assert n_generated > 10 and n_read > 0


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_entities_of_both_decoders_are_in_order_and_once(
    trained: Language, threshold: float
) -> None:
    nlp = make_unsure(trained, 0.4)  # Either decoder finds what the other one does not.
    component_of(nlp).decoder = "both"
    component_of(nlp).cfg["threshold"] = threshold
    for doc in nlp.pipe([*TEXTS, " ".join(TEXTS[0].split() * 10)]):
        found = [([*_tokens(e.fragments)], LABELS.index(e.label)) for e in read_entities(doc)]
        assert found == sorted(found)
        assert len({(tuple(tokens), label) for tokens, label in found}) == len(found)


def test_class_probabilities_of_what_cannot_be_found(trained: Language) -> None:
    component = component_of(trained)
    doc = trained.make_doc("a b . c d")
    asked = [Entity("LOC", ((0, 1), (3, 4))), Entity("LOC", ((0, 5),))]  # Across windows.
    rows, none = component.class_probabilities([doc, trained.make_doc("")], [asked, []])
    assert rows.tolist() == [[0, 0, 0, 0, 0, 1]] * 2
    assert none.shape == (0, 6)
    with pytest.raises(ValueError, match="ends outside its doc"):
        component.class_probabilities([doc], [[Entity("LOC", ((4, 6),))]])


def test_class_probabilities_without_relations() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, relation_weight=0.0)
    nlp.initialize(lambda: make_examples(nlp))
    with pytest.raises(NotImplementedError, match="relations, which are not learned"):
        component.class_probabilities([nlp.make_doc("a")], [[Entity("LOC", ((0, 1),))]])


@pytest.mark.parametrize("decoder", ["generate", "relations", "both"])
def test_a_lower_threshold_finds_more(trained: Language, decoder: Any) -> None:
    nlp = copy_of(trained)
    component = component_of(nlp)
    component.decoder = decoder
    with torch.no_grad():
        module_of(nlp).types.weight.mul_(0.3)
        for module in module_of(nlp).modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.mul_(0.8)
    found = {}
    text = "my left knee and shoulder pain , muscle weakness"
    for threshold in (0.9, 0.5, 0.2, 0.0):
        component.cfg["threshold"] = threshold
        entities = read_entities(nlp(text))
        assert all(threshold <= entity.score <= 1 for entity in entities)
        found[threshold] = {(e.label, e.fragments) for e in entities}
    assert found[0.9] <= found[0.5] <= found[0.2] <= found[0.0]
    assert found[0.9] < found[0.0]


def test_find_threshold(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "pipeline")
    docs = [example.reference for example in make_examples(trained)]
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    best, score, scores = find_threshold(
        str(tmp_path / "pipeline"),
        tmp_path / "dev.spacy",
        "seq2seq_ner",
        threshold_key="threshold",
        scores_key="spans_mtlner_f",
        n_trials=3,
    )
    assert sorted(scores) == pytest.approx([0.0, 0.5, 1.0])
    assert score == scores[best] == 1.0 > scores[1.0]


# Known entities


def test_known_entities_of_the_training_corpus() -> None:
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, model={"n_names": 2})
    data = [*TRAIN, ("muscle pain", [("ADR", ((0, 2),))])]
    nlp.initialize(lambda: make_examples(nlp, data=data))
    assert component.knowledge == {
        "ADR": {"muscle pain": 2, "left ankle swelled up": 1},
        "Body": {"left knee": 1, "muscle": 1},
        "LOC": {"Lovelace": 1, "New York": 1},
        "ORG": {"University of New York City": 1},
        "PER": {"Lovelace": 1},
    }
    names = component.make_inputs([nlp.make_doc("a")], is_train=False).names
    assert names is not None
    assert [doc.text for doc in names.docs][:2] == ["muscle pain", "left ankle swelled up"]
    assert names.types == [0, 0, 1, 1, 2, 2, 3, 4]
    assert names.weights == pytest.approx([2 / 3, 1 / 3, 0.5, 0.5, 0.5, 0.5, 1, 1])


def test_known_entities_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    known: Knowledge = {"ADR": {"pain": 3.0, "rash": 1.0}, "PER": {"Ada": 0.5}, "Other": {"x": 1.0}}
    write_knowledge(known, path)
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp)
    nlp.config["initialize"]["components"]["seq2seq_ner"] = {"knowledge": str(path)}
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    assert component.knowledge == known
    names = component.make_inputs([nlp.make_doc("a")], is_train=False).names
    assert names is not None and names.types == [0, 0, 4]  # Other types are not asked for.
    step(nlp, examples, nlp.resume_training())
    with pytest.raises(ValueError, match=r"seq2seq_ner: no knowledge: .*nowhere"):
        component.set_knowledge(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("knowledge", "message"),
    [
        (["ADR"], "it must be type to name to frequency"),
        ({"ADR": ["pain"]}, "type 'ADR' must be name to frequency"),
        ({"ADR": {"": 1.0}}, "type 'ADR': a name must be a text, not ''"),
        ({"ADR": {"pain": math.inf}}, "the frequency of 'pain' must be above 0, not inf"),
        ({"ADR": {"pain": math.nan}}, "the frequency of 'pain' must be above 0, not nan"),
        ({"ADR": {"pain": "3"}}, "the frequency of 'pain' must be above 0, not '3'"),
        ({"ADR": {"pain": 0}}, "the frequency of 'pain' must be above 0, not 0"),
    ],
)
def test_what_is_no_knowledge(knowledge: Any, message: str) -> None:
    component = add_seq2seq(spacy.blank("en"))
    with pytest.raises(ValueError, match=f"seq2seq_ner: no knowledge: .*{message}"):
        component.set_knowledge(knowledge)


def test_known_entities_matter(trained: Language) -> None:
    nlp = copy_of(trained)
    component = component_of(nlp)
    component.cfg["threshold"] = 0.0
    before = [e.score for text in TEXTS for e in read_entities(nlp(text))]
    component.set_knowledge({label: {"quite another name": 1.0} for label in LABELS})
    after = [e.score for text in TEXTS for e in read_entities(nlp(text))]
    assert before != pytest.approx(after, abs=1e-6)
    component.set_knowledge({})
    nlp(TEXTS[0])


def test_known_entities_are_encoded_once(
    trained: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = copy_of(trained)
    component_of(nlp).set_knowledge({"ADR": {"pain": 1.0}})
    calls: list[int] = []
    predict = SideTextEncoder.predict
    monkeypatch.setattr(
        SideTextEncoder, "predict", lambda self: calls.append(len(self.docs)) or predict(self)
    )
    for _ in range(2):
        list(nlp.pipe(TEXTS, batch_size=2))
    assert calls == [1]
    step(nlp, make_examples(nlp), nlp.resume_training())
    nlp(TEXTS[0])
    assert calls == [1, 1]


# Encoders


def make_shared(
    encoder: str, folder: Path, tiny_bert: Callable[[Path], str]
) -> tuple[Language, list[Example]]:
    """An initialized pipeline over a shared encoder, with a `crf_ner` of another task behind."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    listener = TOK2VEC_LISTENER
    if encoder == "tok2vec":
        nlp.add_pipe("tok2vec", config={"model": ENCODER})
    else:
        transformer = {
            "@architectures": "spacy-transformers.TransformerModel.v3",
            "name": tiny_bert(folder),
            "tokenizer_config": {"use_fast": True, "model_max_length": 64},
            "transformer_config": {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0},
            "get_spans": {
                "@span_getters": "spacy-transformers.strided_spans.v1",
                "window": 32,
                "stride": 24,
            },
        }
        nlp.add_pipe("transformer", config={"model": transformer})
        listener = TRANSFORMER_LISTENER
    add_seq2seq(nlp, model={"tok2vec": listener})
    head = {"tok2vec": listener, "hidden_width": 32}
    nlp.add_pipe("crf_ner", config={"model": head, "spans_key": "flat"})
    examples = make_examples(nlp)
    for example in examples:
        entities = [e for e in read_entities(example.reference) if e.label == "Body"]
        write_entities(example.reference, entities, "flat")
    nlp.initialize(lambda: examples)
    return nlp, examples


@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_learns_over_a_shared_encoder(
    encoder: str, tmp_path: Path, tiny_bert: Callable[[Path], str]
) -> None:
    nlp, examples = make_shared(encoder, tmp_path, tiny_bert)
    rate = 0.005 if encoder == "tok2vec" else 0.003
    optimizer = nlp.resume_training()
    overfit(nlp, examples, "mtlner", "flat", optimizer=optimizer, learn_rate=rate, most=120)
    scores = nlp.evaluate(make_like(examples, nlp))
    assert scores["spans_mtlner_f"] == scores["spans_flat_f"] == 1.0
    nlp.to_disk(tmp_path / "pipeline")
    assert_predicts_the_same(spacy.load(tmp_path / "pipeline"), nlp)


@pytest.mark.parametrize("encoder", ["tok2vec", "transformer"])
def test_encoder_learns_from_known_entities(
    encoder: str,
    tmp_path: Path,
    tiny_bert: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is another one where what comes back for them is cut off."""

    def run(folder: Path) -> list[Any]:
        folder.mkdir()
        torch.manual_seed(0)
        nlp, examples = make_shared(encoder, folder, tiny_bert)
        with torch.no_grad():
            module_of(nlp).types.weight.zero_()
        nlp.update(examples, sgd=False, drop=0.0)
        model = nlp.get_pipe(encoder).model  # type: ignore[attr-defined]
        found = [
            node.get_grad(name).copy()
            for node in model.walk()
            for name in node.param_names
            if node.has_grad(name)
        ]
        for node in model.walk():
            for shim in node.shims:
                found += [
                    p.grad.numpy().copy() for p in shim._model.parameters() if p.grad is not None
                ]
        return found

    whole = run(tmp_path / "whole")
    again = run(tmp_path / "again")
    begin_update = SideTextEncoder.begin_update
    monkeypatch.setattr(
        SideTextEncoder, "begin_update", lambda self: (begin_update(self)[0], lambda d_rows: None)
    )
    cut = run(tmp_path / "cut")
    assert whole and len(whole) == len(cut)

    def distance(others: list[Any]) -> float:
        pairs = zip(whole, others, strict=True)
        return float(sum(((a - b) ** 2).sum() for a, b in pairs))

    assert distance(again) < 1e-9 < distance(cut)


# A pre-trained BART


def make_bart_pipeline(folder: str, steps: int, **config: Any) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_seq2seq(nlp, model={"bart": folder}, **config)
    return train(nlp, make_examples(nlp), steps)


def test_bart_overfits_and_needs_nothing_else(
    tmp_path: Path, tiny_bart: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved pipeline holds weights and tokenizer: neither folder nor network are needed."""
    folder = tiny_bart(tmp_path)
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_seq2seq(nlp, model={"bart": folder})
    overfit(nlp, make_examples(nlp), learn_rate=0.005, most=150)
    assert_knows_the_texts(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(folder)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    loaded = spacy.load(tmp_path / "pipeline")
    assert_predicts_the_same(loaded, nlp)
    assert_predicts_the_same(copy_of(nlp), nlp)
    # And it can be trained further.
    before = loaded.evaluate(make_examples(loaded))
    step(loaded, make_examples(loaded), loaded.resume_training())
    assert before["spans_mtlner_f"] == 1.0


def test_bart_learns_at_the_optimizers_rate(
    tmp_path: Path, tiny_bart: Callable[[Path], str]
) -> None:
    """The head at its own; Adam's first step is as large as the rate."""
    nlp = make_bart_pipeline(tiny_bart(tmp_path), steps=0, learn_rate_factor=5.0)
    before = {name: p.detach().clone() for name, p in module_of(nlp).named_parameters()}
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 1e-4
    step(nlp, make_examples(nlp), optimizer, drop=0.0)
    changes = {
        name: float((p.detach() - before[name]).abs().max())
        for name, p in module_of(nlp).named_parameters()
    }
    assert changes["bart.encoder.layers.0.fc1.weight"] == pytest.approx(1e-4, rel=0.05)
    assert changes["bart.shared.weight"] == pytest.approx(1e-4, rel=0.05)
    assert changes["types.weight"] == pytest.approx(5e-4, rel=0.05)
    assert changes["pairs.hidden.weight"] == pytest.approx(5e-4, rel=0.05)


def test_bart_does_not_need_its_tok2vec(tmp_path: Path, tiny_bart: Callable[[Path], str]) -> None:
    """It is in the config, whatever it is, and not in the model."""
    nlp = spacy.blank("en")
    component = add_seq2seq(nlp, model={"bart": tiny_bart(tmp_path), "tok2vec": TOK2VEC_LISTENER})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    step(nlp, examples, nlp.resume_training())
    assert component.model.get_ref("tok2vec").name == "no_tok2vec"
    assert [docs.text for docs in nlp.pipe(TEXTS)] == TEXTS
    nlp.to_disk(tmp_path / "pipeline")
    assert_predicts_the_same(spacy.load(tmp_path / "pipeline"), nlp)


def test_bart_reads_texts_without_words(tmp_path: Path, tiny_bart: Callable[[Path], str]) -> None:
    nlp = make_bart_pipeline(tiny_bart(tmp_path), steps=1)
    for text in ("", " \n ", "\n", "x" * 500, "x " * 100):
        nlp(text)


# The registry


def test_names_resolve() -> None:
    assert spacy.registry.get("architectures", "spacy_mtlner.Seq2Seq.v1")
    nlp = spacy.blank("en")
    component = nlp.add_pipe("seq2seq_ner")
    assert isinstance(component, Seq2SeqEntityRecognizer)
    assert nlp.get_pipe_meta("seq2seq_ner").default_score_weights["spans_mtlner_f"] == 1.0
    config = nlp.get_pipe_config("seq2seq_ner")
    assert (config["decoder"], config["beam_width"], config["relation_weight"]) == (
        "both",
        1,
        0.3,
    )
    assert "tok2vec" in config["model"]
