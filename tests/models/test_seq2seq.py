"""The architecture of `seq2seq_ner`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from spacy import registry
from spacy.ml.models import build_hash_embed_cnn_tok2vec
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Adam, Model, set_dropout_rate
from transformers import AutoTokenizer, BartModel

from spacy_mtlner.codecs.sequence import encode_sequences
from spacy_mtlner.models.seq2seq import (
    KnownNames,
    Seq2SeqInputs,
    build_seq2seq_v1,
    encode_pieces,
)
from spacy_mtlner.models.torch_layer import Rows, get_module_shim
from spacy_mtlner.nn.seq2seq import Seq2Seq, Seq2SeqScores

VOCAB = Vocab()
SIZES: dict[str, Any] = {
    "width": 8,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "n_heads": 2,
    "hidden_width": 12,
    "relation_width": 4,
    "type_width": 3,
    "window": 16,
}
TYPES = 2


def make_docs(*lengths: int) -> list[Doc]:
    return [Doc(VOCAB, words=[f"w{i}" for i in range(n)]) for n in lengths]


def make_names(model: Model, backprop: Any = None) -> KnownNames:
    docs = make_docs(2, 1, 3)
    rows: Rows = []
    if model.attrs["bart"] is None:
        rows = [row * 0.5 for row in model.get_ref("tok2vec").predict(docs)]
    names = KnownNames(docs, [0, 0, 1], [0.5, 0.5, 1.0], rows)
    return names if backprop is None else names._replace(backprop=backprop)


def make_model(n_types: int | None = TYPES, **settings: Any) -> Model:
    tok2vec = build_hash_embed_cnn_tok2vec(
        width=6,
        depth=1,
        embed_size=50,
        window_size=1,
        maxout_pieces=2,
        subword_features=False,
        pretrained_vectors=None,
    )
    model = build_seq2seq_v1(tok2vec, **(SIZES | settings))
    if n_types is not None:
        model.set_dim("nO", n_types)
        model.initialize(X=Seq2SeqInputs(make_docs(0, 3), []))
    return model


def make_inputs(model: Model, **settings: Any) -> Seq2SeqInputs:
    """Two docs, of which one has two windows, and an empty one."""
    docs = make_docs(5, 0, 3)
    settings = {"with_cells": True, "names": make_names(model), **settings}
    if settings.pop("is_train", True):
        settings["symbols"] = encode_sequences(
            [[(((0, 1),), 0)], [(((0, 1), (2, 3)), 1)], [(((1, 3),), 0), (((2, 3),), 1)]], TYPES
        )
    return Seq2SeqInputs(docs, [2, 3, 3], **settings)


def module_of(model: Model) -> Seq2Seq:
    module = get_module_shim(model.get_ref("output_layer")).module
    assert isinstance(module, Seq2Seq)
    return module


def assert_equal(scores: Seq2SeqScores, others: Seq2SeqScores) -> None:
    for score, other in zip(scores, others, strict=True):
        torch.testing.assert_close(score, other, rtol=0, atol=0)


@pytest.fixture(params=["scratch", "bart"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_bart: Callable[[Path], str]
) -> dict[str, Any]:
    return {} if request.param == "scratch" else {"bart": tiny_bart(tmp_path)}


def test_scores(settings: dict[str, Any]) -> None:
    model = make_model(**settings)
    scores = model.predict(make_inputs(model))
    assert scores.steps.shape == (3 + 4 + 6, 1 + TYPES + 3)
    assert scores.cells.shape == (4 + 9 + 9, 3 + TYPES)
    assert scores.symbols.numel() == scores.log_probs.numel() == 0
    scores = model.predict(make_inputs(model, is_train=False, beam_width=2))
    assert len(scores.steps) == 0
    assert scores.symbols.shape == scores.log_probs.shape and len(scores.symbols) == 3
    nothing = model.predict(Seq2SeqInputs(make_docs(0, 0), [], beam_width=1, with_cells=True))
    assert all(len(score) == 0 for score in nothing)


def test_backward(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = make_model(**settings)
    set_dropout_rate(model, 0.0)
    received: list[Rows] = []
    inputs = make_inputs(model, names=make_names(model, received.append))
    scores, backprop = model.begin_update(inputs)
    assert_equal(scores, model.predict(inputs))
    assert not any(score.requires_grad for score in scores)
    gradient = Seq2SeqScores(*map(torch.ones_like, scores))
    backprop(gradient._replace(steps=torch.randn_like(scores.steps)))
    (d_names,) = received
    assert [row.shape for row in d_names] == [row.shape for row in inputs.names.rows]  # type: ignore[union-attr]
    if not settings:
        assert all(abs(row).sum(1).all() for row in d_names)
        tok2vec = model.get_ref("tok2vec")
        gradients = [
            node.get_grad(name)
            for node in tok2vec.walk()
            for name in node.param_names
            if node.has_grad(name)
        ]
        assert any(abs(gradient).any() for gradient in gradients)
    model.finish_update(Adam(0.1))
    assert not torch.equal(model.predict(inputs).cells, scores.cells)


def test_gradient_of_names_is_that_of_differences() -> None:
    torch.manual_seed(0)
    model = make_model()
    module_of(model).double()
    set_dropout_rate(model, 0.0)
    received: list[Rows] = []
    inputs = make_inputs(model, names=make_names(model, received.append))
    assert inputs.names is not None
    inputs = inputs._replace(
        names=inputs.names._replace(rows=[row.astype("d") for row in inputs.names.rows])
    )
    tok2vec = model.get_ref("tok2vec")
    rows = [row.astype("d") for row in tok2vec.predict(inputs.docs)]
    tagger = model.get_ref("output_layer")
    scores, backprop = tagger.begin_update((rows, inputs))
    factors = torch.randn(scores.steps.shape, dtype=torch.double)
    nothing = Seq2SeqScores(*map(torch.zeros_like, scores))
    _, d_names = backprop(nothing._replace(steps=factors))

    def value() -> float:
        return float((tagger.predict((rows, inputs)).steps * factors).sum())

    for row, gradient in zip(inputs.names.rows, d_names, strict=True):
        for place in ((0, 0), (len(row) - 1, 3)):
            old = row[place]
            row[place] = old + 1e-4
            above = value()
            row[place] = old - 1e-4
            assert gradient[place] == pytest.approx((above - value()) / 2e-4, rel=1e-3, abs=1e-4)
            row[place] = old


def test_resize(settings: dict[str, Any]) -> None:
    """The weights of old types stay, and training goes on with the same optimizer."""
    torch.manual_seed(0)
    model, optimizer = make_model(**settings), Adam(0.1)

    def step() -> None:
        scores, backprop = model.begin_update(make_inputs(model))
        backprop(Seq2SeqScores(*map(torch.randn_like, scores)))
        model.finish_update(optimizer)

    step()
    before = {name: weights.clone() for name, weights in module_of(model).state_dict().items()}
    cells = model.predict(make_inputs(model)).cells
    assert model.attrs["resize_output"](model, 4) is model
    assert model.get_dim("nO") == model.get_ref("output_layer").get_dim("nO") == 4
    for name, weights in module_of(model).state_dict().items():
        old = before[name]
        assert torch.equal(weights[tuple(slice(n) for n in old.shape)], old), name
    after = model.predict(make_inputs(model))
    assert after.cells.shape[1] == 3 + 4 and after.steps.shape[1] == 1 + 4 + 3
    if not settings:
        assert not torch.equal(after.cells[:, : cells.shape[1]], torch.zeros_like(cells))
    step()
    fresh = make_model(None, **settings)
    fresh.from_bytes(model.to_bytes())
    assert_equal(fresh.predict(make_inputs(model)), model.predict(make_inputs(model)))


def test_bytes(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model needs neither network nor folder."""
    model = make_model(**settings)
    data = model.to_bytes()
    for name in ("from_pretrained",):
        monkeypatch.setattr(BartModel, name, None)
        monkeypatch.setattr(AutoTokenizer, name, None)
    if settings:
        settings = {"bart": "/nowhere"}
    fresh = make_model(None, **settings)
    fresh.from_bytes(data)
    assert fresh.get_dim("nO") == TYPES
    for generates in (True, False):
        inputs = make_inputs(model, is_train=not generates, beam_width=2 * generates)
        assert_equal(fresh.predict(inputs), model.predict(inputs))


