"""Where the real corpora are, for the tests that read them when they are there."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("MTLNER_DATA", beside))
    if not path.is_dir():
        pytest.skip("no real corpora: set MTLNER_DATA to their folder")
    return path
