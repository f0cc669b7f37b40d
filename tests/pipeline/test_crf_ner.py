import itertools
import pickle
import warnings
from collections.abc import Callable, Iterable
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
from thinc.api import Optimizer

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.crf import crf_log_likelihood
from spacy_mtlner.pipeline.base import EntityComponent
from spacy_mtlner.pipeline.crf_ner import CRFEntityRecognizer

from .builders import TRAIN, overfit

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 32,
    "attrs": ["NORM", "SHAPE"],
    "rows": [200, 50],
    "include_static_vectors": False,
}
SMALL = {"model": {"tok2vec": EMBED, "rnn": "lstm", "hidden_width": 32}}


def make_examples(
    nlp: Language, key: str = "mtlner", data: Iterable[Any] = tuple(TRAIN)
) -> list[Example]:
    examples = []
    for text, spans in data:
        reference = nlp.make_doc(text)
        entities = [Entity(label, ((start, end),)) for label, start, end in spans]
        write_entities(reference, entities, key)
        examples.append(Example(nlp.make_doc(text), reference))
    return examples


def add_crf(nlp: Language, name: str = "crf_ner", **config: Any) -> CRFEntityRecognizer:
    component = nlp.add_pipe("crf_ner", name=name, config={**SMALL, **config})
    assert isinstance(component, CRFEntityRecognizer)
    return component


def train(nlp: Language, examples: list[Example], steps: int = 60, drop: float = 0.0) -> Language:
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    for _ in range(steps):
        nlp.update(examples, sgd=optimizer, drop=drop)
    return nlp


@pytest.fixture(scope="module")
def trained() -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    add_crf(nlp)
    return train(nlp, make_examples(nlp))


def entities_of(doc: Doc) -> list[tuple[Entity, float]]:
    return [(entity, pytest.approx(entity.score, abs=1e-5)) for entity in read_entities(doc)]


def test_overfits(trained: Language) -> None:
    scores = trained.evaluate(make_examples(trained))
    assert scores["spans_mtlner_f"] == scores["spans_mtlner_flat_f"] == 1.0
    for text, spans in TRAIN:
        doc = trained(text)
        assert read_entities(doc) == [Entity(label, ((a, b),)) for label, a, b in spans]
        assert [(e.label_, e.start, e.end) for e in doc.ents] == spans


@pytest.mark.parametrize("scheme", ["BIO", "BILUO"])
def test_score_is_the_probability_of_exactly_this_entity(scheme: Any) -> None:
    """Against the sum over all tag sequences."""
    fix_random_seed(1)
    nlp = spacy.blank("en")
    component = add_crf(nlp, model={"tok2vec": EMBED, "rnn": None, "tag_scheme": scheme})
    train(nlp, make_examples(nlp), steps=4)
    checked = 0
    for text in ["Angela Merkel likes Berlin", "Ada", "New York City and London"]:
        doc = nlp(text)
        scores = component.model.predict([doc])
        tags = TagScheme(scheme, component.labels)
        length = len(doc)
        paths = numpy.array([*itertools.product(range(len(tags)), repeat=length)])
        emissions, transitions, start, end = (
            part.double().numpy()
            for part in (scores.emissions, scores.transitions, scores.start, scores.end)
        )
        values = start[paths[:, 0]] + end[paths[:, -1]]
        values += emissions[numpy.arange(length), paths].sum(1)
        values += transitions[paths[:, :-1], paths[:, 1:]].sum(1)
        weights = numpy.exp(values)
        spans = tags.decode(paths.ravel(), numpy.full(len(paths), length))
        for entity in read_entities(doc):
            is_there = (spans.starts == entity.start) & (spans.ends == entity.end)
            is_there &= spans.labels == tags.labels.index(entity.label)
            expected = weights[spans.rows[is_there]].sum() / weights.sum()
            assert entity.score == pytest.approx(expected, abs=1e-4)
            assert 0.0 < entity.score < 1.0
            checked += 1
    assert checked >= 3


