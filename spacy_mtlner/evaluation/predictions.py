"""A pipeline's predictions on a corpus beside its gold, as `analysis` takes them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch

from spacy_mtlner.entities import (
    Entity,
    Fragments,
    TokenMap,
    align_entities,
    is_annotated,
    read_entities,
    read_ents,
)
from spacy_mtlner.evaluation.analysis import DocEntities, Mention, Surfaces
from spacy_mtlner.evaluation.corpora import read_surface
from spacy_mtlner.formats.corpus import make_example
from spacy_mtlner.pipeline.base import EntityComponent
from spacy_mtlner.pipeline.gold import find_gold_source
from spacy_mtlner.scoring import compare_entities
from spacy_mtlner.training.gold_candidates import give_candidates

IntArray = NDArray[numpy.int64]


@dataclass(frozen=True)
class Task:
    """The component that is analysed, and its task.

    name (str): The component's name in the pipeline.
    component (EntityComponent): The component.
    key (str): The spans key.
    """

    name: str
    component: EntityComponent
    key: str

    @property
    def is_typing(self) -> bool:
        """RETURNS (bool): Whether it is the typing of given entities, and no recognition."""
        return bool(self.component.cfg.get("typing"))

    @property
    def labels(self) -> tuple[str, ...]:
        """RETURNS (tuple[str, ...]): The labels, in the order of class probabilities."""
        return self.component.labels_of(self.key)

    def make_example(self, nlp: Language, reference: Doc) -> Example:
        """Put a doc to predict beside an annotated one; for typing, with the gold's fragments.

        nlp (Language): The pipeline.
        reference (Doc): The annotated doc.
        RETURNS (Example): Both.
        """
        if self.is_typing:
            return give_candidates(nlp, reference, self.key, self.component.cfg["candidates_key"])
        return make_example(nlp, reference)

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each label: see `EntityComponent`.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc.
        RETURNS (list[NDArray[numpy.float32]]): For each doc an array of shape (n_spans, n_labels +
            1).
        """
        settings = {"task": self.key} if len(self.component.keys) > 1 else {}
        return self.component.class_probabilities(docs, entities, **settings)


@dataclass(frozen=True)
class Predictions:
    """Gold and predicted entities of a corpus.

    docs (list[DocEntities]): The docs that are annotated for the task.
    n_skipped (int): Docs that are not.
    source (str): Where the gold is: "spans" or "ents".
    why_no_probabilities (str): Why there are no class probabilities; empty if there are.
    """

    docs: list[DocEntities]
    n_skipped: int
    source: str
    why_no_probabilities: str


def find_task(nlp: Language, name: str | None = None, key: str | None = None) -> Task:
    """Find the component to analyse. One that predicts other tasks is set to predict this one.

    nlp (Language): The pipeline.
    name (Optional[str]): The component's name; None for the only one of this package.
    key (Optional[str]): The task's spans key; None for the first that the component predicts.
    RETURNS (Task): The component and its task.
    RAISES (ValueError): If there is no such component or task, or a choice to be made.
    """
    found = {n: pipe for n, pipe in nlp.pipeline if isinstance(pipe, EntityComponent)}
    names = ", ".join(map(repr, found))
    if not found:
        raise ValueError(
            f"The pipeline has no component of spacy_mtlner: {', '.join(nlp.pipe_names) or 'none'}."
        )
    if name is None and len(found) > 1:
        raise ValueError(f"The pipeline has several components: name one with --pipe: {names}.")
    if name is not None and name not in found:
        raise ValueError(f"{name!r} is no component of spacy_mtlner in the pipeline: {names}.")
    name = name or next(iter(found))
    component = found[name]
    key = key or component.predicted_keys[0]
    if key not in component.keys:
        keys = ", ".join(map(repr, component.keys))
        raise ValueError(f"{name} has no task with the spans key {key!r}: it has {keys}.")
    if key not in component.predicted_keys:
        component.predicted_tasks = key  # type: ignore[attr-defined]
    return Task(name, component, key)


def predict_corpus(nlp: Language, task: Task, references: Iterable[Doc]) -> Predictions:
    """Run a pipeline up to the component that is analysed, and collect gold and predictions.

    nlp (Language): The pipeline.
    task (Task): The component, and its task.
    references (Iterable[Doc]): The annotated docs.
    RETURNS (Predictions): Gold and predictions.
    RAISES (ValueError): If there are no docs, or none is annotated for the task.
    """
    docs: list[DocEntities] = []
    n_docs, why_not = 0, ""
    source = task.component.cfg["gold_source"]
    keys: set[str] = set()
    behind = nlp.pipe_names[nlp.pipe_names.index(task.name) + 1 :]
    # A component behind may clear what the probabilities are computed from.
    with nlp.select_pipes(disable=behind):
        for docs_of_batch in minibatch(references, nlp.batch_size):
            batch = [task.make_example(nlp, doc) for doc in docs_of_batch]
            source = source or find_gold_source(batch, task.key)
            annotated = [
                (n_docs + i, example)
                for i, example in enumerate(batch, start=1)
                if source and is_annotated(example.reference, task.key, source)
            ]
            n_docs += len(batch)
            keys.update(key for example in batch for key in example.reference.spans)
            predicted = nlp.pipe(example.predicted for _, example in annotated)
            for (_, example), doc in zip(annotated, predicted, strict=True):
                example.predicted = doc
            found = [_collect(number, eg, task.key, source or "spans") for number, eg in annotated]
            if not why_not:
                why_not = _add_probabilities(task, [eg for _, eg in annotated], found)
            docs += (doc for doc, _ in found)
    if not n_docs:
        raise ValueError("The corpus holds no docs.")
    if not docs:
        where = "doc.ents" if source == "ents" else f"doc.spans[{task.key!r}]"
        others = ", ".join(map(repr, sorted(keys))) or "none"
        raise ValueError(
            f"None of {n_docs} docs of the corpus is annotated in {where}, where {task.name} has "
            f"its gold. Spans keys found: {others}."
        )
    return Predictions(docs, n_docs - len(docs), source or "spans", why_not)


