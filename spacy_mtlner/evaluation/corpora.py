"""What corpora hold, what may go wrong with them, and how much of one stands in another."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

from spacy.tokens import Doc

from spacy_mtlner.entities import DEFAULT_KEY, Entity, find_inside, read_entities
from spacy_mtlner.evaluation.tables import make_table
from spacy_mtlner.formats.overlap import NEAR_DUPLICATE, RunIndex, hash_text
from spacy_mtlner.scoring import split_by_form

FEW_EXAMPLES = 50
TOO_FEW_EXAMPLES = 10
LONG_DOCS = (128, 512)  # Tokens: a usual training window, and the most that BERT reads at once.

_N_SURFACES = 10
_MANY = 0.01  # Share from which on copies and odd borders are worth a warning.
_GAP = " … "  # Stands for what is between an entity's fragments.
_QUOTES = frozenset({'"', "'"})
_SYMBOLS = frozenset("%‰#@&§*％＃＠＆＊")  # Unicode has them as punctuation, and they are words.
_OPENING = frozenset({"Ps", "Pi"})  # Categories of brackets and quotes.
_CLOSING = frozenset({"Pe", "Pf"})


@dataclass
class LabelStats:
    """The entities of a label.

    count (int): Entities.
    tokens (int): Tokens in their fragments.
    max_length (int): The most tokens in an entity's fragments.
    surfaces (int): Distinct surface forms.
    inside (int): Entities that lie, fragment by fragment, inside another one.
    overlapping (int): Entities whose range overlaps another one's.
    discontinuous (int): Entities of several fragments.
    max_fragments (int): The most fragments of an entity.
    max_gap (int): The most tokens between two neighbouring fragments.
    """

    count: int = 0
    tokens: int = 0
    max_length: int = 0
    surfaces: int = 0
    inside: int = 0
    overlapping: int = 0
    discontinuous: int = 0
    max_fragments: int = 0
    max_gap: int = 0

    def add(self, entity: Entity, *, is_inside: bool, is_overlapping: bool) -> None:
        """Count an entity; the surfaces are counted apart.

        entity (Entity): The entity.
        is_inside (bool): Whether it is inside another one.
        is_overlapping (bool): Whether it overlaps another one.
        """
        n_fragments = len(entity.fragments)
        length = sum(end - start for start, end in entity.fragments)
        # From the first start to the last end, all that is no fragment is gap.
        inner = [i for fragment in entity.fragments for i in fragment][1:-1]
        gaps = [start - end for end, start in zip(inner[::2], inner[1::2], strict=True)]
        self.count += 1
        self.tokens += length
        self.max_length = max(self.max_length, length)
        self.inside += is_inside
        self.overlapping += is_overlapping
        self.discontinuous += n_fragments > 1
        self.max_fragments = max(self.max_fragments, n_fragments)
        self.max_gap = max(self.max_gap, *gaps, 0)


@dataclass
class Comparison:
    """How much of a corpus stands in the first one.

    duplicates (int): Docs whose text is one of the first corpus's.
    near_duplicates (int): Other docs half of whose text is in the first corpus.
    seen_entities (int): Entities whose surface form has the same label there.
    """

    duplicates: int = 0
    near_duplicates: int = 0
    seen_entities: int = 0


@dataclass
class CorpusStats:
    """What a corpus holds.

    name (str): Its name.
    docs (int): Docs.
    not_annotated (int): Docs that lack the spans key.
    without_entities (int): Annotated docs without entities.
    duplicates (int): Docs whose text is that of an earlier one.
    tokens (int): Tokens.
    mean_length (float): Tokens per doc.
    median_length (int): At least half of the docs are no longer.
    length_95 (int): At least 95 percent of the docs are no longer.
    max_length (int): Tokens of the longest doc.
    longer (dict[int, int]): Docs that have more tokens than each of `LONG_DOCS`.
    labels (dict[str, LabelStats]): The entities by label.
    multi_label (int): Entities whose fragments have another label as well.
    inside_same_label (int): Entities inside another one of their label.
    odd_borders (int): Entities with a fragment that begins or ends with a token of punctuation or
        white space, other than brackets and quotes that are closed within the entity.
    odd_surfaces (list[str]): The first few of them.
    ambiguous (int): Surface forms with several labels.
    ambiguous_surfaces (dict[str, dict[str, int]]): Those with the most entities that are not of
        their commonest label, and the number of entities by label.
    against_first (Optional[Comparison]): How much stands in the first corpus; None for itself.
    """

    name: str
    docs: int = 0
    not_annotated: int = 0
    without_entities: int = 0
    duplicates: int = 0
    tokens: int = 0
    mean_length: float = 0.0
    median_length: int = 0
    length_95: int = 0
    max_length: int = 0
    longer: dict[int, int] = field(default_factory=dict)
    labels: dict[str, LabelStats] = field(default_factory=dict)
    multi_label: int = 0
    inside_same_label: int = 0
    odd_borders: int = 0
    odd_surfaces: list[str] = field(default_factory=list)
    ambiguous: int = 0
    ambiguous_surfaces: dict[str, dict[str, int]] = field(default_factory=dict)
    against_first: Comparison | None = None

    @property
    def entities(self) -> int:
        """RETURNS (int): The number of entities."""
        return sum(stats.count for stats in self.labels.values())

    def count(self, name: str) -> int:
        """Sum up a figure of the labels.

        name (str): A field of `LabelStats`.
        RETURNS (int): The sum over all labels.
        """
        return sum(getattr(stats, name) for stats in self.labels.values())


@dataclass
class DataReport:
    """What some corpora hold, and what to do about it.

    key (str): The spans key of the entities.
    corpora (list[CorpusStats]): The corpora; the first is the one to train on.
    warnings (list[str]): What may go wrong, and what to do about it.
    """

    key: str
    corpora: list[CorpusStats]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """RETURNS (dict[str, Any]): The report in types that JSON has."""
        return asdict(self)


def describe_corpora(corpora: Mapping[str, Iterable[Doc]], *, key: str = DEFAULT_KEY) -> DataReport:
    """Count what corpora hold, compare the others with the first, and warn of what may go wrong.

    Each corpus is read once, doc by doc. What is kept of it is a hash for each doc and the surface
    forms; of the first one, eight bytes for each character as well, if there are others.

    corpora (Mapping[str, Iterable[Doc]]): The docs of each corpus by its name; the first is the one
        to train on.
    key (str): The spans key of the entities.
    RETURNS (DataReport): The report.
    """
    first: _Known | None = None
    stats = []
    for name, docs in corpora.items():
        reader = _Reader(name, first)
        # Only where there is something to compare: the runs take the most memory.
        keep_runs = first is None and len(corpora) > 1
        for doc in docs:
            reader.add(doc, key)
            if keep_runs:
                reader.known.runs.add(doc.text)
        stats.append(reader.finish())
        first = first or reader.known
    return DataReport(key, stats, [*_find_warnings(stats, key)])


@dataclass
class _Known:
    """What is kept of a corpus: hashes of texts, labels by surface form, and runs."""

    texts: set[int] = field(default_factory=set)
    surfaces: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    runs: RunIndex = field(default_factory=RunIndex)


class _Reader:
    """Counts a corpus, doc by doc."""

    def __init__(self, name: str, first: _Known | None) -> None:
        self.first = first
        self.known = _Known()
        self.comparison = Comparison()
        self.stats = CorpusStats(name, against_first=self.comparison if first else None)
        self.lengths: Counter[int] = Counter()

    def add(self, doc: Doc, key: str) -> None:
        self.lengths[len(doc)] += 1
        self._add_text(doc.text)
        if key not in doc.spans:
            self.stats.not_annotated += 1
            return
        entities = read_entities(doc, key)
        self.stats.without_entities += not entities
        self._add_entities(entities)
        for entity in entities:
            self._add_surface(doc, entity)

    def _add_text(self, text: str) -> None:
        text_hash = hash_text(text)
        self.stats.duplicates += text_hash in self.known.texts
        self.known.texts.add(text_hash)
        if self.first is None:
            return
        if text_hash in self.first.texts:
            self.comparison.duplicates += 1
        elif self.first.runs.share(text) >= NEAR_DUPLICATE:
            self.comparison.near_duplicates += 1

    def _add_entities(self, entities: Sequence[Entity]) -> None:
        labels = self.stats.labels
        overlapping = split_by_form({(e.label, e.fragments) for e in entities})["nested"]
        is_inside = find_inside([entity.fragments for entity in entities])
        for entity, inside in zip(entities, is_inside, strict=True):
            labels.setdefault(entity.label, LabelStats()).add(
                entity,
                is_inside=inside,
                is_overlapping=(entity.label, entity.fragments) in overlapping,
            )
        if not overlapping:
            return
        labels_by_place = defaultdict(set)
        places_by_label = defaultdict(list)
        for entity in entities:
            labels_by_place[entity.fragments].add(entity.label)
            places_by_label[entity.label].append(entity.fragments)
        self.stats.multi_label += sum(len(labels_by_place[e.fragments]) > 1 for e in entities)
        self.stats.inside_same_label += sum(
            sum(find_inside(places)) for places in places_by_label.values()
        )

    def _add_surface(self, doc: Doc, entity: Entity) -> None:
        surface = read_surface(doc, entity)
        self.known.surfaces[surface][entity.label] += 1
        if self.first is not None:
            self.comparison.seen_entities += entity.label in self.first.surfaces.get(surface, ())
        borders = (i for start, end in entity.fragments for i in (start, end - 1))
        if any(_is_odd(doc[i].text, surface) for i in borders):
            self.stats.odd_borders += 1
            is_new = surface not in self.stats.odd_surfaces
            if is_new and len(self.stats.odd_surfaces) < _N_SURFACES:
                self.stats.odd_surfaces.append(surface)

    def finish(self) -> CorpusStats:
        stats = self.stats
        stats.docs = self.lengths.total()
        stats.tokens = sum(length * n for length, n in self.lengths.items())
        stats.mean_length = stats.tokens / max(stats.docs, 1)
        stats.median_length = _quantile(self.lengths, 0.5)
        stats.length_95 = _quantile(self.lengths, 0.95)
        stats.max_length = max(self.lengths, default=0)
        stats.longer = {
            limit: sum(n for length, n in self.lengths.items() if length > limit)
            for limit in LONG_DOCS
        }
        surfaces = self.known.surfaces
        for labels in surfaces.values():
            for label in labels:
                stats.labels[label].surfaces += 1
        stats.labels = dict(sorted(stats.labels.items(), key=lambda kv: (-kv[1].count, kv[0])))
        ambiguous = {s: labels for s, labels in surfaces.items() if len(labels) > 1}
        stats.ambiguous = len(ambiguous)
        doubt = {s: labels.total() - max(labels.values()) for s, labels in ambiguous.items()}
        stats.ambiguous_surfaces = {
            surface: dict(sorted(ambiguous[surface].items(), key=lambda kv: (-kv[1], kv[0])))
            for surface in sorted(ambiguous, key=lambda s: (-doubt[s], s))[:_N_SURFACES]
        }
        return stats


def read_surface(doc: Doc, entity: Entity) -> str:
    """Get the surface form of an entity: its text, any white space as one blank.

    doc (Doc): The doc.
    entity (Entity): The entity.
    RETURNS (str): The surface form; an ellipsis stands between fragments.
    """
    return _GAP.join(" ".join(doc[a:b].text.split()) for a, b in entity.fragments)


def _is_odd(token: str, surface: str) -> bool:
    """Whether a token at an entity's border is nothing but punctuation and white space."""
    kinds = {" " if char.isspace() else unicodedata.category(char) for char in token}
    if any(kind[0] not in "P " for kind in kinds) or not _SYMBOLS.isdisjoint(token):
        return False
    if token in _QUOTES:
        return surface.count(token) % 2 == 1
    if kinds <= _OPENING | _CLOSING:
        all_kinds = [unicodedata.category(char) for char in surface]
        n_opening = sum(kind in _OPENING for kind in all_kinds)
        return n_opening != sum(kind in _CLOSING for kind in all_kinds)
    return True


