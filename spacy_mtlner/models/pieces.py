"""How a doc is cut into windows that fit an encoder, and which word pieces a token has."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy
from numpy.typing import NDArray
from spacy.attrs import IDX
from spacy.tokens import Doc, Span
from thinc.types import Ints1d, Ragged

Ints = NDArray[numpy.int64]


class SafeSpans:
    """Cuts docs into overlapping windows, measured in word pieces, that no encoder's limit cuts.

    window (int): Most pieces of a window, without those the tokenizer adds; 0 for as many as the
        encoder takes.
    overlap (int): Pieces that a window shares with the next one, at most half of it, at least
        where tokens allow.
    RAISES (ValueError): If the settings do not fit each other.
    """

    def __init__(self, window: int, overlap: int) -> None:
        if window < 0 or overlap < 0 or 0 < window <= overlap:
            raise ValueError(
                f"spacy_mtlner.safe_spans.v1: window ({window}) must be 0 or larger than overlap "
                f"({overlap}), and neither negative."
            )
        self.window = window
        self.overlap = overlap

    def __call__(
        self, docs: Sequence[Doc], *, tokenizer: Any = None, rooms: Sequence[int] | None = None
    ) -> list[list[Span]]:
        """Cut docs into windows. Without a tokenizer, as spaCy's stock transformer model calls a
        span getter, a token counts as many pieces as it can have at most.

        docs (Sequence[Doc]): The docs.
        tokenizer (Any): The encoder's tokenizer, of the package transformers.
        rooms (Optional[Sequence[int]]): The most pieces that the encoder takes in each doc's
            windows, without those the tokenizer adds.
        RETURNS (list[list[Span]]): The windows of each doc, none of an empty one.
        RAISES (ValueError): If the window is 0 and the encoder's limit not known.
        """
        if not self.window and rooms is None:
            raise ValueError(
                "spacy_mtlner.safe_spans.v1 with window = 0 needs an encoder that tells its limit, "
                "spacy_mtlner.TransformerModel.v1. Over another one set window to the encoder's "
                "limit without special pieces, for example 510."
            )
        return [
            [doc[start:end] for start, end in self._cut(doc, tokenizer, min(self.window or n, n))]
            for doc, n in zip(docs, rooms or [self.window] * len(docs), strict=True)
        ]

    def _cut(self, doc: Doc, tokenizer: Any, window: int) -> Iterator[tuple[int, int]]:
        overlap = min(self.overlap, window // 2)
        if _most_pieces(doc.text) <= window:
            counts: Sequence[int] | Ints = [0] * len(doc)
        elif tokenizer is None:
            counts = [_most_pieces(token.text) for token in doc]
        else:
            counts = count_pieces(doc, tokenizer)
        # Pieces before each token, and those of the whole doc: (n_tokens + 1,).
        before = numpy.concatenate([[0], numpy.cumsum(counts, dtype=numpy.int64)])
        start = 0
        while start < len(doc):
            end = int(numpy.searchsorted(before, before[start] + window, "right")) - 1
            end = max(end, start + 1)  # A token that is too long has a window of its own.
            yield start, end
            if end == len(doc):
                break
            # So far back that the token behind this window still fits into the next one.
            behind = max(before[end] - overlap, before[end + 1] - window)
            start = min(max(int(numpy.searchsorted(before, behind, "left")), start + 1), end)


def _most_pieces(text: str) -> int:
    """A tokenizer at most decomposes characters or not, cuts off each byte, and marks the start."""
    if text.isascii():
        return len(text) + 1

    def count_bytes(form: str) -> int:
        return len(form.encode("utf8", "surrogatepass"))

    normalize = unicodedata.normalize
    return 1 + sum(max(count_bytes(c), count_bytes(normalize("NFKD", c))) for c in text)


def make_safe_spans(window: int = 0, overlap: int = 64) -> SafeSpans:
    """Make a span getter of a `transformer` component's model, see `SafeSpans`.

    window (int): Most pieces of a window; 0 for as many as the encoder takes.
    overlap (int): Pieces that a window shares with the next one.
    RETURNS (SafeSpans): The span getter.
    RAISES (ValueError): If the settings do not fit each other.
    """
    return SafeSpans(window, overlap)


def count_pieces(doc: Doc, tokenizer: Any) -> Ints:
    """Count the word pieces of each token; one that several tokens share is the first one's.

    doc (Doc): The doc.
    tokenizer (Any): The tokenizer, of the package transformers.
    RETURNS (Ints): Shape (n_tokens,).
    """
    if not tokenizer.is_fast:  # It tells no positions.
        return numpy.array([len(tokenizer.tokenize(token.text)) for token in doc])
    # Not by the tokenizer's own call, which changes its state: another thread may be using it.
    encoded = tokenizer.backend_tokenizer.encode(doc.text, add_special_tokens=False)
    starts = numpy.array(encoded.offsets, dtype=numpy.int64).reshape(-1, 2)[:, 0]
    tokens = numpy.searchsorted(doc.to_array(IDX).astype(numpy.int64), starts, "right") - 1
    return numpy.bincount(tokens.clip(0), minlength=len(doc))


def piece_limit(tokenizer: Any, encoder: Any) -> int:
    """Find out how many word pieces an encoder takes at once, special ones included.

    tokenizer (Any): Its tokenizer, which may not know.
    encoder (Any): The encoder, of the package transformers.
    RETURNS (int): The number; 512 if neither says.
    """
    limits = [tokenizer.model_max_length]
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if table is not None and table.padding_idx is not None:
        # Padding has a position of its own (RoBERTa): counting begins behind it.
        limits.append(table.num_embeddings - table.padding_idx - 1)
    else:
        limits.append(getattr(encoder.config, "max_position_embeddings", None) or -1)
    # A tokenizer's "no limit" is 1e30.
    known = [limit for limit in limits if 0 < limit < 1_000_000]
    return min(known, default=512)


def fill_gaps(align: Ragged, spans: Sequence[Sequence[Span]], row_width: int) -> Ragged:
    """Give each token without a piece (whitespace, a zero-width character, one that was cut off)
    the last piece of the token before, else the first one of the token behind, or the window's
    first special piece if no token of its doc has any; its vector would be zero.

    align (Ragged): The indices of each token's pieces in the padded batch, for all docs that have
        windows.
    spans (Sequence[Sequence[Span]]): The windows of each doc.
    row_width (int): Pieces in a padded window.
    RETURNS (Ragged): The same with at least one piece for every token.
    """
    lengths = numpy.asarray(align.lengths)
    gaps = numpy.flatnonzero(lengths == 0)
    if not len(gaps):
        return align
    data = numpy.asarray(align.dataXd)
    filled = [windows for windows in spans if windows]
    sizes = [len(windows[0].doc) for windows in filled]
    rows = numpy.cumsum([0, *(len(windows) for windows in filled[:-1])])
    first = numpy.repeat(numpy.cumsum([0, *sizes[:-1]]), sizes)  # Of each token's doc.
    behind_last = first + numpy.repeat(sizes, sizes)
    ends = numpy.cumsum(lengths)
    token = numpy.arange(len(lengths))
    # The nearest token with pieces at or before each, and at or behind it.
    before = numpy.maximum.accumulate(numpy.where(lengths > 0, token, -1))[gaps]
    behind = numpy.where(lengths > 0, token, len(lengths))
    behind = numpy.minimum.accumulate(behind[::-1])[::-1][gaps]
    values = numpy.repeat(rows * row_width, sizes)[gaps]
    has_behind = behind < behind_last[gaps]
    values[has_behind] = data[(ends - lengths)[behind[has_behind]]]
    has_before = before >= first[gaps]
    values[has_before] = data[ends[before[has_before]] - 1]
    return Ragged(
        cast(Ints1d, numpy.insert(data, ends[gaps], values)),
        cast(Ints1d, numpy.maximum(lengths, 1)),
    )
