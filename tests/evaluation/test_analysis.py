from collections import Counter
from typing import Any

import numpy
import pytest
import srsly
from hypothesis import given
from hypothesis import strategies as st

from spacy_mtlner.evaluation.analysis import (
    FLOOR,
    Analysis,
    Group,
    Score,
    analyse_entities,
    calibrate,
    categorise,
    count_confusion,
    count_groups,
    find_points,
    find_principal_components,
    match_entities,
    name_ranges,
)
from tests.evaluation.builders import LABELS, make_doc, make_docs


def kinds_of(doc: Any) -> set[tuple[str, str | None, str | None]]:
    """Kind, gold and predicted surface of each outcome."""
    return {
        (
            o.kind,
            None if o.gold is None else doc.gold[o.gold].surface,
            None if o.predicted is None else doc.predicted[o.predicted].surface,
        )
        for o in match_entities(doc)
    }


def test_kinds_of_outcomes() -> None:
    first, second, third = make_docs()
    assert kinds_of(first) == {
        ("right", "one two", "one two"),
        ("label", "three", "three"),
        ("boundary", "four … six", None),
        ("boundary", None, "four five six"),
        ("missed", "seven", None),
        # It overlaps an entity, but one that is matched already.
        ("spurious", None, "one"),
    }
    assert kinds_of(second) == {
        ("right", "alpha beta <b>&", "alpha beta <b>&"),
        ("missed", "beta", None),
        ("label and boundary", "$x_1$", None),
        ("label and boundary", None, '"gamma" $x_1$'),
    }
    assert kinds_of(third) == set()


def test_several_labels_of_one_span() -> None:
    """What is on both sides is right; of the others the best score is paired first."""
    span = (0, 1)
    doc = make_doc(
        "word",
        gold=[("A", span), ("B", span), ("C", span)],
        predicted=[(0.9, "A", span), (0.5, "D", span), (0.6, "E", span), (0.4, "F", span)],
    )
    pairs = {
        (o.kind, doc.gold[o.gold].label, doc.predicted[o.predicted].label)
        for o in match_entities(doc)
        if o.gold is not None and o.predicted is not None
    }
    assert pairs == {("right", "A", "A"), ("label", "B", "E"), ("label", "C", "D")}
    (rest,) = (o for o in match_entities(doc) if o.gold is None)
    assert (rest.kind, doc.predicted[rest.predicted or 0].label) == ("spurious", "F")


def test_gap_of_a_discontinuous_entity_is_no_overlap() -> None:
    doc = make_doc("a b c", gold=[("A", (0, 1), (2, 3))], predicted=[(0.5, "A", (1, 2))])
    assert kinds_of(doc) == {("missed", "a … c", None), ("spurious", None, "b")}


spans = st.sampled_from([((0, 1),), ((0, 2),), ((1, 3),), ((0, 1), (2, 4)), ((3, 5),)])
entities = st.sets(st.tuples(st.sampled_from("ABC"), spans), max_size=8)


@given(entities, entities)
def test_every_entity_is_counted_once(gold: set[Any], predicted: set[Any]) -> None:
    doc = make_doc(
        "v w x y z",
        gold=[(label, *places) for label, places in sorted(gold)],
        predicted=[(i / 10, label, *places) for i, (label, places) in enumerate(sorted(predicted))],
    )
    outcomes = match_entities(doc)
    assert sorted(o.gold for o in outcomes if o.gold is not None) == list(range(len(gold)))
    assert sorted(o.predicted for o in outcomes if o.predicted is not None) == list(
        range(len(predicted))
    )
    assert sum(o.kind == "right" for o in outcomes) == len(gold & predicted)
    confusion = count_confusion([doc], outcomes, "ABC")
    by_label = Counter(label for label, _ in gold)
    assert confusion.counts[:-1].sum(1).tolist() == [by_label[label] for label in "ABC"]
    by_label = Counter(label for label, _ in predicted)
    assert confusion.counts[:, :-1].sum(0).tolist() == [by_label[label] for label in "ABC"]
    assert confusion.counts[-1, -1] == 0
    # A gold entity has an error of boundaries if and only if there is a predicted one for it.
    kinds = [Counter(o.kind for o in outcomes if (o.gold is None) == x) for x in (True, False)]
    for kind in ("boundary", "label and boundary"):
        assert kinds[0][kind] + kinds[1][kind] == 0 or (kinds[0].total() and kinds[1].total())


