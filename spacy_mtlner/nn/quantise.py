"""Linear layers in eight-bit integers, for prediction on the CPU."""

from typing import Any

import torch
from torch import Tensor, nn


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise each row symmetrically: its largest magnitude becomes 127.

    x (Tensor): Shape (n, width).
    RETURNS (tuple[Tensor, Tensor]): The integers, (n, width), int8, and what one of them is worth
        in each row, (n, 1).
    """
    scale = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (x / scale).round_().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer whose weights have eight bits and one scale per output; its input is quantised
    with one scale per row as it comes. One scale for all rows, as torch's own dynamic quantisation
    has, is spoilt by the few large values that pre-trained encoders have in some rows.

    Weights that are read into it as floats are quantised.

    n_in (int): Size of the input.
    n_out (int): Size of the output.
    has_bias (bool): Whether it adds a bias.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, n_in: int, n_out: int, *, has_bias: bool) -> None:
        super().__init__()
        # Transposed, (n_in, n_out), as the product of integers wants it.
        self.register_buffer("weight", torch.zeros(n_in, n_out, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(n_out))
        self.register_buffer("bias", torch.zeros(n_out) if has_bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add the bias.

        x (Tensor): Shape (..., n_in), float32.
        RETURNS (Tensor): Shape (..., n_out), float32.
        """
        integers, row_scale = quantise_rows(x.flatten(0, -2))
        y = torch._int_mm(integers, self.weight).float().mul_(row_scale).mul_(self.scale)
        if self.bias is not None:
            y += self.bias
        return y.unflatten(0, x.shape[:-1])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if (
            weight is not None and weight.is_floating_point()
        ):  # (n_out, n_in), of the layer that this one replaces.
            integers, scale = quantise_rows(weight)
            state_dict[f"{prefix}weight"] = integers.t().contiguous()
            state_dict[f"{prefix}scale"] = scale.squeeze(1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def quantise_linears(module: nn.Module) -> None:
    """Replace all linear layers in a module, which can then predict but no more learn.

    module (nn.Module): The module, on the CPU.
    RAISES (ValueError): If it has none.
    """
    linears = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    if not linears:  # GPT-2's layers are written as convolutions.
        raise ValueError(
            f"{type(module).__name__} has no linear layers that could be quantised: use "
            f"precision = 'bfloat16' or 'float32'."
        )
    for parent, name, child in linears:
        has_bias = child.bias is not None
        small = Int8Linear(child.in_features, child.out_features, has_bias=has_bias)
        small.load_state_dict(child.state_dict())
        setattr(parent, name, small)


def dequantise_state(state: dict[str, Tensor]) -> None:
    """Turn the weights of quantised layers into those of linear layers, as far as they can be told.

    state (dict[str, Tensor]): A module's state; changed in place.
    """
    for name in [name for name, tensor in state.items() if tensor.dtype == torch.int8]:
        scale = state.pop(f"{name.removesuffix('weight')}scale")
        state[name] = state[name].t().float() * scale[:, None]
