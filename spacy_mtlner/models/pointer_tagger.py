"""The architecture of `pointer_ner`: tok2vec, optional recurrent layer, pointers, descriptions."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from spacy_mtlner.models.torch_layer import (
    Rows,
    build,
    detach_scores,
    initialize_tok2vec,
    resize_output,
    run_layer,
    torch_layer,
)
from spacy_mtlner.nn.pointer import FIRST_LOGIT, PointerScores, PointerTagger
from spacy_mtlner.nn.rnn import RNNKind


def _ignore(d_rows: Rows) -> None:
    """The gradient of descriptions that are not learned."""


class PointerInputs(NamedTuple):
    """Docs, and the encoded descriptions of the types and of "O".

    docs (list[Doc]): The docs.
    descriptions (Rows): The vectors of each description's tokens; empty without descriptions.
    backprop (Callable[[Rows], None]): Takes the gradient of these vectors to the encoder.
    """

    docs: list[Doc]
    descriptions: Rows
    backprop: Callable[[Rows], None] = _ignore


def build_pointer_tagger_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    rnn: RNNKind | None = "lstm",
    hidden_width: int = 128,
    depth: int = 1,
    match_width: int = 64,
    max_length: int = 32,
    description_length: int = 16,
    dropout: float | None = None,
) -> Model[PointerInputs, PointerScores]:
    """Build pointers and a classification by descriptions over any tok2vec layer, inline or a
    listener.

    tok2vec (Model[list[Doc], list[Floats2d]]): One vector per token.
    rnn (Optional[RNNKind]): "lstm" or "gru" for a bidirectional recurrent layer, None for none.
    hidden_width (int): Size of the recurrent layer's output, both directions together.
    depth (int): Number of recurrent layers.
    match_width (int): Number of features by which spans are scored.
    max_length (int): The longest entity, in tokens.
    description_length (int): How many tokens of a description are read.
    dropout (Optional[float]): Dropout rate of the head; None follows `training.dropout`.
    RETURNS (Model[PointerInputs, PointerScores]): The model; dimension nO is the number of types,
        attribute "described" tells whether the batches hold descriptions, "first_logit" is the
        logit at which the pointers begin.
    RAISES (ValueError): If a setting is out of its range.
    """
    sizes = {
        "match_width": match_width,
        "max_length": max_length,
        "description_length": description_length,
    }
    if rnn is not None:
        sizes |= {"hidden_width": hidden_width, "depth": depth}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"spacy_mtlner.PointerTagger.v1: {name} must be at least 1: {size}.")
    builder = partial(
        _build_tagger,
        rnn=rnn,
        hidden_width=hidden_width,
        depth=depth,
        match_width=match_width,
        max_length=max_length,
    )
    tagger = torch_layer("pointer_tagger", builder, detach_scores, dropout=dropout)
    model: Model[PointerInputs, PointerScores] = Model(
        "pointers",
        _forward,
        init=_init,
        dims={"nO": None},
        layers=[tok2vec, tagger],
        refs={"tok2vec": tok2vec, "output_layer": tagger},
        attrs={
            "described": True,
            "first_logit": FIRST_LOGIT,
            "max_length": max_length,
            "description_length": description_length,
            "resize_output": partial(resize_output, make_settings=_settings),
        },
    )
    return model


def _build_tagger(*, nI: int, nO: int, **settings: Any) -> PointerTagger:
    return PointerTagger(nI, nO, **settings)


def _forward(
    model: Model[PointerInputs, PointerScores], inputs: PointerInputs, is_train: bool
) -> tuple[PointerScores, Callable[[PointerScores], list[Doc]]]:
    docs, descriptions, backprop_descriptions = inputs
    tok2vec, tagger = model.layers  # Not the references, which a copy of the model lacks.
    rows, backprop_rows = run_layer(tok2vec, docs, is_train)
    scores, backprop_scores = tagger([*rows, *descriptions], is_train)

    def backprop(d_scores: PointerScores) -> list[Doc]:
        d_rows = backprop_scores(d_scores)
        backprop_descriptions(d_rows[len(docs) :])
        return cast(list[Doc], backprop_rows(d_rows[: len(docs)]))

    return scores, backprop


def _init(model: Model, X: PointerInputs | None = None, Y: Any = None) -> None:
    """Initialise the tok2vec layer, whose width is known only then, and build the heads on it."""
    initialize_tok2vec(model, X.docs if X is not None else None)
    tagger = model.get_ref("output_layer")
    tagger.set_dim("nO", model.get_dim("nO"))
    build(tagger, **_settings(model))


def _settings(model: Model) -> dict[str, Any]:
    tagger = model.get_ref("output_layer")
    return {
        "nI": tagger.get_dim("nI"),
        "nO": tagger.get_dim("nO"),
        "description_length": model.attrs["description_length"] * model.attrs["described"],
        "first_logit": model.attrs["first_logit"],
    }