def test_long_doc(trained: Language) -> None:
    words = ["Angela", "Merkel", "saw", "Berlin", "."] * 4000
    doc = trained(Doc(trained.vocab, words=words))
    assert len(read_entities(doc)) >= 4000
    assert all(0.0 <= entity.score <= 1.0 for entity in read_entities(doc))


# Labels and gold


def test_missing_spans_key_is_an_error_that_names_the_others() -> None:
    nlp = spacy.blank("en")
    add_crf(nlp)
    examples = make_examples(nlp, key="other")
    with pytest.raises(ValueError, match=r"0 of 6 training docs.* Spans keys found: 'other'"):
        nlp.initialize(lambda: examples)


def test_given_labels_without_any_annotation_are_reported() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp, gold="spans")
    with pytest.warns(UserWarning, match="none of 6 training docs is annotated in doc.spans"):
        examples = make_examples(nlp, key="other")
        component.initialize(lambda: examples, nlp=nlp, labels=["LOC"])


def test_unknown_label_is_an_error_at_initialize_and_update() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    with pytest.raises(ValueError, match=r"labels that are not in the given ones: PER"):
        component.initialize(lambda: examples, nlp=nlp, labels=["LOC"])
    nlp = spacy.blank("en")
    add_crf(nlp)
    nlp.initialize(lambda: make_examples(nlp, data=TRAIN[:1]))
    with pytest.raises(ValueError, match=r"crf_ner: label 'PER' of the training data is unknown"):
        nlp.update(examples)


def test_given_labels_keep_their_order_and_missing_examples_are_reported() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    with pytest.warns(UserWarning, match="no training example for ORG"):
        component.initialize(lambda: examples, nlp=nlp, labels=["PER", "ORG", "LOC"])
    assert component.labels == ("PER", "ORG", "LOC")
    assert component.label_data == ["PER", "ORG", "LOC"]
    assert "ORG" in nlp.vocab.strings


def test_add_label_enlarges_a_trained_component(trained: Language) -> None:
    nlp = pickle.loads(pickle.dumps(trained))
    component = nlp.get_pipe("crf_ner")
    emissions = component.model.predict([nlp.make_doc(TRAIN[0][0])]).emissions
    assert component.add_label("ORG") == 1
    assert component.add_label("ORG") == 0
    larger = component.model.predict([nlp.make_doc(TRAIN[0][0])]).emissions
    # Not bit by bit: a product of another width may be summed up in another order.
    torch.testing.assert_close(larger[:, : emissions.shape[1]], emissions)
    assert larger.shape[1] == emissions.shape[1] + 4
    data = [*TRAIN, ("She works at Siemens now", [("ORG", 3, 4)])]
    examples = make_examples(nlp, data=data)
    overfit(nlp, examples, optimizer=nlp.resume_training(), most=60)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0
    loaded = pickle.loads(pickle.dumps(nlp))
    assert read_entities(loaded(data[-1][0])) == [Entity("ORG", ((3, 4),))]


def test_gold_is_read_from_ents_where_there_are_no_spans() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    for example in examples:
        entities = read_entities(example.reference)
        example.reference.ents = [
            Span(example.reference, e.start, e.end, label=e.label) for e in entities
        ]
        del example.reference.spans["mtlner"]
    train(nlp, examples)
    assert component.cfg["gold_source"] == "ents"
    scores = nlp.evaluate(examples)
    assert scores["spans_mtlner_f"] == scores["ents_f"] == 1.0


def test_gold_source_is_found_at_the_first_update_after_initializing_without_data() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    component.add_label("LOC")
    component.add_label("PER")
    with pytest.warns(UserWarning, match="is annotated in doc.spans"):
        optimizer = nlp.initialize()
    assert component.cfg["gold_source"] is None
    losses = nlp.update(make_examples(nlp), sgd=optimizer)
    assert component.cfg["gold_source"] == "spans"
    assert losses["crf_ner"] > 0


