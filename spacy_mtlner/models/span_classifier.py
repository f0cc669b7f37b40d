"""The architecture of `span_ner`: tok2vec, optional recurrent layer, classifier of candidates."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy
from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model
from thinc.types import Floats2d

from spacy_mtlner.models.torch_layer import (
    Rows,
    build,
    detach_scores,
    initialize_tok2vec,
    is_listener,
    resize_output,
    rows_to_torch,
    run_layer,
    torch_layer,
)
from spacy_mtlner.nn.rnn import RNNKind
from spacy_mtlner.nn.span import SpanClassifier, SpanRequest, SpanScores

Context = Literal["none", "encoder"]


class SpanInputs(NamedTuple):
    """Docs or their vectors, and the candidates that are to be classified.

    rows (Any): The docs, list[Doc], or their tokens' vectors, Rows.
    request (SpanRequest): The candidates.
    """

    rows: Any
    request: SpanRequest


def build_span_classifier_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    context: Context = "encoder",
    rnn: RNNKind | None = "lstm",
    hidden_width: int = 128,
    depth: int = 1,
    span_width: int = 128,
    dropout: float | None = None,
) -> Model[SpanInputs, SpanScores]:
    """Build a classifier of candidate spans over any tok2vec layer, inline or a listener.

    tok2vec (Model[list[Doc], list[Floats2d]]): One vector per token.
    context (Context): "none" for candidates of which only their own tokens are seen, as in the
        paper: tok2vec must then be an embedding, and rnn null; "encoder" for any tok2vec layer.
    rnn (Optional[RNNKind]): "lstm" or "gru" for a bidirectional recurrent layer over the whole text
        before the candidates are read, None for none.
    hidden_width (int): Size of that layer's output, both directions together.
    depth (int): Number of such layers.
    span_width (int): Size of the output of the LSTM over a candidate, both directions together.
    dropout (Optional[float]): Dropout rate of the head; None follows `training.dropout`.
    RETURNS (Model[SpanInputs, SpanScores]): The model; dimension nO is the number of classes,
        attribute "length_logits" has the logits at which the lengths of proposed spans begin.
    RAISES (ValueError): If a setting is out of its range, or there is context where none is wanted.
    """
    who = "spacy_mtlner.SpanClassifier.v1"
    if context == "none" and rnn is not None:
        raise ValueError(f"{who}: rnn must be null with context = 'none', but is {rnn!r}.")
    if span_width < 2 or span_width % 2:
        raise ValueError(f"{who}: span_width must be even (two directions), not {span_width}.")
    builder = partial(
        SpanClassifier, rnn=rnn, hidden_width=hidden_width, depth=depth, span_width=span_width
    )
    classifier = torch_layer(
        "span_classifier",
        partial(_build_classifier, builder),
        detach_scores,
        dropout=dropout,
        convert_inputs=_to_torch,
    )
    model: Model[SpanInputs, SpanScores] = Model(
        "spans",
        _forward,
        init=_init,
        dims={"nO": None},
        layers=[tok2vec, classifier],
        refs={"tok2vec": tok2vec, "output_layer": classifier},
        attrs={
            "context": context,
            "length_logits": [],
            "resize_output": partial(resize_output, make_settings=_settings),
        },
    )
    return model


def _build_classifier(
    builder: Callable[..., SpanClassifier], *, nI: int, nO: int, **settings: Any
) -> SpanClassifier:
    return builder(nI, nO, **settings)


def _forward(
    model: Model[SpanInputs, SpanScores], inputs: SpanInputs, is_train: bool
) -> tuple[SpanScores, Callable[[SpanScores], list[Doc]]]:
    tok2vec, classifier = model.layers  # Not the references, which a copy of the model lacks.
    rows, backprop_rows = run_layer(tok2vec, inputs.rows, is_train)
    scores, backprop_scores = classifier(SpanInputs(rows, inputs.request), is_train)

    def backprop(d_scores: SpanScores) -> list[Doc]:
        return cast(list[Doc], backprop_rows(backprop_scores(d_scores)))

    return scores, backprop


def _init(model: Model, X: SpanInputs | None = None, Y: Any = None) -> None:
    """Initialise the tok2vec layer, whose width is known only then, and build the head on it."""
    docs = X.rows if X is not None else None
    initialize_tok2vec(model, docs)
    if model.attrs["context"] == "none":
        _check_context(model.get_ref("tok2vec"), docs or [])
    classifier = model.get_ref("output_layer")
    classifier.set_dim("nO", model.get_dim("nO"))
    build(classifier, **_settings(model))


def _check_context(tok2vec: Model[list[Doc], list[Floats2d]], docs: list[Doc]) -> None:
    """A token's vector must be the same without its neighbours."""
    if any(map(is_listener, tok2vec.walk())):  # It gives zeros by now.
        raise ValueError(
            "spacy_mtlner.SpanClassifier.v1: with context = 'none' the tok2vec layer must be an "
            "embedding of its own, such as spacy.MultiHashEmbed.v2, and no listener."
        )
    for doc in docs:
        half = doc[: (len(doc) + 1) // 2].as_doc()
        whole, part = tok2vec.predict([doc, half])
        ops = tok2vec.ops
        same = ops.to_numpy(whole[: len(half)]), ops.to_numpy(part)
        if len(half) and not numpy.allclose(*same, rtol=1e-3, atol=1e-4):
            raise ValueError(
                "spacy_mtlner.SpanClassifier.v1: with context = 'none' the tok2vec layer must give "
                "each token a vector of its own, but this one sees the tokens beside it. Use an "
                "embedding such as spacy.MultiHashEmbed.v2, or context = 'encoder'."
            )


def _settings(model: Model) -> dict[str, Any]:
    classifier = model.get_ref("output_layer")
    return {
        "nI": classifier.get_dim("nI"),
        "nO": classifier.get_dim("nO"),
        "length_logits": model.attrs["length_logits"],
    }


def _to_torch(
    model: Model, inputs: SpanInputs, is_train: bool
) -> tuple[ArgsKwargs, Callable[[ArgsKwargs], Rows]]:
    arguments, backprop = rows_to_torch(model, inputs.rows, is_train)
    arguments.kwargs["request"] = inputs.request
    return arguments, backprop
