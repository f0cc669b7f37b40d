"""Entities on docs: validation, storage and alignment."""

import pickle
from itertools import pairwise

import numpy
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span, SpanGroup
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_mtlner.entities import (
    Entity,
    TokenMap,
    align_entities,
    find_inside,
    merge_touching,
    read_entities,
    read_ents,
    read_fragments,
    select_flat,
    strip_spaces,
    write_entities,
    write_ents,
)

LABELS = ("A", "B")
VOCAB = spacy.blank("en").vocab  # Knows what white space is.


def make_doc(n_tokens: int, vocab: Vocab | None = None) -> Doc:
    return Doc(Vocab() if vocab is None else vocab, words=[f"w{i}" for i in range(n_tokens)])


def scored(entities: list[Entity]) -> list[tuple[Entity, float]]:
    """Entities with their scores, which take no part in comparisons."""
    return [(entity, entity.score) for entity in entities]


@st.composite
def entity_lists(draw: st.DrawFn, n_tokens: int, max_size: int = 6) -> list[Entity]:
    """Any entities: nested, overlapping, repeated, discontinuous ones next to each other."""
    bounds = st.lists(
        st.integers(0, n_tokens), min_size=2, max_size=min(6, n_tokens + 1), unique=True
    )
    entities = []
    for _ in range(draw(st.integers(0, max_size))):
        places = sorted(draw(bounds))
        places = places[: len(places) // 2 * 2]
        fragments = tuple(zip(places[::2], places[1::2], strict=True))
        score = draw(st.floats(0, 1, width=32))
        entities.append(Entity(draw(st.sampled_from(LABELS)), fragments, score))
    return entities


@st.composite
def annotated_docs(draw: st.DrawFn) -> tuple[Doc, list[Entity]]:
    n_tokens = draw(st.integers(0, 8))
    entities = draw(entity_lists(n_tokens)) if n_tokens else []
    doc = make_doc(n_tokens)
    write_entities(doc, entities)
    return doc, entities


# The data type.


@pytest.mark.parametrize(
    ("label", "fragments", "score", "message"),
    [
        ("", [(0, 1)], 1.0, "label must be a non-empty string, not ''"),
        (None, [(0, 1)], 1.0, "label must be a non-empty string, not None"),
        ("A", [], 1.0, "at least one fragment"),
        ("A", (0, 1), 1.0, r"must be \(start, end\) pairs of integers, not \(0, 1\)"),
        ("A", None, 1.0, "pairs of integers, not None"),
        ("A", ((0.9, 2.7),), 1.0, "pairs of integers"),
        ("A", [(0, 1, 2)], 1.0, "pairs"),
        ("A", [(-1, 1)], 1.0, r"Fragment \(-1, 1\) .* is not valid"),
        ("A", [(2, 2)], 1.0, r"Fragment \(2, 2\) .* \(an end is exclusive"),
        ("A", [(3, 2)], 1.0, r"Fragment \(3, 2\)"),
        ("A", [(3, 4), (0, 1)], 1.0, r"must be sorted .* \(0, 1\) begins at or before 4"),
        ("A", [(0, 2), (2, 3)], 1.0, r"neither overlap nor touch: \(2, 3\) .* before 2"),
        ("A", [(0, 3), (2, 4)], 1.0, "neither overlap nor touch"),
        ("A", [(0, 1)], -0.1, r"score .* must be in \[0, 1\]"),
        ("A", [(0, 1)], 1.1, r"score .* must be in \[0, 1\]"),
        ("A", [(0, 1)], float("nan"), r"score .* must be in \[0, 1\]"),
    ],
)
def test_invalid_entity(label, fragments, score, message):
    with pytest.raises(ValueError, match=message):
        Entity(label, fragments, score)


def test_entity():
    entity = Entity("A", [[numpy.int64(1), 2], [3, 5]], 0.5)
    assert entity.fragments == ((1, 2), (3, 5))
    assert (entity.start, entity.end, entity.is_contiguous) == (1, 5, False)
    assert entity == Entity("A", ((1, 2), (3, 5)), 0.7)
    assert hash(entity) == hash(Entity("A", ((1, 2), (3, 5)), 0.7))
    assert entity != Entity("A", ((1, 2), (3, 4)))
    assert Entity("A", ((1, 2),)).is_contiguous


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=5))
def test_merge_touching(places):
    fragments = [(start, start + size) for start, size in places]
    merged = merge_touching(fragments)
    assert {i for start, end in merged for i in range(start, end)} == {
        i for start, end in fragments for i in range(start, end)
    }
    assert all(a[1] < b[0] for a, b in pairwise(merged))


