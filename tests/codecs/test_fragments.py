"""Entities as sets of tokens."""

from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs.fragments import (
    TokenSets,
    TypedFragments,
    cut_into_windows,
    list_tokens,
)
from spacy_mtlner.entities import Fragments, merge_touching

token_sets = st.sets(st.integers(0, 9), min_size=1)


def to_fragments(tokens: set[int]) -> Fragments:
    return merge_touching((t, t + 1) for t in tokens)


@settings(max_examples=200, derandomize=True)
@given(st.lists(token_sets, max_size=6))
def test_tokens_and_fragments(sets: list[set[int]]) -> None:
    fragments = [to_fragments(tokens) for tokens in sets]
    assert [list_tokens(f) for f in fragments] == [sorted(tokens) for tokens in sets]
    rows = [[(f, 10 * place)] * (place % 3) for place, f in enumerate(fragments)]
    arrays = TokenSets.of(rows)
    assert len(arrays) == sum(map(len, rows))
    assert arrays.fragments() == [f for row in rows for f, _ in row]
    assert arrays.rows.tolist() == [place for place, row in enumerate(rows) for _ in row]
    assert arrays.types.tolist() == [label for row in rows for _, label in row]
    assert len(TokenSets.of([])) == len(TokenSets.of([[]])) == 0


def test_windows() -> None:
    entities: list[TypedFragments] = [
        (((0, 1), (2, 3)), 0),
        (((3, 5),), 1),
        (((4, 5),), 2),
        (((7, 8), (9, 10)), 0),
    ]
    assert cut_into_windows(entities, [3, 5, 6, 10]) == [
        [(((0, 1), (2, 3)), 0)],
        [(((0, 2),), 1), (((1, 2),), 2)],
        [],
        [(((1, 2), (3, 4)), 0)],
    ]
    assert cut_into_windows([], [3]) == [[]]
    assert cut_into_windows([], []) == []
