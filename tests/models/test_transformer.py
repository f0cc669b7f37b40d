import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import srsly
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy_transformers.architectures import create_TransformerModel_v3
from spacy_transformers.data_classes import FullTransformerBatch
from spacy_transformers.span_getters import configure_strided_spans
from thinc.api import Model, set_dropout_rate
from thinc.layers import reduce_mean
from transformers import AutoTokenizer, GPT2Config, GPT2Model, XLNetConfig, XLNetModel

from spacy_mtlner.models import pieces, transformer
from spacy_mtlner.models.pieces import make_safe_spans
from spacy_mtlner.models.transformer import (
    EncoderModel,
    build_tok2vec_transformer_v1,
    build_transformer_model_v1,
)
from spacy_mtlner.nn.quantise import Int8Linear
from tests.encoder_pipeline import GOLD, TEXTS, find_names, list_scores, train_over_encoder
from tests.tiny_encoders import KINDS, make_tiny_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder("bert", tmp_path_factory.mktemp("bert"), TEXTS)


@pytest.fixture
def make_docs() -> Callable[[], list[Doc]]:
    nlp = spacy.blank("en")
    return lambda: [nlp(text) for text in TEXTS]


def make_model(folder: Path, get_spans: Any = None, **settings: Any) -> EncoderModel:
    model: Any = build_transformer_model_v1(str(folder), get_spans or make_safe_spans(), **settings)
    model.initialize()
    return model


def vectors(batch: FullTransformerBatch) -> list[Any]:
    """One vector a token: the mean of its pieces."""
    rows = []
    for data in batch.doc_data:
        if len(data.align.lengths) == 0:
            rows.append(numpy.zeros((0, 0)))
            continue
        hidden = data.model_output.last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1])
        parts = numpy.split(hidden[data.align.dataXd], numpy.cumsum(data.align.lengths)[:-1])
        rows.append(numpy.stack([part.mean(axis=0) for part in parts]))
    return rows


@pytest.fixture(scope="module")
def trained(folder: Path) -> Language:
    return train_over_encoder(folder)


