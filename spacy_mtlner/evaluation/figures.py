"""The figures of an analysis, drawn with matplotlib: the extra `plots`."""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy

from spacy_mtlner.evaluation.analysis import (
    FLOOR,
    Analysis,
    Category,
    ClassPoints,
    Confusion,
    FloatArray,
    Group,
)

try:
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, NullFormatter
except ImportError as err:
    raise ImportError(
        "Figures need matplotlib. Install it with: pip install 'spacy-mtlner[plots]'"
    ) from err

# The colour of all text and lines: the report replaces it by that of its own text.
INK = "#1f2329"
RIGHT, WRONG, NEUTRAL = "#3b82c4", "#d1577f", "#8c959f"
_LABEL_COLOURS = (
    *("#3b82c4", "#e08a1e", "#2a9d6f", "#c65fa5"),
    *("#8a63d2", "#d1495b", "#3aa6b9", "#9a8c2c"),
)
_CATEGORIES: dict[Category, tuple[str, str, str]] = {
    "up": ("^", "#d1495b", "Up: output more probable than truth"),
    "stable": ("o", NEUTRAL, "Stable: output is the truth"),
    "down": ("v", RIGHT, "Down: truth more probable than output"),
}
_N_CONFUSED = 25  # Labels of the confusion matrix that have a row of their own.
_N_COUNTED = 15  # Labels up to which its cells are large enough for their counts.
_MANY_POINTS = 10_000  # From then on points are one image, also in SVG.
_FEW_POINTS = 10  # Below that points are drawn instead of a violin.
_WIDTH = 6.4
_SVG_METADATA = ("Creator", "Date", "Format", "Type")
_NOTHING = "no entity"

# Fonts with Chinese, Japanese and Korean characters, as systems have them.
CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("Source Han Sans CN", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC"),
    *("Hiragino Sans GB", "Heiti SC", "Microsoft YaHei", "SimHei", "Noto Serif CJK SC"),
    *("Arial Unicode MS", "Droid Sans Fallback", "Unifont"),
)
_BASE_FONT = "DejaVu Sans"  # Comes with matplotlib.
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": NEUTRAL,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "spacy_mtlner",
    "text.color": INK,
    "text.parse_math": False,  # A label may have a dollar sign.
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_figures(analysis: Analysis) -> dict[str, Figure]:
    """Draw all figures that can be drawn.

    analysis (Analysis): The numbers.
    RETURNS (dict[str, Figure]): The figures by name; those in `analysis.left_out` are missing.
    """
    texts = (*analysis.confusion.labels, *(analysis.log.losses if analysis.log else ()))
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context({**_STYLE, "font.family": [*choose_fonts("".join(texts))]}):
        for name, draw in FIGURES.items():
            if name not in analysis.left_out:
                figures[name] = draw(analysis)
    return figures


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Save figures as PNG and SVG. Those of an earlier analysis that are no more are removed.

    figures (Mapping[str, Figure]): The figures by name.
    folder (Path): Where to write `<name>.png` and `<name>.svg`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES.keys() - figures.keys():
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").write_bytes(render_figure(figure, suffix))


def render_figure(figure: Figure, suffix: str, *, background: str = "white") -> bytes:
    """Render a figure.

    figure (Figure): The figure.
    suffix (str): "png" or "svg".
    background (str): Colour of the background; "none" for a transparent one.
    RETURNS (bytes): The file.
    """
    buffer = io.BytesIO()
    # Without a date the same numbers give the same file.
    metadata = dict.fromkeys(_SVG_METADATA) if suffix == "svg" else {"Software": None}
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=suffix, metadata=metadata, facecolor=background)
    return buffer.getvalue()


def choose_fonts(text: str) -> tuple[str, ...]:
    """Choose fonts that have all characters of a text, and warn if there are none.

    text (str): The text.
    RETURNS (tuple[str, ...]): Names of font families, matplotlib's own first.
    """
    return _choose_fonts(frozenset(char for char in text if char.isprintable()))


@lru_cache(maxsize=16)
def _choose_fonts(chars: frozenset[str]) -> tuple[str, ...]:
    fonts = [_BASE_FONT]
    own = font_manager.findfont(_BASE_FONT)
    missing = {ord(char) for char in chars} - _read_characters(own)
    if not missing:
        return (_BASE_FONT,)
    for path, family in _list_fallbacks():
        covered = missing & _read_characters(path)
        if covered:
            missing -= covered
            fonts.append(family)
        if not missing:
            break
    if missing:
        shown = "".join(map(chr, sorted(missing)[:10]))
        warnings.warn(
            f"No installed font has the characters {shown!r} of the labels: figures show boxes in "
            f"their place. Install one, for Chinese, Japanese and Korean for instance Noto Sans "
            f"CJK (Debian and Ubuntu: apt-get install fonts-noto-cjk).",
            stacklevel=3,
        )
    return tuple(fonts)


