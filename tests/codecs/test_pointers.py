"""Pointers' targets against plain loops over entities and tokens."""

from collections import Counter
from itertools import product
from random import Random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs.pointers import PointerTargets, encode_pointers

Entities = list[tuple[int, int, int]]  # (first, behind, type)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Entities, int, int]:
    """Entities of any kind, also the same one twice, over some tokens."""
    n_tokens, n_types = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    entities = st.builds(
        lambda first, length, label: (first, min(n_tokens, first + length), label),
        st.integers(0, n_tokens - 1),
        st.integers(1, n_tokens),
        st.integers(0, n_types - 1),
    )
    return draw(st.lists(entities, max_size=8)), n_tokens, n_types


def encode(entities: Entities, n_tokens: int, n_types: int) -> PointerTargets:
    return encode_pointers(
        numpy.array(entities, dtype=numpy.int64).reshape(-1, 3), n_tokens, n_types
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(batches())
def test_against_loops(batch: tuple[Entities, int, int]) -> None:
    entities, n_tokens, n_types = batch
    targets = encode(*batch)
    for i, r in product(range(n_tokens), range(n_types)):
        begins = any(first == i and label == r for first, _, label in entities)
        finishes = any(behind - 1 == i and label == r for _, behind, label in entities)
        assert targets.starts[i, r] == begins
        assert targets.ends[i, r] == finishes
    expected = Counter((first, behind - first - 1, label) for first, behind, label in entities)
    assert Counter(map(tuple, targets.spans.tolist())) == expected
    for i in range(n_tokens):
        types = {label for first, behind, label in entities if first <= i < behind}
        shares = [(r in types) / max(1, len(types)) for r in range(n_types)]
        assert targets.classes[i].tolist() == pytest.approx([*shares, float(not types)])
        assert targets.classes[i].sum() == pytest.approx(1.0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(batches(), st.randoms(use_true_random=False))
def test_order_and_repetition_make_no_difference(
    batch: tuple[Entities, int, int], random: Random
) -> None:
    entities, n_tokens, n_types = batch
    shuffled = [*entities, *entities[:2]]
    random.shuffle(shuffled)
    one, other = encode(*batch), encode(shuffled, n_tokens, n_types)
    for name in ("starts", "ends", "classes"):
        assert numpy.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("n_tokens", [0, 3])
def test_no_entities(n_tokens: int) -> None:
    targets = encode([], n_tokens, 2)
    assert targets.starts.shape == targets.ends.shape == (n_tokens, 2)
    assert targets.spans.shape == (0, 3)
    assert not targets.starts.any() and not targets.ends.any()
    assert targets.classes.tolist() == [[0.0, 0.0, 1.0]] * n_tokens


def test_arrays_are_what_torch_takes() -> None:
    targets = encode([(0, 2, 1)], 2, 2)
    assert {a.dtype for a in (targets.starts, targets.ends, targets.classes)} == {
        numpy.dtype("float32")
    }
    assert targets.spans.dtype == numpy.int64


def test_nested_entities_of_one_type_count_once() -> None:
    """A token in two entities of one type has the whole share there."""
    targets = encode([(0, 4, 0), (1, 3, 0), (1, 2, 1)], 5, 2)
    shares = [[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert targets.classes.tolist() == shares
    assert targets.starts.T.tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert targets.ends.T.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
