from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from thinc.api import Config

from spacy_mtlner.nn.quantise import Int8Linear
from spacy_mtlner.pipeline.precision import convert_precision, set_precision
from tests.encoder_pipeline import GOLD, TEXTS, find_names, list_scores, train_over_encoder
from tests.tiny_encoders import make_tiny_encoder

STOCK = "spacy-transformers.TransformerModel.v3"


@pytest.fixture(scope="module", params=[STOCK, "spacy_mtlner.TransformerModel.v1"])
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Language:
    folder = tmp_path_factory.mktemp("encoder")
    return train_over_encoder(make_tiny_encoder("bert", folder, TEXTS), request.param)


def has_int8(nlp: Language) -> bool:
    shims = nlp.get_pipe("transformer").model.layers[0].shims  # type: ignore[attr-defined]
    return any(isinstance(layer, Int8Linear) for layer in shims[0]._model.modules())


def test_copy_is_saved_at_int8(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "before")
    copied = convert_precision(tmp_path / "before", tmp_path / "after", "int8")
    loaded = spacy.load(tmp_path / "after")
    assert has_int8(copied) and has_int8(loaded)
    assert list_scores(loaded) == pytest.approx(list_scores(copied))
    assert [find_names(doc) for doc in loaded.pipe(TEXTS)] == [sorted(gold) for gold in GOLD]
    assert loaded.config["components"]["transformer"]["model"]["precision"] == "int8"
    assert loaded.meta["name"] == trained.meta["name"]


def test_float32_is_what_it_was(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "before")
    convert_precision(tmp_path / "before", tmp_path / "after", "float32")
    assert list_scores(spacy.load(tmp_path / "after")) == pytest.approx(list_scores(trained))


def test_inline_encoder_is_converted(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "shared")
    nlp = spacy.load(tmp_path / "shared")
    nlp.replace_listeners("transformer", "crf_ner", ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    nlp.to_disk(tmp_path / "before")
    convert_precision(tmp_path / "before", tmp_path / "after", "int8")
    loaded = spacy.load(tmp_path / "after")
    layers = loaded.get_pipe("crf_ner").model.walk()  # type: ignore[attr-defined]
    modules = [shim._model for layer in layers for shim in layer.shims]
    assert any(isinstance(layer, Int8Linear) for module in modules for layer in module.modules())
    assert list_scores(loaded) == pytest.approx(list_scores(nlp), abs=0.1)


def test_config_without_encoder_is_refused() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("crf_ner")
    with pytest.raises(ValueError, match="no pre-trained encoder"):
        set_precision(nlp.config, "int8")


def test_settings_that_only_the_stock_model_has_are_left_out() -> None:
    model = {"@architectures": STOCK, "name": "x", "mixed_precision": True}
    config = Config({"components": {"a": {"model": {**model, "grad_scaler_config": {}}}, "b": {}}})
    assert set_precision(config, "bfloat16") == ["a"]
    assert config["components"]["a"]["model"] == {
        "@architectures": "spacy_mtlner.TransformerModel.v1",
        "name": "x",
        "precision": "bfloat16",
    }
