"""The architecture of `pointer_ner`."""

from itertools import pairwise
from typing import Any

import numpy
import pytest
import torch
from spacy import registry
from spacy.ml.models import build_hash_embed_cnn_tok2vec
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Adam, ConfigValidationError, Model, set_dropout_rate

from spacy_mtlner.models.pointer_tagger import PointerInputs, build_pointer_tagger_v1
from spacy_mtlner.models.torch_layer import Rows, get_module_shim
from spacy_mtlner.nn.pointer import PointerScores, PointerTagger
from spacy_mtlner.nn.rnn import RNNKind

WIDTH = 8
MATCH = 3


def make_docs(*lengths: int) -> list[Doc]:
    vocab = Vocab()
    return [Doc(vocab, words=[f"w{i}" for i in range(n)]) for n in lengths]


def make_rows(*lengths: int) -> Rows:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=(n, WIDTH)).astype("f") for n in lengths]


def make_model(n_types: int | None = 2, *, described: bool = True, **settings: Any) -> Model:
    tok2vec = build_hash_embed_cnn_tok2vec(
        width=WIDTH,
        depth=1,
        embed_size=50,
        window_size=1,
        maxout_pieces=2,
        subword_features=False,
        pretrained_vectors=None,
    )
    sizes = {"hidden_width": 6, "match_width": MATCH, "max_length": 4, "description_length": 5}
    model = build_pointer_tagger_v1(tok2vec, **(sizes | settings))
    model.attrs["described"] = described
    if n_types is not None:
        model.set_dim("nO", n_types)
        model.initialize(X=PointerInputs(make_docs(0, 3), []))
    return model


def module_of(model: Model) -> PointerTagger:
    module = get_module_shim(model.get_ref("output_layer")).module
    assert isinstance(module, PointerTagger)
    return module


def assert_equal(scores: PointerScores, others: PointerScores) -> None:
    for score, other in zip(scores, others, strict=True):
        torch.testing.assert_close(score, other, rtol=0, atol=0)


@pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
@pytest.mark.parametrize("described", [True, False])
def test_scores(rnn: RNNKind | None, described: bool) -> None:
    model = make_model(rnn=rnn, depth=2, described=described)
    descriptions = make_rows(1, 5, 3) if described else []
    scores = model.predict(PointerInputs(make_docs(3, 0, 5), descriptions))
    assert isinstance(scores, PointerScores)
    assert [tuple(score.shape) for score in scores] == [
        (8, 2),
        (8, 2),
        *[(8, MATCH)] * 6,
        (4, MATCH),
        (MATCH, MATCH),
        (MATCH,),
        (2, MATCH),
        (8, 3 if described else 0),
        (1,),
    ]
    nothing = model.predict(PointerInputs(make_docs(0, 0), descriptions))
    assert nothing.starts.shape == (0, 2)
    tagger = model.get_ref("output_layer")
    assert (tagger.get_dim("nI"), tagger.get_dim("nO"), model.get_dim("nO")) == (WIDTH, 2, 2)


def test_descriptions_are_compared_with_the_texts() -> None:
    """Rows of the texts and of the descriptions are not mixed up."""
    torch.manual_seed(0)
    model = make_model(rnn=None)
    docs, descriptions = make_docs(3, 0, 2), make_rows(1, 5, 3)
    vectors = numpy.concatenate(model.get_ref("tok2vec").predict(docs)[::2])
    view = module_of(model).view.detach().numpy()
    with torch.no_grad():
        module_of(model).view_bias.fill_(0.25)
    expected = [
        [vector @ (view[: len(row)] @ row + 0.25) / WIDTH**0.5 for row in descriptions]
        for vector in vectors
    ]
    classes = model.predict(PointerInputs(docs, descriptions)).classes
    torch.testing.assert_close(classes, torch.tensor(numpy.array(expected)))
    # A description has nothing to do with the pointers.
    other = model.predict(PointerInputs(docs, make_rows(2, 2, 2)))
    assert torch.equal(other.starts, model.predict(PointerInputs(docs, descriptions)).starts)
    assert not torch.equal(other.classes, classes)


def test_backward() -> None:
    torch.manual_seed(0)
    model = make_model(rnn="lstm")
    set_dropout_rate(model, 0.0)
    docs, descriptions = make_docs(3, 0, 2), make_rows(1, 5, 3)
    received: list[Rows] = []
    inputs = PointerInputs(docs, descriptions, received.append)
    scores, backprop = model.begin_update(inputs)
    before = scores.starts.clone()
    assert_equal(scores, model.predict(inputs))
    assert not any(score.requires_grad for score in scores)
    backprop(PointerScores(*map(torch.ones_like, scores)))
    module = module_of(model)
    torch.testing.assert_close(module.starts.bias.grad, torch.full((2,), 5.0))
    torch.testing.assert_close(module.span_types.grad, torch.ones(2, MATCH))
    torch.testing.assert_close(module.balance.grad, torch.ones(1))
    assert module.view.grad is not None and module.view.grad.all()
    tok2vec = model.get_ref("tok2vec")
    gradients = [
        node.get_grad(name)
        for node in tok2vec.walk()
        for name in node.param_names
        if node.has_grad(name)
    ]
    assert any(abs(gradient).any() for gradient in gradients)
    (d_descriptions,) = received
    assert [row.shape for row in d_descriptions] == [row.shape for row in descriptions]
    assert all(abs(row).sum(1).all() for row in d_descriptions)
    model.finish_update(Adam(0.1))
    assert not torch.equal(model.predict(inputs).starts, before)


