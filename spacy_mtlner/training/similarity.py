"""How much sentences of another corpus resemble the main one: the weights of eq. 4-6 of "A
Multi-Task BERT-BiLSTM-AM-CRF Strategy for Chinese Named Entity Recognition".
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from thinc.api import get_current_ops

from spacy_mtlner.pipeline.base import EntityComponent

Corpora = Mapping[str, Sequence[Doc]]
Numbers = NDArray[numpy.float64]
Similarity = Literal["tfidf", "vectors", "encoder"]

_ENCODED = 64  # Docs that run through the encoder at once.


def weigh_sentences(
    cosines: Mapping[str, Numbers], *, power: float, scale: float | None
) -> dict[str, Numbers]:
    """Compute fun(x, IN) of eq. 6, cos(v_x, v_IN)^d / C, cut off to [0, 1].

    cosines (Mapping[str, NDArray]): Cosines of each corpus's sentences and the main corpus, shape
        (n_sentences,) each; a negative one counts as 0.
    power (float): The power d.
    scale (Optional[float]): The divisor C; None for the highest cos^d of any sentence.
    RETURNS (dict[str, NDArray[numpy.float64]]): Weights in [0, 1], shape (n_sentences,) each.
    """
    powers = {key: values.clip(0, 1) ** power for key, values in cosines.items()}
    if scale is None:
        scale = max((values.max(initial=0.0) for values in powers.values()), default=0.0) or 1.0
    return {key: (values / scale).clip(0, 1) for key, values in powers.items()}


def measure_similarity(
    kind: Similarity, corpora: Corpora, main: str, nlp: Language
) -> dict[str, Numbers]:
    """Compute the cosine of the vector of each sentence and the mean one of the main corpus.

    kind (Similarity): The sentences' vectors: "tfidf"; "vectors", the means of the vocabulary's
        static vectors; or "encoder", the means of the token vectors that the pipeline's encoder
        gives at present.
    corpora (Mapping[str, Sequence[Doc]]): The corpora's sentences.
    main (str): The main corpus.
    nlp (Language): The pipeline.
    RETURNS (dict[str, NDArray[numpy.float64]]): Cosines of the other corpora's sentences, shape
        (n_sentences,) each.
    RAISES (ValueError): If there are no static vectors, or no component has an encoder.
    """
    if kind == "tfidf":
        return _tf_idf_cosines(corpora, main)
    if kind == "vectors":
        if not nlp.vocab.vectors.shape[1]:
            raise ValueError(
                "similarity = 'vectors' needs static vectors: set [initialize] vectors (in the "
                "recipes: --paths.vectors), or use 'tfidf' or 'encoder'."
            )
        vectors = {key: _average_static(docs) for key, docs in corpora.items()}
    else:
        vectors = {key: _encode(docs, nlp) for key, docs in corpora.items()}
    return _dense_cosines(vectors, main)


def _average_static(docs: Sequence[Doc]) -> Numbers:
    """Means of the docs' static vectors, (n_docs, width)."""
    to_numpy = get_current_ops().to_numpy
    return numpy.array([to_numpy(doc.vector) for doc in docs], dtype=numpy.float64)


def run_before(nlp: Language, name: str, docs: list[Doc]) -> list[Doc]:
    """Run the components before another one over docs.

    nlp (Language): The pipeline.
    name (str): The other component's name.
    docs (list[Doc]): The docs.
    RETURNS (list[Doc]): The docs, with what that component reads of the others.
    """
    for _, pipe in nlp.pipeline[: nlp.pipe_names.index(name)]:
        piped = pipe.pipe(docs, batch_size=len(docs)) if hasattr(pipe, "pipe") else map(pipe, docs)
        docs = list(piped)
    return docs


