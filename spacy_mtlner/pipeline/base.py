"""What all components share: labels, gold, the update, annotation of docs, scoring."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer, set_dropout_rate
from torch import Tensor

from spacy_mtlner.entities import (
    DEFAULT_KEY,
    Entity,
    is_annotated,
    strip_spaces,
    write_entities,
    write_ents,
)
from spacy_mtlner.pipeline.gold import (
    Gold,
    GoldReport,
    GoldSource,
    check_report,
    find_gold_source,
    read_gold,
)
from spacy_mtlner.scoring import score_names

PREDICTED_TOKENS = 4096  # Predicted at once: larger batches of docs take memory, but no less time.
_SURE = 1e-9  # Scores are as far from 0 and 1 as that where odds are made of them.


DEFAULT_TOK2VEC = """
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


DEFAULT_SCORE_WEIGHTS: dict[str, float | None] = {
    f"spans_{DEFAULT_KEY}_f": 1.0,
    f"spans_{DEFAULT_KEY}_p": 0.0,
    f"spans_{DEFAULT_KEY}_r": 0.0,
}


def make_default_model(config: str) -> dict[str, Any]:
    """Make a factory's default model of the config of its head.

    config (str): The section [model], without [model.tok2vec].
    RETURNS (dict[str, Any]): The model's config, over spaCy's default CNN.
    """
    model: dict[str, Any] = Config().from_str(config + DEFAULT_TOK2VEC)["model"]
    return model


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
    def keys(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The spans keys of all tasks that the component learns."""
        return (self.key,)

    @property
    def predicted_keys(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The spans keys that the component writes."""
        return self.keys

    @property
    def score_names(self) -> list[str]:
        """RETURNS (list[str]): The scores that a config may give a weight to."""
        return [name for key in self.predicted_keys for name in score_names(key)]

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
        if not self._append_label(label, self.cfg["labels"]):
            return 0
        if self.is_initialized:
            self.set_output(self.n_outputs)
        return 1

    def _append_label(self, label: str, labels: list[str]) -> bool:
        """Append a label to labels, unless it is there already; returns whether it was not."""
        if not isinstance(label, str) or not label:
            raise ValueError(f"{self.name}: a label must be a non-empty string, not {label!r}.")
        if label in labels:
            return False
        labels.append(label)
        self.vocab.strings.add(label)
        return True

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
        RAISES (ValueError): If there are no labels, given or in the examples, the examples have
            others than those that are given, or the model reads static vectors and there are none.
        """
        self._check_vectors()
        if nlp is not None:
            self._check_score_weights(nlp)
            self._check_keys(nlp)
        if self.cfg["gold"] == "auto":
            self.cfg["gold_source"] = find_gold_source(get_examples(), self.key)
        report = GoldReport()
        keys: set[str] = set()
        for example in get_examples():
            gold = self.read_gold(example)
            report.add(gold, len(example.predicted))
            if gold is None and self.cfg["gold"] == "auto":
                report.n_elsewhere += self._is_annotated_elsewhere(example)
            keys.update(example.reference.spans)
        for label in sorted(report.labels) if labels is None else labels:
            self.add_label(label)
        places = {"spans": f"doc.spans[{self.key!r}]", "ents": "doc.ents"}
        source = self.cfg["gold_source"]
        check_report(
            report,
            self.labels,
            who=self.name,
            where=places[source] if source else " or ".join(places.values()),
            section=self.section,
            setting="spans_key",
            representable=self.representable,
            keys=keys,
        )
        self.model.set_dim("nO", self.n_outputs, force=True)
        self.initialize_model(self._sample_docs(get_examples()), report)

    @property
    def section(self) -> str:
        """RETURNS (str): Section of the config in which labels can be given."""
        return f"initialize.components.{self.name}"

    def _sample_docs(self, examples: Iterable[Example]) -> list[Doc]:
        """Some docs, of which at least one has tokens."""
        sample = [eg.predicted for eg in islice(filter(_has_tokens, examples), 10)]
        return sample or [Doc(self.vocab, words=["text"])]

    def initialize_model(self, sample: list[Doc], report: GoldReport) -> None:
        """Initialise the model, whose dimension nO is set.

        sample (list[Doc]): Some docs; at least one has tokens.
        report (GoldReport): What the training data hold.
        """
        self.model.initialize(X=sample)

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> Any:
        """Make the model's input: the docs, and whatever else the scores depend on.

        docs (list[Doc]): The docs.
        is_train (bool): Whether gradients will be asked for.
        RETURNS (Any): The input.
        """
        return docs

    def make_training_inputs(self, examples: Sequence[Example], golds: Any) -> Any:
        """Make the model's input for an update.

        examples (Sequence[Example]): The examples.
        golds (Any): Their gold, as `read_golds` returns it.
        RETURNS (Any): The input.
        """
        return self.make_inputs([example.predicted for example in examples], is_train=True)

    def _check_vectors(self) -> None:
        """Without vectors, the layer that reads them fails and does not tell why."""
        reads_vectors = any(layer.name == "static_vectors" for layer in self.model.walk())
        if reads_vectors and not self.vocab.vectors.shape[0]:
            raise ValueError(
                f"{self.name}: its model reads static vectors, but there are none. Name a pipeline "
                f"that has them in --paths.vectors or as vectors in [initialize]; `python -m spacy "
                f"mtlner vectors` makes one from a corpus. To do without, set "
                f"include_static_vectors (pretrained_vectors in spacy.HashEmbedCNN) to false."
            )

    def _check_score_weights(self, nlp: Language) -> None:
        """spaCy drops the weight of a score that no component has, and may then stop early."""
        names: set[str] = set()
        prefixes: list[str] = []
        writes_ents = False
        for name, pipe in nlp.components:
            meta = nlp.get_pipe_meta(name)
            if isinstance(pipe, EntityComponent):
                names.update(pipe.score_names)
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
                    f"spaCy will ignore it. Scores of {self.name}: "
                    f"{', '.join(self.score_names[:3])} and others.",
                    stacklevel=3,
                )

    def _check_keys(self, nlp: Language) -> None:
        """Each component replaces what is under its keys."""
        for name, pipe in nlp.components:
            if pipe is not self and isinstance(pipe, EntityComponent):
                for key in {*pipe.predicted_keys} & {*self.predicted_keys}:
                    warnings.warn(
                        f"{self.name} and {name} both write to doc.spans[{key!r}]: the one that "
                        f"comes last replaces the other's entities. Give one of them another "
                        f"spans_key.",
                        stacklevel=3,
                    )

    def read_gold(self, example: Example) -> Gold | None:
        """Read an example's gold for this component.

        example (Example): The example.
        RETURNS (Optional[Gold]): The gold; None if the reference is not annotated for the task.
        """
        return read_gold(example, self.key, self.cfg["gold_source"], self.select_representable)

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

    def predict(self, docs: Iterable[Doc]) -> list[list[Entity]]:
        """Predict the entities of a batch of docs, without modifying them.

        docs (Iterable[Doc]): The docs.
        RETURNS (list[list[Entity]]): Each doc's entities.
        """
        entities: list[list[Entity]] = []
        for part in split_docs(list(docs)):
            if any(len(doc) for doc in part):
                self._require_initialized()
                entities.extend(self.predict_part(part))
            else:
                entities.extend(self.decode_nothing() for _ in part)
        return entities

    def predict_part(self, docs: list[Doc]) -> list[list[Entity]]:
        """Predict the entities of docs that are read at once.

        docs (list[Doc]): The docs; at least one has tokens.
        RETURNS (list[list[Entity]]): Each doc's entities.
        """
        return self.decode(docs, self.model.predict(self.make_inputs(docs, is_train=False)))

    def labels_of(self, key: str) -> tuple[str, ...]:
        """Get the labels of a task.

        key (str): The task's spans key: one of `keys`.
        RETURNS (tuple[str, ...]): Its labels.
        """
        return self.labels

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each label, and to be none. Other components
        of the pipeline on which this one rests must have run on the docs.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc; their labels are not read.
        RETURNS (list[NDArray[numpy.float32]]): For each doc a row for each span, with a probability
            for each label in the order of `labels` and last that of no entity; rows sum to 1. Shape
            (n_spans, n_labels + 1).
        RAISES (NotImplementedError): If the component has no such probabilities.
        """
        raise NotImplementedError(
            f"{self.name}, a {type(self).__name__}, has no probabilities of the labels of a span."
        )

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

    def decode_nothing(self) -> Any:
        """RETURNS (list[Entity]): What is predicted for a doc in a batch without tokens."""
        return []

    def set_annotations(self, docs: Iterable[Doc], scores: Any) -> None:
        """Write entities to a batch of docs.

        docs (Iterable[Doc]): The docs.
        scores (list[list[Entity]]): Each doc's entities, as `predict` returns them.
        """
        for doc, entities in zip(docs, scores, strict=True):
            self.annotate(doc, entities, self.key, with_ents=self.cfg["annotate_ents"])

    def annotate(self, doc: Doc, entities: list[Entity], key: str, *, with_ents: bool) -> None:
        """Write the entities of one task to a doc.

        doc (Doc): The doc.
        entities (list[Entity]): The entities.
        key (str): The task's spans key.
        with_ents (bool): Whether to write `doc.ents` as well.
        """
        entities = self.finish_entities(doc, entities)
        write_entities(doc, entities, key)
        if with_ents:
            write_ents(doc, entities, overwrite=self.cfg["overwrite"])

    def finish_entities(self, doc: Doc, entities: list[Entity]) -> list[Entity]:
        """Make predicted entities fit to be written.

        doc (Doc): The doc.
        entities (list[Entity]): Its entities.
        RETURNS (list[Entity]): The entities, without white space at their ends.
        """
        return strip_spaces(doc, entities)

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
        golds = self.read_golds(examples)
        scores, backprop = self.model.begin_update(self.make_training_inputs(examples, golds))
        loss, d_scores = self._get_loss(golds, examples, scores)
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
        return self._get_loss(self.read_golds(examples), examples, scores)

    def _get_loss(self, golds: Any, examples: list[Example], scores: Any) -> tuple[float, Any]:
        leaves = type(scores)(
            *(score.detach().requires_grad_(score.is_floating_point()) for score in scores)
        )
        lengths = [len(example.predicted) for example in examples]
        loss = self.compute_loss(golds, lengths, leaves)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"The loss of {self.name} is {value}. Lower the learning rate, lengthen the "
                f"warmup, or check the vectors and the encoder for values that are not finite."
            )
        learned = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = iter(torch.autograd.grad(loss, learned, allow_unused=True))
        found = (next(gradients) if leaf.requires_grad else None for leaf in leaves)
        return value, type(scores)(
            *(
                torch.zeros_like(leaf) if gradient is None else gradient
                for leaf, gradient in zip(leaves, found, strict=True)
            )
        )

    def read_golds(self, examples: Sequence[Example]) -> Any:
        """Read the gold of a batch, as `compute_loss` takes it.

        examples (Sequence[Example]): The examples.
        RETURNS (list[Optional[Gold]]): Each example's gold; None where it is not annotated.
        RAISES (ValueError): If a label is unknown.
        """
        if self.cfg["gold_source"] is None:
            self.cfg["gold_source"] = find_gold_source(examples, self.key)
        golds = [self.read_gold(example) for example in examples]
        if self.cfg["gold"] == "auto" and not any(golds):
            self._warn_of_other_source(examples)
        self.check_labels(golds, self.labels, who=self.name)
        return golds

    def check_labels(self, golds: Iterable[Gold | None], labels: Sequence[str], who: str) -> None:
        """Check that the labels of training data are known.

        golds (Iterable[Optional[Gold]]): The gold.
        labels (Sequence[str]): The known labels.
        who (str): The component, and the task where it has several.
        RAISES (ValueError): If a label is unknown.
        """
        for gold in golds:
            for entity in gold.entities if gold else ():
                if entity.label not in labels:
                    raise ValueError(
                        f"{who}: label {entity.label!r} of the training data is unknown. "
                        f"Labels: {', '.join(labels)}. List all labels in [{self.section}], or "
                        f"call add_label before further training of a component that is loaded or "
                        f"sourced."
                    )

    @property
    def _other_source(self) -> str:
        return "ents" if self.cfg["gold_source"] == "spans" else "spans"

    def _is_annotated_elsewhere(self, example: Example) -> bool:
        return is_annotated(example.reference, self.key, self._other_source)

    def _warn_of_other_source(self, examples: Sequence[Example]) -> None:
        if any(map(self._is_annotated_elsewhere, examples)):
            warnings.warn(
                f"{self.name} learns nothing from a batch: it reads gold from "
                f"doc.{self.cfg['gold_source']}, as decided at initialization, but these docs are "
                f"annotated in doc.{self._other_source} alone.",
                stacklevel=4,
            )

    def compute_loss(self, golds: Any, lengths: Sequence[int], scores: Any) -> Tensor:
        """Compute the loss of a batch.

        golds (list[Optional[Gold]]): The gold, as `read_golds` returns it.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (NamedTuple[Tensor]): The model's output.
        RETURNS (Tensor): Sum of w_i l_i over the number of annotated examples, a scalar.
        """
        raise NotImplementedError

    @property
    def encoder_prefix(self) -> str | None:
        """RETURNS (Optional[str]): Prefix of the names of the head's weights that learn like the
        encoder's, if there are such.
        """
        return None

    def finish_update(self, sgd: Optimizer) -> None:
        """Change the weights by their gradients, the head's at its own learning rate.

        sgd (Optimizer): The optimizer.
        """
        encoder = {node.id for node in self.model.get_ref("tok2vec").walk()}
        head_sgd = _ScaledOptimizer(sgd, self.cfg["learn_rate_factor"], self.encoder_prefix)
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


