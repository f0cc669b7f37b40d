"""The entity scorer against hand-computed values, brute force and spaCy's scorer."""

import json
import warnings
from itertools import chain

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_mtlner.entities import Entity, select_flat, write_entities, write_ents, write_unknown
from spacy_mtlner.scoring import (
    SUBSETS,
    compare_entities,
    make_entity_scorer,
    score_entities,
    score_typing,
    typing_score_names,
)

KEY = "task"
PRF = ("p", "r", "f")


def make_doc(words: list[str] | int, entities: list[Entity] | None = None, vocab=None) -> Doc:
    """A doc whose words are not separated; without the key if there is no list of entities."""
    words = [chr(ord("a") + i) for i in range(words)] if isinstance(words, int) else words
    doc = Doc(Vocab() if vocab is None else vocab, words=words, spaces=[False] * len(words))
    if entities is not None:
        write_entities(doc, entities, KEY)
    return doc


def make_example(predicted, gold, n_tokens: int = 10) -> Example:
    vocab = Vocab()
    return Example(make_doc(n_tokens, predicted, vocab), make_doc(n_tokens, gold, vocab))


def score(examples: list[Example], **settings) -> dict:
    return score_entities(examples, spans_key=KEY, **settings)


def prf(tp: int, n_predicted: int, n_gold: int) -> tuple[float, float, float]:
    p = tp / n_predicted if n_predicted else 0.0
    r = tp / n_gold if n_gold else 0.0
    return p, r, 2 * p * r / (p + r) if tp else 0.0


def get(scores: dict, name: str = "") -> tuple[float, ...]:
    infix = f"{name}_" if name else ""
    return tuple(scores[f"spans_{KEY}_{infix}{x}"] for x in PRF)


