import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest
from matplotlib.colors import to_hex, to_rgba

from spacy_mtlner.evaluation import figures
from spacy_mtlner.evaluation.analysis import Analysis, Confusion, analyse_entities
from spacy_mtlner.evaluation.figures import (
    choose_fonts,
    draw_figures,
    lump_labels,
    render_figure,
    save_figures,
)
from spacy_mtlner.evaluation.training_log import TrainingLog
from tests.evaluation.builders import LABELS, make_doc, make_docs

SVG = "{http://www.w3.org/2000/svg}"
LOG = TrainingLog([0, 10], [0, 0], {"tok2vec": [3.0, 1.0], "ner": [4.0, 2.0]}, [0.1, 0.5])


def analyse(**settings: Any) -> Analysis:
    return analyse_entities(make_docs(), labels=LABELS, surfaces={}, log=LOG, **settings)


def random_analysis(n_labels: int = 4, n_docs: int = 100) -> Analysis:
    """Many gold entities with class probabilities, and predictions drawn from them."""
    rng = numpy.random.default_rng(0)
    labels = [f"L{i}" for i in range(n_labels)]
    docs = []
    for number in range(n_docs):
        gold = [(labels[rng.integers(n_labels)], (i, i + 1)) for i in range(3)]
        p = rng.dirichlet(numpy.full(n_labels + 1, 0.4), 3)
        predicted = [
            (float(row[best]), labels[best], (i, i + 1))
            for i, (row, best) in enumerate(zip(p, p[:, :-1].argmax(1), strict=True))
            if rng.random() < 0.8
        ]
        docs.append(make_doc("a b c", gold, predicted, p, number=number + 1))
    return analyse_entities(docs, labels=labels)


def points_of(figure: Any, gid: str) -> Any:
    """Points of the collection with an id."""
    (found,) = (c for axes in figure.axes for c in axes.collections if c.get_gid() == gid)
    return numpy.asarray(found.get_offsets())


def count_in_svg(figure: Any, gid: str) -> int:
    root = ElementTree.fromstring(render_figure(figure, "svg"))
    (group,) = (g for g in root.iter(f"{SVG}g") if g.get("id") == gid)
    # A few points are paths of their own; many refer to one.
    return len(list(group.iter(f"{SVG}use"))) or len(list(group.iter(f"{SVG}path")))