# Storage.


@given(annotated_docs())
@settings(max_examples=60, deadline=None)
def test_write_and_read(annotated):
    doc, entities = annotated
    assert scored(read_entities(doc)) == scored(entities)
    assert scored(doc._.entities) == scored(entities)
    for span in doc.spans["mtlner"]:
        assert isinstance(span.id_, str)
    assert len(doc.spans["mtlner"]) == sum(len(e.fragments) for e in entities)


def by_doc_bin(store_user_data):
    def convert(doc: Doc) -> Doc:
        data = DocBin(docs=[doc], store_user_data=store_user_data).to_bytes()
        return next(iter(DocBin().from_bytes(data).get_docs(Vocab())))

    return convert


def by_example(doc: Doc) -> Doc:
    return Example(make_doc(len(doc), doc.vocab), doc).copy().reference


ROUTES = {
    "DocBin": by_doc_bin(False),
    "DocBin with user data": by_doc_bin(True),
    "bytes": lambda doc: Doc(Vocab()).from_bytes(doc.to_bytes()),
    "pickle": lambda doc: pickle.loads(pickle.dumps(doc)),
    "copy": lambda doc: doc.copy(),
    "Example.copy": by_example,
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=[*ROUTES])
@given(annotated_docs())
@settings(max_examples=25, deadline=None)
def test_routes(route, annotated):
    doc, entities = annotated
    other = route(doc)
    assert "mtlner" in other.spans
    assert scored(read_entities(other)) == scored(entities)


@pytest.mark.parametrize("store_user_data", [False, True])
def test_several_docs_in_a_file(tmp_path, store_user_data):
    docs = [make_doc(4), make_doc(0), make_doc(4), make_doc(4)]
    entities = [Entity("A", ((0, 1), (2, 3)), 0.25), Entity("A", ((0, 1), (3, 4)), 0.5)]
    for doc, own in zip(docs, (entities, [], [], entities[1:]), strict=True):
        write_entities(doc, own, "one")
        write_entities(doc, own[:1], "two")
    del docs[2].spans["two"]
    DocBin(docs=docs, store_user_data=store_user_data).to_disk(tmp_path / "x.spacy")
    read = [*DocBin().from_disk(tmp_path / "x.spacy").get_docs(Vocab())]
    assert [read_entities(doc, "one") for doc in read] == [entities, [], [], entities[1:]]
    assert [read_entities(doc, "two") for doc in read] == [entities[:1], [], [], entities[1:]]
    assert ["two" in doc.spans for doc in read] == [True, True, False, True]
    docs[0].to_disk(tmp_path / "doc")
    read_doc = Doc(Vocab()).from_disk(tmp_path / "doc")
    assert scored(read_entities(read_doc, "one")) == scored(entities)


