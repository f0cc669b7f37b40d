"""The windowed encoder against dense attention with a mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_mtlner.nn import transformer
from spacy_mtlner.nn.transformer import (
    RowLayout,
    TransformerEncoder,
    TransformerLayer,
    WindowedAttention,
    sinusoidal_positions,
)

WIDTH, HEADS = 8, 2
LENGTHS = (
    [5],
    [1],
    [3, 0, 7, 1, 12, 2],
    [0, 4, 0],
    [2, 50, 0, 3, 17, 2, 33, 1],
    [40, 2, 3],
    [2, 3, 40],
    [*[4] * 40, *[3] * 10, 9, 31],
)


def make_encoder(window: int, depth: int = 2) -> TransformerEncoder:
    torch.manual_seed(0)
    sizes = {"depth": depth, "n_heads": HEADS, "hidden_width": 16, "window": window}
    return TransformerEncoder(WIDTH, **sizes).double().eval()


def make_rows(lengths: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def attend_densely(attention: WindowedAttention, x: Tensor, row: Tensor) -> Tensor:
    """Attention over all pairs of tokens, with a mask; eq. 4-7 head by head."""
    query, key, value = attention.project_in(x).chunk(3, dim=-1)
    place = torch.arange(len(x))
    sees = (place[:, None] - place[None, :]).abs() <= attention.window
    sees &= row[:, None] == row[None, :]
    size = WIDTH // HEADS
    heads = []
    for i in range(HEADS):
        part = slice(i * size, (i + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        heads.append(scores.masked_fill(~sees, -math.inf).softmax(-1) @ value[:, part])
    return attention.project_out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("window", [1, 2, 3, 5, 100])
def test_equal_to_dense_attention(lengths, window):
    torch.manual_seed(0)
    attention = WindowedAttention(WIDTH, HEADS, window).double().eval()
    x = torch.randn(sum(lengths), WIDTH, dtype=torch.double, requires_grad=True)
    row = make_rows(lengths)
    layout = RowLayout.of(lengths, window)
    y, expected = attention(x, layout), attend_densely(attention, x, row)
    torch.testing.assert_close(y, expected)
    d_y = torch.randn_like(y)
    torch.testing.assert_close(
        *(torch.autograd.grad(z, [x, *attention.parameters()], d_y) for z in (y, expected))
    )
    with torch.no_grad():
        torch.testing.assert_close(attention(x, layout), expected)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any), st.integers(1, 9))
def test_any_mix_of_lengths(lengths, window):
    """Every row is as if it were alone, and its output stands where its tokens do."""
    torch.manual_seed(0)
    attention = WindowedAttention(WIDTH, HEADS, window).double().eval()
    x = torch.randn(sum(lengths), WIDTH, dtype=torch.double)
    expected = [
        attend_densely(attention, part, make_rows([len(part)])) for part in x.split(lengths)
    ]
    torch.testing.assert_close(attention(x, RowLayout.of(lengths, window)), torch.cat(expected))


def test_layout():
    """Rows of up to two windows are padded to similar ones, longer ones are not."""
    layout = RowLayout.of([2, 13, 1, 12, 0, 12], 6)
    assert [index.tolist() for index in layout.index] == [
        [[*range(3, 15)], [*range(15, 27)]],
        [[0, 1], [2, 2]],
    ]
    band, padding = layout.sees
    assert (
        band is not None and band.shape == (12, 12) and band[0].tolist() == [True] * 7 + [False] * 5
    )
    assert padding is not None and padding.shape == (2, 1, 1, 2)
    assert layout.long is not None and layout.long.tolist() == [*range(2, 15)]
    assert layout.long_rows.tolist() == [1] * 13
    assert layout.positions.tolist() == [*range(2), *range(13), 0, *range(12), *range(12)]
    assert RowLayout.of([3, 3], 4).sees == [None]
    only_long = RowLayout.of([13, 0, 14], 4)
    assert only_long.places is only_long.long is None and only_long.index == []


@pytest.mark.parametrize("lengths", [[400], [7, 150, 3, 200, 31]])
def test_prediction_in_parts(lengths, monkeypatch):
    """Without gradients, long rows run in parts that are as if they were whole."""
    encoder = make_encoder(window=5)
    x = torch.randn(sum(lengths), WIDTH, dtype=torch.double)
    whole = encoder(x, lengths).detach()
    calls = []
    monkeypatch.setattr(transformer, "PART_TOKENS", 32)
    run = WindowedAttention._attend_in_blocks

    def count(self, part, row):
        calls.append(len(part))
        return run(self, part, row)

    monkeypatch.setattr(WindowedAttention, "_attend_in_blocks", count)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x, lengths), whole)
    assert len(calls) > 20 and max(calls) <= 40
    calls.clear()
    torch.testing.assert_close(encoder(x, lengths), whole)
    assert len(calls) == 2  # One a layer: gradients need all parts anyway.


def test_layer():
    torch.manual_seed(0)
    layer = TransformerLayer(WIDTH, HEADS, 16, 2).double().eval()
    x, row = torch.randn(6, WIDTH, dtype=torch.double), make_rows([4, 2])
    hidden = layer.attention_norm(x + attend_densely(layer.attention, x, row))
    first, _, _, second = layer.feed_forward
    expected = layer.feed_forward_norm(hidden + second(first(hidden).relu()))
    torch.testing.assert_close(layer(x, RowLayout.of([4, 2], 2)), expected)


@pytest.mark.parametrize("lengths", [[3, 0, 7, 1, 12, 2], [2, 2, 2], [30, 1]])
@pytest.mark.parametrize("window", [1, 4, 64])
def test_docs_do_not_see_each_other(lengths, window):
    encoder = make_encoder(window)
    x = torch.randn(sum(lengths), WIDTH, dtype=torch.double)
    alone = [encoder(row, [len(row)]) for row in x.split(lengths)]
    torch.testing.assert_close(encoder(x, lengths), torch.cat(alone))


@pytest.mark.parametrize(("depth", "window"), [(1, 1), (1, 3), (2, 2), (3, 1)])
def test_reach(depth, window):
    """A token's output depends on exactly the tokens at most depth * window away."""
    encoder, length = make_encoder(window, depth), 15
    x = torch.randn(length + 4, WIDTH, dtype=torch.double, requires_grad=True)
    y = encoder(x, [length, 4])
    for i in (0, 4, 7, length - 1):
        # A sum over the outputs of a layer norm has no gradient: weigh them.
        loss = (y[i] * torch.arange(WIDTH)).sum()
        depends = torch.autograd.grad(loss, x, retain_graph=True)[0].abs().sum(-1) > 0
        reach = depth * window
        assert depends.nonzero().flatten().tolist() == [
            j for j in range(length) if abs(i - j) <= reach
        ]


