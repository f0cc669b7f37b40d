"""Training on several corpora that are annotated for different tasks."""

import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import logger

from spacy_mtlner.entities import (
    find_missing,
    read_ents,
    read_unknown,
    write_entities,
    write_unknown,
)
from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.convert import Settings
from spacy_mtlner.formats.corpus import make_example, read_source, warn_of_report
from spacy_mtlner.formats.files import AUTO, find_sources
from spacy_mtlner.formats.raw import read_raw_docs
from spacy_mtlner.pipeline.base import EntityComponent, reads_in_passes
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.training.similarity import (
    Numbers,
    Similarity,
    has_encoder,
    measure_similarity,
    weigh_sentences,
)

Role = Literal["main", "auxiliary", "unlabelled"]

_LOW = 0.01  # Mean weight of a corpus that hardly teaches anything.

# The unlabelled references of each reader's last pass over a pipeline's corpora, for the callback
# that writes pseudo-labels to them: spaCy passes no examples to it.
UNLABELLED: "WeakKeyDictionary[Language, WeakKeyDictionary[TaskCorpora, list[Doc]]]"
UNLABELLED = WeakKeyDictionary()


@dataclass(frozen=True)
class Source:
    """A corpus, as [corpora.NAME.corpora.TASK] of the config gives it.

    path (Path): A file or folder in any format that `mtlner convert` reads; of an unlabelled corpus
        also a .txt file with a text per line, or JSON lines with "text".
    role (Role): "main" or "auxiliary" for an annotated corpus, "unlabelled" for raw text.
    limit (int): Take that many sentences, chosen by the reader's seed; 0 for all.
    ratio (float): How often a sentence is yielded in a pass over the corpora: 2.0 for twice, 0.5
        for half of them, drawn anew in every pass.
    spans_key (Optional[str]): The key the gold has in the corpus, if it is not the task's name and
        the docs have several.
    """

    path: Path
    role: Role
    limit: int = 0
    ratio: float = 1.0
    spans_key: str | None = None


def make_task_corpora(
    corpora: dict[str, dict[str, Any] | None],
    seed: int = 0,
    similarity: Similarity | None = None,
    power: float = 1.0,
    scale: float | None = None,
) -> "TaskCorpora":
    """Registered as `spacy_mtlner.TaskCorpora.v1`: see `TaskCorpora`.

    corpora (dict[str, Optional[dict[str, Any]]]): Each corpus's settings by the name of its task:
        see `Source`; None leaves it out, so that an override can do so.
    RAISES (ValueError): If a setting is missing, unknown or out of range.
    """
    sources = {
        task: _check_source(task, settings)
        for task, settings in corpora.items()
        if settings is not None
    }
    return TaskCorpora(sources, seed=seed, similarity=similarity, power=power, scale=scale)


def _check_source(task: str, settings: Mapping[str, Any]) -> Source:
    where = f"spacy_mtlner.TaskCorpora.v1, corpus {task!r}"
    known = list(Source.__dataclass_fields__)
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown setting {unknown[0]!r}. Known: {', '.join(known)}.")
    if not settings.get("path"):
        raise ValueError(
            f"{where} has no path: set the path in its section of the config, or the variable of "
            f"[paths] that stands there on the command line."
        )
    if settings.get("role") not in get_args(Role):
        raise ValueError(
            f"{where}: the role is {settings.get('role')!r}; set it to one of "
            f"{', '.join(map(repr, get_args(Role)))}."
        )
    source = Source(**{**settings, "path": Path(settings["path"])})
    if type(source.limit) is not int or source.limit < 0:
        raise ValueError(f"{where}: limit must be a whole number from 0 on, not {source.limit!r}.")
    if not isinstance(source.ratio, int | float) or not 0 < source.ratio < math.inf:
        raise ValueError(f"{where}: ratio must be a number above 0, not {source.ratio!r}.")
    return source


