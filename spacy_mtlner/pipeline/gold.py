"""What examples say about a task: reading it, and reporting what cannot be learned."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy
from numpy.typing import NDArray
from spacy.training import Example
from spacy.util import logger

from spacy_mtlner.entities import (
    Entity,
    TokenMap,
    align_entities,
    find_missing,
    is_annotated,
    read_entities,
    read_ents,
    read_unknown,
)

GoldSource = Literal["auto", "spans", "ents"]
# Key of the reference's user_data: a sample's weight.
WEIGHT = "mtlner_weight"


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
    n_tokens (int): Predicted tokens of these docs, as far as their annotation is known.
    n_unaligned (int): Entities that the predicted tokens cannot express.
    n_dropped (int): Entities that the component cannot represent.
    n_elsewhere (int): Docs that are annotated, but not where the gold was found in others.
    labels (Counter[str]): Entities by label.
    lengths (Counter[int]): Entities by number of tokens from their first to their last.
    """

    n_docs: int = 0
    n_annotated: int = 0
    n_tokens: int = 0
    n_unaligned: int = 0
    n_dropped: int = 0
    n_elsewhere: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, gold: Gold | None, n_tokens: int) -> None:
        """Count a doc's gold.

        gold (Optional[Gold]): The gold; None if the doc is not annotated for the task.
        n_tokens (int): Number of predicted tokens.
        """
        self.n_docs += 1
        if gold is not None:
            self.n_annotated += 1
            n_unknown = 0 if gold.unknown is None else int(gold.unknown.sum())
            self.n_tokens += n_tokens - n_unknown
            self.n_unaligned += gold.n_unaligned
            self.n_dropped += gold.n_dropped
            self.labels.update(entity.label for entity in gold.entities)
            self.lengths.update(entity.end - entity.start for entity in gold.entities)


def find_gold_source(examples: Iterable[Example], key: str) -> str | None:
    """Find out where the gold of a task is.

    examples (Iterable[Example]): The examples.
    key (str): The task's spans key.
    RETURNS (Optional[str]): "spans" if any example has the key, else "ents" if any has annotation
        there, else None.
    """
    found = None
    for example in examples:
        if is_annotated(example.reference, key, "spans"):
            return "spans"
        if found is None and is_annotated(example.reference, key, "ents"):
            found = "ents"
    return found


def read_gold(
    example: Example,
    key: str,
    source: str | None,
    select: Callable[[list[Entity]], list[Entity]],
) -> Gold | None:
    """Read an example's gold for a task.

    example (Example): The example.
    key (str): The task's spans key.
    source (Optional[str]): Where its gold is: "spans", "ents", or None if there is none.
    select (Callable[[list[Entity]], list[Entity]]): Selects the entities that the component can
        represent.
    RETURNS (Optional[Gold]): The gold; None if the reference is not annotated for the task.
    """
    reference = example.reference
    if source is None or not is_annotated(reference, key, source):
        return None
    entities = read_ents(reference) if source == "ents" else read_entities(reference, key)
    tokens = TokenMap.of(example)
    aligned, unaligned = align_entities(example, entities, tokens)
    kept = select(aligned)
    n_dropped = len(aligned) - len(kept)
    ranges = [fragment for entity in unaligned for fragment in entity.fragments]
    missing = find_missing(reference) if source == "ents" else read_unknown(reference, key)
    ranges += ((start, start + 1) for start in missing)
    unknown = None
    if ranges:
        unknown = numpy.zeros(len(example.predicted), dtype=bool)
        unknown[numpy.concatenate([tokens.touched(*range_) for range_ in ranges])] = True
        for entity in kept:  # What stands beside it in a token is known by the entity.
            for start, end in entity.fragments:
                unknown[start:end] = False
    given = reference.user_data.get(WEIGHT, 1.0)
    try:
        weight = float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"user_data[{WEIGHT!r}] of the training doc {reference.text[:40]!r} is {given!r}: a "
            f"weight must be 0 or more, and finite."
        )
    return Gold(kept, unknown, weight, len(unaligned), n_dropped)


def known_tokens(golds: Sequence[Gold | None], lengths: Sequence[int]) -> NDArray[numpy.bool_]:
    """Tell of which tokens of a batch it is known what they belong to.

    golds (Sequence[Optional[Gold]]): Each row's gold; None where it is not annotated.
    lengths (Sequence[int]): Each row's number of predicted tokens.
    RETURNS (NDArray[numpy.bool_]): Shape (n_tokens,).
    """
    known = [
        numpy.ones(length, dtype=bool) if gold is None or gold.unknown is None else ~gold.unknown
        for gold, length in zip(golds, lengths, strict=True)
    ]
    return numpy.concatenate(known)


def check_report(
    report: GoldReport,
    labels: Sequence[str],
    *,
    who: str,
    where: str,
    section: str,
    setting: str,
    representable: str,
    keys: Iterable[str],
) -> None:
    """Check that a task can be learned, and warn of what of it cannot.

    report (GoldReport): What the training data hold.
    labels (Sequence[str]): The task's labels.
    who (str): The component, and the task where it has several.
    where (str): Where the gold is read.
    section (str): Section of the config in which labels can be given.
    setting (str): The component's setting that names what it learns.
    representable (str): What entities the component can represent.
    keys (Iterable[str]): Spans keys of the training data.
    RAISES (ValueError): If there are no labels, or the data have others.
    """
    if not labels:
        other = f" Spans keys found: {', '.join(map(repr, sorted(keys)))}." if keys else ""
        raise ValueError(
            f"{who} has no labels: {report.n_annotated} of {report.n_docs} training docs "
            f"have annotation in {where}, with {report.labels.total()} entities."
            f"{other} Check the training corpus and the setting {setting!r}, or give "
            f"the labels in [{section}]."
        )
    unknown = sorted(set(report.labels) - set(labels))
    if unknown:
        raise ValueError(
            f"{who}: the training data has labels that are not in the given ones: "
            f"{', '.join(unknown)}. Add them in [{section}], or remove those entities."
        )
    missing = [label for label in labels if not report.labels[label]]
    complaints = []
    if not report.n_annotated:
        complaints.append(
            f"none of {report.n_docs} training docs is annotated in {where}: nothing can be "
            f"learned from them."
        )
    elif missing:
        complaints.append(f"no training example for {', '.join(missing)}.")
    if report.n_elsewhere:
        complaints.append(
            f"{report.n_elsewhere} of {report.n_docs} training docs teach nothing: others have "
            f"gold in {where}, where it is read then, but these do not. Put all gold in one "
            f"place, or name the one that counts by the setting 'gold'."
        )
    if report.n_unaligned:
        complaints.append(
            f"{report.n_unaligned} gold entities begin or end inside a token of the pipeline's "
            f"tokenizer and cannot be learned."
        )
    if report.n_dropped:
        complaints.append(
            f"{report.n_dropped} gold entities are left out: the component learns "
            f"{representable} ({report.labels.total()} are kept)."
        )
    for complaint in complaints:
        warnings.warn(f"{who}: {complaint}", stacklevel=3)
    logger.info(
        "%s: %d of %d docs annotated in %s, %d entities, labels: %s",
        who,
        report.n_annotated,
        report.n_docs,
        where,
        report.labels.total(),
        ", ".join(labels),
    )