def test_positions():
    width = 6
    encoded = sinusoidal_positions(torch.arange(5), width)
    assert encoded.shape == (5, width)
    for position in range(5):
        for i in range(width // 2):
            angle = position / 10_000 ** (2 * i / width)
            assert encoded[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert encoded[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_begin_anew_in_every_doc():
    encoder = make_encoder(2, depth=0)
    x = torch.zeros(5, WIDTH, dtype=torch.double)
    y = encoder(x, [3, 0, 2])
    assert torch.equal(y[:2], y[3:])
    torch.testing.assert_close(y[:3].float(), sinusoidal_positions(torch.arange(3), WIDTH))


def test_long_row():
    """Outputs in the middle of a long row are those of its neighbourhood."""
    encoder = make_encoder(window=4, depth=2)
    x = torch.randn(5000, WIDTH, dtype=torch.double)
    positions = sinusoidal_positions(torch.arange(5000), WIDTH).double()
    y = encoder(x, [5000])
    # The same stretch on its own, with the positions of the whole.
    part = slice(2000, 2101)
    shifted = (x + positions)[part] - positions[:101]
    torch.testing.assert_close(y[2050], encoder(shifted, [101])[50])


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_no_tokens(lengths):
    x = torch.zeros(0, WIDTH, dtype=torch.double)
    assert make_encoder(2)(x, lengths).shape == (0, WIDTH)


@pytest.mark.parametrize(
    ("width", "n_heads", "window", "message"),
    [
        (9, 3, 2, r"width \(9\) must be even"),
        (8, 3, 2, r"multiple of n_heads \(3\)"),
        (8, 0, 2, r"multiple of n_heads \(0\)"),
        (8, 2, 0, "window must be at least 1, not 0"),
    ],
)
def test_invalid_settings(width, n_heads, window, message):
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(width, depth=1, n_heads=n_heads, hidden_width=8, window=window)


@pytest.mark.parametrize(("depth", "hidden_width"), [(-1, 8), (1, 0), (1, -1)])
def test_sizes_that_cannot_be(depth, hidden_width):
    with pytest.raises(ValueError, match=f"not {depth}, and its hidden_width .* {hidden_width}"):
        TransformerEncoder(8, depth=depth, n_heads=2, hidden_width=hidden_width, window=2)
