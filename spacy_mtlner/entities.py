"""Entities on a Doc: the one place that knows how fragments are stored and read.

An entity is a label over one or more fragments of tokens. One fragment is a contiguous entity,
several make a discontinuous one. On a Doc the fragments are Spans in `doc.spans[key]`, next to
each other; those of a discontinuous entity share a span id `"<number>/<n>"`, and the entities'
scores lie beside the spans in `doc.spans[key].attrs["scores"]`.
"""

import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import index

import numpy
from numpy.typing import NDArray
from spacy.attrs import IS_SPACE
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example
from spacy.vocab import Vocab

DEFAULT_KEY = "mtlner"
# In `doc.user_data`: for each spans key the tokens of which it is unknown what they belong to.
UNKNOWN_KEY = "mtlner_unknown"

Fragments = tuple[tuple[int, int], ...]

_OWN_ID = re.compile(r"\d+/(\d+)")


@dataclass(frozen=True)
class Entity:
    """A labelled entity of one or more fragments; the score takes no part in comparisons.

    label (str): The entity's type.
    fragments (Sequence[tuple[int, int]]): (start, end) token offsets, end exclusive: sorted, not
        empty, not touching each other.
    score (float): Confidence in [0, 1]; 1.0 for gold annotation.
    RAISES (ValueError): If the label, a fragment or the score is not valid.
    """

    label: str
    fragments: Fragments
    score: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        try:
            fragments = tuple((index(start), index(end)) for start, end in self.fragments)
        except (TypeError, ValueError):
            raise ValueError(
                f"An entity's fragments must be (start, end) pairs of integers, not "
                f"{self.fragments!r}."
            ) from None
        object.__setattr__(self, "fragments", fragments)
        if not isinstance(self.label, str) or not self.label:
            raise ValueError(f"An entity's label must be a non-empty string, not {self.label!r}.")
        if not fragments:
            raise ValueError(f"An entity needs at least one fragment, but {self} has none.")
        last = -1
        for start, end in fragments:
            if start < 0 or end <= start:
                raise ValueError(
                    f"Fragment ({start}, {end}) of {self} is not valid: "
                    f"0 <= start < end must hold (an end is exclusive)."
                )
            if start <= last:
                raise ValueError(
                    f"The fragments of {self} must be sorted and must neither overlap nor touch: "
                    f"({start}, {end}) begins at or before {last}, where another one ends."
                )
            last = end
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"The score of {self} must be in [0, 1].")

    @property
    def start(self) -> int:
        """RETURNS (int): The first token's offset."""
        return self.fragments[0][0]

    @property
    def end(self) -> int:
        """RETURNS (int): The offset behind the last token."""
        return self.fragments[-1][1]

    @property
    def is_contiguous(self) -> bool:
        """RETURNS (bool): Whether the entity is one fragment."""
        return len(self.fragments) == 1


def merge_touching(fragments: Iterable[tuple[int, int]]) -> Fragments:
    """Sort fragments and join those that touch or overlap.

    fragments (Iterable[tuple[int, int]]): (start, end) offsets in any order, end exclusive.
    RETURNS (Fragments): The smallest set of fragments over the same positions.
    """
    merged: list[tuple[int, int]] = []
    for start, end in sorted(fragments):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def shift_fragments(fragments: Iterable[tuple[int, int]], offset: int) -> Fragments:
    """Move fragments.

    fragments (Iterable[tuple[int, int]]): (start, end) offsets.
    offset (int): By how much, to either side.
    RETURNS (Fragments): The moved ones.
    """
    return tuple((start + offset, end + offset) for start, end in fragments)


def strip_spaces(doc: Doc, entities: Sequence[Entity]) -> list[Entity]:
    """Cut white space off the ends of entities' fragments, as spaCy's own entities have none there.

    doc (Doc): The doc.
    entities (Sequence[Entity]): Entities of it.
    RETURNS (list[Entity]): The entities without it: those of white space alone are left out, and
        of those that become equal, the one with the highest score stays.
    """
    is_space = doc.to_array(IS_SPACE).astype(bool)
    if not is_space.any():
        return list(entities)
    solid = numpy.flatnonzero(~is_space)
    kept: dict[tuple[str, Fragments], Entity] = {}
    for entity in entities:
        bounds = numpy.searchsorted(solid, numpy.array(entity.fragments))  # (n_fragments, 2)
        fragments = tuple(
            (int(solid[first]), int(solid[behind - 1]) + 1)
            for first, behind in bounds
            if first < behind
        )
        known = kept.get((entity.label, fragments))
        if fragments and (known is None or known.score < entity.score):
            kept[entity.label, fragments] = replace(entity, fragments=fragments)
    return list(kept.values())


