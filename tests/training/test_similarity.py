"""Sentence weights, against values worked out by hand."""

import math
from typing import Any

import numpy
import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Model

from spacy_mtlner.entities import read_entities
from spacy_mtlner.training.similarity import measure_similarity, run_before, weigh_sentences

EMBED = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 16,
    "depth": 1,
    "embed_size": 100,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": False,
}


def make_docs(nlp: Language, *texts: str) -> list[Doc]:
    return [nlp.make_doc(text) for text in texts]


def test_weights_by_equation_6() -> None:
    cosines = {"a": numpy.array([0.5, 1.0, -0.5]), "b": numpy.array([0.25])}
    weights = weigh_sentences(cosines, power=2, scale=0.5)
    numpy.testing.assert_allclose(weights["a"], [0.5, 1.0, 0.0])  # 0.25 / 0.5, 1 / 0.5 cut off
    numpy.testing.assert_allclose(weights["b"], [0.125])
    weights = weigh_sentences(
        {"a": numpy.array([0.5, 0.2]), "b": numpy.array([0.4])}, power=1, scale=None
    )
    numpy.testing.assert_allclose(weights["a"], [1.0, 0.4])
    numpy.testing.assert_allclose(weights["b"], [0.8])


@given(
    st.lists(st.floats(-1, 1), max_size=5),
    st.lists(st.floats(-1, 1), max_size=5),
    st.floats(0.1, 5),
    st.none() | st.floats(0.1, 5),
)
def test_weights_are_in_range_and_keep_the_order(
    first: list[float], second: list[float], power: float, scale: float | None
) -> None:
    weights = weigh_sentences(
        {"a": numpy.array(first), "b": numpy.array(second)}, power=power, scale=scale
    )
    cosines, values = first + second, [*weights["a"], *weights["b"]]
    assert all(0 <= value <= 1 for value in values)
    for i in range(len(values)):
        for j in range(len(values)):
            assert cosines[i] <= cosines[j] or values[i] >= values[j]


def test_tf_idf_by_hand() -> None:
    nlp = spacy.blank("en")
    corpora = {
        "other": make_docs(nlp, "a b b", "d"),
        "main": make_docs(nlp, "a c", "c"),
        "third": make_docs(nlp, "", "C"),
    }
    found = measure_similarity("tfidf", corpora, "main", nlp)
    assert set(found) == {"other", "third"}
    idf = {word: math.log(6 / n) for word, n in {"a": 2, "b": 1, "c": 3, "d": 1}.items()}
    # The unit vectors of main's sentences, (a, c) and (c), and their mean.
    a, c = math.log(2) * idf["a"], math.log(2) * idf["c"]
    first = numpy.array([a, c]) / math.hypot(a, c)
    mean = (first + numpy.array([0, 1])) / 2
    mean /= numpy.linalg.norm(mean)
    b = math.log(3) * idf["b"]
    numpy.testing.assert_allclose(found["other"], [a / math.hypot(a, b) * mean[0], 0], atol=1e-12)
    numpy.testing.assert_allclose(found["third"], [0, mean[1]], atol=1e-12)  # Case is no matter.


def test_static_vectors_by_hand() -> None:
    nlp = spacy.blank("en")
    for word, vector in {"a": [1, 0], "b": [0, 1], "c": [-1, 0]}.items():
        nlp.vocab.set_vector(word, numpy.array(vector, dtype="f"))
    corpora = {
        "main": make_docs(nlp, "a", "a a"),
        "other": make_docs(nlp, "a b", "b", "c", "", "x"),
    }
    found = measure_similarity("vectors", corpora, "main", nlp)["other"]
    numpy.testing.assert_allclose(found, [math.sqrt(0.5), 0, -1, 0, 0], atol=1e-6)


def test_static_vectors_must_be_there() -> None:
    nlp = spacy.blank("en")
    docs = make_docs(nlp, "a")
    with pytest.raises(ValueError, match="needs static vectors"):
        measure_similarity("vectors", {"main": docs, "other": docs}, "main", nlp)


@pytest.mark.parametrize("is_shared", [True, False])
def test_encoder(is_shared: bool) -> None:
    """Means of the token vectors that the component reads, inline or from a component before."""
    nlp = spacy.blank("en")
    if is_shared:
        nlp.add_pipe("tok2vec", config={"model": EMBED})
        tok2vec = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
    else:
        tok2vec = EMBED
    component = nlp.add_pipe("crf_ner", config={"model": {"tok2vec": tok2vec, "rnn": None}})
    component.add_label("X")
    nlp.initialize()
    corpora = {
        "main": make_docs(nlp, "one two", "three"),
        "other": make_docs(nlp, "one", "", "two"),
    }
    found = measure_similarity("encoder", corpora, "main", nlp)["other"]

    def embed(text: str) -> numpy.ndarray:
        docs = run_before(nlp, "crf_ner", make_docs(nlp, text))
        vector = component.model.get_ref("tok2vec").predict(docs)[0].mean(0)
        return vector / numpy.linalg.norm(vector)

    main = embed("one two") + embed("three")
    main /= numpy.linalg.norm(main)
    numpy.testing.assert_allclose(found, [embed("one") @ main, 0, embed("two") @ main], rtol=1e-4)
    assert not any(read_entities(doc) for docs in corpora.values() for doc in docs)
    assert not any(len(doc.tensor) for docs in corpora.values() for doc in docs)


def test_encoder_without_vectors_for_whitespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of spacy-curated-transformers."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("crf_ner", config={"model": {"tok2vec": EMBED, "rnn": None}})
    component.add_label("X")
    nlp.initialize()
    corpora = {"main": make_docs(nlp, " ", "one"), "other": make_docs(nlp, "one", " \n")}
    tok2vec = component.model.get_ref("tok2vec")
    forward = tok2vec._func

    def without_whitespace(model: Model, docs: list[Doc], is_train: bool) -> Any:
        rows, backprop = forward(model, docs, is_train)
        return [
            row if doc.text.strip() else row[:, :0] for row, doc in zip(rows, docs, strict=True)
        ], backprop

    monkeypatch.setattr(tok2vec, "_func", without_whitespace)
    found = measure_similarity("encoder", corpora, "main", nlp)["other"]
    numpy.testing.assert_allclose(found, [1, 0], atol=1e-6)


def test_encoder_needs_a_component() -> None:
    nlp = spacy.blank("en")
    docs = make_docs(nlp, "a")
    with pytest.raises(ValueError, match="needs a component of this package"):
        measure_similarity("encoder", {"main": docs, "other": docs}, "main", nlp)
