"""Extra keys and values in the attention of a stock BART.

transformers lets a function of our own compute every attention of a model. Here it is the usual
one, over keys and values to which those of additional states are concatenated (eq. 7 and 9 of
"Multi-task Transformer with Relation-attention and Type-attention"): BART's code and weights stay
what they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

from torch import Tensor, cat, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

IMPLEMENTATION = "spacy_mtlner"  # Name of the function among transformers' ones.

Kind = Literal["encoder", "decoder", "cross"]


class ExtraStates(NamedTuple):
    """States that an attention sees beside those it sees anyhow.

    states (Tensor): The states, shape (n_rows, n_extra, width); one row serves all.
    mask (Optional[Tensor]): 0 for states that are there and a large negative number for padding,
        shape (n_rows, 1, 1, n_extra); None where all are there.
    """

    states: Tensor
    mask: Tensor | None = None


class ExtraKeys:
    """Keys and values of the extra states of one pass through the model, made once per layer by its
    own projections.

    **states (list[ExtraStates]): The extra states for "encoder", "decoder" and "cross" attention.
    """

    def __init__(self, **states: list[ExtraStates]) -> None:
        self._states = states
        self._made: dict[int, list[tuple[Tensor, Tensor, Tensor | None]]] = {}

    def make(self, attention: nn.Module) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Make the extra keys and values of a layer.

        attention (nn.Module): The layer's attention.
        RETURNS (list[tuple[Tensor, Tensor, Optional[Tensor]]]): Keys and values, shape (n_rows,
            n_heads, n_extra, head width), and mask.
        """
        layer: Any = attention
        if id(layer) not in self._made:
            self._made[id(layer)] = [
                (
                    layer.k_proj(extra.states).unflatten(2, (layer.num_heads, -1)).transpose(1, 2),
                    layer.v_proj(extra.states).unflatten(2, (layer.num_heads, -1)).transpose(1, 2),
                    extra.mask,
                )
                for extra in self._states.get(find_kind(layer), [])
            ]
        return self._made[id(layer)]

    def select(self, rows: Tensor) -> None:
        """Go on with some of the rows.

        rows (Tensor): Their numbers, shape (n_selected,), int64.
        """

        def take(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None or len(tensor) == 1 else tensor[rows]

        self._states = {
            kind: [ExtraStates(*map(take, extra)) for extra in extras]  # type: ignore[arg-type]
            for kind, extras in self._states.items()
        }
        self._made = {
            key: [tuple(map(take, parts)) for parts in made]  # type: ignore[misc]
            for key, made in self._made.items()
        }


_extra_keys: ContextVar[ExtraKeys | None] = ContextVar("extra_keys", default=None)


@contextmanager
def using(extra: ExtraKeys) -> Iterator[None]:
    """Have all attention of BART models in this thread see extra keys and values.

    extra (ExtraKeys): The keys and values.
    """
    token = _extra_keys.set(extra)
    try:
        yield
    finally:
        _extra_keys.reset(token)


def find_kind(attention: Any) -> Kind:
    """Tell which attention of a BART this is.

    attention (Any): The attention module.
    RETURNS (Kind): "encoder" or "decoder" for self-attention, "cross" for the decoder's other one.
    """
    if not attention.is_decoder:
        return "encoder"
    return "decoder" if attention.is_causal else "cross"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, to the extra keys and values as well: called by transformers.

    module (nn.Module): The attention.
    query (Tensor): Shape (n_rows, n_heads, n_queries, head width).
    key (Tensor): Shape (n_rows, n_heads, n_keys, head width).
    value (Tensor): Shape (n_rows, n_heads, n_keys, head width).
    attention_mask (Optional[Tensor]): Added to the scores, shape (n_rows, 1, n_queries, n_keys).
    scaling (Optional[float]): Factor of the scores.
    dropout (float): Dropout rate of the attention.
    RETURNS (tuple[Tensor, None]): The result, shape (n_rows, n_queries, n_heads, head width), and
        no weights.
    """
    extra = _extra_keys.get()
    for keys, values, mask in extra.make(module) if extra is not None else ():
        n_rows = len(key)
        key = cat([keys.expand(n_rows, -1, -1, -1), key], dim=2)
        value = cat([values.expand(n_rows, -1, -1, -1), value], dim=2)
        if attention_mask is not None and mask is None:
            attention_mask = pad(attention_mask, (keys.shape[2], 0))
        elif mask is not None:
            if attention_mask is None:
                attention_mask = key.new_zeros((n_rows, 1, 1, key.shape[2] - keys.shape[2]))
            mask = mask.expand(n_rows, -1, attention_mask.shape[2], -1)
            attention_mask = cat([mask, attention_mask], dim=3)
    result = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return result.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, attend)