def _list_fallbacks() -> Iterable[tuple[str, str]]:
    """Path and family of the fonts to try, those for Chinese, Japanese and Korean first."""
    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    # matplotlib keeps a list of the fonts, and does not notice those that are installed later.
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError):
                continue
    regular = [f for f in manager.ttflist if f.style == "normal" and f.weight in (400, "normal")]
    order = {name: i for i, name in enumerate(CJK_FONTS)}
    regular.sort(key=lambda font: (order.get(font.name, len(order)), font.name))
    for font in regular:
        yield font.fname, font.name


def _read_characters(path: str) -> set[int]:
    try:
        return set(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return set()


def _make_axes(height: float, width: float = _WIDTH, **settings: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**settings)


def _draw_loss(analysis: Analysis) -> Figure:
    log = analysis.log
    assert log is not None
    figure, (loss_axes, score_axes) = _make_axes(4.2, nrows=2, sharex=True, height_ratios=(3, 2))
    marker = "o" if len(log.steps) < 40 else ""
    for colour, (name, losses) in zip(_cycle_colours(), log.losses.items(), strict=False):
        loss_axes.plot(log.steps, losses, marker=marker, ms=4, lw=1.8, color=colour, label=name)
    loss_axes.set_ylabel("mean loss of a step")
    loss_axes.set_ylim(bottom=0)
    loss_axes.legend()
    scores = [100 * score for score in log.scores]
    score_axes.plot(log.steps, scores, marker=marker, ms=4, lw=1.8, color="#2a9d6f")
    score_axes.set_ylabel("score, %")
    score_axes.set_xlabel("step")
    score_axes.set_ylim(0, 100)
    return figure


def _cycle_colours() -> Iterable[str]:
    while True:
        yield from _LABEL_COLOURS


def _draw_confusion(analysis: Analysis) -> Figure:
    names, counts = lump_labels(analysis.confusion, _N_CONFUSED)
    n = len(names)
    size = min(10.0, max(4.2, 1.9 + 0.48 * n))
    figure = Figure(figsize=(max(_WIDTH, size * 1.05), size), layout="constrained")
    axes = figure.subplots()
    shares = counts / numpy.maximum(counts.sum(1, keepdims=True), 1)
    colours = numpy.empty((n, n, 4))
    colours[:] = matplotlib.colors.to_rgba("#e8743b")
    colours[numpy.arange(n - 1), numpy.arange(n - 1)] = matplotlib.colors.to_rgba("#4f9be8")
    if n <= len(analysis.confusion.labels):  # The last one is several labels, right and wrong.
        colours[n - 2, n - 2] = matplotlib.colors.to_rgba(NEUTRAL)
    colours[..., 3] = numpy.where(counts > 0, 0.06 + 0.74 * shares, 0)
    axes.pcolormesh(colours, edgecolors="none")
    axes.set_xticks(numpy.arange(n) + 0.5, [*names[:-1], "(missed)"], rotation=45, ha="left")
    axes.set_yticks(numpy.arange(n) + 0.5, [*names[:-1], "(spurious)"])
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_ylim(n, 0)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("gold label")
    axes.xaxis.set_label_position("top")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for border in (0, n - 1, n):
        axes.axhline(border, color=NEUTRAL, lw=0.8)
        axes.axvline(border, color=NEUTRAL, lw=0.8)
    if n <= _N_COUNTED + 1:
        for row, column in zip(*counts.nonzero(), strict=True):
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=9 if n <= 10 else 7,
            )
    return figure


def lump_labels(confusion: Confusion, n: int) -> tuple[list[str], Any]:
    """Keep the most frequent labels of a confusion matrix, and put the others together.

    confusion (Confusion): The matrix.
    n (int): The most rows of labels.
    RETURNS (tuple[list[str], NDArray[numpy.int64]]): The names of the rows, the last one empty, and
        the counts, which have the same sum.
    """
    counts, labels = confusion.counts, confusion.labels
    if len(labels) <= n:
        return [*labels, ""], counts
    weight = counts[:-1].sum(1) + counts[:, :-1].sum(0)
    kept = sorted(numpy.argsort(-weight, kind="stable")[: n - 1].tolist())
    place = numpy.full(len(labels) + 1, n - 1)
    place[kept] = numpy.arange(n - 1)
    place[-1] = n
    lumped = numpy.zeros((n + 1, n + 1), dtype=counts.dtype)
    numpy.add.at(lumped, (place[:, None], place), counts)
    return [*(labels[i] for i in kept), f"{len(labels) - n + 1} others", ""], lumped


