"""Side texts: what is kept, and for how long. How encoders learn from them is tested with the
components that have some."""

import pickle
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.ml.models import build_hash_embed_cnn_tok2vec
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Model, chain, noop

from spacy_mtlner.pipeline import side_texts
from spacy_mtlner.pipeline.side_texts import PipelineRef, SideTexts


class Holder:
    """As much of a component as side texts need."""

    name = "holder"

    def __init__(self) -> None:
        tok2vec = build_hash_embed_cnn_tok2vec(
            width=4,
            depth=1,
            embed_size=20,
            window_size=1,
            maxout_pieces=2,
            subword_features=False,
            pretrained_vectors=None,
        )
        tok2vec.initialize()
        self.model: Model[Any, Any] = chain(tok2vec, noop())
        self.model.set_ref("tok2vec", tok2vec)
        self.texts = ["two words", "one"]
        self.n_made = 0

    def make_docs(self, nlp: Language) -> list[Doc]:
        self.n_made += 1
        return [nlp.make_doc(text) for text in self.texts]

    def __call__(self, doc: Doc) -> Doc:
        return doc


def make(nlp: Language) -> tuple[SideTexts, Holder]:
    holder = Holder()
    Language.component("holder", func=holder)
    nlp.add_pipe("holder")
    return SideTexts(nlp, holder, holder.make_docs, what="notes", remedy="drop them"), holder


def test_kept_until_something_changes() -> None:
    nlp = spacy.blank("en")
    texts, holder = make(nlp)
    rows = texts.predict(nlp.vocab)
    assert [row.shape for row in rows] == [(2, 4), (1, 4)]
    assert texts.predict(nlp.vocab) is rows
    texts.forget(is_encoder_alone=True)
    again = texts.predict(nlp.vocab)
    assert again is not rows and all((a == b).all() for a, b in zip(again, rows, strict=True))
    assert holder.n_made == 1
    holder.texts = ["three words now"]
    texts.forget()
    assert [row.shape for row in texts.predict(nlp.vocab)] == [(3, 4)]
    assert holder.n_made == 2


def test_no_docs_are_kept_from_a_memory_zone() -> None:
    nlp = spacy.blank("en")
    texts, holder = make(nlp)
    with nlp.memory_zone():
        rows = texts.predict(nlp.vocab)
    assert texts.predict(nlp.vocab) is rows  # They hold no words.
    docs = texts.docs(nlp.vocab)
    assert [doc.text for doc in docs] == holder.texts
    with nlp.memory_zone():
        assert texts.docs(nlp.vocab) is docs


def test_update_passes_gradients_and_forgets() -> None:
    nlp = spacy.blank("en")
    texts, holder = make(nlp)
    kept = texts.predict(nlp.vocab)
    rows, backprop = texts.begin_update(nlp.vocab)
    backprop([row * 0 + 1 for row in rows])
    tok2vec = holder.model.get_ref("tok2vec")
    assert any(
        node.has_grad(name) and abs(node.get_grad(name)).any()
        for node in tok2vec.walk()
        for name in node.param_names
    )
    assert texts.predict(nlp.vocab) is not kept and holder.n_made == 1


def test_finds_the_pipeline_it_was_moved_to() -> None:
    nlp, other = spacy.blank("en"), spacy.blank("en")
    texts, holder = make(nlp)
    assert texts.find_pipeline(nlp.vocab) is nlp
    nlp.remove_pipe("holder")
    with pytest.raises(
        ValueError, match="holder is in no pipeline, whose tokenizer its notes need"
    ):
        texts.find_pipeline(nlp.vocab)
    Language.component("holder", func=holder)
    other.add_pipe("holder")
    assert texts.find_pipeline(other.vocab) is other


def test_all_its_pipelines_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that alternates between pipelines, maybe in several threads, is not sought each time."""
    nlp, other = spacy.blank("en"), spacy.blank("en")
    texts, holder = make(nlp)
    other.add_pipe("holder")
    stranger = Vocab()
    calls = []
    find = side_texts._find_pipelines
    monkeypatch.setattr(side_texts, "_find_pipelines", lambda c: calls.append(c) or find(c))
    for _ in range(3):
        assert texts.find_pipeline(nlp.vocab) is nlp
        assert texts.find_pipeline(other.vocab) is other
        assert texts.find_pipeline(stranger) in (nlp, other)
    assert calls == [holder, holder]


def test_of_several_of_one_vocab_the_preferred() -> None:
    nlp = spacy.blank("en")
    texts, _ = make(nlp)
    other = spacy.blank("en", vocab=nlp.vocab)
    other.add_pipe("holder")
    assert texts.find_pipeline(nlp.vocab) is nlp
    texts.prefer(other)
    assert texts.find_pipeline(nlp.vocab) is other
    other.remove_pipe("holder")
    assert texts.find_pipeline(nlp.vocab) is nlp


def test_reference_is_weak_and_survives_pickling() -> None:
    nlp = spacy.blank("en")
    ref = PipelineRef(nlp)
    assert ref() is nlp
    assert pickle.loads(pickle.dumps(PipelineRef(None)))() is None
    del nlp
    import gc

    gc.collect()
    assert ref() is None