def test_gradient_of_descriptions_is_that_of_differences() -> None:
    torch.manual_seed(0)
    model = make_model(rnn=None)
    set_dropout_rate(model, 0.0)
    docs, descriptions = make_docs(3, 2), make_rows(2, 5, 3)
    received: list[Rows] = []
    scores, backprop = model.begin_update(PointerInputs(docs, descriptions, received.append))
    factors = torch.randn(scores.classes.shape, generator=torch.Generator().manual_seed(0))
    nothing = PointerScores(*map(torch.zeros_like, scores))
    backprop(nothing._replace(classes=factors))

    def value() -> float:
        return float((model.predict(PointerInputs(docs, descriptions)).classes * factors).sum())

    for row, gradient in zip(descriptions, received[0], strict=True):
        for place in ((0, 0), (len(row) - 1, 3)):
            old = row[place]
            row[place] = old + 0.5
            above = value()
            row[place] = old - 0.5
            # The similarities are linear in a description's vectors.
            assert gradient[place] == pytest.approx(above - value(), abs=1e-4)
            row[place] = old


def test_gradient_without_descriptions() -> None:
    torch.manual_seed(0)
    model = make_model(rnn="gru", described=False)
    received: list[Rows] = []
    scores, backprop = model.begin_update(PointerInputs(make_docs(3), [], received.append))
    backprop(PointerScores(*map(torch.ones_like, scores)))
    assert received == [[]]
    model.finish_update(Adam(0.1))


@pytest.mark.parametrize("rnn", [None, "gru"])
@pytest.mark.parametrize("described", [True, False])
def test_resize(rnn: RNNKind | None, described: bool) -> None:
    """Old types keep their scores, and training goes on with the same optimizer."""
    torch.manual_seed(0)
    model, optimizer = make_model(rnn=rnn, described=described), Adam(0.1)
    docs, rows = make_docs(4, 2), make_rows(1, 5, 3, 2, 2)

    def inputs() -> PointerInputs:
        n_types = model.get_dim("nO")
        return PointerInputs(docs, [*rows[:n_types], rows[-1]] if described else [])

    def step() -> None:
        scores, backprop = model.begin_update(inputs())
        backprop(PointerScores(*map(torch.ones_like, scores)))
        model.finish_update(optimizer)

    step()
    before = model.predict(inputs())
    assert model.attrs["resize_output"](model, 4) is model
    after = model.predict(inputs())
    assert model.get_dim("nO") == model.get_ref("output_layer").get_dim("nO") == 4
    assert after.starts.shape == (6, 4)
    for name in ("starts", "ends"):
        torch.testing.assert_close(getattr(after, name)[:, :2], getattr(before, name))
    for name in ("span_starts", "span_ends", "span_tokens", "span_lengths", "balance"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    assert torch.equal(after.span_types[:2], before.span_types)
    if described:
        torch.testing.assert_close(after.classes[:, [0, 1, 4]], before.classes)
    step()
    assert not torch.equal(model.predict(inputs()).starts, after.starts)
    fresh = make_model(None, rnn=rnn)
    fresh.from_bytes(model.to_bytes())
    assert fresh.attrs["described"] is described
    assert_equal(fresh.predict(inputs()), model.predict(inputs()))


@pytest.mark.parametrize("rnn", [None, "lstm"])
@pytest.mark.parametrize("described", [True, False])
def test_bytes(rnn: RNNKind | None, described: bool) -> None:
    settings: dict[str, Any] = {"rnn": rnn, "depth": 2}
    model = make_model(3, described=described, **settings)
    fresh = make_model(None, **settings)
    fresh.from_bytes(model.to_bytes())
    inputs = PointerInputs(make_docs(3, 0, 5), make_rows(2, 1, 3, 5) if described else [])
    assert fresh.get_dim("nO") == 3
    assert_equal(fresh.predict(inputs), model.predict(inputs))


def test_copy() -> None:
    model = make_model(rnn="lstm")
    inputs = PointerInputs(make_docs(3, 0, 5), make_rows(2, 1, 3))
    assert_equal(model.copy().predict(inputs), model.predict(inputs))


def test_same_seed_same_weights() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(make_model(rnn="lstm"))
    for one, other in pairwise(models):
        for a, b in zip(module_of(one).parameters(), module_of(other).parameters(), strict=True):
            assert torch.equal(a, b)


def test_fixed_dropout() -> None:
    model = make_model(dropout=0.25)
    set_dropout_rate(model, 0.5)
    model.begin_update(PointerInputs(make_docs(3), make_rows(1, 1, 1)))
    assert module_of(model).dropout.p == 0.25


LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH}


@pytest.mark.parametrize(
    "name", ["match_width", "max_length", "description_length", "hidden_width", "depth"]
)
def test_sizes_below_one(name: str) -> None:
    config = {"@architectures": "spacy_mtlner.PointerTagger.v1", "tok2vec": LISTENER}
    registry.resolve({"model": config})
    with pytest.raises(ValueError, match=rf"PointerTagger.v1: {name} must be at least 1: 0"):
        registry.resolve({"model": config | {name: 0}})


def test_unknown_rnn() -> None:
    config = {"@architectures": "spacy_mtlner.PointerTagger.v1", "tok2vec": LISTENER}
    with pytest.raises(ConfigValidationError, match="rnn"):
        registry.resolve({"model": config | {"rnn": "rnn"}})
