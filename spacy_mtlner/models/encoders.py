"""Token encoders that are trained from scratch."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy
from numpy.typing import NDArray
from spacy.ml.staticvectors import StaticVectors
from spacy.tokens import Doc
from thinc.api import HashEmbed, Model, chain, concatenate, ragged2list, with_array
from thinc.types import Floats2d, Ints2d, Ragged

from spacy_mtlner.models.torch_layer import Rows, build, torch_layer, torch_to_rows
from spacy_mtlner.nn.transformer import TransformerEncoder

_MIX = numpy.uint64(0x9E3779B97F4A7C15)  # Odd, so that multiplying by it loses no bit.


def build_transformer_encoder_v1(
    embed: Model[list[Doc], list[Floats2d]],
    width: int = 128,
    depth: int = 2,
    n_heads: int = 4,
    hidden_width: int = 256,
    window: int = 64,
    dropout: float | None = None,
) -> Model[list[Doc], list[Floats2d]]:
    """Build the shared feature extractor of the MTL-NER paper (section II B, eq. 1-8): embeddings,
    sinusoidal positions and Transformer layers, whose attention reaches over a sliding window.

    embed (Model[list[Doc], list[Floats2d]]): Embeds the tokens, for example `MultiHashEmbed`.
    width (int): Size of the embeddings and of the encoder's vectors.
    depth (int): Number of layers.
    n_heads (int): Number of attention heads.
    hidden_width (int): Size of the feed-forward networks' hidden layer.
    window (int): Reach of the attention to either side, in tokens.
    dropout (Optional[float]): Dropout rate; None follows `training.dropout`.
    RETURNS (Model[list[Doc], list[Floats2d]]): The encoder, to be used inline or as the model of a
        `tok2vec` component.
    """
    builder = partial(
        _build_encoder, depth=depth, n_heads=n_heads, hidden_width=hidden_width, window=window
    )
    encode = torch_layer("transformer_encoder", builder, torch_to_rows, dropout=dropout)
    encode.set_dim("nI", width)
    encode.set_dim("nO", width)
    encode.init = _init_encoder
    model: Model[list[Doc], list[Floats2d]] = chain(embed, encode)
    model.set_dim("nO", width)
    model.set_ref("embed", embed)
    model.set_ref("encode", encode)
    return model


def _build_encoder(*, width: int, **settings: int) -> TransformerEncoder:
    return TransformerEncoder(width, **settings)


def _init_encoder(model: Model, X: Rows | None = None, Y: Any = None) -> None:
    width = model.get_dim("nI")
    for row in X or []:
        if len(row) and row.shape[1] != width:
            raise ValueError(
                f"spacy_mtlner.TransformerEncoder.v1 has width {width}, but its embed layer gives "
                f"vectors of size {row.shape[1]}. Set both to the same width."
            )
    build(model, width=width)


def build_character_embed_v1(
    width: int = 96,
    rows: int = 8000,
    bigram_width: int = 64,
    bigram_rows: int = 30000,
    include_static_vectors: bool = False,
) -> Model[list[Doc], list[Floats2d]]:
    """Build an embedding of characters and character bigrams, for text that spaCy tokenises into
    characters, as it does Chinese: each token's vector, and those of the two bigrams that it forms
    with its neighbours, are looked up in hash embeddings and concatenated.

    width (int): Size of the characters' vectors, and of the static ones if included.
    rows (int): Rows of their table.
    bigram_width (int): Size of the bigrams' vectors.
    bigram_rows (int): Rows of their tables.
    include_static_vectors (bool): Whether to add the vocab's static vectors, linearly mapped.
    RETURNS (Model[list[Doc], list[Floats2d]]): The layer, of width
        `width + 2 * bigram_width (+ width)`.
    RAISES (ValueError): If a size is below 1.
    """
    sizes = {"width": width, "rows": rows, "bigram_width": bigram_width, "bigram_rows": bigram_rows}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"spacy_mtlner.CharacterEmbed.v1: {name} must be at least 1: {size}.")
    tables: Model[Any, Any] = concatenate(
        HashEmbed(width, rows, column=0, seed=11, dropout=0.0),
        HashEmbed(bigram_width, bigram_rows, column=1, seed=12, dropout=0.0),
        HashEmbed(bigram_width, bigram_rows, column=2, seed=13, dropout=0.0),
    )
    keys: Model[list[Doc], Ragged] = Model("character_keys", _character_keys)
    features: Model[list[Doc], Ragged] = chain(keys, with_array(tables))
    size = width + 2 * bigram_width
    if include_static_vectors:
        features = concatenate(features, StaticVectors(width))
        size += width
    model: Model[list[Doc], list[Floats2d]] = chain(features, ragged2list())
    model.set_dim("nO", size)
    return model


def _character_keys(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[Ragged, Callable[[Ragged], list[Doc]]]:
    """Keys of each token, of the bigram that ends with it and of the one that begins with it:
    shape (n_tokens, 3), uint64. A bigram across the doc's border has the missing token's key 0.
    """
    lengths = [len(doc) for doc in docs]
    # One key of value 0 between the docs: (n_tokens + n_docs + 1,).
    border = numpy.zeros(1, dtype=numpy.uint64)
    padded: NDArray[numpy.uint64] = numpy.concatenate(
        [border, *(part for doc in docs for part in (doc.to_array("ORTH"), border))]
    )
    bigrams = padded[:-1] * _MIX + padded[1:]
    borders = numpy.cumsum([0] + [length + 1 for length in lengths])
    is_token = numpy.ones(len(padded), dtype=bool)
    is_token[borders] = False
    tokens = numpy.flatnonzero(is_token)
    keys = numpy.stack([padded[tokens], bigrams[tokens - 1], bigrams[tokens]], axis=1)
    data = model.ops.asarray2i(cast(Ints2d, keys), dtype="uint64")
    return Ragged(data, model.ops.asarray1i(lengths)), lambda d_output: []