@given(st.lists(entity_lists(5, max_size=3), min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_from_docs(parts, add_empty):
    """Ids of the parts repeat in the whole; the scores are lost."""
    vocab = Vocab()
    docs, expected = [], []
    for i, part in enumerate(parts):
        doc = make_doc(5, vocab)
        write_entities(doc, part)
        docs.append(doc)
        expected += [
            Entity(e.label, tuple((5 * i + a, 5 * i + b) for a, b in e.fragments)) for e in part
        ]
    if add_empty:
        docs.insert(1, make_doc(0, vocab))
    assert scored(read_entities(Doc.from_docs(docs))) == scored(expected)


def test_from_same_doc_twice():
    doc = make_doc(4)
    write_entities(doc, [Entity("A", ((0, 1), (3, 4)), 0.5)])
    both = Doc.from_docs([doc, doc])
    assert len({span.id_ for span in both.spans["mtlner"]}) == 1
    expected = [Entity("A", ((0, 1), (3, 4))), Entity("A", ((4, 5), (7, 8)))]
    assert scored(read_entities(both)) == scored(expected)


def test_contiguous_spans_have_no_id_and_others_share_one():
    doc = make_doc(6)
    discontinuous = Entity("A", ((0, 1), (2, 3)))
    write_entities(doc, [discontinuous, Entity("A", ((4, 6),)), discontinuous])
    group = doc.spans["mtlner"]
    assert [span.id_ for span in group] == ["0/2", "0/2", "", "1/2", "1/2"]
    assert group.name == "mtlner"
    assert group.attrs["scores"] == [1.0] * 5
    assert all(type(score) is float for score in group.attrs["scores"])


def test_write_replaces_and_refuses_entities_outside():
    doc = make_doc(3)
    write_entities(doc, [Entity("A", ((0, 1),))])
    write_entities(doc, iter([Entity("B", ((1, 3),))]))
    assert read_entities(doc) == [Entity("B", ((1, 3),))]
    with pytest.raises(ValueError, match="outside its doc, which has 3 tokens"):
        write_entities(doc, [Entity("A", ((0, 1), (2, 4)))])
    assert read_entities(doc) == [Entity("B", ((1, 3),))]


def test_missing_key_and_empty_group():
    doc = make_doc(2)
    assert read_entities(doc) == doc._.entities == []
    write_entities(doc, [])
    assert "mtlner" in doc.spans
    assert read_entities(doc) == []


def test_numpy_scores():
    doc = make_doc(3)
    group = SpanGroup(doc, name="sc", spans=[Span(doc, 0, 1, "A"), Span(doc, 1, 3, "B")])
    group.attrs["scores"] = numpy.array([0.5, 0.25], dtype="float32")
    doc.spans["sc"] = group
    entities = [Entity("A", ((0, 1),), 0.5), Entity("B", ((1, 3),), 0.25)]
    assert scored(read_entities(doc, "sc")) == scored(entities)


def test_scores_of_spancat():
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("spancat", config={"threshold": 0.0})
    gold = nlp.make_doc("a b")
    gold.spans["sc"] = [Span(gold, 0, 1, "A")]
    nlp.initialize(lambda: [Example(nlp.make_doc("a b"), gold)])
    doc = nlp("a b c")
    assert isinstance(doc.spans["sc"].attrs["scores"], numpy.ndarray)
    entities = read_entities(doc, pipe.key)
    assert len(entities) == len(doc.spans["sc"]) > 0
    assert [e.score for e in entities] == pytest.approx(list(doc.spans["sc"].attrs["scores"]))


def test_scores_must_match_spans():
    doc = make_doc(3)
    write_entities(doc, [Entity("A", ((0, 1),))])
    doc.spans["mtlner"].append(Span(doc, 1, 2, "A"))
    with pytest.raises(ValueError, match=r"'mtlner'\] has 2 spans, but 1 scores"):
        read_entities(doc)
    del doc.spans["mtlner"].attrs["scores"]
    assert read_entities(doc) == [Entity("A", ((0, 1),)), Entity("A", ((1, 2),))]


def test_first_fragments_score_counts():
    doc = make_doc(3)
    write_entities(doc, [Entity("A", ((0, 1), (2, 3)))])
    doc.spans["mtlner"].attrs["scores"] = [0.5, 0.75]
    assert doc._.entities[0].score == 0.5


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        # An id of other origin holds as long as label and id repeat and fragments go on.
        ([(0, 1, "A", "T3"), (2, 3, "A", "T3")], [("A", ((0, 1), (2, 3)))]),
        ([(0, 1, "A", "T3"), (1, 3, "A", "T3")], [("A", ((0, 3),))]),
        ([(0, 1, "A", "T3"), (2, 3, "B", "T3")], [("A", ((0, 1),)), ("B", ((2, 3),))]),
        ([(0, 1, "A", "T3"), (2, 3, "A", "T4")], [("A", ((0, 1),)), ("A", ((2, 3),))]),
        ([(0, 2, "A", "T3"), (1, 3, "A", "T3")], [("A", ((0, 2),)), ("A", ((1, 3),))]),
        ([(2, 3, "A", "T3"), (0, 1, "A", "T3")], [("A", ((2, 3),)), ("A", ((0, 1),))]),
        (
            [(0, 1, "A", "T3"), (3, 4, "B", ""), (2, 3, "A", "T3")],
            [("A", ((0, 1),)), ("B", ((3, 4),)), ("A", ((2, 3),))],
        ),
        (
            [(i, i + 1, "A", "T3") for i in (0, 2, 4)],
            [("A", ((0, 1), (2, 3), (4, 5)))],
        ),
        # No id: contiguous entities, whatever their neighbours.
        ([(0, 1, "A", ""), (2, 3, "A", "")], [("A", ((0, 1),)), ("A", ((2, 3),))]),
        # An id of our own closes after its number of fragments, or earlier where it is cut short.
        (
            [(i, i + 1, "A", "0/2") for i in (0, 2, 4, 6)],
            [("A", ((0, 1), (2, 3))), ("A", ((4, 5), (6, 7)))],
        ),
        ([(0, 1, "A", "0/2")], [("A", ((0, 1),))]),
        ([(0, 1, "A", "0/3"), (2, 3, "A", "0/3")], [("A", ((0, 1), (2, 3)))]),
        (
            [(0, 1, "A", "0/3"), (2, 3, "A", "0/3"), (4, 5, "A", "1/2"), (6, 7, "A", "1/2")],
            [("A", ((0, 1), (2, 3))), ("A", ((4, 5), (6, 7)))],
        ),
        (
            [(4, 5, "A", "0/2"), (0, 1, "A", "0/2"), (2, 3, "A", "0/2")],
            [("A", ((4, 5),)), ("A", ((0, 1), (2, 3)))],
        ),
    ],
)
def test_ids(spans, expected):
    doc = make_doc(8)
    doc.spans["mtlner"] = [Span(doc, a, b, label, span_id=i) for a, b, label, i in spans]
    assert read_entities(doc) == [Entity(*entity) for entity in expected]


