"""Tag sequences against plain loops that state the rules."""

from itertools import pairwise, product

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.codecs.tags import Spans, TagScheme, ranges, read_tags

SCHEMES = ("BIO", "BILUO")
LABELS = ("A", "B", "C")

Rows = list[list[tuple[int, int, int]]]  # (start, end, label) of each row's spans.


def to_spans(rows: Rows) -> Spans:
    table = [(i, *span) for i, row in enumerate(rows) for span in row]
    row, start, end, label = numpy.array(table, dtype=numpy.int64).reshape(-1, 4).T
    return Spans(row, start, end, label)


def to_rows(spans: Spans, n_rows: int) -> Rows:
    rows: Rows = [[] for _ in range(n_rows)]
    for row, start, end, label in zip(
        spans.rows.tolist(),
        spans.starts.tolist(),
        spans.ends.tolist(),
        spans.labels.tolist(),
        strict=True,
    ):
        rows[row].append((start, end, label))
    return rows


def read_by_loop(tags: list[str]) -> list[tuple[str, int, int]]:
    """The rule of the module, one tag after the other."""
    entities, begin = [], None
    for i, tag in enumerate([*tags, "O"]):
        before = tags[i - 1] if i else "O"
        if begin is not None and (
            tag == "O" or tag[0] in "BUSW" or tag[2:] != before[2:] or before[0] in "LEUSW"
        ):
            entities.append((before[2:], begin, i))
            begin = None
        if tag != "O" and begin is None:
            begin = i
    return entities


