import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spacy_mtlner.nn.quantise import (
    Int8Linear,
    dequantise_state,
    quantise_linears,
    quantise_rows,
)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_rows_are_rounded_to_their_own_scale(n: int, width: int, seed: int) -> None:
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    x[0] *= 1000
    integers, scale = quantise_rows(x)
    assert integers.dtype == torch.int8
    assert ((integers * scale - x).abs() <= scale / 2 + 1e-6 * x.abs()).all()
    assert (integers.abs().amax(dim=1) == 127).all()


def test_zero_rows_stay_zero() -> None:
    integers, scale = quantise_rows(torch.zeros(2, 3))
    assert (integers == 0).all()
    assert torch.isfinite(scale).all()


@given(st.integers(1, 7), st.integers(1, 33), st.integers(1, 17), st.booleans())
def test_layer_equals_product_of_rounded_factors(
    n: int, n_in: int, n_out: int, has_bias: bool
) -> None:
    torch.manual_seed(n + n_in + n_out)
    linear = nn.Linear(n_in, n_out, bias=has_bias)
    small = Int8Linear(n_in, n_out, has_bias=has_bias)
    small.load_state_dict(linear.state_dict())
    x = torch.randn(2, n, n_in)
    x_int, x_scale = quantise_rows(x.flatten(0, 1))
    w_int, w_scale = quantise_rows(linear.weight.detach())
    expected = (x_int * x_scale) @ (w_int * w_scale).t()
    if has_bias:
        expected += linear.bias.detach()
    torch.testing.assert_close(small(x).flatten(0, 1), expected, rtol=1e-4, atol=1e-4)


def test_large_values_of_one_row_do_not_spoil_others() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 64)
    small = Int8Linear(64, 64, has_bias=True)
    small.load_state_dict(linear.state_dict())
    x = torch.randn(4, 64)
    alone = small(x)
    x[3, 5] = 1e4
    torch.testing.assert_close(small(x)[:3], alone[:3])
    assert (alone - linear(x.clone().index_fill(0, torch.tensor([3]), 0)))[:3].abs().max() < 0.05


def test_linears_of_a_module_are_replaced_and_read_both_kinds_of_weights() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Embedding(5, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    floats = copy.deepcopy(module.state_dict())
    quantise_linears(module)
    ids = torch.arange(5)
    expected = module(ids)
    assert not any(isinstance(layer, nn.Linear) for layer in module.modules())

    again = nn.Sequential(
        nn.Embedding(5, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    quantise_linears(again)
    again.load_state_dict(module.state_dict())
    torch.testing.assert_close(again(ids), expected)
    assert floats["2.weight"].is_floating_point()
    again.load_state_dict(floats)
    torch.testing.assert_close(again(ids), expected)
    assert floats["2.weight"].is_floating_point()  # The caller's weights are as they were.


def test_module_without_linear_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="Embedding has no linear layers that could be quantised"):
        quantise_linears(nn.Embedding(3, 2))


def test_state_of_floats_comes_back() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2, bias=False))
    small = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2, bias=False))
    small.load_state_dict(linear.state_dict())
    quantise_linears(small)
    state = small.state_dict()
    dequantise_state(state)
    assert state.keys() == linear.state_dict().keys()
    for name, tensor in linear.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0.005)


def test_missing_weights_are_told() -> None:
    small = Int8Linear(4, 3, has_bias=True)
    missing = small.load_state_dict({}, strict=False).missing_keys
    assert sorted(missing) == ["bias", "scale", "weight"]


def test_weights_of_another_size_are_refused() -> None:
    small = Int8Linear(4, 3, has_bias=True)
    with pytest.raises(RuntimeError, match="size mismatch"):
        small.load_state_dict(nn.Linear(5, 3).state_dict())
