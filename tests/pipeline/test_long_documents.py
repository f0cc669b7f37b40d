"""Documents of any length: every component predicts them, and long ones as the windows say."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_mtlner.codecs.spans import propose_spans
from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.models.seq2seq import Seq2SeqInputs
from spacy_mtlner.nn import rnn
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.pipeline import pointer_ner, seq2seq_ner
from spacy_mtlner.pipeline.base import EntityComponent

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 16,
    "attrs": ["NORM"],
    "rows": [100],
    "include_static_vectors": False,
}
WORDS = "Ada saw New York City . it was nothing to write home about . my left knee hurts".split()
GOLD = [Entity("PER", ((0, 1),)), Entity("LOC", ((2, 5),)), Entity("BODY", ((14, 17),))]
HEADS: dict[str, dict[str, Any]] = {
    "crf_ner": {"model": {"rnn": "lstm", "hidden_width": 16}},
    "multitask_crf_ner": {
        "tasks": {"mtlner": "main", "other": "auxiliary"},
        "predicted_tasks": "all",
        "model": {"hidden_width": 16, "window": 8},
    },
    "pointer_ner": {"beta": 1.0, "model": {"hidden_width": 16, "max_length": 8}},
    "span_ner": {"model": {"hidden_width": 16, "span_width": 16}},
    "seq2seq_ner": {
        "decoder": "both",
        "model": {
            "width": 16,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "hidden_width": 16,
            "relation_width": 8,
            "window": 24,
            "type_attention": False,
        },
    },
}


def make_words(n: int) -> list[str]:
    return list(islice(cycle(WORDS), n))


def make_pipeline(name: str, steps: int) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    config = {**HEADS[name], "model": {**HEADS[name]["model"], "tok2vec": EMBED}}
    nlp.add_pipe(name, config=config)
    reference = Doc(nlp.vocab, words=WORDS)
    for key in ("mtlner", "other"):
        write_entities(reference, GOLD, key)
    examples = [Example(Doc(nlp.vocab, words=WORDS), reference)]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.02
    for _ in range(steps):
        nlp.update([Example(Doc(nlp.vocab, words=WORDS), reference)], sgd=optimizer)
    return nlp


@pytest.fixture(scope="module", params=HEADS)
def trained(request: pytest.FixtureRequest) -> Iterator[Language]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_pipeline(request.param, steps=40)
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("length", [0, 1, 512, 513, 10_000])
def test_any_length(trained: Language, length: int) -> None:
    doc = trained(Doc(trained.vocab, words=make_words(length)))
    found = doc._.entities
    assert all(entity.end <= length and 0 <= entity.score <= 1 for entity in found)
    if length >= 512:
        assert len(found) > length / len(WORDS)


@pytest.mark.slow
def test_200000_tokens(trained: Language) -> None:
    doc = trained(Doc(trained.vocab, words=make_words(200_000)))
    assert len(doc._.entities) > 200_000 / len(WORDS)


def test_parts_are_as_the_whole(trained: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is run part by part gives the entities and scores of the whole."""
    doc = Doc(trained.vocab, words=make_words(500))
    component = trained.components[0][1]
    assert isinstance(component, EntityComponent)
    (whole,) = component.predict([doc])
    monkeypatch.setattr(rnn, "PART_TOKENS", 60)
    monkeypatch.setattr(pointer_ner, "SPAN_CHUNK", 64)
    monkeypatch.setattr(seq2seq_ner, "PREDICTED_TOKENS", 64)
    monkeypatch.setattr("spacy_mtlner.nn.crf._STEPS", 7)
    monkeypatch.setattr("spacy_mtlner.nn.transformer.PART_TOKENS", 16)
    monkeypatch.setattr("spacy_mtlner.nn.span.MAX_POSITIONS", 256)
    monkeypatch.setattr("spacy_mtlner.codecs.spans.MAX_SPANS", 512)
    (parts,) = component.predict([doc])
    for key in whole if isinstance(whole, dict) else [None]:
        expected, found = (side[key] if key else side for side in (whole, parts))
        assert found == expected and len(found) > 20
        scores = [[entity.score for entity in side] for side in (expected, found)]
        numpy.testing.assert_allclose(*scores, atol=1e-5)


def test_windows_of_long_docs_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder runs once, the rest on a bounded number of tokens."""
    nlp = make_pipeline("seq2seq_ner", steps=1)
    component = nlp.get_pipe("seq2seq_ner")
    assert isinstance(component, seq2seq_ner.Seq2SeqEntityRecognizer)
    seen: list[Seq2SeqInputs] = []
    predict = type(component.model).predict

    def record(self: Any, inputs: Any) -> Any:
        if isinstance(inputs, Seq2SeqInputs):
            seen.append(inputs)
        return predict(self, inputs)

    monkeypatch.setattr(type(component.model), "predict", record)
    monkeypatch.setattr(seq2seq_ner, "PREDICTED_TOKENS", 100)
    docs = [Doc(nlp.vocab, words=make_words(n)) for n in (150, 0, 400, 20)]
    component.predict(docs)
    parts = [inputs for inputs in seen if inputs.rows is not None]
    assert len(parts) > 3 and all(sum(part.windows) <= 100 + 24 for part in parts)
    seen.clear()
    component.predict(docs[-1:])
    assert [(inputs.rows, inputs.tokens) for inputs in seen] == [(None, None)]


@pytest.mark.parametrize("per_token", [0.1, 1.0, 3.0, 50.0])
def test_proposals_part_by_part(per_token: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same spans in the same order, equal ones included."""
    draw = numpy.random.default_rng(0)
    rows = numpy.array([0, 40, 1, 300, 0])
    starts, ends = draw.integers(-3, 3, (2, rows.sum())).astype(numpy.float32)
    sizes = numpy.array([0, -1, -1, -2], dtype=numpy.float32)
    whole = propose_spans(starts, ends, sizes, rows, per_token)
    monkeypatch.setattr("spacy_mtlner.codecs.spans.MAX_SPANS", 64)
    parts = propose_spans(starts, ends, sizes, rows, per_token)
    assert numpy.array_equal(whole.tokens, parts.tokens)
    assert numpy.array_equal(whole.sizes, parts.sizes)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_layer_part_by_part(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = rnn.BiRNN(kind, 3, 8, 2).double().eval()
    lengths = [30, 7, 25, 1]
    x, groups = torch.randn(63, 3, dtype=torch.double), group_rows(lengths)
    whole = layer(x, groups)
    monkeypatch.setattr(rnn, "PART_TOKENS", 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, groups), whole)
