"""Altered descriptions: shuffled ones and random ones."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import DocBin
from typer.testing import CliRunner

ASSETS = Path(__file__).parents[2] / "assets"
DESCRIPTIONS = {"LOC": "a place, such as Berlin", "PER": "the name of a person", "O": "nothing"}


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("descriptions")


@given(texts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), seed=st.integers())
def test_shuffled_is_a_derangement(script: ModuleType, texts: list[str], seed: int) -> None:
    descriptions = {f"L{i}": text for i, text in enumerate(texts)}
    if 2 * max(Counter(texts).values()) > len(texts):
        with pytest.raises(ValueError, match="no type can get another text"):
            script.shuffle_descriptions(descriptions, seed)
        return
    shuffled = script.shuffle_descriptions(descriptions, seed)
    assert list(shuffled) == list(descriptions)
    assert Counter(shuffled.values()) == Counter(texts)
    assert all(shuffled[label] != text for label, text in descriptions.items())


def test_seeds_are_repeatable_and_differ(script: ModuleType) -> None:
    descriptions = {f"L{i}": f"text {i}" for i in range(6)}
    by_seed = [script.shuffle_descriptions(descriptions, seed) for seed in (0, 0, 1, 2, 3)]
    assert by_seed[0] == by_seed[1]
    assert len({tuple(shuffled.values()) for shuffled in by_seed}) == 4


@pytest.mark.parametrize("path", sorted(ASSETS.glob("descriptions_*.json")), ids=lambda p: p.stem)
def test_shipped_descriptions_can_be_shuffled(script: ModuleType, path: Path) -> None:
    descriptions = json.loads(path.read_text(encoding="utf-8"))
    shuffled = script.shuffle_descriptions(descriptions, 0)
    assert all(shuffled[label] != text for label, text in descriptions.items())


@pytest.mark.parametrize(
    ("lang", "text"), [("en", "a place, such as Berlin"), ("zh", "地名，江河")]
)
def test_random_keeps_everything_but_the_words(script: ModuleType, lang: str, text: str) -> None:
    nlp = spacy.blank(lang)
    words = ["x", "y"]
    texts = [
        script.randomize_descriptions({"LOC": text, "O": text}, words, nlp, seed)
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0]["LOC"] != texts[0]["O"]
    for token, old in zip(nlp(texts[0]["LOC"]), nlp(text), strict=True):
        assert token.text == old.text if old.is_punct else token.text in words
        assert token.whitespace_ == old.whitespace_


def test_random_needs_words(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="no words"):
        script.randomize_descriptions(DESCRIPTIONS, [], spacy.blank("en"), 0)


def test_commands(script: ModuleType, tmp_path: Path) -> None:
    source, corpus = tmp_path / "descriptions.json", tmp_path / "train.spacy"
    source.write_text(json.dumps({**DESCRIPTIONS, "人": "人名"}), encoding="utf-8")
    nlp = spacy.blank("en")
    DocBin(docs=[nlp("Kidney , liver\n\nand spleen ."), nlp("")]).to_disk(corpus)
    shuffled, drawn = tmp_path / "new" / "shuffled.json", tmp_path / "new" / "random.json"
    for arguments in (
        ["shuffle", source, shuffled, "--seed", 3],
        ["randomize", source, corpus, drawn, "--lang", "en"],
    ):
        result = CliRunner().invoke(script.app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    descriptions = json.loads(source.read_text(encoding="utf-8"))
    assert json.loads(shuffled.read_text(encoding="utf-8")) == script.shuffle_descriptions(
        descriptions, 3
    )
    assert "人名" in shuffled.read_text(encoding="utf-8")
    found = json.loads(drawn.read_text(encoding="utf-8"))
    words = {word for text in found.values() for word in text.replace(",", "").split()}
    assert words == {"Kidney", "liver", "and", "spleen"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "not an object"), ("{", "no JSON"), ('{"LOC": "a"}', "no type can get")],
)
def test_bad_descriptions_are_named(
    script: ModuleType, tmp_path: Path, content: str, message: str
) -> None:
    source = tmp_path / "d.json"
    source.write_text(content)
    result = CliRunner().invoke(script.app, ["shuffle", str(source), str(tmp_path / "new.json")])
    output = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "d.json" in output and message in output