def has_encoder(nlp: Language) -> bool:
    """Tell whether the encoder that a component of this package reads can be run. It cannot while
    the pipeline is initialised, when components that are sourced or frozen are disabled.

    nlp (Language): The pipeline.
    RETURNS (bool): Whether it can.
    """
    components = [pipe for _, pipe in nlp.components if isinstance(pipe, EntityComponent)]
    disabled_by_training = set(nlp.disabled) - set(nlp.config["nlp"]["disabled"])
    return all(pipe.is_initialized for pipe in components) and not disabled_by_training


def _encode(docs: Sequence[Doc], nlp: Language) -> Numbers:
    """Means of the token vectors by the encoder of the first component of this package, (n_docs,
    width).
    """
    found = ((name, pipe) for name, pipe in nlp.pipeline if isinstance(pipe, EntityComponent))
    name, component = next(found, ("", None))
    if component is None:
        raise ValueError("similarity = 'encoder' needs a component of this package.")
    tok2vec = component.model.get_ref("tok2vec")
    filled = [i for i, doc in enumerate(docs) if len(doc)]
    means: list[Numbers] = []
    for batch in minibatch(filled, _ENCODED):
        # Copies: what the components write must not stay on the references.
        rows = tok2vec.predict(run_before(nlp, name, [docs[i].copy() for i in batch]))
        means.extend(tok2vec.ops.to_numpy(row).mean(0, dtype=numpy.float64) for row in rows)
    vectors = numpy.zeros((len(docs), max(map(len, means), default=0)))
    for i, mean in zip(filled, means, strict=True):
        if len(mean):  # Some encoders have no vectors for docs that are nothing but whitespace.
            vectors[i] = mean
    return vectors


def _dense_cosines(vectors: Mapping[str, Numbers], main: str) -> dict[str, Numbers]:
    """Cosines of vectors, (n_sentences, width), and the mean of the main corpus's unit vectors."""

    def normalise(rows: Numbers) -> Numbers:
        norms = numpy.linalg.norm(rows, axis=-1, keepdims=True)
        return numpy.divide(rows, norms, out=numpy.zeros_like(rows), where=norms > 0)

    mean = normalise(normalise(vectors[main]).mean(0))
    return {key: normalise(rows) @ mean for key, rows in vectors.items() if key != main}


def _tf_idf_cosines(corpora: Corpora, main: str) -> dict[str, Numbers]:
    """The same of TF-IDF vectors, which are too wide to be written out: a token weighs log(1 + n)
    for its n occurrences in the sentence, times log(N / N_t) for the N_t of N sentences that hold
    it.
    """
    docs = [doc for part in corpora.values() for doc in part]
    sizes = numpy.array([len(doc) for doc in docs])
    tokens = numpy.concatenate([doc.to_array("LOWER") for doc in docs])
    words, tokens = numpy.unique(tokens, return_inverse=True)
    n_words = max(len(words), 1)
    # One entry for each word of each sentence.
    pairs = numpy.arange(len(docs)).repeat(sizes) * n_words + tokens
    pairs, counts = numpy.unique(pairs, return_counts=True)
    row, word = numpy.divmod(pairs, n_words)
    values = numpy.log1p(counts) * numpy.log(len(docs) / numpy.bincount(word))[word]
    norms = numpy.sqrt(numpy.bincount(row, values**2, minlength=len(docs)))
    values /= numpy.where(norms > 0, norms, 1)[row]
    ends = dict(zip(corpora, numpy.cumsum([*map(len, corpora.values())]), strict=True))
    parts = {key: slice(end - len(corpora[key]), end) for key, end in ends.items()}
    is_main = (row >= parts[main].start) & (row < parts[main].stop)
    total = numpy.bincount(word[is_main], values[is_main], minlength=n_words).astype(numpy.float64)
    norm = float(numpy.linalg.norm(total))
    mean = total / norm if norm else total
    cosines = numpy.bincount(row, values * mean[word], minlength=len(docs)).astype(numpy.float64)
    return {key: cosines[part] for key, part in parts.items() if key != main}