def test_output_and_gradients_are_the_stock_models(
    folder: Path, make_docs: Callable[[], list[Doc]]
) -> None:
    """As no token is without pieces and no window too long, nothing differs."""
    get_spans = configure_strided_spans(window=8, stride=6)
    ours = make_model(folder, get_spans)
    stock: Any = create_TransformerModel_v3(str(folder), get_spans)
    stock.initialize()
    docs = make_docs()
    for expected, row in zip(
        vectors(stock.predict(docs)), vectors(ours.predict(docs)), strict=True
    ):
        numpy.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)

    gradients = []
    for model in (stock, ours):
        torch.manual_seed(0)
        set_dropout_rate(model, 0.0)
        batch, backprop = model.begin_update(docs)
        d_tensors = [[numpy.ones_like(data.tensors[0])] for data in batch.doc_data]
        backprop(batch.unsplit_by_doc(d_tensors))
        gradients.append(
            {
                n: p.grad.clone()
                for n, p in model.transformer.named_parameters()
                if p.grad is not None
            }
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_of_odd_text_has_a_vector(kind: str, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    texts = [
        *TEXTS,
        "a\r\n\r\nb \N{ZERO WIDTH SPACE}\N{ZERO WIDTH SPACE} c",
        "\n \t",
        "Ｆｕｌｌ　\N{GRINNING FACE}\N{GRINNING FACE}",
        "x" * 50,
        "",
        "word " * 300,
    ]
    model = make_model(make_tiny_encoder(kind, tmp_path, TEXTS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = vectors(model.predict([nlp(text) for text in texts]))
    for text, row in zip(texts, rows, strict=True):
        assert len(row) == len(nlp(text))
        assert numpy.isfinite(row).all()
        assert (numpy.abs(row).sum(axis=1) > 0).all()
    loaded: Any = build_transformer_model_v1("nowhere", make_safe_spans())
    loaded.from_bytes(model.to_bytes())
    for row, other in zip(
        vectors(loaded.predict([nlp(text) for text in texts])), rows, strict=True
    ):
        numpy.testing.assert_array_equal(row, other)


def test_prediction_in_chunks_changes_nothing(
    folder: Path, make_docs: Callable[[], list[Doc]]
) -> None:
    settings = {"get_spans": make_safe_spans(window=8, overlap=3)}
    config = {"transformer_config": {"output_hidden_states": True}}
    whole = make_model(folder, **settings, **config).predict(make_docs())
    parts = make_model(folder, **settings, **config, chunk=1).predict(make_docs())
    assert whole.wordpieces.input_ids.shape[0] > 4
    for key, value in whole.model_output.items():
        torch.testing.assert_close(parts.model_output[key], value)
    assert len(whole.model_output["hidden_states"]) == 3


def test_tokens_of_windows_that_are_too_long_are_counted(folder: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["a"] * 100)
    model = make_model(folder, configure_strided_spans(window=100, stride=100))
    with pytest.warns(UserWarning, match="37 tokens in a batch of 1 docs lost word pieces"):
        (row,) = vectors(model.predict([doc]))
    numpy.testing.assert_allclose(row[63:], row[[62] * 37])


def test_token_of_too_many_pieces_is_cut_and_counted(folder: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["b", "a" * 90, "c"])
    model = make_model(folder)
    with pytest.warns(UserWarning, match="1 tokens in a batch of 1 docs lost word pieces"):
        (row,) = vectors(model.predict([doc]))
    assert (numpy.abs(row).sum(axis=1) > 0).all()


def test_windows_that_turn_out_too_long_are_cut_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a tokenizer whose pieces are not the same without the text before them."""
    monkeypatch.setattr(pieces, "count_pieces", lambda doc, tokenizer: numpy.ones(len(doc)))
    vocab = spacy.blank("en").vocab
    model = make_model(folder)
    grown, other = Doc(vocab, words=["abcde"] * 60), Doc(vocab, words=["a"] * 200)
    (expected,) = model.predict([other]).spans
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = model.predict([other, grown])
    assert [(s.start, s.end) for s in batch.spans[0]] == [(s.start, s.end) for s in expected]
    assert max(len(span) for span in batch.spans[1]) < 60
    assert batch.wordpieces.input_ids.shape[1] <= model.tokenizer.model_max_length


def test_windows_of_a_doc_do_not_depend_on_the_others(tmp_path: Path) -> None:
    """Of characters that are fewer bytes when they are decomposed, too."""
    nlp = spacy.blank("en")
    model = make_model(make_tiny_encoder("roberta", tmp_path, TEXTS))
    odd = Doc(nlp.vocab, words=["\N{MATHEMATICAL BOLD CAPITAL A}bcd" * 4] * 10)
    other = nlp("word and another one " * 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = vectors(model.predict([odd, other]))
        alone = [vectors(model.predict([doc]))[0] for doc in (odd, other)]
    for row, expected in zip(together, alone, strict=True):
        numpy.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_empty_docs(folder: Path, make_docs: Callable[[], list[Doc]]) -> None:
    nlp = spacy.blank("en")
    model = make_model(folder)
    assert [len(row) for row in vectors(model.predict([nlp(""), nlp("")]))] == [0, 0]
    alone = vectors(model.predict([nlp(TEXTS[0])]))[0]
    mixed = vectors(model.predict([nlp(""), nlp(TEXTS[0]), nlp("")]))
    assert [len(row) for row in mixed] == [0, 6, 0]
    numpy.testing.assert_allclose(mixed[1], alone, rtol=1e-5, atol=1e-6)


def test_encoder_learns_with_its_head(trained: Language, folder: Path) -> None:
    fresh = make_model(folder).transformer.state_dict()
    learned = trained.get_pipe("transformer").model.transformer.state_dict()  # type: ignore[attr-defined]
    changed = [name for name in fresh if not torch.equal(fresh[name], learned[name])]
    assert any("layer.0.attention" in name for name in changed)


def test_saved_pipeline_needs_no_folder(trained: Language, folder: Path, tmp_path: Path) -> None:
    hidden = folder.with_name("hidden")
    trained.to_disk(tmp_path)
    shutil.move(folder, hidden)
    try:
        nlp = spacy.load(tmp_path)
    finally:
        shutil.move(hidden, folder)
    assert list_scores(nlp) == pytest.approx(list_scores(trained))
    assert [find_names(doc) for doc in nlp.pipe(TEXTS)] == [sorted(gold) for gold in GOLD]
    encoder: Any = nlp.get_pipe("transformer").model.transformer  # type: ignore[attr-defined]
    assert encoder.config.layer_norm_eps == encoder.embeddings.LayerNorm.eps == 1e-12


def test_replaced_listener_is_saved_and_loads(trained: Language, tmp_path: Path) -> None:
    expected = list_scores(trained)
    trained.to_disk(tmp_path / "shared")
    nlp = spacy.load(tmp_path / "shared")
    nlp.replace_listeners("transformer", "crf_ner", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    assert list_scores(nlp) == pytest.approx(expected)
    nlp.to_disk(tmp_path / "alone")
    again = spacy.load(tmp_path / "alone")
    layer = again.config["components"]["crf_ner"]["model"]["tok2vec"]
    assert layer["@architectures"] == "spacy_mtlner.Tok2VecTransformer.v1"
    assert list_scores(again) == pytest.approx(expected)


def test_inline_encoder_gives_its_gradient_factor(
    folder: Path, make_docs: Callable[[], list[Doc]]
) -> None:
    sums = []
    for factor in (1.0, 0.5, 0.0):
        pooling: Any = reduce_mean()
        model: Model[list[Doc], Any] = build_tok2vec_transformer_v1(
            str(folder), make_safe_spans(), pooling, grad_factor=factor
        )
        docs = make_docs()
        model.initialize(X=docs)
        (encoder,) = (node for node in model.walk() if isinstance(node, EncoderModel))
        torch.manual_seed(0)
        rows, backprop = model.begin_update(docs)
        assert [len(row) for row in rows] == [len(doc) for doc in docs]
        backprop([numpy.ones_like(row) for row in rows])
        grads = [p.grad for p in encoder.transformer.parameters() if p.grad is not None]
        sums.append(sum(float(grad.abs().sum()) for grad in grads))
    assert sums[0] > 0
    assert sums[1] == pytest.approx(sums[0] / 2, rel=1e-4)
    assert sums[2] == 0


def test_bfloat16_predicts_and_learns_like_float32(
    folder: Path, make_docs: Callable[[], list[Doc]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A CPU without it computes the same, slowly.
    monkeypatch.setattr(transformer, "can_halve", lambda device: True)
    whole, half = make_model(folder), make_model(folder, precision="bfloat16")
    docs = make_docs()
    for expected, row in zip(
        vectors(whole.predict(docs)), vectors(half.predict(docs)), strict=True
    ):
        assert row.dtype == numpy.float32
        assert 0 < numpy.abs(row - expected).max() < 0.1
    batch, backprop = half.begin_update(docs)
    assert batch.model_output["last_hidden_state"].dtype == torch.float32
    backprop(batch.unsplit_by_doc([[numpy.ones_like(d.tensors[0])] for d in batch.doc_data]))
    grads = [p.grad for p in half.transformer.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_bfloat16_on_a_cpu_without_it_is_float32(
    folder: Path, make_docs: Callable[[], list[Doc]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "can_halve", lambda device: False)
    docs = make_docs()
    expected = vectors(make_model(folder).predict(docs))
    with pytest.warns(UserWarning, match="runs in float32"):
        rows = vectors(make_model(folder, precision="bfloat16").predict(docs))
    for row, other in zip(rows, expected, strict=True):
        numpy.testing.assert_array_equal(row, other)


@pytest.mark.parametrize(
    ("machine", "has_tiles", "has_products", "expected"),
    [
        ("x86_64", True, True, True),
        ("AMD64", False, True, False),
        ("x86_64", True, False, False),
        ("aarch64", False, True, True),
        ("aarch64", False, False, False),
    ],
)
def test_where_bfloat16_is_faster(
    machine: str,
    has_tiles: bool,
    has_products: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_products)
    assert transformer.can_halve("cpu") is expected
    assert not transformer.can_halve("meta")


@pytest.fixture
def quantised(trained: Language, tmp_path: Path) -> Iterator[Language]:
    trained.to_disk(tmp_path / "floats")
    yield spacy.load(tmp_path / "floats", config={"components.transformer.model.precision": "int8"})


def test_saved_pipeline_loads_as_int8(
    trained: Language, quantised: Language, tmp_path: Path
) -> None:
    encoder: Any = quantised.get_pipe("transformer").model.transformer  # type: ignore[attr-defined]
    kinds = {type(layer) for layer in encoder.modules()}
    assert Int8Linear in kinds
    assert torch.nn.Linear not in kinds
    assert [find_names(doc) for doc in quantised.pipe(TEXTS)] == [sorted(gold) for gold in GOLD]
    assert list_scores(quantised) == pytest.approx(list_scores(trained), abs=0.1)
    assert list_scores(quantised) != list_scores(trained)

    quantised.to_disk(tmp_path / "int8")
    again = spacy.load(tmp_path / "int8")
    assert list_scores(again) == pytest.approx(list_scores(quantised))
    sizes = [
        (tmp_path / kind / "transformer" / "model").stat().st_size for kind in ("int8", "floats")
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_int8_copy_loads_at_another_precision(
    trained: Language, quantised: Language, tmp_path: Path, precision: str
) -> None:
    quantised.to_disk(tmp_path / "int8")
    name = "components.transformer.model.precision"
    again = spacy.load(tmp_path / "int8", config={name: precision})
    assert list_scores(again) == pytest.approx(list_scores(trained), abs=0.1)
    encoder: Any = again.get_pipe("transformer").model.transformer  # type: ignore[attr-defined]
    assert not any(isinstance(layer, Int8Linear) for layer in encoder.modules())


def test_int8_encoder_does_not_learn(
    folder: Path, quantised: Language, make_docs: Callable[[], list[Doc]]
) -> None:
    for model in (
        make_model(folder, precision="int8"),
        quantised.get_pipe("transformer").model,  # type: ignore[attr-defined]
    ):
        with pytest.raises(ValueError, match="precision = 'int8' cannot learn"):
            model.begin_update(make_docs())


def test_threads_predict_alike(trained: Language) -> None:
    texts = [*TEXTS, " ".join(TEXTS * 5), "a " * 100]

    def run(nlp: Language) -> list[float]:
        return [x for doc in nlp.pipe(texts) for x in doc.spans["mtlner"].attrs["scores"]]

    expected = run(trained)
    for _ in range(5):  # The first use of a loaded tokenizer is special.
        nlp = pickle.loads(pickle.dumps(trained))
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _, nlp=nlp: run(nlp), range(4)))
        assert all(result == pytest.approx(expected) for result in results)
    assert not trained.get_pipe("transformer").model.transformer.training  # type: ignore[attr-defined]


def test_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere' cannot be loaded: give a folder"):
        make_model(tmp_path / "nowhere")


def test_encoder_that_is_not_initialised(folder: Path) -> None:
    model = build_transformer_model_v1(str(folder), make_safe_spans())
    with pytest.raises(ValueError, match="initialise the pipeline or load it"):
        model.predict([spacy.blank("en")("a")])


def test_tokenizer_without_padding(tmp_path: Path) -> None:
    folder = make_tiny_encoder("bert", tmp_path, TEXTS)
    settings = srsly.read_json(folder / "tokenizer_config.json")
    del settings["pad_token"]
    srsly.write_json(folder / "tokenizer_config.json", settings)
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(ValueError, match="has no token for padding: name one"):
        make_model(folder, tokenizer_config={"use_fast": True, "pad_token": None})
    model = make_model(folder, tokenizer_config={"use_fast": True, "pad_token": "[SEP]"})
    docs = [spacy.blank("en")(text) for text in TEXTS]
    assert [len(row) for row in vectors(model.predict(docs))] == [len(doc) for doc in docs]


def test_decoder_keeps_no_cache(tmp_path: Path) -> None:
    folder = make_tiny_encoder("bert", tmp_path, TEXTS)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    GPT2Model(config).save_pretrained(folder)
    model = make_model(folder)
    batch = model.predict([spacy.blank("en")(text) for text in TEXTS])
    assert list(batch.model_output) == ["last_hidden_state"]


def test_encoder_with_decoder_is_refused(tiny_bart: Callable[[Path], str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is an encoder with a decoder"):
        make_model(Path(tiny_bart(tmp_path)))


def test_encoder_that_remembers_the_text_so_far(
    folder: Path, make_docs: Callable[[], list[Doc]], tmp_path: Path
) -> None:
    """XLNet returns its memory beside the vectors, of another shape."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = XLNetConfig(vocab_size=len(tokenizer), d_model=16, n_layer=2, n_head=2, d_inner=32)
    XLNetModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = {"get_spans": make_safe_spans(window=8, overlap=3)}
    expected = vectors(make_model(tmp_path, **settings).predict(make_docs()))
    rows = vectors(make_model(tmp_path, **settings, chunk=20).predict(make_docs()))
    for row, other in zip(rows, expected, strict=True):
        numpy.testing.assert_allclose(row, other, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "precision must be float32, bfloat16 or int8"),
        ({"chunk": 0}, "chunk must be at least 1 word piece"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_transformer_model_v1("bert", make_safe_spans(), **settings)


def test_copy_has_an_encoder_of_its_own(folder: Path, make_docs: Callable[[], list[Doc]]) -> None:
    model = make_model(folder, chunk=7)
    copied = model.copy()
    assert copied.shim.chunk == 7 and copied.shim.id != model.shim.id
    expected = vectors(model.predict(make_docs()))
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.zero_()
    for row, other in zip(vectors(copied.predict(make_docs())), expected, strict=True):
        numpy.testing.assert_array_equal(row, other)
