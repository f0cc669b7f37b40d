"""The architecture of `crf_ner`."""

import pytest
import torch
from spacy import registry
from spacy.ml.models import build_hash_embed_cnn_tok2vec
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Adam, ConfigValidationError, Model, set_dropout_rate

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.models.crf_tagger import build_crf_tagger_v1
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.tagger import CRFScores

WIDTH = 8


def make_docs(*lengths: int) -> list[Doc]:
    vocab = Vocab()
    return [Doc(vocab, words=[f"w{i}" for i in range(n)]) for n in lengths]


def make_model(n_labels: int | None = 2, **settings) -> Model:
    tok2vec = build_hash_embed_cnn_tok2vec(
        width=WIDTH,
        depth=1,
        embed_size=50,
        window_size=1,
        maxout_pieces=2,
        subword_features=False,
        pretrained_vectors=None,
    )
    model = build_crf_tagger_v1(tok2vec, hidden_width=6, **settings)
    if n_labels is not None:
        prefixes = TagScheme(model.attrs["tag_scheme"], ()).prefixes
        model.set_dim("nO", 1 + n_labels * len(prefixes))
        model.initialize(X=make_docs(0, 3))
    return model


def assert_equal(scores: CRFScores, others: CRFScores) -> None:
    for score, other in zip(scores, others, strict=True):
        torch.testing.assert_close(score, other, rtol=0, atol=0)


@pytest.mark.parametrize("rnn", [None, "lstm", "gru"])
@pytest.mark.parametrize("tag_scheme", ["BIO", "BILUO"])
def test_scores(rnn, tag_scheme):
    model = make_model(rnn=rnn, tag_scheme=tag_scheme, depth=2)
    scheme = TagScheme(tag_scheme, ("A", "B"))
    n = len(scheme)
    docs = make_docs(3, 0, 5)
    scores = model.predict(docs)
    assert isinstance(scores, CRFScores)
    assert [tuple(score.shape) for score in scores] == [(8, n), (n, n), (n,), (n,)]
    for score, allowed in (
        (scores.transitions, scheme.allowed_transitions),
        (scores.start, scheme.allowed_start),
        (scores.end, scheme.allowed_end),
    ):
        assert torch.equal(score > -torch.inf, torch.from_numpy(allowed))
    assert model.predict(make_docs(0, 0)).emissions.shape == (0, n)
    tagger = model.get_ref("output_layer")
    assert (tagger.get_dim("nI"), tagger.get_dim("nO")) == (WIDTH, n)


def test_backward():
    torch.manual_seed(0)
    model = make_model(rnn="lstm")
    set_dropout_rate(model, 0.0)
    docs = make_docs(3, 0, 2)
    scores, backprop = model.begin_update(docs)
    assert_equal(scores, model.predict(docs))
    assert not any(score.requires_grad for score in scores)
    backprop(CRFScores(*map(torch.ones_like, scores)))
    tagger = get_module_shim(model.get_ref("output_layer")).module
    allowed = tagger.head.crf.allowed_transitions
    assert torch.equal(tagger.head.crf.transitions.grad, allowed.to(torch.float32))
    torch.testing.assert_close(tagger.head.linear.bias.grad, torch.full((9,), 5.0))
    tok2vec = model.get_ref("tok2vec")
    gradients = [
        node.get_grad(name)
        for node in tok2vec.walk()
        for name in node.param_names
        if node.has_grad(name)
    ]
    assert any(abs(gradient).any() for gradient in gradients)
    model.finish_update(Adam(0.1))
    assert not torch.equal(model.predict(docs).transitions, scores.transitions)


@pytest.mark.parametrize("rnn", [None, "gru"])
@pytest.mark.parametrize("tag_scheme", ["BIO", "BILUO"])
def test_resize(rnn, tag_scheme):
    """Old tags keep their scores, and training goes on with the same optimizer."""
    torch.manual_seed(0)
    model, optimizer = make_model(rnn=rnn, tag_scheme=tag_scheme), Adam(0.1)
    docs = make_docs(4, 2)

    def step() -> None:
        scores, backprop = model.begin_update(docs)
        backprop(CRFScores(*map(torch.ones_like, scores)))
        model.finish_update(optimizer)

    step()
    before = model.predict(docs)
    n = model.get_dim("nO")
    larger = TagScheme(tag_scheme, ("A", "B", "C", "D"))
    assert model.attrs["resize_output"](model, len(larger)) is model
    after = model.predict(docs)
    assert model.get_dim("nO") == model.get_ref("output_layer").get_dim("nO") == len(larger)
    assert after.emissions.shape == (6, len(larger))
    torch.testing.assert_close(after.emissions[:, :n], before.emissions)
    assert torch.equal(after.transitions[:n, :n], before.transitions)
    assert torch.equal(after.start[:n], before.start)
    assert torch.equal(after.end[:n], before.end)
    allowed = torch.from_numpy(larger.allowed_transitions)
    assert torch.equal(after.transitions > -torch.inf, allowed)
    step()
    assert not torch.equal(model.predict(docs).emissions, after.emissions)
    fresh = make_model(None, rnn=rnn, tag_scheme=tag_scheme)
    fresh.from_bytes(model.to_bytes())
    assert_equal(fresh.predict(docs), model.predict(docs))


@pytest.mark.parametrize("rnn", [None, "lstm"])
def test_bytes_and_copy(rnn):
    model = make_model(rnn=rnn, depth=2, n_labels=3)
    fresh = make_model(None, rnn=rnn, depth=2)
    fresh.from_bytes(model.to_bytes())
    docs = make_docs(3, 0, 5)
    assert fresh.get_dim("nO") == model.get_dim("nO")
    assert_equal(fresh.predict(docs), model.predict(docs))
    assert_equal(model.copy().predict(docs), model.predict(docs))


def test_fixed_dropout():
    model = make_model(dropout=0.25)
    set_dropout_rate(model, 0.5)
    model.begin_update(make_docs(3))
    assert get_module_shim(model.get_ref("output_layer")).module.dropout.p == 0.25


def test_no_labels():
    scores = make_model(n_labels=0).predict(make_docs(2))
    assert scores.emissions.shape == (2, 1)
    assert scores.transitions.shape == (1, 1)


@pytest.mark.parametrize("setting", [{"tag_scheme": "IOB1"}, {"rnn": "rnn"}])
def test_invalid_settings(setting):
    tok2vec = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH}
    config = {"@architectures": "spacy_mtlner.CRFTagger.v1", "tok2vec": tok2vec}
    registry.resolve({"model": config})
    with pytest.raises(ConfigValidationError, match=next(iter(setting))):
        registry.resolve({"model": config | setting})