def test_gold_in_the_other_place_is_reported(trained: Language) -> None:
    nlp = pickle.loads(pickle.dumps(trained))
    reference = nlp.make_doc("I like London")
    reference.ents = [Span(reference, 2, 3, label="LOC")]
    with pytest.warns(UserWarning, match=r"reads gold from doc\.spans.*in doc\.ents alone"):
        losses = nlp.update([Example(nlp.make_doc(reference.text), reference)])
    assert losses["crf_ner"] == 0.0


def test_gold_in_spans_goes_before_ents() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    for example in examples[:2]:
        example.reference.ents = [Span(example.reference, 0, 1, label="WRONG")]
    nlp.initialize(lambda: examples)
    assert component.cfg["gold_source"] == "spans"
    assert component.labels == ("LOC", "PER")


@pytest.mark.parametrize("gold", ["auto", "spans"])
def test_docs_with_gold_in_the_other_place_are_counted(gold: str) -> None:
    """But where the place was named, which tells that the other one does not count."""
    nlp = spacy.blank("en")
    add_crf(nlp, gold=gold)
    references = [nlp.make_doc("Ada saw Berlin") for _ in range(3)]
    for reference in references:
        reference.ents = [Span(reference, 2, 3, label="LOC")]
    examples = make_examples(nlp)
    examples += [Example(nlp.make_doc(doc.text), doc) for doc in references]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nlp.initialize(lambda: examples)
    found = [str(w.message) for w in caught if "teach nothing" in str(w.message)]
    assert len(found) == (gold == "auto")
    assert all("3 of 9 training docs" in message for message in found)


def test_tokens_of_unknown_ents_are_marginalised() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    known = nlp.make_doc("Angela Merkel went to New York City")
    known.ents = [Span(known, 0, 2, label="PER"), Span(known, 4, 7, label="LOC")]
    partly = nlp.make_doc(known.text)
    partly.set_ents([Span(partly, 0, 2, label="PER")], default="missing")
    examples = [Example(nlp.make_doc(known.text), known)]
    nlp.initialize(lambda: examples)
    scores = component.model.predict([known])
    full, _ = component.get_loss(examples, scores)
    part, gradient = component.get_loss([Example(nlp.make_doc(known.text), partly)], scores)
    assert 0.0 < part < full
    # The sum over all sequences that have the known entity where it is.
    everything, _ = component.get_loss(
        [Example(nlp.make_doc(known.text), Doc(nlp.vocab, words=[t.text for t in known]))], scores
    )
    assert everything == 0.0
    tags = component.tag_scheme.tags
    possible = torch.ones(len(known), len(tags), dtype=torch.bool)
    for i, tag in enumerate(["B-PER", "L-PER"]):
        possible[i] = torch.tensor([name == tag for name in tags])
    log_likelihood = crf_log_likelihood(
        scores.emissions[None], *scores[1:], possible[None], torch.ones(1, len(known)).bool()
    )
    assert part == pytest.approx(-float(log_likelihood), abs=1e-4)
    assert bool(torch.isfinite(gradient.emissions).all())


def test_what_a_flat_head_cannot_learn_is_counted() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    reference = nlp.make_doc("University of New York and Chicago")
    write_entities(
        reference,
        [
            Entity("ORG", ((0, 4),)),
            Entity("LOC", ((2, 4),)),
            Entity("ORG", ((0, 2), (5, 6))),
        ],
    )
    example = Example(nlp.make_doc(reference.text), reference)
    with pytest.warns(
        UserWarning,
        match=r"2 gold entities are left out: .* contiguous ones that do not overlap \(1 are",
    ):
        component.initialize(lambda: [example], nlp=nlp)
    assert component.labels == ("ORG",)


def make_example_with_gold_inside_a_token(nlp: Language) -> Example:
    reference = Doc(nlp.vocab, words=["un", "London", "ish", "London"], spaces=[0, 0, 1, 0])
    write_entities(reference, [Entity("LOC", ((1, 2),)), Entity("LOC", ((3, 4),))])
    return Example(nlp.make_doc(reference.text), reference)