def find_inside(entities: Sequence[Fragments]) -> list[bool]:
    """Tell which entities lie, fragment by fragment, inside another one that is not the same.

    entities (Sequence[Fragments]): The fragments of each entity.
    RETURNS (list[bool]): Whether each one is inside another.
    """
    is_inside = [False] * len(entities)
    if len(entities) < 2:
        return is_inside
    parts = sorted(
        (start, -end, len(fragments) == 1, i)
        for i, fragments in enumerate(entities)
        for start, end in fragments
    )
    outer = parts[0][:3]  # Of the parts before, the one that ends last.
    for start, minus_end, is_entity, i in parts:
        part = (start, minus_end, is_entity)
        if minus_end < outer[1]:
            outer = part
        else:
            is_inside[i] = is_entity and part != outer
    # One that holds a discontinuous entity has a part that holds its first fragment.
    starts = [part[0] for part in parts]
    longest = max(-minus_end - start for start, minus_end, *_ in parts)
    for i, fragments in enumerate(entities):
        if len(fragments) > 1:
            start, end = fragments[0]
            near = slice(bisect_left(starts, end - longest), bisect_right(starts, start))
            is_inside[i] = any(_is_inside(fragments, entities[part[3]]) for part in parts[near])
    return is_inside


def _is_inside(inner: Fragments, outer: Fragments) -> bool:
    return inner != outer and all(any(a <= c and d <= b for a, b in outer) for c, d in inner)


def read_entities(doc: Doc, key: str = DEFAULT_KEY) -> list[Entity]:
    """Read the entities in `doc.spans[key]`.

    Spans without an id are contiguous entities. Neighbouring spans with the same label and id are
    the fragments of one entity: after an id of our own, `"<number>/<n>"`, exactly n of them; after
    any other id (brat's `T3`), as long as each begins where or after the last one ended.

    doc (Doc): The document.
    key (str): The spans key.
    RETURNS (list[Entity]): The entities in stored order; none if the doc lacks the key. A score is
        1.0 where the group has no scores.
    RAISES (ValueError): If the scores do not match the spans, or a span is no entity: it has no
        label, or a score outside [0, 1].
    """
    if key not in doc.spans:
        return []
    group = doc.spans[key]
    scores = group.attrs.get("scores")
    if scores is not None and len(scores) != len(group):
        raise ValueError(
            f"doc.spans[{key!r}] has {len(group)} spans, but {len(scores)} scores. A group that "
            f"was changed must be rebuilt: use write_entities, or delete its attrs['scores']."
        )
    entities: list[Entity] = []
    for first, label, fragments in _group_spans(group):
        score = 1.0 if scores is None else float(scores[first])
        try:
            entities.append(Entity(label, merge_touching(fragments), score))
        except ValueError as err:
            raise ValueError(f"doc.spans[{key!r}], tokens {fragments}: {err}") from None
    return entities


def read_fragments(doc: Doc, key: str) -> list[Fragments]:
    """Read where the entities or candidates in `doc.spans[key]` are, whatever their labels.

    doc (Doc): The document.
    key (str): The spans key.
    RETURNS (list[Fragments]): The fragments of each, in stored order and without repetition; none
        if the doc lacks the key.
    """
    if key not in doc.spans:
        return []
    groups = _group_spans(doc.spans[key])
    return list(dict.fromkeys(merge_touching(fragments) for _, _, fragments in groups))


def _group_spans(group: SpanGroup) -> Iterator[tuple[int, str, list[tuple[int, int]]]]:
    """Number of the first span, label and fragments of each entity."""
    first, label = 0, ""
    fragments: list[tuple[int, int]] = []
    open_id, missing = 0, 0
    for i, span in enumerate(group):
        continues = (
            fragments
            and open_id != 0
            and span.id == open_id
            and span.label_ == label
            and span.start >= fragments[-1][1]
            and missing != 0
        )
        if not continues:
            if fragments:
                yield first, label, fragments
            first, label, fragments = i, span.label_, []
            open_id = span.id
            own = _OWN_ID.fullmatch(span.id_) if open_id else None
            # Counts the fragments to come; negative where the id does not tell.
            missing = int(own[1]) if own else -1
        fragments.append((span.start, span.end))
        missing -= 1
    if fragments:
        yield first, label, fragments