@dataclass(eq=False)
class TaskCorpora:
    """Reads several corpora as one: shuffled examples, each with its gold under the spans key of
    its corpus's task, and with its weight (eq. 4).

    A corpus in which a doc has the task's key is taken as it is. In others the only spans key of
    each doc, the one that the source names, or `doc.ents` becomes the task's. A component learns
    only from docs with its key.

    sources (Mapping[str, Source]): The corpora by their tasks.
    seed (int): Seed of the order, and of the choice where there is a limit or a ratio.
    similarity (Optional[Similarity]): How sentences of auxiliary corpora are compared with the main
        one to weigh them; None to weigh all alike. With "encoder" they are compared once, by the
        encoder that training begins with.
    power (float): The power d of eq. 6.
    scale (Optional[float]): The divisor C of eq. 6; None for the highest similarity.
    RAISES (ValueError): If there is no main corpus or more than one, or a setting is out of range.
    """

    sources: Mapping[str, Source]
    seed: int = 0
    similarity: Similarity | None = None
    power: float = 1.0
    scale: float | None = None
    _random: random.Random = field(init=False, repr=False)
    _weights: dict[str, Numbers] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        main = self._with_role("main")
        if len(main) != 1:
            raise ValueError(
                f"spacy_mtlner.TaskCorpora.v1: one corpus must have the role 'main', and only one; "
                f"{', '.join(map(repr, main)) or 'none'} of {', '.join(map(repr, self.sources))} "
                f"has. Unlabelled text and auxiliary corpora only add to a main one."
            )
        if self.similarity not in (None, *get_args(Similarity)):
            raise ValueError(
                f"spacy_mtlner.TaskCorpora.v1: unknown similarity {self.similarity!r}. Use one of "
                f"{', '.join(map(repr, get_args(Similarity)))}, or null."
            )
        factors = (self.power, 1.0 if self.scale is None else self.scale)
        if not all(0 < factor < math.inf for factor in factors):
            raise ValueError(
                f"spacy_mtlner.TaskCorpora.v1: power and scale must be above 0, not {self.power} "
                f"and {self.scale}."
            )
        self._random = random.Random(self.seed)

    def _with_role(self, role: Role) -> list[str]:
        return [task for task, source in self.sources.items() if source.role == role]

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Read the examples of a pass over the corpora.

        nlp (Language): The pipeline.
        YIELDS (Example): The examples.
        RAISES (ValueError): If a corpus is empty or its task unknown, or unlabelled text is to be
            streamed.
        """
        self._check(nlp, reads_in_passes(nlp))
        docs = {task: self._read(task, nlp) for task in self.sources}
        self._weigh(docs, nlp)
        drawn = {task: list(self._draw(task, part)) for task, part in docs.items()}
        raw = {id(doc): doc for task in self._with_role("unlabelled") for doc in drawn[task]}
        if raw:
            UNLABELLED.setdefault(nlp, WeakKeyDictionary())[self] = list(raw.values())
        examples = [doc for part in drawn.values() for doc in part]
        self._random.shuffle(examples)
        for doc in examples:
            yield make_example(nlp, doc)

    def _check(self, nlp: Language, is_streamed: bool) -> None:
        keys: set[str] = set()
        # Those as well that are disabled while others are initialised.
        for _, pipe in nlp.components:
            if isinstance(pipe, EntityComponent):
                keys.update(pipe.keys)
            elif key := (getattr(pipe, "cfg", None) or {}).get("spans_key"):
                keys.add(key)
        for task, source in self.sources.items():
            if source.role == "unlabelled":
                if is_streamed:
                    raise ValueError(
                        f"Corpus {task!r} is unlabelled, which does not go with max_epochs = -1: "
                        f"pseudo-labels are written to sentences that stay in memory. Set "
                        f"[training] max_epochs to 0."
                    )
            elif keys and task not in keys:
                raise ValueError(
                    f"Corpus {task!r} is for a task that no component learns: their tasks are "
                    f"{', '.join(map(repr, sorted(keys)))}. Name the corpus after its task, or "
                    f"give a component that spans key."
                )
            if source.ratio % 1 and not is_streamed:
                warnings.warn(
                    f"Corpus {task!r} has a ratio of {source.ratio}, but [training] max_epochs is "
                    f"not -1: training reads the corpora once, and some sentences stay out of all "
                    f"epochs.",
                    stacklevel=3,
                )

    def _read(self, task: str, nlp: Language) -> list[Doc]:
        source = self.sources[task]
        if source.role == "unlabelled":
            report = Report()
            # Made anew, so that the pipeline predicts on the very tokens of the references; empty
            # ones have nothing to learn from.
            raw = read_raw_docs(source.path, nlp, report)
            docs = [nlp.make_doc(doc.text) for doc in raw if len(doc)]
            warn_of_report(source.path, report)
        else:
            docs = list(filter(len, _read_annotated(source, task, nlp)))
        if not docs:
            raise CorpusError(source.path, None, f"The {source.role} corpus {task!r} is empty.")
        if source.limit:
            # The first of one permutation: a larger limit only adds to a smaller one.
            order = list(range(len(docs)))
            random.Random(self.seed).shuffle(order)
            docs = [docs[i] for i in sorted(order[: source.limit])]
        return docs

    def _draw(self, task: str, docs: Sequence[Doc]) -> Iterator[Doc]:
        """The docs as often as the corpus's ratio says."""
        times, share = divmod(self.sources[task].ratio, 1)
        yield from list(docs) * int(times)
        n_more = round(share * len(docs))
        yield from self._random.sample(docs, n_more if times else max(n_more, 1))

    def _weigh(self, docs: Mapping[str, Sequence[Doc]], nlp: Language) -> None:
        """Multiply the auxiliary sentences' weights by their similarity to the main corpus."""
        auxiliary = self._with_role("auxiliary")
        if self.similarity is None or not auxiliary:
            return
        if self._weights is None:
            if self.similarity == "encoder" and not has_encoder(nlp):
                return  # Initialization reads the corpora before there is an encoder.
            main = self._with_role("main")[0]
            compared = {task: docs[task] for task in (main, *auxiliary)}
            cosines = measure_similarity(self.similarity, compared, main, nlp)
            self._weights = weigh_sentences(cosines, power=self.power, scale=self.scale)
            for task, weights in self._weights.items():
                mean = weights.mean()
                logger.info("Corpus %r: mean weight %.3f by similarity", task, mean)
                if mean < _LOW:
                    warnings.warn(
                        f"Corpus {task!r}: the mean weight of its sentences is {mean:.4f}, by "
                        f"their similarity ({self.similarity}) to the main corpus: hardly "
                        f"anything is learned from them. Lower power or scale, or set another "
                        f"similarity, or null.",
                        stacklevel=3,
                    )
        for task, weights in self._weights.items():
            for doc, weight in zip(docs[task], weights.tolist(), strict=True):
                doc.user_data[WEIGHT] = float(doc.user_data.get(WEIGHT, 1.0)) * weight