@st.composite
def entity_lists(draw: st.DrawFn, n_tokens: int = 10) -> list[Entity]:
    bounds = st.lists(st.integers(0, n_tokens), min_size=2, max_size=4, unique=True)
    entities = []
    for _ in range(draw(st.integers(0, 5))):
        places = sorted(draw(bounds))
        places = places[: len(places) // 2 * 2]
        fragments = tuple(zip(places[::2], places[1::2], strict=True))
        entities.append(Entity(draw(st.sampled_from("AB")), fragments))
    return entities


A, B, DISCONTINUOUS = Entity("A", ((0, 2),)), Entity("B", ((3, 5),)), Entity("A", ((6, 7), (8, 9)))


def test_keys():
    scores = score([make_example([A], [A])])
    names = ["", *(f"{name}_" for name in SUBSETS)]
    expected = {f"spans_{KEY}_{name}{x}" for name in names for x in PRF}
    assert set(scores) == expected | {f"spans_{KEY}_per_type"}
    assert make_entity_scorer() is score_entities


def test_by_hand():
    outer, inner = Entity("A", ((0, 5),)), Entity("B", ((1, 3),))
    wrong_label = Entity("B", ((6, 7), (8, 9)))
    scores = score(
        [
            # Gold: outer and inner are nested, one is discontinuous. Found: outer alone, hence
            # flat; a discontinuous one with a wrong label.
            make_example([outer, wrong_label], [outer, inner, DISCONTINUOUS]),
            # Two flat ones, one of them found, and a false one.
            make_example([A, Entity("A", ((7, 8),))], [A, B]),
            make_example([], None),
            make_example([A], None),
            make_example([], []),
        ]
    )
    assert get(scores) == pytest.approx(prf(2, 4, 5))
    assert get(scores, "boundary") == pytest.approx(prf(3, 4, 5))
    assert get(scores, "discontinuous") == pytest.approx(prf(0, 1, 1))
    assert get(scores, "nested") == pytest.approx(prf(0, 0, 2))
    assert get(scores, "flat") == pytest.approx(prf(1, 3, 2))
    assert scores[f"spans_{KEY}_per_type"] == {
        "A": dict(zip(PRF, pytest.approx(prf(2, 3, 3)).expected, strict=True)),
        "B": dict(zip(PRF, prf(0, 1, 2), strict=True)),
    }


def test_a_fragment_more_is_wrong():
    scores = score([make_example([Entity("A", ((6, 7),))], [DISCONTINUOUS])])
    assert get(scores) == get(scores, "boundary") == (0.0, 0.0, 0.0)
    assert get(score([make_example([DISCONTINUOUS], [DISCONTINUOUS])])) == (1.0, 1.0, 1.0)


@given(st.lists(st.tuples(entity_lists(), entity_lists()), max_size=3))
@settings(max_examples=100, deadline=None)
def test_subsets(cases):
    def overlap(a: Entity, b: Entity) -> bool:
        return a.start < b.end and b.start < a.end

    def split(entities: list[Entity]) -> dict[str, set]:
        unique = set(entities)
        parts = {
            "": unique,
            "boundary": {e.fragments for e in unique},
            "discontinuous": {e for e in unique if len(e.fragments) > 1},
            "nested": {e for e in unique if any(overlap(e, o) for o in unique - {e})},
        }
        return parts | {"flat": unique - parts["discontinuous"] - parts["nested"]}

    scores = score([make_example(*case) for case in cases])
    for name in ("", *SUBSETS):
        if not cases:
            assert get(scores, name) == (None, None, None)
            continue
        pairs = [(split(predicted)[name], split(gold)[name]) for predicted, gold in cases]
        tp = sum(len(predicted & gold) for predicted, gold in pairs)
        n_predicted, n_gold = (sum(map(len, part)) for part in zip(*pairs, strict=True))
        assert get(scores, name) == pytest.approx(prf(tp, n_predicted, n_gold))


def test_typing_by_hand():
    place = Entity("B", DISCONTINUOUS.fragments)
    examples = [
        make_example([A, place], [A, B, DISCONTINUOUS]),  # One right, one missing, one wrong.
        make_example([Entity("A", B.fragments)], [B, Entity("A", B.fragments)]),  # One of two.
        make_example([A], None),
        make_example([Entity("C", ((1, 3),))], []),  # No gold boundary: it counts nowhere.
    ]
    scores = score_entities(examples, spans_key=KEY, typing=True)
    assert scores.keys() == {*typing_score_names(KEY), f"typing_{KEY}_per_type"}
    assert scores[f"typing_{KEY}_acc"] == 2 / 4
    per_type = scores[f"typing_{KEY}_per_type"]
    assert {label: tuple(per_type[label][name] for name in PRF) for label in per_type} == {
        "A": pytest.approx(prf(2, 2, 3)),
        "B": pytest.approx(prf(0, 1, 2)),
    }
    assert scores[f"typing_{KEY}_macro_f"] == pytest.approx((prf(2, 2, 3)[2] + 0) / 2)


def test_typing_without_annotation_or_entities():
    assert set(score_typing([make_example([A], None)], spans_key=KEY).values()) == {None}
    scores = score_typing([make_example([], [])], spans_key=KEY)
    assert scores == {
        f"typing_{KEY}_acc": 0.0,
        f"typing_{KEY}_macro_f": 0.0,
        f"typing_{KEY}_per_type": {},
    }


def test_not_annotated():
    scores = score([make_example([A], None), make_example(None, None)])
    assert set(scores.values()) == {None}
    assert set(score([]).values()) == {None}


def test_annotated_without_entities():
    scores = score([make_example(None, []), make_example([A], None)])
    assert scores.pop(f"spans_{KEY}_per_type") == {}
    assert set(scores.values()) == {0.0}
    assert all(type(value) is float for value in scores.values())


def test_empty_docs():
    scores = score([make_example([], [], n_tokens=0), make_example([A], [A])])
    assert get(scores) == (1.0, 1.0, 1.0)
    assert get(score([make_example([], [], n_tokens=0)])) == (0.0, 0.0, 0.0)


def test_duplicates_count_once():
    assert get(score([make_example([A, A], [A, B])])) == pytest.approx(prf(1, 1, 2))


def test_gold_ents():
    eg = make_example([A, B], None)
    write_ents(eg.reference, [A])
    not_annotated = make_example([A], None)
    scores = score([eg, not_annotated], gold_source="ents")
    assert get(scores) == pytest.approx(prf(1, 2, 1))
    assert set(score([not_annotated], gold_source="ents").values()) == {None}
    assert set(score([eg]).values()) == {None}
    assert get(score([make_example([], None, n_tokens=0)], gold_source="ents")) == (0.0, 0.0, 0.0)


@given(entity_lists(), st.sets(st.integers(0, 9)), entity_lists())
@settings(max_examples=60, deadline=None)
def test_partial_ents_as_in_spacy(predicted, unknown, gold):
    """Predictions on tokens without annotation are neither right nor wrong."""
    eg = make_example(None, None)
    flat_gold = select_flat(gold)
    eg.reference.set_ents(
        [Span(eg.reference, e.start, e.end, e.label) for e in flat_gold],
        missing=[
            Span(eg.reference, i, i + 1)
            for i in unknown
            if not any(e.start <= i < e.end for e in flat_gold)
        ],
        default="outside",
    )
    write_ents(eg.predicted, predicted)
    write_entities(eg.predicted, select_flat(predicted), KEY)
    scores = score([eg], gold_source="ents", annotate_ents=True)
    if scores["ents_f"] is not None:  # None where there is neither gold nor prediction.
        assert get(scores) == pytest.approx(tuple(scores[f"ents_{x}"] for x in PRF))


def test_partial_ents_in_other_tokens():
    vocab = Vocab()
    x = make_doc(["ab", "c", "d"], [Entity("A", ((0, 1),)), Entity("A", ((1, 2),))], vocab)
    y = make_doc(["a", "b", "cd"], None, vocab)
    y.set_ents([], missing=[y[1:2]], default="outside")
    assert get(score([Example(x, y)], gold_source="ents")) == prf(0, 1, 0)
    assert score([Example(x, y)], gold_source="ents")[f"spans_{KEY}_per_type"].keys() == {"A"}
    y.set_ents([], outside=[y[1:2]], default="missing")
    assert score([Example(x, y)], gold_source="ents")[f"spans_{KEY}_per_type"] == {}


@given(entity_lists(), st.sets(st.integers(0, 9)), entity_lists())
@settings(max_examples=60, deadline=None)
def test_unknown_tokens_count_alike_in_spans_and_ents(predicted, unknown, gold):
    flat = select_flat(gold)
    open_tokens = [i for i in sorted(unknown) if not any(e.start <= i < e.end for e in flat)]
    eg = make_example(select_flat(predicted), flat)
    write_ents(eg.reference, flat, missing=open_tokens)
    write_unknown(eg.reference, open_tokens, KEY)
    if len(open_tokens) < 10:  # Else nothing is annotated in doc.ents.
        assert score([eg]) == score([eg], gold_source="ents")


def test_gold_in_the_other_place_is_found_where_it_is_not_fixed():
    eg = make_example([A, B], None)
    write_ents(eg.reference, [A])
    assert get(score([eg], gold="auto")) == prf(1, 2, 1)
    with pytest.warns(UserWarning, match=r"none of the 1 docs .* keys: none; doc\.ents is annot"):
        assert set(score([eg], gold="spans").values()) == {None}
    eg = make_example([A, B], [B])
    assert get(score([eg], gold_source="ents", gold="auto")) == prf(1, 2, 1)
    write_ents(eg.reference, [A])  # As in training, where both are there.
    write_entities(eg.reference, [], KEY)
    assert get(score([eg], gold_source="ents", gold="auto")) == prf(1, 2, 1)
    assert get(score([eg], gold="auto")) == prf(0, 2, 0)


def test_warns_where_nothing_is_annotated():
    eg = make_example([A], None)
    eg.reference.spans["other"] = []
    with pytest.warns(UserWarning, match=r"'task'.*: none .* keys: 'other'; doc\.ents is not"):
        score([eg], gold="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(score([]).values()) == {None}


def test_annotate_ents():
    eg = make_example([A], [A])
    write_ents(eg.reference, [A])
    write_ents(eg.predicted, [A, B])
    scores = score([eg], annotate_ents=True, labels=("A", "B"), threshold=0.5)
    assert tuple(scores[f"ents_{x}"] for x in PRF) == pytest.approx(prf(1, 2, 1))
    assert set(scores["ents_per_type"]) == {"A", "B"}
    assert "ents_f" not in score([eg])


@pytest.mark.parametrize(
    ("words", "predicted", "expected"),
    [
        # Gold: "b" and "cd" of "a b cd".
        (["a", "b", "c", "d"], [((1, 2),), ((2, 4),)], (2, 2, 2)),
        (["a", "b", "cd"], [((1, 2),), ((2, 3),)], (2, 2, 2)),
        (["ab", "cd"], [((0, 1),), ((1, 2),)], (1, 2, 2)),  # "b" cannot be expressed: missed.
        (["ab", "cd"], [((1, 2),)], (1, 1, 2)),
        (["a", "bc", "d"], [((1, 2),)], (0, 1, 2)),
        (["abcd"], [], (0, 0, 2)),
    ],
)
def test_other_tokens(words, predicted, expected):
    vocab = Vocab()
    gold = [Entity("A", ((1, 2),)), Entity("A", ((2, 3),))]
    x = make_doc(words, [Entity("A", fragments) for fragments in predicted], vocab)
    y = make_doc(["a", "b", "cd"], gold, vocab)
    assert get(score([Example(x, y)])) == pytest.approx(prf(*expected))


def test_fragments_that_touch_in_characters_only():
    """No merging by tokens: two fragments around white space are not one over it."""
    vocab = Vocab()
    gold = make_doc(["a", " ", "b"], [Entity("A", ((0, 1), (2, 3)))], vocab)
    same = make_doc(["a", " ", "b"], [Entity("A", ((0, 1), (2, 3)))], vocab)
    whole = make_doc(["a", " ", "b"], [Entity("A", ((0, 3),))], vocab)
    assert get(score([Example(same, gold)])) == (1.0, 1.0, 1.0)
    assert get(score([Example(whole, gold)])) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("spaces", [[True, True, False], [True, False, False]])
def test_other_white_space(spaces):
    vocab = Vocab()
    entities = [Entity("A", ((0, 1),)), Entity("B", ((1, 3),)), Entity("A", ((0, 1), (2, 3)))]
    x = Doc(vocab, words=["ab", "\n", "c", "de"], spaces=[False, False, True, True])
    shifted = [Entity("A", ((0, 1),)), Entity("B", ((2, 4),)), Entity("A", ((0, 1), (2, 3)))]
    y = Doc(vocab, words=["ab", "c", "de"], spaces=spaces)
    write_entities(x, shifted, KEY)
    write_entities(y, entities, KEY)
    assert x.text != y.text
    assert get(score([Example(x, y)])) == pytest.approx(prf(2, 3, 3))


def spacy_scores(examples: list[Example]) -> dict:
    return Scorer.score_spans(
        examples,
        f"spans_{KEY}",
        getter=lambda doc, _: doc.spans.get(KEY, []),
        has_annotation=lambda doc: KEY in doc.spans,
        allow_overlap=True,
    )


def assert_equal_to_spacy(examples: list[Example]) -> None:
    ours, theirs = score(examples), spacy_scores(examples)
    if get(theirs) == (None, None, None):  # Annotated, but neither gold nor prediction.
        assert get(ours) == (0.0, 0.0, 0.0)
        return
    assert get(ours) == pytest.approx(get(theirs))
    per_type = theirs[f"spans_{KEY}_per_type"]
    assert {k: pytest.approx(v) for k, v in per_type.items()} == ours[f"spans_{KEY}_per_type"]


@given(st.lists(st.tuples(entity_lists(), st.none() | entity_lists()), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_equal_to_spacy(cases):
    def contiguous(entities: list[Entity] | None) -> list[Entity] | None:
        if entities is None:
            return None
        return sorted({Entity(e.label, ((e.start, e.end),)) for e in entities}, key=repr)

    examples = [make_example(contiguous(x), contiguous(y)) for x, y in cases]
    if any(KEY in eg.reference.spans for eg in examples):
        assert_equal_to_spacy(examples)
    else:
        assert set(score(examples).values()) == {None}


def test_equal_to_spacy_on_cluener(data_dir):
    path = data_dir / "cluener" / "dev.json"
    nlp = spacy.blank("zh")
    examples = []
    for i, line in enumerate(path.read_text(encoding="utf8").splitlines()[:300]):
        record = json.loads(line)
        gold = {
            Entity(label, ((start, last + 1),))
            for label, surfaces in record["label"].items()
            for start, last in chain.from_iterable(surfaces.values())
        }
        ordered = sorted(gold, key=lambda e: (e.fragments, e.label))
        # A poor prediction: some entities are lost, some too long, some of another label.
        predicted = []
        for j, e in enumerate(ordered):
            if (i + j) % 5 == 1:
                predicted.append(Entity("name", e.fragments))
            elif (i + j) % 5 == 2:
                predicted.append(Entity(e.label, ((max(0, e.start - 1), e.end),)))
            elif (i + j) % 5 > 2:
                predicted.append(e)
        x, y = nlp.make_doc(record["text"]), nlp.make_doc(record["text"])
        assert len(x) == len(record["text"])
        write_entities(x, predicted, KEY)
        write_entities(y, ordered, KEY)
        examples.append(Example(x, y))
    assert_equal_to_spacy(examples)
    assert 0.4 < score(examples)[f"spans_{KEY}_f"] < 0.7


def test_compared_entities():
    gold, predicted = [Entity("A", ((0, 2),))], [Entity("A", ((0, 2),), 0.5)]
    compared = compare_entities(make_example(predicted, gold), spans_key=KEY)
    assert compared is not None
    (key,) = compared.gold
    assert key in compared.predicted and compared.predicted[key].score == 0.5
    assert compare_entities(make_example(predicted, None), spans_key=KEY) is None
    assert compare_entities(make_example([], []), spans_key=KEY) == ({}, {})


def test_tokens_of_gold_entities_are_known():
    """As in training: of a token that was split, one part may begin an entity."""
    gold = [Entity("X", ((0, 2),))]
    for predicted, right in ((gold, 1.0), ([Entity("X", ((0, 1),))], 0.0)):
        eg = make_example([*predicted, Entity("X", ((2, 3),))], gold)
        write_unknown(eg.reference, [1, 2], KEY)
        assert get(score([eg])) == (right, right, right)
