"""Relations of token pairs."""

import pytest
import torch
from torch import Tensor

from spacy_mtlner.codecs.relations import N_RELATIONS, NONE
from spacy_mtlner.nn import relations
from spacy_mtlner.nn.relations import (
    N_DISTANCES,
    ConditionalLayerNorm,
    PairClassifier,
    bucket_distances,
)

WIDTH, SIZE, TYPES = 6, 4, 2


def make_classifier(has_tokens: bool = True) -> PairClassifier:
    torch.manual_seed(0)
    return PairClassifier(WIDTH, TYPES, relation_width=SIZE, has_tokens=has_tokens).eval()


def make_mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_norm_against_its_formula() -> None:
    """Eq. 1-3, pair by pair."""
    torch.manual_seed(0)
    norm = ConditionalLayerNorm(5)
    x, y = torch.randn(2, 3, 5), torch.randn(2, 4, 5)
    found = norm(x, y)
    assert found.shape == (2, 3, 4, 5)
    for b in range(2):
        for i in range(3):
            gain = norm.gain.weight @ x[b, i] + norm.gain.bias
            bias = norm.bias.weight @ x[b, i] + norm.bias.bias
            for j in range(4):
                h = y[b, j]
                mean = h.sum() / 5
                deviation = (((h - mean) ** 2).sum() / 5 + 1e-5).sqrt()
                torch.testing.assert_close(found[b, i, j], gain * (h - mean) / deviation + bias)


def test_pairs_by_hand() -> None:
    """Cells and tokens of a short row, from its pairs."""
    classifier = make_classifier()
    x = torch.randn(1, 3, WIDTH)
    scores = classifier(x, make_mask(3), with_cells=True, with_tokens=True)
    h = classifier.reduce(x[0])
    assert classifier.convolution is not None
    kernel, bias = classifier.convolution.weight, classifier.convolution.bias
    for i in range(3):
        pairs = [
            torch.nn.functional.gelu(
                classifier.hidden(classifier.norm(h[i : i + 1], h[j : j + 1])[0, 0])
                + classifier.distances.weight[N_DISTANCES + j - i]
            )
            for j in range(3)
        ]
        for j in range(3):
            torch.testing.assert_close(scores.cells[0, i, j], classifier.classes(pairs[j]))
        around = [torch.zeros(SIZE), *pairs, torch.zeros(SIZE)]
        features = [sum(kernel[:, :, k] @ around[j + k] for k in range(3)) + bias for j in range(3)]
        torch.testing.assert_close(scores.tokens[0, i], torch.stack(features).amax(0))


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
@pytest.mark.parametrize("kept", [1, 10**6])
def test_chunks_make_no_difference(chunk: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to the scores nor to the gradients."""
    x, mask = torch.randn(3, 5, WIDTH), make_mask(5, 2, 3)

    def run() -> list[Tensor]:
        classifier = make_classifier()
        leaf = x.clone().requires_grad_()
        scores = classifier(leaf, mask, with_cells=True, with_tokens=True)
        total = (scores.cells.sin() * mask[:, None, :, None]).sum() + scores.tokens.cos().sum()
        total.backward()
        gradients = [p.grad for p in (leaf, *classifier.parameters())]
        return [*scores, *(g for g in gradients if g is not None)]

    expected = run()
    monkeypatch.setattr(relations, "CHUNK_VALUES", chunk)
    monkeypatch.setattr(relations, "KEPT_VALUES", kept)
    for one, other in zip(run(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_padding_makes_no_difference() -> None:
    classifier = make_classifier()
    x = torch.randn(2, 5, WIDTH)
    together = classifier(x, make_mask(5, 2), with_cells=True, with_tokens=True)
    alone = classifier(x[1:, :2], make_mask(2), with_cells=True, with_tokens=True)
    torch.testing.assert_close(together.cells[1:, :2, :2], alone.cells)
    torch.testing.assert_close(together.tokens[1:, :2], alone.tokens)
    assert not together.tokens[1, 2:].any()


@pytest.mark.parametrize("has_tokens", [True, False])
def test_shapes(has_tokens: bool) -> None:
    classifier = make_classifier(has_tokens)
    x, mask = torch.randn(2, 3, WIDTH), make_mask(3, 1)
    for with_cells in (True, False):
        for with_tokens in (True, False):
            scores = classifier(x, mask, with_cells=with_cells, with_tokens=with_tokens)
            n = 3 if with_cells else 0
            assert scores.cells.shape == (2, 3, n, N_RELATIONS + TYPES)
            assert scores.tokens.shape == (2, 3, SIZE if has_tokens and with_tokens else 0)


def test_begins_with_few_relations() -> None:
    scores = make_classifier()(
        torch.randn(1, 9, WIDTH), make_mask(9), with_cells=True, with_tokens=False
    )
    assert scores.cells[..., :N_RELATIONS].softmax(-1)[..., NONE].mean() > 0.6


def test_distances() -> None:
    places = torch.arange(-2000, 2001)
    buckets = bucket_distances(places)
    assert buckets.min() == 0 and buckets.max() == 2 * N_DISTANCES
    assert (buckets.diff() >= 0).all()
    assert torch.equal(buckets + buckets.flip(0), torch.full_like(buckets, 2 * N_DISTANCES))
    near = places.abs() < N_DISTANCES // 2
    assert torch.equal(buckets[near], places[near] + N_DISTANCES)
    assert bucket_distances(torch.tensor([16, 31, 32, 63, 64])).tolist() == [48, 51, 52, 55, 56]