def _draw_groups(groups: Sequence[Group], xlabel: str) -> Figure:
    figure, axes = _make_axes(3.3, width=5.6)
    x = numpy.arange(len(groups))
    axes.bar(
        x,
        [100 * (g.f1 or 0) for g in groups],
        width=0.6,
        color=RIGHT,
        alpha=0.55,
        label="F1",
    )
    for name, marker, colour in (("precision", "D", "#e08a1e"), ("recall", "s", "#8a63d2")):
        values = [getattr(g, name) for g in groups]
        known = [(i, 100 * value) for i, value in enumerate(values) if value is not None]
        if known:
            points = axes.scatter(*zip(*known, strict=True), s=26, marker=marker, color=colour)
            points.set_label(name)
            points.set_gid(f"points-{name}")
    axes.set_xticks(x, [f"{g.name}\n{g.gold:,}\n{g.predicted:,}" for g in groups])
    axes.tick_params(axis="x", length=0, labelsize=9)
    axes.set_xlim(-0.6, max(len(groups), 3) - 0.4)
    axes.set_ylim(0, 103)
    axes.set_ylabel("%")
    axes.set_xlabel(f"{xlabel} (below: gold, predicted entities)")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _draw_calibration(analysis: Analysis) -> Figure:
    calibration = analysis.calibration
    assert calibration is not None
    figure, (axes, histogram) = _make_axes(4.8, nrows=2, sharex=True, height_ratios=(3, 1))
    filled = calibration.counts > 0
    scores, precision = calibration.scores[filled], calibration.precision[filled]
    errors = (precision - calibration.low[filled], calibration.high[filled] - precision)
    axes.plot((0, 1), (0, 1), ls="--", lw=1, color=NEUTRAL, label="perfectly calibrated")
    axes.errorbar(
        scores,
        precision,
        numpy.maximum(errors, 0),
        fmt="o-",
        ms=5,
        lw=1.6,
        elinewidth=1,
        capsize=3,
        color=RIGHT,
        label="predicted entities, with 95 % intervals",
    )
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share that is right")
    figure.legend(loc="outside upper left")
    axes.set_title(f"expected calibration error {calibration.error:.3f}", loc="right")
    widths = numpy.diff(calibration.edges)
    histogram.bar(
        calibration.edges[:-1], calibration.counts, widths * 0.94, align="edge", color=NEUTRAL
    )
    histogram.set_ylabel("entities")
    histogram.set_xlabel("score")
    histogram.set_xlim(0, 1)
    return figure


