"""The docs tell the settings and commands that there are."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import srsly
from spacy.language import Language

from spacy_mtlner.models.crf_tagger import build_crf_tagger_v1
from spacy_mtlner.models.encoders import build_character_embed_v1, build_transformer_encoder_v1
from spacy_mtlner.pipeline import crf_ner  # noqa: F401  (registers the factory)

ROOT = Path(__file__).parent.parent
BUILDERS = {
    "spacy_mtlner.CRFTagger.v1": build_crf_tagger_v1,
    "spacy_mtlner.CharacterEmbed.v1": build_character_embed_v1,
    "spacy_mtlner.TransformerEncoder.v1": build_transformer_encoder_v1,
}


def read_defaults(name: str) -> dict[str, str]:
    """Setting and default of the first table behind a name that starts a line or a title."""
    text = (ROOT / "docs" / "crf_ner.md").read_text(encoding="utf-8")
    start = re.search(rf"^(## |`)?{re.escape(name)}", text, re.MULTILINE)
    assert start is not None
    table = text[start.end() :].split("| setting |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in table.split("\n")[2:]]
    return {row[1]: row[3] for row in rows}


@pytest.mark.parametrize("name", BUILDERS)
def test_settings_of_architectures(name: str) -> None:
    builder: Callable[..., Any] = BUILDERS[name]
    parameters = inspect.signature(builder).parameters.values()
    assert read_defaults(name) == {
        p.name: "" if p.default is p.empty else srsly.json_dumps(p.default) for p in parameters
    }


def test_settings_of_the_factory() -> None:
    defaults = dict(Language.get_factory_meta("crf_ner").default_config)
    for name, section in {"model": "@architectures", "scorer": "@scorers"}.items():
        defaults[name] = defaults[name][section]
    documented = read_defaults("Settings")
    assert documented == {
        name: value if name in ("model", "scorer") else srsly.json_dumps(value)
        for name, value in defaults.items()
    }


def test_commands_of_the_project() -> None:
    """If this fails: python -m spacy project document --no-emoji --output docs/project.md."""
    project = srsly.read_yaml(ROOT / "project.yml")
    text = (ROOT / "docs" / "project.md").read_text(encoding="utf-8")
    for command in project["commands"]:
        assert f"| `{command['name']}` | {command['help']} |" in text
    for name, steps in project["workflows"].items():
        assert f"| `{name}` | {' &rarr; '.join(f'`{step}`' for step in steps)} |" in text
    for asset in project["assets"]:
        assert f"| `{asset['dest']}` | URL | {asset['description']} |" in text


def test_links_of_the_docs() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
