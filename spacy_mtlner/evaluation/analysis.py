"""What a pipeline gets right and wrong: from gold and predicted entities to numbers.

Gold and prediction are matched as the scorer does it, by label and characters of all fragments.
Every figure of the report of `mtlner analyse` is drawn from the numbers that are found here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy
from numpy.typing import NDArray

from spacy_mtlner.entities import Fragments
from spacy_mtlner.evaluation.training_log import TrainingLog
from spacy_mtlner.scoring import split_by_form

Kind = Literal["right", "label", "boundary", "label and boundary", "missed", "spurious"]
Category = Literal["up", "stable", "down"]
Surfaces = Mapping[str, Counter[str]]  # Labels of each surface form in the training data.
FloatArray = NDArray[numpy.float64]

# Lower bounds of the groups that entities are counted in.
ENTITY_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 31)
SENTENCE_LENGTHS = (1, 11, 21, 31, 41, 61, 101, 201)
FREQUENCIES = (0, 1, 2, 5, 10, 50)
SEEN = ("with this label", "with other labels only", "never")
N_BINS = 10
# A probability below it counts as it, so that ratios and logarithms stay finite.
FLOOR = 1e-6
# Logarithms (base 10) of the ratio that are as near to 0 as this are "stable".
TOLERANCE = 1e-6
_Z = 1.959964  # Of a 95 percent interval.
_N_SAMPLES = 1000  # Of the bootstrap.
_SAMPLED_AT_ONCE = 2**22  # Counts of docs.
_MARGIN = 25  # Tokens of the text on either side of what an excerpt is about.
_LONGEST = 80  # Tokens of an excerpt that is a whole text.


@dataclass(frozen=True)
class Mention:
    """An entity in a text.

    label (str): Its label.
    key (Fragments): Its characters as the scorer compares them.
    places (Fragments): Its characters in the text that is shown.
    length (int): Tokens in its fragments.
    context (int): Tokens of its sentence, or of its doc where sentences are not annotated.
    surface (str): Its surface form.
    score (float): Its score, 1 for gold.
    """

    label: str
    key: Fragments
    places: Fragments
    length: int
    context: int
    surface: str
    score: float = 1.0


@dataclass(frozen=True)
class DocEntities:
    """The entities of an annotated doc.

    number (int): The doc's number in its corpus, from 1.
    text (str): Its text.
    tokens (NDArray[numpy.int64]): Start and end of the predicted tokens, shape (n_tokens, 2).
    gold (Sequence[Mention]): The gold entities.
    predicted (Sequence[Mention]): The predicted ones.
    probabilities (Optional[FloatArray]): Of each gold entity's span the probability of each label,
        and last of no entity; NaN where the pipeline's tokens do not express it. Shape (n_gold,
        n_labels + 1). None if the component does not tell.
    """

    number: int
    text: str
    tokens: NDArray[numpy.int64]
    gold: Sequence[Mention]
    predicted: Sequence[Mention]
    probabilities: FloatArray | None = None


class Outcome(NamedTuple):
    """What became of a gold entity, a predicted one, or both where their fragments are the same.

    doc (int): Position of the doc in the list of docs.
    kind (Kind): "right"; "label" for the same fragments with another label; "boundary" or "label
        and boundary" for one that overlaps one of the other side that is not matched, with the same
        label or only with others; else "missed" or "spurious".
    gold (Optional[int]): Position of the gold entity in the doc's.
    predicted (Optional[int]): Position of the predicted one.
    """

    doc: int
    kind: Kind
    gold: int | None
    predicted: int | None


@dataclass(frozen=True)
class Group:
    """Counts of a group of entities; gold and predicted ones are sorted into groups by themselves.

    name (str): Its name.
    gold (int): Gold entities.
    found (int): Gold entities that were predicted.
    predicted (int): Predicted entities.
    right (int): Predicted entities that are gold.
    train (Optional[int]): Entities in the training data, where it is known.
    """

    name: str
    gold: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0
    train: int | None = None

    @property
    def precision(self) -> float | None:
        """RETURNS (Optional[float]): Share of the predicted entities that is right."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """RETURNS (Optional[float]): Share of the gold entities that is found."""
        return self.found / self.gold if self.gold else None

    @property
    def f1(self) -> float | None:
        """RETURNS (Optional[float]): Harmonic mean of both; None for a group without entities."""
        if not self.gold and not self.predicted:
            return None
        p, r = self.precision or 0.0, self.recall or 0.0
        return 2 * p * r / (p + r) if p + r else 0.0


@dataclass(frozen=True)
class Score:
    """What a pipeline's predictions are worth, in one number.

    name (str): "F1", or for typing "accuracy".
    value (Optional[float]): The score, None without entities.
    interval (Optional[tuple[float, float]]): Its 95 percent interval, by the percentile bootstrap
        (Efron, 1979): scores of corpora of as many docs, drawn from the docs with replacement.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Confusion:
    """How often an entity of a label was predicted with a label, where the fragments are the same.

    labels (list[str]): The labels.
    counts (NDArray[numpy.int64]): Gold labels by row, predicted ones by column; the last row are
        predicted entities without a gold one, the last column gold ones without a predicted one.
        Shape (n_labels + 1, n_labels + 1).
    """

    labels: list[str]
    counts: NDArray[numpy.int64]


