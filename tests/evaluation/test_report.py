import re
from pathlib import Path
from typing import Any

import pytest
import srsly

from spacy_mtlner.evaluation.report import make_report, read_metrics


def write_scores(path: Path, keys: tuple[str, ...] = ("mtlner",), **extra: Any) -> None:
    scores: dict[str, Any] = {"speed": 12345.6, **extra}
    for key in keys:
        for i, name in enumerate(["p", "r", "f", "boundary_f", "discontinuous_f", "nested_f"]):
            scores[f"spans_{key}_{name}"] = i / 10
        scores[f"spans_{key}_flat_f"] = None
        scores[f"spans_{key}_per_type"] = {"LOC": {"p": 1.0, "r": 0.5, "f": 0.667}}
    path.parent.mkdir(parents=True, exist_ok=True)
    srsly.write_json(path, scores)


def read_report(folder: Path) -> str:
    """The report, without the blanks that align its columns."""
    return re.sub(" +", " ", make_report(read_metrics(folder)))


def test_one_row_a_recipe_and_one_section_a_corpus(tmp_path: Path) -> None:
    write_scores(tmp_path / "news" / "bilstm.json")
    write_scores(tmp_path / "news" / "bigru.json")
    write_scores(tmp_path / "posts" / "bilstm.json")
    report = read_report(tmp_path)
    assert report.index("## news") < report.index("| bigru |") < report.index("## posts")
    assert report.count("| bilstm | 0.0 | 10.0 | 20.0 | 30.0 | 40.0 | 50.0 | - | 12,346 |") == 2
    assert report.count("| F1 | LOC |\n| ------ | ---: |\n") == 2
    assert "| bilstm | 66.7 |" in report


def test_several_keys_are_several_rows(tmp_path: Path) -> None:
    write_scores(tmp_path / "news" / "two.json", keys=("a", "b"))
    report = read_report(tmp_path)
    assert "| two (a) |" in report
    assert "| two (b) |" in report


def test_typing_has_a_table_of_its_own(tmp_path: Path) -> None:
    write_scores(tmp_path / "news" / "span.json")
    per_type = {"LOC": {"p": 1.0, "r": 0.5, "f": 0.25}}
    scores = {"typing_a_acc": 0.9, "typing_a_macro_f": 0.8, "typing_a_per_type": per_type}
    srsly.write_json(tmp_path / "news" / "typing.json", scores)
    report = read_report(tmp_path)
    assert "| entity typing | accuracy | macro F1 |" in report
    assert "| typing | 90.0 | 80.0 |" in report and "| typing | 25.0 |" in report
    assert "| span | 0.0 | 10.0 | 20.0 |" in report and "| span | 66.7 |" in report
    assert report.count("| typing |") == 2


def test_keys_that_the_corpus_does_not_have_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "news" / "two.json"
    write_scores(path, keys=("a", "b"))
    scores = srsly.read_json(path)
    srsly.write_json(path, {**scores, **{key: None for key in scores if "_b_" in key}})
    report = read_report(tmp_path)
    assert "| two (a) |" in report
    assert "(b)" not in report


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ('{"ents_f": 1.0}', "no scores of entities")],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "news" / "bad.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"bad\.json: {message}"):
        read_metrics(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no <corpus>/<recipe>\.json"):
        read_metrics(tmp_path)