def _quantile(counts: Counter[int], share: float) -> int:
    """The smallest value such that this share of all values is no greater; 0 if there is none."""
    missing = ceil(share * counts.total())
    for value in sorted(counts):
        missing -= counts[value]
        if missing <= 0:
            return value
    return 0


def _find_warnings(corpora: Sequence[CorpusStats], key: str) -> Iterator[str]:
    for stats in corpora:
        yield from _warn_of_corpus(stats, key)
    if not corpora:
        return
    train, others = corpora[0], corpora[1:]
    yield from _warn_of_form(train)
    yield from _warn_of_few_examples(train)
    for stats in others:
        yield from _warn_of_labels(train, stats)
    for stats in others:
        yield from _warn_of_leakage(train, stats)


def _warn_of_corpus(stats: CorpusStats, key: str) -> Iterator[str]:
    name, docs, n_entities = stats.name, stats.docs, stats.entities
    if docs == 0:
        yield f"{name} holds no docs: check its path and format."
        return
    if stats.not_annotated:
        yield (
            f"{stats.not_annotated} of {docs} docs of {name} have no doc.spans[{key!r}], and are "
            f"neither learnt from nor scored: name the key that holds their entities."
        )
    if n_entities == 0:
        yield f"{name} holds no entities: check its format, and the spans key {key!r}."
    if stats.duplicates >= _MANY * docs:
        yield (
            f"{stats.duplicates} of {docs} docs of {name} are copies of others: they count more "
            f"than once in training and in scores. Leave them out if that is not meant."
        )
    if stats.longer[LONG_DOCS[-1]]:
        yield (
            f"{stats.longer[LONG_DOCS[-1]]} of {docs} docs of {name} have more than "
            f"{LONG_DOCS[-1]} tokens: a pre-trained transformer reads them in windows, and needs "
            f"memory for them. If they hold several sentences, cut them: convert with --n-sents."
        )
    if stats.odd_borders >= max(1, _MANY * n_entities):
        yield (
            f"{stats.odd_borders} of {n_entities} entities of {name} begin or end with punctuation "
            f"or white space, such as {_quote(stats.odd_surfaces[:3])}: see whether the guidelines "
            f"mean that, and correct the annotation if not."
        )