def test_gold_inside_tokens_is_counted_and_missed() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    example = make_example_with_gold_inside_a_token(nlp)
    with pytest.warns(UserWarning, match="1 gold entities begin or end inside a token"):
        component.initialize(lambda: [example], nlp=nlp)
    example.predicted = nlp.make_doc(example.reference.text)
    write_entities(example.predicted, [Entity("LOC", ((1, 2),))])
    assert component.score([example])["spans_mtlner_r"] == 0.5


def test_tokens_with_unaligned_gold_are_unknown() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    example = make_example_with_gold_inside_a_token(nlp)
    component.cfg["gold_source"] = "spans"
    gold = component.read_gold(example)
    assert gold is not None
    assert gold.entities == [Entity("LOC", ((1, 2),))]
    assert gold.unknown is not None
    assert gold.unknown.tolist() == [True, False]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"spans_mtlner_F": 0.5, "spans_mtlner_f": 0.5}, "spans_mtlner_F = "),
        ({"ents_f": 0.5, "spans_mtlner_r": 0.5}, "ents_f = "),
        ({"spans_ruler_f": 0.5, "spans_mtlner_flat_f": 0.5}, None),
    ],
)
def test_score_weights_are_checked(weights: dict[str, float], message: str | None) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler")
    component = add_crf(nlp, annotate_ents=False)
    nlp.config["training"]["score_weights"] = weights
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        component._check_score_weights(nlp)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (message is not None)
    assert not message or message in messages[0]


def test_score_weight_without_a_score_is_reported() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    nlp.config["training"]["score_weights"] = {"spans_sc_f": 1.0, "spans_mtlner_f": 0.5}
    with pytest.warns(UserWarning, match=r"spans_sc_f = 0.67: no component has that score"):
        component.initialize(lambda: make_examples(nlp), nlp=nlp)


# Update


def test_docs_without_the_key_teach_nothing() -> None:
    """A batch of another task leaves the head as it is, and scales nothing in a mixed batch."""
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    docs = [example.predicted for example in examples]
    scores = component.model.predict(docs)
    loss, gradient = component.get_loss(examples, scores)
    others = make_examples(nlp, key="other")
    nothing, no_gradient = component.get_loss(others, scores)
    assert nothing == 0.0
    assert all(bool((part == 0).all()) for part in no_gradient)
    mixed, mixed_gradient = component.get_loss(
        examples + others, component.model.predict(docs + docs)
    )
    assert mixed == pytest.approx(loss, rel=1e-5)
    n_tokens = len(gradient.emissions)
    assert torch.allclose(mixed_gradient.emissions[:n_tokens], gradient.emissions, atol=1e-6)
    assert bool((mixed_gradient.emissions[n_tokens:] == 0).all())


def test_loss_is_weighted_by_sample() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)[:2]
    nlp.initialize(lambda: examples)
    scores = component.model.predict([example.predicted for example in examples])
    single = [
        component.get_loss([eg], component.model.predict([eg.predicted]))[0] for eg in examples
    ]
    examples[0].reference.user_data["mtlner_weight"] = 0.25
    loss, _ = component.get_loss(examples, scores)
    assert loss == pytest.approx((0.25 * single[0] + single[1]) / 2, rel=1e-4)


def test_loss_that_is_not_finite_is_an_error() -> None:
    nlp = spacy.blank("en")
    component = add_crf(nlp)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    module = get_module_shim(component.model.get_ref("output_layer")).module
    with torch.no_grad():
        next(module.head.linear.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"The loss of crf_ner is nan"):
        nlp.update(examples)


