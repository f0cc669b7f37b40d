"""Pipelines that earlier versions saved still load, and predict what they did.

`python -m scripts.make_fixtures` makes those of the present version.
"""

from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly

from spacy_mtlner import read_entities

from .pipeline.builders import FACTORIES

FIXTURES = Path(__file__).parent / "fixtures"
SAVED = sorted(FIXTURES.glob("pipelines_*/*/config.cfg"))


def test_each_version_has_every_factory() -> None:
    versions = sorted(FIXTURES.glob("pipelines_*"))
    assert FIXTURES / "pipelines_0_1" in versions
    for version in versions:
        assert {path.name for path in version.iterdir()} == {*FACTORIES, "expected.json"}


@pytest.mark.parametrize("config", SAVED, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_saved_pipeline_predicts_what_it_did(config: Path) -> None:
    folder = config.parent
    rows: list[dict[str, Any]] = srsly.read_json(folder.parent / "expected.json")[folder.name]
    nlp = spacy.load(folder)
    n_entities = 0
    for doc, row in zip(nlp.pipe(row["text"] for row in rows), rows, strict=True):
        assert [*doc.spans] == [*row["entities"]]
        for key, expected in row["entities"].items():
            found = [
                [
                    e.label,
                    [[*fragment] for fragment in e.fragments],
                    pytest.approx(e.score, abs=1e-3),
                ]
                for e in read_entities(doc, key)
            ]
            assert found == expected
            n_entities += len(found)
    assert n_entities >= 5