def weigh_rows(golds: Sequence[Gold | None], like: Tensor) -> tuple[Tensor, Tensor]:
    """Make the weights of a batch's rows.

    golds (Sequence[Optional[Gold]]): Each row's gold; None where it is not annotated.
    like (Tensor): A tensor of the wanted type and device.
    RETURNS (tuple[Tensor, Tensor]): Each row's weight, and whether it is annotated, bool; both of
        shape (n_rows,).
    """
    weights = like.new_tensor([0.0 if gold is None else gold.weight for gold in golds])
    return weights, torch.tensor([gold is not None for gold in golds], device=like.device)


def split_docs(docs: Sequence[Doc]) -> Iterator[list[Doc]]:
    """Split docs into parts that are predicted at once.

    docs (Sequence[Doc]): The docs.
    YIELDS (list[Doc]): The parts.
    """
    starts = numpy.cumsum([0, *map(len, docs)])[:-1]
    for _, group in groupby(zip(starts // PREDICTED_TOKENS, docs, strict=True), itemgetter(0)):
        yield [doc for _, doc in group]


def check_ends(docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]) -> None:
    """Check that entities lie within their docs.

    docs (Sequence[Doc]): The docs.
    entities (Sequence[Sequence[Entity]]): Each doc's entities.
    RAISES (ValueError): If one ends outside its doc.
    """
    for doc, given in zip(docs, entities, strict=True):
        for entity in given:
            if entity.end > len(doc):
                raise ValueError(f"{entity} ends outside its doc, which has {len(doc)} tokens.")


def classify_entities(
    docs: Sequence[Doc],
    entities: Sequence[Sequence[Entity]],
    n_labels: int,
    classify: Callable[[list[Doc], list[list[Entity]]], NDArray[numpy.float64]],
) -> list[NDArray[numpy.float32]]:
    """Find the probabilities of spans' labels part by part: see
    `EntityComponent.class_probabilities`.

    docs (Sequence[Doc]): The docs.
    entities (Sequence[Sequence[Entity]]): The spans of each doc.
    n_labels (int): The number of labels.
    classify (Callable): Takes some docs, at least one of which has spans, and the spans of each,
        which lie within it; returns the probability of each label, shape (n_spans, n_labels).
    RETURNS (list[NDArray[numpy.float32]]): For each doc an array of shape (n_spans, n_labels + 1).
    RAISES (ValueError): If a span ends outside its doc, or there are not as many lists as docs.
    """
    if len(docs) != len(entities):
        raise ValueError(
            f"Each doc needs a list of its spans: there are {len(docs)} docs and {len(entities)} "
            f"lists."
        )
    result: list[NDArray[numpy.float32]] = []
    for part in split_docs(docs):
        given = [list(spans) for spans in entities[len(result) : len(result) + len(part)]]
        check_ends(part, given)
        ends = numpy.cumsum(list(map(len, given)))
        probabilities = numpy.zeros((int(ends[-1]), n_labels + 1))
        if probabilities.size and n_labels:
            probabilities[:, :-1] = classify(part, given)
        probabilities[:, -1] = (1 - probabilities.sum(1)).clip(min=0)
        probabilities /= probabilities.sum(1, keepdims=True)
        result.extend(numpy.split(probabilities.astype(numpy.float32), ends[:-1]))
    return result


def classify_spans(
    docs: Sequence[Doc],
    entities: Sequence[Sequence[Entity]],
    n_labels: int,
    classify: Callable[[list[Doc], NDArray[numpy.int64]], NDArray[numpy.float64]],
) -> list[NDArray[numpy.float32]]:
    """Find the probabilities of contiguous spans' labels: see `classify_entities`. Discontinuous
    ones, which `classify` is not asked for, are of no label.

    docs (Sequence[Doc]): The docs.
    entities (Sequence[Sequence[Entity]]): The spans of each doc.
    n_labels (int): The number of labels.
    classify (Callable): Takes some docs and their contiguous spans, as doc, start and end, shape
        (n_spans, 3); returns the probability of each label, shape (n_spans, n_labels).
    RETURNS (list[NDArray[numpy.float32]]): For each doc an array of shape (n_spans, n_labels + 1).
    RAISES (ValueError): If a span ends outside its doc.
    """

    def classify_part(part: list[Doc], given: list[list[Entity]]) -> NDArray[numpy.float64]:
        rows = [(i, e) for i, spans in enumerate(given) for e in spans]
        is_contiguous = numpy.array([e.is_contiguous for _, e in rows], dtype=bool)
        table = [(i, e.start, e.end) for i, e in rows if e.is_contiguous]
        probabilities = numpy.zeros((len(rows), n_labels))
        if table:
            probabilities[is_contiguous] = classify(part, numpy.array(table, dtype=numpy.int64))
        return probabilities

    return classify_entities(docs, entities, n_labels, classify_part)


def exclude_each_other(scores: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Make scores of labels that are independent of each other the probabilities of labels of which
    one holds at most: the odds f / (1 - f) of each against 1 for none, over their sum. Of one label
    it is the score.

    scores (NDArray[numpy.float64]): Scores in [0, 1], shape (n_spans, n_labels).
    RETURNS (NDArray[numpy.float64]): Probabilities, same shape.
    """
    scores = scores.clip(_SURE, 1 - _SURE)  # A score of 1 has infinite odds.
    odds = scores / (1 - scores)
    result: NDArray[numpy.float64] = odds / (1 + odds.sum(1, keepdims=True))
    return result


class _ScaledOptimizer:
    """An optimizer at a multiple of its learning rate, but for weights of some prefix."""

    def __init__(self, optimizer: Optimizer, factor: float, prefix: str | None) -> None:
        self.optimizer = optimizer
        self.factor = factor
        self.prefix = prefix

    def __call__(self, key: Any, weights: Any, gradient: Any) -> tuple[Any, Any]:
        is_encoder = self.prefix is not None and key[1].startswith(self.prefix)
        scale = 1.0 if is_encoder else self.factor
        return self.optimizer(key, weights, gradient, lr_scale=scale)


def reads_in_passes(nlp: Language) -> bool:
    """Tell whether training reads its corpus again for every pass, with `max_epochs = -1`; then
    initialization sees only the first examples.

    nlp (Language): The pipeline.
    RETURNS (bool): Whether it does.
    """
    return nlp.config.interpolate().get("training", {}).get("max_epochs") == -1


def _has_tokens(example: Example) -> bool:
    return len(example.predicted) > 0
