"""An analysis as one HTML page that needs nothing beside it."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spacy_mtlner.about import __version__
from spacy_mtlner.entities import Fragments
from spacy_mtlner.evaluation.analysis import (
    FLOOR,
    TOLERANCE,
    Analysis,
    DocEntities,
    Excerpt,
    Outcome,
)

_POINTS_PER_REM = 11.5  # Of figures, whose letters have ten points.
_NAME_SIZE = 0.8  # Width of a character of a name under a text, relative to the text's.
_LONG_LABEL = 18  # Characters of a label that are shown under a text.
_SPACES = re.compile(r"\s+")
# Categories of characters that no line begins or ends with.
_NOT_FIRST = frozenset({"Pe", "Pf", "Po"})
_NOT_LAST = frozenset({"Ps", "Pi"})
_ENVIRONMENT = Environment(
    loader=PackageLoader("spacy_mtlner.evaluation", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


@dataclass(frozen=True)
class Source:
    """What an analysis is of.

    model (str): The pipeline's name.
    component (str): The component's name.
    factory (str): Its factory.
    corpus (str): The corpus.
    train (str): The training corpus, where it is given.
    key (str): The task's spans key.
    gold (str): Where the gold is: "spans" or "ents".
    n_skipped (int): Docs without annotation for the task.
    """

    model: str
    component: str
    factory: str
    corpus: str
    train: str
    key: str
    gold: str
    n_skipped: int


class Mark(NamedTuple):
    """An entity, or two with the same fragments, as it is drawn under a text.

    kind (str): "right", "gold" for one that is gold alone, "predicted" for one that is not gold.
    name (str): What stands under its first token.
    title (str): What a pointer over it shows.
    places (Fragments): Its characters.
    is_focus (bool): Whether the text is shown for it.
    """

    kind: str
    name: str
    title: str
    places: Fragments
    is_focus: bool


class Line(NamedTuple):
    """What is drawn under a token on one level.

    style (str): Classes: the mark's kind, "gap" between its fragments, "first", "last", "focus".
    name (str): The mark's name, under its first token.
    title (str): The mark's title.
    """

    style: str
    name: str
    title: str


class Cell(NamedTuple):
    """A token of a text with what is drawn under it.

    text (str): The token.
    space (bool): Whether white space follows.
    lines (list[Line]): One for each level.
    """

    text: str
    space: bool
    lines: list[Line]


_EMPTY = Line("", "", "")


def make_html(
    analysis: Analysis, source: Source, figures: Mapping[str, str], *, ink: str = ""
) -> str:
    """Write an analysis as one page.

    analysis (Analysis): The numbers.
    source (Source): What they are of.
    figures (Mapping[str, str]): The figures' SVG by name.
    ink (str): The figures' colour of text and lines, for which that of the page is taken.
    RETURNS (str): The page.
    """
    template = _ENVIRONMENT.get_template("report.html.jinja")
    page = template.render(
        analysis=analysis,
        source=source,
        version=__version__,
        svg={name: inline_svg(svg, name, ink) for name, svg in figures.items()},
        chapters=_CHAPTERS,
        figure_texts=_FIGURE_TEXTS,
        kinds=_KINDS,
        draw=lambda excerpt: group_cells(draw_cells(analysis.docs[excerpt.doc], excerpt)),
        describe=lambda outcome: _describe(analysis, outcome),
        count_focuses=lambda excerpts: sum(len(excerpt.focuses) for excerpt in excerpts),
        number=_number,
        percent=_percent,
        floor=FLOOR,
        tolerance=TOLERANCE,
    )
    return page.strip() + "\n"


def inline_svg(svg: str, name: str, ink: str = "") -> Markup:
    """Make an SVG file a part of a page: without its head and metadata, with ids of its own.

    svg (str): The file.
    name (str): The figure's name, for the ids.
    ink (str): A colour to replace by that of the text around.
    RETURNS (Markup): The element.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style\b.*?</style>", "", svg, flags=re.DOTALL)
    # Only within tags: a label may look like anything.
    svg = re.sub(r"<[^>]+>", lambda tag: _adapt_tag(tag[0], name, ink), svg)
    head, rest = svg.split(">", 1)
    # As wide as there is room for, but no letters larger than those around.
    width = float(re.findall(r' width="([\d.]+)pt"', head)[0]) / _POINTS_PER_REM
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    svg = f'{head} style="max-width: {width:.1f}rem">{rest}'
    label = _FIGURE_TEXTS[name][0] if name in _FIGURE_TEXTS else name
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    # The file is our own; matplotlib escapes what is written in it.
    return opening + Markup(svg.removeprefix("<svg"))


