"""`span_ner`: candidate spans, each read and classified by itself.

Implements "A Span-Level Strategy for Nested Named Entity Recognition". The paper classifies given
gold spans, which is entity typing; here that is the setting `typing`, and recognition stands beside
it: candidates of any origin, and a class for what is no entity.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import logger
from spacy.vocab import Vocab
from thinc.api import Config, Model
from torch import Tensor

from spacy_mtlner.codecs.spans import NO_CANDIDATES, Candidates, FloatArray, find_among
from spacy_mtlner.codecs.tags import BoolArray
from spacy_mtlner.entities import DEFAULT_KEY, Entity, Fragments, read_fragments, shift_fragments
from spacy_mtlner.models.span_classifier import SpanInputs
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn.losses import SpanGold, span_loss
from spacy_mtlner.nn.span import SpanRequest, SpanScores
from spacy_mtlner.pipeline.base import (
    DEFAULT_SCORE_WEIGHTS,
    EntityComponent,
    check_ends,
    make_default_model,
    split_docs,
    weigh_rows,
)
from spacy_mtlner.pipeline.gold import Gold, GoldReport, GoldSource, known_tokens
from spacy_mtlner.pipeline.suggesters import BoundarySuggester, Suggester, suggest_spans
from spacy_mtlner.scoring import score_names, typing_score_names

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.SpanClassifier.v1"
context = "encoder"
rnn = "lstm"
hidden_width = 128
depth = 1
span_width = 128
dropout = null
"""

DEFAULT_SPAN_MODEL = make_default_model(DEFAULT_CONFIG)

DEFAULT_SUGGESTER = """
[suggester]
@misc = "spacy_mtlner.boundary_suggester.v1"
max_length = 32
per_token = 1.0
"""

_REPORTED_DOCS = 2000  # Whose candidates are counted at initialisation.
_ENOUGH = 0.95  # Recall of the candidates below which there is a warning.