def _warn_of_form(train: CorpusStats) -> Iterator[str]:
    n_overlapping, n_discontinuous = train.count("overlapping"), train.count("discontinuous")
    if n_overlapping or n_discontinuous:
        yield (
            f"{n_overlapping} of {train.entities} entities of {train.name} overlap others and "
            f"{n_discontinuous} are discontinuous: a component for flat entities, as crf_ner or "
            f"ner, finds at most one of those that overlap and no discontinuous one."
        )


def _warn_of_few_examples(train: CorpusStats) -> Iterator[str]:
    counts = {label: stats.count for label, stats in train.labels.items()}
    too_few = {label: n for label, n in counts.items() if n < TOO_FEW_EXAMPLES}
    few = {label: n for label, n in counts.items() if TOO_FEW_EXAMPLES <= n < FEW_EXAMPLES}
    if too_few:
        yield (
            f"Labels with fewer than {TOO_FEW_EXAMPLES} examples in {train.name}, too few to "
            f"learn: {_list(too_few)}. Annotate more, merge them into other labels, or leave them "
            f"out."
        )
    if few:
        yield (
            f"Labels with fewer than {FEW_EXAMPLES} examples in {train.name}: {_list(few)}. "
            f"Expect low and unsteady scores; annotate more if they matter."
        )


