"""Studies: the file, the runs and what is written about them."""

import inspect
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import spacy
import srsly
import typer
from spacy.tokens import Doc, DocBin
from spacy.util import load_config
from typer.testing import CliRunner, Result

from spacy_mtlner.entities import Entity, write_entities

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "studies").glob("*.yml"))
TYPED = (0.6, 0.7)


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("study")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A config and corpora; a study with these settings can be run."""
    nlp = spacy.blank("en")
    for part in ("train", "dev", "test"):
        doc = Doc(nlp.vocab, words=["Ada", "saw", "New", "York", part])
        write_entities(doc, [Entity("PER", ((0, 1),)), Entity("LOC", ((2, 4),))], "mtlner")
        DocBin(docs=[doc, doc], store_user_data=True).to_disk(tmp_path / f"{part}.spacy")
    paths = {part: str(tmp_path / f"{part}.spacy") for part in ("train", "dev", "test")}
    return {"config": str(ROOT / "configs" / "pointer_en.cfg"), **paths}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Instead of training, scores that are the dropout plus a hundredth of the seed; the arguments
    of each run are put into this list. Dropout 0.9 fails, 0.8 kills the process; those in TYPED
    have scores of each type, of LOC but with seed 1.
    """
    runs: list[dict[str, Any]] = []
    real_run = subprocess.run

    def run(command: list[Any], **kwargs: Any) -> Any:
        if "study_run.py" not in str(command):  # matplotlib asks for the system's fonts.
            return real_run(command, **kwargs)
        folder = Path(command[-1])
        arguments = srsly.read_json(folder / "run.json")
        runs.append(arguments)
        dropout = arguments["overrides"].get("training.dropout", 0.2)
        if dropout == 0.8:
            return subprocess.CompletedProcess(command, -9)
        score = dropout + arguments["overrides"]["training.seed"] / 100
        names = ("p", "r", "f", "nested_f", "discontinuous_f")
        scores = {f"spans_mtlner_{name}": score for name in names}
        scores["speed"] = 1234.5
        if round(dropout, 1) in TYPED:  # What is read is not exact.
            seed = arguments["overrides"]["training.seed"]
            typed = {"PER": {"f": score}, **({"LOC": {"f": 0.4}} if seed else {})}
            scores["spans_mtlner_per_type"] = typed
        result = {"scores": scores, "seconds": 12.3, "parameters": 23_960_000}
        if dropout == 0.9:
            result = {"error": "ValueError: too | much"}
        srsly.write_json(folder / "result.json", result)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return runs


def dropouts(*values: float) -> dict[str, Any]:
    return {str(value): {"overrides": {"training.dropout": value}} for value in values}


def write_study(tmp_path: Path, study: Any) -> Path:
    path = tmp_path / "study.yml"
    srsly.write_yaml(path, study)
    return path


def run_script(script: ModuleType, path: Path, *args: object) -> tuple[Result, str]:
    """The result of the command, and its output without colours and line breaks."""
    app = typer.Typer()
    app.command()(script.main)
    output = ["--output", str(path.parent / "out")]
    result = CliRunner().invoke(app, [str(path), *output, *map(str, args)])
    return result, " ".join(re.sub(r"\x1b\[[\d;]*m", "", result.output).split())