# doc.ents.


def choose_by_brute_force(entities, taken=()):
    """Best score first, then longer, then earlier: take what is free."""
    chosen = []
    rest = [e for e in entities if len(e.fragments) == 1]
    while rest:
        best = min(rest, key=lambda e: (-e.score, -(e.end - e.start), e.start))
        rest.remove(best)
        if all(best.end <= a or b <= best.start for a, b in taken):
            taken = [*taken, (best.start, best.end)]
            chosen.append(best)
    return sorted(chosen, key=lambda e: e.start)


@st.composite
def tied_entities(draw: st.DrawFn) -> list[Entity]:
    scores = st.sampled_from([0.25, 0.5, 0.75])
    return [Entity(e.label, e.fragments, draw(scores)) for e in draw(entity_lists(7, max_size=8))]


@given(tied_entities(), st.sampled_from([(), [(2, 4)], [(0, 1), (5, 7)]]))
@settings(max_examples=150, deadline=None)
def test_select_flat(entities, taken):
    expected = choose_by_brute_force(entities, taken)
    assert scored(select_flat(entities, taken=taken)) == scored(expected)


def test_select_flat_ties():
    long, short = Entity("A", ((1, 4),), 0.5), Entity("B", ((0, 2),), 0.5)
    assert select_flat([short, long]) == [long]
    better = Entity("B", ((0, 2),), 0.6)
    assert select_flat([long, better]) == [better]
    early, late = Entity("A", ((0, 2),)), Entity("A", ((1, 3),))
    assert select_flat([late, early]) == [early]
    assert select_flat([Entity("A", ((0, 1), (2, 3)))]) == []


