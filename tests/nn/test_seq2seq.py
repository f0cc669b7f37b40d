"""The encoder-decoder: steps with and without cache, windows beside each other, gradients."""

from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_mtlner.codecs.relations import N_RELATIONS
from spacy_mtlner.codecs.sequence import END, decode_sequences, encode_sequences, list_allowed
from spacy_mtlner.nn.seq2seq import (
    Names,
    Pieces,
    Seq2Seq,
    Seq2SeqBatch,
    Seq2SeqScores,
    count_steps,
)

WIDTH, TYPES = 5, 2
BART = {
    "vocab_size": 20,
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 64,
    "init_std": 0.3,
}


def make_module(n_types: int = TYPES, **changed: Any) -> Seq2Seq:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "bart": BART,
        "is_pretrained": False,
        "has_relations": True,
        "relation_width": 4,
        "relation_attention": True,
        "type_attention": True,
        "type_width": 3,
        "max_symbols": 4.0,
    }
    settings.update(changed)
    width = 0 if settings["is_pretrained"] else WIDTH
    module = Seq2Seq(width, n_types, **settings).eval()
    with torch.no_grad():  # Attention to types and relations that is not next to nothing.
        module.types.weight.mul_(3)
        module.types.weight[0] = 0  # Some sequences are longer than END alone.
        module.context.weight.normal_(std=0.3)
    return module


def make_batch(lengths: list[int], *, is_pretrained: bool = False, **settings: Any) -> Seq2SeqBatch:
    generator = torch.Generator().manual_seed(1)
    n = sum(lengths)
    types, weights = torch.tensor([0, 0, 1]), torch.tensor([0.25, 0.75, 1.0])
    if is_pretrained:
        counts = torch.arange(n) % 3 + 1
        ids = torch.randint(4, 20, (int(counts.sum()),), generator=generator)
        settings["pieces"] = Pieces(ids, counts)
        settings["names"] = Names(types, weights, ids=torch.tensor([5, 6, 7]))
    else:
        settings["vectors"] = torch.randn(n, WIDTH, generator=generator)
        settings["names"] = Names(
            types, weights, vectors=torch.randn(3, WIDTH, generator=generator)
        )
    return Seq2SeqBatch(lengths, **settings)


def make_symbols(lengths: list[int]) -> Tensor:
    rows = [[(((i, n),), i % TYPES) for i in range(min(n, 3))] for n in lengths]
    return torch.from_numpy(encode_sequences(rows, TYPES))