def _adapt_tag(tag: str, name: str, ink: str) -> str:
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return re.sub(re.escape(ink), "currentColor", tag, flags=re.IGNORECASE) if ink else tag


def draw_cells(doc: DocEntities, excerpt: Excerpt) -> list[Cell]:
    """Draw the entities of an excerpt under its tokens, on as many levels as overlap.

    doc (DocEntities): The doc.
    excerpt (Excerpt): The excerpt.
    RETURNS (list[Cell]): Its tokens.
    """
    tokens = doc.tokens[excerpt.start : excerpt.end]
    marks = [mark for outcome in excerpt.outcomes for mark in _make_marks(doc, outcome, excerpt)]
    # Longer ones lie above, as those are that the others are nested in.
    marks.sort(key=lambda m: (m.places[0][0], -m.places[-1][1], m.name))
    covers = [_cover(mark.places, tokens).nonzero()[0] for mark in marks]
    # White space may be in no token.
    marks = [mark for mark, cover in zip(marks, covers, strict=True) if len(cover)]
    covers = [cover for cover in covers if len(cover)]
    levels = _stack(marks, covers, _find_columns(doc.text, tokens))
    grid: list[list[Line]] = [[] for _ in tokens]
    for mark, cover, level in zip(marks, covers, levels, strict=True):
        inside = set(cover.tolist())
        for i in range(cover[0], cover[-1] + 1):
            style = [mark.kind]
            if i not in inside:
                style.append("gap")
            else:
                style += ["first"] * (i - 1 not in inside) + ["last"] * (i + 1 not in inside)
            if mark.is_focus:
                style.append("focus")
            grid[i] += [_EMPTY] * (level + 1 - len(grid[i]))
            name = mark.name if i == cover[0] else ""
            grid[i][level] = Line(" ".join(style), name, mark.title)
    cells = []
    for i, (start, end) in enumerate(tokens.tolist()):
        behind = tokens[i + 1, 0] if i + 1 < len(tokens) else end
        text = _SPACES.sub(_show_spaces, doc.text[start:end])
        cells.append(Cell(text, bool(behind > end), grid[i]))
    return cells


def _show_spaces(spaces: re.Match[str]) -> str:
    return "⏎" if "\n" in spaces[0] else " "


def _make_marks(doc: DocEntities, outcome: Outcome, excerpt: Excerpt) -> list[Mark]:
    first, last = doc.tokens[excerpt.start, 0], doc.tokens[excerpt.end - 1, 1]
    gold = None if outcome.gold is None else doc.gold[outcome.gold]
    predicted = None if outcome.predicted is None else doc.predicted[outcome.predicted]
    is_focus = outcome in excerpt.focuses
    marks = []
    if gold and predicted and outcome.kind == "right":
        title = f"{gold.label}: gold and predicted, score {predicted.score:.3f}"
        marks.append(Mark("right", _shorten(gold.label), title, gold.places, is_focus))
    else:
        if gold:
            title = f"{gold.label}: gold, not predicted ({outcome.kind})"
            marks.append(Mark("gold", _shorten(gold.label), title, gold.places, is_focus))
        if predicted:
            title = (
                f"{predicted.label}: predicted with score {predicted.score:.3f}, not gold "
                f"({outcome.kind})"
            )
            name = f"{_shorten(predicted.label)} {predicted.score:.2f}"
            marks.append(Mark("predicted", name, title, predicted.places, is_focus))
    return [mark for mark in marks if any(a < last and first < b for a, b in mark.places)]


def _cover(places: Fragments, tokens: Any) -> Any:
    """Whether each token has characters of the fragments: (n_tokens,)."""
    covers = [
        (tokens[:, 0] < max(end, start + 1)) & (start < tokens[:, 1]) for start, end in places
    ]
    return numpy.any(covers, axis=0)


def _find_columns(text: str, tokens: Any) -> list[tuple[int, int]]:
    """First column and the one behind the last of each token, were the text on one line."""
    columns, column, last = [], 0, None
    for start, end in tokens.tolist():
        column += last is not None and start > last
        width = sum(2 if _is_wide(char) else 1 for char in text[start:end])
        columns.append((column, column + width))
        column, last = column + width, end
    return columns


def _stack(
    marks: Sequence[Mark], covers: Sequence[Any], columns: Sequence[tuple[int, int]]
) -> list[int]:
    """The first level on which each mark, and the name under it, meets no one before it."""
    ends: list[list[tuple[float, float]]] = []
    levels = []
    for mark, cover in zip(marks, covers, strict=True):
        start, end = columns[cover[0]][0], columns[cover[-1]][1]
        width = sum(2 if _is_wide(char) else 1 for char in mark.name)
        behind = max(end, start + _NAME_SIZE * width + 1)
        level = 0
        while level < len(ends) and any(a < behind and start < b for a, b in ends[level]):
            level += 1
        if level == len(ends):
            ends.append([])
        ends[level].append((start, behind))
        levels.append(level)
    return levels


