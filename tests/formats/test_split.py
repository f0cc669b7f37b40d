"""Splits: partition, whole documents, every label everywhere, sizes, seeds, errors."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_mtlner.formats import CharEntity, Record, Report, read_corpus
from spacy_mtlner.formats.split import (
    Stratum,
    Summary,
    split_records,
    summarise,
)

PATH = Path("corpus")
SHARES = {"dev": 0.1, "test": 0.1}
LABELS = [Stratum("any", label) for label in "ABCD"]

counters = st.dictionaries(st.sampled_from(LABELS), st.integers(1, 3), max_size=3)


def make(
    strata: Mapping[Stratum, int], document: str | None = None, text: int | None = None
) -> Summary:
    return Summary(document, text, strata or {Stratum("none"): 1})


@st.composite
def corpora(draw: st.DrawFn) -> list[Summary]:
    """Records with and without documents, some of them copies."""
    document = st.none() | st.sampled_from(["a", "b", "c", "d", "e", "f"])
    text = st.none() | st.integers(0, 30)
    records = st.builds(make, counters, document, text)
    return draw(st.lists(records, min_size=1, max_size=40))


@given(summaries=corpora(), seed=st.integers(0, 5))
def test_partition(summaries: list[Summary], seed: int) -> None:
    try:
        split = split_records(summaries, SHARES, seed=seed)
    except ValueError as error:
        assert "--dev and --test need at least 3" in str(error)
        return
    assert len(split.parts) == len(summaries)
    assert split.records == {name: split.parts.count(name) for name in ("train", "dev", "test")}
    assert all(split.records.values()) and all(split.units.values())
    for stratum, counts in split.strata.items():
        for name, count in counts.items():
            records = [s for s, part in zip(summaries, split.parts, strict=True) if part == name]
            assert count == sum(summary.strata.get(stratum, 0) for summary in records)
    assert split == split_records(summaries, SHARES, seed=seed)


@given(summaries=corpora())
def test_documents_and_copies_stay_together(summaries: list[Summary]) -> None:
    try:
        split = split_records(summaries, SHARES)
    except ValueError:
        return
    parts: dict[str | int, set[str]] = {}
    parts_of_text: dict[int, set[str]] = {}
    for summary, part in zip(summaries, split.parts, strict=True):
        if summary.document is not None:
            parts.setdefault(summary.document, set()).add(part)
        if summary.text is not None:
            parts_of_text.setdefault(summary.text, set()).add(part)
            if summary.document is None:
                parts.setdefault(summary.text, set()).add(part)
    assert all(len(names) == 1 for names in parts.values())
    assert split.n_apart == sum(len(names) > 1 for names in parts_of_text.values())


def test_documents_that_share_half_of_their_texts_are_copies() -> None:
    texts = {
        "one": [1, 2, 3, 4],
        "copy": [3, 4, 5, 6],
        "excerpt": [1],
        "other": [4, 7, 8],
        "third": [9],
        "fourth": [10],
    }
    # One text of other is in one and in copy, but that is a third of it.
    for seed in range(20):
        summaries = [make({}, name, text) for name in texts for text in texts[name]]
        split = split_records(summaries, SHARES, seed=seed)
        parts = {s.document: part for s, part in zip(summaries, split.parts, strict=True)}
        assert parts["one"] == parts["copy"] == parts["excerpt"]
        assert sum(split.units.values()) == 4
        assert split.n_apart == (parts["other"] != parts["one"])


def test_formulas_do_not_chain_documents() -> None:
    # A record of its own that stands in all documents joins the largest of them only.
    summaries = [make({}, None, 0)]
    for number in range(10):
        summaries += [
            make({}, f"doc{number}", text) for text in (0, 3 * number + 1, 3 * number + 2)
        ]
    assert sum(split_records(summaries, SHARES).units.values()) == 10


@given(
    strata=st.lists(counters, min_size=3, max_size=7),
    n_parts=st.integers(2, 3),
    seed=st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_every_stratum_is_everywhere_if_any_split_can_do_it(
    strata: list[dict[Stratum, int]], n_parts: int, seed: int
) -> None:
    """Against all possible splits."""
    shares = {"dev": 0.1, "test": 0.1} if n_parts == 3 else {"dev": 0.3}
    summaries = [make(counter) for counter in strata]
    holders = {
        stratum: [i for i, summary in enumerate(summaries) if stratum in summary.strata]
        for stratum in {*LABELS, Stratum("none")}
    }
    required = [units for units in holders.values() if len(units) >= n_parts]
    required.append([*range(len(summaries))])
    is_possible = any(
        all(len({parts[i] for i in units}) == n_parts for units in required)
        for parts in product(range(n_parts), repeat=len(summaries))
    )
    split = split_records(summaries, shares, seed=seed)
    scarce = {stratum for stratum, units in holders.items() if 0 < len(units) < n_parts}
    assert set(split.missing) >= scarce
    if is_possible:
        assert set(split.missing) == scarce
    assert all(split.records.values())


@pytest.mark.parametrize("seed", range(5))
def test_rare_strata_are_everywhere(seed: int) -> None:
    rng = random.Random(seed)
    rare = [Stratum(form, f"L{i}") for i in range(20) for form in ("any", "discontinuous")]
    strata: list[Counter[Stratum]] = [Counter() for _ in range(2000)]
    for stratum in rare:
        for unit in rng.sample(range(2000), 3):
            strata[unit][stratum] += 1
    summaries = [make(counter) for counter in strata]
    split = split_records(summaries, SHARES, seed=seed)
    assert split.missing == []
    assert split.records == {"train": 1600, "dev": 200, "test": 200}
    assert all(counts == {"train": 1, "dev": 1, "test": 1} for s, counts in split.strata.items()
               if s.label)  # fmt: skip


def test_where_no_split_can_do_it_most_are_served() -> None:
    # Each label in two of three documents: two parts cannot both have all of them.
    a, b, c, _ = LABELS
    summaries = [make({a: 1, b: 1}), make({b: 1, c: 1}), make({a: 1, c: 1})]
    split = split_records(summaries, {"dev": 0.4})
    assert len(split.missing) == 1
    assert all(split.records.values())


def make_corpus(seed: int, n_documents: int = 200) -> list[Summary]:
    """Documents of 1 to 9 records, labels of very different frequency."""
    rng = random.Random(seed)
    weights = [0.5, 0.2, 0.05, 0.01]
    summaries = []
    for number in range(n_documents):
        for _ in range(rng.randint(1, 9)):
            found = {label: rng.randint(1, 3) for label, weight in zip(LABELS, weights, strict=True)
                     if rng.random() < weight}  # fmt: skip
            summaries.append(make(found, f"doc{number}"))
    return summaries


@pytest.mark.parametrize("seed", range(5))
def test_shares(seed: int) -> None:
    summaries = make_corpus(seed)
    shares = {"dev": 0.15, "test": 0.25}
    split = split_records(summaries, shares, seed=seed)
    for name, share in {"train": 0.6, **shares}.items():
        assert split.records[name] == pytest.approx(share * len(summaries), abs=5)
        for label in LABELS[:3]:
            total = sum(split.strata[label].values())
            assert split.strata[label][name] / total == pytest.approx(share, abs=0.04)


def test_single_records_are_shared_out_exactly() -> None:
    summaries = [replace(summary, document=None) for summary in make_corpus(0)]
    n = len(summaries)
    split = split_records(summaries, SHARES)
    assert all(abs(split.records[name] - 0.1 * n) < 1 for name in SHARES)
    assert split.strata[LABELS[0]]["dev"] == pytest.approx(
        0.1 * sum(split.strata[LABELS[0]].values()), rel=0.03
    )


def test_a_large_document_goes_where_it_has_room() -> None:
    for seed in range(20):
        summaries = make_corpus(seed, 20)
        large = [make({LABELS[0]: 1}, "large")] * len(summaries)
        split = split_records([*summaries, *large], SHARES, seed=seed)
        assert split.parts[-1] == "train"


def test_seeds() -> None:
    summaries = make_corpus(0)
    splits = [split_records(summaries, SHARES, seed=seed).parts for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_a_part_without_a_share_is_left_out() -> None:
    split = split_records(make_corpus(0), {"dev": 0.2, "test": 0.0})
    assert set(split.parts) == {"train", "dev"} == {*split.records}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"dev": -0.1, "test": 0.1}, "--dev is -0.1: a share must be at least 0"),
        ({"dev": 0.1, "test": 1.0}, "--test is 1.0: a share must be"),
        ({"dev": float("nan"), "test": 0.1}, "--dev is nan"),
        ({"dev": 0.5, "test": 0.5}, "--dev and --test are 1 together"),
        ({"dev": 0.0, "test": 0.0}, "--dev and --test are 0 together"),
        (SHARES, r"has 1 document\(s\), copies not counted; --dev and --test need at least 3"),
        ({"dev": 0.1, "test": 0.0}, r"has 1 document\(s\), .* --dev need at least 2"),
    ],
)
def test_errors(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_records([make({}, "a"), make({}, "a")], shares)


def test_no_records() -> None:
    with pytest.raises(ValueError, match="no records"):
        split_records([], SHARES)


def test_summary() -> None:
    entities = (
        CharEntity("ADR", ((0, 7), (25, 29))),
        CharEntity("ADR", ((0, 20),)),
        CharEntity("BODY", ((11, 20),)),
        CharEntity("BODY", ((25, 29),)),
        CharEntity("BODY", ((30, 34),)),
    )
    record = Record("Pain in my shoulders and hips feet", entities, PATH, 1, "post 1")
    summary = summarise(record)
    assert summary.document == "post 1"
    assert {str(stratum): count for stratum, count in summary.strata.items()} == {
        "ADR": 2,
        "BODY": 3,
        "discontinuous ADR": 1,
        "BODY inside another": 2,
    }
    empty = summarise(Record("\n", (), PATH, 1))
    assert (empty.text, {str(s): n for s, n in empty.strata.items()}) == (None, {"no entity": 1})
    assert summarise(replace(record, text=record.text.upper())).text == summary.text


def test_genia(data_dir: Path) -> None:
    records = read_corpus(data_dir / "genia/genia5.train.jsonl", "jsonl", Report())
    summaries = [summarise(record) for record in records]
    split = split_records(summaries, SHARES)
    assert split.records == {"train": 12019, "dev": 1502, "test": 1502}
    assert split.missing == []
    assert split.n_apart == 0
    discontinuous = Counter[str]()
    for stratum, counts in split.strata.items():
        total = sum(counts.values())
        if stratum.form == "discontinuous":
            discontinuous.update(counts)
        if stratum.form != "none":
            assert counts["dev"] / total == pytest.approx(0.1, abs=0.02)
    assert discontinuous.total() == 1063