def pieces(ids: list[int], lengths: list[int]) -> list[list[int]]:
    ends = numpy.cumsum(lengths)
    return [list(ids[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def is_legal(scheme: TagScheme, row: list[int]) -> bool:
    return not row or bool(
        scheme.allowed_start[row[0]]
        and scheme.allowed_end[row[-1]]
        and all(scheme.allowed_transitions[a, b] for a, b in pairwise(row))
    )


@st.composite
def rows_of_spans(draw: st.DrawFn) -> tuple[Rows, list[int]]:
    rows, lengths = [], []
    for _ in range(draw(st.integers(0, 4))):
        # Spans and gaps of random sizes, one after the other.
        sizes = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=4))
        row, end = [], 0
        for gap, size in sizes:
            start, end = end + gap, end + gap + size
            row.append((start, end, draw(st.integers(0, len(LABELS) - 1))))
        rows.append(row)
        lengths.append(end + draw(st.integers(0, 2)))
    return rows, lengths


@st.composite
def rows_of_tags(draw: st.DrawFn, n_tags: int) -> tuple[list[int], list[int]]:
    lengths = draw(st.lists(st.integers(0, 7), max_size=4))
    size = sum(lengths)
    return draw(st.lists(st.integers(0, n_tags - 1), min_size=size, max_size=size)), lengths


@pytest.mark.parametrize("name", SCHEMES)
@given(rows_of_spans())
@settings(max_examples=150, deadline=None)
def test_encode_and_decode(name, case):
    rows, lengths = case
    scheme = TagScheme(name, LABELS)
    sizes = numpy.array(lengths, dtype=numpy.int64)
    tags = scheme.encode(to_spans(rows), sizes)
    assert tags.shape == (sum(lengths),)
    assert to_rows(scheme.decode(tags, sizes), len(rows)) == rows
    for row, ids in zip(rows, pieces(tags.tolist(), lengths), strict=True):
        assert is_legal(scheme, ids)
        expected = ["O"] * len(ids)
        for start, end, label in row:
            expected[start:end] = [f"I-{LABELS[label]}"] * (end - start)
            expected[start] = f"B-{LABELS[label]}"
            if name == "BILUO":
                expected[end - 1] = f"L-{LABELS[label]}"
                if end - start == 1:
                    expected[start] = f"U-{LABELS[label]}"
        assert [scheme.tags[i] for i in ids] == expected


@pytest.mark.parametrize("name", SCHEMES)
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_sequence_decodes_by_the_rule(name, data):
    scheme = TagScheme(name, LABELS)
    ids, lengths = data.draw(rows_of_tags(len(scheme)))
    tags, sizes = numpy.array(ids, dtype=numpy.int64), numpy.array(lengths, dtype=numpy.int64)
    spans = scheme.decode(tags, sizes)
    rows = to_rows(spans, len(lengths))
    for row, own in zip(rows, pieces(ids, lengths), strict=True):
        names = [scheme.tags[i] for i in own]
        assert [(LABELS[label], start, end) for start, end, label in row] == read_by_loop(names)
        assert read_tags(names) == read_by_loop(names)
        ends = [0]
        for start, end, _ in row:
            assert ends[-1] <= start < end <= len(own)
            ends.append(end)
    if all(is_legal(scheme, own) for own in pieces(ids, lengths)):
        assert scheme.encode(spans, sizes).tolist() == ids


@pytest.mark.parametrize("name", SCHEMES)
def test_legal_sequences(name):
    """A sequence is legal exactly if it is what its own spans are encoded as."""
    scheme = TagScheme(name, ("A", "B"))
    n_legal = 0
    for length in range(1, 5):
        for ids in product(range(len(scheme)), repeat=length):
            if length == 4 and name == "BILUO" and ids[0] not in (0, 1):
                continue
            sizes = numpy.array([length])
            spans = scheme.decode(numpy.array(ids), sizes)
            is_canonical = scheme.encode(spans, sizes).tolist() == list(ids)
            assert is_canonical == is_legal(scheme, list(ids))
            n_legal += is_canonical
    assert n_legal > 50


@pytest.mark.parametrize("name", SCHEMES)
def test_allowed(name):
    scheme = TagScheme(name, LABELS)
    for i, first in enumerate(scheme.tags):
        opens = first != "O" and (name == "BIO" or first[0] in "BI")
        needs_more = opens and name == "BILUO"
        assert scheme.allowed_end[i] == (not needs_more)
        assert scheme.allowed_start[i] == (first[0] not in "IL")
        for j, second in enumerate(scheme.tags):
            goes_on = second[0] in "IL"
            expected = goes_on == opens if needs_more or goes_on else True
            if goes_on and opens:
                expected = first[2:] == second[2:]
            assert scheme.allowed_transitions[i, j] == expected, (first, second)


@pytest.mark.parametrize("name", SCHEMES)
def test_appended_labels_keep_ids(name):
    short, long = TagScheme(name, LABELS[:2]), TagScheme(name, LABELS)
    n = len(short)
    assert long.tags[:n] == short.tags
    assert len(long) == len(long.tags) == 1 + len(LABELS) * len(long.prefixes)
    assert numpy.array_equal(long.allowed_transitions[:n, :n], short.allowed_transitions)
    assert numpy.array_equal(long.allowed_start[:n], short.allowed_start)
    assert numpy.array_equal(long.allowed_end[:n], short.allowed_end)
    assert TagScheme(name, ()).tags == ("O",)
    assert TagScheme(name, ()).allowed_transitions.tolist() == [[True]]
    for prefix in long.prefixes:
        ids = long.tag_id(numpy.arange(len(LABELS)), prefix)
        assert [long.tags[i] for i in ids] == [f"{prefix}-{label}" for label in LABELS]


def test_continuation():
    bio = TagScheme("BIO", LABELS)
    assert [bio.tags[i] for i in bio.continuation] == ["I-A", "I-B", "I-C"]
    assert TagScheme("BILUO", LABELS).continuation.tolist() == [-1, -1, -1]


def test_invalid_scheme():
    with pytest.raises(ValueError, match=r"Unknown tag scheme 'IOB': use one of \['BIO', 'BILUO'"):
        TagScheme("IOB", LABELS)
    with pytest.raises(ValueError, match="must be unique"):
        TagScheme("BIO", ("A", "B", "A"))


@pytest.mark.parametrize("name", SCHEMES)
@given(rows_of_spans(), st.data())
@settings(max_examples=60, deadline=None)
def test_possible_tags(name, case, data):
    rows, lengths = case
    scheme = TagScheme(name, LABELS)
    n_tokens = sum(lengths)
    sizes = numpy.array(lengths, dtype=numpy.int64)
    tags = scheme.encode(to_spans(rows), sizes)
    unknown = data.draw(st.lists(st.booleans(), min_size=n_tokens, max_size=n_tokens))
    unknown = numpy.array(unknown, dtype=bool) & (tags == 0)  # Known entities are whole.
    possible = scheme.possible_tags(tags, unknown, sizes)
    assert possible.shape == (n_tokens, len(scheme))
    firsts = set(numpy.cumsum([0, *lengths])[:-1].tolist())
    for i in range(n_tokens):
        names = {scheme.tags[j] for j in numpy.flatnonzero(possible[i])}
        if not unknown[i]:
            assert names == {scheme.tags[tags[i]]}
            continue
        before = "O" if i in firsts else scheme.tags[tags[i - 1]]
        prolonging = set() if before == "O" else {f"I-{before[2:]}"}
        assert names == {*scheme.tags} - prolonging


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A B-A O I-B", [("A", 0, 2), ("A", 2, 3), ("B", 4, 5)]),  # BIO
        ("I-A I-A B-A O I-B I-A", [("A", 0, 2), ("A", 2, 3), ("B", 4, 5), ("A", 5, 6)]),  # IOB1
        ("B-A I-A L-A U-A U-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 5)]),  # BILUO
        ("B-A I-A E-A S-A S-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 5)]),  # BIOES
        ("B-A M-A E-A S-A B-B E-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 6)]),  # BMES
        ("B-A M-A E-A W-A B-B E-B", [("A", 0, 3), ("A", 3, 4), ("B", 4, 6)]),  # BMEWO
        ("I-A L-A I-A O E-B E-B", [("A", 0, 2), ("A", 2, 3), ("B", 4, 5), ("B", 5, 6)]),
        ("B-A-B I-A-B", [("A-B", 0, 2)]),
    ],
)
def test_read_tags(tags, expected):
    assert read_tags(tags.split()) == read_by_loop(tags.split()) == expected


@pytest.mark.parametrize("tag", ["", "B", "B-", "X-PER", "BPER", "b-PER", "o", "-PER", "O-PER"])
def test_invalid_tags(tag):
    with pytest.raises(ValueError, match=f"'{tag}' is no tag: expected 'O' or a prefix"):
        read_tags(["O", tag])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6))
def test_ranges(places):
    starts, sizes = numpy.array(places, dtype=numpy.int64).reshape(-1, 2).T
    expected = [i for start, size in places for i in range(start, start + size)]
    assert ranges(starts, sizes).tolist() == expected