def _draw_pca(analysis: Analysis) -> Figure:
    points = analysis.points
    assert points is not None
    figure, axes = _make_axes(5.4)
    shown = [label for label, _ in Counter(points.gold).most_common(len(_LABEL_COLOURS))]
    colours = dict(zip(shown, _LABEL_COLOURS, strict=False))
    n_others = len(set(points.gold)) - len(shown)
    of_point = numpy.array([colours.get(label, NEUTRAL) for label in points.gold])
    # Wrong ones lie above: there are fewer of them in a good model.
    for is_right, marker in ((True, "^"), (False, "o")):
        kept = points.is_right == is_right
        axes.scatter(
            *points.components[kept].T,
            s=18,
            marker=marker,
            facecolors=of_point[kept] if is_right else "none",
            edgecolors=of_point[kept],
            alpha=0.65,
            linewidths=0.3 if is_right else 0.9,
            rasterized=len(points.gold) > _MANY_POINTS,
            gid=f"points-{'right' if is_right else 'wrong'}",
        )
    _name_corners(axes, points, shown)
    axes.set_xlabel(f"first component ({points.explained[0]:.0%} of the variance)")
    axes.set_ylabel(f"second component ({points.explained[1]:.0%})")
    axes.margins(0.08)
    n_right = int(points.is_right.sum())
    handles: list[Any] = [
        _make_marker("^", NEUTRAL, f"right ({n_right:,})"),
        _make_marker("o", NEUTRAL, f"wrong ({len(points.gold) - n_right:,})", is_hollow=True),
        *(Patch(color=colour, label=label) for label, colour in colours.items()),
    ]
    if n_others:
        handles.append(Patch(color=NEUTRAL, label=f"{n_others} others"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _name_corners(axes: Axes, points: ClassPoints, shown: Sequence[str]) -> None:
    """Name the places of certainty, as far as they are apart from the middle."""
    names = [*points.labels, _NOTHING]
    distances = numpy.hypot(*points.corners.T)
    for name, corner, distance in zip(names, points.corners, distances, strict=True):
        if name in (*shown, _NOTHING) and distance > 0.45 * distances.max():
            axes.plot(*corner, marker="+", ms=9, color=INK, mew=1.4)
            axes.annotate(
                name,
                corner,
                xytext=(0, 7 if corner[1] >= 0 else -7),
                textcoords="offset points",
                ha="center",
                va="bottom" if corner[1] >= 0 else "top",
                fontsize=9,
                fontweight="bold",
            )


def _make_marker(marker: str, colour: str, label: str, *, is_hollow: bool = False) -> Line2D:
    face = "none" if is_hollow else colour
    return Line2D([], [], ls="", marker=marker, mfc=face, mec=colour, ms=6, label=label)


def _draw_true_probability(analysis: Analysis) -> Figure:
    points = analysis.points
    assert points is not None
    figure, axes = _make_axes(3.8)
    labels = [label for label, _ in Counter(points.gold).most_common(len(_LABEL_COLOURS))]
    gold = numpy.array(points.gold)
    names = []
    groups = [("all", numpy.ones(len(gold), dtype=bool))]
    if len(set(points.gold)) > 1:
        groups += ((label, gold == label) for label in labels)
    for place, (name, kept) in enumerate(groups):
        sizes = []
        for is_right, colour, offset in ((True, RIGHT, -0.2), (False, WRONG, 0.2)):
            values = points.true[kept & (points.is_right == is_right)]
            sizes.append(f"{len(values):,}")
            _draw_violin(axes, values, place + offset, colour)
        names.append(f"{name}\n{' | '.join(sizes)}")
    axes.set_xticks(range(len(groups)), names)
    axes.tick_params(axis="x", length=0, labelsize=9 if len(groups) < 7 else 7)
    axes.set_xlim(-0.6, max(len(groups), 3) - 0.4)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("probability of the true label")
    axes.set_xlabel("gold label (below: right | wrong)")
    axes.grid(axis="x", visible=False)
    handles = [Patch(color=RIGHT, label="right"), Patch(color=WRONG, label="wrong")]
    handles[0].set_alpha(0.75)
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _draw_violin(axes: Axes, values: FloatArray, place: float, colour: str) -> None:
    if not len(values):
        return
    if len(values) < _FEW_POINTS:
        axes.scatter(numpy.full(len(values), place), values, s=12, color=colour, alpha=0.8)
    else:
        parts = axes.violinplot([values], [place], widths=0.36, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=colour, edgecolor=colour, alpha=0.75, linewidth=0.8)
    median = float(numpy.median(values))
    for width, ink in ((4.0, INK), (2.2, "white")):
        axes.plot((place - 0.08, place + 0.08), (median, median), lw=width, color=ink)


def _draw_discrepancy(analysis: Analysis) -> Figure:
    points = analysis.points
    assert points is not None
    figure, axes = _make_axes(4.6)
    category = numpy.array(points.category)
    desire = numpy.maximum(points.desire, FLOOR)
    handles = []
    for name in ("stable", "up", "down"):
        marker, colour, meaning = _CATEGORIES[name]  # type: ignore[index]
        kept = category == name
        axes.scatter(
            points.ratio[kept],
            desire[kept],
            s=16,
            marker=marker,
            color=colour,
            alpha=0.5,
            linewidths=0,
            rasterized=len(category) > _MANY_POINTS,
            gid=f"points-{name}",
        )
        handles.append(_make_marker(marker, colour, f"{meaning} ({int(kept.sum()):,})"))
    axes.axvline(0, color=INK, lw=0.8, ls="--")
    axes.set_yscale("log")
    # Whole powers of ten, so that one is within at least.
    axes.set_ylim(
        10 ** numpy.floor(numpy.log10(desire.min()) - 0.05),
        10 ** numpy.ceil(numpy.log10(desire.max()) + 0.05),
    )
    axes.set_xlabel("log10 of the output's over the true label's probability")
    axes.set_ylabel("D: variance of the probabilities\nover the true label's")
    figure.legend(handles=handles, loc="outside upper center", ncols=1, fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return figure


FIGURES: dict[str, Callable[[Analysis], Figure]] = {
    "confusion": _draw_confusion,
    "entity_length": lambda a: _draw_groups(a.entity_length, "tokens of the entity"),
    "sentence_length": lambda a: _draw_groups(a.sentence_length, "tokens of the sentence"),
    "training_frequency": lambda a: _draw_groups(
        a.training_frequency, "times in the training data with this label"
    ),
    "seen": lambda a: _draw_groups(a.seen, "surface form seen in training"),
    "calibration": _draw_calibration,
    "pca": _draw_pca,
    "true_probability": _draw_true_probability,
    "discrepancy": _draw_discrepancy,
    "loss": _draw_loss,
}
