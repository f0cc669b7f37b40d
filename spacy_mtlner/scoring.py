"""Scores of entities, whatever their form: a prediction is right if label and fragments are."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.scorer import PRFScore, get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mtlner.entities import (
    Entity,
    Fragments,
    find_missing,
    is_annotated,
    read_entities,
    read_ents,
    read_unknown,
)

SUBSETS = ("boundary", "discontinuous", "nested", "flat")

Key = tuple[str, Fragments]  # Label and fragments by character offsets.


class Compared(NamedTuple):
    """The entities of an example. A prediction is right if its key is among the gold ones.

    predicted (dict[Key, Entity]): The predicted entities, over the tokens of `example.predicted`.
    gold (dict[Key, Entity]): The gold ones, over those of `example.reference`.
    """

    predicted: dict[Key, Entity]
    gold: dict[Key, Entity]


@dataclass
class _Counts:
    """Scores of all entities, of each label and of each subset."""

    total: PRFScore = field(default_factory=PRFScore)
    per_type: dict[str, PRFScore] = field(default_factory=dict)
    subsets: dict[str, PRFScore] = field(
        default_factory=lambda: {name: PRFScore() for name in SUBSETS}
    )

    def add(self, predicted: set[Key], gold: set[Key]) -> None:
        self.total.score_set(predicted, gold)
        for label in {label for label, _ in predicted | gold}:
            self.per_type.setdefault(label, PRFScore()).score_set(
                {key for key in predicted if key[0] == label},
                {key for key in gold if key[0] == label},
            )
        predicted_parts, gold_parts = split_by_form(predicted), split_by_form(gold)
        predicted_parts["boundary"] = {("", fragments) for _, fragments in predicted}
        gold_parts["boundary"] = {("", fragments) for _, fragments in gold}
        for name, score in self.subsets.items():
            score.score_set(predicted_parts[name], gold_parts[name])


def score_entities(
    examples: Iterable[Example],
    *,
    spans_key: str,
    gold_source: str | None = "spans",
    gold: str | None = None,
    annotate_ents: bool = False,
    typing: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Compare predicted with gold entities by label and character offsets of the fragments, so that
    gold that the predicted tokens cannot express counts as missed.

    examples (Iterable[Example]): The examples. Those whose gold is not annotated are skipped.
    spans_key (str): Spans key of the predictions, and of the gold.
    gold_source (Optional[str]): "ents" where the gold is in `doc.ents`, else it is in
        `doc.spans[spans_key]`. As in spaCy, predictions on tokens of which it is unknown what they
        are part of are ignored: in `doc.ents` those without annotation, else those of
        `read_unknown`.
    gold (Optional[str]): "auto" to read the gold in the other place where that is annotated alone.
    annotate_ents (bool): Whether to score `doc.ents` as well, as spaCy does for `ner`.
    typing (bool): Whether the predictions are the types of given entities: see `score_typing`.
    RETURNS (dict[str, Any]): `spans_{key}_{p,r,f}`, `spans_{key}_per_type` and
        `spans_{key}_{subset}_{p,r,f}` for the subsets boundary (labels ignored), discontinuous
        (several fragments), nested (first start to last end overlaps another entity's range) and
        flat (neither); each subset is taken in gold and prediction separately. All None if no
        example is annotated, which is a warning. With annotate_ents, `ents_{p,r,f}` and
        `ents_per_type`.
    """
    examples = list(examples)
    if gold == "auto":
        gold_source = _find_source(examples, spans_key, gold_source or "spans")
    if typing:
        return score_typing(examples, spans_key=spans_key, gold_source=gold_source)
    counts = _Counts()
    has_gold = False
    for example in examples:
        compared = compare_entities(example, spans_key=spans_key, gold_source=gold_source)
        if compared is not None:
            has_gold = True
            if compared.predicted or compared.gold:
                counts.add(set(compared.predicted), set(compared.gold))
    if examples and not has_gold:
        _warn_of_no_gold(examples, spans_key)

    prefix = f"spans_{spans_key}"
    scores: dict[str, Any] = {}
    parts = {prefix: counts.total}
    parts.update({f"{prefix}_{name}": score for name, score in counts.subsets.items()})
    for name, score in parts.items():
        scores[f"{name}_p"] = score.precision if has_gold else None
        scores[f"{name}_r"] = score.recall if has_gold else None
        scores[f"{name}_f"] = score.fscore if has_gold else None
    per_type = {label: score.to_dict() for label, score in sorted(counts.per_type.items())}
    scores[f"{prefix}_per_type"] = per_type if has_gold else None
    if annotate_ents:
        scores.update(get_ner_prf(examples))
    return scores