def test_copy(settings: dict[str, Any]) -> None:
    model = make_model(**settings)
    inputs = make_inputs(model)
    assert_equal(model.copy().predict(inputs), model.predict(inputs))


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(module_of(make_model()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dropout() -> None:
    for dropout, expected in ((None, 0.5), (0.25, 0.25)):
        model = make_model(dropout=dropout)
        set_dropout_rate(model, 0.5)
        model.begin_update(make_inputs(model))
        module = module_of(model)
        assert module.bart.decoder.layers[0].dropout == expected
        assert module.pairs is not None and module.pairs.dropout.p == expected


@pytest.mark.parametrize("name", [*SIZES, "n_names", "max_symbols"])
def test_sizes_below_one(name: str) -> None:
    config = {
        "@architectures": "spacy_mtlner.Seq2Seq.v1",
        "tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": 8},
    }
    registry.resolve({"model": config})
    with pytest.raises(ValueError, match=rf"Seq2Seq.v1: {name} must be at least 1: 0"):
        registry.resolve({"model": config | {name: 0}})


def test_width_that_does_not_suit_the_heads() -> None:
    with pytest.raises(ValueError, match=r"width must be a multiple of n_heads \(2\): 9"):
        make_model(None, width=9)


# A pre-trained BART


def test_weights_are_those_of_the_folder(tmp_path: Path, tiny_bart: Any) -> None:
    folder = tiny_bart(tmp_path)
    expected = BartModel.from_pretrained(folder).state_dict()
    module = module_of(make_model(bart=folder))
    for name, weights in module.bart.state_dict().items():
        assert torch.equal(weights, expected[name])
    assert torch.equal(module.types.weight[0], expected["shared.weight"][2])  # </s>
    assert module.bart.shared.weight is module.bart.encoder.embed_tokens.weight


def test_other_models_are_refused(tmp_path: Path, tiny_bert: Any) -> None:
    with pytest.raises(ValueError, match="is no BART, but a BertConfig"):
        make_model(bart=tiny_bert(tmp_path))


def test_window_longer_than_the_positions(tmp_path: Path, tiny_bart: Any) -> None:
    folder = tiny_bart(tmp_path)
    with pytest.raises(ValueError, match="reads 62 pieces at once, fewer than a window"):
        make_model(bart=folder, window=63)
    make_model(bart=folder, window=62)


def test_pieces(tmp_path: Path, tiny_bart: Any) -> None:
    """Each token for itself, with the blank before it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bart(tmp_path))
    docs = [
        Doc(VOCAB, words=["pain", "in", "a", "pain"], spaces=[True, True, True, False]),
        Doc(VOCAB, words=[]),
        Doc(VOCAB, words=["in", "pain", "("], spaces=[True, False, True]),
    ]
    text = tokenizer.backend_tokenizer.to_str()
    ids, counts = encode_pieces(text, docs, [2, 2, 3], 62, 3)
    pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
    assert pieces == ["pain", "Ġ", "in", "Ġa", "Ġpain", "in", "Ġpain", "("]
    assert counts.tolist() == [1, 2, 1, 1, 1, 1, 1]
    whole = tokenizer("pain in a pain", add_special_tokens=False).input_ids
    assert whole == ids[:5].tolist()


def test_too_many_pieces(tmp_path: Path, tiny_bart: Any) -> None:
    """The longest tokens lose their last ones; other windows keep theirs."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bart(tmp_path))
    doc = Doc(VOCAB, words=["x" * 20, "y", "z" * 5, "x" * 20], spaces=[False] * 4)
    text = tokenizer.backend_tokenizer.to_str()
    ids, counts = encode_pieces(text, [doc], [3, 1], 12, 3)
    assert counts.tolist() == [6, 1, 5, 12]
    assert "".join(tokenizer.convert_ids_to_tokens(ids.tolist())) == (
        "x" * 6 + "y" + "zzzzz" + "x" * 12
    )
    _, counts = encode_pieces(text, [doc], [3, 1], 3, 3)
    assert counts.tolist() == [1, 1, 1, 3]
    ids, counts = encode_pieces(text, [], [], 3, 3)
    assert len(ids) == len(counts) == 0


def test_tokens_without_pieces_are_unknown(tmp_path: Path, tiny_bert: Any) -> None:
    """As white space is to a tokenizer that removes it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert(tmp_path))
    doc = Doc(VOCAB, words=["a", "\n", "b"], spaces=[False] * 3)
    ids, counts = encode_pieces(tokenizer.backend_tokenizer.to_str(), [doc], [3], 9, 1)
    assert counts.tolist() == [1, 1, 1]
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["a", "[UNK]", "b"]


def test_all_lengths_of_windows(settings: dict[str, Any]) -> None:
    model = make_model(**settings)
    generator = numpy.random.default_rng(0)
    docs = make_docs(*generator.integers(1, 16, 20))
    scores = model.predict(Seq2SeqInputs(docs, list(map(len, docs)), beam_width=1))
    assert len(scores.symbols) == 20