def read_table(path: Path, title: str = "variant") -> dict[str, list[str]]:
    """Rows of all tables whose first column has a title, by the variant; the header as well."""
    text = (path.parent / "out" / "study.md").read_text(encoding="utf-8")
    tables = [part.split("\n") for part in text.split("\n\n") if re.match(rf"\| {title} +\|", part)]
    lines = [line for table in tables for line in table if line]
    cells = [re.split(r" +\| +", line.strip("| ")) for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_settings_are_inherited(script: ModuleType, tmp_path: Path) -> None:
    shared = {"config": "a.cfg", "train": "t", "dev": "d", "test": "e"}
    groups: list[dict[str, Any]] = [
        {"name": "one", "variants": {"plain": None, 0.1: {"config": "b.cfg", "test": None}}},
        {
            "name": "two",
            "x": "size",
            "dev": "D",
            "overrides": {"x.b": 2, "x.c": 2},
            "variants": {1: {"overrides": {"x.c": 3}}},
        },
    ]
    data = {"title": "T", **shared, "overrides": {"x.a": 1, "x.b": 1}, "groups": groups}
    study = script.read_study(write_study(tmp_path, data), None, {"x.a": 9, "x.c": 9})
    (plain, other), (third,) = (group.variants for group in study.groups)
    assert study.seeds == [0] and [group.x for group in study.groups] == [None, "size"]
    assert plain.name == "plain" and plain.overrides == {"x.a": 9, "x.b": 1, "x.c": 9}
    assert [str(file) for file in plain.list_files()] == ["a.cfg", "t", "d", "e"]
    assert other.name == "0.1" and other.config == Path("b.cfg") and other.test is None
    assert third.name == "1" and third.dev == Path("D") and third.test == Path("e")
    assert third.overrides == {"x.a": 9, "x.b": 2, "x.c": 9}


GOOD = {
    "title": "T",
    "config": "a.cfg",
    "train": "t",
    "dev": "d",
    "groups": [{"name": "g", "variants": {"v": None}}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([1], "the file: not an object"),
        ({"titel": "T"}, "unknown key 'titel'"),
        ({"title": None}, "title: not a text"),
        ({"seeds": 3}, "seeds: not a list of whole numbers"),
        ({"seeds": [True]}, "seeds: not a list of whole numbers"),
        ({"seeds": [1, 1]}, "seeds: one is there twice"),
        ({"config": None}, "config: not a text"),
        ({"overrides": [1]}, "overrides: not an object"),
        ({"overrides": {"steps": 1}}, "overrides: 'steps' is no setting"),
        ({"overrides": {"training.": 1}}, "overrides: 'training.' is no setting"),
        ({"overrides": {"a.b": {"c": 1}}}, "overrides: a.b is neither a number"),
        ({"overrides": {"training.seed": 1}}, "training.seed is set by the study's seeds"),
        ({"groups": []}, "groups: not a list"),
        ({"groups": ["g"]}, r"groups\[0\]: not an object"),
        ({"groups": [{"variants": {"v": None}}]}, r"groups\[0\].name: not a text"),
        ({"groups": [{"name": "g"}]}, r"groups\[0\] \(g\).variants: not an object"),
        ({"groups": GOOD["groups"] * 2}, "groups: two are named 'g'"),
        ({"groups": [{"name": "g", "variants": {True: None}}]}, "variants: True is no name"),
        (
            {"groups": [{"name": "g", "variants": {"1": None, 1: None}}]},
            "variants: two have the same name",
        ),
        (
            {"groups": [{"name": "g", "x": "beta", "variants": {"v": None, "nan": None}}]},
            r"\(g\).x: no variant's name is a number",
        ),
        (
            {"groups": [{"name": "g", "variants": {"v": {"steps": 1}}}]},
            r"\(g\).variants.v: unknown key 'steps'",
        ),
        (
            {"groups": [{"name": "g", "variants": {"v": {"overrides": {"paths.dev": "x"}}}}]},
            r"variants.v.overrides: paths.dev is set by the study's dev",
        ),
    ],
)
def test_bad_files_are_told_with_file_and_key(
    script: ModuleType, tmp_path: Path, change: Any, message: str
) -> None:
    data = {**GOOD, **change} if isinstance(change, dict) else change
    with pytest.raises(script.StudyError, match=rf"study\.yml: .*{message}"):
        script.read_study(write_study(tmp_path, data))


def test_settings_that_nobody_gives(script: ModuleType, tmp_path: Path) -> None:
    data = {key: value for key, value in GOOD.items() if key != "dev"}
    with pytest.raises(script.StudyError, match=r"\(g\)\.variants\.v: no dev"):
        script.read_study(write_study(tmp_path, data))


def test_files_that_are_not_yaml_or_not_there(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "study.yml"
    result, output = run_script(script, path)
    assert result.exit_code == 1 and "study.yml" in output
    path.write_text("title: [")
    result, output = run_script(script, path)
    assert result.exit_code == 1 and "study.yml: Invalid YAML" in output


def test_overrides_of_the_command_line(script: ModuleType) -> None:
    values = ["a.b=1", "a.c=x=y", "a.d= [1, 2]", "a.e=null", 'a.f="1"']
    assert script.parse_overrides(values) == {
        "a.b": 1,
        "a.c": "x=y",
        "a.d": [1, 2],
        "a.e": None,
        "a.f": "1",
    }
    for bad in ("a.b", "steps=1", "training.seed=1"):
        with pytest.raises(script.StudyError, match="--set"):
            script.parse_overrides([bad])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies(script: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their settings are there, and only corpora have to be made."""
    monkeypatch.chdir(ROOT)
    for group in script.read_study(path).groups:
        for variant in group.variants:
            missing = {file.parts[0] for file in variant.list_files() if not file.exists()}
            assert missing <= {"corpus"}
            config = load_config(variant.config)
            for name in variant.overrides:
                section: Any = config
                for part in name.split("."):
                    section = section[part]


def test_each_setting_is_trained_once(
    script: ModuleType, tmp_path: Path, files: dict[str, str], trained: list[Any]
) -> None:
    same = {"plain": None, "0.2": {"overrides": {"training.dropout": 0.2}}}
    groups = [
        {"name": "a", "variants": same},
        {"name": "b", "x": "training.dropout", "variants": dropouts(0.2, 0.5)},
        {"name": "c", "variants": {"one": {"overrides": {"components.pointer_ner.fusion": 1}}}},
        {"name": "d", "variants": {"1.0": {"overrides": {"components.pointer_ner.fusion": 1.0}}}},
    ]
    path = write_study(tmp_path, {"title": "T", "seeds": [0, 1], **files, "groups": groups})
    result, output = run_script(script, path)
    assert result.exit_code == 0, output
    assert len(trained) == 6 and "6/6" in output
    assert {run["corpus"] for run in trained} == {files["test"]}
    table = read_table(path)
    assert table["plain"] == table["0.2"]
    assert table["0.5"] == [*["50.5"] * 5, "50.0-51.0", "2", "12", "1234", "24.0M", "test"]

    # Nothing is trained again but what changed.
    run_script(script, path)
    assert len(trained) == 6
    run_script(script, path, "--seeds", "1,2")
    assert len(trained) == 9
    Path(files["test"]).write_bytes(Path(files["dev"]).read_bytes())
    run_script(script, path)
    assert len(trained) == 15
    run_script(script, path, "--set", "training.max_steps=7")
    assert len(trained) == 21 and trained[-1]["overrides"]["training.max_steps"] == 7


def test_an_interrupted_study_goes_on(
    script: ModuleType,
    tmp_path: Path,
    files: dict[str, str],
    trained: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [{"name": "a", "variants": dropouts(0.1, 0.2, 0.3)}]
    path = write_study(tmp_path, {"title": "T", **files, "groups": groups})
    train, calls = subprocess.run, []

    def interrupt(command: list[Any], **kwargs: Any) -> Any:
        if "study_run.py" not in str(command):
            return train(command, **kwargs)
        calls.append(command)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(command, **kwargs)

    monkeypatch.setattr(subprocess, "run", interrupt)
    result, _ = run_script(script, path)
    assert result.exit_code != 0 and not (tmp_path / "out" / "study.md").exists()
    n_done = len(trained)
    result, output = run_script(script, path, "--jobs", 2)
    assert result.exit_code == 0, output
    assert 1 <= n_done < 3 and len(trained) == 3


def test_what_cannot_be_run_does_not_stop_the_rest(
    script: ModuleType, tmp_path: Path, files: dict[str, str], trained: list[Any]
) -> None:
    variants = {
        "good": None,
        "no corpus": {"train": "corpus/none.spacy"},
        "no file": {"overrides": {"paths.descriptions": "none.json"}},
        "no package": {"overrides": {"paths.vectors": "en_core_web_lg"}},
    }
    path = write_study(
        tmp_path, {"title": "T", **files, "groups": [{"name": "a", "variants": variants}]}
    )
    result, output = run_script(script, path)
    assert result.exit_code == 0, output
    assert "Some variants were not run" in output
    table = read_table(path)
    assert table["good"][0] == table["no package"][0] == "20.0"
    assert table["no corpus; not run: missing corpus/none.spacy"][6:] == [
        "0 of 1",
        *["-"] * 3,
        "test",
    ]
    assert "no file; not run: missing none.json" in table

    variants |= {
        "killed": dropouts(0.8)["0.8"],
        "no section": {"overrides": {"nothing.at.all": 1}},
        **dropouts(0.9),
    }
    path = write_study(
        tmp_path, {"title": "T", **files, "groups": [{"name": "a", "variants": variants}]}
    )
    for _ in range(2):  # Failures are not kept.
        trained.clear()
        result, output = run_script(script, path)
        assert result.exit_code == 1 and "Some runs failed" in output
        assert len(trained) == 2
        text = (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
        assert r"0.9; failed: ValueError: too \| much (see " in text
        assert "killed; failed: the process ended with status -9 (see " in text
        assert "no section; failed: " in text and re.search(r"\| good +\| +20.0 \|", text)
    assert not [path for path in (tmp_path / "out" / "runs").iterdir() if path.is_dir()]


def test_one_seed_of_several_fails(
    script: ModuleType, tmp_path: Path, files: dict[str, str], trained: list[Any]
) -> None:
    errors = [script.Result(1, error="why"), script.Result(2, error="why")]
    done = script.Result(0, dict.fromkeys(script.SCORES, 0.5), 3.0)
    table = script.Table("g", None, [script.Row("v", "dev", [done, *errors])])
    text = re.sub(" +", " ", script.make_tables("T", [table]))
    numbers = " | ".join(["50.0"] * len(script.SCORES))
    assert f"| v; failed: why | {numbers} | 50.0-50.0 | 1 of 3 | 3 | - | - | dev |" in text


def test_types_that_a_corpus_does_not_have(script: ModuleType) -> None:
    def result(seed: int, **types: float) -> Any:
        return script.Result(seed, dict.fromkeys(script.SCORES, 0.5), 3.0, types=types)

    rows = [
        script.Row("a", "dev", [result(0, PER=0.5, LOC=1.0), result(1, PER=0.5)]),
        script.Row("b", "dev", [result(0, PER=0.3), result(1, PER=0.4)]),
    ]
    text = re.sub(" +", " ", script.make_tables("T", [script.Table("g", None, rows)]))
    assert "| a | 50.0 | 50.0 |" in text and "| b | - | 35.0 |" in text


@pytest.mark.parametrize("name", ["t", "d", "e", "v.json"])
def test_results_are_those_of_the_files_content(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("t", "d", "e", "v.json"):
        Path(file).write_text("old")
    config = "[paths]\ntrain = null\ndev = null\nx = null\n[training]\nseed = 0\n"
    Path("a.cfg").write_text(config)
    files = {key: Path(key[0] if key != "test" else "e") for key in ("train", "dev", "test")}
    variant = script.Variant("v", Path("a.cfg"), **files, overrides={"paths.x": "v.json"})

    def find_key() -> str:
        script._digest.cache_clear()  # As in another run of the script.
        return str(script._plan(variant, 0, -1).key)

    before = find_key()
    assert find_key() == before
    Path(name).write_text("new")
    assert find_key() != before


@pytest.mark.filterwarnings("error::UserWarning")
def test_names_of_any_kind(
    script: ModuleType, tmp_path: Path, files: dict[str, str], trained: list[Any]
) -> None:
    del files["test"]
    names = dict(zip(["人名 | $x_1$ & <b>", "二"], dropouts(0.3, 0.9).values(), strict=True))
    groups = [
        {"name": "描述", "variants": names},
        {"name": "beta", "x": "beta", "variants": {**dropouts(0.1, 0.5), "learned": None}},
    ]
    path = write_study(tmp_path, {"title": "试验", "seeds": [0, 1], **files, "groups": groups})
    result, output = run_script(script, path)
    assert result.exit_code == 1, output
    assert r"人名 \| $x_1$ & <b>" in read_table(path)
    assert read_table(path)["learned"][-1] == "dev"
    assert (tmp_path / "out" / "study.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "out" / "study.svg").read_text(encoding="utf-8")
    for text in ("人名 | $x_1$ &amp; &lt;b&gt;", "描述", "试验", "(not run)", "F1, %", "learned"):
        assert text in svg
    data = srsly.read_json(tmp_path / "out" / "study.json")
    (row, failed), numeric = (group["rows"] for group in data["groups"])
    assert data["title"] == "试验" and row["variant"] == "人名 | $x_1$ & <b>"
    assert [result["scores"]["F1"] for result in row["results"]] == pytest.approx([0.3, 0.31])
    assert all("too | much" in result["error"] for result in failed["results"])
    assert [row["variant"] for row in numeric] == ["0.1", "0.5", "learned"]


def test_scores_of_each_type(
    script: ModuleType, tmp_path: Path, files: dict[str, str], trained: list[Any]
) -> None:
    groups = [{"name": "a", "variants": dropouts(*TYPED, 0.9)}]
    path = write_study(tmp_path, {"title": "T", "seeds": [0, 1], **files, "groups": groups})
    run_script(script, path)
    table = read_table(path, "F1 of each type")
    assert table["F1 of each type"] == ["LOC", "PER"]
    assert table["0.6"] == ["20.0", "60.5"] and table["0.7"] == ["20.0", "70.5"]
    assert "0.9" not in table
    first, *_ = srsly.read_json(tmp_path / "out" / "study.json")["groups"][0]["rows"]
    assert first["results"][1]["types"] == pytest.approx({"PER": 0.61, "LOC": 0.4})


def test_without_matplotlib(
    script: ModuleType, tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result, output = run_script(script, write_study(tmp_path, GOOD))
    assert result.exit_code == 1 and '".[plots]"' in output and not trained


def test_bad_seeds(script: ModuleType, tmp_path: Path) -> None:
    for seeds, message in (("a", "not whole numbers"), ("1,1", "twice")):
        result, output = run_script(script, write_study(tmp_path, GOOD), "--seeds", seeds)
        assert result.exit_code == 1 and message in output


def test_a_real_training(script: ModuleType, tmp_path: Path, files: dict[str, str]) -> None:
    """Two steps of a small model, and a setting that the component refuses."""
    overrides = {
        "training.max_steps": 2,
        "training.eval_frequency": 1,
        "components.pointer_ner.beta": 1.0,
        "components.pointer_ner.threshold": 0.0,
        "components.pointer_ner.model.tok2vec.depth": 1,
    }
    variants = {"good": None, "bad": {"overrides": {"components.pointer_ner.beta": 7}}}
    groups = [{"name": "a", "variants": variants}]
    data = {"title": "T", **files, "overrides": overrides, "groups": groups}
    path = write_study(tmp_path, data)
    result, output = run_script(script, path, "--jobs", 2)
    assert result.exit_code == 1 and "beta must be" in output
    (kept,) = (tmp_path / "out" / "runs").glob("*.json")
    scores = srsly.read_json(kept)["scores"]
    assert scores["spans_mtlner_r"] == 1.0  # With threshold 0, all spans are entities.
    assert read_table(path)["good"][1] == "100.0"
    logs = (tmp_path / "out" / "runs").glob("*.log")
    assert any("Traceback" in log.read_text(encoding="utf-8") for log in logs)


def test_the_docs_tell_keys_and_options(script: ModuleType, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", text, re.MULTILINE)
    told = {
        level: {name for name, levels in rows if level in levels}
        for level in ("study", "group", "variant")
    }
    assert told["study"] == {*script.STUDY_KEYS}
    assert told["group"] == {*script.GROUP_KEYS}
    assert told["variant"] == {*script.SETTINGS}
    options = {*inspect.signature(script.main).parameters, "set"} - {"path", "settings"}
    told_options = {name.replace("-", "_") for name in re.findall(r"^\| `--([\w-]+)`", text, re.M)}
    assert told_options == options
    assert {f"studies/{path.name}" for path in SHIPPED} == {
        *re.findall(r"^\| `(studies/.*?)`", text, re.M)
    }


def test_the_example_of_the_docs(script: ModuleType, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    path = tmp_path / "study.yml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    study = script.read_study(path)
    assert study.seeds == [0, 1, 2]
    assert [len(group.variants) for group in study.groups] == [2, 2, 1]
    assert study.groups[0].variants[1].overrides["components.pointer_ner.beta"] == 1.0
    assert study.groups[1].x == "training.dropout" and study.groups[2].variants[0].test is None