@Language.factory(
    "span_ner",
    assigns=["doc.spans"],
    default_config={
        "model": DEFAULT_SPAN_MODEL,
        "spans_key": DEFAULT_KEY,
        "gold": "auto",
        "annotate_ents": False,
        "overwrite": False,
        "learn_rate_factor": 1.0,
        "suggester": Config().from_str(DEFAULT_SUGGESTER)["suggester"],
        "candidates_key": None,
        "typing": False,
        "threshold": 0.5,
        "negative_ratio": None,
        "scorer": {"@scorers": "spacy_mtlner.entity_scorer.v1"},
    },
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
def make_span_ner(
    nlp: Language,
    name: str,
    model: Model[SpanInputs, SpanScores],
    spans_key: str,
    gold: GoldSource,
    annotate_ents: bool,
    overwrite: bool,
    learn_rate_factor: float,
    suggester: Suggester | None,
    candidates_key: str | None,
    typing: bool,
    threshold: float,
    negative_ratio: float | None,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "SpanEntityRecognizer":
    """Construct a `span_ner` component: see `SpanEntityRecognizer`."""
    return SpanEntityRecognizer(
        nlp.vocab,
        model,
        name,
        spans_key=spans_key,
        gold=gold,
        annotate_ents=annotate_ents,
        overwrite=overwrite,
        learn_rate_factor=learn_rate_factor,
        suggester=suggester,
        candidates_key=candidates_key,
        typing=typing,
        threshold=threshold,
        negative_ratio=negative_ratio,
        scorer=scorer,
    )


class SpanEntityRecognizer(EntityComponent):
    """Finds entities among candidates, nested ones included, and discontinuous ones where another
    component suggests them. An entity's score is the probability of its class.

    suggester (Optional[Suggester]): Suggests the candidates: one of spaCy's `misc` registry, or a
        `BoundarySuggester`. None if they are in candidates_key.
    candidates_key (Optional[str]): Spans key under which a component before this one, or the corpus
        reader, puts the candidates.
    typing (bool): Classify the candidates of candidates_key without asking whether they are
        entities: each gets its most likely label. Gold entities are the candidates in training.
    threshold (float): The lowest score of an entity, in recognition.
    negative_ratio (Optional[float]): How many candidates that are no entities, beside the hard
        ones, are learned for each entity: see `sample_negatives`; None for all.
    Other settings: see `EntityComponent`.
    RAISES (ValueError): If a setting is out of its range, or the origin of the candidates unclear.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        suggester: Suggester | None,
        candidates_key: str | None,
        typing: bool,
        threshold: float,
        negative_ratio: float | None,
        **settings: Any,
    ) -> None:
        super().__init__(vocab, model, name, **settings)
        if (suggester is None) == (not candidates_key):
            raise ValueError(
                f"{name}: give either a suggester or a candidates_key, and null for the other one."
            )
        if typing and candidates_key is None:
            raise ValueError(
                f"{name}: typing = true classifies given candidates: set suggester = null and "
                f"candidates_key to their spans key."
            )
        if candidates_key == self.key:
            raise ValueError(
                f"{name}: candidates_key must differ from spans_key, under which the entities are "
                f"written, but both are {candidates_key!r}."
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name}: threshold must be in [0, 1], not {threshold}.")
        if negative_ratio is not None and not negative_ratio > 0:
            raise ValueError(f"{name}: negative_ratio must be above 0, not {negative_ratio}.")
        self.suggester = suggester
        self.cfg.update(
            candidates_key=candidates_key,
            typing=typing,
            threshold=threshold,
            negative_ratio=negative_ratio,
        )
        if isinstance(suggester, BoundarySuggester):
            model.attrs["length_logits"] = [0.0] * suggester.max_length

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The number of classes: the labels and, but for typing, no entity."""
        return len(self.labels) + self._first_class

    @property
    def _first_class(self) -> int:
        """The class of the first label. "No entity" comes before, so that labels can be added."""
        return 0 if self.cfg["typing"] else 1

    @property
    def score_names(self) -> list[str]:
        """RETURNS (list[str]): The scores that a config may give a weight to."""
        return typing_score_names(self.key) if self.cfg["typing"] else score_names(self.key)

    @property
    def representable(self) -> str:
        """RETURNS (str): What the component learns."""
        if isinstance(self.suggester, BoundarySuggester):
            return f"contiguous ones of at most {self.suggester.max_length} tokens"
        return "contiguous ones" if self.suggester else "all"

    def _require_initialized(self) -> None:
        super()._require_initialized()
        if isinstance(self.suggester, BoundarySuggester):
            module = get_module_shim(self.model.get_ref("output_layer")).module
            learned = len(cast(Tensor, module.lengths))
            if learned != self.suggester.max_length:
                raise ValueError(
                    f"{self.name} was trained with boundaries of spans of up to {learned} tokens, "
                    f"but its boundary_suggester has max_length = {self.suggester.max_length}: of "
                    f"a trained component, only per_token can be changed."
                )

    def select_representable(self, entities: list[Entity]) -> list[Entity]:
        """Select what the origin of the candidates can suggest.

        entities (list[Entity]): Gold entities of a doc.
        RETURNS (list[Entity]): Those that can be learned.
        """
        if self.suggester is None:
            return entities
        kept = [entity for entity in entities if entity.is_contiguous]
        if isinstance(self.suggester, BoundarySuggester):
            longest = self.suggester.max_length
            kept = [entity for entity in kept if entity.end - entity.start <= longest]
        return kept

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Find labels and the source of the gold, report the candidates and what cannot be learned,
        and initialise the model.

        get_examples (Callable[[], Iterable[Example]]): Returns the training examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Sequence[str]]): The labels; if None, those of the examples' entities.
        RAISES (ValueError): As `EntityComponent.initialize`, or if nothing puts candidates under
            candidates_key.
        """
        if nlp is not None and self.cfg["candidates_key"] and not self.cfg["typing"]:
            examples = islice(get_examples(), _REPORTED_DOCS)
            if not any(self.cfg["candidates_key"] in eg.predicted.spans for eg in examples):
                self._check_source(nlp)
        super().initialize(get_examples, nlp=nlp, labels=labels)
        if not self.cfg["typing"]:
            self._report_candidates(islice(get_examples(), _REPORTED_DOCS))

    def _check_source(self, nlp: Language) -> None:
        """A component that annotates in training must put candidates under the key."""
        key = self.cfg["candidates_key"]
        training = nlp.config.interpolate().get("training", {})
        annotating = training.get("annotating_components", [])
        before: list[str] = []
        sources: list[str] = []
        for name, pipe in nlp.components:  # spaCy disables frozen and sourced ones meanwhile.
            if pipe is self:
                break
            before.append(name)
            keys = _written_keys(pipe)
            # A component of another kind does not tell its key.
            is_possible = not keys and "doc.spans" in nlp.get_pipe_meta(name).assigns
            if key in keys or (is_possible and name in annotating):
                sources.append(name)
        if not sources:
            raise ValueError(
                f"{self.name}: no component before it writes doc.spans[{key!r}], its "
                f"candidates_key. Components before it: {', '.join(before) or 'none'}. One that "
                f"does not tell its spans key must name doc.spans among what it assigns, and be "
                f"among the annotating_components in [training]."
            )
        if not set(sources) & set(annotating):
            raise ValueError(
                f"{self.name} learns from the candidates that {sources[-1]!r} writes: add it to "
                f"annotating_components in [training]."
            )

    def _report_candidates(self, examples: Iterable[Example]) -> None:
        """Count candidates, and how many of the gold entities are among them."""
        if isinstance(self.suggester, BoundarySuggester):
            logger.info(
                "%s: proposes %g candidates a token, of at most %d tokens",
                self.name,
                self.suggester.per_token,
                self.suggester.max_length,
            )
            return
        counts = CandidateCounts()
        for example in examples:
            doc, gold = example.predicted, self.read_gold(example)
            if gold is not None and (self.suggester or self.cfg["candidates_key"] in doc.spans):
                try:
                    candidates = self._find_candidates([doc])
                except KeyError:  # Of a suggester that reads what no component has written yet.
                    break
                assert candidates is not None
                counts.add(doc, candidates, gold.entities)
        if not counts.n_tokens:
            message = "%s: its candidates are those of another component, and not counted yet"
            logger.info(message, self.name)
            return
        logger.info("%s: %s", self.name, counts)
        if counts.recall < _ENOUGH:
            logger.warning("%s: %s. %s", self.name, counts, self._advice(counts))

    def _advice(self, counts: "CandidateCounts") -> str:
        lengths = sorted(counts.missed)
        cover = lengths[int(0.98 * len(lengths))]
        advice = "What is not among them cannot be found: "
        if self.suggester is None:
            return f"{advice}have what writes the candidates write more of them."
        if cover > counts.longest:
            advice += f"suggest spans of up to {cover} tokens, or "
        return f"{advice}use spacy_mtlner.boundary_suggester.v1."

    def initialize_model(self, sample: list[Doc], report: GoldReport) -> None:
        """Initialise the model, whose dimension nO is set. Lengths of proposed spans begin as
        likely as they are in the training data.

        sample (list[Doc]): Some docs; at least one has tokens.
        report (GoldReport): What the training data hold.
        """
        longest = len(self.model.attrs["length_logits"])
        counts = 0.5 + numpy.array([report.lengths[n + 1] for n in range(longest)])
        self.model.attrs["length_logits"] = numpy.log(counts / counts.sum()).tolist()
        self.model.initialize(X=SpanInputs(sample, SpanRequest()))

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> SpanInputs:
        """Add the candidates to a batch of docs.

        docs (list[Doc]): The docs.
        is_train (bool): Whether gradients will be asked for.
        RETURNS (SpanInputs): The model's input.
        """
        return SpanInputs(docs, self._request(self._find_candidates(docs)))

    def make_training_inputs(
        self, examples: Sequence[Example], golds: Sequence[Gold | None]
    ) -> SpanInputs:
        """Make the model's input for an update: gold entities, and candidates that are none.

        examples (Sequence[Example]): The examples.
        golds (Sequence[Optional[Gold]]): Each one's gold; None where it is not annotated.
        RETURNS (SpanInputs): The model's input.
        """
        docs = [example.predicted for example in examples]
        gold, _ = self._list_gold(golds, [len(doc) for doc in docs])
        if self.cfg["typing"]:
            return SpanInputs(docs, SpanRequest(gold, NO_CANDIDATES))
        rows = numpy.array([known is not None for known in golds])
        request = self._request(self._find_candidates(docs, rows))
        ratio = self.cfg["negative_ratio"]
        return SpanInputs(docs, replace(request, gold=gold, negative_ratio=ratio, rows=rows))

    def _request(self, others: Candidates | None) -> SpanRequest:
        if isinstance(self.suggester, BoundarySuggester):
            return SpanRequest(others=others, per_token=self.suggester.per_token)
        return SpanRequest(others=others)

    def _find_candidates(self, docs: list[Doc], rows: BoolArray | None = None) -> Candidates | None:
        """The candidates of docs, or of some rows of them; None if the model proposes them."""
        if isinstance(self.suggester, BoundarySuggester):
            return None
        if self.suggester is not None:
            found = suggest_spans(self.suggester, docs, self.name)
            if rows is None or rows.all():
                return found
            return found.select(numpy.repeat(rows, [len(doc) for doc in docs])[found.firsts])
        key = self.cfg["candidates_key"]
        fragments: list[Fragments] = []
        offset = 0
        for i, doc in enumerate(docs):
            if rows is None or rows[i]:
                if len(doc) and key not in doc.spans:
                    raise ValueError(
                        f"{self.name}: doc.spans[{key!r}], its candidates_key, is missing in "
                        f"{doc.text[:40]!r}. The component or reader that writes it must come "
                        f"before; in training, name it in annotating_components."
                    )
                given = doc.spans.get(key, ())
                empty = next((span for span in given if span.start == span.end), None)
                if empty is not None:
                    raise ValueError(
                        f"{self.name}: doc.spans[{key!r}], its candidates_key, has a span without "
                        f"tokens at token {empty.start} of the doc {doc.text[:40]!r}: leave it out."
                    )
                fragments += (shift_fragments(found, offset) for found in read_fragments(doc, key))
            offset += len(doc)
        return Candidates.of_fragments(fragments)

    def _list_gold(
        self, golds: Sequence[Gold | None], lengths: Sequence[int]
    ) -> tuple[Candidates, FloatArray]:
        """Gold entities as candidates, and their shares in the classes: equal ones where one has
        several labels, shape (n_gold, n_classes).
        """
        ids = {label: i for i, label in enumerate(self.labels, start=self._first_class)}
        classes: dict[Fragments, set[int]] = {}
        offset = 0
        for gold, length in zip(golds, lengths, strict=True):
            for entity in gold.entities if gold is not None else ():
                place = shift_fragments(entity.fragments, offset)
                classes.setdefault(place, set()).add(ids[entity.label])
            offset += length
        shares = numpy.zeros((len(classes), self.n_outputs), dtype=numpy.float32)
        for share, found in zip(shares, classes.values(), strict=True):
            share[list(found)] = 1 / len(found)
        return Candidates.of_fragments(list(classes)), shares

    def finish_entities(self, doc: Doc, entities: list[Entity]) -> list[Entity]:
        """Make predicted entities fit to be written.

        doc (Doc): The doc.
        entities (list[Entity]): Its entities.
        RETURNS (list[Entity]): The entities, in typing with the boundaries that were given.
        """
        return entities if self.cfg["typing"] else super().finish_entities(doc, entities)

    def decode(self, docs: Sequence[Doc], scores: SpanScores) -> list[list[Entity]]:
        """Find the candidates of which a label's probability reaches the threshold, or for typing
        the most likely label of each.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (SpanScores): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text, longer ones first.
        """
        candidates = _to_candidates(scores)
        probabilities = scores.logits.softmax(1)[:, self._first_class :]  # (n, n_labels)
        if self.cfg["typing"]:
            values, best = probabilities.max(1)
            numbers, labels = numpy.arange(len(candidates)), best.cpu().numpy()
        else:
            is_entity = probabilities >= self.cfg["threshold"]
            found = is_entity.nonzero()
            values = probabilities[is_entity]
            numbers, labels = found.cpu().numpy().T
        lengths = numpy.array([len(doc) for doc in docs])
        rows = numpy.repeat(numpy.arange(len(docs)), lengths)
        offsets = (numpy.cumsum(lengths) - lengths).tolist()
        firsts, lasts = candidates.firsts[numbers], candidates.lasts[numbers]
        order = numpy.lexsort((labels, -lasts, firsts))
        names = self.labels
        entities: list[list[Entity]] = [[] for _ in docs]
        for number, row, label, value in zip(
            numbers[order].tolist(),
            rows[firsts[order]].tolist(),
            labels[order].tolist(),
            values.cpu().numpy()[order].tolist(),
            strict=True,
        ):
            fragments = candidates.fragments(number, offsets[row])
            entities[row].append(Entity(names[label], fragments, value))
        return entities

    def propose(self, docs: Sequence[Doc]) -> list[list[Fragments]]:
        """List the candidates among which entities are found.

        docs (Sequence[Doc]): The docs.
        RETURNS (list[list[Fragments]]): Each doc's candidates; of those that the model proposes,
            the best ones first.
        """
        found: list[list[Fragments]] = []
        for part, scores in self._score(
            docs, lambda part, _: self.make_inputs(part, is_train=False)
        ):
            candidates = _to_candidates(scores)
            bounds = numpy.cumsum([0, *map(len, part)])
            rows = numpy.searchsorted(bounds, candidates.firsts, side="right") - 1
            listed: list[list[Fragments]] = [[] for _ in part]
            for number, row in enumerate(rows.tolist()):
                listed[row].append(candidates.fragments(number, int(bounds[row])))
            found.extend(listed)
        return found

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Classify given entities, whatever their labels.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): Each doc's entities.
        RETURNS (list[NDArray[numpy.float32]]): Of each doc, the probabilities of the labels and,
            last, of no entity, which is 0 in typing; shape (n_entities, n_labels + 1).
        RAISES (ValueError): If an entity ends outside its doc.
        """
        check_ends(docs, entities)

        def make_inputs(part: list[Doc], start: int) -> SpanInputs:
            fragments: list[Fragments] = []
            offset = 0
            for doc, given in zip(part, entities[start : start + len(part)], strict=True):
                fragments += (shift_fragments(entity.fragments, offset) for entity in given)
                offset += len(doc)
            return SpanInputs(part, SpanRequest(Candidates.of_fragments(fragments), NO_CANDIDATES))

        tables = [numpy.zeros((0, len(self.labels) + 1), dtype=numpy.float32)]
        for _, scores in self._score(docs, make_inputs):
            table = scores.logits.softmax(1)  # (n_entities, n_classes)
            nothing = table[:, :1] if self._first_class else torch.zeros_like(table[:, :1])
            labels = table[:, self._first_class :]
            tables.append(torch.cat([labels, nothing], dim=1).cpu().numpy())
        ends = numpy.cumsum([len(given) for given in entities])
        return numpy.split(numpy.concatenate(tables), ends[:-1]) if len(docs) else []

    def _score(
        self, docs: Sequence[Doc], make_inputs: Callable[[list[Doc], int], SpanInputs]
    ) -> Iterator[tuple[list[Doc], SpanScores]]:
        """Score docs, part by part; make_inputs gets the number of the part's first doc as well."""
        self._require_initialized()
        start = 0
        for part in split_docs(docs):
            yield part, self.model.predict(make_inputs(part, start))
            start += len(part)

    def compute_loss(
        self, golds: Sequence[Gold | None], lengths: Sequence[int], scores: SpanScores
    ) -> Tensor:
        """Compute the loss of classes and boundaries: see `span_loss`.

        golds (Sequence[Optional[Gold]]): Each example's gold; None where it is not annotated.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (SpanScores): The model's output.
        RETURNS (Tensor): The loss, a scalar.
        """
        gold, shares = self._list_gold(golds, lengths)
        if not numpy.array_equal(scores.tokens[: len(gold.tokens)].cpu().numpy(), gold.tokens):
            raise ValueError(
                f"{self.name}: these scores are not of an update, where gold entities come first."
            )
        spans = gold.select(gold.is_contiguous)
        arrays = (shares, spans.firsts, spans.sizes - 1, known_tokens(golds, lengths))
        device = scores.logits.device
        targets = SpanGold(*(torch.from_numpy(array).to(device) for array in arrays))
        return span_loss(scores, targets, lengths, *weigh_rows(golds, scores.logits))


