import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy
import pytest

from spacy_mtlner.evaluation.analysis import Analysis, Excerpt, Outcome, analyse_entities
from spacy_mtlner.evaluation.figures import INK, draw_figures, render_figure
from spacy_mtlner.evaluation.html import (
    Cell,
    Source,
    draw_cells,
    group_cells,
    inline_svg,
    make_html,
)
from spacy_mtlner.evaluation.training_log import TrainingLog
from tests.evaluation.builders import LABELS, make_doc, make_docs

VOID = {"meta", "wbr", "br", "link", "img"}
SOURCE = Source(
    model="<model>",
    component="ner",
    factory="crf_ner",
    corpus="dev & test.spacy",
    train="train.spacy",
    key="mtlner",
    gold="spans",
    n_skipped=7,
)


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects ids, links and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._add(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert "svg" in self.open, f"<{tag}/> is no element of HTML"
        self._add(tag, attrs)

    def _add(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value)
            elif name == "class":
                self.classes.update([value])

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (self.open[-3:], tag, self.getpos())
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def render(analysis: Analysis) -> str:
    svg = {
        name: render_figure(figure, "svg", background="none").decode()
        for name, figure in draw_figures(analysis).items()
    }
    return make_html(analysis, SOURCE, svg, ink=INK)


def analyse(docs: Any = None, **settings: Any) -> Analysis:
    settings = {"labels": LABELS, "surfaces": {}, **settings}
    return analyse_entities(make_docs() if docs is None else docs, **settings)


CASES = {
    "all": lambda: analyse(log=TrainingLog([0, 5], [0, 1], {"a<b>": [2.0, 1.0]}, [0.0, 1.0])),
    "no entities": lambda: analyse([make_doc("a b")], surfaces=None),
    "no gold": lambda: analyse([make_doc("a", predicted=[(0.5, "A", (0, 1))])]),
    "no predictions": lambda: analyse([make_doc("a", gold=[("A", (0, 1))])]),
    "all right": lambda: analyse(
        [make_doc("a", [("A", (0, 1))], [(1.0, "A", (0, 1))], probabilities=[[1.0, 0.0, 0.0, 0.0]])]
    ),
    "no examples": lambda: analyse(n_examples=0),
}


@pytest.mark.parametrize("case", CASES)
def test_page_is_valid_and_needs_nothing_else(case: str) -> None:
    analysis = CASES[case]()
    html = render(analysis)
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>\n<html lang=")
    repeated = {name for name, n in page.ids.items() if n > 1}
    assert not repeated
    # Links lead to parts of the page, and all of those are there.
    assert all(link.startswith(("#", "data:image/png")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    references = set(re.findall(r"url\(#([^)]+)\)", html))
    assert references <= set(page.ids)
    urls = set(re.findall(r"https?://[^\"' <]+", html))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in html and "@import" not in html
    assert page.tags["title"] == page.tags["h1"] == page.tags["main"] == 1
    # Each figure is there, or said to be left out.
    assert page.tags["svg"] == page.tags["figure"] == 10 - len(analysis.left_out)
    text = "".join(page.text)
    for reason in analysis.left_out.values():
        assert reason in text


def test_everything_is_escaped() -> None:
    label = "<script>alert('x')</script>"
    doc = make_doc("a&b <i>", gold=[(label, (0, 1))], predicted=[(0.5, '"><p>', (0, 2))])
    html = render(analyse([doc], labels=[label]))
    text = "".join(Page(html).text)
    assert "<script" not in html and "<i>" not in html and '"><p>' not in html
    assert label in text and "<i>" in text and "<model>" in text and "dev & test.spacy" in text


def test_numbers_of_the_page() -> None:
    analysis = analyse()
    text = " ".join(" ".join(Page(render(analysis)).text).split())
    assert "3 docs ; 7 more are not annotated" in text.replace("docs;", "docs ;")
    assert analysis.score.interval is not None
    low, high = (f"{100 * value:.1f}" for value in analysis.score.interval)
    assert f"The 95 % interval of F1, by a bootstrap over the docs: {low} to {high}." in text
    assert "4 of 4 wrong predictions" in text
    assert "6 points. 1 gold entities are no points" in text
    assert "1 have a true label with a probability below 1e-06" in text
    assert 'doc.spans["mtlner"]' in text


def test_typing_is_called_typing() -> None:
    """No precision, recall or F1 of the whole, that could be taken for those of recognition."""
    page = Page(render(analyse(is_typing=True)))
    text = " ".join(" ".join(page.text).split())
    assert "Typing analysis of <model>" in text and "Typing, no recognition:" in text
    assert "Accuracy" in text and "The 95 % interval of accuracy" in text
    assert not {"Precision", "Recall"} & set(page.text)
    recognition = Page(render(analyse()))
    assert {"Precision", "Recall"} < set(recognition.text)
    assert "yping" not in "".join(recognition.text)


def styles(cells: list[Cell], level: int) -> list[str]:
    return [cell.lines[level].style if level < len(cell.lines) else "" for cell in cells]


def test_cells_of_nested_and_discontinuous_entities() -> None:
    analysis = analyse()
    excerpt = analysis.complex_texts[0]
    cells = draw_cells(analysis.docs[0], excerpt)
    assert [cell.text for cell in cells] == "one two three four five six seven".split()
    assert all(cell.space for cell in cells[:-1]) and not cells[-1].space
    # No two entities on one level meet, and each has its name once.
    names = [line.name for cell in cells for line in cell.lines if line.name]
    assert sorted(names) == ["A", "A", "B", "B 0.99", "C", "C 0.65", "C 0.75"]
    assert styles(cells, 0)[:2] == ["right first", "right last"]
    level = next(i for i in range(7) if "gold gap" in styles(cells, i))
    assert styles(cells, level)[3:6] == ["gold first last", "gold gap", "gold first last"]
    assert not any("focus" in line.style for cell in cells for line in cell.lines)


def test_cells_of_the_entity_that_a_text_is_shown_for() -> None:
    analysis = analyse()
    excerpt = analysis.confident_errors[0]
    cells = draw_cells(analysis.docs[excerpt.doc], excerpt)
    focused = {line.name for cell in cells for line in cell.lines if "focus" in line.style}
    assert {"B 0.99", "C 0.75", "C 0.65"} <= focused


def test_no_two_entities_of_a_level_meet() -> None:
    """Wherever an entity is drawn, it covers what its fragments cover, once."""
    places = [(a, b) for a in range(5) for b in range(a + 1, 6)]
    gold = [("L" * (1 + a), (a, b)) for a, b in places]
    doc = make_doc("v w x y z zz", gold=gold)
    excerpt = replace(analyse([doc]).complex_texts[0])
    cells = draw_cells(doc, excerpt)
    parts = [line for cell in cells for line in cell.lines if line.style]
    assert len(parts) == sum(b - a for a, b in places)
    assert sum("first" in line.style for line in parts) == len(places)
    assert sum(bool(line.name) for line in parts) == len(places)


def test_excerpts_cut_entities_at_their_borders() -> None:
    words = " ".join(f"w{i}" for i in range(200))
    doc = make_doc(words, gold=[("A", (0, 200))], predicted=[(0.5, "A", (100, 101))])
    analysis = analyse([doc])
    excerpt = analysis.confident_errors[0]
    cells = draw_cells(doc, excerpt)
    assert len(cells) == 51
    assert styles(cells, 0)[0] == "gold first" and styles(cells, 0)[-1] == "gold last"
    page = Page(render(analysis))
    assert page.classes["cut"] == 2 + 1  # The complex text begins with the doc.


def test_lines_do_not_break_within_words() -> None:
    def join(*tokens: tuple[str, bool]) -> list[str]:
        cells = [Cell(text, space, []) for text, space in tokens]
        return ["".join(cell.text for cell in group) for group in group_cells(cells)]

    assert join(("IFN", False), ("-", False), ("alpha", True), ("is", False), (".", False)) == [
        "IFN-alpha",
        "is.",
    ]
    assert join(("（", False), ("北", False), ("京", False), ("。", False), ("A", False)) == [
        "（北",
        "京。",
        "A",
    ]


def test_ids_of_figures_are_their_own() -> None:
    figure = draw_figures(analyse())["pca"]
    svg = render_figure(figure, "svg", background="none").decode()
    one, two = inline_svg(svg, "one", INK), inline_svg(svg, "two", INK)
    ids = [set(re.findall(r'\bid="([^"]+)"', x)) for x in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    assert INK not in one and "currentColor" in one
    assert one.startswith('<svg role="img" aria-label="one"')
    assert "<metadata" not in one and "<style" not in one


def test_labels_that_look_like_markup_stay_as_they_are() -> None:
    label = f'id="x" url(#y) {INK}'
    doc = make_doc("a", gold=[(label, (0, 1))])
    figure = draw_figures(analyse([doc], labels=[label]))["confusion"]
    svg = inline_svg(render_figure(figure, "svg").decode(), "name", INK)
    assert label in "".join(Page(svg).text)


def test_white_space_in_tokens() -> None:
    doc = make_doc("a", gold=[("A", (0, 1))])
    doc = replace(doc, text="a\n\nb \u3000 c", tokens=numpy.array([[0, 1], [1, 3], [3, 4], [5, 6]]))
    cells = draw_cells(doc, Excerpt(0, 0, 4, [Outcome(0, "missed", 0, None)]))
    assert [(cell.text, cell.space) for cell in cells] == [
        ("a", False),
        ("⏎", False),
        ("b", True),
        (" ", False),
    ]


def test_entities_in_no_token() -> None:
    doc = make_doc("a  b", gold=[("A", (0, 1))])
    nowhere = replace(doc.gold[0], places=((1, 2),))
    doc = replace(doc, gold=[nowhere], tokens=numpy.array([[0, 1], [3, 4]]))
    cells = draw_cells(doc, Excerpt(0, 0, 2, [Outcome(0, "missed", 0, None)]))
    assert [cell.lines for cell in cells] == [[], []]
