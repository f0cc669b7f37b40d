"""Torch modules as layers of thinc models.

What thinc's PyTorchWrapper lacks here: the module is built when its widths are known, a saved one
is rebuilt before its weights are read, dropout follows the training's setting, and prediction does
not switch the module between training and evaluation mode, so that several threads may predict.
"""

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import srsly
import torch
from spacy.tokens import Doc
from thinc.api import (
    ArgsKwargs,
    Model,
    PyTorchWrapper_v3,
    torch2xp,
    xp2torch,
)
from thinc.types import Floats2d
from torch import Tensor, nn

from spacy_mtlner.models.learning_shim import LearningShim
from spacy_mtlner.nn.resize import copy_first_outputs

Rows = list[Floats2d]
Scores = TypeVar("Scores", bound=tuple[Tensor, ...])


@runtime_checkable
class HasDropoutRate(Protocol):
    """A module with dropout that is no module of its own."""

    def set_dropout_rate(self, rate: float) -> None:
        """Set the rate.

        rate (float): The rate.
        """
        ...


# A forked process hangs in torch if its parent used several threads before.
_n_threads = 1


def _before_fork() -> None:
    global _n_threads
    _n_threads = torch.get_num_threads()
    torch.set_num_threads(1)


def _after_fork_in_parent() -> None:
    torch.set_num_threads(_n_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)


class TorchShim(LearningShim):
    """Holds a torch module that is built from settings which are saved with its weights.

    builder (Callable[..., nn.Module]): Makes the module from keyword arguments that JSON can hold.
    """

    def __init__(self, builder: Callable[..., nn.Module]) -> None:
        super().__init__(nn.Module())
        self.builder = builder

    @property
    def module(self) -> nn.Module:
        """RETURNS (nn.Module): The module; one without any parameter before `build`."""
        return cast(nn.Module, self._model)

    def build(self, **settings: Any) -> nn.Module:
        """Make the module anew, in evaluation mode.

        **settings: The builder's keyword arguments.
        RETURNS (nn.Module): The module.
        """
        device = self.device
        self.cfg = settings
        self._model = self.builder(**settings).to(device).eval()
        return self._model

    def predict(self, inputs: ArgsKwargs) -> Any:
        """Run the module without gradients; it is in evaluation mode already.

        inputs (ArgsKwargs): The module's arguments.
        RETURNS (Any): Its output.
        """
        with torch.no_grad():
            return self.module(*inputs.args, **inputs.kwargs)

    def begin_update(self, inputs: ArgsKwargs) -> tuple[Any, Callable[[ArgsKwargs], Any]]:
        """Run the module in training mode.

        inputs (ArgsKwargs): The module's arguments.
        RETURNS (tuple[Any, Callable[[ArgsKwargs], Any]]): Its output and the gradients' callback.
        """
        try:
            return super().begin_update(inputs)
        finally:
            self.module.eval()

    def from_bytes(self, bytes_data: bytes) -> "TorchShim":
        """Rebuild the module and read its weights.

        bytes_data (bytes): What `to_bytes` returned.
        RETURNS (TorchShim): Itself.
        """
        settings = srsly.msgpack_loads(bytes_data)["config"]
        if settings:
            self.build(**settings)
        super().from_bytes(bytes_data)
        return self


def torch_layer(
    name: str,
    builder: Callable[..., nn.Module],
    convert_outputs: Callable[..., Any],
    *,
    dropout: float | None = None,
    convert_inputs: Callable[..., Any] | None = None,
) -> Model[Any, Any]:
    """Make a layer of a torch module that takes all rows' vectors and the rows' lengths:
    `module(x, lengths)`, with x of shape (n_tokens, width).

    name (str): The layer's name.
    builder (Callable[..., nn.Module]): Makes the module from the settings given to `build`.
    convert_outputs (Callable): As in thinc's PyTorchWrapper.
    dropout (Optional[float]): The module's dropout rate; None follows the training's.
    convert_inputs (Optional[Callable]): As in thinc's PyTorchWrapper; None for `rows_to_torch`.
    RETURNS (Model[Any, Any]): The layer; `build` must be called before it is used.
    RAISES (ValueError): If the dropout rate is none.
    """
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"dropout of {name} must be at least 0 and below 1, or null: {dropout}.")
    model: Model[Any, Any] = PyTorchWrapper_v3(
        nn.Module(), convert_inputs or rows_to_torch, convert_outputs
    )
    model.name = name
    model.shims[0] = TorchShim(builder)
    # thinc's set_dropout_rate, which every component calls, sets the first where it is there.
    if dropout is None:
        model.attrs["dropout_rate"] = 0.0
    else:
        model.attrs["fixed_dropout_rate"] = dropout
    return model


