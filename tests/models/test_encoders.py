"""Encoders that are trained from scratch."""

import numpy
import pytest
import spacy
import torch
from spacy import registry
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Model

from spacy_mtlner.models.encoders import (
    _character_keys,
    build_character_embed_v1,
    build_transformer_encoder_v1,
)
from spacy_mtlner.models.torch_layer import get_module_shim

CONFIG = {
    "@architectures": "spacy_mtlner.TransformerEncoder.v1",
    "embed": {
        "@architectures": "spacy_mtlner.CharacterEmbed.v1",
        "width": 8,
        "rows": 100,
        "bigram_width": 4,
        "bigram_rows": 100,
    },
    "width": 16,
    "depth": 1,
    "n_heads": 2,
    "hidden_width": 16,
    "window": 3,
}


def make_docs(*texts: str, vocab: Vocab | None = None) -> list[Doc]:
    vocab = Vocab() if vocab is None else vocab
    return [Doc(vocab, words=[*text], spaces=[False] * len(text)) for text in texts]


def make_keys(*texts: str) -> numpy.ndarray:
    docs = make_docs(*texts)
    output, backprop = Model("keys", _character_keys).begin_update(docs)
    assert output.lengths.tolist() == [len(text) for text in texts]
    assert len(output.data) == sum(map(len, texts))
    assert output.data.dtype == numpy.uint64
    assert backprop(output) == []
    return output.data


def test_character_keys():
    token, ends, begins = make_keys("abab", "bab", "", "b").T.tolist()
    #                               0123    456        7
    assert token[0] == token[2] == token[5] != token[1]
    assert token[1] == token[3] == token[4] == token[6] == token[7]
    assert ends[1] == ends[3] == ends[6] == begins[0] == begins[2] == begins[5]  # ab
    assert ends[2] == ends[5] == begins[1] == begins[4]  # ba
    assert ends[4] == ends[7] != ends[1]  # Begins its doc, whatever stands before it.
    assert begins[3] == begins[6] == begins[7] != begins[1]  # Ends its doc.
    assert len({token[0], token[1], ends[1], ends[2], begins[7]}) == 5  # All of these differ.
    assert make_keys("abab").tolist() == make_keys("", "abab").tolist()
    assert len(make_keys()) == len(make_keys("")) == 0


def test_character_keys_differ():
    text = "我在北京大学读书我爱大京北"
    token, ends, begins = make_keys(text).T.tolist()
    assert len(set(token)) == len({*text})
    assert len(set(begins[:-1])) == len({text[i : i + 2] for i in range(len(text) - 1)})
    assert ends[1:] == begins[:-1]


@pytest.mark.parametrize("include_static_vectors", [False, True])
def test_character_embed(include_static_vectors):
    vocab = Vocab()
    vocab.set_vector("a", numpy.ones(5, dtype="f"))
    vocab.set_vector("b", -numpy.ones(5, dtype="f"))
    docs = make_docs("abca", "", "ca", vocab=vocab)
    model = build_character_embed_v1(6, 50, 4, 50, include_static_vectors)
    model.initialize(X=docs)
    width = 20 if include_static_vectors else 14
    assert model.get_dim("nO") == width
    y, backprop = model.begin_update(docs)
    assert [row.shape for row in y] == [(4, width), (0, width), (2, width)]
    assert abs(y[0][0, :6]).any()
    numpy.testing.assert_array_equal(y[0][2:, :10], numpy.stack([y[0][2, :10], y[2][1, :10]]))
    numpy.testing.assert_array_equal(y[0][3, :6], y[0][0, :6])
    assert (y[0][3, 6:10] != y[0][0, 6:10]).any()
    if include_static_vectors:
        numpy.testing.assert_allclose(y[0][0, 14:], -y[0][1, 14:])
    backprop(y)


def make_pipeline() -> tuple[spacy.Language, list[Example]]:
    nlp = spacy.blank("zh")
    nlp.add_pipe("tok2vec", config={"model": CONFIG})
    examples = [Example(doc, doc) for doc in map(nlp.make_doc, ("我爱北京", "", "学"))]
    nlp.initialize(lambda: examples)
    return nlp, examples