@dataclass(frozen=True)
class Calibration:
    """How often predicted entities of a score are right: one entry for each bin of scores.

    edges (FloatArray): The bins' borders, shape (n_bins + 1,); a bin includes its upper one.
    counts (NDArray[numpy.int64]): Predicted entities, shape (n_bins,).
    scores (FloatArray): Their mean score, NaN in an empty bin.
    precision (FloatArray): The share that is right, NaN in an empty bin.
    low (FloatArray): Lower end of the precision's 95 percent interval (Wilson).
    high (FloatArray): Its upper end.
    error (float): Expected calibration error: the mean of |precision - score|, weighted by counts.
    largest_error (float): The largest |precision - score| of a bin.
    """

    edges: FloatArray
    counts: NDArray[numpy.int64]
    scores: FloatArray
    precision: FloatArray
    low: FloatArray
    high: FloatArray
    error: float
    largest_error: float


@dataclass(frozen=True)
class ClassPoints:
    """The gold entities as points, by the class probabilities of their spans.

    labels (list[str]): The classes but for the last, which is no entity.
    outcomes (list[tuple[int, int]]): Doc and gold entity of each point, n_points.
    gold (list[str]): The true labels.
    is_right (NDArray[numpy.bool_]): Whether the entity was predicted with its label, (n_points,).
    true (FloatArray): Probability of the true label, (n_points,).
    output (FloatArray): That of what the pipeline gave out there, a label or no entity.
    components (FloatArray): The probabilities' first two principal components, (n_points, 2).
    corners (FloatArray): Where a probability of 1 for each class would be, (n_labels + 1, 2).
    explained (FloatArray): Share of the variance that each component explains, (2,).
    ratio (FloatArray): log10(output / true), (n_points,).
    desire (FloatArray): Variance of the probabilities over that of the true label, (n_points,).
    category (list[Category]): "up" where the output is more probable than the truth, "down" where
        it is less, "stable" where they are the same.
    n_floored (int): Points whose true label has a probability below `FLOOR`, taken as that.
    n_unaligned (int): Gold entities that are no points, as the pipeline's tokens do not express
        them.
    """

    labels: list[str]
    outcomes: list[tuple[int, int]]
    gold: list[str]
    is_right: NDArray[numpy.bool_]
    true: FloatArray
    output: FloatArray
    components: FloatArray
    corners: FloatArray
    explained: FloatArray
    ratio: FloatArray
    desire: FloatArray
    category: list[Category]
    n_floored: int
    n_unaligned: int


@dataclass(frozen=True)
class Excerpt:
    """A part of a text that is shown, with all entities that begin, end or lie in it.

    doc (int): Position of the doc in the list of docs.
    start (int): Its first token.
    end (int): The offset behind its last one.
    outcomes (list[Outcome]): The entities.
    focuses (list[Outcome]): Those it is shown for.
    """

    doc: int
    start: int
    end: int
    outcomes: list[Outcome]
    focuses: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True)
