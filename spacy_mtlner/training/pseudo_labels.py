"""Learning from unlabelled text: what the model predicts for it with confidence becomes gold."""

import gc
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch
from wasabi import msg

from spacy_mtlner.entities import Entity
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.training.similarity import run_before
from spacy_mtlner.training.task_corpora import UNLABELLED


@runtime_checkable
class _Confident(Protocol):
    key: str
    cfg: dict[str, Any]

    def predict_with_confidence(
        self, docs: list[Doc]
    ) -> tuple[list[list[Entity]], NDArray[numpy.float64]]: ...

    def annotate(self, doc: Doc, entities: list[Entity], key: str, *, with_ents: bool) -> None: ...


def make_pseudo_labeller(
    component: str,
    start: int = 500,
    refresh: int = 500,
    min_confidence: float = 0.5,
    batch_size: int = 128,
) -> Callable[[Language, dict[str, Any]], None]:
    """Registered as `spacy_mtlner.pseudo_label.v1`, for [training.before_update]: labels the
    unlabelled corpora of `spacy_mtlner.TaskCorpora.v1` by what the pipeline predicts at present, as
    section 5 of the multi-task paper has it. A sentence weighs as much as its confidence (eq. 2 and
    4); one below `min_confidence` teaches nothing until the next refresh.

    component (str): The component that labels, and learns: a `multitask_crf_ner`, whose main task
        is meant, or a `crf_ner`.
    start (int): Step of the first labelling.
    refresh (int): Steps from one labelling to the next.
    min_confidence (float): The lowest confidence, in [0, 1].
    batch_size (int): Sentences that are labelled at once.
    RETURNS (Callable[[Language, dict[str, Any]], None]): The callback.
    RAISES (ValueError): If a setting is out of range; while training, if there is no unlabelled
        corpus or the component gives no confidence.
    """
    where = "spacy_mtlner.pseudo_label.v1"
    if start < 0 or refresh < 1 or batch_size < 1:
        raise ValueError(
            f"{where}: start must be 0 or more, refresh and batch_size at least 1, not {start}, "
            f"{refresh} and {batch_size}."
        )
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"{where}: min_confidence must be in [0, 1], not {min_confidence}.")

    def label(nlp: Language, progress: dict[str, Any]) -> None:
        step = progress["step"]
        if step < start or (step - start) % refresh:
            return
        if component not in nlp.pipe_names:
            raise ValueError(
                f"{where}: the pipeline has no component {component!r}, but "
                f"{', '.join(nlp.pipe_names)}. Set component in [training.before_update]."
            )
        references = _find_references(nlp, where)
        confidences = numpy.concatenate(
            [
                _label_batch(nlp, component, batch, min_confidence)
                for batch in minibatch(references, batch_size)
            ]
        )
        used = confidences >= min_confidence
        mean = f", of mean confidence {confidences[used].mean():.2f}" if used.any() else ""
        msg.info(
            f"Step {step}: pseudo-labels for {used.sum()} of {len(references)} unlabelled "
            f"sentences{mean}; {(~used).sum()} are below {min_confidence}"
        )

    return label


def _find_references(nlp: Language, where: str) -> list[Doc]:
    """The unlabelled references of the training corpus."""
    readers = UNLABELLED.get(nlp, WeakKeyDictionary())
    if len(readers) > 1:
        gc.collect()  # spaCy makes readers for the initialization, and others for the training.
    if not readers:
        raise ValueError(
            f"{where}: the training corpus has no unlabelled text. Read it by "
            f"spacy_mtlner.TaskCorpora.v1, with a corpus whose role is 'unlabelled', or remove "
            f"[training.before_update]."
        )
    training = nlp.config.interpolate().get("training", {})
    if len(readers) > 1 or training.get("train_corpus") == training.get("dev_corpus", ""):
        raise ValueError(
            f"{where}: unlabelled text belongs to the training corpus alone. Remove the corpora "
            f"whose role is 'unlabelled' from the section of dev_corpus, which must be another one "
            f"than that of train_corpus."
        )
    return next(iter(readers.values()))


def _label_batch(
    nlp: Language, name: str, references: list[Doc], min_confidence: float
) -> NDArray[numpy.float64]:
    """Write entities and weights to references; returns the confidences, (n_references,)."""
    component: Any = nlp.get_pipe(name)
    if not isinstance(component, _Confident):
        raise ValueError(
            f"{name} gives no confidence in what it predicts for a sentence: pseudo-labels need a "
            f"crf_ner or a multitask_crf_ner."
        )
    if component.cfg.get("gold_source") == "ents":
        raise ValueError(
            f"{name} learns from doc.ents, but pseudo-labels are written to doc.spans: set gold of "
            f"[components.{name}] to 'spans'."
        )
    # By the tokens of the references, which the reader has made by the pipeline's own tokenizer.
    docs = run_before(nlp, name, [nlp.make_doc(doc.text) for doc in references])
    entities, confidences = component.predict_with_confidence(docs)
    for reference, found, confidence in zip(
        references, entities, confidences.tolist(), strict=True
    ):
        reference.spans.pop(component.key, None)
        if confidence >= min_confidence:
            component.annotate(reference, found, component.key, with_ents=False)
            reference.user_data[WEIGHT] = confidence
    return confidences
