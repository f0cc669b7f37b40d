"""The architecture of `multitask_crf_ner`: tok2vec, and for each task a recurrent layer, a fully
connected layer and a CRF; the auxiliary tasks feed the main one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from thinc.api import ArgsKwargs, Model
from thinc.types import Floats2d

from spacy_mtlner.codecs.tags import SchemeName
from spacy_mtlner.models.crf_tagger import tag_constraints
from spacy_mtlner.models.torch_layer import (
    Rows,
    build,
    detach_scores,
    grow,
    initialize_tok2vec,
    rows_to_torch,
    run_layer,
    torch_layer,
)
from spacy_mtlner.nn.multitask import Fusion, MultiTaskScores, MultiTaskTagger
from spacy_mtlner.nn.rnn import RNNKind


class TaskInputs(NamedTuple):
    """Docs, or their vectors, and for which tasks each is to be scored.

    rows (list[Doc] | Rows): The docs or vectors.
    wanted (NDArray[numpy.bool_]): Whether a row is to be scored for a task, shape (n_tasks,
        n_rows).
    """

    rows: Any
    wanted: NDArray[numpy.bool_]


def build_multitask_crf_v1(
    tok2vec: Model[list[Doc], list[Floats2d]],
    rnn: RNNKind | None = "lstm",
    hidden_width: int = 128,
    depth: int = 1,
    fusion: Fusion = "attention",
    n_heads: int = 4,
    window: int = 64,
    dropout: float | None = None,
    tag_scheme: SchemeName = "BILUO",
) -> Model[TaskInputs, MultiTaskScores]:
    """Build CRF taggers of several tasks over any tok2vec layer, inline or a listener: figures 7
    and 8 of the multi-task paper.

    tok2vec (Model[list[Doc], list[Floats2d]]): One vector per token; runs once, whatever the tasks.
    rnn (Optional[RNNKind]): "lstm" or "gru" for a bidirectional recurrent layer of each task, None
        for none.
    hidden_width (int): Size of a recurrent layer's output, both directions together.
    depth (int): Number of recurrent layers of each task.
    fusion (Fusion): "attention" to let the auxiliary tasks' hidden states pass self-attention into
        the main task's fully connected layer; "none" for tasks that share the encoder alone.
    n_heads (int): Number of attention heads.
    window (int): Reach of the attention to either side, in tokens.
    dropout (Optional[float]): Dropout rate of the head; None follows `training.dropout`.
    tag_scheme (SchemeName): "BIO" or "BILUO" (BIOES), of all tasks.
    RETURNS (Model[TaskInputs, MultiTaskScores]): The model; attribute "n_tags" holds the number of
        tags of each task, the main task first.
    """
    builder = partial(
        _build_tagger,
        rnn=rnn,
        hidden_width=hidden_width,
        depth=depth,
        fusion=fusion,
        n_heads=n_heads,
        window=window,
        tag_scheme=tag_scheme,
    )
    tagger = torch_layer(
        "multitask_tagger", builder, detach_scores, dropout=dropout, convert_inputs=_to_torch
    )
    return Model(
        "multitask_crf",
        _forward,
        init=_init,
        layers=[tok2vec, tagger],
        refs={"tok2vec": tok2vec, "output_layer": tagger},
        attrs={"tag_scheme": tag_scheme, "n_tags": []},
    )


def resize_tasks(model: Model[TaskInputs, MultiTaskScores], n_tags: Sequence[int]) -> None:
    """Add tags behind those of some tasks; the weights of the present ones stay.

    model (Model[TaskInputs, MultiTaskScores]): The initialised model.
    n_tags (Sequence[int]): The new number of tags of each task.
    """
    tagger = model.get_ref("output_layer")
    model.attrs["n_tags"] = list(n_tags)
    grow(tagger, nI=tagger.get_dim("nI"), n_tags=list(n_tags))


def _build_tagger(
    *, nI: int, n_tags: Sequence[int], tag_scheme: SchemeName, **settings: Any
) -> MultiTaskTagger:
    constraints = [tag_constraints(tag_scheme, n) for n in n_tags]
    return MultiTaskTagger(nI, constraints, **settings)


def _forward(
    model: Model[TaskInputs, MultiTaskScores], inputs: TaskInputs, is_train: bool
) -> tuple[MultiTaskScores, Callable[[MultiTaskScores], list[Doc]]]:
    tok2vec, tagger = model.layers  # Not the references, which a copy of the model lacks.
    rows, backprop_rows = run_layer(tok2vec, inputs.rows, is_train)
    scores, backprop_scores = tagger(TaskInputs(rows, inputs.wanted), is_train)

    def backprop(d_scores: MultiTaskScores) -> list[Doc]:
        return cast(list[Doc], backprop_rows(backprop_scores(d_scores)))

    return scores, backprop


def _init(model: Model, X: TaskInputs | None = None, Y: Any = None) -> None:
    """Initialise the tok2vec layer, whose width is known only then, and build the heads on it."""
    initialize_tok2vec(model, X.rows if X is not None else None)
    tagger = model.get_ref("output_layer")
    build(tagger, nI=tagger.get_dim("nI"), n_tags=model.attrs["n_tags"])


def _to_torch(
    model: Model, inputs: TaskInputs, is_train: bool
) -> tuple[ArgsKwargs, Callable[[ArgsKwargs], Rows]]:
    arguments, backprop = rows_to_torch(model, inputs.rows, is_train)
    arguments.kwargs["wanted"] = torch.from_numpy(inputs.wanted)
    return arguments, backprop
