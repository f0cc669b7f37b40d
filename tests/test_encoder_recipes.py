"""The recipes over pre-trained encoders train each kind of encoder, and what they train is whole
without the encoder's folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config

from spacy_mtlner.entities import Entity, read_entities, write_entities
from tests.tiny_encoders import KINDS, make_tiny_encoder

CONFIGS = Path(__file__).parent.parent / "configs"
TRAIN = {
    "en": [
        ("Ada met Bob in Paris.", [("PER", 0, 1), ("PER", 2, 3), ("LOC", 4, 5)]),
        ("Carla went to Rome.", [("PER", 0, 1), ("LOC", 3, 4)]),
        ("Nobody came.", []),
        (" \n ", []),
    ],
    "zh": [
        ("王小明在北京工作。", [("PER", 0, 3), ("LOC", 4, 6)]),
        ("李红去上海。", [("PER", 0, 2), ("LOC", 3, 5)]),
        ("没有人来。", []),
        (" \n ", []),
    ],
}
# Longer than the tiny encoders' windows, and of characters that their tokenizers do not know.
UNSEEN = {"en": "Ada met Bob in Paris. " * 12 + "Zoé\u200b", "zh": "王小明在北京工作。" * 12 + "鑫"}


def train_recipe(name: str, lang: str, encoder: Path, folder: Path, **settings: Any) -> Language:
    """The pipeline after some steps, with the config's settings but these."""
    nlp = spacy.blank(lang)
    docs = []
    for text, spans in TRAIN[lang]:
        docs.append(nlp.make_doc(text))
        write_entities(docs[-1], [Entity(label, ((a, b),)) for label, a, b in spans], "mtlner")
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "corpus.spacy")
    overrides = {
        "paths.train": str(folder / "corpus.spacy"),
        "paths.dev": str(folder / "corpus.spacy"),
        "paths.encoder": str(encoder),
        "training.max_steps": 40,
        "training.eval_frequency": 20,
        "training.optimizer.learn_rate.warmup_steps": 4,
        # The encoder has learned nothing before.
        "training.optimizer.learn_rate.initial_rate": 0.002,
        **settings,
    }
    config = load_config(CONFIGS / f"{name}.cfg", overrides=overrides, interpolate=False)
    nlp = init_nlp(config)
    (folder / "trained").mkdir()
    train(nlp, folder / "trained")
    return spacy.load(folder / "trained" / "model-last")


def assert_whole(nlp: Language, lang: str, encoder: Path, folder: Path) -> None:
    """It knows its training corpus, and finds the same when it is loaded without the encoder."""
    texts = [*(text for text, _ in TRAIN[lang]), UNSEEN[lang], ""]
    found = [read_entities(doc) for doc in nlp.pipe(texts)]
    for (_, spans), entities in zip(TRAIN[lang], found, strict=False):
        assert [(e.label, *e.fragments) for e in entities] == [(x, (a, b)) for x, a, b in spans]
    assert found[len(TRAIN[lang])]
    shutil.rmtree(encoder)
    nlp.to_disk(folder / "saved")
    loaded = spacy.load(folder / "saved")
    for doc, entities in zip(loaded.pipe(texts), found, strict=True):
        again = read_entities(doc)
        assert [e.label for e in again] == [e.label for e in entities]
        assert [e.fragments for e in again] == [e.fragments for e in entities]
        scores = [e.score for e in again], [e.score for e in entities]
        numpy.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "lang"), [*((kind, "zh") for kind in KINDS), ("roberta", "en"), ("albert", "en")]
)
def test_every_kind_of_encoder(kind: str, lang: str, tmp_path: Path) -> None:
    encoder = make_tiny_encoder(kind, tmp_path / kind, [text for text, _ in TRAIN[lang]])
    nlp = train_recipe(f"transformer_crf_{lang}", lang, encoder, tmp_path)
    assert_whole(nlp, lang, encoder, tmp_path)


@pytest.mark.skipif(
    tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4),
    reason="spacy-curated-transformers 0.3 cannot train with numpy 2.4",
)
def test_curated_encoder(tmp_path: Path) -> None:
    pytest.importorskip("spacy_curated_transformers")
    texts = [text.lower() for text, _ in TRAIN["en"]]
    encoder = make_tiny_encoder("bert", tmp_path / "bert", texts)
    sizes = srsly.read_json(encoder / "config.json")
    model = "components.transformer.model"
    settings = {
        f"{model}.vocab_size": sizes["vocab_size"],
        f"{model}.hidden_width": sizes["hidden_size"],
        f"{model}.intermediate_width": sizes["intermediate_size"],
        f"{model}.num_hidden_layers": sizes["num_hidden_layers"],
        f"{model}.num_attention_heads": sizes["num_attention_heads"],
        f"{model}.max_position_embeddings": sizes["max_position_embeddings"],
        f"{model}.with_spans.window": 32,
        f"{model}.with_spans.stride": 24,
    }
    nlp = train_recipe("transformer_crf_curated", "en", encoder, tmp_path, **settings)
    assert_whole(nlp, "en", encoder, tmp_path)
