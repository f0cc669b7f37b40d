"""Texts that stand in two parts of a corpus, whole or nearly so: leakage.

The measure is the share of a text's runs, its distinct runs of some characters, that stand in a
text of the other part. Case, white space and compatibility forms of characters are ignored.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy
from numpy.typing import NDArray

RUN_LENGTH = 15  # About ten words of Chinese.
SPACED_RUN_LENGTH = 25  # About five words of English, where shorter runs are common phrases.
NEAR_DUPLICATE = 0.5  # Share of a text's runs from which on it is a near-duplicate.

Hashes = NDArray[numpy.uint64]

_WORDS = 0.05  # Words between blanks per character: English has 0.2.
_CHUNK = 1 << 20  # Characters that are hashed at once.
_PADDING = 0x110000  # One more than any code point.
_BASE = numpy.uint64(0x9E3779B97F4A7C15)
_MIXERS = (numpy.uint64(0xBF58476D1CE4E5B9), numpy.uint64(0x94D049BB133111EB))


def normalise(text: str) -> str:
    """Bring a text into the form in which texts are compared.

    text (str): The text.
    RETURNS (str): The text without case, white space and compatibility forms of characters.
    """
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def hash_text(text: str) -> int:
    """Hash a text so that texts are exact duplicates if their hashes are equal.

    text (str): The text.
    RETURNS (int): 64 bits over the normalised text, the same in every process.
    """
    content = normalise(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


class RunIndex:
    """The runs of all texts of a part, as 64-bit hashes.

    Collisions are negligible: between two parts of a hundred million runs each, 0.0005 are to be
    expected.

    Takes eight bytes for each distinct run: about as many as the part has characters.

    texts (Iterable[str]): The texts.
    n (Optional[int]): Characters of a run. None to choose it when the first texts are taken in:
        `RUN_LENGTH`, or `SPACED_RUN_LENGTH` if their words are written with blanks between them.
    """

    def __init__(self, texts: Iterable[str] = (), *, n: int | None = None) -> None:
        self.n = n
        self._hashes = numpy.zeros(0, dtype=numpy.uint64)
        self._waiting: list[str] = []
        self._n_waiting = 0
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Add a text.

        text (str): The text.
        """
        self._waiting.append(text)
        self._n_waiting += len(text)
        # Growing with the index, so that a run is sorted a few times only.
        if self._n_waiting >= max(_CHUNK, len(self._hashes)):
            self._take_in()

    def __len__(self) -> int:
        """RETURNS (int): The number of distinct runs."""
        self._take_in()
        return len(self._hashes)

    def share(self, text: str) -> float:
        """Measure how much of a text stands in the part.

        text (str): The text.
        RETURNS (float): The share of its distinct runs that are in the index; 0.0 if it is empty.
        """
        return float(self.shares([text])[0])

    def shares(self, texts: Sequence[str]) -> NDArray[numpy.float64]:
        """Measure how much of each text stands in the part: faster than one by one.

        texts (Sequence[str]): The texts.
        RETURNS (NDArray[numpy.float64]): Their shares, shape (n_texts,).
        """
        self._take_in()
        if self.n is None:  # There are no texts.
            return numpy.zeros(len(texts))
        parts = (self._measure(chunk, self.n) for chunk in _in_chunks(texts))
        return numpy.concatenate([numpy.zeros(0), *parts])

    def _measure(self, texts: Sequence[str], n: int) -> NDArray[numpy.float64]:
        hashes, owners = _hash_all(texts, n)
        order = numpy.lexsort((hashes, owners))
        hashes, owners = hashes[order], owners[order]
        is_first = numpy.ones(len(hashes), dtype=bool)
        is_first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        hashes, owners = hashes[is_first], owners[is_first]
        n_runs = numpy.bincount(owners, minlength=len(texts))
        n_found = numpy.bincount(owners[self._holds(hashes)], minlength=len(texts))
        return n_found / numpy.maximum(n_runs, 1)

    def _holds(self, hashes: Hashes) -> NDArray[numpy.bool_]:
        if len(self._hashes) == 0:
            return numpy.zeros(len(hashes), dtype=bool)
        places = numpy.searchsorted(self._hashes, hashes)
        return self._hashes[numpy.minimum(places, len(self._hashes) - 1)] == hashes

    def _take_in(self) -> None:
        if self._waiting:
            n = self.n = self.n or _choose_length(self._waiting)
            chunks = (_hash_all(chunk, n)[0] for chunk in _in_chunks(self._waiting))
            new = [_distinct(chunk) for chunk in chunks]
            self._hashes = _distinct(numpy.concatenate([self._hashes, *new]))
            self._waiting.clear()
            self._n_waiting = 0


def _choose_length(texts: Iterable[str]) -> int:
    text = "".join(texts)
    return SPACED_RUN_LENGTH if len(text.split()) > _WORDS * len(text) else RUN_LENGTH


def _distinct(hashes: Hashes) -> Hashes:
    """Sorted distinct hashes, ten times faster than numpy.unique, which builds a table first."""
    ordered = numpy.sort(hashes)
    is_first = numpy.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def _in_chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in groups of about as many characters as are hashed at once."""
    first, size = 0, 0
    for i, text in enumerate(texts, start=1):
        size += len(text)
        if size >= _CHUNK or i == len(texts):
            yield texts[first:i]
            first, size = i, 0


def _hash_all(texts: Iterable[str], n: int) -> tuple[Hashes, NDArray[numpy.int64]]:
    """The hashes of all runs of some texts, and the index of the text that each belongs to."""
    if n < 1:
        raise ValueError(f"A run must have at least 1 character, not {n}.")
    codes = [_encode(normalise(text), n) for text in texts]
    values = _mix(numpy.concatenate([numpy.zeros(0, dtype=numpy.uint32), *codes]))
    lengths = numpy.array([len(code) for code in codes], dtype=numpy.int64)
    if len(values) < n:
        return numpy.zeros(0, dtype=numpy.uint64), numpy.zeros(0, dtype=numpy.int64)
    n_windows = len(values) - n + 1
    hashes = values[:n_windows].copy()
    for i in range(1, n):
        hashes *= _BASE
        hashes += values[i : i + n_windows]
    owners = numpy.repeat(numpy.arange(len(codes)), lengths)
    is_run = owners[:n_windows] == owners[n - 1 :]  # It begins and ends in one text.
    return hashes[is_run], owners[:n_windows][is_run]


def _encode(text: str, n: int) -> NDArray[numpy.uint32]:
    """A normalised text's code points; those of a short text, unless it is empty, are padded to a
    run that no longer text has.
    """
    codes = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    if 0 < len(codes) < n:
        padding = numpy.full(n - len(codes), _PADDING, dtype=numpy.uint32)
        return numpy.concatenate([codes, padding])
    return codes


def _mix(codes: NDArray[numpy.uint32]) -> Hashes:
    """Spread code points over 64 bits (the finaliser of SplitMix64), as sums of close ones would
    collide.
    """
    values = (codes.astype(numpy.uint64) + numpy.uint64(1)) * _BASE
    for shift, mixer in zip((30, 27), _MIXERS, strict=True):
        values ^= values >> numpy.uint64(shift)
        values *= mixer
    return values ^ (values >> numpy.uint64(31))
