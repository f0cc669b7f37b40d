"""Grouping of rows: every token once, padding within the stated limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.nn.ragged import MAX_POSITIONS, MIN_ROWS, group_rows, ungroup


@given(st.lists(st.integers(0, 40), max_size=80))
@settings(max_examples=80, deadline=None)
def test_groups(lengths):
    groups = group_rows(lengths)
    rows = [row for group in groups for row in group.rows.tolist()]
    assert sorted(rows) == [i for i, length in enumerate(lengths) if length]
    sizes = [lengths[row] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    for group in groups:
        longest = lengths[group.rows[0]]
        assert group.index.shape == group.backward_index.shape == (len(group.rows), longest)
        for i, row in enumerate(group.rows.tolist()):
            first, length = sum(lengths[:row]), lengths[row]
            padding = longest - length
            own = [*range(first, first + length)]
            assert group.index[i].tolist() == own + own[-1:] * padding
            assert group.backward_index[i].tolist() == own[::-1] + own[:1] * padding
            assert group.mask[i].tolist() == [True] * length + [False] * padding
            assert 2 * length >= longest
            assert len(group.rows) <= MIN_ROWS or 8 * length >= 7 * longest


@given(st.lists(st.integers(0, 12), min_size=1, max_size=50).filter(any))
@settings(max_examples=50, deadline=None)
def test_ungroup(lengths):
    x = torch.randn(sum(lengths), 2)
    groups = group_rows(lengths)
    mask = [group.mask for group in groups]
    for index in ([g.index for g in groups], [g.backward_index for g in groups]):
        assert torch.equal(ungroup([x[i] for i in index], index, mask), x)
        assert torch.equal(ungroup([x[i, 0] for i in index], index, mask), x[:, 0])


def test_many_positions_are_split():
    assert [len(g.rows) for g in group_rows([MAX_POSITIONS // 3] * 7)] == [3, 3, 1]
    assert [len(g.rows) for g in group_rows([MAX_POSITIONS + 1] * 2)] == [1, 1]


def test_many_rows():
    assert [len(g.rows) for g in group_rows([16] * 10 + [9] * 30)] == [MIN_ROWS, 8]
    assert [len(g.rows) for g in group_rows([16] * 50 + [9] * 10)] == [50, 10]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_no_tokens(lengths):
    assert group_rows(lengths) == []