def test_all_figures_are_drawn_and_saved(tmp_path: Path) -> None:
    drawn = draw_figures(analyse())
    assert set(drawn) == set(figures.FIGURES)
    save_figures(drawn, tmp_path / "new" / "figures")
    for name in drawn:
        png = (tmp_path / "new" / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        ElementTree.parse(tmp_path / "new" / "figures" / f"{name}.svg")


def test_what_is_left_out_is_not_drawn() -> None:
    analysis = analyse_entities([make_doc("a")], labels=["A"])
    assert draw_figures(analysis) == {}
    assert set(analysis.left_out) == set(figures.FIGURES)


def test_points_are_all_there() -> None:
    """Each gold entity is a point of the two figures, where its numbers say, and none is more."""
    analysis = random_analysis()
    points = analysis.points
    assert points is not None and len(points.gold) == 300
    drawn = draw_figures(analysis)
    pca = drawn["pca"]
    for name, kept in (("right", points.is_right), ("wrong", ~points.is_right)):
        assert points_of(pca, f"points-{name}") == pytest.approx(points.components[kept])
        assert count_in_svg(pca, f"points-{name}") == kept.sum() > 10
    volcano = drawn["discrepancy"]
    total = 0
    for name in ("up", "stable", "down"):
        kept = numpy.array(points.category) == name
        expected = numpy.stack([points.ratio[kept], points.desire[kept]], 1)
        assert points_of(volcano, f"points-{name}") == pytest.approx(expected)
        assert count_in_svg(volcano, f"points-{name}") == kept.sum()
        assert (
            f"({kept.sum()})"
            in volcano.legends[0].get_texts()[("stable", "up", "down").index(name)].get_text()
        )
        total += int(kept.sum())
    assert total == 300


def test_colours_of_points_are_those_of_their_labels() -> None:
    analysis = random_analysis()
    points = analysis.points
    assert points is not None
    pca = draw_figures(analysis)["pca"]
    legend = pca.legends[0]
    colours = {
        text.get_text(): to_hex(patch.get_facecolor())
        for text, patch in zip(legend.get_texts()[2:], legend.get_patches(), strict=True)
    }
    assert set(colours) == {"L0", "L1", "L2", "L3"}
    (right,) = (c for c in pca.axes[0].collections if c.get_gid() == "points-right")
    gold = [g for g, is_right in zip(points.gold, points.is_right, strict=True) if is_right]
    assert [to_hex(c) for c in right.get_facecolors()] == [colours[label] for label in gold]
    (wrong,) = (c for c in pca.axes[0].collections if c.get_gid() == "points-wrong")
    assert len(wrong.get_facecolors()) == 0  # Hollow.


def test_many_points_are_one_image_but_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_MANY_POINTS", 100)
    pca = draw_figures(random_analysis())["pca"]
    assert sum(len(points_of(pca, f"points-{x}")) for x in ("right", "wrong")) == 300
    assert b"<image" in render_figure(pca, "svg")


def test_violins_are_of_the_true_probabilities() -> None:
    analysis = random_analysis()
    points = analysis.points
    assert points is not None
    (axes,) = draw_figures(analysis)["true_probability"].axes
    # The first two bodies are those of all labels: as far as the lowest and highest value.
    for body, kept in zip(axes.collections[:2], (points.is_right, ~points.is_right), strict=True):
        heights = body.get_paths()[0].vertices[:, 1]
        values = points.true[kept]
        assert (heights.min(), heights.max()) == pytest.approx((values.min(), values.max()))
    medians = [line.get_ydata()[0] for line in axes.lines[1::2]]
    assert medians[:2] == pytest.approx(
        [numpy.median(points.true[points.is_right]), numpy.median(points.true[~points.is_right])]
    )
    sizes = [text.get_text().split("\n")[1] for text in axes.get_xticklabels()]
    n_right = points.is_right.sum()
    assert sizes[0] == f"{n_right} | {300 - n_right}"
    assert sum(int(n) for size in sizes[1:] for n in size.split(" | ")) == 300


def test_few_points_are_no_violin() -> None:
    (axes,) = draw_figures(analyse())["true_probability"].axes
    n_points = [len(c.get_offsets()) for c in axes.collections]
    assert n_points[:2] == [2, 4]  # Right and wrong ones of all labels.


def test_confusion_shows_all_counts() -> None:
    analysis = analyse()
    (axes,) = draw_figures(analysis)["confusion"].axes
    shown = {
        (int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts
    }
    counts = analysis.confusion.counts
    assert shown == {(r, c): counts[r, c] for r, c in zip(*counts.nonzero(), strict=True)}
    mesh = axes.collections[0]
    filled = numpy.asarray(mesh.get_array())[..., 3] > 0
    assert (filled == (counts > 0)).all()
    assert [t.get_text() for t in axes.get_yticklabels()] == ["A", "B", "C", "(spurious)"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "B", "C", "(missed)"]


@pytest.mark.parametrize("n_labels", [1, 25, 26, 100])
def test_any_number_of_labels(n_labels: int) -> None:
    analysis = random_analysis(n_labels, n_docs=30)
    drawn = draw_figures(analysis)
    (axes,) = drawn["confusion"].axes
    assert len(axes.get_yticklabels()) == min(n_labels, 25) + 1
    assert sum(len(points_of(drawn["pca"], f"points-{x}")) for x in ("right", "wrong")) == 90
    names, counts = lump_labels(analysis.confusion, 25)
    assert counts.sum() == analysis.confusion.counts.sum()
    assert counts[:-1].sum() == analysis.confusion.counts[:-1].sum()
    assert len(names) == len(counts)
    render_figure(drawn["confusion"], "png")
    # Several labels are put together in the last cell: it does not say that they are right.
    (mesh,) = axes.collections[:1]
    diagonal = mesh.get_facecolor().reshape(len(names), len(names), 4).diagonal()[:3].T
    n_colours = len({tuple(colour) for colour in diagonal[:-1].tolist()})
    assert n_colours == (2 if n_labels > 25 else 1)


def test_lumped_labels_are_the_rarest() -> None:
    counts = numpy.diag([5, 1, 9, 2, 0])
    counts[1, 3] = 4
    names, lumped = lump_labels(Confusion(["a", "b", "c", "d"], counts), 3)
    assert names == ["a", "c", "2 others", ""]
    assert lumped.tolist() == [[5, 0, 0, 0], [0, 9, 0, 0], [0, 0, 7, 0], [0, 0, 0, 0]]


def test_groups_show_their_scores() -> None:
    analysis = analyse()
    (axes,) = draw_figures(analysis)["entity_length"].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([100 * (g.f1 or 0) for g in analysis.entity_length])
    figure = draw_figures(analysis)["entity_length"]
    assert points_of(figure, "points-recall")[:, 1] == pytest.approx(
        [100 * (g.recall or 0) for g in analysis.entity_length]
    )
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert labels == [f"{g.name}\n{g.gold}\n{g.predicted}" for g in analysis.entity_length]


def test_calibration_and_loss_show_their_numbers() -> None:
    analysis = analyse()
    drawn = draw_figures(analysis)
    axes, histogram = drawn["calibration"].axes
    assert analysis.calibration is not None
    counts = analysis.calibration.counts
    assert [bar.get_height() for bar in histogram.patches] == counts.tolist()
    curve = axes.containers[0].lines[0].get_xydata()
    kept = counts > 0
    assert curve[:, 1] == pytest.approx(analysis.calibration.precision[kept])
    losses, scores = drawn["loss"].axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[3.0, 1.0], [4.0, 2.0]]
    assert [t.get_text() for t in losses.get_legend().get_texts()] == ["tok2vec", "ner"]
    assert scores.lines[0].get_ydata().tolist() == [10.0, 50.0]


def test_labels_are_no_mathematics() -> None:
    doc = make_doc("a", gold=[("$x_1$ & <b>", (0, 1))], predicted=[(0.5, "a$b$c", (0, 1))])
    svg = render_figure(
        draw_figures(analyse_entities([doc], labels=[]))["confusion"], "svg"
    ).decode()
    assert "$x_1$ &amp; &lt;b&gt;" in svg and "a$b$c" in svg


def test_chinese_labels_render() -> None:
    with warnings.catch_warnings(record=True) as caught:
        choose_fonts("地点人名")
    if caught:
        pytest.skip("no font with Chinese characters is installed")
    doc = make_doc("a", gold=[("地点", (0, 1))], predicted=[(0.5, "人名", (0, 1))])
    figure = draw_figures(analyse_entities([doc], labels=["地点", "人名"]))["confusion"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs that are missing.
        render_figure(figure, "png")
    assert "地点" in render_figure(figure, "svg").decode("utf-8")


def test_fonts() -> None:
    assert choose_fonts("protein ÄÖ Ω") == ("DejaVu Sans",)


def test_missing_fonts_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_list_fallbacks", lambda: iter(()))
    figures._choose_fonts.cache_clear()
    with pytest.warns(UserWarning, match=r"'人名地点'.*fonts-noto-cjk"):
        choose_fonts("地点人名")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_fonts("地点人名") == ("DejaVu Sans",)
    figures._choose_fonts.cache_clear()


def test_same_numbers_same_file() -> None:
    first, second = (render_figure(draw_figures(analyse())["pca"], "svg") for _ in range(2))
    assert first == second
    assert b"<dc:date" not in first


def test_background() -> None:
    figure = draw_figures(analyse())["seen"]
    assert b"fill: #ffffff" in render_figure(figure, "svg")
    assert b"fill: #ffffff" not in render_figure(figure, "svg", background="none")
    assert to_rgba("none")[3] == 0


def test_error_without_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import spacy_mtlner.cli\n"
        "try:\n    import spacy_mtlner.evaluation.figures\n"
        "except ImportError as err:\n    print(err)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'spacy-mtlner[plots]'" in result.stdout, result.stderr


def test_log_of_one_evaluation() -> None:
    analysis = analyse()
    log = TrainingLog([0], [0], {"ner": [3.0]}, [0.0])
    render_figure(draw_figures(replace(analysis, log=log))["loss"], "png")