def build(model: Model, **settings: Any) -> None:
    """Build the module of a torch layer.

    model (Model): The layer.
    **settings: The builder's keyword arguments.
    """
    get_module_shim(model).build(**settings)


def grow(model: Model, **settings: Any) -> None:
    """Build the module of a torch layer with more outputs; the weights of the present ones stay.

    model (Model): The layer.
    **settings: The builder's keyword arguments.
    """
    old = get_module_shim(model)
    # Not the same shim: an optimizer holds averages of the old shapes by the shim's id.
    new = TorchShim(old.builder)
    new.build(**settings)
    copy_first_outputs(old.module, new.module)
    model.shims[0] = new


def resize_output(
    model: Model, new_nO: int, *, make_settings: Callable[[Model], dict[str, Any]]
) -> Model:
    """Add outputs behind the present ones of the reference "output_layer", whose weights stay. With
    make_settings given it is what spaCy calls as a model's attribute "resize_output".

    model (Model): The model.
    new_nO (int): The new number of outputs.
    make_settings (Callable[[Model], dict[str, Any]]): Makes the builder's keyword arguments from
        the model, whose dimensions are the new ones by then.
    RETURNS (Model): The model.
    """
    layer = model.get_ref("output_layer")
    for node in (layer, model):
        node.set_dim("nO", new_nO, force=True)
    grow(layer, **make_settings(model))
    return model


def _refuse(d_rows: Any) -> Any:
    raise ValueError("Gradients were sent to a prediction.")


def run_layer(layer: Model, X: Any, is_train: bool) -> tuple[Any, Callable[[Any], Any]]:
    """Run a layer. In prediction, what it keeps for its gradient is dropped at once, so that a long
    text's memory is that of its largest layer, and not of all.

    layer (Model): The layer.
    X (Any): Its input.
    is_train (bool): Whether gradients will be asked for.
    RETURNS (tuple[Any, Callable]): Its output and the gradients' callback.
    """
    return layer(X, is_train) if is_train else (layer.predict(X), _refuse)


def initialize_tok2vec(model: Model, docs: list[Doc] | None) -> None:
    """Initialise the reference "tok2vec" of a model, whose width is known only then, and set the
    width as dimension nI of the reference "output_layer".

    model (Model): The model.
    docs (Optional[list[Doc]]): Some docs; at least one has tokens.
    """
    tok2vec = model.get_ref("tok2vec")
    tok2vec.initialize(X=docs)
    width = max(row.shape[1] for row in tok2vec.predict(docs))  # An empty doc's may be 0.
    model.get_ref("output_layer").set_dim("nI", width)


def is_listener(layer: Model) -> bool:
    """Tell whether another component feeds a layer.

    layer (Model): A layer of a tok2vec layer.
    RETURNS (bool): Whether it is a listener, of spaCy, spacy-transformers or
        spacy-curated-transformers, which has no class for them.
    """
    return hasattr(layer, "receive") or "_TRANSFORMER_LISTENER" in layer.attrs


def get_module_shim(model: Model) -> TorchShim:
    """Get a torch layer's shim.

    model (Model): The layer.
    RETURNS (TorchShim): Its shim.
    """
    return cast(TorchShim, model.shims[0])


def set_module_dropout(model: Model) -> None:
    """Bring a layer's dropout rate, which thinc sets by its attribute, to its module.

    model (Model): The layer.
    """
    name = "dropout_rate" if "dropout_rate" in model.attrs else "fixed_dropout_rate"
    rate = float(model.attrs[name])
    for module in get_module_shim(model).module.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif isinstance(module, HasDropoutRate):
            module.set_dropout_rate(rate)


