"""GENIA: nesting, coordinated terms, white space, what is skipped, errors, real coordinations."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_mtlner.formats import CharEntity, CorpusError, Record, Report, Tally
from spacy_mtlner.formats.base import Annotation, make_record
from spacy_mtlner.formats.genia import read_genia

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE set SYSTEM "gpml.dtd">
<set><import resource="GENIAontology.daml" prefix="G"/>
<article><articleinfo><bibliomisc>MEDLINE:1</bibliomisc></articleinfo><abstract>
"""
TAIL = "\n</abstract></article></set>"
FIRST_LINE = HEAD.count("\n") + 1

NOT_SPELLED = "coordinated term that its parts do not spell"
BY_POSITION = "coordinated term found by position"


def read(path: Path, content: str, *, strict: bool = False) -> tuple[list[Record], Report]:
    path.write_bytes(content.encode())
    report = Report(strict=strict)
    return list(read_genia(path, report)), report


def read_sentences(path: Path, *sentences: str) -> tuple[list[Record], Report]:
    """Read sentences, given by their XML, of one article; each one is a line."""
    lines = [f"<sentence>{sentence}</sentence>" for sentence in sentences]
    return read(path, HEAD + "\n".join(lines) + TAIL)


def cons(content: str, sem: str | None = None, lex: str | None = None) -> str:
    attributes = {"lex": lex, "sem": sem}
    written = [f" {key}={quoteattr(value)}" for key, value in attributes.items() if value]
    return f"<cons{''.join(written)}>{content}</cons>"


def texts(record: Record) -> list[tuple[str, ...]]:
    """Label and fragments of each entity."""
    return [(e.label, *(record.text[a:b] for a, b in e.fragments)) for e in record.entities]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "GENIAcorpus3.02.xml"


def test_an_article(path: Path) -> None:
    title = cons(cons("p99 gene", "G#DNA_domain_or_region") + " expression", "G#other_name")
    (first, second), report = read(
        path,
        f"""<!DOCTYPE set SYSTEM "gpml.dtd">
<set><import resource="GENIAontology.daml" prefix="G"></import>
<article><articleinfo><bibliomisc>
MEDLINE:95</bibliomisc></articleinfo>
<title><sentence>{title}</sentence></title></article>
<article><title>
<sentence>&lt;1 &amp; <w c="NN">2</w></sentence></title></article></set>""",
    )
    assert (first.text, first.line, first.document) == ("p99 gene expression", 5, "MEDLINE:95")
    assert texts(first) == [
        ("other_name", "p99 gene expression"),
        ("DNA_domain_or_region", "p99 gene"),
    ]
    assert second == Record("<1 & 2", (), path, 7, None)
    assert report.bytes_read == path.stat().st_size
    assert not (report.skipped or report.repaired or report.ignored)


# What XML can hold; a line break would become a blank.
xml_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("<>&'\"ab \t"),
    max_size=5,
)
trees = st.recursive(
    xml_text,
    lambda tree: st.tuples(st.sampled_from("AB"), st.lists(tree, max_size=4)),
    max_leaves=9,
)


def write_tree(tree: Any, annotations: list[Annotation], offset: int = 0) -> tuple[str, str]:
    """Text and XML of a tree whose nodes are texts, or constituents with label and children."""
    if isinstance(tree, str):
        return tree, escape(tree)
    label, children = tree
    index = len(annotations)
    annotations.append(Annotation(label, []))
    text = xml = ""
    for child in children:
        child_text, child_xml = write_tree(child, annotations, offset + len(text))
        text += child_text
        xml += child_xml
    annotations[index] = Annotation(label, [(offset, offset + len(text))])
    return text, cons(xml, f"G#{label}", text)


