"""The shipped corpora are what their ABOUT.md says."""

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ASSETS = Path(__file__).parent.parent / "assets"
PARTS = {"train": 240, "dev": 60, "test": 60}


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("assets_check", ASSETS / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["news_zh", "forum_zh", "reactions_en", "bio_en"])
def test_corpus_has_no_findings_and_the_promised_size(checker: ModuleType, name: str) -> None:
    assert checker.check(ASSETS / name).findings == []
    for part, size in PARTS.items():
        lines = (ASSETS / name / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) >= size
    assert "CC0" in (ASSETS / name / "ABOUT.md").read_text(encoding="utf-8")


def test_checker_finds_faults(checker: ModuleType, tmp_path: Path) -> None:
    entity = {"label": "LOC", "spans": [[0, 6]]}
    lines = [
        {"text": "Berlin hat 3 Millionen Einwohner.", "entities": [entity]},
        {"text": "Madrid hat 4 Millionen Einwohner.", "entities": [entity]},  # One skeleton.
        {"text": "kurz", "entities": [entity]},  # Outside the text.
    ]
    for part in PARTS:
        (tmp_path / f"{part}.jsonl").write_text("")
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "train.jsonl").write_text(text)
    findings = "\n".join(checker.check(tmp_path).findings)
    assert "train.jsonl:3" in findings
    assert "train.jsonl:2" in findings


def test_checker_finds_faults_of_raw_texts(checker: ModuleType, tmp_path: Path) -> None:
    """Empty lines, and texts too similar to each other or to annotated ones."""
    annotated = {
        "train": "Der Zug nach Ulm hatte gestern Verspätung.",
        "dev": "Im Hafen liegen drei alte Schiffe.",
        "test": "Niemand weiß, wo der Schlüssel ist.",
    }
    for part, text in annotated.items():
        (tmp_path / f"{part}.jsonl").write_text(json.dumps({"text": text, "entities": []}))
    assert checker.check(tmp_path).findings == []
    lines = [
        "Der Zug nach Bonn hatte gestern Verspätung.",  # Like one of train.
        "Auf dem Markt gibt es heute Spargel.",
        "Auf dem Markt gab es heute Spargel.",  # Like the one before.
        " ",
        "Der Bäcker schließt um sechs.",
    ]
    path = tmp_path / "raw.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    findings = checker.check(tmp_path).findings
    places = [int(f.removeprefix(f"{path}:").partition(":")[0]) for f in findings]
    assert sorted(places) == [1, 3, 4]
    path.write_text("")
    assert checker.check(tmp_path).findings == [f"{path}:0: no sentences"]


@pytest.mark.parametrize("part", PARTS)
def test_forum_is_flat_and_has_enough_of_every_label(checker: ModuleType, part: str) -> None:
    counts = checker.check(ASSETS / "forum_zh").counts[part]
    labels = {"name", "company", "organization", "address", "position", "work"}
    assert set(counts.labels) == labels and counts.discontinuous == 0
    assert min(counts.labels.values()) >= (60 if part == "train" else 15)
    lines = (ASSETS / "forum_zh" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        spans = sorted(span for entity in json.loads(line)["entities"] for span in entity["spans"])
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_raw_texts_of_forum_are_others_than_the_annotated() -> None:
    """Neither those of its own parts nor those of news_zh, which the raw texts serve as well."""

    def texts(path: Path) -> list[str]:
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]

    raw = (ASSETS / "forum_zh" / "raw.txt").read_text(encoding="utf-8").splitlines()
    assert all(text.strip() for text in raw)
    assert len(set(raw)) == len(raw) >= 300
    for name in ("forum_zh", "news_zh"):
        for part in PARTS:
            assert not set(raw) & {*texts(ASSETS / name / f"{part}.jsonl")}


@pytest.mark.parametrize("part", PARTS)
def test_reactions_have_many_discontinuous_entities(part: str) -> None:
    lines = (ASSETS / "reactions_en" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    entities = [entity for line in lines for entity in json.loads(line)["entities"]]
    discontinuous = sum(len(entity["spans"]) > 1 for entity in entities)
    assert discontinuous / len(entities) >= 0.15


@pytest.mark.parametrize("part", PARTS)
def test_bio_has_many_nested_entities(checker: ModuleType, part: str) -> None:
    counts = checker.check(ASSETS / "bio_en").counts[part]
    assert counts.nested / counts.entities >= 0.25 and counts.discontinuous == 0
    assert set(counts.labels) == {"protein", "DNA", "RNA", "cell_type", "cell_line"}


@pytest.mark.parametrize("path", sorted(ASSETS.glob("descriptions_*.json")), ids=lambda p: p.stem)
def test_descriptions(path: Path) -> None:
    """Those of a shipped corpus are for its labels; no two are the same."""
    descriptions = json.loads(path.read_text(encoding="utf-8"))
    corpus = ASSETS / path.stem.removeprefix("descriptions_")
    if corpus.is_dir():
        lines = (corpus / "train.jsonl").read_text(encoding="utf-8").splitlines()
        labels = {entity["label"] for line in lines for entity in json.loads(line)["entities"]}
        assert descriptions.keys() == labels | {"O"}
    assert "O" in descriptions
    assert all(text.strip() for text in descriptions.values())
    assert len({*descriptions.values()}) == len(descriptions)
