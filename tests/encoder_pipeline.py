"""A small pipeline over an untrained pre-trained encoder, trained on a few sentences."""

from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Config, Optimizer

TEXTS = [
    "Anna Ash lives in Berlin.",
    "Bob Birch and Carla Cedar met in Paris, then in Rome.",
    "北京大学",
    "Nobody came.",
]
GOLD = [[("Anna Ash", "PER")], [("Bob Birch", "PER"), ("Carla Cedar", "PER")], [], []]
PIPELINE = """
[nlp]
lang = "en"
pipeline = ["transformer","crf_ner"]

[components]

[components.transformer]
factory = "transformer"

[components.transformer.model]
@architectures = "spacy_mtlner.TransformerModel.v1"
name = "bert"

[components.transformer.model.get_spans]
@span_getters = "spacy_mtlner.safe_spans.v1"
window = 60
overlap = 10

[components.crf_ner]
factory = "crf_ner"

[components.crf_ner.model]
@architectures = "spacy_mtlner.CRFTagger.v1"

[components.crf_ner.model.tok2vec]
@architectures = "spacy-transformers.TransformerListener.v1"
grad_factor = 1.0

[components.crf_ner.model.tok2vec.pooling]
@layers = "reduce_mean.v1"
"""


def train_over_encoder(
    folder: Path, architecture: str = "spacy_mtlner.TransformerModel.v1"
) -> Language:
    """Train `crf_ner` over an encoder until it knows the sentences.

    folder (Path): The encoder's folder.
    architecture (str): The model of the component `transformer`.
    RETURNS (Language): The pipeline, which finds `GOLD` in `TEXTS`.
    """
    config = Config().from_str(PIPELINE)
    config["components"]["transformer"]["model"]["name"] = str(folder)
    config["components"]["transformer"]["model"]["@architectures"] = architecture
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    examples = []
    for text, gold in zip(TEXTS, GOLD, strict=True):
        doc = nlp.make_doc(text)
        starts = [text.index(name) for name, _ in gold]
        doc.set_ents(
            [
                doc.char_span(start, start + len(name), label)
                for start, (name, label) in zip(starts, gold, strict=True)
            ]
        )
        examples.append(Example(nlp.make_doc(text), doc))
    spacy.util.fix_random_seed(0)
    nlp.initialize(lambda: examples)
    optimizer = Optimizer(0.01)
    for _ in range(40):
        nlp.update(examples, sgd=False, drop=0.0)
        for _, pipe in nlp.pipeline:
            pipe.finish_update(optimizer)
    assert [find_names(doc) for doc in nlp.pipe(TEXTS)] == [sorted(gold) for gold in GOLD]
    return nlp


def find_names(doc: Doc) -> list[tuple[str, str]]:
    """The entities' texts and labels, sorted."""
    return sorted((entity.text, entity.label_) for entity in doc.ents)


def list_scores(nlp: Language) -> list[float]:
    """The scores of all entities found in `TEXTS`."""
    return [score for doc in nlp.pipe(TEXTS) for score in doc.spans["mtlner"].attrs["scores"]]
