"""Tag sequences of a CRF: decoding, confidence and loss, for the components that tag."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.tokens import Doc
from torch import Tensor

from spacy_mtlner.codecs.tags import Spans, TagScheme
from spacy_mtlner.entities import Entity, select_flat
from spacy_mtlner.nn.crf import crf_decode, crf_decode_n_best, crf_path_marginals
from spacy_mtlner.nn.losses import crf_loss
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline.base import EntityComponent, classify_spans, split_docs, weigh_rows
from spacy_mtlner.pipeline.gold import Gold

# Building a scheme's tables takes longer than reading a short doc.
make_tag_scheme = lru_cache(maxsize=16)(TagScheme)
_SEGMENT_SCORES = 2**23  # Of the spans whose marginals are found at once: tokens times tags.


class TaggingComponent(EntityComponent):
    """Base of the components that tag: they represent flat entities."""

    @property
    def representable(self) -> str:
        """RETURNS (str): What entities the component can represent."""
        return "contiguous ones that do not overlap"

    def select_representable(self, entities: list[Entity]) -> list[Entity]:
        """Select contiguous entities that do not overlap: see `select_flat`.

        entities (list[Entity]): Gold entities of a doc, of one task.
        RETURNS (list[Entity]): Those that can be learned.
        """
        return select_flat(entities)


def decode_tags(scores: CRFScores, lengths: Sequence[int], scheme: TagScheme) -> list[list[Entity]]:
    """Find the best tag sequence of each row and read its entities.

    scores (CRFScores): The scores.
    lengths (Sequence[int]): The rows' lengths.
    scheme (TagScheme): The tags.
    RETURNS (list[list[Entity]]): Each row's entities, in order of the text.
    """
    entities: list[list[Entity]] = [[] for _ in lengths]
    transitions, start, end = scores.transitions, scores.start, scores.end
    for group in group_rows(lengths, scores.emissions.device):
        emissions = scores.emissions[group.index]  # (rows, length, n_tags)
        paths = crf_decode(emissions, transitions, start, end, group.mask)  # (rows, length)
        sizes = group.mask.sum(1).cpu().numpy()
        spans = scheme.decode(paths[group.mask].cpu().numpy(), sizes)
        # Only rows with entities need the sums over all paths.
        filled, rows = numpy.unique(spans.rows, return_inverse=True)
        if not len(filled):
            continue
        index = torch.from_numpy(filled).to(emissions.device)  # (filled rows,)
        crf = (emissions[index], transitions, start, end, group.mask[index])
        probabilities = _span_marginals(crf, replace(spans, rows=rows), scheme)
        rows_of_spans = group.rows[index].cpu().numpy()[rows]
        found = zip(
            rows_of_spans.tolist(),
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


def label_probabilities(
    scores: CRFScores, lengths: Sequence[int], spans: NDArray[numpy.int64], scheme: TagScheme
) -> NDArray[numpy.float64]:
    """Find the probability, over all tag sequences, that exactly an entity of each label stands at
    a span, its end included. Entities of two labels exclude each other: a row sums to 1 at most.

    scores (CRFScores): The scores.
    lengths (Sequence[int]): The rows' lengths.
    spans (NDArray[numpy.int64]): Row, start and end of each span, shape (n_spans, 3).
    scheme (TagScheme): The tags.
    RETURNS (NDArray[numpy.float64]): Shape (n_spans, n_labels).
    """
    n_labels = len(scheme.labels)
    result = numpy.zeros((len(spans), n_labels))
    transitions, start, end = scores.transitions, scores.start, scores.end
    for group in group_rows(lengths, scores.emissions.device):
        group_rows_ = group.rows.cpu().numpy()
        place = numpy.full(len(lengths), -1)
        place[group_rows_] = numpy.arange(len(group_rows_))
        own = numpy.flatnonzero(place[spans[:, 0]] >= 0)
        own = own[numpy.argsort(place[spans[own, 0]], kind="stable")]
        n_scores = numpy.cumsum((spans[own, 2] - spans[own, 1]) * n_labels * len(scheme))
        cuts = numpy.flatnonzero(numpy.diff(n_scores // _SEGMENT_SCORES)) + 1
        for chunk in numpy.split(own, cuts) if len(own) else ():
            filled, rows = numpy.unique(place[spans[chunk, 0]], return_inverse=True)
            index = torch.from_numpy(filled).to(scores.emissions.device)  # (filled rows,)
            crf = (
                scores.emissions[group.index[index]],  # (filled rows, length, n_tags)
                transitions,
                start,
                end,
                group.mask[index],
            )
            rows, starts, ends = (
                numpy.repeat(a, n_labels) for a in (rows, spans[chunk, 1], spans[chunk, 2])
            )
            labels = numpy.tile(numpy.arange(n_labels), len(chunk))
            marginals = _span_marginals(crf, Spans(rows, starts, ends, labels), scheme)
            result[chunk] = marginals.cpu().numpy().reshape(-1, n_labels)
    return result


def path_confidence(scores: CRFScores, lengths: Sequence[int]) -> NDArray[numpy.float64]:
    """Measure how far the best tag sequence of each row is ahead of the second best: eq. 2 of "A
    Multi-Task BERT-BiLSTM-AM-CRF Strategy for Chinese Named Entity Recognition".

    With the probabilities of both, (y - y_2nd) / y = 1 - exp(s_2nd - s), where s is a sequence's
    score: the sum over all sequences cancels out.

    scores (CRFScores): The scores.
    lengths (Sequence[int]): The rows' lengths.
    RETURNS (NDArray[numpy.float64]): Confidences in [0, 1], shape (n_rows,); 1 for an empty row and
        where only one sequence is legal.
    """
    confidences = numpy.ones(len(lengths))
    crf = (scores.transitions, scores.start, scores.end)
    for group in group_rows(lengths, scores.emissions.device):
        emissions = scores.emissions[group.index]  # (rows, length, n_tags)
        _, best = crf_decode_n_best(emissions, *crf, group.mask, n=2)  # (rows, 2)
        ahead = best[:, 0] - best[:, 1]  # inf where there is no second
        confidences[group.rows.cpu().numpy()] = -torch.expm1(-ahead).cpu().numpy()
    return confidences


def predict_with_confidence(
    docs: Sequence[Doc], predict: Callable[[list[Doc]], CRFScores], scheme: TagScheme
) -> tuple[list[list[Entity]], NDArray[numpy.float64]]:
    """Predict the entities of docs, and how sure the tags of each doc as a whole are.

    docs (Sequence[Doc]): The docs.
    predict (Callable[[list[Doc]], CRFScores]): The model.
    scheme (TagScheme): The tags.
    RETURNS (tuple[list[list[Entity]], NDArray[numpy.float64]]): Each doc's entities, and its
        confidence: see `path_confidence`.
    """
    entities: list[list[Entity]] = []
    confidences = [numpy.zeros(0)]
    for part in split_docs(docs):
        lengths = [len(doc) for doc in part]
        if any(lengths):
            scores = predict(part)
            entities.extend(decode_tags(scores, lengths, scheme))
            confidences.append(path_confidence(scores, lengths))
        else:
            entities.extend([] for _ in part)
            confidences.append(numpy.ones(len(part)))
    return entities, numpy.concatenate(confidences)


def class_probabilities(
    docs: Sequence[Doc],
    entities: Sequence[Sequence[Entity]],
    predict: Callable[[list[Doc]], CRFScores],
    scheme: TagScheme,
) -> list[NDArray[numpy.float32]]:
    """Tell how likely spans are to be an entity of each label, and to be none.

    docs (Sequence[Doc]): The docs.
    entities (Sequence[Sequence[Entity]]): The spans of each doc.
    predict (Callable[[list[Doc]], CRFScores]): The model.
    scheme (TagScheme): The tags.
    RETURNS (list[NDArray[numpy.float32]]): For each doc an array of shape (n_spans, n_labels + 1):
        see `label_probabilities`.
    """

    def classify(part: list[Doc], spans: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
        return label_probabilities(predict(part), [len(doc) for doc in part], spans, scheme)

    return classify_spans(docs, entities, len(scheme.labels), classify)


def tag_loss(
    scores: CRFScores, golds: Sequence[Gold | None], lengths: Sequence[int], scheme: TagScheme
) -> Tensor:
    """Compute the weighted negative log-likelihood of the gold tags; tokens of which nothing is
    known are marginalised.

    scores (CRFScores): The scores.
    golds (Sequence[Optional[Gold]]): Each row's gold; None where it is not annotated.
    lengths (Sequence[int]): The rows' lengths.
    scheme (TagScheme): The tags.
    RETURNS (Tensor): Sum of w_i l_i over the number of annotated rows, a scalar.
    """
    device = scores.emissions.device
    tags = torch.from_numpy(_encode(golds, numpy.asarray(lengths), scheme)).to(device)
    return crf_loss(scores, tags, lengths, *weigh_rows(golds, scores.emissions))


def _encode(golds: Sequence[Gold | None], lengths: Any, scheme: TagScheme) -> Any:
    """Gold tags of all tokens, (n_tokens,), or the possible ones, (n_tokens, n_tags)."""
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


def _span_marginals(
    crf: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], spans: Spans, scheme: TagScheme
) -> Tensor:
    """Probability that exactly each span stands in its row: (n_spans,)."""
    sizes = spans.ends - spans.starts
    alone = Spans(numpy.arange(len(sizes)), numpy.zeros_like(sizes), sizes, spans.labels)

    def to_torch(array: Any) -> Tensor:
        return torch.from_numpy(numpy.ascontiguousarray(array)).to(crf[0].device)

    return crf_path_marginals(
        *crf,
        rows=to_torch(spans.rows),
        starts=to_torch(spans.starts),
        lengths=to_torch(sizes),
        tags=to_torch(scheme.encode(alone, sizes)),
        not_next=to_torch(scheme.continuation[spans.labels]),
    )
