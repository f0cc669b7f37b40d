import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.types import Ragged
from transformers import AutoModel, AutoTokenizer

from spacy_mtlner.models.pieces import (
    SafeSpans,
    count_pieces,
    fill_gaps,
    make_safe_spans,
    piece_limit,
)
from tests.tiny_encoders import KINDS, make_tiny_encoder

TEXTS = ["Abc déf ghijk lmnop qrstuvw xyz 0123456789 .,-\N{GRINNING FACE}", "北京大学在海淀"]
ODD = [
    "a" * 50,
    "ab\r\ncd",
    "a\N{ZERO WIDTH SPACE}b \N{ZERO WIDTH SPACE} c",
    "Ｆｕｌｌ－ｗｉｄｔｈ　ｔｅｘｔ",
    "smile \N{GRINNING FACE}\N{GRINNING FACE} \N{FAMILY}!",
    "ligature \N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM} here",
    "北京大学 and ABC",
    "   \n\n ",
]
ENGLISH = spacy.blank("en")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tiny_encoder(request.param, tmp_path_factory.mktemp(request.param), TEXTS + ODD)
    return AutoTokenizer.from_pretrained(folder)


def covers(doc: Doc, spans: list[Any]) -> bool:
    """Whether windows cover the doc from left to right, each reaching further than the last."""
    if not spans:
        return len(doc) == 0
    return (
        spans[0].start == 0
        and spans[-1].end == len(doc)
        and all(a.start < b.start <= a.end < b.end for a, b in pairwise(spans))
    )


@pytest.mark.parametrize("text", [*ODD, " ".join(ODD), "北京大学" * 40, ""])
def test_windows_fit_whatever_the_text(tokenizer: Any, text: str) -> None:
    doc = ENGLISH(text)
    (spans,) = make_safe_spans(window=12, overlap=4)([doc], tokenizer=tokenizer, rooms=[62])
    assert covers(doc, spans)
    for span in spans:
        n_pieces = len(tokenizer(span.text, add_special_tokens=False)["input_ids"])
        # A word behind a cut may begin with a piece more than inside the text.
        assert n_pieces <= 12 + 1 or len(span) == 1


@given(st.lists(st.sampled_from(["a", "bc", "defghij", "北京", "\n"]), max_size=60), st.data())
def test_windows_without_tokenizer_are_safe(words: list[str], data: Any) -> None:
    window = data.draw(st.integers(1, 40))
    overlap = data.draw(st.integers(0, window - 1))
    doc = Doc(Vocab(), words=words)
    (spans,) = SafeSpans(window, overlap)([doc])
    assert covers(doc, spans)
    for span in spans:
        assert len(span.text.encode()) < window or len(span) == 1


def test_neighbours_share_the_overlap(tokenizer: Any) -> None:
    doc = Doc(Vocab(), words=["a"] * 100)
    counts = count_pieces(doc, tokenizer)
    (spans,) = SafeSpans(20, 6)([doc], tokenizer=tokenizer, rooms=[62])
    for left, right in pairwise(spans):
        shared = counts[right.start : left.end].sum()
        assert 6 - counts[right.start - 1] < shared <= 6


def test_short_docs_are_one_window(tokenizer: Any) -> None:
    docs = [ENGLISH("abc def"), ENGLISH(""), ENGLISH("\n")]
    spans = make_safe_spans()(docs, tokenizer=tokenizer, rooms=[62] * 3)
    assert [[(s.start, s.end) for s in row] for row in spans] == [[(0, 2)], [], [(0, 1)]]


def test_window_is_never_more_than_the_encoder_takes(tokenizer: Any) -> None:
    doc = Doc(Vocab(), words=["a"] * 200)
    (spans,) = make_safe_spans(window=500)([doc], tokenizer=tokenizer, rooms=[30])
    assert covers(doc, spans)
    assert max(len(span) for span in spans) <= 30