@given(tied_entities(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_write_ents(entities, overwrite):
    doc = make_doc(7)
    present = [Span(doc, 1, 3, "P"), Span(doc, 6, 7, "Q")]
    doc.ents = present
    write_ents(doc, entities, overwrite=overwrite)
    taken = [] if overwrite else [(1, 3), (6, 7)]
    expected = [(e.start, e.end, e.label) for e in choose_by_brute_force(entities, taken)]
    if not overwrite:
        expected += [(1, 3, "P"), (6, 7, "Q")]
    assert [(e.start, e.end, e.label_) for e in doc.ents] == sorted(expected)
    assert read_ents(doc) == [Entity(label, ((a, b),)) for a, b, label in sorted(expected)]
    assert all(token.ent_iob for token in doc)


def test_write_ents_to_empty_doc():
    doc = make_doc(0)
    write_ents(doc, [])
    assert read_ents(doc) == []


def test_write_ents_keeps_ids_of_present_ones():
    doc = make_doc(2)
    doc.ents = [Span(doc, 0, 1, "P", kb_id="Q42", span_id="x")]
    write_ents(doc, [Entity("A", ((1, 2),))])
    assert [(e.kb_id_, e.id_) for e in doc.ents] == [("Q42", "x"), ("", "")]


# Alignment.


def example(predicted: list[str], reference: list[str]) -> Example:
    vocab = Vocab()
    return Example(
        *(Doc(vocab, words=words, spaces=[False] * len(words)) for words in (predicted, reference))
    )


def cut(text: str, borders: set[int]) -> list[str]:
    places = [0, *sorted(borders), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def align_by_brute_force(eg: Example, start: int, end: int) -> tuple[int, int] | None:
    """Predicted tokens with the fragment's solid characters, no white-space token at the edges."""

    def characters(doc: Doc, first: int, last: int) -> set[int]:
        sizes = [0 if token.text.isspace() else len(token) for token in doc]
        return set(range(sum(sizes[:first]), sum(sizes[:last])))

    wanted = characters(eg.reference, start, end)
    x = eg.predicted
    solid = [not token.text.isspace() for token in x]
    for first in range(len(x)):
        for last in range(first + 1, len(x) + 1):
            at_edges = solid[first] and solid[last - 1]
            if at_edges and characters(x, first, last) == wanted:
                return first, last
    return None


@st.composite
def tokenised_twice(draw: st.DrawFn) -> tuple[Example, list[Entity]]:
    """The same characters in two tokenisations, white-space tokens in either."""
    texts = []
    solid = draw(st.text("abc", min_size=1, max_size=8))
    for _ in range(2):
        borders = draw(st.sets(st.integers(1, len(solid) - 1))) if len(solid) > 1 else set()
        words = []
        for word in cut(solid, borders):
            words += [word] + ([" "] if draw(st.integers(0, 3)) == 0 else [])
        texts.append(words)
    eg = example(*texts)
    return eg, draw(entity_lists(len(eg.reference), max_size=4))


@given(tokenised_twice())
@settings(max_examples=150, deadline=None)
def test_fragments(case):
    eg, _ = case
    x, tokens = eg.predicted, TokenMap.of(eg)
    spaces = [token.text.isspace() for token in x]
    for start in range(len(eg.reference)):
        for end in range(start + 1, len(eg.reference) + 1):
            found = tokens.fragment(start, end)
            if eg.reference[start:end].text.isspace():
                assert found is None or all(spaces[slice(*found)])
                continue
            if found is not None:  # White-space tokens that both have stay at the edges.
                solid = [i for i in range(*found) if not spaces[i]]
                found = solid[0], solid[-1] + 1
            assert found == align_by_brute_force(eg, start, end)


@given(tokenised_twice())
@settings(max_examples=60, deadline=None)
def test_align_entities(case):
    eg, entities = case
    tokens = TokenMap.of(eg)
    expected, expected_unaligned = [], []
    for entity in entities:
        fragments = [tokens.fragment(a, b) for a, b in entity.fragments]
        if None in fragments:
            expected_unaligned.append(entity)
        else:
            merged = fragments if tokens.is_identity else merge_touching(fragments)
            expected.append(Entity(entity.label, merged, entity.score))
    aligned, unaligned = align_entities(eg, entities)
    assert scored(aligned) == scored(expected)
    assert unaligned == expected_unaligned


@pytest.mark.parametrize(
    ("predicted", "reference", "fragments", "expected"),
    [
        (["ab", "c"], ["ab", "c"], [(0, 1)], [(0, 1)]),
        (["a", "b", "c"], ["ab", "c"], [(0, 1)], [(0, 2)]),
        (["ab", "c"], ["a", "b", "c"], [(0, 2)], [(0, 1)]),
        (["ab", "c"], ["a", "b", "c"], [(1, 2)], None),
        (["ab", "c"], ["a", "b", "c"], [(0, 1), (2, 3)], None),
        (["a", "bc", "d"], ["ab", "cd"], [(0, 1)], None),
        (["a", "bc", "d"], ["ab", "cd"], [(0, 2)], [(0, 3)]),
        (["a", "b", "c", "d"], ["ab", "c", "d"], [(0, 1), (2, 3)], [(0, 2), (3, 4)]),
        # White-space tokens: left out at the edges, crossed inside, nothing on their own.
        (["a", " ", "b"], ["a", "b"], [(0, 2)], [(0, 3)]),
        (["a", "b"], ["a", " ", "b"], [(0, 3)], [(0, 2)]),
        (["a", "b"], ["a", " ", "b"], [(1, 3)], [(1, 2)]),
        (["a", "b"], ["a", " ", "b"], [(1, 2)], None),
        (["a", "\n", "b"], ["a", " ", "b"], [(0, 1), (2, 3)], [(0, 1), (2, 3)]),
        # Fragments that come to touch are one.
        (["a", "b"], ["a", "\n", "b"], [(0, 1), (2, 3)], [(0, 2)]),
    ],
)
def test_alignment(predicted, reference, fragments, expected):
    eg = example(predicted, reference)
    aligned, unaligned = align_entities(eg, [Entity("A", fragments, 0.5)])
    assert unaligned == ([Entity("A", fragments)] if expected is None else [])
    assert scored(aligned) == ([(Entity("A", expected), 0.5)] if expected else [])


def test_alignment_of_tokens_that_differ_in_spaces_only():
    vocab = Vocab()
    x = Doc(vocab, words=["a", "b"], spaces=[True, False])
    y = Doc(vocab, words=["a", "b"], spaces=[False, False])
    tokens = TokenMap.of(Example(x, y))
    assert tokens.is_identity
    assert tokens.fragment(0, 2) == (0, 2)


def test_alignment_keeps_order_and_duplicates():
    eg = example(["a", "b", "cd"], ["ab", "c", "d"])
    entities = [Entity("B", ((0, 1),)), Entity("A", ((1, 2),)), Entity("B", ((0, 1),))]
    tokens = TokenMap.of(eg)
    assert not tokens.is_identity
    aligned, unaligned = align_entities(eg, iter(entities), tokens)
    assert aligned == [Entity("B", ((0, 2),))] * 2
    assert unaligned == [Entity("A", ((1, 2),))]


def test_predicted_tokens_touched_by_tokens_of_the_reference():
    tokens = TokenMap.of(example(["a", "bc", "d"], ["ab", "cd"]))
    assert tokens.touched(0, 1).tolist() == [0, 1]
    assert tokens.touched(1, 2).tolist() == [1, 2]
    assert TokenMap.of(example(["a", "b"], ["a", "b"])).touched(1, 2).tolist() == [1]


def test_blocked_tokens_stay_blocked():
    doc = Doc(Vocab(), words=["a", "b", "c"])
    doc.set_ents([], blocked=[doc[1:2]], default="missing")
    write_ents(doc, [Entity("A", ((0, 2),)), Entity("B", ((2, 3),))])
    assert [(ent.label_, ent.start) for ent in doc.ents] == [("B", 2)]
    assert doc[1].ent_iob == 3 and not doc[1].ent_type


def test_a_span_that_is_no_entity_is_named():
    doc = Doc(Vocab(), words=["a", "b", "c"])
    doc.spans["key"] = [Span(doc, 1, 2)]
    with pytest.raises(ValueError, match=r"doc\.spans\['key'\], tokens \[\(1, 2\)\]: .*label"):
        read_entities(doc, "key")


def test_alignment_of_empty_docs():
    assert align_entities(example([], []), []) == ([], [])
    assert align_entities(example([" "], []), []) == ([], [])


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True), max_size=6))
def test_inside(bounds: list[list[int]]) -> None:
    """Against all pairs."""
    entities = [
        tuple(zip(places[::2], places[1::2], strict=False)) for places in map(sorted, bounds)
    ]
    positions = [
        {i for start, end in fragments for i in range(start, end)} for fragments in entities
    ]
    expected = [
        any(inner != outer and p <= q for outer, q in zip(entities, positions, strict=True))
        for inner, p in zip(entities, positions, strict=True)
    ]
    assert find_inside(entities) == expected


