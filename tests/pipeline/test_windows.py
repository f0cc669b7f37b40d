"""Windows."""

from itertools import pairwise

import numpy
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.pipeline import Sentencizer
from spacy.tokens import Doc

from spacy_mtlner.entities import Entity
from spacy_mtlner.pipeline.windows import cut_doc, find_windows, select_inside

VOCAB = spacy.blank("en").vocab


def make_doc(words: list[str], sent_starts: list[bool] | None = None) -> Doc:
    return Doc(VOCAB, words=words, sent_starts=sent_starts)


@pytest.mark.parametrize(
    ("words", "size", "ends"),
    [
        ("", 3, []),
        ("a", 3, [1]),
        ("a b c", 3, [3]),
        ("a b c d", 3, [3, 4]),
        ("a . b c d e", 4, [2, 6]),
        ("a . b c d e", 9, [2, 6]),
        ("a , b c d e", 4, [4, 6]),  # The comma is in the first half.
        ("a b , c d e", 4, [3, 6]),
        (". . a b", 4, [2, 4]),
        ("a . ) b", 4, [3, 4]),
        ("a b . ! c d", 5, [4, 6]),
        ("a b c . d", 4, [4, 5]),
        ("a b 。 c d", 4, [3, 5]),
        ("a b c", 1, [1, 2, 3]),
    ],
)
def test_texts_without_sentences(words: str, size: int, ends: list[int]) -> None:
    assert cut_doc(make_doc(words.split()), size) == ends


def test_sentences_are_windows() -> None:
    words = "a b c d e f g . h".split()
    starts = [True, False, True, True, False, False, False, False, False]
    assert cut_doc(make_doc(words, starts), 9) == [2, 3, 9]
    assert cut_doc(make_doc(words, starts), 5) == [2, 3, 8, 9]
    assert cut_doc(make_doc(words, starts), 2) == [2, 3, 5, 7, 9]


def find_borders(words: list[str]) -> set[int]:
    """Where sentences begin, as spaCy's sentencizer says."""
    doc = Sentencizer(punct_chars=[".", "\n"])(make_doc(words))
    return {token.i for token in doc if token.is_sent_start}


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.sampled_from(["a", ".", "\n", ")"]), max_size=30))
def test_sentences_are_those_of_the_sentencizer(words: list[str]) -> None:
    assert set(find_windows(make_doc(words), 99).starts.tolist()) == find_borders(words)


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.sampled_from(["a", ".", "\n"]), max_size=30), st.integers(1, 8), st.booleans())
def test_windows_hold_all_tokens(words: list[str], size: int, has_sentences: bool) -> None:
    starts = [i == 0 or words[i - 1] == "." for i in range(len(words))] if has_sentences else None
    ends = cut_doc(make_doc(words, starts), size)
    assert (ends[-1:] == [len(words)]) == bool(words)
    sizes = [b - a for a, b in pairwise([0, *ends])]
    assert all(0 < n <= size for n in sizes)
    if starts:
        assert {i for i, start in enumerate(starts) if start} <= {0, *ends}


def test_entities_inside() -> None:
    inside = [
        Entity("A", ((0, 3),)),
        Entity("A", ((0, 1), (2, 3))),
        Entity("B", ((3, 5),)),
        Entity("B", ((5, 6),)),
    ]
    across = [Entity("A", ((2, 4),)), Entity("A", ((0, 1), (4, 5))), Entity("A", ((0, 6),))]
    mixed = [e for pair in zip(inside, across, strict=False) for e in pair]
    assert select_inside(mixed, [3, 5, 6]) == inside[:3]
    assert select_inside(inside, [3, 5, 6]) == inside
    assert select_inside([], [3]) == select_inside([], []) == []