def test_counts_are_those_of_the_tokenizer(tokenizer: Any) -> None:
    doc = ENGLISH("Abc déf   \n ghijk 北京大学 xyz.")
    counts = count_pieces(doc, tokenizer)
    assert counts.shape == (len(doc),)
    assert counts.sum() == len(tokenizer(doc.text, add_special_tokens=False)["input_ids"])
    assert all(counts[token.i] >= 1 for token in doc if not token.is_space)


def test_counts_with_a_slow_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny_encoder("bert", tmp_path, TEXTS)
    vocab = AutoTokenizer.from_pretrained(folder).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=lambda piece: vocab[piece])))
    slow = AutoTokenizer.from_pretrained(folder, use_fast=False)
    fast = AutoTokenizer.from_pretrained(folder)
    doc = ENGLISH("abc ghijk 北京大学")
    assert not slow.is_fast
    assert count_pieces(doc, slow).tolist() == count_pieces(doc, fast).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_limit_is_the_encoders_where_the_tokenizer_knows_none(kind: str, tmp_path: Path) -> None:
    folder = make_tiny_encoder(kind, tmp_path, TEXTS)
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    tokenizer.model_max_length = int(1e30)
    limit = piece_limit(tokenizer, encoder)
    assert limit == 64
    encoder(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=torch.full((1, limit + 1), 5))
    tokenizer.model_max_length = 40
    assert piece_limit(tokenizer, encoder) == 40


@pytest.mark.parametrize(("window", "overlap"), [(-1, 0), (8, 8), (8, 9), (8, -1)])
def test_settings_that_do_not_fit_are_refused(window: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="must be 0 or larger than overlap"):
        make_safe_spans(window, overlap)


@pytest.mark.parametrize("text", ["plain", "é", "Ａ，", "\N{MATHEMATICAL BOLD CAPITAL A}", "ﷺ"])
def test_texts_have_no_more_pieces_than_the_bound(text: str) -> None:
    doc = Doc(Vocab(), words=[text])
    longest = max(len(unicodedata.normalize("NFKD", text).encode()), len(text.encode()))
    for window in (longest, longest + 1):
        (spans,) = SafeSpans(window, 0)([Doc(Vocab(), words=[text, "a"])])
        assert len(spans) == 2
    assert len(SafeSpans(longest + 4, 0)([doc])[0]) == 1


def test_unknown_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="set window to the encoder's limit"):
        make_safe_spans()([ENGLISH("abc")])


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=5))
def test_gaps_are_filled_from_the_nearest_token_of_the_doc(docs: list[list[int]]) -> None:
    """Against a loop over tokens; every doc is one window of one padded row."""
    width = 1 + max(sum(lengths) for lengths in docs)
    data = [[row * width + 1 + i for i in range(sum(lengths))] for row, lengths in enumerate(docs)]
    pieces = []
    for row, lengths in enumerate(docs):
        ends = numpy.cumsum(lengths)
        pieces.append([data[row][end - n : end] for end, n in zip(ends, lengths, strict=True)])
    expected = []
    for row, tokens in enumerate(pieces):
        for i, own in enumerate(tokens):
            before = [token for token in tokens[:i] if token]
            behind = [token for token in tokens[i + 1 :] if token]
            if own:
                expected.append(own)
            elif before:
                expected.append(before[-1][-1:])
            elif behind:
                expected.append(behind[0][:1])
            else:
                expected.append([row * width])
    flat = [piece for row in data for piece in row]
    lengths = [n for row in docs for n in row]
    align = Ragged(numpy.array(flat, dtype="i"), numpy.array(lengths, dtype="i"))
    spans = [[Doc(Vocab(), words=["a"] * len(row))[:]] for row in docs]
    filled = fill_gaps(align, [[], *spans, []], width)
    assert filled.lengths.tolist() == [len(row) for row in expected]
    assert filled.dataXd.tolist() == [piece for row in expected for piece in row]
