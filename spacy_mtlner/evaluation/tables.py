"""Tables of figures in Markdown that are read as well where nothing renders them."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence


def format_percent(score: float | None) -> str:
    """Write a score in percent.

    score (Optional[float]): The score, in [0, 1].
    RETURNS (str): With one decimal; a dash for None.
    """
    return "-" if score is None else f"{100 * score:.1f}"


def make_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (0,)
) -> str:
    """Write a Markdown table whose columns are aligned.

    header (Sequence[str]): The columns' names.
    rows (Iterable[Sequence[str]]): The cells; what would break the table in them is escaped.
    left (Collection[int]): The columns of text, aligned to the left; the others are figures.
    RETURNS (str): The table.
    """
    lines = [
        [" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in (header, *rows)
    ]
    widths = [max(3, *map(count_columns, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i in left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def pad(i: int, cell: str) -> str:
        blanks = " " * (widths[i] - count_columns(cell))
        return cell + blanks if i in left else blanks + cell

    padded = [[pad(i, cell) for i, cell in enumerate(line)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def count_columns(text: str) -> int:
    """Count the columns of a terminal that a text takes: Chinese characters take two.

    text (str): The text.
    RETURNS (int): The columns.
    """
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
