"""`crf_ner`: flat entities by a conditional random field, each with its probability.

Implements "Application of Pre-training Models in Named Entity Recognition": a fully connected layer
and a CRF over an encoder, and its baseline with a BiGRU.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Config, Model
from torch import Tensor

from spacy_mtlner.codecs.tags import Spans, TagScheme, ranges
from spacy_mtlner.entities import DEFAULT_KEY, Entity, select_flat
from spacy_mtlner.nn.crf import crf_decode, crf_path_marginals
from spacy_mtlner.nn.losses import crf_loss
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline.base import EntityComponent, Gold, GoldSource

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.CRFTagger.v1"
rnn = "lstm"
hidden_width = 128
depth = 1
dropout = null
tag_scheme = "BILUO"

[model.tok2vec]
@architectures = "spacy.HashEmbedCNN.v2"
pretrained_vectors = null
width = 96
depth = 4
embed_size = 2000
window_size = 1
maxout_pieces = 3
subword_features = true
"""

DEFAULT_CRF_MODEL = Config().from_str(DEFAULT_CONFIG)["model"]


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
    default_score_weights={
        f"spans_{DEFAULT_KEY}_f": 1.0,
        f"spans_{DEFAULT_KEY}_p": 0.0,
        f"spans_{DEFAULT_KEY}_r": 0.0,
    },
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


class CRFEntityRecognizer(EntityComponent):
    """Finds contiguous entities that do not overlap: the best tag sequence of a CRF.

    An entity's score is its marginal: the probability, over all tag sequences, that exactly this
    entity stands there, its end included. Settings: see `EntityComponent`.
    """

    @property
    def tag_scheme(self) -> TagScheme:
        """RETURNS (TagScheme): The tags of the present labels."""
        return _make_tag_scheme(self.model.attrs["tag_scheme"], self.labels)

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The number of tags."""
        return len(self.tag_scheme)

    @property
    def representable(self) -> str:
        """RETURNS (str): What entities the component can represent."""
        return "contiguous ones that do not overlap"

    def select_representable(self, entities: list[Entity]) -> list[Entity]:
        """Select contiguous entities that do not overlap: see `select_flat`.

        entities (list[Entity]): Gold entities of a doc.
        RETURNS (list[Entity]): Those that can be learned.
        """
        return select_flat(entities)

    def decode(self, docs: Sequence[Doc], scores: CRFScores) -> list[list[Entity]]:
        """Find the best tag sequence of each doc and read its entities.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (CRFScores): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text.
        """
        scheme = self.tag_scheme
        entities: list[list[Entity]] = [[] for _ in docs]
        transitions, start, end = scores.transitions, scores.start, scores.end
        for group in group_rows([len(doc) for doc in docs], scores.emissions.device):
            emissions = scores.emissions[group.index]  # (rows, length, n_tags)
            paths = crf_decode(emissions, transitions, start, end, group.mask)  # (rows, length)
            lengths = group.mask.sum(1).cpu().numpy()
            spans = scheme.decode(paths[group.mask].cpu().numpy(), lengths)
            # Only rows with entities need the sums over all paths.
            filled, rows = numpy.unique(spans.rows, return_inverse=True)
            if not len(filled):
                continue
            index = torch.from_numpy(filled).to(emissions.device)  # (filled rows,)
            crf = (emissions[index], transitions, start, end, group.mask[index])
            spans = replace(spans, rows=rows)
            probabilities = _span_marginals(crf, paths[index], spans, scheme)
            docs_of_spans = group.rows[index].cpu().numpy()[rows]
            found = zip(
                docs_of_spans.tolist(),
                spans.labels.tolist(),
                spans.starts.tolist(),
                spans.ends.tolist(),
                probabilities.tolist(),
                strict=True,
            )
            for row, label, first, behind, probability in found:
                entity = Entity(scheme.labels[label], ((first, behind),), probability)
                entities[row].append(entity)
        return entities

    def compute_loss(
        self, golds: Sequence[Gold | None], lengths: Sequence[int], scores: CRFScores
    ) -> Tensor:
        """Compute the weighted negative log-likelihood of the gold tags; tokens of which nothing is
        known are marginalised.

        golds (Sequence[Optional[Gold]]): Each example's gold; None where it is not annotated.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (CRFScores): The model's output.
        RETURNS (Tensor): The loss, a scalar.
        """
        device = scores.emissions.device
        tags = torch.from_numpy(self._encode(golds, numpy.asarray(lengths))).to(device)
        weights = [0.0 if gold is None else gold.weight for gold in golds]
        annotated = [gold is not None for gold in golds]
        return crf_loss(
            scores,
            tags,
            lengths,
            torch.tensor(weights, device=device, dtype=scores.emissions.dtype),
            torch.tensor(annotated, device=device),
        )

    def _encode(self, golds: Sequence[Gold | None], lengths: Any) -> Any:
        """Gold tags of all tokens, (n_tokens,), or the possible ones, (n_tokens, n_tags)."""
        scheme = self.tag_scheme
        label_ids = {label: i for i, label in enumerate(scheme.labels)}
        table = [
            (row, entity.start, entity.end, label_ids[entity.label])
            for row, gold in enumerate(golds)
            if gold is not None
            for entity in gold.entities
        ]
        spans = Spans(*numpy.array(table, dtype=numpy.int64).reshape(-1, 4).T)
        tags = scheme.encode(spans, lengths)
        unknown = [None if gold is None else gold.unknown for gold in golds]
        if all(mask is None for mask in unknown):
            return tags
        masks = [
            numpy.zeros(length, dtype=bool) if mask is None else mask
            for mask, length in zip(unknown, lengths, strict=True)
        ]
        return scheme.possible_tags(tags, numpy.concatenate(masks), lengths)


# Building a scheme's tables takes longer than reading a short doc.
_make_tag_scheme = lru_cache(maxsize=16)(TagScheme)


def _span_marginals(
    crf: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    paths: Tensor,
    spans: Spans,
    scheme: TagScheme,
) -> Tensor:
    """Probability of each span that the best paths, (rows, length), hold: (n_spans,)."""
    sizes = spans.ends - spans.starts
    positions = ranges(spans.rows * paths.shape[1] + spans.starts, sizes)

    def to_torch(array: Any) -> Tensor:
        return torch.from_numpy(numpy.ascontiguousarray(array)).to(paths.device)

    return crf_path_marginals(
        *crf,
        rows=to_torch(spans.rows),
        starts=to_torch(spans.starts),
        lengths=to_torch(sizes),
        tags=paths.flatten()[to_torch(positions)],
        not_next=to_torch(scheme.continuation[spans.labels]),
    )