def rows_to_torch(
    model: Model, rows: Rows, is_train: bool
) -> tuple[ArgsKwargs, Callable[[ArgsKwargs], Rows]]:
    """Concatenate rows' vectors, (length, width) each, to (n_tokens, width).

    model (Model): The layer.
    rows (Rows): The rows; one without vectors may have width 0.
    is_train (bool): Whether gradients will be asked for.
    RETURNS (tuple[ArgsKwargs, Callable]): The vectors and the lengths, a module's arguments,
        and the callback from torch's gradients to the rows'.
    """
    if is_train:
        set_module_dropout(model)
    lengths = [len(row) for row in rows]
    # Concatenation copies: torch never works on memory that other listeners read.
    flat = flatten_rows(model, rows, model.maybe_get_dim("nI") or 0)
    device = get_module_shim(model).device
    x = xp2torch(flat, requires_grad=is_train, device=device)

    def backprop(d_inputs: ArgsKwargs) -> Rows:
        d_x = d_inputs.args[0]
        if d_x is None:  # No score depends on the vectors.
            d_x = torch.zeros_like(x)
        d_rows = split_rows(cast(Floats2d, torch2xp(d_x)), lengths)
        pairs = zip(rows, d_rows, strict=True)
        # Tokens without vectors take none back.
        return [d[:, :0] if len(row) and not row.shape[1] else d for row, d in pairs]

    return ArgsKwargs(args=(x, lengths), kwargs={}), backprop


def torch_to_rows(
    model: Model, inputs_outputs: tuple[Rows, Tensor], is_train: bool
) -> tuple[Rows, Callable[[Rows], ArgsKwargs]]:
    """Split a module's output (n_tokens, width) into one array (length, width) a row.

    model (Model): The layer.
    inputs_outputs (tuple[Rows, Tensor]): The layer's input and the module's output.
    is_train (bool): Whether gradients will be asked for.
    RETURNS (tuple[Rows, Callable]): The rows, and the callback from their gradients to torch's.
    """
    rows, y = inputs_outputs

    def backprop(d_rows: Rows) -> ArgsKwargs:
        d_y = xp2torch(flatten_rows(model, d_rows, y.shape[1]), device=y.device)
        return ArgsKwargs(args=((y,),), kwargs={"grad_tensors": (d_y,)})

    return split_rows(cast(Floats2d, torch2xp(y.detach())), [len(row) for row in rows]), backprop


def detach_scores(
    model: Model, inputs_outputs: tuple[Any, Scores], is_train: bool
) -> tuple[Scores, Callable[[Scores], ArgsKwargs]]:
    """Take a module's scores out of the graph; they stay torch tensors, for loss and decoder.

    model (Model): The layer.
    inputs_outputs (tuple[Any, Scores]): The layer's input and the module's output.
    is_train (bool): Whether gradients will be asked for.
    RETURNS (tuple[Scores, Callable]): The scores, and the callback from their gradients to torch's.
    """
    _, scores = inputs_outputs
    make = type(scores)

    def backprop(d_scores: Scores) -> ArgsKwargs:
        pairs = zip(scores, d_scores, strict=True)
        learned = [(score, d_score) for score, d_score in pairs if score.requires_grad]
        outputs, gradients = zip(*learned, strict=True) if learned else ((), ())
        return ArgsKwargs(args=(outputs,), kwargs={"grad_tensors": gradients})

    return make(*(score.detach() for score in scores)), backprop


def flatten_rows(model: Model, rows: Rows, width: int) -> Floats2d:
    """Concatenate rows; the result is no memory that others read.

    model (Model): The layer, which knows where arrays are.
    rows (Rows): The rows, (length, width) each; one without vectors may have width 0.
    width (int): The width if all rows are empty.
    RETURNS (Floats2d): Shape (n_tokens, width).
    """
    # spacy-curated-transformers has none for docs that are nothing but whitespace.
    alloc = model.ops.alloc2f
    filled = [row if row.shape[1] else alloc(len(row), width) for row in rows if len(row)]
    return model.ops.xp.concatenate(filled) if filled else model.ops.alloc2f(0, width)


def split_rows(flat: Floats2d, lengths: Sequence[int]) -> Rows:
    """Undo `flatten_rows`.

    flat (Floats2d): Shape (n_tokens, width).
    lengths (Sequence[int]): The rows' lengths.
    RETURNS (Rows): The rows.
    """
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    return [flat[start:end] for start, end in pairwise(ends)]
