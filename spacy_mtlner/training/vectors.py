"""Word vectors from a corpus, written as spaCy reads them."""

import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy
import spacy
import torch
from numpy.typing import NDArray
from spacy.attrs import IDS
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training.initialize import convert_vectors
from spacy.vectors import Mode, Vectors
from tqdm import tqdm

from spacy_mtlner.formats.base import CorpusError, Report, replacing
from spacy_mtlner.formats.raw import read_raw_docs
from spacy_mtlner.nn.glove import X_MAX, GloVe, count_cooccurrences, train_epoch

Method = Literal["glove", "floret", "word2vec"]
Numbers = NDArray[numpy.float32]

_EXTRA = "pip install 'spacy-mtlner[vectors]'"
_LIBRARIES = {"floret": "floret", "word2vec": "gensim"}
_SAMPLE = 1e-3  # Words of a higher share are passed over at times; floret's 1e-4 is for large text.
_MAX_SEED = 2**32 - 1  # numpy's, which gensim draws by.
_LINE = 1000  # Words of a line: gensim and floret cut off or break longer ones.


@dataclass(frozen=True)
class VectorSettings:
    """How vectors are made.

    method (Method): "glove", "word2vec" (skip-gram) or "floret" (skip-gram over parts of words).
    dim (int): Size of the vectors.
    min_count (int): Words that are rarer get no vector.
    window (int): How far the context of a word reaches to either side, in words.
    epochs (int): Passes over the corpus.
    lower (bool): Whether words that differ in case alone share a vector.
    seed (int): Seed of whatever is drawn; floret draws the order of the texts alone by it.
    threads (int): Threads. With several, floret and word2vec give other vectors in each run.
    x_max (float): GloVe: the count from which on pairs of words weigh the same (eq. 9).
    buckets (int): floret: rows of the table.
    hashes (int): floret: rows per word or part of a word, 1 to 4.
    min_chars (int): floret: the shortest parts of words, in characters; "<" and ">" at a word's
        borders count.
    max_chars (int): floret: the longest ones; 0 for whole words alone.
    RAISES (ValueError): If a setting is out of range.
    RAISES (ImportError): If the method's library is not installed.
    """

    method: Method = "glove"
    dim: int = 100
    min_count: int = 5
    window: int = 10
    epochs: int = 15
    lower: bool = True
    seed: int = 0
    threads: int = 1
    x_max: float = X_MAX
    buckets: int = 50_000
    hashes: int = 2
    min_chars: int = 4
    max_chars: int = 5

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            methods = ", ".join(get_args(Method))
            raise ValueError(f"--method {self.method!r}: choose one of {methods}.")
        for name in ("dim", "min_count", "window", "epochs", "threads", "buckets", "min_chars"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be 1 or more, not {getattr(self, name)}.")
        if not 0 < self.x_max < float("inf"):
            raise ValueError(f"--x-max must be a number above 0, not {self.x_max}.")
        if not 1 <= self.hashes <= 4:
            raise ValueError(f"--hashes must be from 1 to 4, not {self.hashes}.")
        if self.max_chars and self.max_chars < self.min_chars:
            raise ValueError(
                f"--max-chars must be 0 or --min-chars or more, not {self.max_chars} with "
                f"--min-chars {self.min_chars}."
            )
        if not 0 <= self.seed <= _MAX_SEED:
            raise ValueError(f"--seed must be from 0 to {_MAX_SEED}, not {self.seed}.")
        _import_library(self.method)


def _import_library(method: str) -> Any:
    """The library of a method; None if it needs none."""
    library = _LIBRARIES.get(method)
    if library is None:
        return None
    try:
        return import_module(f"{library}.models" if library == "gensim" else library)
    except ImportError as err:
        message = f"--method {method} needs the library {library} ({err}): {_EXTRA}"
        if library == "floret" and sys.version_info >= (3, 13):
            message += (
                ". For Python 3.13 and later floret has no wheels: `pip install floret` builds it, "
                "with a C++ compiler"
            )
        raise ImportError(f"{message}.") from None


@dataclass(frozen=True)
class Tokens:
    """The words of a corpus, white space left out.

    words (list[str]): The different words that have min_count occurrences, the most frequent first.
    forms (dict[str, int]): The place in `words` of each form that words have in texts: as they are
        in the corpus and, where case is no matter, in lower case, capitals and with one capital.
    counts (NDArray[numpy.int64]): How often each word occurs, shape (n_words,).
    ids (NDArray[numpy.int64]): Each such word of the corpus by its place in `words`, one text after
        the other, shape (n_tokens,).
    lengths (NDArray[numpy.int64]): Number of them in each text, shape (n_texts,).
    n_read (int): Words of the corpus, the rare ones included.
    n_different (int): Different words of the corpus, the rare ones included.
    """

    words: list[str]
    forms: dict[str, int]
    counts: NDArray[numpy.int64]
    ids: NDArray[numpy.int64]
    lengths: NDArray[numpy.int64]
    n_read: int
    n_different: int

    def read_lines(self) -> Iterator[list[str]]:
        """YIELDS (list[str]): The words of each text, long ones in several lines."""
        begin = 0
        for length in self.lengths.tolist():
            for start in range(begin, begin + length, _LINE):
                stop = min(start + _LINE, begin + length)
                yield [self.words[i] for i in self.ids[start:stop].tolist()]
            begin += length


@dataclass(frozen=True)
class Training:
    """What became of a training.

    seconds (float): The time that it took, without reading the corpus.
    losses (list[float]): GloVe: the loss of each epoch, eq. 8 per pair of words.
    """

    seconds: float
    losses: list[float]


def make_pipeline(lang: str) -> Language:
    """Make the empty pipeline whose vocabulary takes the vectors.

    lang (str): The language.
    RETURNS (Language): The pipeline.
    RAISES (ImportError): If the language is unknown or its tokenizer is not installed.
    """
    try:
        nlp = spacy.blank(lang)
    except ImportError as err:
        hint = "Choose another one with --lang, or 'xx' for rules of no certain language."
        raise ImportError(f"No tokenizer for language {lang!r}: {err} {hint}") from err
    nlp.max_length = sys.maxsize  # A limit for parsers, not for tokenizers.
    return nlp


def read_tokens(
    paths: Sequence[Path],
    lang: str,
    report: Report,
    *,
    lower: bool = True,
    min_count: int = 1,
    show_progress: bool = False,
) -> Tokens:
    """Read the words of corpora.

    paths (Sequence[Path]): Files and folders: see `read_raw_docs`.
    lang (str): The texts' language, for its tokenizer.
    report (Report): Counts what is skipped and passed over.
    lower (bool): Whether words that differ in case alone are one.
    min_count (int): Words that are rarer are left out.
    show_progress (bool): Show a progress bar, if it takes longer.
    RETURNS (Tokens): The words.
    RAISES (CorpusError): If a corpus cannot be read or has no text.
    RAISES (ValueError): If no word is frequent enough.
    """
    nlp = make_pipeline(lang)
    parts: list[NDArray[numpy.uint64]] = []
    for path in paths:
        docs = read_raw_docs(path, nlp, report)
        is_quiet = None if show_progress else True
        with tqdm(docs, unit=" texts", desc=path.name, delay=2, disable=is_quiet) as bar:
            found = [_get_words(doc) for doc in bar]
        if not any(map(len, found)):
            raise CorpusError(path, None, "Holds no words, nothing but white space.")
        parts += found
    lengths = numpy.array([len(part) for part in parts])
    keys, places = numpy.unique(numpy.concatenate(parts), return_inverse=True)
    forms = [nlp.vocab.strings[key] for key in keys.tolist()]
    numbers: dict[str, int] = {}
    of_forms = [numbers.setdefault(form.lower() if lower else form, len(numbers)) for form in forms]
    words = list(numbers)
    ids = numpy.array(of_forms)[places]  # (n_tokens,)
    counts = numpy.bincount(ids)
    # Forms come in the order of their hashes, which says nothing.
    order = sorted(range(len(words)), key=lambda i: (-counts[i], words[i]))
    kept = order[: int((counts >= min_count).sum())]
    if not kept:
        raise ValueError(
            f"No word occurs {min_count} times: the most frequent of {len(words)}, "
            f"{words[order[0]]!r}, does {counts[order[0]]} times. Lower --min-count, or give more "
            f"text."
        )
    ranks = numpy.full(len(words), -1)
    ranks[kept] = numpy.arange(len(kept))
    ids = ranks[ids]
    texts = numpy.arange(len(parts)).repeat(lengths)
    return Tokens(
        words=[words[i] for i in kept],
        forms=_list_forms([words[i] for i in kept], forms, ranks[of_forms].tolist(), lower),
        counts=counts[kept],
        ids=ids[ids >= 0],
        lengths=numpy.bincount(texts[ids >= 0], minlength=len(parts)),
        n_read=len(ids),
        n_different=len(words),
    )


def _list_forms(
    words: Sequence[str], found: Sequence[str], places: Sequence[int], lower: bool
) -> dict[str, int]:
    """The words' places by all their forms, those found in the corpus, of places below 0 where they
    are left out, and likely ones.
    """
    forms = {form: i for form, i in zip(found, places, strict=True) if i >= 0}
    if lower:
        for i, word in enumerate(words):
            for form in (word, word.upper(), word.capitalize()):
                forms.setdefault(form, i)
    return forms


def _get_words(doc: Doc) -> NDArray[numpy.uint64]:
    """The keys of a doc's words, (n_words,)."""
    columns = doc.to_array([IDS["ORTH"], IDS["IS_SPACE"]]).reshape(len(doc), 2)
    return columns[columns[:, 1] == 0, 0]


def train_vectors(
    tokens: Tokens, settings: VectorSettings, nlp: Language, *, show_progress: bool = False
) -> Training:
    """Make vectors and give them to a pipeline's vocabulary.

    tokens (Tokens): The corpus.
    settings (VectorSettings): How.
    nlp (Language): The pipeline, whose vectors are replaced.
    show_progress (bool): Show a progress bar, if it takes longer.
    RETURNS (Training): The loss and the time.
    RAISES (ValueError): If GloVe finds no words near each other.
    """
    start = time.perf_counter()
    losses: list[float] = []
    if settings.method == "floret":
        _train_floret(tokens, settings, nlp, show_progress=show_progress)
    else:
        if settings.method == "glove":
            data, losses = _train_glove(tokens, settings, show_progress=show_progress)
        else:
            data = _train_word2vec(tokens, settings, show_progress=show_progress)
        # spaCy does not save the attribute LOWER of such vectors: forms that share one are keys of
        # one row instead.
        vectors = Vectors(strings=nlp.vocab.strings, data=data)
        for form, row in tokens.forms.items():
            nlp.vocab.strings.add(form)
            vectors.add(form, row=row)
        nlp.vocab.vectors = vectors
    nlp.vocab.vectors.name = f"{nlp.lang}_{settings.method}_{settings.dim}.vectors"
    nlp.meta["vectors"]["name"] = nlp.vocab.vectors.name
    return Training(time.perf_counter() - start, losses)


def _train_glove(
    tokens: Tokens, settings: VectorSettings, *, show_progress: bool
) -> tuple[Numbers, list[float]]:
    """Vectors, (n_words, dim), and the loss of each epoch."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        generator = torch.Generator().manual_seed(settings.seed)
        pairs = count_cooccurrences(
            tokens.ids, tokens.lengths, n_words=len(tokens.words), window=settings.window
        )
        if not len(pairs.counts):
            raise ValueError(
                f"No word stands near another one: all texts have one word at most of those that "
                f"occur {settings.min_count} times. Lower --min-count, or give longer texts."
            )
        model = GloVe(len(tokens.words), settings.dim, x_max=settings.x_max, generator=generator)
        losses = []
        with _make_bar(settings.epochs * len(pairs.counts), " pairs", show_progress) as bar:
            for epoch in range(1, settings.epochs + 1):
                losses.append(train_epoch(model, pairs, generator=generator, on_step=bar.update))
                bar.set_postfix(epoch=epoch, loss=f"{losses[-1]:.4f}")
        return model.vectors.numpy(), losses
    finally:
        torch.set_num_threads(n_threads)


def _train_word2vec(tokens: Tokens, settings: VectorSettings, *, show_progress: bool) -> Numbers:
    """Vectors, (n_words, dim)."""
    models = _import_library("word2vec")
    with _make_bar(settings.epochs * len(tokens.ids), " words", show_progress) as bar:
        lines = _Lines(tokens, bar.update)
        model = models.Word2Vec(
            vector_size=settings.dim,
            window=settings.window,
            min_count=1,  # The rare ones are left out already.
            sg=1,
            sample=_SAMPLE,
            seed=settings.seed,
            workers=settings.threads,
        )
        model.build_vocab_from_freq(
            dict(zip(tokens.words, tokens.counts.tolist(), strict=True)),
            corpus_count=sum(1 for _ in tokens.read_lines()),
        )
        model.train(
            lines,
            total_examples=model.corpus_count,
            total_words=len(tokens.ids),
            epochs=settings.epochs,
        )
    return numpy.asarray(model.wv[tokens.words], dtype=numpy.float32)


def _train_floret(
    tokens: Tokens, settings: VectorSettings, nlp: Language, *, show_progress: bool
) -> None:
    """Give floret's table to a pipeline's vocabulary."""
    floret = _import_library("floret")
    lines = [" ".join(line) for line in tokens.read_lines()]
    # The library takes no seed: the order of the texts is what can be drawn.
    random.Random(settings.seed).shuffle(lines)
    with TemporaryDirectory() as folder:
        corpus, table = Path(folder) / "corpus.txt", Path(folder) / "vectors.floret"
        corpus.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        model = floret.train_unsupervised(
            str(corpus),
            model="skipgram",
            mode="floret",
            dim=settings.dim,
            minCount=1,  # The rare ones are left out already.
            ws=settings.window,
            epoch=settings.epochs,
            bucket=settings.buckets,
            hashCount=settings.hashes,
            minn=settings.min_chars if settings.max_chars else 0,
            maxn=settings.max_chars,
            t=_SAMPLE,
            thread=settings.threads,
            verbose=2 if show_progress and sys.stderr.isatty() else 0,
        )
        model.save_floret_vectors(str(table))
        attr = "LOWER" if settings.lower else "ORTH"
        convert_vectors(nlp, table, truncate=0, prune=0, mode="floret", attr=attr)


def _make_bar(total: int, unit: str, show_progress: bool) -> "tqdm[Any]":
    return tqdm(
        total=total, unit=unit, unit_scale=True, delay=2, disable=None if show_progress else True
    )


@dataclass(frozen=True)
class _Lines:
    """The lines of a corpus, as often as they are asked for."""

    tokens: Tokens
    on_line: Callable[[int], object]

    def __iter__(self) -> Iterator[list[str]]:
        for line in self.tokens.read_lines():
            yield line
            self.on_line(len(line))


def choose_words(tokens: Tokens, nlp: Language, n: int) -> list[str]:
    """Choose words that show what vectors are worth: the most frequent ones that are no stop words,
    numbers, punctuation or single letters.

    tokens (Tokens): The corpus.
    nlp (Language): A pipeline of its language.
    n (int): How many, at most.
    RETURNS (list[str]): The words.
    """
    chosen: list[str] = []
    for word in tokens.words:
        if len(chosen) == n:
            break
        lexeme = nlp.vocab[word]
        is_letter = len(word) == 1 and word.isascii()
        if lexeme.is_alpha and not (lexeme.is_stop or lexeme.like_num or is_letter):
            chosen.append(word)
    return chosen


def find_neighbours(
    words: Iterable[str], tokens: Tokens, nlp: Language, *, n: int = 8
) -> dict[str, list[tuple[str, float]]]:
    """Find the words of a corpus whose vectors are nearest to those of some words, by cosine.

    words (Iterable[str]): The words.
    tokens (Tokens): The corpus.
    nlp (Language): The pipeline with the vectors.
    n (int): How many neighbours, at most.
    RETURNS (dict[str, list[tuple[str, float]]]): Each word's neighbours with their cosines, the
        nearest first; none for a word without a vector.
    """
    vectors = nlp.vocab.vectors
    is_floret = vectors.mode == Mode.floret
    rows = vectors.get_batch(tokens.words) if is_floret else vectors.data
    table = _normalise(rows)  # (n_words, dim)
    found: dict[str, list[tuple[str, float]]] = {}
    for word in words:
        own = tokens.forms.get(word)
        if own is not None:
            row = table[own]  # (dim,)
        elif is_floret:
            form = word.lower() if vectors.attr == IDS["LOWER"] else word
            row = _normalise(vectors.get_batch([form]))[0]  # (dim,)
        else:
            found[word] = []
            continue
        cosines = table @ row  # (n_words,)
        nearest = numpy.argsort(-cosines, kind="stable")[: n + 1].tolist()
        near = [(tokens.words[i], float(cosines[i])) for i in nearest if i != own]
        found[word] = near[:n]
    return found


def _normalise(rows: Numbers) -> Numbers:
    norms = numpy.linalg.norm(rows, axis=-1, keepdims=True)
    return numpy.divide(rows, norms, out=numpy.zeros_like(rows), where=norms > 0)


def check_output(path: Path, *, force: bool = False) -> None:
    """Check that vectors can be written to a path.

    path (Path): The folder.
    force (bool): Whether a pipeline that is there may be replaced.
    RAISES (ValueError): If they cannot.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / "meta.json").is_file():
        raise ValueError(f"{path} exists and holds no pipeline: name a new folder.")
    if not force:
        raise ValueError(f"{path} exists: --force replaces it.")


def write_vectors(nlp: Language, path: Path, *, force: bool = False) -> None:
    """Write a pipeline with vectors, for `[initialize] vectors` and `spacy.load`. The folder
    appears when it is complete.

    nlp (Language): The pipeline.
    path (Path): The folder.
    force (bool): Whether a pipeline that is there may be replaced.
    RAISES (ValueError): If there is something that must not be replaced.
    """
    check_output(path, force=force)
    with replacing(path) as part:
        nlp.to_disk(part)
        if path.exists():
            shutil.rmtree(path.resolve())