@given(st.data())
def test_strip_spaces(data: st.DataObject) -> None:
    """Against the tokens one by one."""
    words = data.draw(st.lists(st.sampled_from(["a", "b", " ", "\n"]), max_size=8))
    doc = Doc(VOCAB, words=words, spaces=[False] * len(words))
    entities = data.draw(entity_lists(len(words))) if words else []
    expected: dict[tuple[str, tuple[tuple[int, int], ...]], float] = {}
    for entity in entities:
        fragments = []
        for start, end in entity.fragments:
            solid = [i for i in range(start, end) if not words[i].isspace()]
            if solid:
                fragments.append((solid[0], solid[-1] + 1))
        if fragments:
            key = (entity.label, tuple(fragments))
            expected[key] = max(entity.score, expected.get(key, 0.0))
    stripped = strip_spaces(doc, entities)
    if any(map(str.isspace, words)):
        assert {(e.label, e.fragments): e.score for e in stripped} == expected
        assert len(stripped) == len(expected)
    else:
        assert scored(stripped) == scored(entities)


def test_fragments_are_read_whatever_the_labels():
    doc = make_doc(10)
    assert read_fragments(doc, "x") == []
    doc.spans["x"] = [Span(doc, 0, 2), Span(doc, 0, 2, label="A"), Span(doc, 1, 3)]
    assert read_fragments(doc, "x") == [((0, 2),), ((1, 3),)]
    write_entities(doc, [Entity("A", ((0, 1), (4, 6))), Entity("B", ((0, 1),))], "x")
    assert read_fragments(doc, "x") == [((0, 1), (4, 6)), ((0, 1),)]
