"""Tables of figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.evaluation.tables import count_columns, format_percent, make_table

CELLS = st.text(st.sampled_from("a|1 \n\\地e\u0301"), max_size=6)


def test_columns_are_aligned() -> None:
    table = make_table(["label", "F1", "part"], [["地名", "7.0", "dev"], ["A", "12.5", "-"]])
    assert table.splitlines() == [
        "| label |   F1 | part |",
        "| ----- | ---: | ---: |",
        "| 地名  |  7.0 |  dev |",
        "| A     | 12.5 |    - |",
    ]
    assert make_table(["a", "b"], [["1", "2"]], left=(0, 1)).splitlines()[1] == "| --- | --- |"


def test_a_table_without_rows() -> None:
    assert make_table(["label", "F1"], []).splitlines()[1:] == ["| ----- | --: |"]


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_no_cell_breaks_a_table(lines: list[list[str]]) -> None:
    rows = make_table(lines[0], lines[1:]).split("\n")
    assert len(rows) == len(lines) + 1
    assert len({count_columns(row) for row in rows}) == 1
    for row, line in zip(rows[2:], lines[1:], strict=True):
        assert row.count("|") - row.count(r"\|") == 3
        assert row.count(r"\|") == "".join(line).count("|")


@pytest.mark.parametrize(("score", "expected"), [(None, "-"), (0.0, "0.0"), (0.6666, "66.7")])
def test_percent(score: float | None, expected: str) -> None:
    assert format_percent(score) == expected
