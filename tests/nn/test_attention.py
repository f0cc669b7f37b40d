"""Extra keys and values in a stock BART, compared with a computation by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartModel

from spacy_mtlner.nn.attention import (
    IMPLEMENTATION,
    ExtraKeys,
    ExtraStates,
    attend,
    find_kind,
    using,
)

WIDTH, HEADS = 8, 2
LOWEST = torch.finfo(torch.float32).min


def make_bart() -> BartModel:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=4,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        max_position_embeddings=16,
        init_std=0.5,
    )
    bart = BartModel(config).eval()
    bart.config._attn_implementation = IMPLEMENTATION
    return bart


def attend_by_hand(layer: Any, x: Tensor, seen: list[list[Tensor]], causal: bool = False) -> Tensor:
    """Queries of each row over the states that it sees, head by head and query by query."""
    size = WIDTH // HEADS
    results = []
    for row, states in zip(x, seen, strict=True):
        keys, values = (layer.k_proj(torch.stack(states)), layer.v_proj(torch.stack(states)))
        queries = layer.q_proj(row)
        n_extra = len(states) - len(row)
        outputs = []
        for place, query in enumerate(queries):
            visible = n_extra + place + 1 if causal else len(states)
            heads = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[part] @ key[part] for key in keys[:visible]])
                weights = (scores / math.sqrt(size)).softmax(0)
                heads.append(sum(w * v[part] for w, v in zip(weights, values, strict=False)))
            outputs.append(torch.cat(heads))
        results.append(layer.out_proj(torch.stack(outputs)))
    return torch.stack(results)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_against_a_computation_by_hand(kind: str) -> None:
    """Types are seen by all rows; each row sees its own relations, but for padding."""
    bart = make_bart()
    layers: dict[str, Any] = {
        "encoder": bart.encoder.layers[1].self_attn,
        "decoder": bart.decoder.layers[0].self_attn,
        "cross": bart.decoder.layers[1].encoder_attn,
    }
    layer = layers[kind]
    assert find_kind(layer) == kind
    x, memory = torch.randn(2, 3, WIDTH), torch.randn(2, 5, WIDTH)
    types, relations = torch.randn(1, 2, WIDTH), torch.randn(2, 4, WIDTH)
    mask = torch.zeros(2, 1, 1, 4)
    mask[1, ..., 2:] = LOWEST
    extra = ExtraKeys(**{kind: [ExtraStates(types), ExtraStates(relations, mask)]})
    own = memory if kind == "cross" else x
    seen = [
        [*relations[row, : 4 - 2 * row], *types[0], *own[row]] for row in range(2)
    ]  # The order makes no difference.
    attention_mask = None
    if kind == "decoder":
        attention_mask = torch.full((3, 3), LOWEST).triu(1).expand(2, 1, 3, 3)
    with using(extra):
        found = layer(
            x,
            key_value_states=memory if kind == "cross" else None,
            attention_mask=attention_mask,
        )[0]
    torch.testing.assert_close(found, attend_by_hand(layer, x, seen, kind == "decoder"))
    # Without them, BART is what it was.
    with using(ExtraKeys()):
        plain = layer(
            x,
            key_value_states=memory if kind == "cross" else None,
            attention_mask=attention_mask,
        )[0]
    assert not torch.allclose(plain, found)
    bare = attend_by_hand(layer, x, [[*own[row]] for row in range(2)], kind == "decoder")
    torch.testing.assert_close(plain, bare)


def test_whole_model_without_extra_keys_is_a_stock_bart() -> None:
    bart = make_bart()
    x, y = torch.randn(2, 4, WIDTH), torch.randn(2, 3, WIDTH)
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])

    def run() -> Tensor:
        return bart(inputs_embeds=x, decoder_inputs_embeds=y, attention_mask=mask).last_hidden_state

    ours = run()
    bart.config._attn_implementation = "eager"
    torch.testing.assert_close(ours, run())


def test_padding_changes_nothing() -> None:
    """Masked extra states have exactly no weight."""
    layer: Any = make_bart().decoder.layers[0].encoder_attn
    query, key, value = torch.randn(3, 2, HEADS, 3, WIDTH // HEADS)
    states = torch.randn(2, 4, WIDTH)
    mask = torch.zeros(2, 1, 1, 4)
    mask[..., 1:] = LOWEST
    results = []
    for tail in (0.0, 1e4):
        changed = states.clone()
        changed[:, 1:] += tail
        with using(ExtraKeys(cross=[ExtraStates(changed, mask)])):
            results.append(attend(layer, query, key, value, None, scaling=0.5)[0])
    assert torch.equal(*results)


def test_select_goes_on_with_some_rows() -> None:
    layer: Any = make_bart().decoder.layers[0].encoder_attn
    states, mask = torch.randn(3, 2, WIDTH), torch.zeros(3, 1, 1, 2)
    shared = torch.randn(1, 2, WIDTH)
    rows = torch.tensor([2, 0, 0])
    for is_made in (True, False):
        extra = ExtraKeys(cross=[ExtraStates(states, mask), ExtraStates(shared)])
        if is_made:
            extra.make(layer)
        extra.select(rows)
        (keys, values, own_mask), (shared_keys, _, no_mask) = extra.make(layer)
        expected = layer.k_proj(states[rows]).unflatten(2, (HEADS, -1)).transpose(1, 2)
        torch.testing.assert_close(keys, expected)
        assert len(values) == len(own_mask) == 3 and len(shared_keys) == 1 and no_mask is None
    assert extra.make(make_bart().encoder.layers[0].self_attn) == []


def test_extra_keys_end_with_their_block() -> None:
    layer: Any = make_bart().encoder.layers[0].self_attn
    x = torch.randn(1, 3, WIDTH)
    before = layer(x)[0]
    with pytest.raises(ZeroDivisionError), using(ExtraKeys(encoder=[ExtraStates(x)])):
        assert not torch.equal(layer(x)[0], before)
        raise ZeroDivisionError
    assert torch.equal(layer(x)[0], before)