def write_entities(doc: Doc, entities: Iterable[Entity], key: str = DEFAULT_KEY) -> None:
    """Write entities to `doc.spans[key]`, in the given order, in place of what was there.

    doc (Doc): The document.
    entities (Iterable[Entity]): The entities.
    key (str): The spans key.
    RAISES (ValueError): If an entity ends outside the doc.
    """
    spans: list[Span] = []
    scores: list[float] = []
    n_discontinuous = 0
    for entity in entities:
        if entity.end > len(doc):
            raise ValueError(f"{entity} ends outside its doc, which has {len(doc)} tokens.")
        span_id = ""
        if not entity.is_contiguous:
            span_id = f"{n_discontinuous}/{len(entity.fragments)}"
            n_discontinuous += 1
        for start, end in entity.fragments:
            spans.append(Span(doc, start, end, label=entity.label, span_id=span_id))
            scores.append(float(entity.score))
    doc.spans[key] = SpanGroup(doc, name=key, attrs={"scores": scores}, spans=spans)


def read_ents(doc: Doc) -> list[Entity]:
    """Read `doc.ents` as entities.

    doc (Doc): The document.
    RETURNS (list[Entity]): The entities in order of the text, with score 1.0.
    """
    return [Entity(ent.label_, ((ent.start, ent.end),)) for ent in doc.ents]


def copy_tokens(doc: Doc, vocab: Vocab) -> Doc:
    """Make a document of the same tokens, without any annotation.

    doc (Doc): The document.
    vocab (Vocab): The new one's vocab.
    RETURNS (Doc): The new document.
    """
    words = [token.text for token in doc]
    spaces = [bool(token.whitespace_) for token in doc]
    return Doc(vocab, words=words, spaces=spaces)


def is_annotated(doc: Doc, key: str, source: str) -> bool:
    """Tell whether a doc is annotated for a task.

    doc (Doc): The doc.
    key (str): The task's spans key.
    source (str): Where its gold is read: "spans" or "ents".
    RETURNS (bool): Whether the doc has annotation there, which may be that it holds no entities.
    """
    if source == "spans":
        return key in doc.spans
    return len(doc) > 0 and doc.has_annotation("ENT_IOB")


def find_missing(doc: Doc) -> list[int]:
    """Find the tokens whose annotation in doc.ents is missing.

    doc (Doc): The document.
    RETURNS (list[int]): Their positions.
    """
    return [int(i) for i in numpy.flatnonzero(doc.to_array("ENT_IOB") == 0)]


def read_unknown(doc: Doc, key: str = DEFAULT_KEY) -> list[int]:
    """Read of which tokens it is unknown what entities of `doc.spans[key]` they belong to.

    doc (Doc): The document.
    key (str): The spans key.
    RETURNS (list[int]): Their positions.
    """
    return [*doc.user_data.get(UNKNOWN_KEY, {}).get(key, ())]


def write_unknown(doc: Doc, unknown: Sequence[int], key: str = DEFAULT_KEY) -> None:
    """Write of which tokens it is unknown what entities of `doc.spans[key]` they belong to.

    doc (Doc): The document.
    unknown (Sequence[int]): Their positions; none to remove what is there.
    key (str): The spans key.
    """
    # A new one, as copies of a doc share what is there.
    by_key = {k: v for k, v in doc.user_data.pop(UNKNOWN_KEY, {}).items() if k != key}
    if unknown:
        by_key[key] = [*unknown]
    if by_key:
        doc.user_data[UNKNOWN_KEY] = by_key


def write_ents(
    doc: Doc,
    entities: Iterable[Entity],
    *,
    overwrite: bool = False,
    missing: Iterable[int] = (),
) -> None:
    """Write what `doc.ents` can hold of the entities: see `select_flat`. Blocked tokens stay so.

    doc (Doc): The document.
    entities (Iterable[Entity]): The entities.
    overwrite (bool): Replace the entities that are there already, instead of keeping them.
    missing (Iterable[int]): Tokens whose annotation is missing, where no entity is written.
    """
    kept = [] if overwrite else list(doc.ents)
    iob_and_type = doc.to_array(["ENT_IOB", "ENT_TYPE"])
    is_blocked = (iob_and_type == (3, 0)).all(1)
    blocked = [doc[i : i + 1] for i in numpy.flatnonzero(is_blocked).tolist()]
    flat = select_flat(entities, taken=[(span.start, span.end) for span in (*kept, *blocked)])
    written = [Span(doc, e.start, e.end, label=e.label) for e in flat]
    taken = {i for span in (*kept, *written, *blocked) for i in range(span.start, span.end)}
    left = [doc[i : i + 1] for i in missing if i not in taken]
    doc.set_ents([*kept, *written], blocked=blocked, missing=left)