class Analysis:
    """Everything that the figures, tables and lists show.

    docs (Sequence[DocEntities]): The docs.
    is_typing (bool): Whether the gold entities' fragments were given, and only labels predicted.
    total (Group): All entities.
    score (Score): F1, or for typing accuracy.
    labels (list[Group]): The entities of each label, the most frequent first.
    kinds (dict[Kind, tuple[int, int]]): Gold and predicted entities by what became of them.
    confusion (Confusion): Labels against labels.
    entity_length (list[Group]): Entities by their tokens.
    sentence_length (list[Group]): Entities by the tokens of their sentence.
    training_frequency (list[Group]): Entities by how often the training data has their surface form
        with their label; empty without training data.
    seen (list[Group]): Entities by whether it has their surface form; empty without training data.
    calibration (Optional[Calibration]): None without predicted entities.
    points (Optional[ClassPoints]): None without class probabilities or gold entities.
    log (Optional[TrainingLog]): The losses of the training, where a log was given.
    confident_errors (list[Excerpt]): Wrong predictions, the highest score first.
    unlikely_gold (list[Excerpt]): Gold entities that were not found, the least probable
        first; those of probability 0, which the component cannot express, last.
    complex_texts (list[Excerpt]): Texts with discontinuous and nested entities.
    left_out (dict[str, str]): Figures that cannot be drawn, and why.
    """

    docs: Sequence[DocEntities]
    is_typing: bool
    total: Group
    score: Score
    labels: list[Group]
    kinds: dict[Kind, tuple[int, int]]
    confusion: Confusion
    entity_length: list[Group]
    sentence_length: list[Group]
    training_frequency: list[Group]
    seen: list[Group]
    calibration: Calibration | None
    points: ClassPoints | None
    log: TrainingLog | None
    confident_errors: list[Excerpt] = field(default_factory=list)
    unlikely_gold: list[Excerpt] = field(default_factory=list)
    complex_texts: list[Excerpt] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """RETURNS (dict[str, Any]): The numbers in types that JSON has; points and errors with the
        doc's number and the characters of the entity.
        """
        names = ["is_typing", "total", "score", "labels", "kinds", "confusion", "entity_length"]
        names += ["sentence_length", "training_frequency", "seen", "calibration", "log", "left_out"]
        result = {name: _to_plain(getattr(self, name)) for name in names}
        result["points"] = self._points_to_dict() if self.points else None
        for name in ("confident_errors", "unlikely_gold"):
            excerpts: list[Excerpt] = getattr(self, name)
            result[name] = [self._outcome_to_dict(o) for e in excerpts for o in e.focuses]
        result["complex_texts"] = [self.docs[e.doc].number for e in self.complex_texts]
        return result

    def _points_to_dict(self) -> dict[str, Any]:
        points = self.points
        assert points is not None
        skipped = ("outcomes", "gold", "labels")
        result = {
            f.name: _to_plain(getattr(points, f.name))
            for f in fields(points)
            if f.name not in skipped
        }
        result["classes"] = [*points.labels, None]
        result["entities"] = [
            _mention_to_dict(self.docs[doc], self.docs[doc].gold[i]) for doc, i in points.outcomes
        ]
        return result

    def _outcome_to_dict(self, outcome: Outcome) -> dict[str, Any]:
        doc = self.docs[outcome.doc]
        gold = None if outcome.gold is None else doc.gold[outcome.gold]
        predicted = None if outcome.predicted is None else doc.predicted[outcome.predicted]
        return {
            "kind": outcome.kind,
            "gold": gold and _mention_to_dict(doc, gold),
            "predicted": predicted and _mention_to_dict(doc, predicted),
        }


def analyse_entities(
    docs: Sequence[DocEntities],
    *,
    labels: Sequence[str],
    is_typing: bool = False,
    surfaces: Surfaces | None = None,
    log: TrainingLog | None = None,
    n_examples: int = 20,
    why_no_probabilities: str = "The component gives no probabilities of labels.",
) -> Analysis:
    """Compare gold with predicted entities.

    docs (Sequence[DocEntities]): The docs.
    labels (Sequence[str]): The component's labels, in the order of the docs' probabilities.
    is_typing (bool): Whether the gold entities' fragments were given, and only labels predicted.
    surfaces (Optional[Surfaces]): What the training data has: see `count_surfaces`.
    log (Optional[TrainingLog]): The losses of the training.
    n_examples (int): The most excerpts of each list.
    why_no_probabilities (str): What to say if the docs have no probabilities.
    RETURNS (Analysis): The numbers.
    """
    outcomes = [o for i, doc in enumerate(docs) for o in match_entities(doc, i)]
    total = count_groups(docs, outcomes, lambda _: "all")
    points = find_points(docs, outcomes, labels)
    calibration = calibrate(*_scores(docs, outcomes))
    left_out: dict[str, str] = {}
    n_gold = sum(len(doc.gold) for doc in docs)
    if points is None:
        has_probabilities = any(doc.probabilities is not None for doc in docs)
        reason = "There are no gold entities that the pipeline's tokens express."
        reason = reason if has_probabilities or not n_gold else why_no_probabilities
        left_out.update(dict.fromkeys(("pca", "true_probability", "discrepancy"), reason))
    if not outcomes:
        nothing = "There are neither gold nor predicted entities."
        names = ("confusion", "entity_length", "sentence_length", "training_frequency", "seen")
        left_out.update(dict.fromkeys(names, nothing))
    if calibration is None:
        left_out["calibration"] = "There are no predicted entities."
    if surfaces is None:
        left_out.update(
            dict.fromkeys(("training_frequency", "seen"), "No training data: give it with --train.")
        )
    if log is None:
        left_out["loss"] = "No log of the training: give it with --log."
    by_label = count_groups(docs, outcomes, lambda m: m.label)
    if surfaces is not None:
        counts: Counter[str] = Counter()
        for counter in surfaces.values():
            counts.update(counter)
        by_label = [Group(**{**asdict(g), "train": counts[g.name]}) for g in by_label]
    return Analysis(
        docs=docs,
        is_typing=is_typing,
        total=total[0] if total else Group("all"),
        score=find_accuracy(docs, outcomes) if is_typing else find_f1(docs, outcomes),
        labels=sorted(by_label, key=lambda g: (-g.gold, -g.predicted, g.name)),
        kinds={
            kind: (
                sum(o.kind == kind and o.gold is not None for o in outcomes),
                sum(o.kind == kind and o.predicted is not None for o in outcomes),
            )
            for kind in get_args(Kind)
        },
        confusion=count_confusion(docs, outcomes, labels),
        entity_length=_count_lengths(docs, outcomes, ENTITY_LENGTHS, lambda m: m.length),
        sentence_length=_count_lengths(docs, outcomes, SENTENCE_LENGTHS, lambda m: m.context),
        training_frequency=_count_frequencies(docs, outcomes, surfaces),
        seen=_count_seen(docs, outcomes, surfaces),
        calibration=calibration,
        points=points,
        log=log,
        confident_errors=_find_confident_errors(docs, outcomes, n_examples),
        unlikely_gold=_find_unlikely_gold(docs, outcomes, points, n_examples),
        complex_texts=_find_complex_texts(docs, outcomes, n_examples),
        left_out=left_out,
    )