def test_transformer_encoder_in_tok2vec(tmp_path):
    nlp, examples = make_pipeline()
    pipe = nlp.get_pipe("tok2vec")
    assert pipe.model.get_dim("nO") == 16
    docs = [nlp(text) for text in ("我爱北京大学", "", " ", "学")]
    assert [doc.tensor.shape for doc in docs] == [(6, 16), (0, 16), (1, 16), (1, 16)]
    together = pipe.predict(docs)
    for doc, tensor in zip(docs, together, strict=True):
        numpy.testing.assert_allclose(doc.tensor, tensor, atol=1e-6)
    nlp.to_disk(tmp_path / "nlp")
    loaded = spacy.load(tmp_path / "nlp")
    numpy.testing.assert_array_equal(loaded("我爱北京大学").tensor, docs[0].tensor)
    # A batch without any token is ordinary input for a tok2vec component.
    for batch in (examples, examples[1:2]):
        pipe.update(batch)
    vectors, backprop = pipe.model.begin_update(docs)
    assert [row.shape for row in vectors] == [doc.tensor.shape for doc in docs]
    backprop(vectors)
    before = [row.copy() for row in pipe.predict(docs)]
    pipe.finish_update(nlp.create_optimizer())
    embed = pipe.model.get_ref("embed")
    assert abs(pipe.predict(docs)[0] - before[0]).max() > 0
    assert abs(embed.predict(docs[:1])[0]).any()


def test_same_seed_same_weights():
    vectors = []
    for _ in range(2):
        spacy.util.fix_random_seed(3)
        vectors.append(make_pipeline()[0]("我爱").tensor)
    numpy.testing.assert_array_equal(*vectors)


def test_gradient_reaches_the_embedding():
    torch.manual_seed(0)
    embed = build_character_embed_v1(8, 100, 4, 100)
    model = build_transformer_encoder_v1(embed, width=16, depth=1, n_heads=2, hidden_width=8)
    docs = make_docs("abc", "", "d")
    model.initialize(X=docs)
    vectors, backprop = model.begin_update(docs)
    backprop([numpy.ones_like(row) * numpy.arange(16, dtype="f") for row in vectors])
    tables = [node for node in embed.walk() if node.name.startswith("hashembed")]
    assert len(tables) == 3
    for table in tables:
        inner = next(node for node in table.walk() if node.has_grad("E"))
        assert abs(inner.get_grad("E")).max() > 0


def test_widths_must_match():
    embed = build_character_embed_v1(8, 100, 4, 100)
    model = build_transformer_encoder_v1(embed, width=32, n_heads=2)
    message = "has width 32, but its embed layer gives vectors of size 16"
    with pytest.raises(ValueError, match=message):
        model.initialize(X=make_docs("", "ab"))


def test_shared_encoder_follows_the_dropout_of_the_training():
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": 16,
        "attrs": ["NORM"],
        "rows": [50],
        "include_static_vectors": False,
    }
    for own, drop, expected in ((None, 0.0, 0.0), (None, 0.3, 0.3), (0.2, 0.6, 0.2)):
        nlp = spacy.blank("en")
        model = {
            "@architectures": "spacy_mtlner.TransformerEncoder.v1",
            "width": 16,
            "dropout": own,
            "embed": embed,
        }
        tok2vec = nlp.add_pipe("tok2vec", config={"model": model})
        doc = nlp.make_doc("some words to encode")
        nlp.initialize()
        tok2vec.update([Example(doc, doc)], drop=drop)
        module = get_module_shim(tok2vec.model.get_ref("encode")).module
        rates = {m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)}
        assert rates == {expected}


@pytest.mark.parametrize("name", ["width", "rows", "bigram_width", "bigram_rows"])
def test_sizes_of_the_character_embedding(name):
    with pytest.raises(ValueError, match=f"CharacterEmbed.v1: {name} must be at least 1: 0"):
        registry.resolve({"model": {"@architectures": "spacy_mtlner.CharacterEmbed.v1", name: 0}})
