"""Save a small trained pipeline of each factory, with what it predicts, as a fixture of the tests.

python -m scripts.make_fixtures [FOLDER]

The folder, tests/fixtures/pipelines_<version> unless another is given, is made once for a version
and kept: later versions must load it and predict the same. Texts are those of assets/.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import spacy
import srsly
from spacy.language import Language
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_mtlner import __version__, read_entities
from spacy_mtlner.formats.corpus import make_corpus
from tests.pipeline.builders import FACTORIES, add_component, overfit

ROOT = Path(__file__).parent.parent
# The corpora of each pipeline: spans key and folder in assets/.
CORPORA: dict[str, dict[str, str]] = {
    "crf_ner": {"crf_ner": "news_zh"},
    "multitask_crf_ner": {"multitask_crf_ner": "news_zh", "others": "forum_zh"},
    "pointer_ner": {"pointer_ner": "bio_en"},
    "span_ner": {"span_ner": "bio_en"},
    "seq2seq_ner": {"seq2seq_ner": "reactions_en"},
}
N_TEXTS = 5  # Of each corpus: learned and kept.
STEPS = 150


def read_examples(nlp: Language, corpora: Mapping[str, str]) -> list[Example]:
    """Read the first texts of some corpora.

    nlp (Language): The pipeline.
    corpora (Mapping[str, str]): Spans keys, and folders in assets/.
    RETURNS (list[Example]): The examples.
    """
    examples = []
    for key, folder in corpora.items():
        read = make_corpus(ROOT / "assets" / folder / "train.jsonl", spans_key=key)
        examples.extend(list(read(nlp))[:N_TEXTS])
    return examples


def make_pipeline(factory: str) -> tuple[Language, list[str]]:
    """Train a small pipeline of a factory.

    factory (str): The factory.
    RETURNS (tuple[Language, list[str]]): The pipeline, and the texts that it has learned.
    """
    fix_random_seed(0)
    corpora = CORPORA[factory]
    nlp = spacy.blank(next(iter(corpora.values()))[-2:])
    config: dict[str, Any] = {"predicted_tasks": "all"} if "others" in corpora else {}
    add_component(nlp, factory, **config)
    keys = [f"spans_{key}_f" for key in corpora]
    nlp.config["training"]["score_weights"] = {"spans_mtlner_f": None} | dict.fromkeys(keys, 1.0)
    if factory == "pointer_ner":
        path = ROOT / "assets" / "descriptions_bio_en.json"
        nlp.config["initialize"]["components"] = {factory: {"descriptions": srsly.read_json(path)}}
    examples = read_examples(nlp, corpora)
    overfit(nlp, examples, *corpora, most=STEPS)
    return nlp, [example.text for example in examples]


def predict(nlp: Language, text: str) -> dict[str, list[Any]]:
    """Predict a text's entities.

    nlp (Language): The pipeline.
    text (str): The text.
    RETURNS (dict[str, list[Any]]): For each spans key label, fragments and score of each entity.
    """
    doc = nlp(text)
    return {
        key: [[e.label, [*map(list, e.fragments)], round(e.score, 4)] for e in entities]
        for key, entities in ((key, read_entities(doc, key)) for key in doc.spans)
    }


def main(folder: Path) -> None:
    """Save the pipelines, and their predictions as `expected.json`.

    folder (Path): Where they go; what is there is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    expected = {}
    for factory in FACTORIES:
        nlp, texts = make_pipeline(factory)
        # It is not trained again, and the paths of this machine are nobody's business.
        nlp.config["initialize"]["components"] = {}
        nlp.to_disk(folder / factory)
        expected[factory] = [{"text": text, "entities": predict(nlp, text)} for text in texts]
    srsly.write_json(folder / "expected.json", expected)


if __name__ == "__main__":
    version = "_".join(__version__.split(".")[:2])
    default = ROOT / "tests" / "fixtures" / f"pipelines_{version}"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
