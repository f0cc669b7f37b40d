"""`multitask_crf_ner`: flat entities of several tag sets, learned from corpora that are annotated
differently, over one encoder.

Implements "A Multi-Task BERT-BiLSTM-AM-CRF Strategy for Chinese Named Entity Recognition".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Model
from torch import Tensor

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.entities import Entity
from spacy_mtlner.models.multitask_crf import TaskInputs, resize_tasks
from spacy_mtlner.nn.multitask import MultiTaskScores
from spacy_mtlner.nn.tagger import CRFScores
from spacy_mtlner.pipeline.base import make_default_model, reads_in_passes
from spacy_mtlner.pipeline.gold import Gold, GoldReport, check_report, read_gold
from spacy_mtlner.pipeline.tagging import (
    TaggingComponent,
    class_probabilities,
    decode_tags,
    make_tag_scheme,
    predict_with_confidence,
    tag_loss,
)

ROLES = ("main", "auxiliary")

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.MultiTaskCRF.v1"
rnn = "lstm"
hidden_width = 128
depth = 1
fusion = "attention"
n_heads = 4
window = 64
dropout = null
tag_scheme = "BILUO"
"""

DEFAULT_MULTITASK_MODEL = make_default_model(DEFAULT_CONFIG)


@Language.factory(
    "multitask_crf_ner",
    assigns=["doc.spans", "doc.ents", "token.ent_iob", "token.ent_type"],
    default_config={
        "model": DEFAULT_MULTITASK_MODEL,
        "tasks": {},  # There must be some: a default would be merged with those of a config.
        "predicted_tasks": "main",
        "annotate_ents": False,
        "overwrite": False,
        "learn_rate_factor": 1.0,
        "scorer": {"@scorers": "spacy_mtlner.entity_scorer.v1"},
    },
)
def make_multitask_crf_ner(
    nlp: Language,
    name: str,
    model: Model[TaskInputs, MultiTaskScores],
    tasks: dict[str, str | None],
    predicted_tasks: str,
    annotate_ents: bool,
    overwrite: bool,
    learn_rate_factor: float,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "MultiTaskEntityRecognizer":
    """Construct a `multitask_crf_ner` component: see `MultiTaskEntityRecognizer`. A task whose role
    is None is left out.
    """
    return MultiTaskEntityRecognizer(
        nlp.vocab,
        model,
        name,
        tasks={key: role for key, role in tasks.items() if role is not None},
        predicted_tasks=predicted_tasks,
        annotate_ents=annotate_ents,
        overwrite=overwrite,
        learn_rate_factor=learn_rate_factor,
        scorer=scorer,
    )


class MultiTaskEntityRecognizer(TaggingComponent):
    """Finds contiguous entities that do not overlap, by one CRF for each task.

    A task is a spans key with labels of its own. A doc teaches the tasks whose key it has, and the
    recurrent layers and the encoder that they rest on; the others' heads do not run on it. An
    entity's score is its marginal, as that of `crf_ner`.

    tasks (Mapping[str, str]): Each task's spans key and role: "main" for one, "auxiliary" for all
        others.
    predicted_tasks (str): Whose entities are predicted: "main", "all", or a task's key.
    annotate_ents (bool): Whether to write the entities of the main task, or of the only predicted
        one, to `doc.ents` as well.
    Other settings: see `EntityComponent`.
    RAISES (ValueError): If the tasks have no main one, several or unknown roles, or a task to
        predict is unknown.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[TaskInputs, MultiTaskScores],
        name: str,
        *,
        tasks: Mapping[str, str],
        predicted_tasks: str,
        annotate_ents: bool,
        overwrite: bool,
        learn_rate_factor: float,
        scorer: Callable[..., dict[str, Any]] | None,
    ) -> None:
        keys = _order_tasks(tasks, name)
        super().__init__(
            vocab,
            model,
            name,
            spans_key=keys[0],
            gold="spans",
            annotate_ents=annotate_ents,
            overwrite=overwrite,
            learn_rate_factor=learn_rate_factor,
            scorer=scorer,
        )
        self.cfg["tasks"] = dict(tasks)
        self.cfg["labels"] = {key: [] for key in keys}
        self.predicted_tasks = predicted_tasks

    @property
    def keys(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The tasks' spans keys, the main task's first."""
        return tuple(self.cfg["labels"])

    @property
    def predicted_tasks(self) -> str:
        """RETURNS (str): Whose entities are predicted: "main", "all" or a task's key."""
        return str(self.cfg["predicted_tasks"])

    @predicted_tasks.setter
    def predicted_tasks(self, value: str) -> None:
        if value not in ("main", "all", *self.keys):
            raise ValueError(
                f"{self.name}: predicted_tasks is {value!r}, which is no task: set 'main', 'all' "
                f"or one of {', '.join(map(repr, self.keys))}."
            )
        self.cfg["predicted_tasks"] = value

    @property
    def predicted_keys(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The spans keys of the tasks whose entities are predicted."""
        wanted = self.predicted_tasks
        if wanted == "all":
            return self.keys
        return (self.key,) if wanted == "main" else (wanted,)

    @property
    def labels(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The labels of all tasks, each once."""
        return tuple({label: None for key in self.keys for label in self.cfg["labels"][key]})

    def labels_of(self, key: str) -> tuple[str, ...]:
        """Get the labels of a task.

        key (str): The task's spans key.
        RETURNS (tuple[str, ...]): Its labels.
        """
        return tuple(self.cfg["labels"][key])

    @property
    def label_data(self) -> dict[str, list[str]]:  # type: ignore[override]
        """RETURNS (dict[str, list[str]]): Each task's labels, for `spacy init labels`."""
        return {key: list(self.cfg["labels"][key]) for key in self.keys}

    def add_label(self, label: str, task: str | None = None) -> int:
        """Add a label to a task; a component that is initialized gets a larger output.

        label (str): The label.
        task (Optional[str]): The task's spans key; None for the main task.
        RETURNS (int): 1, or 0 if it was there already.
        RAISES (ValueError): If the task is unknown or the label empty.
        """
        key = self.key if task is None else task
        self._check_task(key)
        if not self._append_label(label, self.cfg["labels"][key]):
            return 0
        if self.is_initialized:
            resize_tasks(self.model, self._count_tags())
        return 1

    def _check_task(self, key: str) -> None:
        if key not in self.cfg["tasks"]:
            tasks = ", ".join(map(repr, self.keys))
            raise ValueError(f"{self.name}: unknown task {key!r}. Tasks: {tasks}.")

    def tag_scheme(self, key: str) -> TagScheme:
        """Get the tags of a task's present labels.

        key (str): The task's spans key.
        RETURNS (TagScheme): The tags.
        """
        return make_tag_scheme(self.model.attrs["tag_scheme"], self.labels_of(key))

    def _count_tags(self) -> list[int]:
        return [len(self.tag_scheme(key)) for key in self.keys]

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,  # type: ignore[override]
    ) -> None:
        """Find each task's labels, report what cannot be learned, and initialise the model.

        get_examples (Callable[[], Iterable[Example]]): Returns the training examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Mapping[str, Sequence[str]]]): The labels of each task; those of a task
            that is not named are those of the examples' entities.
        RAISES (ValueError): If a task has no labels or no example, a task is unknown, or the model
            reads static vectors and there are none.
        """
        labels = labels or {}
        for key in labels:
            self._check_task(key)
        self._check_vectors()
        if nlp is not None:
            self._check_score_weights(nlp)
            self._check_keys(nlp)
        reports = {key: GoldReport() for key in self.keys}
        found: set[str] = set()
        for example in get_examples():
            for key, gold in zip(self.keys, self.read_tasks(example), strict=True):
                reports[key].add(gold, len(example.predicted))
            found.update(example.reference.spans)
        for key, report in reports.items():
            for label in labels.get(key, sorted(report.labels)):
                self.add_label(label, key)
            if not report.n_annotated and not (nlp is not None and reads_in_passes(nlp)):
                keys = ", ".join(map(repr, sorted(found))) or "none"
                raise ValueError(
                    f"{self._name_task(key)}: none of {report.n_docs} training docs is annotated "
                    f"in doc.spans[{key!r}]. Spans keys found: {keys}. Check the training corpus "
                    f"and the setting 'tasks'."
                )
            check_report(
                report,
                self.cfg["labels"][key],
                who=self._name_task(key),
                where=f"doc.spans[{key!r}]",
                section=f"{self.section}.labels",
                setting="tasks",
                representable=self.representable,
                keys=found,
            )
        self.model.attrs["n_tags"] = self._count_tags()
        sample = self._sample_docs(get_examples())
        self.model.initialize(X=self.make_inputs(sample, is_train=False))

    def _name_task(self, key: str) -> str:
        return f"{self.name}, task {key!r}"

    def read_tasks(self, example: Example) -> list[Gold | None]:
        """Read an example's gold for every task.

        example (Example): The example.
        RETURNS (list[Optional[Gold]]): The gold of each of `keys`; None where the reference is not
            annotated for the task.
        """
        return [read_gold(example, key, "spans", self.select_representable) for key in self.keys]

    def read_golds(self, examples: Sequence[Example]) -> list[list[Gold | None]]:
        """Read the gold of a batch for every task.

        examples (Sequence[Example]): The examples.
        RETURNS (list[list[Optional[Gold]]]): Of each of `keys`, every example's gold.
        RAISES (ValueError): If a label is unknown.
        """
        tasks = [self.read_tasks(example) for example in examples]
        golds = [[own[i] for own in tasks] for i in range(len(self.keys))]
        for key, task in zip(self.keys, golds, strict=True):
            self.check_labels(task, self.cfg["labels"][key], who=self._name_task(key))
        return golds

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> TaskInputs:
        """Make the model's input: all docs for the tasks that are predicted.

        docs (list[Doc]): The docs.
        is_train (bool): Whether gradients will be asked for.
        RETURNS (TaskInputs): The input.
        """
        return self._want_tasks(docs, self.predicted_keys)

    def _want_tasks(self, docs: list[Doc], tasks: Sequence[str]) -> TaskInputs:
        is_wanted = numpy.array([key in tasks for key in self.keys])
        return TaskInputs(docs, numpy.repeat(is_wanted[:, None], len(docs), axis=1))

    def make_training_inputs(self, examples: Sequence[Example], golds: Any) -> TaskInputs:
        """Make the model's input for an update: each doc for the tasks it is annotated for.

        examples (Sequence[Example]): The examples.
        golds (Any): Not used: what they are annotated for is enough.
        RETURNS (TaskInputs): The input.
        """
        wanted = [[key in eg.reference.spans for eg in examples] for key in self.keys]
        return TaskInputs([eg.predicted for eg in examples], numpy.array(wanted, dtype=bool))

    def compute_loss(
        self,
        golds: Sequence[Sequence[Gold | None]],
        lengths: Sequence[int],
        scores: MultiTaskScores,
    ) -> Tensor:
        """Compute the weighted negative log-likelihood of the gold tags of all tasks, whose weights
        are those of eq. 3 and 4: see `tag_loss`.

        golds (Sequence[Sequence[Optional[Gold]]]): Of each task, every example's gold.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (MultiTaskScores): The model's output.
        RETURNS (Tensor): Sum of w_i l_i over the number of annotations, where a doc that is
            annotated for two tasks counts twice, a scalar.
        """
        losses, n_rows = [], []
        for task, key in enumerate(self.keys):
            pairs = zip(golds[task], lengths, strict=True)
            own = [(gold, length) for gold, length in pairs if gold is not None]
            if own:
                rows, sizes = zip(*own, strict=True)
                losses.append(tag_loss(scores.of_task(task), rows, sizes, self.tag_scheme(key)))
                n_rows.append(len(own))
        # A batch that teaches nothing has a loss of 0, and gradients.
        nothing = scores.of_task(0).emissions[:0].sum()
        if not losses:
            return nothing
        shares = nothing.new_tensor(n_rows) / sum(n_rows)
        return nothing + torch.stack(losses) @ shares

    def decode(self, docs: Sequence[Doc], scores: MultiTaskScores) -> list[dict[str, Any]]:  # type: ignore[override]
        """Find the best tag sequences of each doc and read their entities.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (MultiTaskScores): The model's output.
        RETURNS (list[dict[str, list[Entity]]]): Each doc's entities by the spans key of their task.
        """
        lengths = [len(doc) for doc in docs]
        found = {
            key: decode_tags(scores.of_task(self.keys.index(key)), lengths, self.tag_scheme(key))
            for key in self.predicted_keys
        }
        return [{key: found[key][i] for key in found} for i in range(len(docs))]

    def decode_nothing(self) -> dict[str, list[Entity]]:
        """RETURNS (dict[str, list[Entity]]): The prediction for a doc in a batch without tokens."""
        return {key: [] for key in self.predicted_keys}

    def predict_with_confidence(
        self, docs: Sequence[Doc]
    ) -> tuple[list[list[Entity]], NDArray[numpy.float64]]:
        """Predict the main task's entities, and how sure the tags of each doc as a whole are.

        docs (Sequence[Doc]): The docs.
        RETURNS (tuple[list[list[Entity]], NDArray[numpy.float64]]): Each doc's entities, and its
            confidence: see `path_confidence`.
        """
        predict = self._predictor(self.key)
        return predict_with_confidence(docs, predict, self.tag_scheme(self.key))

    def class_probabilities(
        self,
        docs: Sequence[Doc],
        entities: Sequence[Sequence[Entity]],
        *,
        task: str | None = None,
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each of a task's labels, and to be none: the
        marginals of its CRF, as `crf_ner` has them.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc; their labels are not read.
        task (Optional[str]): The task's spans key; None for the main task.
        RETURNS (list[NDArray[numpy.float32]]): For each doc a row for each span: see
            `EntityComponent.class_probabilities`.
        RAISES (ValueError): If the task is unknown.
        """
        key = self.key if task is None else task
        self._check_task(key)
        return class_probabilities(docs, entities, self._predictor(key), self.tag_scheme(key))

    def _predictor(self, key: str) -> Callable[[list[Doc]], CRFScores]:
        """The model, for one task."""
        self._require_initialized()
        number = self.keys.index(key)
        return lambda docs: self.model.predict(self._want_tasks(docs, [key])).of_task(number)

    def set_annotations(self, docs: Iterable[Doc], scores: list[dict[str, list[Entity]]]) -> None:
        """Write entities to a batch of docs, each task's under its own spans key.

        docs (Iterable[Doc]): The docs.
        scores (list[dict[str, list[Entity]]]): Each doc's entities, as `predict` returns them.
        """
        for doc, tasks in zip(docs, scores, strict=True):
            for number, (key, entities) in enumerate(tasks.items()):
                with_ents = self.cfg["annotate_ents"] and number == 0
                self.annotate(doc, entities, key, with_ents=with_ents)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Score each predicted task under its own spans key.

        examples (Iterable[Example]): The examples.
        RETURNS (dict[str, Any]): The scores: see `score_entities`.
        """
        if self.scorer is None:
            return {}
        examples = list(examples)
        scores: dict[str, Any] = {}
        for number, key in enumerate(self.predicted_keys):
            settings = {**self.cfg, "spans_key": key, "labels": self.cfg["labels"][key]}
            settings["annotate_ents"] = self.cfg["annotate_ents"] and number == 0
            # The others' doc.ents may hold another task's entities.
            annotated = [example for example in examples if key in example.reference.spans]
            scores.update(self.scorer(annotated, **settings))
        return scores


def _order_tasks(tasks: Mapping[str, str], name: str) -> list[str]:
    """The tasks' keys, the main one's first."""
    for key, role in tasks.items():
        if key in ("main", "all"):
            raise ValueError(
                f"{name}: a task cannot have the key {key!r}, by which predicted_tasks means "
                f"another: rename it in [components.{name}.tasks] and in the corpora."
            )
        if role not in ROLES:
            raise ValueError(
                f"{name}: the role of task {key!r} is {role!r}; use 'main' or 'auxiliary'."
            )
    main = [key for key, role in tasks.items() if role == "main"]
    if len(main) != 1:
        raise ValueError(
            f"{name}: one of the tasks must have the role 'main', and only one; "
            f"{', '.join(map(repr, main)) or 'none'} has. Set [components.{name}.tasks]."
        )
    return main + [key for key in tasks if key != main[0]]