def select_flat(
    entities: Iterable[Entity], *, taken: Sequence[tuple[int, int]] = ()
) -> list[Entity]:
    """Choose contiguous entities that do not overlap: the best score first, then the longer one,
    then the earlier one.

    entities (Iterable[Entity]): Any entities.
    taken (Sequence[tuple[int, int]]): Token ranges that are occupied already.
    RETURNS (list[Entity]): The chosen ones in order of the text.
    """
    candidates = [entity for entity in entities if entity.is_contiguous]
    if not taken and _are_disjoint(candidates):
        return sorted(candidates, key=lambda e: e.start)
    candidates.sort(key=lambda e: (-e.score, e.start - e.end, e.start))
    occupied = {i for start, end in taken for i in range(start, end)}
    chosen = []
    for entity in candidates:
        if occupied.isdisjoint(range(entity.start, entity.end)):
            occupied.update(range(entity.start, entity.end))
            chosen.append(entity)
    return sorted(chosen, key=lambda e: e.start)


def _are_disjoint(entities: Sequence[Entity]) -> bool:
    ordered = sorted(entities, key=lambda e: e.start)
    return all(a.end <= b.start for a, b in pairwise(ordered))


@dataclass(frozen=True)
class TokenMap:
    """How the reference's tokens of an Example lie on the predicted ones.

    example (Example): The example.
    is_identity (bool): Whether the tokens are the same.
    """

    example: Example
    is_identity: bool

    @classmethod
    def of(cls, example: Example) -> "TokenMap":
        """Compare the two tokenisations of an example.

        example (Example): The example.
        RETURNS (TokenMap): The map from reference to predicted tokens.
        """
        x, y = example.predicted, example.reference
        same = len(x) == len(y) and numpy.array_equal(x.to_array("ORTH"), y.to_array("ORTH"))
        return cls(example, same)

    def touched(self, start: int, end: int) -> NDArray[numpy.int64]:
        """Find the predicted tokens that share characters with tokens of the reference.

        start (int): The first token.
        end (int): The offset behind the last one.
        RETURNS (NDArray[numpy.int64]): Their offsets, shape (n_touched,).
        """
        if self.is_identity:
            return numpy.arange(start, end)
        return numpy.asarray(self.example.alignment.y2x[start:end], dtype=numpy.int64)

    def fragment(self, start: int, end: int) -> tuple[int, int] | None:
        """Map a fragment of the reference to the predicted tokens.

        start (int): The fragment's first token.
        end (int): The offset behind its last token.
        RETURNS (Optional[tuple[int, int]]): The same text as predicted tokens, or None where no
            predicted tokens begin and end with the fragment.
        """
        if self.is_identity:
            return start, end
        alignment = self.example.alignment
        predicted = alignment.y2x[start:end]
        if len(predicted) == 0:
            return None
        first, last = int(predicted[0]), int(predicted[-1])
        covered = alignment.x2y[first : last + 1]
        if int(covered[0]) < start or int(covered[-1]) >= end:
            return None
        return first, last + 1


def align_entities(
    example: Example, entities: Iterable[Entity], tokens: TokenMap | None = None
) -> tuple[list[Entity], list[Entity]]:
    """Map entities of the reference to the predicted tokens, fragment by fragment.

    example (Example): The example.
    entities (Iterable[Entity]): Entities over the tokens of `example.reference`.
    tokens (Optional[TokenMap]): The example's token map, where it is at hand already.
    RETURNS (tuple[list[Entity], list[Entity]]): The entities over the tokens of
        `example.predicted`, and those that no predicted tokens express, over the reference's.
    """
    tokens = tokens or TokenMap.of(example)
    if tokens.is_identity:
        return list(entities), []
    aligned: list[Entity] = []
    unaligned: list[Entity] = []
    for entity in entities:
        fragments = [tokens.fragment(start, end) for start, end in entity.fragments]
        found = [fragment for fragment in fragments if fragment is not None]
        if len(found) == len(fragments):
            aligned.append(Entity(entity.label, merge_touching(found), entity.score))
        else:
            unaligned.append(entity)
    return aligned, unaligned


if not Doc.has_extension("entities"):
    Doc.set_extension("entities", getter=read_entities)
elif Doc.get_extension("entities")[2] is not read_entities:
    warnings.warn(
        "doc._.entities is another package's extension: use spacy_mtlner.read_entities(doc).",
        stacklevel=2,
    )
