"""Candidates against lists of their tokens."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.codecs.spans import (
    NO_CANDIDATES,
    Candidates,
    find_among,
    propose_spans,
    sample_negatives,
    share_runs,
)
from spacy_mtlner.entities import Fragments, merge_touching

N_TOKENS = 12

tokens = st.sets(st.integers(0, N_TOKENS - 1), min_size=1).map(
    lambda found: merge_touching((i, i + 1) for i in found)
)
candidate_lists = st.lists(tokens, max_size=8)


def make_spans(*bounds: tuple[int, int]) -> Candidates:
    return Candidates.of_fragments([(bound,) for bound in bounds])


def list_all(candidates: Candidates) -> list[Fragments]:
    return [candidates.fragments(i) for i in range(len(candidates))]


def expand(fragments: Fragments) -> list[int]:
    return [i for start, end in fragments for i in range(start, end)]


@given(candidate_lists)
def test_fragments_survive(found: list[Fragments]) -> None:
    candidates = Candidates.of_fragments(found)
    assert len(candidates) == len(found)
    assert list_all(candidates) == found
    assert [candidates.list_tokens(i).tolist() for i in range(len(found))] == [*map(expand, found)]
    assert candidates.firsts.tolist() == [fragments[0][0] for fragments in found]
    assert candidates.lasts.tolist() == [fragments[-1][1] - 1 for fragments in found]
    assert candidates.is_contiguous.tolist() == [len(fragments) == 1 for fragments in found]


def test_fragments_count_from_an_offset() -> None:
    candidates = Candidates.of_fragments([((5, 6), (8, 10)), ((7, 9),)])
    assert candidates.fragments(0, 5) == ((0, 1), (3, 5))
    assert candidates.fragments(1, 7) == ((0, 2),)


@given(candidate_lists, candidate_lists, st.randoms())
def test_select_and_join(a: list[Fragments], b: list[Fragments], random) -> None:
    joined = Candidates.of_fragments(a).join(Candidates.of_fragments(b))
    assert list_all(joined) == a + b
    chosen = [random.random() < 0.5 for _ in a + b]
    kept = joined.select(numpy.array(chosen, dtype=bool))
    assert list_all(kept) == [c for c, is_kept in zip(a + b, chosen, strict=True) if is_kept]


@pytest.mark.parametrize("backward", [False, True])
@given(found=candidate_lists)
def test_every_candidate_is_the_beginning_of_its_run(
    found: list[Fragments], backward: bool
) -> None:
    runs = share_runs(Candidates.of_fragments(found), backward=backward)
    for fragments, offset in zip(found, runs.offsets.tolist(), strict=True):
        wanted = expand(fragments)
        if backward:
            wanted.reverse()
        assert runs.tokens[offset : offset + len(wanted)].tolist() == wanted
        # It does not run over into the next run.
        owner = numpy.searchsorted(numpy.cumsum(runs.sizes), offset, side="right")
        assert offset + len(wanted) <= numpy.cumsum(runs.sizes)[owner]
    assert runs.sizes.sum() == len(runs.tokens)


def test_candidates_share_runs() -> None:
    candidates = make_spans((0, 1), (0, 3), (2, 3))
    ahead, back = (share_runs(candidates, backward=b) for b in (False, True))
    assert (ahead.tokens.tolist(), ahead.sizes.tolist()) == ([0, 1, 2, 2], [3, 1])
    assert (back.tokens.tolist(), back.sizes.tolist()) == ([0, 2, 1, 0], [1, 3])


@given(candidate_lists, candidate_lists)
def test_find_among(a: list[Fragments], b: list[Fragments]) -> None:
    is_among = find_among(Candidates.of_fragments(a), Candidates.of_fragments(b))
    assert is_among.tolist() == [fragments in b for fragments in a]


@given(
    st.lists(st.integers(0, 6), max_size=4),
    st.integers(1, 4),
    st.sampled_from([0.3, 1.0, 2.5, 99.0]),
    st.integers(0, 99),
)
def test_proposed_spans_are_the_best_of_each_row(
    rows: list[int], max_length: int, per_token: float, seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    starts, ends = random.normal(size=(2, sum(rows))).astype(numpy.float32)
    sizes = random.normal(size=max_length).astype(numpy.float32)
    found = propose_spans(starts, ends, sizes, numpy.array(rows, dtype=numpy.int64), per_token)
    wanted: list[Fragments] = []
    offset = 0
    for row in rows:
        spans = [
            (starts[i] + ends[j] + sizes[j - i], i, j + 1)
            for i in range(offset, offset + row)
            for j in range(i, min(i + max_length, offset + row))
        ]
        best = sorted(spans, reverse=True)[: int(numpy.ceil(per_token * row))]
        wanted += [((start, end),) for _, start, end in best]
        offset += row
    assert list_all(found) == wanted


def test_all_negatives_without_a_ratio() -> None:
    gold, others = make_spans((0, 2)), make_spans((0, 1), (4, 5), (6, 9))
    chosen, weights = sample_negatives(gold, others, None)
    assert list_all(chosen) == list_all(others)
    assert weights.tolist() == [1, 1, 1]


def test_hard_negatives_are_kept_and_easy_ones_stand_for_the_others() -> None:
    gold = make_spans((0, 2), (5, 6))
    hard = [(0, 1), (1, 2), (5, 8), (3, 6)]
    easy = [(7 + i, 8 + i) for i in range(20)]
    chosen, weights = sample_negatives(gold, make_spans(*hard, *easy), 4)
    assert [c for c in list_all(chosen)[:4]] == [(bound,) for bound in hard]
    assert len(chosen) == 4 + 2 * 4
    assert weights.tolist() == [1] * 4 + [20 / 8] * 8
    assert {c[0] for c in list_all(chosen)[4:]} <= set(easy)


def test_a_ratio_below_one_draws_one_at_least() -> None:
    gold, others = make_spans((0, 2)), make_spans(*((3 + i, 4 + i) for i in range(10)))
    for entities in (gold, make_spans()):
        chosen, weights = sample_negatives(entities, others, 0.5)
        assert len(chosen) == 1
        assert weights.tolist() == [10]


def test_easy_negatives_are_drawn_at_random() -> None:
    gold, others = make_spans((0, 2)), make_spans(*((3 + i, 4 + i) for i in range(50)))
    numpy.random.seed(0)
    a, b = (list_all(sample_negatives(gold, others, 5)[0]) for _ in range(2))
    numpy.random.seed(0)
    assert list_all(sample_negatives(gold, others, 5)[0]) == a != b


@pytest.mark.parametrize("ratio", [None, 0.0, 3.0])
def test_no_negatives(ratio: float | None) -> None:
    chosen, weights = sample_negatives(make_spans((0, 2)), NO_CANDIDATES, ratio)
    assert len(chosen) == len(weights) == 0


def test_texts_without_entities_teach_as_one_with_one() -> None:
    chosen, weights = sample_negatives(NO_CANDIDATES, make_spans((0, 1), (1, 2), (2, 3)), 2)
    assert len(chosen) == 2 and weights.tolist() == [1.5, 1.5]
