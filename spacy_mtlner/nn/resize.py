"""Growing modules: more tags or types behind the present ones."""

import torch
from torch import nn


@torch.no_grad()
def copy_first_outputs(source: nn.Module, target: nn.Module) -> None:
    """Give a module the weights of one whose tags or types are the first ones of its own.

    source (nn.Module): A module with fewer outputs and otherwise equal settings.
    target (nn.Module): The module to write to.
    """
    state = target.state_dict()
    for name, weights in source.state_dict().items():
        state[name][tuple(slice(size) for size in weights.shape)] = weights
