"""The recipes: every config is complete, builds its pipeline, and differs only where it should."""

from pathlib import Path

import pytest
import spacy
from spacy.cli.evaluate import evaluate
from spacy.cli.train import train
from spacy.schemas import ConfigSchemaTraining
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.util import load_config, load_model_from_config

from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.formats.corpus import make_corpus

ASSETS = Path(__file__).parent.parent / "assets"
CONFIGS = sorted((ASSETS.parent / "configs").glob("*.cfg"))
RECIPES = sorted(path.stem[:-3] for path in CONFIGS if path.stem.endswith("_zh"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds_its_pipeline(path: Path) -> None:
    config = load_config(path)
    nlp = load_model_from_config(config, auto_fill=True, validate=True)
    assert nlp.pipe_names == config["nlp"]["pipeline"]
    training = spacy.registry.resolve(
        nlp.config.interpolate()["training"], schema=ConfigSchemaTraining
    )
    main = "typing_mtlner_acc" if path.stem.startswith("typing") else "spans_mtlner_f"
    assert {name: value for name, value in training["score_weights"].items() if value} == {
        main: 1.0
    }


@pytest.mark.parametrize("recipe", ["span", "typing"])
def test_recipes_over_vectors_tell_that_they_need_them(recipe: str, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc("Ada went home")
    write_entities(doc, [Entity("PER", ((0, 1),))])
    path = tmp_path / "train.spacy"
    DocBin(docs=[doc]).to_disk(path)
    (config,) = (c for c in CONFIGS if c.stem == f"{recipe}_en")
    overrides = {"paths.train": str(path), "paths.dev": str(path)}
    with pytest.raises(ValueError, match=r"^span_ner: .*paths\.vectors.*include_static_vectors"):
        init_nlp(load_config(config, overrides=overrides))


@pytest.mark.parametrize("name", ["bigru_crf_zh", "span_encoder_zh"])
def test_recipes_train_from_text_formats(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "few.jsonl"
    lines = (ASSETS / "news_zh" / "dev.jsonl").read_text(encoding="utf-8").splitlines(True)
    corpus.write_text("".join(lines[:8]), encoding="utf-8")
    (config,) = (c for c in CONFIGS if c.stem == name)
    overrides = {"paths.train": str(corpus), "paths.dev": str(corpus), "training.max_steps": 1}
    train(config, tmp_path / "out", overrides=overrides)
    scores = evaluate(str(tmp_path / "out" / "model-last"), write_docbin(corpus, tmp_path))
    assert "spans_mtlner_f" in scores


def write_docbin(corpus: Path, folder: Path) -> Path:
    docs = [example.reference for example in make_corpus(corpus)(spacy.blank("zh"))]
    assert sum(len(doc.spans["mtlner"]) for doc in docs) > len(docs)
    DocBin(docs=docs).to_disk(folder / "few.spacy")
    return folder / "few.spacy"


@pytest.mark.parametrize("recipe", RECIPES)
def test_languages_of_a_recipe_differ_in_the_embedding_only(recipe: str) -> None:
    zh, en = (
        load_config(path)
        for path in sorted(CONFIGS, reverse=True)
        if path.stem in (f"{recipe}_zh", f"{recipe}_en")
    )
    for config in (zh, en):
        del config["nlp"]["lang"]
        config["paths"].pop("encoder", None)
        (name,) = (name for name in config["nlp"]["pipeline"] if name.endswith("_ner"))
        tok2vec = config["components"][name]["model"]["tok2vec"]
        if "embed" in tok2vec:
            del tok2vec["embed"]
        else:
            tok2vec.clear()
    assert zh == en