@pytest.mark.parametrize("is_pretrained", [False, True])
@pytest.mark.parametrize("beam_width", [1, 3])
def test_generation_by_steps_equals_the_whole_sequence(
    is_pretrained: bool, beam_width: int
) -> None:
    """The cache changes nothing: a generated sequence has the same probabilities as a given one."""
    module = make_module(is_pretrained=is_pretrained)
    lengths = [4, 9, 3, 3, 7, 1]
    with torch.no_grad():
        found = module(make_batch(lengths, is_pretrained=is_pretrained, beam_width=beam_width))
        assert found.symbols.shape == found.log_probs.shape
        assert (found.symbols != END).any()
        given = module(
            make_batch(lengths, is_pretrained=is_pretrained, symbols=found.symbols, with_cells=True)
        )
    allowed = torch.from_numpy(list_allowed(found.symbols.numpy(), numpy.array(lengths), TYPES))
    is_step = torch.arange(found.symbols.shape[1]) < count_steps(found.symbols)[:, None]
    logits = given.steps.masked_fill(~allowed[is_step], -torch.inf)
    expected = logits.log_softmax(1).gather(1, found.symbols[is_step][:, None])[:, 0]
    torch.testing.assert_close(found.log_probs[is_step], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_pretrained", [False, True])
def test_windows_do_not_mix(is_pretrained: bool) -> None:
    """In a batch and alone, whatever the padding."""
    lengths = [2, 9, 1, 5, 5]
    module = make_module(is_pretrained=is_pretrained)
    symbols = make_symbols(lengths)
    batch = make_batch(lengths, is_pretrained=is_pretrained, symbols=symbols, with_cells=True)
    together = module(batch)
    n_steps, n_cells = count_steps(symbols).tolist(), [n * n for n in lengths]
    assert together.steps.shape == (sum(n_steps), 1 + TYPES + 9)
    assert together.cells.shape == (sum(n_cells), N_RELATIONS + TYPES)
    for i, n in enumerate(lengths):
        first = sum(lengths[:i])
        inputs: dict[str, Any] = {}
        if batch.vectors is not None:
            inputs["vectors"] = batch.vectors[first : first + n]
        if batch.pieces is not None:
            counts = batch.pieces.counts
            pieces = slice(int(counts[:first].sum()), int(counts[: first + n].sum()))
            inputs["pieces"] = Pieces(batch.pieces.ids[pieces], counts[first : first + n])
        alone = module(
            Seq2SeqBatch(
                [n], names=batch.names, symbols=symbols[i : i + 1], with_cells=True, **inputs
            )
        )
        steps = slice(sum(n_steps[:i]), sum(n_steps[: i + 1]))
        cells = slice(sum(n_cells[:i]), sum(n_cells[: i + 1]))
        torch.testing.assert_close(
            together.steps[steps, : 1 + TYPES + n], alone.steps, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(together.cells[cells], alone.cells, rtol=1e-4, atol=1e-4)


def test_equal_tokens_are_told_apart_by_the_decoder() -> None:
    """What comes behind a pointer depends on which of two equal words it points at."""
    module = make_module()
    batch = make_batch([3])
    assert batch.vectors is not None
    batch.vectors[2] = batch.vectors[0]
    steps = []
    for token in (0, 2):
        symbols = torch.tensor([[1 + TYPES + token, 1, END]])
        steps.append(module(Seq2SeqBatch([3], batch.vectors, names=batch.names, symbols=symbols)))
    one, other = (scores.steps[1] for scores in steps)
    assert not torch.allclose(one, other, atol=1e-3)


@settings(max_examples=30, derandomize=True)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from([0.5, 3.0]),
)
def test_random_weights_generate_valid_entities(
    lengths: list[int], beam_width: int, seed: int, scale: float
) -> None:
    module = make_module()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in module.parameters():
            weights.normal_(std=scale)
        scores = module(make_batch(lengths, beam_width=beam_width))
    symbols = scores.symbols.numpy()
    allowed = list_allowed(symbols, numpy.array(lengths), TYPES)
    assert numpy.take_along_axis(allowed, symbols[:, :, None], axis=2).all()
    assert (symbols != END).sum(1).max() < BART["max_position_embeddings"]
    assert scores.log_probs.isfinite().all() and (scores.log_probs <= 0).all()
    entities = decode_sequences(symbols, TYPES).entities
    for row, fragments in zip(entities.rows, entities.fragments(), strict=True):
        assert 0 <= fragments[0][0] and fragments[-1][1] <= lengths[row]


@pytest.mark.parametrize("is_pretrained", [False, True])
def test_all_weights_learn(is_pretrained: bool) -> None:
    module = make_module(is_pretrained=is_pretrained).train()
    lengths = [3, 6]
    batch = make_batch(
        lengths, is_pretrained=is_pretrained, symbols=make_symbols(lengths), with_cells=True
    )
    for vectors in (batch.vectors, batch.names.vectors if batch.names else None):
        if vectors is not None:
            vectors.requires_grad_()
    scores = module(batch)
    (scores.steps.sin().sum() + scores.cells.sin().sum()).backward()
    without = {name for name, p in module.named_parameters() if p.grad is None}
    # Embeddings of a vocabulary that a BART over vectors does not have.
    assert without == (set() if is_pretrained else {"bart.shared.weight"})
    if batch.vectors is not None and batch.names is not None:
        assert batch.vectors.grad is not None and batch.vectors.grad.any(1).all()
        assert batch.names.vectors is not None and batch.names.vectors.grad is not None
        assert batch.names.vectors.grad.any(1).all()


@pytest.mark.parametrize(
    ("switched_off", "parts"),
    [
        ({"relation_attention": False}, {"from_relations", "convolution"}),
        ({"type_attention": False}, {"from_names"}),
        (
            {"relation_attention": False, "has_relations": False},
            {"from_relations", "pairs", "convolution"},
        ),
    ],
)
def test_switches(switched_off: dict[str, bool], parts: set[str]) -> None:
    """What is off is not there; what is on makes a difference."""
    whole, module = make_module(), make_module(**switched_off)
    names = {part for name, _ in module.named_parameters() for part in name.split(".")}
    assert not names & parts
    module.load_state_dict(
        {k: v for k, v in whole.state_dict().items() if k in module.state_dict()}
    )
    lengths = [4, 2]
    with_cells = "pairs" not in parts
    batch = make_batch(lengths, symbols=make_symbols(lengths), with_cells=with_cells)
    with torch.no_grad():
        found, expected = module(batch), whole(batch)
    assert not torch.allclose(found.steps, expected.steps, atol=1e-3)
    if "from_names" not in parts and with_cells:
        # The grid needs the attention to relations not.
        torch.testing.assert_close(found.cells, expected.cells)


def test_types_are_the_weighted_sum_of_known_entities() -> None:
    """Eq. 8, behind the two layers and beside what is learned."""
    module = make_module()
    names = make_batch([1]).names
    assert names is not None and names.vectors is not None
    assert module.project is not None and module.from_names is not None
    vectors = module.project(names.vectors)
    expected = torch.stack([0.25 * vectors[0] + 0.75 * vectors[1], vectors[2]])
    types = module._embed_types(names)
    torch.testing.assert_close(types[1:], module.types.weight[1:] + module.from_names(expected))
    assert torch.equal(types[0], module.types.weight[0])
    assert torch.equal(module._embed_types(None), module.types.weight)


def test_dropout_reaches_bart() -> None:
    module = make_module().train()
    batch = make_batch([4], symbols=make_symbols([4]))
    assert module.pairs is not None
    module.pairs.dropout.p = 0.0
    module.set_dropout_rate(0.0)
    one, other = module(batch).steps, module(batch).steps
    assert torch.equal(one, other)
    module.set_dropout_rate(0.5)
    assert not torch.equal(module(batch).steps, module(batch).steps)


def test_pieces_between_their_ends() -> None:
    """First and last piece, padding, and the first piece of each token."""
    from spacy_mtlner.nn.ragged import group_rows

    module = make_module(is_pretrained=True)
    config = module.bart.config
    pieces = Pieces(torch.arange(4, 13), torch.tensor([1, 3, 2, 1, 2]))
    (group,) = group_rows([3, 2])
    ids, mask, firsts = module._pad_pieces(pieces, group)
    bos, eos, pad = config.bos_token_id, config.eos_token_id, config.pad_token_id
    assert ids.tolist() == [
        [bos, 4, 5, 6, 7, 8, 9, eos],
        [bos, 10, 11, 12, eos, pad, pad, pad],
    ]
    assert mask.sum(1).tolist() == [8, 5]
    assert firsts.tolist() == [[1, 2, 5], [1, 2, 2]]


def test_parts_that_are_not_asked_for() -> None:
    module = make_module()
    scores = module(make_batch([2, 3], with_cells=True))
    assert isinstance(scores, Seq2SeqScores)
    assert scores.steps.shape[0] == 0 and scores.cells.shape[0] == 13
    assert scores.symbols.shape == scores.log_probs.shape == (2, 0)
    scores = module(make_batch([2, 3], beam_width=1))
    assert scores.cells.shape[0] == 0 and scores.symbols.shape[1] > 0
    nothing = module(make_batch([], beam_width=1, with_cells=True))
    assert all(len(score) == 0 for score in nothing)


def test_limit_of_positions() -> None:
    """Never more steps than BART has positions."""
    module = make_module(max_symbols=100.0)
    with torch.no_grad():
        module.types.weight[0] = 0
        module.types.weight[1:] = 0
        scores = module(make_batch([40], beam_width=1))
    assert scores.symbols.shape[1] <= BART["max_position_embeddings"]


def test_positions_begin_as_sinusoids() -> None:
    """Of a BART that is trained from scratch; those of another one stay what they are."""
    positions = make_module().bart.encoder.embed_positions.weight.detach()
    products = positions @ positions.T
    # The same distance is the same similarity.
    torch.testing.assert_close(products[3, 5], products[10, 12], rtol=1e-4, atol=1e-4)
    positions = make_module(is_pretrained=True).bart.decoder.embed_positions.weight.detach()
    products = positions @ positions.T
    assert abs(float(products[3, 5] - products[10, 12])) > 1e-3