def count_surfaces(docs: Iterable[Doc], key: str, source: str) -> Surfaces:
    """Count the surface forms of training data.

    docs (Iterable[Doc]): The annotated docs.
    key (str): The task's spans key.
    source (str): Where the gold is: "spans" or "ents".
    RETURNS (Surfaces): For each surface form, how often it has each label.
    RAISES (ValueError): If no doc is annotated for the task.
    """
    surfaces: defaultdict[str, Counter[str]] = defaultdict(Counter)
    n_annotated = 0
    for doc in docs:
        if is_annotated(doc, key, source):
            n_annotated += 1
            for entity in read_ents(doc) if source == "ents" else read_entities(doc, key):
                surfaces[read_surface(doc, entity)][entity.label] += 1
    if not n_annotated:
        where = "doc.ents" if source == "ents" else f"doc.spans[{key!r}]"
        raise ValueError(f"No doc of the training corpus is annotated in {where}.")
    return dict(surfaces)


def _collect(
    number: int, example: Example, key: str, source: str
) -> tuple[DocEntities, list[Entity]]:
    """The entities of an example, and the gold ones over the tokens of its reference."""
    compared = compare_entities(example, spans_key=key, gold_source=source)
    assert compared is not None  # It is annotated.
    predicted, reference = example.predicted, example.reference
    is_same = predicted.text == reference.text
    solid = None if is_same else _find_solid(predicted.text)
    contexts = _Contexts(reference if is_same else None, len(predicted))

    def make(label: str, place: Fragments, entity: Entity, doc: Doc) -> Mention:
        places = place if solid is None else _find_places(place, solid)
        return Mention(
            label=label,
            key=place,
            places=places,
            length=sum(end - start for start, end in entity.fragments),
            context=contexts.find(places[0][0]),
            surface=read_surface(doc, entity),
            score=entity.score,
        )

    starts_and_sizes = predicted.to_array(["IDX", "LENGTH"]).astype(numpy.int64).reshape(-1, 2)
    found = DocEntities(
        number,
        predicted.text,
        numpy.cumsum(starts_and_sizes, axis=1),
        [make(*k, e, reference) for k, e in compared.gold.items()],
        [make(*k, e, predicted) for k, e in compared.predicted.items()],
    )
    return found, list(compared.gold.values())


def _add_probabilities(
    task: Task, examples: Sequence[Example], found: list[tuple[DocEntities, list[Entity]]]
) -> str:
    """Add the probabilities of the gold entities' spans; returns why there are none, if so."""
    aligned: list[list[Entity]] = []
    masks: list[list[bool]] = []
    for example, (_, gold) in zip(examples, found, strict=True):
        tokens = TokenMap.of(example)
        mapped = [align_entities(example, [entity], tokens)[0] for entity in gold]
        aligned.append([e for entities in mapped for e in entities])
        masks.append([bool(entities) for entities in mapped])
    try:
        arrays = task.class_probabilities([eg.predicted for eg in examples], aligned)
    except NotImplementedError as err:
        return str(err)
    n_classes = len(task.labels) + 1
    for i, (mask, array) in enumerate(zip(masks, arrays, strict=True)):
        probabilities = numpy.full((len(mask), n_classes), numpy.nan)
        probabilities[numpy.array(mask, dtype=bool)] = array
        doc, gold = found[i]
        found[i] = (
            DocEntities(doc.number, doc.text, doc.tokens, doc.gold, doc.predicted, probabilities),
            gold,
        )
    return ""


def _find_solid(text: str) -> IntArray:
    """Positions of the characters that are not white space."""
    return numpy.array([i for i, char in enumerate(text) if not char.isspace()], dtype=numpy.int64)


def _find_places(fragments: Fragments, solid: IntArray) -> Fragments:
    """Where in a text something is of which offsets without white space are known."""
    places = []
    for start, end in fragments:
        first = int(solid[min(start, len(solid) - 1)]) if len(solid) else 0
        places.append((first, max(first, int(solid[end - 1]) + 1) if end > start else first))
    return tuple(places)


class _Contexts:
    """The number of tokens of the sentence at a character; without sentences, of the doc."""

    def __init__(self, doc: Doc | None, n_tokens: int) -> None:
        self.starts, self.sizes = numpy.zeros(1, dtype=numpy.int64), [n_tokens]
        if doc is not None and len(doc) and doc.has_annotation("SENT_START"):
            sents = list(doc.sents)
            self.starts = numpy.array([sent.start_char for sent in sents])
            self.sizes = [len(sent) for sent in sents]

    def find(self, start: int) -> int:
        return self.sizes[max(0, int(numpy.searchsorted(self.starts, start, "right")) - 1)]
