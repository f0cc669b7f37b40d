"""Overlap of texts against sets of strings, and the leakage of real corpora."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.formats import Report, overlap, read_corpus
from spacy_mtlner.formats.overlap import (
    RUN_LENGTH,
    SPACED_RUN_LENGTH,
    RunIndex,
    hash_text,
)

# Few characters, so that runs are shared; case, white space, full width and lone surrogates.
texts = st.text("abAB \n\u3000ａ北ﬁß\ud83d", max_size=12) | st.text(max_size=6)
run_lengths = st.integers(1, 4)


def find_runs(text: str, n: int) -> set[str]:
    """The distinct runs, as strings."""
    text = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    runs = {text[i : i + n] for i in range(len(text) - n + 1)}
    return runs or ({text} if text else set())


def find_share(text: str, others: list[str], n: int) -> float:
    runs = find_runs(text, n)
    known = {run for other in others for run in find_runs(other, n)}
    return len(runs & known) / len(runs) if runs else 0.0


@given(searched=st.lists(texts, max_size=4), part=st.lists(texts, max_size=4), n=run_lengths)
def test_shares(searched: list[str], part: list[str], n: int) -> None:
    expected = [find_share(text, part, n) for text in searched]
    index = RunIndex(part, n=n)
    assert len(index) == len({run for text in part for run in find_runs(text, n)})
    assert index.shares(searched).tolist() == expected
    assert [index.share(text) for text in searched] == expected


@given(part=st.lists(texts, max_size=8), searched=st.lists(texts, max_size=8))
def test_chunks_make_no_difference(part: list[str], searched: list[str]) -> None:
    whole = RunIndex(part, n=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_CHUNK", 5)
        chunked = RunIndex(n=2)
        for text in part:
            chunked.add(text)
        assert len(chunked) == len(whole)
        assert chunked.shares(searched).tolist() == whole.shares(searched).tolist()


def test_a_short_text_is_found_as_a_whole_only() -> None:
    index = RunIndex(["Yes, of course.", "a long text that begins: Yes, of course."])
    assert index.share("yes,  OF course.") == 1.0
    assert index.share("Yes, of course") == 0.0
    assert index.share(" \n") == 0.0


def test_texts_do_not_run_into_each_other() -> None:
    halves = ["abcdefgh" * 2, "ijklmnop" * 2]
    assert RunIndex(halves).share("ghabcdefghijklmnopij") == 0.0


@pytest.mark.parametrize(
    "text, end, n",
    [
        ("The quick brown fox jumps over the lazy dog", "cat", SPACED_RUN_LENGTH),
        ("北京大学位于中国的首都北京市海淀区颐和园路五号", "三号楼", RUN_LENGTH),
    ],
)
def test_near_duplicates_by_default(text: str, end: str, n: int) -> None:
    """Runs are longer where words have blanks between them."""
    changed = text[:-3] + end
    texts = ["another text altogether", changed, text.upper()]
    n_runs = len(changed.replace(" ", "")) - n + 1
    assert RunIndex([text]).shares(texts).tolist() == [0.0, (n_runs - 3) / n_runs, 1.0]
    assert RunIndex().shares(texts).tolist() == [0.0] * 3


def test_order_and_place_of_characters_count() -> None:
    # Sums of plain code points would be the same for all of these.
    rotations = ["abcdefghijklmno"[i:] + "abcdefghijklmno"[:i] for i in range(15)]
    assert len(RunIndex(rotations)) == 15
    assert len(RunIndex("\0" * n for n in range(1, 15))) == 14


@given(a=texts, b=texts)
def test_text_hashes(a: str, b: str) -> None:
    assert (hash_text(a) == hash_text(b)) == (find_runs(a, 99) == find_runs(b, 99))


def test_text_hashes_are_the_same_everywhere() -> None:
    assert hash_text("ＮＥＷ  York") == hash_text("newyork") == 9459479283509638577


def test_a_run_has_characters() -> None:
    with pytest.raises(ValueError, match="at least 1 character, not -1"):
        len(RunIndex(["a"], n=-1))


@pytest.mark.slow
def test_leakage_of_real_corpora(data_dir: Path) -> None:
    """MSRA's train holds most of People's Daily's dev, often with other widths of digits."""
    train, dev = (
        [record.text for record in read_corpus(data_dir / name, "columns", Report(), lang="zh")]
        for name in ("msra/train.bio", "peoples_daily/example.dev")
    )
    shares = RunIndex(train).shares(dev)
    whole = {hash_text(text) for text in train}
    assert (len(dev), (shares > 0).sum(), (shares >= 0.5).sum()) == (2318, 2160, 2155)
    assert sum(hash_text(text) in whole for text in dev) == 1976