def _find_source(examples: Sequence[Example], key: str, source: str) -> str:
    """Where these examples' gold is: as in training, unless it is in the other place alone."""
    other = "ents" if source == "spans" else "spans"
    for place in (source, other):
        if any(is_annotated(example.reference, key, place) for example in examples):
            return place
    return source


def _warn_of_no_gold(examples: Sequence[Example], key: str) -> None:
    keys = sorted({other for example in examples for other in example.reference.spans})
    has_ents = any(is_annotated(example.reference, key, "ents") for example in examples)
    warnings.warn(
        f"No score of doc.spans[{key!r}]: none of the {len(examples)} docs is annotated there. "
        f"Their spans keys: {', '.join(map(repr, keys)) or 'none'}; doc.ents is "
        f"{'' if has_ents else 'not '}annotated.",
        stacklevel=3,
    )


def compare_entities(
    example: Example, *, spans_key: str, gold_source: str | None = "spans"
) -> Compared | None:
    """Read the predicted and gold entities of an example by label and character offsets.

    example (Example): The example.
    spans_key (str): Spans key of the predictions, and of the gold.
    gold_source (Optional[str]): Where the gold is: see `score_entities`.
    RETURNS (Optional[Compared]): The entities; None where the gold is not annotated.
    """
    reference = example.reference
    if gold_source == "ents":
        if not reference.has_annotation("ENT_IOB"):
            return None
        gold, unknown = read_ents(reference), find_missing(reference)
    else:
        if spans_key not in reference.spans:
            return None
        gold, unknown = read_entities(reference, spans_key), read_unknown(reference, spans_key)
    predicted = read_entities(example.predicted, spans_key)
    if not gold and not predicted:
        return Compared({}, {})
    in_predicted, in_reference = _token_offsets(example)
    predicted_by_key = _by_key(predicted, *in_predicted)
    if unknown:
        # As in training: a gold entity's tokens are known.
        in_gold = {i for e in gold for start, end in e.fragments for i in range(start, end)}
        unknown = [token for token in unknown if token not in in_gold]
        known = _where_known(set(predicted_by_key), unknown, *in_reference)
        predicted_by_key = {key: e for key, e in predicted_by_key.items() if key in known}
    return Compared(predicted_by_key, _by_key(gold, *in_reference))


def score_typing(
    examples: Iterable[Example], *, spans_key: str, gold_source: str | None = "spans"
) -> dict[str, Any]:
    """Score the types of entities whose fragments were given: this is no recognition, and none of
    its scores is named like one of `score_entities`.

    examples (Iterable[Example]): The examples. Those whose gold is not annotated are skipped.
    spans_key (str): Spans key of the predictions, and of the gold.
    gold_source (Optional[str]): "ents" where the gold is in `doc.ents`, else it is in
        `doc.spans[spans_key]`.
    RETURNS (dict[str, Any]): `typing_{key}_acc`: share of the gold entities whose predicted label
        is theirs, or one of theirs; one without prediction is wrong. `typing_{key}_macro_f`: mean
        of the labels' F1. `typing_{key}_per_type`: precision, recall and F1 of each label. All None
        if no example is annotated.
    """
    n_right, n_entities, has_gold = 0, 0, False
    per_type: dict[str, PRFScore] = {}
    for example in examples:
        compared = compare_entities(example, spans_key=spans_key, gold_source=gold_source)
        if compared is None:
            continue
        has_gold = True
        predicted, gold = set(compared.predicted), set(compared.gold)
        places = {fragments for _, fragments in gold}
        n_entities += len(places)
        n_right += len({fragments for _, fragments in gold & predicted})
        typed = {key for key in predicted if key[1] in places}
        for label in {label for label, _ in gold | typed}:
            per_type.setdefault(label, PRFScore()).score_set(
                {key for key in typed if key[0] == label}, {key for key in gold if key[0] == label}
            )
    prefix = f"typing_{spans_key}"
    if not has_gold:
        return dict.fromkeys((f"{prefix}_acc", f"{prefix}_macro_f", f"{prefix}_per_type"))
    values = [score.fscore for score in per_type.values()]
    return {
        f"{prefix}_acc": n_right / n_entities if n_entities else 0.0,
        f"{prefix}_macro_f": sum(values) / len(values) if values else 0.0,
        f"{prefix}_per_type": {label: per_type[label].to_dict() for label in sorted(per_type)},
    }