def test_learn_rate_factor_scales_the_heads_steps_only() -> None:
    steps: dict[float, tuple[Any, Any]] = {}
    for factor in (1.0, 3.0):
        fix_random_seed(0)
        nlp = spacy.blank("en")
        component = add_crf(nlp, learn_rate_factor=factor)
        examples = make_examples(nlp)
        nlp.initialize(lambda examples=examples: examples)
        head = get_module_shim(component.model.get_ref("output_layer")).module.head.linear.weight
        table = next(n for n in component.model.walk() if n.name == "hashembed")
        before = head.detach().clone(), table.get_param("E").copy()
        sgd = Optimizer(0.1, grad_clip=0.0, L2=0.0, use_averages=False, use_radam=False)
        component.update(examples, sgd=sgd)
        steps[factor] = head.detach() - before[0], table.get_param("E") - before[1]
    assert torch.allclose(steps[3.0][0], 3 * steps[1.0][0], atol=1e-5)
    assert numpy.allclose(steps[3.0][1], steps[1.0][1], atol=1e-5)
    assert float(steps[1.0][0].abs().max()) > 0
    assert float(numpy.abs(steps[1.0][1]).max()) > 0


# Encoders


def test_two_tasks_over_one_tok2vec_do_not_harm_each_other() -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    width = 32
    encoder = {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": EMBED,
        "encode": {
            "@architectures": "spacy.MaxoutWindowEncoder.v2",
            "width": width,
            "depth": 1,
            "window_size": 1,
            "maxout_pieces": 2,
        },
    }
    nlp.add_pipe("tok2vec", config={"model": encoder})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": width, "upstream": "*"}
    for task in ("places", "persons"):
        add_crf(
            nlp,
            task,
            spans_key=task,
            annotate_ents=False,
            model={"tok2vec": listener, "hidden_width": 32},
        )
    places = [(text, [s for s in spans if s[0] == "LOC"]) for text, spans in TRAIN]
    persons = [(text, [s for s in spans if s[0] == "PER"]) for text, spans in TRAIN]
    examples = make_examples(nlp, "places", places) + make_examples(nlp, "persons", persons)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.01
    assert nlp.get_pipe("places").labels == ("LOC",)
    assert nlp.get_pipe("persons").labels == ("PER",)
    for step in range(40):
        batch = examples[step % 2 :: 2]
        nlp.update(batch, sgd=False, losses={})
        for _, pipe in nlp.pipeline:
            pipe.finish_update(optimizer)
    scores = nlp.evaluate(examples)
    assert scores["spans_places_f"] == scores["spans_persons_f"] == 1.0
    # Without listeners, each component has an encoder of its own.
    before = [entities_of(nlp(text)) for text, _ in TRAIN]
    nlp.replace_listeners("tok2vec", "places", ["model.tok2vec"])
    assert [entities_of(nlp(text)) for text, _ in TRAIN] == before


def test_learns_over_a_transformer(tmp_path: Path, tiny_bert: Callable[[Path], str]) -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy-transformers.TransformerModel.v3",
        "name": tiny_bert(tmp_path),
        "tokenizer_config": {"use_fast": True, "model_max_length": 64},
        "get_spans": {
            "@span_getters": "spacy-transformers.strided_spans.v1",
            "window": 32,
            "stride": 24,
        },
    }
    nlp.add_pipe("transformer", config={"model": model})
    listener = {
        "@architectures": "spacy-transformers.TransformerListener.v1",
        "grad_factor": 1.0,
        "pooling": {"@layers": "reduce_mean.v1"},
        "upstream": "*",
    }
    add_crf(nlp, model={"tok2vec": listener, "rnn": None})
    examples = make_examples(nlp)
    overfit(nlp, examples, learn_rate=0.005, most=60)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    assert entities_of(loaded(TRAIN[1][0])) == entities_of(nlp(TRAIN[1][0]))


@pytest.mark.parametrize(
    "tok2vec",
    [
        {**EMBED, "include_static_vectors": True},
        {
            "@architectures": "spacy_mtlner.CharacterEmbed.v1",
            "width": 32,
            "rows": 200,
            "bigram_width": 16,
            "bigram_rows": 200,
            "include_static_vectors": True,
        },
        {"@architectures": "spacy_mtlner.TransformerEncoder.v1", "width": 32, "embed": EMBED},
    ],
)
@pytest.mark.parametrize("rnn", ["gru", None])
def test_learns_over_other_embeddings(tok2vec: dict[str, Any], rnn: str | None) -> None:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    words = sorted({word for text, _ in TRAIN for word in text.split()})
    vectors = numpy.random.default_rng(0).normal(size=(len(words), 10)).astype("f")
    for word, vector in zip(words, vectors, strict=True):
        nlp.vocab.set_vector(word, vector)
    add_crf(nlp, model={"tok2vec": tok2vec, "rnn": rnn, "depth": 2, "hidden_width": 32})
    examples = make_examples(nlp)
    overfit(nlp, examples)
    assert nlp.evaluate(examples)["spans_mtlner_f"] == 1.0