def _read_annotated(source: Source, task: str, nlp: Language) -> Iterator[Doc]:
    """A corpus's docs, whose gold is brought to the task's spans key."""
    report = Report()
    docs: list[tuple[Doc, Path, int]] = []
    for part in find_sources(source.path, AUTO, report):
        found = read_source(nlp, part, Settings(spans_key=task), report)
        if part.format == "spacy":
            docs += ((doc, part.path, number) for number, doc in enumerate(found, start=1))
        elif source.spans_key:
            raise CorpusError(
                part.path,
                None,
                f"Corpus {task!r} has a spans_key, which only .spacy files can have: remove it.",
            )
        else:
            yield from found
    warn_of_report(source.path, report)
    # Where any has the key, the others are not annotated for the task.
    is_keyed = any(task in doc.spans for doc, _, _ in docs)
    for doc, path, number in docs:
        if not is_keyed:
            _set_key(doc, task, source, path, number)
        yield doc


def _set_key(doc: Doc, task: str, source: Source, path: Path, number: int) -> None:
    """Bring a doc's gold to the task's spans key."""
    keys = [source.spans_key] if source.spans_key else list(doc.spans)
    where = f"doc {number}: no spans key {task!r}"
    if len(keys) > 1:
        found = ", ".join(map(repr, keys))
        raise CorpusError(
            path, None, f"{where}, but {found}. Set spans_key of corpus {task!r} to one of them."
        )
    if not keys:
        if not doc.has_annotation("ENT_IOB") and len(doc):
            raise CorpusError(
                path,
                None,
                f"{where}, nor any other, nor doc.ents: the doc is not annotated. Give corpus "
                f"{task!r} the role 'unlabelled', or remove the doc.",
            )
        write_entities(doc, read_ents(doc), task)
        write_unknown(doc, find_missing(doc), task)
    elif keys[0] not in doc.spans:
        found = ", ".join(map(repr, doc.spans)) or "none"
        raise CorpusError(
            path, None, f"{where}, nor {keys[0]!r}, which spans_key names. Keys found: {found}."
        )
    else:
        group = doc.spans.pop(keys[0])
        group.name = task
        doc.spans[task] = group
        write_unknown(doc, read_unknown(doc, keys[0]), task)
