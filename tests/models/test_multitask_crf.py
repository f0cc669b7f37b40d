"""The thinc model of several tasks: encoder, heads, saving, resizing."""

import numpy
import pytest
import spacy
import torch
from spacy.ml.models import MultiHashEmbed
from spacy.tokens import Doc
from thinc.api import Model, set_dropout_rate

from spacy_mtlner.models.multitask_crf import TaskInputs, build_multitask_crf_v1, resize_tasks
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.multitask import MultiTaskScores

WIDTH = 8
N_TAGS = (9, 5)  # Two labels and one, each with four tags, and "O".


def make_model(**settings) -> Model:
    embed = MultiHashEmbed(width=WIDTH, attrs=["NORM"], rows=[50], include_static_vectors=False)
    model = build_multitask_crf_v1(embed, hidden_width=8, **settings)
    model.attrs["n_tags"] = list(N_TAGS)
    return model


def make_inputs(*lengths: int, wanted: list[str] | None = None) -> TaskInputs:
    vocab = spacy.blank("en").vocab
    docs = [Doc(vocab, words=[f"w{i}{j}" for j in range(n)]) for i, n in enumerate(lengths)]
    rows = ["x" * len(docs)] * len(N_TAGS) if wanted is None else wanted
    return TaskInputs(docs, numpy.array([[mark == "x" for mark in row] for row in rows]))


def initialize(**settings) -> Model:
    torch.manual_seed(0)
    model = make_model(**settings)
    model.initialize(X=make_inputs(2, 0))
    set_dropout_rate(model, 0.0)
    return model


@pytest.mark.parametrize("fusion", ["attention", "none"])
def test_shapes(fusion):
    model = initialize(fusion=fusion)
    scores = model.predict(make_inputs(3, 0, 2, wanted=["x.x", "..x"]))
    assert isinstance(scores, MultiTaskScores)
    assert [scores.of_task(t).emissions.shape for t in (0, 1)] == [(5, 9), (2, 5)]
    assert model.get_ref("output_layer").get_dim("nI") == WIDTH
    module = get_module_shim(model.get_ref("output_layer")).module
    assert [len(head.crf.allowed_start) for head in module.heads] == list(N_TAGS)


def test_forbidden_tags_are_those_of_each_tasks_scheme():
    scores = initialize(tag_scheme="BILUO").predict(make_inputs(1))
    assert scores.of_task(0).start.isinf().sum() == 4  # I and L of two labels.
    assert scores.of_task(1).start.isinf().sum() == 2


def test_docs_of_other_tasks_get_no_gradient():
    model = initialize()
    inputs = make_inputs(3, 2, wanted=["x.", "x."])
    scores, backprop = model.begin_update(inputs)
    embed = model.get_ref("tok2vec")
    seen = []
    forward = embed._func

    def watch(layer, docs, is_train):
        rows, back = forward(layer, docs, is_train)
        return rows, lambda d_rows: (seen.append(d_rows), back(d_rows))[1]

    embed._func = watch
    scores, backprop = model.begin_update(inputs)
    assert not any(score.requires_grad for score in scores)
    backprop(MultiTaskScores(*map(torch.ones_like, scores)))
    ((first, second),) = seen
    assert abs(first).sum(1).min() > 0 and not second.any()


def test_nothing_wanted_has_a_gradient_of_zero():
    model = initialize()
    scores, backprop = model.begin_update(make_inputs(3, 2, wanted=["..", ".."]))
    backprop(MultiTaskScores(*map(torch.ones_like, scores)))
    embed = model.get_ref("tok2vec")
    gradients = [
        node.get_grad(name)
        for node in embed.walk()
        for name in node.param_names
        if node.has_grad(name)
    ]
    assert gradients and not any(gradient.any() for gradient in gradients)


def test_saves_and_loads():
    model, other = initialize(), make_model()
    other.from_bytes(model.to_bytes())
    inputs = make_inputs(3, 0, 2)
    for score, loaded in zip(model.predict(inputs), other.predict(inputs), strict=True):
        assert torch.equal(score, loaded)
    assert other.attrs["n_tags"] == list(N_TAGS)


def test_resizes_one_task():
    model = initialize()
    inputs = make_inputs(3, 0, 2)
    before = model.predict(inputs)
    resize_tasks(model, [9, 13])
    after = model.predict(inputs)
    assert model.attrs["n_tags"] == [9, 13]
    for old, new in zip(before.of_task(0), after.of_task(0), strict=True):
        assert torch.equal(old, new)
    torch.testing.assert_close(after.of_task(1).emissions[:, :5], before.of_task(1).emissions)
    assert after.of_task(1).emissions.shape == (5, 13)


def test_dropout_follows_the_training_unless_fixed():
    for fixed, expected in ((None, 0.3), (0.1, 0.1)):
        model = initialize(dropout=fixed)
        set_dropout_rate(model, 0.3)
        model.begin_update(make_inputs(2))
        module = get_module_shim(model.get_ref("output_layer")).module
        rates = {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)}
        assert rates == {expected}