def match_entities(doc: DocEntities, number: int = 0) -> list[Outcome]:
    """Match the entities of a doc. Each gold and each predicted one is in one outcome.

    Of several labels on the same fragments those that are on both sides are right; the others are
    paired in order, gold ones of their label, predicted ones of their score.

    doc (DocEntities): The doc.
    number (int): Its position in the list of docs.
    RETURNS (list[Outcome]): The outcomes.
    """
    at: defaultdict[Fragments, tuple[dict[str, int], dict[str, int]]]
    at = defaultdict(lambda: ({}, {}))
    for side, mentions in enumerate((doc.gold, doc.predicted)):
        for i, mention in enumerate(mentions):
            at[mention.key][side][mention.label] = i
    outcomes: list[Outcome] = []
    missed: list[int] = []
    spurious: list[int] = []
    for gold, predicted in at.values():
        outcomes += (
            Outcome(number, "right", gold[x], predicted[x]) for x in gold if x in predicted
        )
        left = [gold[label] for label in sorted(gold) if label not in predicted]
        right = [predicted[label] for label in sorted(predicted) if label not in gold]
        right.sort(key=lambda i: -doc.predicted[i].score)
        outcomes += (Outcome(number, "label", g, p) for g, p in zip(left, right, strict=False))
        missed += left[len(right) :]
        spurious += right[len(left) :]
    kinds = _find_kinds([doc.gold[i] for i in missed], [doc.predicted[i] for i in spurious])
    outcomes += (
        Outcome(number, kind or "missed", i, None) for i, kind in zip(missed, kinds[0], strict=True)
    )
    outcomes += (
        Outcome(number, kind or "spurious", None, i)
        for i, kind in zip(spurious, kinds[1], strict=True)
    )
    return outcomes


def _find_kinds(
    missed: Sequence[Mention], spurious: Sequence[Mention]
) -> tuple[list[Kind | None], list[Kind | None]]:
    """What kind of error those are that overlap one of the other side; None for those that do not.

    Only what is matched on neither side counts: a missed entity inside one that is right is missed.
    """
    overlaps = _find_overlaps([m.key for m in missed], [m.key for m in spurious])
    same = numpy.array([[a.label == b.label for b in spurious] for a in missed], dtype=bool)
    same = same.reshape(overlaps.shape)

    def name(axis: int) -> list[Kind | None]:
        is_boundary = numpy.any(overlaps & same, axis).tolist()
        is_any = numpy.any(overlaps, axis).tolist()
        return [
            "boundary" if a else "label and boundary" if b else None
            for a, b in zip(is_boundary, is_any, strict=True)
        ]

    return name(1), name(0)


