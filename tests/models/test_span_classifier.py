"""The thinc model of candidate spans: shapes, gradients, saving, resizing."""

import numpy
import pytest
import spacy
import torch
from spacy.ml.models import MultiHashEmbed
from spacy.tokens import Doc
from thinc.api import Model, set_dropout_rate

from spacy_mtlner.codecs.spans import NO_CANDIDATES, Candidates
from spacy_mtlner.models.span_classifier import SpanInputs, build_span_classifier_v1
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.span import SpanRequest, SpanScores

WIDTH, N_CLASSES = 8, 3


def make_model(max_length: int = 0, **settings) -> Model:
    embed = MultiHashEmbed(width=WIDTH, attrs=["NORM"], rows=[50], include_static_vectors=False)
    model = build_span_classifier_v1(embed, **{"hidden_width": 8, "span_width": 8, **settings})
    model.attrs["length_logits"] = [0.0] * max_length
    model.set_dim("nO", N_CLASSES)
    return model


def make_docs(*lengths: int) -> list[Doc]:
    vocab = spacy.blank("en").vocab
    return [Doc(vocab, words=[f"w{i}{j}" for j in range(n)]) for i, n in enumerate(lengths)]


def initialize(**settings) -> Model:
    torch.manual_seed(0)
    model = make_model(**settings)
    model.initialize(X=SpanInputs(make_docs(2, 0), SpanRequest()))
    set_dropout_rate(model, 0.0)
    return model


GIVEN = SpanRequest(Candidates.of_fragments([((0, 2),), ((1, 2),), ((4, 5),)]), NO_CANDIDATES)


def test_given_candidates():
    model = initialize()
    scores = model.predict(SpanInputs(make_docs(3, 0, 2), GIVEN))
    assert isinstance(scores, SpanScores)
    assert scores.logits.shape == (3, N_CLASSES) and not len(scores.starts)
    assert model.get_ref("output_layer").get_dim("nI") == WIDTH


def test_proposed_candidates():
    scores = initialize(max_length=2).predict(SpanInputs(make_docs(3, 0, 2), SpanRequest()))
    assert scores.logits.shape == (5, N_CLASSES)
    assert scores.starts.shape == scores.ends.shape == (5,) and scores.lengths.shape == (2,)


def test_gradients_reach_the_embedding():
    model = initialize()
    inputs = SpanInputs(make_docs(3, 0, 2), GIVEN)
    scores, backprop = model.begin_update(inputs)
    d_scores = SpanScores(*(torch.zeros_like(score) for score in scores))
    d_scores.logits[:2] = 1.0
    backprop(d_scores)
    embed = model.get_ref("tok2vec")
    moved = [
        node.get_grad(name) for node in embed.walk() for name in node.param_names
        if node.has_grad(name)
    ]  # fmt: skip
    assert any(numpy.abs(gradient).sum() > 0 for gradient in moved)


def test_loads_what_it_saved():
    model = initialize(max_length=3, rnn="gru")
    other = make_model(max_length=3, rnn="gru").from_bytes(model.to_bytes())
    inputs = SpanInputs(make_docs(3, 2), SpanRequest())
    for ours, theirs in zip(model.predict(inputs), other.predict(inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_resizing_keeps_the_present_classes():
    model = initialize(max_length=3)
    inputs = SpanInputs(make_docs(3, 2), SpanRequest())
    before = model.predict(inputs)
    model.attrs["resize_output"](model, N_CLASSES + 1)
    after = model.predict(inputs)
    assert after.logits.shape[1] == N_CLASSES + 1
    torch.testing.assert_close(after.logits[:, :N_CLASSES], before.logits)
    torch.testing.assert_close(after.starts, before.starts)


@pytest.mark.parametrize("dropout, rate", [(None, 0.5), (0.0, 0.0), (0.25, 0.25)])
def test_dropout_follows_the_training_unless_fixed(dropout, rate):
    model = initialize(dropout=dropout)
    set_dropout_rate(model, 0.5)
    model.begin_update(SpanInputs(make_docs(3, 2), GIVEN))
    modules = get_module_shim(model.layers[1]).module.modules()
    assert {m.p for m in modules if isinstance(m, torch.nn.Dropout)} == {rate}