def group_cells(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Put the tokens together between which a line must not break: those without white space
    between them, other than in scripts that are written without any.

    cells (Iterable[Cell]): The tokens.
    RETURNS (list[list[Cell]]): The groups.
    """
    groups: list[list[Cell]] = []
    last = " "
    for cell in cells:
        first = cell.text[:1]
        is_bound = not last.isspace() and (
            unicodedata.category(first) in _NOT_FIRST
            or unicodedata.category(last) in _NOT_LAST
            or not (_is_wide(first) or _is_wide(last))
        )
        if is_bound:
            groups[-1].append(cell)
        else:
            groups.append([cell])
        last = " " if cell.space else cell.text[-1]
    return groups


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def _shorten(label: str) -> str:
    return label if len(label) <= _LONG_LABEL else f"{label[: _LONG_LABEL - 1]}…"


def _describe(analysis: Analysis, outcome: Outcome) -> dict[str, Any]:
    """What is said of an entity that a text is shown for."""
    doc = analysis.docs[outcome.doc]
    gold = None if outcome.gold is None else doc.gold[outcome.gold]
    predicted = None if outcome.predicted is None else doc.predicted[outcome.predicted]
    probability = None
    if gold is not None and doc.probabilities is not None and analysis.points is not None:
        labels = [*analysis.points.labels]
        row = doc.probabilities[outcome.gold]
        if not numpy.isnan(row).any():
            probability = float(row[labels.index(gold.label)]) if gold.label in labels else 0.0
    return {
        "kind": outcome.kind,
        "gold": gold,
        "predicted": predicted,
        "probability": probability,
    }


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1g}" if 0 < value < 0.0005 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


_KINDS = {
    "right": "same fragments, same label",
    "label": "same fragments, another label",
    "boundary": "overlaps an entity of the same label that is not matched either",
    "label and boundary": "overlaps only entities of other labels that are not matched either",
    "missed": "overlaps no predicted entity that is not matched",
    "spurious": "overlaps no gold entity that is not matched",
}

# The figures' titles, and what they show.
_FIGURE_TEXTS = {
    "confusion": (
        "Confusion matrix",
        "Entities whose fragments are exactly those of a gold entity, by gold and predicted label. "
        "All others are missed or spurious, wrong boundaries as well. Shades are shares of a row; "
        "labels beyond the most frequent ones are put together as others, and what is right among "
        "them is not told from what is wrong.",
    ),
    "entity_length": (
        "F1 by length of the entity",
        "Gold and predicted entities are each sorted by their own length. Recall is over the gold "
        "ones of a group, precision over the predicted ones.",
    ),
    "sentence_length": (
        "F1 by length of the sentence",
        "Sentences of the gold, or whole docs where it has none.",
    ),
    "training_frequency": (
        "F1 by frequency in training",
        "How often the training data has the entity's surface form with its label.",
    ),
    "seen": (
        "F1 by whether the surface form was seen",
        "Whether the training data has the entity's surface form: with its label, with other "
        "labels only, or never.",
    ),
    "calibration": (
        "Calibration of the scores",
        "Predicted entities in ten bins of their score, and how many of each bin are right. Below "
        "the diagonal the component is too sure. The expected calibration error is the mean "
        "distance from it, weighted by the entities.",
    ),
    "pca": (
        "Class probabilities, in two dimensions",
        "Each point is a gold entity: the probabilities of all labels and of no entity for its "
        "fragments, along their first two principal components. Crosses are where a class would "
        "have probability 1.",
    ),
    "true_probability": (
        "Probability of the true label",
        "Distribution over the gold entities that were found (right) and those that were not "
        "(wrong), with medians. Groups of fewer than ten are drawn as points.",
    ),
    "discrepancy": (
        "Discrepancy of output and truth",
        "Each point is a gold entity. To the right of 0 the component held what it gave out for "
        "more probable than the truth: it did not know better. To the left the truth was more "
        "probable, but a threshold, or entities around it, decided otherwise.",
    ),
    "loss": (
        "Training loss",
        "Mean loss of a step since the evaluation before, and the score at the evaluations.",
    ),
}

_CHAPTERS = {
    "labels": "Labels",
    "errors": "Kinds of errors",
    "confusion": "Confusion matrix",
    "groups": "What makes entities hard",
    "calibration": "Can the scores be trusted?",
    "classes": "Class probabilities",
    "loss": "Training",
    "confident": "The most confident errors",
    "unlikely": "The least probable gold",
    "complex": "Discontinuous and nested entities",
    "about": "About this report",
}