@dataclass
class CandidateCounts:
    """How many candidates there are, and how many gold entities are among them.

    n_tokens (int): Tokens of the docs.
    n_candidates (int): Candidates.
    n_gold (int): Gold entities.
    missed (list[int]): Lengths of those that are no candidates, in tokens.
    longest (int): Length of the longest candidate, in tokens.
    """

    n_tokens: int = 0
    n_candidates: int = 0
    n_gold: int = 0
    missed: list[int] = field(default_factory=list)
    longest: int = 0

    def add(self, doc: Doc, candidates: Candidates, gold: Sequence[Entity]) -> None:
        """Count a doc.

        doc (Doc): The doc.
        candidates (Candidates): Its candidates.
        gold (Sequence[Entity]): Its gold entities.
        """
        listed = Candidates.of_fragments([entity.fragments for entity in gold])
        is_found = find_among(listed, candidates)
        self.n_tokens += len(doc)
        self.n_candidates += len(candidates)
        self.n_gold += len(gold)
        self.missed += listed.sizes[~is_found].tolist()
        self.longest = max(self.longest, int(candidates.sizes.max(initial=0)))

    @property
    def recall(self) -> float:
        """RETURNS (float): Share of the gold entities that are among the candidates; 1 without gold
        entities.
        """
        return 1 - len(self.missed) / self.n_gold if self.n_gold else 1.0

    def __str__(self) -> str:
        return (
            f"{self.n_candidates / self.n_tokens:.1f} candidates a token, "
            f"{100 * self.recall:.1f} % of {self.n_gold} gold entities among them"
        )


def _to_candidates(scores: SpanScores) -> Candidates:
    return Candidates(scores.tokens.cpu().numpy(), scores.sizes.cpu().numpy())


def _written_keys(pipe: Any) -> set[str]:
    """Spans keys that a component writes; spaCy's tell it by an attribute or a setting."""
    if isinstance(pipe, EntityComponent):
        return set(pipe.predicted_keys)
    keys = {getattr(pipe, "key", None), (getattr(pipe, "cfg", None) or {}).get("spans_key")}
    return {str(key) for key in keys if key is not None}