def test_confusion_of_unknown_labels() -> None:
    doc = make_doc("a b", gold=[("new", (0, 1))], predicted=[(0.5, "A", (0, 1))])
    confusion = count_confusion([doc], match_entities(doc), ["A"])
    assert confusion.labels == ["A", "new"]
    assert confusion.counts.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_groups() -> None:
    docs = make_docs()
    outcomes = [o for i, doc in enumerate(docs) for o in match_entities(doc, i)]
    groups = {g.name: g for g in count_groups(docs, outcomes, lambda m: str(m.length))}
    assert groups["1"] == Group("1", gold=4, found=0, predicted=2, right=0)
    assert groups["2"] == Group("2", gold=2, found=1, predicted=2, right=1)
    assert groups["3"] == Group("3", gold=1, found=1, predicted=2, right=1)
    assert (groups["2"].precision, groups["2"].recall, groups["2"].f1) == (0.5, 0.5, 0.5)
    nothing = Group("x")
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    missed = Group("x", gold=2)
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)


def test_names_of_ranges() -> None:
    assert name_ranges((1, 2, 5)) == ["1", "2–4", "5+"]


def test_seen_and_frequency() -> None:
    docs = make_docs()
    surfaces = {
        "one two": Counter({"A": 3}),
        "three": Counter({"C": 60}),
        "alpha beta <b>&": Counter({"B": 1, "A": 1}),
    }
    analysis = analyse_entities(docs, labels=LABELS, surfaces=surfaces)
    seen = {g.name: (g.gold, g.found, g.predicted, g.right) for g in analysis.seen}
    assert seen == {
        "with this label": (2, 2, 3, 2),  # "three" is predicted with the label it has there.
        "with other labels only": (1, 0, 0, 0),
        "never": (4, 0, 3, 0),
    }
    frequency = {g.name: (g.gold, g.predicted) for g in analysis.training_frequency}
    assert frequency == {"0": (5, 3), "1": (1, 1), "2–4": (1, 1), "50+": (0, 1)}
    assert {g.name: g.train for g in analysis.labels} == {"A": 4, "B": 1, "C": 60}