# Annotation


def test_ents_already_there_are_kept_unless_overwritten(trained: Language) -> None:
    component = trained.get_pipe("crf_ner")
    for overwrite, expected in ((False, ["MISC", "LOC"]), (True, ["LOC", "LOC"])):
        doc = trained.make_doc("I like London and Berlin .")
        doc.ents = [Span(doc, 1, 3, label="MISC")]
        component.cfg["overwrite"] = overwrite
        component.set_annotations([doc], component.predict([doc]))
        assert [ent.label_ for ent in doc.ents] == expected
        assert [entity.label for entity in read_entities(doc)] == ["LOC", "LOC"]
    component.cfg["overwrite"] = False


def test_ents_are_left_alone_without_annotate_ents(trained: Language) -> None:
    component = trained.get_pipe("crf_ner")
    component.cfg["annotate_ents"] = False
    doc = component(trained.make_doc("I like London and Berlin ."))
    component.cfg["annotate_ents"] = True
    assert not doc.ents
    assert len(read_entities(doc)) == 2


def test_refuses_unknown_settings() -> None:
    with pytest.raises(ValueError, match="crf_ner -> gold"):
        add_crf(spacy.blank("en"), gold="nowhere")
    with pytest.raises(ValueError, match="tag_scheme"):
        add_crf(spacy.blank("en"), model={"tok2vec": EMBED, "tag_scheme": "IOBES"})


def test_class_probabilities(trained: Language) -> None:
    component = trained.get_pipe("crf_ner")
    docs = [trained(text) for text in ("I like London and Berlin .", "", "Ada in New York City")]
    entities = [read_entities(doc) for doc in docs]
    found = component.class_probabilities(docs, entities)
    assert [(a.shape, a.dtype) for a in found] == [((len(e), 3), numpy.float32) for e in entities]
    assert sum(map(len, entities)) >= 4
    for rows, spans in zip(found, entities, strict=True):
        assert rows.sum(1) == pytest.approx(numpy.ones(len(rows)))
        for row, entity in zip(rows, spans, strict=True):
            score = row[component.labels.index(entity.label)]
            assert score == pytest.approx(entity.score, abs=1e-5)


def test_class_probabilities_of_other_spans(trained: Language) -> None:
    component = trained.get_pipe("crf_ner")
    doc = trained("Ada in New York City")
    split = Entity("LOC", ((0, 1), (2, 5)))
    part = Entity("PER", ((2, 4),))
    (rows,) = component.class_probabilities([doc], [[split, part]])
    assert rows[0].tolist() == [0, 0, 1]  # No sequence of tags has it.
    assert rows[1, 2] > 0.9
    with pytest.raises(ValueError, match="ends outside its doc"):
        component.class_probabilities([doc], [[Entity("LOC", ((4, 6),))]])
    assert component.class_probabilities([], []) == []
    many = component.class_probabilities([doc] * 3000, [[part], []] * 1500)  # Several parts.
    assert [len(rows) for rows in many] == [1, 0] * 1500
    assert many[-2] == pytest.approx(rows[1:], abs=1e-5)
    blank = spacy.blank("en")
    with pytest.raises(ValueError, match="not initialized"):
        add_crf(blank).class_probabilities([blank("a")], [[Entity("LOC", ((0, 1),))]])


def test_component_without_class_probabilities(trained: Language) -> None:
    component = trained.get_pipe("crf_ner")
    with pytest.raises(NotImplementedError, match="crf_ner, a CRFEntityRecognizer"):
        EntityComponent.class_probabilities(component, [], [])