@settings(max_examples=100, derandomize=True)
@given(
    st.lists(st.sampled_from(["a", ".", "\n"]), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(0, 8),
    st.booleans(),
)
def test_overlapping_windows_hold_every_short_entity(
    words: list[str], size: int, overlap: int, has_sentences: bool
) -> None:
    overlap = min(overlap, size - 1)
    starts = [i == 0 or words[i - 1] == "." for i in range(len(words))] if has_sentences else None
    windows = find_windows(make_doc(words, starts), size, overlap)
    pairs = list(zip(windows.starts.tolist(), windows.ends.tolist(), strict=True))
    assert pairs[0][0] == 0 and pairs[-1][1] == len(words)
    assert all(0 < b - a <= size for a, b in pairs)
    assert all(a < c <= b < d and b - c in (0, overlap) for (a, b), (c, d) in pairwise(pairs))
    borders = {i for i, start in enumerate(starts) if start} if starts else find_borders(words)
    for length in range(1, overlap + 2):
        for first in range(len(words) - length + 1):
            crosses = any(first < border < first + length for border in borders)
            inside = [a <= first and first + length <= b for a, b in pairs]
            assert any(inside) != crosses


def test_merging_by_context() -> None:
    windows = find_windows(make_doc(["a"] * 18), 8, 4)
    assert windows.starts.tolist() == [0, 4, 8, 12] and windows.ends.tolist() == [8, 12, 16, 18]
    found = [
        (Entity("A", ((0, 2),), 0.5), 0),  # In one window alone.
        (Entity("A", ((4, 6),), 0.9), 0),  # In two windows: two tokens around it, or none.
        (Entity("A", ((4, 6),), 0.4), 1),
        (Entity("A", ((6, 8),), 0.9), 0),  # Cut short by the border.
        (Entity("A", ((6, 9),), 0.3), 1),
        (Entity("B", ((8, 9),), 0.9), 2),  # The second window has more around it, but nothing here.
        (Entity("A", ((9, 10), (13, 14)), 0.6), 2),
        (Entity("A", ((15, 16),), 0.7), 3),
        (Entity("A", ((17, 18),), 0.7), 3),  # At the doc's end.
    ]
    merged = windows.merge([e for e, _ in found], numpy.array([n for _, n in found]))
    assert [(e.fragments, e.score) for e in merged] == [
        (((0, 2),), 0.5),
        (((4, 6),), 0.9),
        (((6, 9),), 0.3),
        (((9, 10), (13, 14)), 0.6),
        (((15, 16),), 0.7),
        (((17, 18),), 0.7),
    ]
    assert windows.merge([], numpy.zeros(0, dtype=int)) == []


@settings(max_examples=100, derandomize=True)
@given(st.integers(2, 9), st.integers(0, 8), st.integers(1, 40))
def test_entities_are_located_where_most_is_around_them(
    size: int, overlap: int, length: int
) -> None:
    windows = find_windows(make_doc(["a"] * length), size, min(overlap, size - 1))
    spans = [(i, j) for i in range(length) for j in range(i + 1, length + 1)]
    places = windows.locate([Entity("A", (span,)) for span in spans])
    bounds = list(zip(windows.starts.tolist(), windows.ends.tolist(), strict=True))
    for (i, j), place in zip(spans, places.tolist(), strict=True):
        context = {
            n: min(i - a if a else length, b - j if b < length else length)
            for n, (a, b) in enumerate(bounds)
            if a <= i and j <= b
        }
        assert place == max(context, key=lambda n: context[n], default=-1)


@settings(max_examples=100, derandomize=True)
@given(st.integers(2, 9), st.integers(0, 8), st.integers(1, 40))
def test_what_is_found_wherever_it_fits_stands_once(size: int, overlap: int, length: int) -> None:
    overlap = min(overlap, size - 1)
    windows = find_windows(make_doc(["a"] * length), size, overlap)
    every = [Entity("A", ((i, j),)) for i in range(length) for j in range(i + 1, i + overlap + 2)]
    every = [entity for entity in every if entity.end <= length]
    found = [
        (entity, n)
        for n, (a, b) in enumerate(zip(windows.starts, windows.ends, strict=True))
        for entity in every
        if a <= entity.start and entity.end <= b
    ]
    merged = windows.merge([e for e, _ in found], numpy.array([n for _, n in found]))
    assert sorted(e.fragments for e in merged) == sorted(e.fragments for e in every)