@given(children=st.lists(trees, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_nesting(path: Path, children: list[Any]) -> None:
    annotations: list[Annotation] = []
    text, xml = write_tree(("WHOLE", [".", *children, "."]), annotations)
    expected_report = Report()
    expected = make_record(
        text, annotations, path, FIRST_LINE, expected_report, document="MEDLINE:1"
    )
    (record,), report = read_sentences(path, xml)
    assert record == expected
    assert report.skipped == expected_report.skipped
    assert report.repaired == expected_report.repaired


spaces = st.text(" \n\t", max_size=3)


@given(words=st.lists(st.tuples(spaces, spaces, spaces), min_size=1, max_size=5), at_end=spaces)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_white_space(path: Path, words: list[tuple[str, str, str]], at_end: str) -> None:
    """Only line breaks and the white space about them are changed, and what is at the ends."""
    xml = "".join(
        f"{before}{cons(f'{inner}ab', 'G#A')}.{behind}" for before, inner, behind in words
    )
    raw = "".join(f"{before}{inner}ab.{behind}" for before, inner, behind in words) + at_end
    (record,), report = read_sentences(path, xml + at_end)
    assert "\n" not in record.text and record.text == record.text.strip()
    assert record.text.split() == raw.split()
    if "\n" not in raw.strip():
        assert record.text == raw.strip()
    assert texts(record) == [("A", "ab")] * len(words)
    assert not report.skipped


def coordinate(sem: str, lex: str | None, *content: str | tuple[str, str | None]) -> str:
    """XML of coordinated terms: the content is text, and (text, lex) of each part."""
    parts = [escape(c) if isinstance(c, str) else cons(escape(c[0]), None, c[1]) for c in content]
    return cons("".join(parts), sem, lex)


@pytest.mark.parametrize(
    "xml, expected",
    [
        pytest.param(
            coordinate(
                "(OR G#DNA_molecule G#RNA_molecule)",
                "(OR jun_gene fos_gene)",
                ("jun", "jun*"), " or ", ("fos", "fos*"), " ", ("genes", "*gene"),
            ),
            [("DNA_molecule", "jun", "genes"), ("RNA_molecule", "fos genes")],
            id="shared tail",
        ),
        pytest.param(
            coordinate(
                "(AND/OR G#A G#B)",
                "(AND/OR factor_1 factor_2a)",
                ("Factors", "factor*"), " ", ("1", "*1"), "/", ("2a", "*2a"),
            ),
            [("A", "Factors 1"), ("B", "Factors", "2a")],
            id="shared head",
        ),
        pytest.param(
            coordinate(
                "(BUT_NOT G#A G#B)",
                "(BUT_NOT murine_T_cell human_T_cell)",
                ("murine", "murine*"), " but not ", ("human", "human*"), " ", ("T", "*T*"), " ",
                ("cells", "*cell"),
            ),
            [("A", "murine", "T cells"), ("B", "human T cells")],
            id="shared tail in two parts",
        ),
        pytest.param(
            coordinate(
                "(AND G#A G#A)",
                "(AND early_B_clone_1 late_B_clone_2)",
                ("early", "early*"), " and ", ("late", "late*"), " ", ("B clones", "*B_clone*"),
                " ", ("1", "*1"), " and ", ("2", "*2"),
            ),
            [("A", "early", "B clones 1"), ("A", "late B clones", "2")],
            id="shared middle",
        ),
        pytest.param(
            coordinate(
                "(AND G#A G#B G#A)",
                "(AND B_line T_line NK_line)",
                ("B", "B*"), "-, ", ("T", "T*"), "- and ", ("NK", "NK*"), "-", ("lines", "*line"),
            ),
            [("A", "B", "lines"), ("B", "T", "lines"), ("A", "NK", "lines")],
            id="three conjuncts",
        ),
        pytest.param(
            coordinate(
                "(AND (OR G#A G#B) (NEITHER_NOR G#C))",
                "(AND (OR class_I_chain class_II_chain) (NEITHER_NOR beta_chain(2)))",
                ("class", "class*"), " ", ("I", "*I*"), " or ", ("II", "*II*"), " and ",
                ("beta", "beta*"), " ", ("chains", "*chain*"), " ", ("(2)", "*(2)"),
            ),
            [("A", "class I", "chains"), ("B", "class", "II", "chains"), ("C", "beta chains (2)")],
            id="nested structure",
        ),
        pytest.param(
            coordinate(
                "(AND G#A G#B)",
                "(AND alpha-globin (-)-Beta-globin)",
                ("alpha", "alpha-*"), "- and ", ("(-)-beta-", "(-)-beta*"), ("globin", "*-globin"),
            ),
            [("A", "alpha", "globin"), ("B", "(-)-beta-globin")],
            id="hyphens that only one side has",
        ),
        pytest.param(
            coordinate(
                "(TO G#A G#A)",
                "(TO region_1 region_4)",
                ("region 1", "region_1"), " to region ", ("4", None), " of ", ("region", "region*"),
                " ", ("4", "*4"),
            ),
            [("A", "region 1"), ("A", "region 4")],
            id="fewest parts, then the closest",
        ),
    ],
)  # fmt: skip
def test_coordination(path: Path, xml: str, expected: list[tuple[str, ...]]) -> None:
    (record,), report = read_sentences(path, f"the {xml}.")
    assert texts(record) == expected
    assert not (report.skipped or report.repaired or report.ignored)
    # The same with parts of speech.
    (with_pos,), _ = read_sentences(path, xml.replace("</cons>", '</cons><w c="*"></w>'))
    assert texts(with_pos) == expected


def test_parts_that_are_entities_themselves(path: Path) -> None:
    inner = cons(cons("CD2", None, "CD2*"), "G#protein", "CD2")
    nested = coordinate("(OR G#A G#B)", "(OR CD3_x CD4_x)", ("CD3", "CD3*"), "/", ("CD4", "CD4*"))
    tail = cons(f"{cons('gene', 'G#DNA')} x", None, "*x")
    (record,), report = read_sentences(
        path, cons(f"{inner}, {nested} {tail}", "(AND G#A G#C)", "(AND CD2_x CD4_x)")
    )
    assert texts(record) == [
        ("A", "CD2", "gene x"),
        ("C", "CD4 gene x"),
        ("protein", "CD2"),
        ("DNA", "gene"),
    ]
    assert report.skipped[NOT_SPELLED].count == 2, "the tail of the inner terms is not in them"
    assert not report.ignored


@pytest.mark.parametrize("lex", [None, "(AND CD2_receptor CD25_receptor)", "(AND CD2_receptor)"])
def test_by_position(path: Path, lex: str | None) -> None:
    content = (
        ("human", None),
        " ",
        ("CD2", None),
        " and ",
        ("CD25", None),
        "\n",
        ("receptors", None),
    )
    xml = coordinate("(AND G#protein_molecule G#protein_molecule)", lex, *content)
    (_, record), report = read_sentences(path, "a", f"\n{xml}")
    assert texts(record) == [
        ("protein_molecule", "human CD2", "receptors"),
        ("protein_molecule", "human", "CD25 receptors"),
    ]
    assert not report.skipped
    assert report.repaired == {BY_POSITION: Tally(2, [f"{path}:{FIRST_LINE + 2}"])}


@pytest.mark.parametrize(
    "content",
    [
        (),
        ("A and B",),
        (("A", None), " ", ("B", None)),
        (("A", None), " and ", ("B", None), ", ", ("C", None)),
        (("A*", "A*"), " ", ("B", "*B*"), " or ", ("C", "C*"), " ", ("D", "*D")),
    ],
)
@pytest.mark.parametrize("lex", [None, "(OR Ax x)"])
def test_neither_spelled_nor_by_position(path: Path, content: Any, lex: str | None) -> None:
    xml = coordinate("(OR G#A G#B)", lex, *content)
    (_, record), report = read_sentences(path, "a", f"x {xml} {cons('y', 'G#C')}")
    assert texts(record) == [("C", "y")]
    assert report.skipped == {NOT_SPELLED: Tally(2, [f"{path}:{FIRST_LINE + 1}"])}
    with pytest.raises(CorpusError, match=f":{FIRST_LINE + 1}: Cannot be kept: {NOT_SPELLED}"):
        read(path, path.read_text(), strict=True)


def test_skipped_and_ignored(path: Path) -> None:
    found, report = read_sentences(
        path,
        cons(cons("a", "G#A"), "G#A"),
        cons("b", None, "b"),
        " \n",
        f"{cons('', 'G#A')}{cons('c', 'G#')}{cons('d', 'other')}</sentence>e<sentence>f",
    )
    assert [texts(record) for record in found] == [[("A", "a")], [], [("other", "d")], []]
    line = FIRST_LINE
    assert {why: tally.places for why, tally in report.skipped.items()} == {
        "duplicate of another entity": [f"{path}:{line}"],
        "span ends where or before it starts": [f"{path}:{line + 4}"],
        "label is empty": [f"{path}:{line + 4}"],
    }
    assert {why: tally.places for why, tally in report.ignored.items()} == {
        "constituent without a class": [f"{path}:{line + 1}"],
        "empty sentence": [f"{path}:{line + 2}"],
        "text outside a sentence": [f"{path}:{line + 4}"],
    }


def test_deep_nesting(path: Path) -> None:
    depth = 50_000
    xml = "<cons sem='G#A'>" * depth + cons("a", "(AND G#B)") + "b</cons>" * depth
    (record,), _ = read_sentences(path, xml)
    assert len(record.entities) == depth


def test_a_large_file_is_read_piece_by_piece(path: Path) -> None:
    path.write_text(HEAD + f"<sentence>{cons('a', 'G#A')}</sentence>\n" * 5000 + TAIL)
    report = Report()
    records = read_genia(path, report)
    next(records)
    assert report.bytes_read < path.stat().st_size / 2
    assert sum(1 for _ in records) == 4999
    assert report.bytes_read == path.stat().st_size


@pytest.mark.parametrize(
    "content, line, message",
    [
        ("", 1, "Not XML (no element found"),
        ("IL-2 O\n", 1, "Not XML (syntax error"),
        ("<set>\n<sentence>a</set>", 2, "Not XML (mismatched tag"),
        ("<set>\n<sentence>\x00</sentence></set>", 2, "Not XML (not well-formed"),
        ("<set>\n<sentence>a</sentence>", 2, "Not XML (no element found"),
        ("<?xml version='1.0' encoding='x'?><set/>", 1, "Not XML (unknown encoding"),
        ("<set>\n<sentence>&alpha;</sentence></set>", 2, "Not XML (undefined entity"),
        ("<!DOCTYPE set SYSTEM 'x'>\n<sentence>&alpha;</sentence>", 2, "The entity 'alpha'"),
        ("<!DOCTYPE set [\n<!ENTITY a 'b'>]><sentence>&a;</sentence>", 2, "The entity 'a'"),
        ("<!DOCTYPE set [\n<!ENTITY % a SYSTEM 'b'> %a;]><sentence/>", 2, "The entity 'a'"),
        ("<set>\n<sentence><sentence>a</sentence></sentence></set>", 2, "A sentence in a"),
        ("<set><article>\n<title>a</title></article></set>", None, "Not GENIA"),
    ],
)
def test_not_this_format(path: Path, content: str, line: int | None, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read(path, content)
    place = path if line is None else f"{path}:{line}"
    assert str(error.value).startswith(f"{place}: {message}")


def test_unreadable(path: Path) -> None:
    with pytest.raises(CorpusError, match="Cannot be read"):
        list(read_genia(path, Report()))


def write_coordination(text: str, terms: Sequence[CharEntity]) -> list[tuple[int, int, str]]:
    """Start, end and tag of the constituents that make coordinated terms of a text.

    The parts are the text of the terms, cut wherever a fragment of one begins or ends.
    """
    borders = sorted({i for term in terms for fragment in term.fragments for i in fragment})
    parts = [[*cut(text, term, borders)] for term in terms]
    continued = {part for own in parts for part in own[:-1]}
    begun = {part for own in parts for part in own[1:]}
    forms = ["_".join(to_form(text, part) for part in own) for own in parts]
    lex, sem = (f"(AND {' '.join(atoms)})" for atoms in (forms, [f"G#{t.label}" for t in terms]))
    tags = [(borders[0], borders[-1], f"<cons lex={quoteattr(lex)} sem={quoteattr(sem)}>")]
    for part in sorted({part for own in parts for part in own}):
        lex = "*" * (part in begun) + to_form(text, part) + "*" * (part in continued)
        tags.append((*part, f"<cons lex={quoteattr(lex)}>"))
    return tags


def cut(text: str, term: CharEntity, borders: list[int]) -> Iterator[tuple[int, int]]:
    for start, end in pairwise(borders):
        content = text[start:end].strip()
        if content and any(a <= start and end <= b for a, b in term.fragments):
            start = text.index(content, start)
            yield start, start + len(content)


def to_form(text: str, part: tuple[int, int]) -> str:
    return "_".join(text[slice(*part)].split())


def insert_tags(text: str, tags: Iterable[tuple[int, int, str]]) -> str:
    begin: dict[int, list[str]] = defaultdict(list)
    end: Counter[int] = Counter()
    for first, last, tag in sorted(tags, key=lambda tag: -tag[1]):
        begin[first].append(tag)
        end[last] += 1
    return "".join(
        "</cons>" * end[i] + "".join(begin[i]) + escape(text[i : i + 1])
        for i in range(len(text) + 1)
    )


@st.composite
def coordinations(draw: st.DrawFn) -> tuple[str, list[CharEntity]]:
    """Text with terms that share what is before and behind their own parts."""
    letters = st.lists(st.sampled_from([*"abI12+-/&<", "(-)"]), max_size=2)
    word = st.builds("{}{}".format, st.sampled_from("xyX3"), letters.map("".join))
    n_terms = draw(st.integers(2, 4))
    n_shared = st.integers(0, 2)
    n_before, n_behind = draw(n_shared), draw(n_shared)
    n_words = n_before + n_terms + n_behind
    words = draw(st.lists(word, min_size=n_words, max_size=n_words, unique=True))
    between = st.sampled_from([" and ", ", ", "/", "- or ", " (y) "])
    space = st.sampled_from([" ", "", "  "])
    text = "z "
    spans = []
    for i, content in enumerate(words):
        is_own = n_before < i < n_before + n_terms
        text += draw(between if is_own else space) if i else ""
        spans.append((len(text), len(text) + len(content)))
        text += content
    before, own, behind = spans[:n_before], spans[n_before : n_before + n_terms], spans[-n_behind:]
    annotations = [
        Annotation(draw(st.sampled_from("AB")), [*before, span, *(behind if n_behind else [])])
        for span in own
    ]
    record = make_record(text + " z", annotations, Path("corpus"), 1, Report())
    return record.text, list(record.entities)


@given(coordination=coordinations())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_coordination(path: Path, coordination: tuple[str, list[CharEntity]]) -> None:
    text, terms = coordination
    (record,), report = read_sentences(path, insert_tags(text, write_coordination(text, terms)))
    assert (record.text, [*record.entities]) == (text, terms)
    assert not (report.skipped or report.repaired or report.ignored)


def test_real_coordinations(data_dir: Path, path: Path) -> None:
    """The terms of the derived corpus come back from such XML as they were derived from."""
    sentences = []
    expected: list[tuple[str, set[CharEntity]]] = []
    for part in ("train", "dev"):
        for line in (data_dir / f"genia/genia5.{part}.jsonl").read_text("utf-8").splitlines():
            text, terms, others = parse_derived(json.loads(line))
            tags = [
                tag for group in group_by_range(terms) for tag in write_coordination(text, group)
            ]
            others = [other for other in others if not crosses(other, tags)]
            tags += [(*e.fragments[0], f'<cons sem="G#{e.label}">') for e in others]
            sentences.append(insert_tags(text, tags))
            expected.append((text, {*terms, *others}))
    records, report = read_sentences(path, *sentences)
    assert [record.text for record in records] == [text for text, _ in expected]
    pairs = [
        ({*record.entities}, terms) for record, (_, terms) in zip(records, expected, strict=True)
    ]
    assert len(records) == 15023 + 1669
    # In one sentence two coordinations stand so close that the same form is spelled in both.
    assert sum(len(terms - found) for found, terms in pairs) == 3
    assert sum(len(found - terms) for found, terms in pairs) == 2
    assert {reason: tally.count for reason, tally in report.skipped.items()} == {
        "duplicate of another entity": 1
    }
    assert not report.repaired


def parse_derived(value: Any) -> tuple[str, list[CharEntity], list[CharEntity]]:
    """Text, coordinated terms and other entities of a record of the derived corpus."""
    entities: dict[bool, list[CharEntity]] = {True: [], False: []}
    for entity in value["entities"]:
        fragments = tuple((start, end) for start, end in entity["spans"])
        entities[entity["coord"]].append(CharEntity(entity["label"], fragments))
    return value["text"], entities[True], entities[False]


def group_by_range(terms: list[CharEntity]) -> list[list[CharEntity]]:
    groups: list[list[CharEntity]] = []
    end = 0
    for term in sorted(terms, key=lambda term: term.fragments):
        if term.fragments[0][0] < end:
            groups[-1].append(term)
        else:
            groups.append([term])
        end = max(end, term.fragments[-1][1])
    return groups


def crosses(entity: CharEntity, tags: list[tuple[int, int, str]]) -> bool:
    ((start, end),) = entity.fragments
    return any(a < start < b < end or start < a < end < b for a, b, _ in tags)