def _warn_of_labels(train: CorpusStats, stats: CorpusStats) -> Iterator[str]:
    for one, other, consequence in (
        (stats, train, "nothing can find them"),
        (train, stats, "no score tells how well they are found"),
    ):
        missing = {label: s.count for label, s in one.labels.items() if label not in other.labels}
        if missing:
            yield (
                f"Labels of {one.name} that are not in {other.name}: {_list(missing)}. There, "
                f"{consequence}: check their spelling, or divide the corpus anew with "
                f"`python -m spacy mtlner split`."
            )


def _warn_of_leakage(train: CorpusStats, stats: CorpusStats) -> Iterator[str]:
    against = stats.against_first
    if against is not None and (against.duplicates or against.near_duplicates):
        yield (
            f"{against.duplicates} of {stats.docs} docs of {stats.name} stand in {train.name}, and "
            f"{against.near_duplicates} nearly do: scores on {stats.name} are too good. Leave "
            f"these docs out of one of them, or divide the corpus anew with `python -m spacy "
            f"mtlner split`."
        )


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} ({n})" for label, n in counts.items())


def _quote(surfaces: Iterable[str]) -> str:
    return ", ".join(f"“{surface}”" for surface in surfaces)


def format_report(report: DataReport) -> str:
    """Write a report as Markdown, with columns aligned for a terminal.

    report (DataReport): The report.
    RETURNS (str): The text.
    """
    parts = ["# Data", _overview(report.corpora)]
    for stats in report.corpora:
        if stats.labels:
            parts += [
                f"## Labels of {stats.name}",
                "Lengths and gaps in tokens; the share that is inside another entity, overlaps "
                "one, or is discontinuous in percent.",
                _label_table(stats),
            ]
        if stats.ambiguous:
            rows = [[s, _list(labels)] for s, labels in stats.ambiguous_surfaces.items()]
            parts += [
                f"## Surface forms of {stats.name} with several labels",
                make_table(["surface form", "labels"], rows, left=(0, 1)),
            ]
        if stats.odd_borders:
            parts += [
                f"## Entities of {stats.name} with odd borders",
                f"{stats.odd_borders} begin or end with punctuation or white space, such as "
                f"{_quote(stats.odd_surfaces)}.",
            ]
    if report.warnings:
        parts += ["## Warnings", "\n".join(f"- {warning}" for warning in report.warnings)]
    return "\n\n".join(parts) + "\n"