def test_calibration() -> None:
    scores = numpy.array([0.0, 0.1, 0.15, 0.95, 1.0, 1.0])
    calibration = calibrate(scores, numpy.array([False, False, True, True, True, False]))
    assert calibration is not None
    assert calibration.counts.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert calibration.scores[[0, 1, 9]] == pytest.approx([0.05, 0.15, 2.95 / 3])
    assert calibration.precision[[0, 1, 9]] == pytest.approx([0, 1, 2 / 3])
    gaps = [0.05, 0.85, 2.95 / 3 - 2 / 3]
    assert calibration.error == pytest.approx((2 * gaps[0] + gaps[1] + 3 * gaps[2]) / 6)
    assert calibration.largest_error == pytest.approx(0.85)
    # Wilson's interval of 2 in 3, as in the tables.
    assert (calibration.low[9], calibration.high[9]) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert calibrate(numpy.zeros(0), numpy.zeros(0, dtype=bool)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_calibration_holds_all_scores(scores: list[float]) -> None:
    calibration = calibrate(numpy.array(scores), numpy.ones(len(scores), dtype=bool))
    assert calibration is not None
    assert calibration.counts.sum() == len(scores)
    assert calibration.error == pytest.approx(1 - numpy.mean(scores))
    filled = calibration.counts > 0
    edges = calibration.edges
    assert (calibration.scores[filled] >= edges[:-1][filled] - 1e-9).all()
    assert (calibration.scores[filled] <= edges[1:][filled] + 1e-9).all()


def test_points() -> None:
    docs = make_docs()
    outcomes = [o for i, doc in enumerate(docs) for o in match_entities(doc, i)]
    points = find_points(docs, outcomes, LABELS)
    assert points is not None
    assert points.n_unaligned == 1
    assert points.outcomes == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert points.gold == ["A", "B", "C", "A", "B", "A"]
    assert points.is_right.tolist() == [True, False, False, False, True, False]
    assert points.true == pytest.approx([0.9, 0.2, 0, 0.3, 0.6, 0.8])
    # Given out: A, C, nothing, nothing, B, nothing.
    assert points.output == pytest.approx([0.9, 0.7, 1, 0.7, 0.6, 0.1])
    expected = numpy.log10([1, 3.5, 1 / FLOOR, 7 / 3, 1, 1 / 8])
    assert points.ratio == pytest.approx(expected)
    assert points.category == ["stable", "up", "up", "up", "stable", "down"]
    assert points.n_floored == 1
    assert points.desire[1] == pytest.approx(numpy.var([0, 0.2, 0.7, 0.1]) / 0.2)
    assert points.components.shape == (6, 2)


def test_points_of_a_label_that_the_model_does_not_know() -> None:
    doc = make_doc("a", gold=[("new", (0, 1))], probabilities=[[0.75, 0.25]])
    points = find_points([doc], match_entities(doc), ["A"])
    assert points is not None
    assert (points.true.tolist(), points.output.tolist()) == ([0], [0.25])
    assert points.category == ["up"]


def test_best_output_of_a_span_with_several_labels() -> None:
    span = (0, 1)
    doc = make_doc(
        "a",
        gold=[("A", span), ("B", span)],
        predicted=[(0.6, "C", span), (0.9, "A", span)],
        probabilities=[[0.6, 0.1, 0.25, 0.05]] * 2,
    )
    points = find_points([doc], match_entities(doc), LABELS)
    assert points is not None
    assert points.output == pytest.approx([0.6, 0.6])
    assert points.category == ["stable", "up"]


def test_categories() -> None:
    assert [categorise(x) for x in (-1, -1e-9, 0.0, 1e-9, 0.1)] == [
        "down",
        "stable",
        "stable",
        "stable",
        "up",
    ]


def test_principal_components_are_those_of_the_covariance() -> None:
    x = numpy.random.default_rng(0).dirichlet([0.3, 1, 2, 0.5], 50)
    components, corners, explained = find_principal_components(x)
    values, vectors = numpy.linalg.eigh(numpy.cov(x.T))
    order = values.argsort()[::-1][:2]
    expected = (x - x.mean(0)) @ vectors[:, order]
    assert abs(components) == pytest.approx(abs(expected))
    assert explained == pytest.approx(values[order] / values.sum())
    # A point of certainty lies on its corner.
    certain = numpy.vstack([x, numpy.eye(4)])
    components, corners, _ = find_principal_components(certain)
    assert components[-4:] == pytest.approx(corners)


@pytest.mark.parametrize(
    "x", [[[1.0, 0.0]], [[0.3, 0.7], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]], ids=str
)
def test_principal_components_of_few_dimensions(x: list[list[float]]) -> None:
    components, corners, explained = find_principal_components(numpy.array(x))
    assert components.shape == (len(x), 2) and corners.shape == (2, 2)
    assert not components[:, 1].any()
    assert explained[1] == pytest.approx(0)
    assert numpy.isfinite(components).all()


def analyse(**settings: Any) -> Analysis:
    return analyse_entities(make_docs(), labels=LABELS, **settings)


def test_counts() -> None:
    analysis = analyse()
    assert analysis.total == Group("all", gold=7, found=2, predicted=6, right=2)
    assert [g.name for g in analysis.labels] == ["A", "B", "C"]
    assert analysis.kinds == {
        "right": (2, 2),
        "label": (1, 1),
        "boundary": (1, 1),
        "label and boundary": (1, 1),
        "missed": (2, 0),
        "spurious": (0, 1),
    }
    assert set(analysis.left_out) == {"training_frequency", "seen", "loss"}


def test_lists_of_examples() -> None:
    analysis = analyse()
    docs = analysis.docs

    def names(excerpts: Any, side: str) -> list[list[str]]:
        return [
            [getattr(docs[e.doc], side)[getattr(o, side)].surface for o in e.focuses]
            for e in excerpts
        ]

    # Texts with several errors are shown once.
    assert names(analysis.confident_errors, "predicted") == [
        ["one", "three", "four five six"],
        ['"gamma" $x_1$'],
    ]
    # What has a probability of 0 comes last; what has none is not there.
    assert names(analysis.unlikely_gold, "gold") == [["three", "seven", "four … six"], ["beta"]]
    assert [e.doc for e in analysis.complex_texts] == [0, 1]
    assert [len(e.outcomes) for e in analysis.complex_texts] == [6, 4]
    few = analyse(n_examples=1)
    assert names(few.confident_errors, "predicted") == [["one"]]
    assert [e.doc for e in few.complex_texts] == [0]
    none = analyse(n_examples=0)
    assert not none.confident_errors and not none.unlikely_gold and not none.complex_texts


def test_excerpts_of_long_texts_are_cut() -> None:
    words = [f"w{i}" for i in range(300)]
    doc = make_doc(
        " ".join(words),
        gold=[("A", (0, 1)), ("A", (100, 103)), ("A", (101, 102))],
        predicted=[(0.9, "A", (150, 151)), (0.8, "A", (299, 300))],
    )
    analysis = analyse_entities([doc], labels=["A"])
    places = [(e.start, e.end, len(e.outcomes)) for e in analysis.confident_errors]
    assert places == [(125, 176, 1), (274, 300, 1)]
    (text,) = analysis.complex_texts
    assert (text.start, text.end) == (75, 128)  # The nested ones, not all entities.


@pytest.mark.parametrize("at_once", [2**22, 40])
def test_bootstrap_interval(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against corpora that are drawn doc by doc."""
    monkeypatch.setattr("spacy_mtlner.evaluation.analysis._SAMPLED_AT_ONCE", at_once)
    a, b = ("A", (0, 1)), ("A", (1, 2))
    docs = [
        *[make_doc("a b", gold=[a], predicted=[(0.5, *a)])] * 12,
        *[make_doc("a b", gold=[a, b], predicted=[(0.5, *b)])] * 9,
        *[make_doc("a b", gold=[b], predicted=[(0.5, *a)])] * 6,
        *[make_doc("a b")] * 8,
    ]
    analysis = analyse_entities(docs, labels=["A"])
    assert analysis.score.interval is not None
    low, high = analysis.score.interval
    table = numpy.array([(1, 2)] * 12 + [(1, 3)] * 9 + [(0, 2)] * 6 + [(0, 0)] * 8)
    drawn = numpy.random.default_rng(1).integers(len(docs), size=(20_000, len(docs)))
    right, both = table[drawn].sum(1).T
    assert [low, high] == pytest.approx(numpy.quantile(2 * right / both, [0.025, 0.975]), abs=0.03)
    assert low < (analysis.score.value or 0) < high
    assert analysis.score.value == pytest.approx(analysis.total.f1)
    assert analysis.score == analyse_entities(docs, labels=["A"]).score


def test_bootstrap_interval_of_what_is_alike() -> None:
    right = make_doc("a", gold=[("A", (0, 1))], predicted=[(0.5, "A", (0, 1))])
    analysis = analyse_entities([right] * 3, labels=["A"])
    assert analysis.score == Score("F1", 1.0, (1.0, 1.0))
    # Few docs with entities: some samples have none, and no F1.
    analysis = analyse_entities([right, *[make_doc("b")] * 4], labels=["A"])
    assert analysis.score == Score("F1", 1.0, (1.0, 1.0))


def test_accuracy_of_typing() -> None:
    """As `score_typing` counts: fragments of several labels are right with any of them."""
    doc = make_doc(
        "a b c d",
        gold=[("A", (0, 1)), ("B", (0, 1)), ("A", (1, 2)), ("B", (2, 3)), ("A", (3, 4))],
        predicted=[(0.9, "B", (0, 1)), (0.8, "A", (1, 2)), (0.7, "A", (2, 3))],
    )
    docs = [doc, make_doc("b")]
    analysis = analyse_entities(docs, labels=["A", "B"], is_typing=True)
    assert analysis.is_typing and analysis.score == Score("accuracy", 0.5, (0.5, 0.5))
    assert analysis.kinds["label"] == (1, 1) and analysis.kinds["missed"] == (2, 0)
    assert analysis.to_dict()["score"] == {"name": "accuracy", "value": 0.5, "interval": [0.5, 0.5]}
    nothing = analyse_entities([make_doc("b")], labels=["A"], is_typing=True)
    assert nothing.score == Score("accuracy", None, None)


def test_nothing_at_all() -> None:
    analysis = analyse_entities([make_doc("no entity")], labels=["A"])
    assert analysis.total == Group("all")
    assert analysis.score == Score("F1", None, None)
    assert set(analysis.left_out) == {
        *("confusion", "entity_length", "sentence_length", "training_frequency", "seen"),
        *("calibration", "pca", "true_probability", "discrepancy", "loss"),
    }
    srsly.json_dumps(analysis.to_dict())


def test_no_gold_and_no_predictions() -> None:
    no_gold = analyse_entities(
        [make_doc("a", predicted=[(0.5, "A", (0, 1))], probabilities=numpy.zeros((0, 2)))],
        labels=["A"],
    )
    assert "pca" in no_gold.left_out and "calibration" not in no_gold.left_out
    assert no_gold.total.recall is None and no_gold.total.precision == 0
    no_predictions = analyse_entities(
        [make_doc("a", gold=[("A", (0, 1))], probabilities=[[0.4, 0.6]])], labels=["A"]
    )
    assert no_predictions.left_out["calibration"] == "There are no predicted entities."
    assert "pca" not in no_predictions.left_out


def test_reason_for_no_probabilities() -> None:
    doc = make_doc("a", gold=[("A", (0, 1))])
    analysis = analyse_entities([doc], labels=["A"], why_no_probabilities="It is so.")
    assert analysis.left_out["pca"] == analysis.left_out["discrepancy"] == "It is so."
    assert not analysis.unlikely_gold


def test_dict_is_json_and_complete() -> None:
    found = srsly.json_loads(srsly.json_dumps(analyse().to_dict()))
    assert found["total"]["f1"] == pytest.approx(4 / 13, abs=1e-6)
    points = found["points"]
    n = len(points["entities"])
    assert n == 6
    for name in ("is_right", "true", "output", "components", "ratio", "desire", "category"):
        assert len(points[name]) == n
    assert points["classes"] == ["A", "B", "C", None]
    assert points["entities"][2] == {
        "doc": 1,
        "label": "C",
        "spans": [[14, 18], [24, 27]],
        "text": "four … six",
        "score": 1.0,
    }
    assert [e["kind"] for e in found["confident_errors"]] == [
        *("spurious", "label", "boundary"),
        "label and boundary",
    ]
    assert found["calibration"]["precision"][0] is None
