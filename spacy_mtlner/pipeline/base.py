"""What all components share: labels, gold, the update, annotation of docs, scoring."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Literal

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import logger
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, set_dropout_rate
from torch import Tensor

from spacy_mtlner.entities import (
    Entity,
    TokenMap,
    align_entities,
    read_entities,
    read_ents,
    write_entities,
    write_ents,
)
from spacy_mtlner.scoring import score_names

GoldSource = Literal["auto", "spans", "ents"]
_PREDICTED_TOKENS = 8192  # Predicted at once: larger batches of docs take memory, but no less time.
WEIGHT = "mtlner_weight"  # Key of a sample's weight in the reference's user_data.


@dataclass(frozen=True)
class Gold:
    """What an example says about one task.

    entities (list[Entity]): The entities, over the predicted tokens.
    unknown (Optional[NDArray[numpy.bool_]]): Whether it is unknown what a predicted token belongs
        to, shape (n_tokens,); None where all is known.
    weight (float): The sample's weight.
    n_unaligned (int): Entities that no predicted tokens express.
    n_dropped (int): Entities that the component cannot represent.
    """

    entities: list[Entity]
    unknown: NDArray[numpy.bool_] | None = None
    weight: float = 1.0
    n_unaligned: int = 0
    n_dropped: int = 0


@dataclass
class GoldReport:
    """Counts of the gold seen at initialisation.

    n_docs (int): Docs.
    n_annotated (int): Docs that are annotated for the task.
    n_unaligned (int): Entities that the predicted tokens cannot express.
    n_dropped (int): Entities that the component cannot represent.
    labels (Counter[str]): Entities by label.
    """

    n_docs: int = 0
    n_annotated: int = 0
    n_unaligned: int = 0
    n_dropped: int = 0
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Gold | None) -> None:
        """Count a doc's gold.

        gold (Optional[Gold]): The gold; None if the doc is not annotated for the task.
        """
        self.n_docs += 1
        if gold is not None:
            self.n_annotated += 1
            self.n_unaligned += gold.n_unaligned
            self.n_dropped += gold.n_dropped
            self.labels.update(entity.label for entity in gold.entities)


class EntityComponent(TrainablePipe):
    """Base of the components: a subclass predicts entities and computes its loss.

    vocab (Vocab): The shared vocabulary.
    model (Model): The thinc model, from docs to scores; it has a reference "tok2vec".
    name (str): The component's name.
    spans_key (str): Where entities are written, and the task the component learns.
    gold (GoldSource): Where training gold is read: "spans" (`doc.spans[spans_key]`), "ents"
        (`doc.ents`), or "auto": decided at initialisation by what the corpus has.
    annotate_ents (bool): Whether to write `doc.ents` as well, as far as it can hold the entities.
    overwrite (bool): Whether that replaces the entities already in `doc.ents`.
    learn_rate_factor (float): The head's learning rate relative to the optimizer's.
    scorer (Optional[Callable]): Scores examples, given all settings as keyword arguments.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        spans_key: str,
        gold: GoldSource,
        annotate_ents: bool,
        overwrite: bool,
        learn_rate_factor: float,
        scorer: Callable[..., dict[str, Any]] | None,
    ) -> None:
        if not learn_rate_factor > 0:
            raise ValueError(
                f"{name}: learn_rate_factor must be above 0, not {learn_rate_factor}. To train the "
                f"encoder alone, leave the component out of training with frozen_components."
            )
        self.vocab = vocab
        self.model = model
        self.name = name
        self.scorer = scorer
        self.cfg: dict[str, Any] = {
            "labels": [],
            "spans_key": spans_key,
            "gold": gold,
            "gold_source": None if gold == "auto" else gold,
            "annotate_ents": annotate_ents,
            "overwrite": overwrite,
            "learn_rate_factor": learn_rate_factor,
        }

    @property
    def key(self) -> str:
        """RETURNS (str): The spans key."""
        return str(self.cfg["spans_key"])

    @property
    def labels(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The labels."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> list[str]:
        """RETURNS (list[str]): The labels, for `spacy init labels`."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Add a label; a component that is initialised gets a larger output.

        label (str): The label.
        RETURNS (int): 1, or 0 if it was there already.
        """
        if not isinstance(label, str) or not label:
            raise ValueError(f"{self.name}: a label must be a non-empty string, not {label!r}.")
        if label in self.labels:
            return 0
        self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        if self.is_initialized:
            self.set_output(self.n_outputs)
        return 1

    @property
    def is_initialized(self) -> bool:
        """RETURNS (bool): Whether the model is initialized or loaded."""
        return self.model.get_ref("output_layer").has_dim("nI") is True

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The size of the model's output for the present labels."""
        raise NotImplementedError

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Find labels and the source of the gold, report what cannot be learned, and initialise the
        model.

        get_examples (Callable[[], Iterable[Example]]): Returns the training examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Sequence[str]]): The labels; if None, those of the examples' entities.
        RAISES (ValueError): If there are no labels, or no example is annotated for the component.
        """
        if nlp is not None:
            self._check_score_weights(nlp)
        if self.cfg["gold"] == "auto":
            self.cfg["gold_source"] = self._find_gold_source(get_examples())
        report = GoldReport()
        keys: set[str] = set()
        for example in get_examples():
            report.add(self.read_gold(example))
            keys.update(example.reference.spans)
        for label in sorted(report.labels) if labels is None else labels:
            self.add_label(label)
        self._check_report(report, keys)
        sample = [eg.predicted for eg in islice(filter(_has_tokens, get_examples()), 10)]
        if not sample:
            sample = [Doc(self.vocab, words=["text"])]
        self.model.set_dim("nO", self.n_outputs, force=True)
        self.initialize_model(sample)

    def initialize_model(self, sample: list[Doc]) -> None:
        """Initialise the model, whose dimension nO is set.

        sample (list[Doc]): Some docs; at least one has tokens.
        """
        self.model.initialize(X=sample)

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> Any:
        """Make the model's input: the docs, and whatever else the scores depend on.

        docs (list[Doc]): The docs.
        is_train (bool): Whether gradients will be asked for.
        RETURNS (Any): The input.
        """
        return docs

    def _check_report(self, report: GoldReport, keys: set[str]) -> None:
        places = {"spans": f"doc.spans[{self.key!r}]", "ents": "doc.ents"}
        source = self.cfg["gold_source"]
        where = places[source] if source else " or ".join(places.values())
        if not self.labels:
            other = f" Spans keys found: {', '.join(map(repr, sorted(keys)))}." if keys else ""
            raise ValueError(
                f"{self.name} has no labels: {report.n_annotated} of {report.n_docs} training docs "
                f"have annotation in {where}, with {report.labels.total()} entities."
                f"{other} Check the training corpus and the setting 'spans_key', or give "
                f"the labels in [initialize.components.{self.name}]."
            )
        unknown = sorted(set(report.labels) - set(self.labels))
        if unknown:
            raise ValueError(
                f"{self.name}: the training data has labels that are not in the given ones: "
                f"{', '.join(unknown)}. Add them in [initialize.components.{self.name}], or remove "
                f"those entities."
            )
        missing = [label for label in self.labels if not report.labels[label]]
        if not report.n_annotated:
            warnings.warn(
                f"{self.name}: none of {report.n_docs} training docs is annotated in {where}: "
                f"nothing can be learned from them.",
                stacklevel=3,
            )
        elif missing:
            warnings.warn(
                f"{self.name}: no training example for {', '.join(missing)}.", stacklevel=3
            )
        if report.n_unaligned:
            warnings.warn(
                f"{self.name}: {report.n_unaligned} gold entities begin or end inside a token of "
                f"the pipeline's tokenizer and cannot be learned.",
                stacklevel=3,
            )
        if report.n_dropped:
            warnings.warn(
                f"{self.name}: {report.n_dropped} gold entities are left out: the component learns "
                f"{self.representable} ({report.labels.total()} are kept).",
                stacklevel=3,
            )
        logger.info(
            "%s: %d of %d docs annotated in %s, %d entities, labels: %s",
            self.name,
            report.n_annotated,
            report.n_docs,
            where,
            report.labels.total(),
            ", ".join(self.labels),
        )

    def _check_score_weights(self, nlp: Language) -> None:
        """spaCy drops the weight of a score that no component has, and may then stop early."""
        names: set[str] = set()
        prefixes: list[str] = []
        writes_ents = False
        for name, pipe in nlp.components:
            meta = nlp.get_pipe_meta(name)
            if isinstance(pipe, EntityComponent):
                names.update(score_names(pipe.key))
                writes_ents |= pipe.cfg["annotate_ents"]
            else:
                names.update(meta.default_score_weights or {})
                prefixes.append(f"spans_{(getattr(pipe, 'cfg', None) or {}).get('spans_key')}_")
                writes_ents |= "doc.ents" in meta.assigns
        weights = nlp.config.get("training", {}).get("score_weights", {})
        for name, weight in weights.items():
            if name.startswith("spans_"):
                is_known = name in names or name.startswith(tuple(prefixes))
            else:
                is_known = writes_ents or not name.startswith("ents_")
            if weight and not is_known:
                warnings.warn(
                    f"[training.score_weights] {name} = {weight}: no component has that score, and "
                    f"spaCy will ignore it. Use spans_{self.key}_f for {self.name}.",
                    stacklevel=3,
                )

    def read_gold(self, example: Example) -> Gold | None:
        """Read an example's gold for this component.

        example (Example): The example.
        RETURNS (Optional[Gold]): The gold; None if the reference is not annotated for the task.
        """
        reference = example.reference
        source = self.cfg["gold_source"]
        if source is None or not self._is_annotated(reference, source):
            return None
        entities = read_ents(reference) if source == "ents" else read_entities(reference, self.key)
        tokens = TokenMap.of(example)
        aligned, unaligned = align_entities(example, entities, tokens)
        kept = self.select_representable(aligned)
        n_dropped = len(aligned) - len(kept)
        ranges = [fragment for entity in unaligned for fragment in entity.fragments]
        if source == "ents":
            missing = numpy.flatnonzero(reference.to_array("ENT_IOB") == 0)
            ranges += ((start, start + 1) for start in missing.tolist())
        unknown = None
        if ranges:
            unknown = numpy.zeros(len(example.predicted), dtype=bool)
            unknown[numpy.concatenate([tokens.touched(*range_) for range_ in ranges])] = True
            for entity in kept:  # What stands beside it in a token is known by the entity.
                unknown[entity.start : entity.end] = False
        weight = float(reference.user_data.get(WEIGHT, 1.0))
        return Gold(kept, unknown, weight, len(unaligned), n_dropped)

    @property
    def representable(self) -> str:
        """RETURNS (str): What entities the component can represent, for a warning."""
        return "all"

    def select_representable(self, entities: list[Entity]) -> list[Entity]:
        """Select the entities that the component can represent; the others are counted.

        entities (list[Entity]): Gold entities of a doc.
        RETURNS (list[Entity]): Those that can be learned.
        """
        return entities

    def _is_annotated(self, doc: Doc, source: str) -> bool:
        if source == "spans":
            return self.key in doc.spans
        return len(doc) > 0 and doc.has_annotation("ENT_IOB")

    def _find_gold_source(self, examples: Iterable[Example]) -> str | None:
        """Where the examples' gold is; None if they have none."""
        found = None
        for example in examples:
            if self._is_annotated(example.reference, "spans"):
                return "spans"
            if found is None and self._is_annotated(example.reference, "ents"):
                found = "ents"
        return found

    def predict(self, docs: Iterable[Doc]) -> list[list[Entity]]:
        """Predict the entities of a batch of docs, without modifying them.

        docs (Iterable[Doc]): The docs.
        RETURNS (list[list[Entity]]): Each doc's entities.
        """
        docs = list(docs)
        starts = numpy.cumsum([0, *map(len, docs)])[:-1]
        entities: list[list[Entity]] = []
        for _, group in groupby(zip(starts // _PREDICTED_TOKENS, docs, strict=True), itemgetter(0)):
            part = [doc for _, doc in group]
            if any(len(doc) for doc in part):
                self._require_initialized()
                scores = self.model.predict(self.make_inputs(part, is_train=False))
                entities.extend(self.decode(part, scores))
            else:
                entities.extend([] for _ in part)
        return entities

    def _require_initialized(self) -> None:
        if not self.is_initialized:
            raise ValueError(
                f"{self.name} is not initialized: call nlp.initialize to train it, or load a "
                f"trained pipeline."
            )

    def decode(self, docs: Sequence[Doc], scores: Any) -> list[list[Entity]]:
        """Find the entities that the model's scores stand for.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (Any): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities.
        """
        raise NotImplementedError

    def set_annotations(self, docs: Iterable[Doc], scores: list[list[Entity]]) -> None:
        """Write entities to a batch of docs.

        docs (Iterable[Doc]): The docs.
        scores (list[list[Entity]]): Each doc's entities, as `predict` returns them.
        """
        for doc, entities in zip(docs, scores, strict=True):
            write_entities(doc, entities, self.key)
            if self.cfg["annotate_ents"]:
                write_ents(doc, entities, overwrite=self.cfg["overwrite"])

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch of examples; those not annotated for the task have weight 0.

        examples (Iterable[Example]): The examples.
        drop (float): The dropout rate.
        sgd (Optional[Optimizer]): The optimizer, if the weights are to be changed at once.
        losses (Optional[dict[str, float]]): Losses by component, to add to.
        RETURNS (dict[str, float]): The losses.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        if not any(map(_has_tokens, examples)):
            return losses
        self._require_initialized()
        set_dropout_rate(self.model, drop)
        inputs = self.make_inputs([eg.predicted for eg in examples], is_train=True)
        scores, backprop = self.model.begin_update(inputs)
        loss, d_scores = self.get_loss(examples, scores)
        backprop(d_scores)
        if sgd:  # `spacy train` passes False.
            self.finish_update(sgd)
        losses[self.name] += loss
        return losses

    def get_loss(self, examples: Iterable[Example], scores: Any) -> tuple[float, Any]:
        """Compute the loss and its gradient.

        examples (Iterable[Example]): The examples.
        scores (NamedTuple[Tensor]): The model's output.
        RETURNS (tuple[float, NamedTuple[Tensor]]): The loss, and its gradient for every score.
        RAISES (ValueError): If the loss is not finite, or a gold label is unknown.
        """
        examples = list(examples)
        if self.cfg["gold_source"] is None:
            self.cfg["gold_source"] = self._find_gold_source(examples)
        golds = [self.read_gold(example) for example in examples]
        if not any(golds):
            self._warn_of_other_source(examples)
        for gold in golds:
            for entity in gold.entities if gold else ():
                if entity.label not in self.cfg["labels"]:
                    raise ValueError(
                        f"{self.name}: label {entity.label!r} of the training data is unknown. "
                        f"Labels: {', '.join(self.labels)}. List all labels in "
                        f"[initialize.components.{self.name}], or call add_label before further "
                        f"training of a component that is loaded or sourced."
                    )
        leaves = type(scores)(*(score.detach().requires_grad_() for score in scores))
        lengths = [len(example.predicted) for example in examples]
        loss = self.compute_loss(golds, lengths, leaves)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"The loss of {self.name} is {value}. Lower the learning rate, lengthen the "
                f"warmup, or check the vectors and the encoder for values that are not finite."
            )
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return value, type(scores)(
            *(
                torch.zeros_like(leaf) if gradient is None else gradient
                for leaf, gradient in zip(leaves, gradients, strict=True)
            )
        )

    def _warn_of_other_source(self, examples: Sequence[Example]) -> None:
        source = self.cfg["gold_source"]
        other = "ents" if source == "spans" else "spans"
        if any(self._is_annotated(example.reference, other) for example in examples):
            warnings.warn(
                f"{self.name} learns nothing from a batch: it reads gold from doc.{source}, as "
                f"decided at initialization, but these docs are annotated in doc.{other} alone.",
                stacklevel=4,
            )

    def compute_loss(
        self, golds: Sequence[Gold | None], lengths: Sequence[int], scores: Any
    ) -> Tensor:
        """Compute the loss of a batch.

        golds (Sequence[Optional[Gold]]): Each example's gold; None where it is not annotated.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (NamedTuple[Tensor]): The model's output.
        RETURNS (Tensor): Sum of w_i l_i over the number of annotated examples, a scalar.
        """
        raise NotImplementedError

    def finish_update(self, sgd: Optimizer) -> None:
        """Change the weights by their gradients, the head's at its own learning rate.

        sgd (Optimizer): The optimizer.
        """
        encoder = {node.id for node in self.model.get_ref("tok2vec").walk()}
        head_sgd = _ScaledOptimizer(sgd, self.cfg["learn_rate_factor"])
        for node in self.model.walk():
            optimizer = sgd if node.id in encoder else head_sgd
            for shim in node.shims:
                shim.finish_update(optimizer)
            for name in node.param_names:
                if node.has_grad(name):
                    weights, _ = optimizer(
                        (node.id, name), node.get_param(name), node.get_grad(name)
                    )
                    node.set_param(name, weights)


class _ScaledOptimizer:
    """An optimizer at a multiple of its learning rate."""

    def __init__(self, optimizer: Optimizer, factor: float) -> None:
        self.optimizer = optimizer
        self.factor = factor

    def __call__(self, key: Any, weights: Any, gradient: Any) -> tuple[Any, Any]:
        return self.optimizer(key, weights, gradient, lr_scale=self.factor)


def _has_tokens(example: Example) -> bool:
    return len(example.predicted) > 0
