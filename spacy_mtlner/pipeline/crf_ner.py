"""`crf_ner`: flat entities by a conditional random field, each with its probability.

Implements "Application of Pre-training Models in Named Entity Recognition": a fully connected layer
and a CRF over an encoder, and its baseline with a BiGRU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Model
from torch import Tensor

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.entities import DEFAULT_KEY, Entity
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline.base import DEFAULT_SCORE_WEIGHTS, make_default_model
from spacy_mtlner.pipeline.gold import Gold, GoldSource
from spacy_mtlner.pipeline.tagging import (
    TaggingComponent,
    class_probabilities,
    decode_tags,
    make_tag_scheme,
    predict_with_confidence,
    tag_loss,
)

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.CRFTagger.v1"
rnn = "lstm"
hidden_width = 128
depth = 1
dropout = null
tag_scheme = "BILUO"
"""

DEFAULT_CRF_MODEL = make_default_model(DEFAULT_CONFIG)


@Language.factory(
    "crf_ner",
    assigns=["doc.spans", "doc.ents", "token.ent_iob", "token.ent_type"],
    default_config={
        "model": DEFAULT_CRF_MODEL,
        "spans_key": DEFAULT_KEY,
        "gold": "auto",
        "annotate_ents": True,
        "overwrite": False,
        "learn_rate_factor": 1.0,
        "scorer": {"@scorers": "spacy_mtlner.entity_scorer.v1"},
    },
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
def make_crf_ner(
    nlp: Language,
    name: str,
    model: Model[list[Doc], CRFScores],
    spans_key: str,
    gold: GoldSource,
    annotate_ents: bool,
    overwrite: bool,
    learn_rate_factor: float,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "CRFEntityRecognizer":
    """Construct a `crf_ner` component: see `CRFEntityRecognizer`."""
    return CRFEntityRecognizer(
        nlp.vocab,
        model,
        name,
        spans_key=spans_key,
        gold=gold,
        annotate_ents=annotate_ents,
        overwrite=overwrite,
        learn_rate_factor=learn_rate_factor,
        scorer=scorer,
    )


class CRFEntityRecognizer(TaggingComponent):
    """Finds contiguous entities that do not overlap: the best tag sequence of a CRF.

    An entity's score is its marginal: the probability, over all tag sequences, that exactly this
    entity stands there, its end included. Settings: see `EntityComponent`.
    """

    @property
    def tag_scheme(self) -> TagScheme:
        """RETURNS (TagScheme): The tags of the present labels."""
        return make_tag_scheme(self.model.attrs["tag_scheme"], self.labels)

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The number of tags."""
        return len(self.tag_scheme)

    def decode(self, docs: Sequence[Doc], scores: CRFScores) -> list[list[Entity]]:
        """Find the best tag sequence of each doc and read its entities.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (CRFScores): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text.
        """
        return decode_tags(scores, [len(doc) for doc in docs], self.tag_scheme)

    def predict_with_confidence(
        self, docs: Sequence[Doc]
    ) -> tuple[list[list[Entity]], NDArray[numpy.float64]]:
        """Predict the entities of docs, and how sure the tags of each doc as a whole are.

        docs (Sequence[Doc]): The docs.
        RETURNS (tuple[list[list[Entity]], NDArray[numpy.float64]]): Each doc's entities, and its
            confidence: see `path_confidence`.
        """
        self._require_initialized()
        return predict_with_confidence(docs, self.model.predict, self.tag_scheme)

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each label, and to be none: the CRF's
        marginals, exact and of the same meaning as entities' scores. A discontinuous span is none.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc; their labels are not read.
        RETURNS (list[NDArray[numpy.float32]]): For each doc a row for each span: see
            `EntityComponent.class_probabilities`.
        """
        self._require_initialized()
        return class_probabilities(docs, entities, self.model.predict, self.tag_scheme)

    def compute_loss(
        self, golds: Sequence[Gold | None], lengths: Sequence[int], scores: CRFScores
    ) -> Tensor:
        """Compute the weighted negative log-likelihood of the gold tags: see `tag_loss`.

        golds (Sequence[Optional[Gold]]): Each example's gold; None where it is not annotated.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (CRFScores): The model's output.
        RETURNS (Tensor): The loss, a scalar.
        """
        return tag_loss(scores, golds, lengths, self.tag_scheme)
