"""The architecture of `crf_ner`: tok2vec, optional recurrent layer, fully connected layer, CRF."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d
from torch import Tensor

from spacy_mtlner.codecs.tags import SchemeName, TagScheme
from spacy_mtlner.models.torch_layer import (
    build,
    detach_scores,
    initialize_tok2vec,
    resize_output,
    run_layer,
    torch_layer,
)
from spacy_mtlner.nn.rnn import RNNKind
from spacy_mtlner.nn.tagger import CRFScores, Tagger


def build_crf_tagger_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    rnn: RNNKind | None = None,
    hidden_width: int = 128,
    depth: int = 1,
    dropout: float | None = None,
    tag_scheme: SchemeName = "BILUO",
) -> Model[list[Doc], CRFScores]:
    """Build a CRF tagger over any tok2vec layer, inline or a listener.

    tok2vec (Model[list[Doc], list[Floats2d]]): One vector per token.
    rnn (Optional[RNNKind]): "lstm" or "gru" for a bidirectional recurrent layer, None for none.
    hidden_width (int): Size of the recurrent layer's output, both directions together.
    depth (int): Number of recurrent layers.
    dropout (Optional[float]): Dropout rate of the head; None follows `training.dropout`.
    tag_scheme (SchemeName): "BIO" or "BILUO" (BIOES).
    RETURNS (Model[list[Doc], CRFScores]): The model; dimension nO is the number of tags.
    """
    builder = partial(
        _build_tagger, rnn=rnn, hidden_width=hidden_width, depth=depth, tag_scheme=tag_scheme
    )
    tagger = torch_layer("crf_tagger", builder, detach_scores, dropout=dropout)
    model: Model[list[Doc], CRFScores] = Model(
        "tags",
        _forward,
        init=_init,
        dims={"nO": None},
        layers=[tok2vec, tagger],
        refs={"tok2vec": tok2vec, "output_layer": tagger},
        attrs={
            "tag_scheme": tag_scheme,
            "resize_output": partial(resize_output, make_settings=_settings),
        },
    )
    return model


def _build_tagger(*, nI: int, nO: int, tag_scheme: SchemeName, **settings: Any) -> Tagger:
    return Tagger(nI, tag_constraints(tag_scheme, nO), **settings)


def _forward(
    model: Model[list[Doc], CRFScores], docs: list[Doc], is_train: bool
) -> tuple[CRFScores, Callable[[CRFScores], list[Doc]]]:
    tok2vec, tagger = model.layers  # Not the references, which a copy of the model lacks.
    rows, backprop_rows = run_layer(tok2vec, docs, is_train)
    scores, backprop_scores = tagger(rows, is_train)

    def backprop(d_scores: CRFScores) -> list[Doc]:
        return cast(list[Doc], backprop_rows(backprop_scores(d_scores)))

    return scores, backprop


def tag_constraints(tag_scheme: SchemeName, n_tags: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find which tags are legal, which depends on their number alone.

    tag_scheme (SchemeName): The tag scheme.
    n_tags (int): Number of tags.
    RETURNS (tuple[Tensor, Tensor, Tensor]): Allowed transitions, starts and ends: see `CRFHead`.
    """
    n_labels = (n_tags - 1) // len(TagScheme(tag_scheme, ()).prefixes)
    scheme = TagScheme(tag_scheme, tuple(str(i) for i in range(n_labels)))
    allowed = (scheme.allowed_transitions, scheme.allowed_start, scheme.allowed_end)
    transitions, start, end = map(torch.from_numpy, allowed)
    return transitions, start, end


def _init(model: Model, X: list[Doc] | None = None, Y: Any = None) -> None:
    """Initialise the tok2vec layer, whose width is known only then, and build the tagger on it."""
    initialize_tok2vec(model, X)
    tagger = model.get_ref("output_layer")
    tagger.set_dim("nO", model.get_dim("nO"))
    build(tagger, **_settings(model))


def _settings(model: Model) -> dict[str, int]:
    tagger = model.get_ref("output_layer")
    return {"nI": tagger.get_dim("nI"), "nO": tagger.get_dim("nO")}