def _overview(corpora: Sequence[CorpusStats]) -> str:
    rows: dict[str, list[str]] = defaultdict(list)
    for stats in corpora:
        n, docs, against = stats.entities, stats.docs, stats.against_first
        figures = {
            "docs": f"{docs:,}",
            "docs not annotated": f"{stats.not_annotated:,}",
            "docs without entities": _share(stats.without_entities, docs),
            "docs that are copies": _share(stats.duplicates, docs),
            "tokens": f"{stats.tokens:,}",
            "tokens per doc, mean": f"{stats.mean_length:.1f}",
            "tokens per doc, median": f"{stats.median_length:,}",
            "tokens per doc, 95 %": f"{stats.length_95:,}",
            "tokens per doc, most": f"{stats.max_length:,}",
            **{
                f"docs longer than {limit}": _share(stats.longer[limit], docs)
                for limit in LONG_DOCS
            },
            "labels": f"{len(stats.labels):,}",
            "entities": f"{n:,}",
            "entities inside another": _share(stats.count("inside"), n),
            "entities inside one of their label": _share(stats.inside_same_label, n),
            "entities overlapping others": _share(stats.count("overlapping"), n),
            "entities of several labels": _share(stats.multi_label, n),
            "entities discontinuous": _share(stats.count("discontinuous"), n),
            "entities with odd borders": _share(stats.odd_borders, n),
            "surface forms of several labels": f"{stats.ambiguous:,}",
        }
        if len(corpora) > 1:
            first = corpora[0].name
            for name, count, total in (
                (f"docs in {first}", "duplicates", docs),
                (f"docs nearly in {first}", "near_duplicates", docs),
                (f"entities seen in {first}", "seen_entities", n),
            ):
                figures[name] = _share(getattr(against, count), total) if against else "-"
        for name, figure in figures.items():
            rows[name].append(figure)
    header = ["", *(stats.name for stats in corpora)]
    return make_table(header, [[name, *figures] for name, figures in rows.items()])


def _label_table(stats: CorpusStats) -> str:
    header = ["label", "entities", "%", "length", "longest", "forms", "inside", "overlapping"]
    header += ["discontinuous", "fragments", "gap"]
    rows = [
        [
            label,
            f"{s.count:,}",
            _percent(s.count, stats.entities),
            f"{s.tokens / s.count:.1f}",
            f"{s.max_length:,}",
            f"{s.surfaces:,}",
            _percent(s.inside, s.count),
            _percent(s.overlapping, s.count),
            _percent(s.discontinuous, s.count),
            f"{s.max_fragments:,}",
            f"{s.max_gap:,}",
        ]
        for label, s in stats.labels.items()
    ]
    return make_table(header, rows)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({_percent(count, total)} %)"


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}" if total else "-"