def _find_overlaps(these: Sequence[Fragments], those: Sequence[Fragments]) -> NDArray[numpy.bool_]:
    """Which entities share characters: (n_these, n_those)."""
    overlaps = numpy.zeros((len(these), len(those)), dtype=bool)
    a, b = (
        numpy.array([(i, *f) for i, e in enumerate(side) for f in e], dtype=int).reshape(-1, 3)
        for side in (these, those)
    )
    is_common = (a[:, None, 1] < b[:, 2]) & (b[:, 1] < a[:, None, 2])
    rows, columns = is_common.nonzero()
    overlaps[a[rows, 0], b[columns, 0]] = True
    return overlaps


def count_groups(
    docs: Sequence[DocEntities],
    outcomes: Iterable[Outcome],
    group_of: Callable[[Mention], str],
    order: Sequence[str] = (),
) -> list[Group]:
    """Count entities in groups.

    docs (Sequence[DocEntities]): The docs.
    outcomes (Iterable[Outcome]): All outcomes of the docs.
    group_of (Callable[[Mention], str]): Names an entity's group.
    order (Sequence[str]): The groups' names in order; those that are empty are left out.
    RETURNS (list[Group]): The groups; by name, if no order is given.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for doc, kind, gold, predicted in outcomes:
        if gold is not None:
            counter = counts[group_of(docs[doc].gold[gold])]
            counter["gold"] += 1
            counter["found"] += kind == "right"
        if predicted is not None:
            counter = counts[group_of(docs[doc].predicted[predicted])]
            counter["predicted"] += 1
            counter["right"] += kind == "right"
    return [Group(name, **counts[name]) for name in order or sorted(counts) if name in counts]


def find_f1(docs: Sequence[DocEntities], outcomes: Iterable[Outcome]) -> Score:
    """Find F1 of recognition: twice the right entities over gold and predicted ones.

    docs (Sequence[DocEntities]): The docs.
    outcomes (Iterable[Outcome]): All outcomes of the docs.
    RETURNS (Score): F1.
    """
    table = numpy.zeros((len(docs), 2))
    for doc, kind, gold, predicted in outcomes:
        table[doc] += 2 * (kind == "right"), (gold is not None) + (predicted is not None)
    return _find_ratio("F1", table)


def find_accuracy(docs: Sequence[DocEntities], outcomes: Iterable[Outcome]) -> Score:
    """Find the accuracy of typing, as `score_typing` does: the share of the given fragments whose
    label is that of a gold entity there.

    docs (Sequence[DocEntities]): The docs.
    outcomes (Iterable[Outcome]): All outcomes of the docs.
    RETURNS (Score): The accuracy.
    """
    given = {(i, mention.key) for i, doc in enumerate(docs) for mention in doc.gold}
    right = {
        (doc, docs[doc].gold[gold].key)
        for doc, kind, gold, _ in outcomes
        if kind == "right" and gold is not None
    }
    table = numpy.zeros((len(docs), 2))
    for column, places in enumerate((right, given)):
        numpy.add.at(table[:, column], [doc for doc, _ in places], 1)
    return _find_ratio("accuracy", table)


def _find_ratio(name: str, table: FloatArray) -> Score:
    """The ratio of two sums over docs, (n_docs, 2), and its interval."""
    n_docs = len(table)
    table = table[table[:, 1] > 0]
    if not len(table):
        return Score(name, None, None)
    random = numpy.random.default_rng(0)  # The same interval each time.
    # A doc without entities changes nothing but how often the others are drawn.
    shares = numpy.append(numpy.full(len(table), 1 / n_docs), 1 - len(table) / n_docs)
    samples: list[FloatArray] = []
    step = max(1, _SAMPLED_AT_ONCE // len(shares))
    for start in range(0, _N_SAMPLES, step):
        counts = random.multinomial(n_docs, shares, size=min(step, _N_SAMPLES - start))
        above, below = (counts[:, :-1] @ table).T
        samples.append(above[below > 0] / below[below > 0])
    low, high = numpy.quantile(numpy.concatenate(samples), [0.025, 0.975]).tolist()
    above, below = table.sum(0)
    return Score(name, float(above / below), (low, high))


def _count_lengths(
    docs: Sequence[DocEntities],
    outcomes: Iterable[Outcome],
    bounds: Sequence[int],
    length_of: Callable[[Mention], int],
) -> list[Group]:
    names = name_ranges(bounds)

    def group_of(mention: Mention) -> str:
        return names[max(0, int(numpy.searchsorted(bounds, length_of(mention), "right")) - 1)]

    return count_groups(docs, outcomes, group_of, names)


def name_ranges(bounds: Sequence[int]) -> list[str]:
    """Name ranges of integers by their lower bounds.

    bounds (Sequence[int]): The lower bounds.
    RETURNS (list[str]): As "1", "2–4", "5+".
    """
    names = [f"{a}" if b == a + 1 else f"{a}–{b - 1}" for a, b in pairwise(bounds)]
    return [*names, f"{bounds[-1]}+"]


def _count_frequencies(
    docs: Sequence[DocEntities], outcomes: Iterable[Outcome], surfaces: Surfaces | None
) -> list[Group]:
    if surfaces is None:
        return []
    nothing: Counter[str] = Counter()
    return _count_lengths(
        docs, outcomes, FREQUENCIES, lambda m: surfaces.get(m.surface, nothing)[m.label]
    )


def _count_seen(
    docs: Sequence[DocEntities], outcomes: Iterable[Outcome], surfaces: Surfaces | None
) -> list[Group]:
    if surfaces is None:
        return []

    def group_of(mention: Mention) -> str:
        known = surfaces.get(mention.surface)
        return SEEN[0 if known and mention.label in known else 1 if known else 2]

    return count_groups(docs, outcomes, group_of, SEEN)


def count_confusion(
    docs: Sequence[DocEntities], outcomes: Iterable[Outcome], labels: Sequence[str]
) -> Confusion:
    """Count gold labels against predicted ones.

    docs (Sequence[DocEntities]): The docs.
    outcomes (Iterable[Outcome]): All outcomes of the docs.
    labels (Sequence[str]): The component's labels; those of the gold alone come behind them.
    RETURNS (Confusion): The counts.
    """
    names = list(labels)
    names += sorted({m.label for doc in docs for m in (*doc.gold, *doc.predicted)} - set(names))
    ids = {name: i for i, name in enumerate(names)}
    counts = numpy.zeros((len(names) + 1, len(names) + 1), dtype=numpy.int64)
    for doc, _, gold, predicted in outcomes:
        row = len(names) if gold is None else ids[docs[doc].gold[gold].label]
        column = len(names) if predicted is None else ids[docs[doc].predicted[predicted].label]
        counts[row, column] += 1
    return Confusion(names, counts)


def calibrate(scores: FloatArray, is_right: NDArray[numpy.bool_]) -> Calibration | None:
    """Compare scores with how often they are right.

    scores (FloatArray): Scores in [0, 1], shape (n,).
    is_right (NDArray[numpy.bool_]): Whether each is right, shape (n,).
    RETURNS (Optional[Calibration]): The comparison; None if there are no scores.
    """
    if not len(scores):
        return None
    edges = numpy.linspace(0, 1, N_BINS + 1)
    bins = numpy.ceil(scores * N_BINS).astype(int).clip(1, N_BINS) - 1
    counts = numpy.bincount(bins, minlength=N_BINS)
    n = numpy.where(counts, counts, numpy.nan)
    means = numpy.bincount(bins, scores, N_BINS) / n
    precision = numpy.bincount(bins, is_right, N_BINS) / n
    # Wilson's interval.
    centre = (precision + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    spread = numpy.sqrt(precision * (1 - precision) / n + _Z**2 / (4 * n**2))
    spread *= _Z / (1 + _Z**2 / n)
    gaps = abs(precision - means)
    return Calibration(
        edges=edges,
        counts=counts,
        scores=means,
        precision=precision,
        low=(centre - spread).clip(0, 1),
        high=(centre + spread).clip(0, 1),
        error=float(numpy.nansum(gaps * counts) / counts.sum()),
        largest_error=float(numpy.nanmax(gaps)),
    )


def _scores(
    docs: Sequence[DocEntities], outcomes: Iterable[Outcome]
) -> tuple[FloatArray, NDArray[numpy.bool_]]:
    """Scores of all predicted entities, and whether each is right."""
    rows = [
        (docs[doc].predicted[predicted].score, kind == "right")
        for doc, kind, _, predicted in outcomes
        if predicted is not None
    ]
    return numpy.array([s for s, _ in rows]), numpy.array([r for _, r in rows], dtype=bool)


def find_points(
    docs: Sequence[DocEntities], outcomes: Iterable[Outcome], labels: Sequence[str]
) -> ClassPoints | None:
    """Make a point of each gold entity whose span has class probabilities.

    docs (Sequence[DocEntities]): The docs.
    outcomes (Iterable[Outcome]): All outcomes of the docs.
    labels (Sequence[str]): The component's labels, in the order of the probabilities. Another label
        has probability 0.
    RETURNS (Optional[ClassPoints]): The points; None if there are none.
    """
    ids = {label: i for i, label in enumerate(labels)}
    places: list[tuple[int, int]] = []
    rows: list[FloatArray] = []
    outputs: list[int] = []
    rights: list[bool] = []
    n_unaligned = 0
    found = {(o.doc, o.gold) for o in outcomes if o.kind == "right"}
    for number, doc in enumerate(docs):
        if doc.probabilities is None:
            continue
        is_known = ~numpy.isnan(doc.probabilities).any(1)
        n_unaligned += int((~is_known).sum())
        best: dict[Fragments, Mention] = {}
        for mention in sorted(doc.predicted, key=lambda m: m.score):
            best[mention.key] = mention
        for i in numpy.flatnonzero(is_known).tolist():
            is_right = (number, i) in found
            output = doc.gold[i] if is_right else best.get(doc.gold[i].key)
            places.append((number, i))
            rows.append(doc.probabilities[i])
            rights.append(is_right)
            outputs.append(-1 if output is None else ids[output.label])
    if not rows:
        return None
    x = numpy.asarray(rows, dtype=numpy.float64)  # (n_points, n_labels + 1)
    gold = [docs[doc].gold[i].label for doc, i in places]
    true_ids = numpy.array([ids.get(label, -1) for label in gold])
    index = numpy.arange(len(x))
    true = numpy.where(true_ids < 0, 0.0, x[index, true_ids])
    output_p = x[index, outputs]
    ratio = numpy.log10(numpy.maximum(output_p, FLOOR) / numpy.maximum(true, FLOOR))
    components, corners, explained = find_principal_components(x)
    return ClassPoints(
        labels=list(labels),
        outcomes=places,
        gold=gold,
        is_right=numpy.array(rights),
        true=true,
        output=output_p,
        components=components,
        corners=corners,
        explained=explained,
        ratio=ratio,
        desire=x.var(1) / numpy.maximum(true, FLOOR),
        category=[categorise(value) for value in ratio],
        n_floored=int((true < FLOOR).sum()),
        n_unaligned=n_unaligned,
    )


def categorise(ratio: float) -> Category:
    """Say on which side of 0 a logarithm is.

    ratio (float): The logarithm of output over truth.
    RETURNS (Category): "up" above `TOLERANCE`, "down" below its negative, else "stable".
    """
    return "up" if ratio > TOLERANCE else "down" if ratio < -TOLERANCE else "stable"


def find_principal_components(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Find the first two principal components of points: the eigenvectors of their covariance, by a
    singular value decomposition of the centred points.

    x (FloatArray): The points, shape (n_points, n_dims).
    RETURNS (tuple[FloatArray, FloatArray, FloatArray]): The points along the components, (n_points,
        2), the unit vectors of all dimensions, (n_dims, 2), and the share of the variance that each
        component explains, (2,). A component that does not exist is 0. The largest weight of a
        component is positive, so that the same points look the same.
    """
    mean = x.mean(0)
    _, sizes, axes = numpy.linalg.svd(x - mean, full_matrices=False)
    weights = numpy.zeros((2, x.shape[1]))
    explained = numpy.zeros(2)
    variances = sizes**2
    n = min(2, len(sizes))
    if variances.sum() > 0:
        explained[:n] = variances[:n] / variances.sum()
    real = numpy.flatnonzero(sizes[:n] > 1e-9 * max(1.0, float(abs(x).max(initial=0))))
    weights[real] = axes[real]
    largest = weights[[0, 1], abs(weights).argmax(1)]
    weights *= numpy.where(largest < 0, -1, 1)[:, None]
    return (x - mean) @ weights.T, (numpy.eye(x.shape[1]) - mean) @ weights.T, explained


