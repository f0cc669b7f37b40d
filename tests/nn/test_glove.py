"""GloVe against loops that state its equations, and against torch's own AdaGrad."""

import math
from collections import Counter

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import Adagrad

from spacy_mtlner.nn import glove
from spacy_mtlner.nn.glove import (
    Cooccurrences,
    GloVe,
    count_cooccurrences,
    train_epoch,
    weigh_counts,
)

N_WORDS, DIM = 6, 4


def count(texts: list[list[int]], window: int, n_words: int = N_WORDS) -> Cooccurrences:
    words = numpy.array([word for text in texts for word in text], dtype=numpy.int64)
    return count_cooccurrences(words, [*map(len, texts)], n_words=n_words, window=window)


def to_dict(pairs: Cooccurrences) -> dict[tuple[int, int], float]:
    rows, columns, counts = (values.tolist() for values in pairs)
    found = dict(zip(zip(rows, columns, strict=True), counts, strict=True))
    assert len(found) == len(counts)
    return found


def count_by_loop(texts: list[list[int]], window: int) -> dict[tuple[int, int], float]:
    counts: Counter[tuple[int, int]] = Counter()
    for text in texts:
        for i, word in enumerate(text):
            for j, other in enumerate(text):
                if 0 < abs(i - j) <= window:
                    counts[word, other] += 1 / abs(i - j)  # type: ignore[assignment]
    return dict(counts)


def make_model(n_words: int = N_WORDS, seed: int = 0) -> GloVe:
    return GloVe(n_words, DIM, x_max=2, generator=torch.Generator().manual_seed(seed))


def make_pairs(n_pairs: int = 40, seed: int = 0) -> Cooccurrences:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(0, N_WORDS, (2, n_pairs), generator=generator)
    return Cooccurrences(rows, columns, torch.rand(n_pairs, generator=generator) * 5 + 0.1)


# Counts


@given(
    st.lists(st.lists(st.integers(0, N_WORDS - 1), max_size=12), max_size=6),
    st.integers(1, 15),
    st.sampled_from([1, 7, 2**23]),
)
def test_counts_by_loop(texts: list[list[int]], window: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glove, "_BLOCK", block)
        found = to_dict(count(texts, window))
    expected = count_by_loop(texts, window)
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        assert found[pair] == pytest.approx(value)


def test_counts_by_hand() -> None:
    pairs = count([[0, 1, 0], [2]], window=10)
    assert to_dict(pairs) == {(0, 1): 2.0, (1, 0): 2.0, (0, 0): 1.0}
    assert [values.dtype for values in pairs] == [torch.int64, torch.int64, torch.float32]


@pytest.mark.parametrize("texts", [[], [[]], [[1], [], [2]]])
def test_nothing_to_count(texts: list[list[int]]) -> None:
    assert [len(values) for values in count(texts, window=3)] == [0, 0, 0]


def test_counts_of_many_words() -> None:
    """Numbers of pairs are beyond 32 bits."""
    n_words = 1_000_000
    found = to_dict(count([[n_words - 1, n_words - 2]], window=100, n_words=n_words))
    assert found == {(n_words - 1, n_words - 2): 1.0, (n_words - 2, n_words - 1): 1.0}


# Loss and steps


def test_weights_by_equation_9() -> None:
    weights = weigh_counts(torch.tensor([0.0, 1.0, 10.0, 20.0]), x_max=10, alpha=0.75)
    assert weights.tolist() == pytest.approx([0, 0.1**0.75, 1, 1])


def test_loss_by_equation_8() -> None:
    model, pairs = make_model(), make_pairs()
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_()
    expected = 0.0
    for i, j, x in zip(*(values.tolist() for values in pairs), strict=True):
        word, context = model.words[i].tolist(), model.contexts[j].tolist()
        product = sum(a * b for a, b in zip(word[:DIM], context[:DIM], strict=True))
        error = product + word[DIM] + context[DIM] - math.log(x)
        expected += min(1, (x / 2) ** 0.75) * error**2
    assert model.loss(pairs).item() == pytest.approx(expected, rel=1e-5)


def test_steps_are_those_of_dense_adagrad() -> None:
    """Over an autograd gradient of the loss; words that are in no pair stay as they are."""
    model, reference = make_model(N_WORDS + 1), make_model(N_WORDS + 1)
    before = [weights[N_WORDS].clone() for weights in model.parameters()]
    optimizer = Adagrad(
        reference.parameters(),
        lr=glove.LEARN_RATE,
        initial_accumulator_value=glove.SQUARES,
        eps=0,
    )
    for seed in range(5):
        pairs = make_pairs(seed=seed)
        optimizer.zero_grad()
        loss = reference.loss(pairs)
        loss.backward()
        optimizer.step()
        assert model.step(pairs) == pytest.approx(loss.item(), rel=1e-5)
    for own, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, other)
    for weights, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(weights[N_WORDS], old)


def test_vectors_are_sums_without_biases() -> None:
    model = make_model()
    torch.testing.assert_close(model.vectors, model.words[:, :DIM] + model.contexts[:, :DIM])
    assert model.vectors.shape == (N_WORDS, DIM) and not model.vectors.requires_grad


# Training


@pytest.mark.parametrize("n_pairs", [1, 63, 64, 1000])
def test_an_epoch_takes_each_pair_once(monkeypatch: pytest.MonkeyPatch, n_pairs: int) -> None:
    monkeypatch.setattr(glove, "MAX_BATCH", 10)
    seen: list[float] = []
    sizes: list[int] = []

    def step(self: GloVe, pairs: Cooccurrences) -> float:
        seen.extend(pairs.counts.tolist())
        return float(len(pairs.counts))

    monkeypatch.setattr(GloVe, "step", step)
    counts = torch.arange(1.0, n_pairs + 1)
    index = torch.zeros(n_pairs, dtype=torch.int64)
    loss = train_epoch(make_model(), Cooccurrences(index, index, counts), on_step=sizes.append)
    assert sorted(seen) == counts.tolist() and loss == 1
    assert sum(sizes) == n_pairs and max(sizes) <= 10
    assert n_pairs < 1000 or seen != sorted(seen)


def test_no_pairs() -> None:
    model = make_model()
    before = model.vectors
    assert train_epoch(model, count([], window=2)) == 0
    assert torch.equal(model.vectors, before)


def test_words_of_like_contexts_become_neighbours() -> None:
    """Words 0 and 1 stand among 4 and 5, words 2 and 3 among 6 and 7."""
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(300):
        half, word, first, second = torch.randint(0, 2, (4,), generator=generator).tolist()
        texts.append([4 + 2 * half + first, 2 * half + word, 4 + 2 * half + second])
    pairs = count(texts, window=2, n_words=8)
    model = GloVe(8, DIM, generator=generator)
    losses = [train_epoch(model, pairs, generator=generator) for _ in range(60)]
    assert losses[-1] < losses[0] / 4
    vectors = torch.nn.functional.normalize(model.vectors)
    cosines = (vectors @ vectors.T).fill_diagonal_(-1)
    assert cosines[:4, :4].argmax(1).tolist() == [1, 0, 3, 2]


def test_one_seed_gives_one_result() -> None:
    def train(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        model = GloVe(N_WORDS, DIM, generator=generator)
        for _ in range(3):
            train_epoch(model, make_pairs(500), generator=generator)
        return model.vectors

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))