def typing_score_names(key: str) -> list[str]:
    """List the scores of typing that a config may give a weight to.

    key (str): The spans key.
    RETURNS (list[str]): `typing_{key}_acc` and `typing_{key}_macro_f`.
    """
    return [f"typing_{key}_acc", f"typing_{key}_macro_f"]


def score_names(key: str) -> list[str]:
    """List the scores that a config may give a weight to.

    key (str): The spans key.
    RETURNS (list[str]): `spans_{key}_{p,r,f}` and those of the subsets.
    """
    parts = [f"spans_{key}", *(f"spans_{key}_{subset}" for subset in SUBSETS)]
    return [f"{part}_{score}" for part in parts for score in "prf"]


def make_entity_scorer() -> Callable[..., dict[str, Any]]:
    """Registered as `spacy_mtlner.entity_scorer.v1`.

    RETURNS (Callable): `score_entities`.
    """
    return score_entities


Offsets = tuple[NDArray[numpy.int64], NDArray[numpy.int64]]


def _token_offsets(example: Example) -> tuple[Offsets, Offsets]:
    """Where the tokens of the predicted and of the reference doc begin and end, in characters of
    the text that both share; without white space where they differ in that.
    """
    predicted, reference = example.predicted, example.reference
    if predicted.text == reference.text:
        return _offsets(predicted), _offsets(reference)
    return _offsets_without_space(predicted), _offsets_without_space(reference)


def _offsets(doc: Doc) -> Offsets:
    values = doc.to_array(["IDX", "LENGTH"]).astype(numpy.int64)
    return values[:, 0], values[:, 0] + values[:, 1]


def _offsets_without_space(doc: Doc) -> Offsets:
    solid = numpy.array([not char.isspace() for char in doc.text], dtype=numpy.int64)
    before = numpy.concatenate([[0], numpy.cumsum(solid)])
    starts, ends = _offsets(doc)
    return before[starts], before[ends]


def _by_key(
    entities: Iterable[Entity], starts: NDArray[numpy.int64], ends: NDArray[numpy.int64]
) -> dict[Key, Entity]:
    return {
        (e.label, tuple((int(starts[start]), int(ends[end - 1])) for start, end in e.fragments)): e
        for e in entities
    }


def _where_known(
    keys: set[Key],
    unknown: Sequence[int],
    starts: NDArray[numpy.int64],
    ends: NDArray[numpy.int64],
) -> set[Key]:
    """The entities none of whose characters is in a token of which the gold says nothing."""
    places = {i for token in unknown for i in range(int(starts[token]), int(ends[token]))}
    return {
        key
        for key in keys
        if places.isdisjoint(i for start, end in key[1] for i in range(start, end))
    }


def split_by_form(keys: set[Key]) -> dict[str, set[Key]]:
    """Divide a doc's entities by form.

    keys (set[Key]): Labels and fragments of the entities.
    RETURNS (dict[str, set[Key]]): The "discontinuous" ones (several fragments), the "nested" ones
        (the range from first start to last end overlaps another entity's) and the "flat" ones.
    """
    ordered = sorted(keys, key=lambda key: key[1][0][0])
    nested: set[Key] = set()
    furthest: Key | None = None  # Of those that began before, the one that ends last.
    for key in ordered:
        if furthest is not None and key[1][0][0] < furthest[1][-1][1]:
            nested.update((key, furthest))
        if furthest is None or key[1][-1][1] > furthest[1][-1][1]:
            furthest = key
    discontinuous = {key for key in keys if len(key[1]) > 1}
    return {
        "discontinuous": discontinuous,
        "nested": nested,
        "flat": keys - discontinuous - nested,
    }