def _find_confident_errors(
    docs: Sequence[DocEntities], outcomes: Sequence[Outcome], n: int
) -> list[Excerpt]:
    wrong = [
        (-docs[o.doc].predicted[o.predicted].score, o)
        for o in outcomes
        if o.predicted is not None and o.kind != "right"
    ]
    wrong.sort(key=lambda pair: pair[0])
    return _cut_excerpts(docs, outcomes, [o for _, o in wrong[:n]])


def _find_unlikely_gold(
    docs: Sequence[DocEntities], outcomes: Sequence[Outcome], points: ClassPoints | None, n: int
) -> list[Excerpt]:
    if points is None:
        return []
    probability = dict(zip(points.outcomes, points.true.tolist(), strict=True))
    missed = [
        (probability[o.doc, o.gold], o)
        for o in outcomes
        if o.kind != "right" and o.gold is not None and (o.doc, o.gold) in probability
    ]
    # Those that the component cannot express at all have a probability of 0.
    missed.sort(key=lambda pair: (pair[0] == 0, pair[0]))
    return _cut_excerpts(docs, outcomes, [o for _, o in missed[:n]])


def _find_complex_texts(
    docs: Sequence[DocEntities], outcomes: Sequence[Outcome], n: int
) -> list[Excerpt]:
    """The texts with the most discontinuous entities, then those with the most nested ones."""
    ranked = []
    shown = {}
    for number, doc in enumerate(docs):
        forms = split_by_form({(m.label, m.key) for m in (*doc.gold, *doc.predicted)})
        rank = len(forms["discontinuous"]), len(forms["nested"])
        if any(rank):
            ranked.append((rank, number))
            shown[number] = forms["discontinuous"] or forms["nested"]
    # Half of them for each form, if there are as many.
    ranked.sort(key=lambda pair: (-pair[0][0], -pair[0][1], pair[1]))
    split = [number for rank, number in ranked if rank[0]]
    nested = [number for rank, number in ranked if not rank[0]]
    n_split = min(len(split), max(n - n // 2, n - len(nested)))
    chosen = [*split[:n_split], *nested[: n - n_split]]
    by_doc = _group_by_doc(outcomes, chosen)
    excerpts = []
    for number in chosen:
        mentions = _mentions(docs, by_doc[number])
        places = [p for m in mentions if (m.label, m.key) in shown[number] for p in m.places]
        first, last = min(a for a, _ in places), max(b for _, b in places)
        start, end = _find_tokens(docs[number], first, last)
        start = max(0, start - _MARGIN)
        end = min(len(docs[number].tokens), end + _MARGIN, start + _LONGEST)
        excerpts.append(_make_excerpt(docs, by_doc[number], number, start, end))
    return excerpts


def _cut_excerpts(
    docs: Sequence[DocEntities], outcomes: Sequence[Outcome], focuses: Sequence[Outcome]
) -> list[Excerpt]:
    by_doc = _group_by_doc(outcomes, {focus.doc for focus in focuses})
    excerpts: list[Excerpt] = []
    for focus in focuses:
        doc = docs[focus.doc]
        places = [p for m in _mentions(docs, [focus]) for p in m.places]
        first, last = _find_tokens(doc, places[0][0], places[-1][1])
        # A text with several of them is shown once.
        shown = (e for e in excerpts if e.doc == focus.doc and e.start <= first and last <= e.end)
        excerpt = next(shown, None)
        if excerpt is None:
            start, end = max(0, first - _MARGIN), min(len(doc.tokens), last + _MARGIN)
            excerpt = _make_excerpt(docs, by_doc[focus.doc], focus.doc, start, end)
            excerpts.append(excerpt)
        excerpt.focuses.append(focus)
    return excerpts


def _group_by_doc(outcomes: Iterable[Outcome], docs: Iterable[int]) -> dict[int, list[Outcome]]:
    groups: dict[int, list[Outcome]] = {doc: [] for doc in docs}
    for outcome in outcomes:
        if outcome.doc in groups:
            groups[outcome.doc].append(outcome)
    return groups


def _mentions(docs: Sequence[DocEntities], outcomes: Iterable[Outcome]) -> list[Mention]:
    return [
        mentions[i]
        for o in outcomes
        for mentions, i in ((docs[o.doc].gold, o.gold), (docs[o.doc].predicted, o.predicted))
        if i is not None
    ]


def _find_tokens(doc: DocEntities, start: int, end: int) -> tuple[int, int]:
    """The first token, and the offset behind the last one, that have some characters."""
    first = int(numpy.searchsorted(doc.tokens[:, 1], start, "right"))
    return first, int(numpy.searchsorted(doc.tokens[:, 0], end, "left"))


def _make_excerpt(
    docs: Sequence[DocEntities],
    outcomes: Iterable[Outcome],
    doc: int,
    start: int,
    end: int,
) -> Excerpt:
    first, last = int(docs[doc].tokens[start, 0]), int(docs[doc].tokens[end - 1, 1])
    shown = [
        o
        for o in outcomes
        if any(a < last and first < b for m in _mentions(docs, [o]) for a, b in m.places)
    ]
    return Excerpt(doc, start, end, shown)


def _mention_to_dict(doc: DocEntities, mention: Mention) -> dict[str, Any]:
    return {
        "doc": doc.number,
        "label": mention.label,
        "spans": [list(place) for place in mention.places],
        "text": mention.surface,
        "score": round(mention.score, 6),
    }


def _to_plain(value: Any) -> Any:
    """A value in types that JSON has; what is not a number is null."""
    if isinstance(value, Group):
        scores = {"precision": value.precision, "recall": value.recall, "f1": value.f1}
        return _to_plain({**asdict(value), **scores})
    if is_dataclass(value):
        return {f.name: _to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, numpy.ndarray):
        return _to_plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: _to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if numpy.isfinite(value) else None
    return value
