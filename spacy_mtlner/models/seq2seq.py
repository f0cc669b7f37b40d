"""The architecture of `seq2seq_ner`: tok2vec and a small BART, or a pre-trained BART of its own
vocabulary, with relations of token pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy
import torch
from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model, torch2xp, xp2torch
from thinc.types import Floats2d
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, BartConfig, BartModel

from spacy_mtlner.codecs.tags import IntArray, ranges
from spacy_mtlner.models.torch_layer import (
    Rows,
    build,
    detach_scores,
    flatten_rows,
    get_module_shim,
    initialize_tok2vec,
    resize_output,
    run_layer,
    set_module_dropout,
    split_rows,
    torch_layer,
)
from spacy_mtlner.nn.seq2seq import (
    FREE_SYMBOLS,
    Names,
    Pieces,
    Seq2Seq,
    Seq2SeqBatch,
    Seq2SeqScores,
)

BART_PREFIX = "bart."  # Of the names of BART's weights.
N_ENDS = 2  # Pieces that BART has before and behind the text's.


def _ignore(d_rows: Rows) -> None:
    """The gradient of names that are not learned."""


class KnownNames(NamedTuple):
    """Known entities of the types.

    docs (list[Doc]): The name of each one.
    types (list[int]): Its type.
    weights (list[float]): Its weight theta (eq. 8).
    rows (Rows): The vectors of its tokens; none with a BART of its own vocabulary.
    backprop (Callable[[Rows], None]): Takes the gradient of these vectors to the encoder.
    """

    docs: list[Doc]
    types: list[int]
    weights: list[float]
    rows: Rows
    backprop: Callable[[Rows], None] = _ignore


class Seq2SeqInputs(NamedTuple):
    """Docs, and what is to be done with them.

    docs (list[Doc]): The docs.
    windows (list[int]): The windows' numbers of tokens, at least 1.
    names (Optional[KnownNames]): Known entities, for type attention.
    symbols (Optional[IntArray]): The windows' gold sequences, shape (n_windows, n_steps).
    with_cells (bool): Whether the relations of token pairs are wanted.
    beam_width (int): Hypotheses per window if sequences are to be generated, else 0.
    tokens (Optional[IntArray]): In prediction, the windows' tokens among those of all docs, one
        window after the other, shape (sum of the windows' numbers,); None if the windows, one
        after the other, hold all tokens once.
    rows (Optional[Rows]): In prediction, the docs' vectors where they are at hand already.
    """

    docs: list[Doc]
    windows: list[int]
    names: KnownNames | None = None
    symbols: IntArray | None = None
    with_cells: bool = False
    beam_width: int = 0
    tokens: IntArray | None = None
    rows: Rows | None = None


Seq2SeqModel = Model[Seq2SeqInputs, Seq2SeqScores]


def build_seq2seq_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    bart: str | None = None,
    width: int = 128,
    encoder_depth: int = 2,
    decoder_depth: int = 2,
    n_heads: int = 4,
    hidden_width: int = 256,
    relations: bool = True,
    relation_width: int = 64,
    relation_attention: bool = True,
    type_attention: bool = True,
    type_width: int = 64,
    n_names: int = 32,
    window: int = 128,
    max_symbols: float = 4.0,
    dropout: float | None = None,
) -> Seq2SeqModel:
    """Build an encoder-decoder that points at tokens and types: a small BART over any tok2vec
    layer, trained from scratch, or a pre-trained one in its place.

    tok2vec (Model[list[Doc], list[Floats2d]]): One vector per token; not used with `bart`.
    bart (Optional[str]): Folder or hub name of a pre-trained BART, which is read at initialisation
        alone; None for a small one of the following sizes.
    width (int): Size of the vectors.
    encoder_depth (int): Number of the encoder's layers.
    decoder_depth (int): Number of the decoder's layers.
    n_heads (int): Number of attention heads.
    hidden_width (int): Size of the feed-forward networks' hidden layer.
    relations (bool): Whether the relations of token pairs are predicted, as a second task.
    relation_width (int): Size of the pairs' vectors.
    relation_attention (bool): Whether the decoder attends to the tokens' relations.
    type_attention (bool): Whether encoder and decoder attend to the types, as known entities tell
        them.
    type_width (int): Size between the two layers that known entities' vectors pass.
    n_names (int): Known entities per type, the most frequent ones.
    window (int): The longest text that is read at once, in tokens.
    max_symbols (float): Symbols that are generated per token, at most.
    dropout (Optional[float]): Dropout rate; None follows `training.dropout`.
    RETURNS (Seq2SeqModel): The model; dimension nO is the number of types.
    RAISES (ValueError): If a size is below 1, or the width does not suit the heads.
    """
    sizes = {
        "width": width,
        "encoder_depth": encoder_depth,
        "decoder_depth": decoder_depth,
        "n_heads": n_heads,
        "hidden_width": hidden_width,
        "relation_width": relation_width,
        "type_width": type_width,
        "n_names": n_names,
        "window": window,
        "max_symbols": max_symbols,
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"spacy_mtlner.Seq2Seq.v1: {name} must be at least 1: {size}.")
    if bart is None and width % n_heads:
        raise ValueError(
            f"spacy_mtlner.Seq2Seq.v1: width must be a multiple of n_heads ({n_heads}): {width}."
        )
    config = None
    if bart is None:
        n_positions = 1 + FREE_SYMBOLS + int(max_symbols * window)
        config = {
            "vocab_size": 4,  # Not used: BART reads vectors.
            "d_model": width,
            "encoder_layers": encoder_depth,
            "decoder_layers": decoder_depth,
            "encoder_attention_heads": n_heads,
            "decoder_attention_heads": n_heads,
            "encoder_ffn_dim": hidden_width,
            "decoder_ffn_dim": hidden_width,
            "max_position_embeddings": n_positions,
            "init_std": 0.05,
        }
    builder = partial(
        _build_module,
        has_relations=relations,
        relation_width=relation_width,
        relation_attention=relation_attention,
        type_attention=type_attention,
        type_width=type_width,
        max_symbols=max_symbols,
    )
    tagger = torch_layer(
        "seq2seq", builder, detach_scores, dropout=dropout, convert_inputs=_to_batch
    )
    tagger.attrs["tokenizer"] = None
    encoder = tok2vec if bart is None else Model("no_tok2vec", _forward_nothing)
    model: Seq2SeqModel = Model(
        "pointing_seq2seq",
        _forward,
        init=_init,
        dims={"nO": None},
        layers=[encoder, tagger],
        refs={"tok2vec": encoder, "output_layer": tagger},
        attrs={
            "bart": bart,
            "config": config,
            "relations": relations,
            "type_attention": type_attention,
            "n_names": n_names,
            "window": window,
            "max_symbols": max_symbols,
            "max_steps": config["max_position_embeddings"] if config else 0,
            "resize_output": partial(resize_output, make_settings=_settings),
        },
    )
    return model


def _build_module(*, nI: int, nO: int, config: dict[str, Any], **settings: Any) -> Seq2Seq:
    return Seq2Seq(nI, nO, bart=config, is_pretrained=nI == 0, **settings)


def _forward_nothing(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[Rows, Callable[[Rows], list[Doc]]]:
    """A BART of its own vocabulary reads the docs themselves."""
    return [], lambda d_rows: []


def _forward(
    model: Seq2SeqModel, inputs: Seq2SeqInputs, is_train: bool
) -> tuple[Seq2SeqScores, Callable[[Seq2SeqScores], list[Doc]]]:
    tok2vec, tagger = model.layers  # Not the references, which a copy of the model lacks.
    if inputs.rows is None:
        rows, backprop_rows = run_layer(tok2vec, inputs.docs, is_train)
    else:
        rows = inputs.rows
    scores, backprop_scores = tagger((rows, inputs), is_train)

    def backprop(d_scores: Seq2SeqScores) -> list[Doc]:
        d_rows, d_names = backprop_scores(d_scores)
        if inputs.names is not None:
            inputs.names.backprop(d_names)
        return cast(list[Doc], backprop_rows(d_rows))

    return scores, backprop


def split_windows(
    model: Seq2SeqModel, inputs: Seq2SeqInputs, n_tokens: int
) -> Iterator[Seq2SeqInputs]:
    """Split an input for prediction, so that the memory of what the model says of windows does not
    grow with a doc's length. The tok2vec layer runs once, over whole docs.

    model (Seq2SeqModel): The model.
    inputs (Seq2SeqInputs): The input.
    n_tokens (int): About how many tokens a part's windows have.
    YIELDS (Seq2SeqInputs): The parts.
    """
    ends = numpy.cumsum(inputs.windows)
    if ends[-1] <= 2 * n_tokens:
        yield inputs
        return
    tok2vec, tagger = model.layers
    rows = tok2vec.predict(inputs.docs)
    if len(rows) > 1:
        rows = [flatten_rows(tagger, rows, tagger.get_dim("nI"))]
    tokens = numpy.arange(ends[-1]) if inputs.tokens is None else inputs.tokens
    borders = numpy.flatnonzero(numpy.diff((ends - 1) // n_tokens)) + 1
    for first, last in pairwise([0, *borders.tolist(), len(ends)]):
        start = ends[first - 1] if first else 0
        yield inputs._replace(
            windows=inputs.windows[first:last], tokens=tokens[start : ends[last - 1]], rows=rows
        )


def _init(model: Model, X: Seq2SeqInputs | None = None, Y: Any = None) -> None:
    """Initialise the tok2vec layer, whose width is known only then, and build BART on it; or read a
    pre-trained one and its tokenizer.
    """
    tagger = model.get_ref("output_layer")
    tagger.set_dim("nO", model.get_dim("nO"))
    name = model.attrs["bart"]
    if name is None:
        initialize_tok2vec(model, X.docs if X is not None else None)
        build(tagger, **_settings(model))
        return
    bart, tokenizer = _read_bart(name)
    model.attrs["config"] = bart.config.to_diff_dict()
    model.attrs["max_steps"] = bart.config.max_position_embeddings
    n_positions = bart.config.max_position_embeddings
    if model.attrs["window"] > n_positions - N_ENDS:
        raise ValueError(
            f"spacy_mtlner.Seq2Seq.v1: {name} reads {n_positions - N_ENDS} pieces at once, fewer "
            f"than a window has tokens: set window to that or less."
        )
    tagger.set_dim("nI", 0)
    tagger.attrs["tokenizer"] = tokenizer.backend_tokenizer.to_str()
    tagger.attrs["unknown"] = tokenizer.unk_token_id or 0
    build(tagger, **_settings(model))
    module = get_module_shim(tagger).module
    assert isinstance(module, Seq2Seq)
    module.bart.load_state_dict(bart.state_dict())
    with torch.no_grad():  # The decoder begins, and ends, with this one.
        embedding = module.bart.encoder.embed_tokens
        end = torch.tensor([bart.config.eos_token_id], device=embedding.weight.device)
        module.types.weight[:1] = embedding(end)


def _read_bart(name: str) -> tuple[BartModel, Any]:
    config = AutoConfig.from_pretrained(name)
    if not isinstance(config, BartConfig):
        raise ValueError(
            f"spacy_mtlner.Seq2Seq.v1: {name} is no BART, but a {type(config).__name__}."
        )
    tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    if not tokenizer.is_fast:
        raise ValueError(
            f"spacy_mtlner.Seq2Seq.v1: {name} has no fast tokenizer: save it with a tokenizer.json."
        )
    return BartModel.from_pretrained(name), tokenizer


def _settings(model: Model) -> dict[str, Any]:
    tagger = model.get_ref("output_layer")
    return {
        "nI": tagger.get_dim("nI"),
        "nO": tagger.get_dim("nO"),
        "config": model.attrs["config"],
    }


def _to_batch(
    model: Model, X: tuple[Rows, Seq2SeqInputs], is_train: bool
) -> tuple[ArgsKwargs, Callable[[ArgsKwargs], tuple[Rows, Rows]]]:
    """Concatenate the rows of docs and names, or encode their pieces; the callback returns both
    gradients.
    """
    rows, inputs = X
    if is_train:
        set_module_dropout(model)
    device = get_module_shim(model).device
    names = inputs.names
    name_rows = names.rows if names is not None else []
    lengths, name_lengths = list(map(len, rows)), list(map(len, name_rows))
    vectors = name_vectors = pieces = known = None
    if model.attrs["tokenizer"] is None:
        width = model.get_dim("nI")

        def concatenate(some: Rows) -> Tensor:
            flat = flatten_rows(model, some, width)
            return xp2torch(flat, requires_grad=is_train, device=device)

        if inputs.tokens is None:
            vectors = concatenate(rows)
        else:
            assert not is_train
            flat = rows[0] if len(rows) == 1 else flatten_rows(model, rows, width)
            vectors = xp2torch(flat[model.ops.xp.asarray(inputs.tokens)], device=device)
        if names is not None:
            name_vectors = concatenate(name_rows)
    else:
        module = get_module_shim(model).module
        assert isinstance(module, Seq2Seq)
        encode = partial(encode_pieces, model.attrs["tokenizer"], unknown=model.attrs["unknown"])
        limit = module.max_positions - N_ENDS
        pieces = Pieces(
            *(
                torch.from_numpy(x).to(device)
                for x in encode(inputs.docs, inputs.windows, limit, tokens=inputs.tokens)
            )
        )
    if names is not None:
        ids = None
        sizes = numpy.array(name_lengths, dtype=numpy.int64)
        if model.attrs["tokenizer"] is not None:
            found, counts = encode(names.docs, list(map(len, names.docs)), limit)
            owners = numpy.repeat(numpy.arange(len(names.docs)), list(map(len, names.docs)))
            sizes = numpy.bincount(owners, counts, minlength=len(names.docs)).astype(int)
            ids = torch.from_numpy(found).to(device)
        weights = numpy.array(names.weights, dtype=numpy.float32) / sizes.clip(1)
        known = Names(
            torch.from_numpy(numpy.array(names.types, dtype=numpy.int64).repeat(sizes)).to(device),
            torch.from_numpy(weights.astype(numpy.float32).repeat(sizes)).to(device),
            name_vectors,
            ids,
        )
    symbols = None
    if inputs.symbols is not None:
        symbols = torch.from_numpy(inputs.symbols).to(device)
    batch = Seq2SeqBatch(
        inputs.windows, vectors, pieces, known, symbols, inputs.with_cells, inputs.beam_width
    )

    def backprop(d_inputs: ArgsKwargs) -> tuple[Rows, Rows]:
        return _read_gradient(vectors, lengths), _read_gradient(name_vectors, name_lengths)

    return ArgsKwargs(args=(batch,), kwargs={}), backprop


def _read_gradient(x: Tensor | None, lengths: Sequence[int]) -> Rows:
    if x is None:
        return []
    d_x = torch.zeros_like(x) if x.grad is None else x.grad
    return split_rows(cast(Floats2d, torch2xp(d_x)), lengths)


@lru_cache(maxsize=8)
def _read_tokenizer(text: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode_pieces(
    tokenizer: str,
    docs: Sequence[Doc],
    windows: Sequence[int],
    limit: int,
    unknown: int,
    tokens: IntArray | None = None,
) -> tuple[IntArray, IntArray]:
    """Encode the tokens of docs, each for itself, with the blank before it if there is one.

    Where a window has too many pieces, its longest tokens lose their last ones.

    tokenizer (str): The tokenizer's JSON.
    docs (Sequence[Doc]): The docs.
    windows (Sequence[int]): The windows' numbers of tokens, each at most the limit.
    limit (int): How many pieces a window may have.
    unknown (int): Id for tokens that have no pieces.
    tokens (Optional[IntArray]): The windows' tokens among those of all docs, shape (n_tokens,);
        None if the windows hold all tokens once.
    RETURNS (tuple[IntArray, IntArray]): All pieces' ids, shape (n_pieces,), and how many each token
        of the windows has, at least 1, shape (n_tokens,).
    """
    parts = [doc.to_array(["ORTH", "SPACY"]) for doc in docs]
    table = numpy.concatenate([*parts, numpy.zeros((0, 2), dtype=numpy.uint64)])
    if len(table) == 0:
        empty = numpy.zeros(0, dtype=numpy.int64)
        return empty, empty
    has_blank = numpy.roll(table[:, 1], 1)
    firsts = numpy.cumsum([0, *map(len, docs)])[:-1]
    has_blank[firsts[firsts < len(table)]] = 0
    table[:, 1] = has_blank
    if tokens is not None:
        table = table[tokens]
    unique, places = numpy.unique(table, axis=0, return_inverse=True)
    strings = docs[0].vocab.strings
    texts = [" " * int(blank) + strings[int(orth)] for orth, blank in unique]
    encoded = _read_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)
    lists = [encoding.ids or [unknown] for encoding in encoded]
    sizes = numpy.array(list(map(len, lists)))
    flat = numpy.array([number for ids in lists for number in ids], dtype=numpy.int64)
    places = places.reshape(-1)
    starts = (numpy.cumsum(sizes) - sizes)[places]
    counts = sizes[places]
    ends = numpy.cumsum(numpy.asarray(windows, dtype=numpy.int64))
    begins = numpy.concatenate([[0], ends[:-1]])
    totals = numpy.add.reduceat(counts, begins)
    for window in numpy.flatnonzero(totals > limit):
        own = slice(begins[window], ends[window])
        longest = numpy.arange(1, counts[own].max() + 1)
        fits = numpy.minimum(counts[own], longest[:, None]).sum(1) <= limit
        counts[own] = counts[own].clip(max=longest[fits].max(initial=1))
    return flat[ranges(starts, counts)], counts
