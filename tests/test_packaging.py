"""A trained pipeline becomes a package that others install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import srsly
from spacy.cli.package import package

from .pipeline.builders import FACTORIES, LISTENER, TEXTS, make_nlp, train

# Without sockets; it writes what the installed package predicts.
USE = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("no network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import spacy

nlp = spacy.load("en_tiny")
assert nlp.path.is_relative_to(sys.argv[1]), nlp.path
docs = nlp.pipe(json.loads(sys.argv[2]))
print(json.dumps([
    {key: [doc.spans[key].attrs["scores"], [[s.label_, s.id_, s.start, s.end] for s in group]]
     for key, group in doc.spans.items()} for doc in docs
]))
"""


@pytest.mark.slow
def test_package_predicts_the_same_where_it_is_installed(tmp_path: Path) -> None:
    """All components over one encoder, in a folder of its own and without any network."""
    nlp = train(make_nlp(*FACTORIES, tok2vec=LISTENER), 60)
    expected = [
        {
            key: [
                group.attrs["scores"],
                [[span.label_, span.id_, span.start, span.end] for span in group],
            ]
            for key, group in doc.spans.items()
        }
        for doc in nlp.pipe(TEXTS)
    ]
    assert all(any(row[factory][1] for row in expected) for factory in FACTORIES)
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "packages").mkdir()
    package(
        tmp_path / "pipeline",
        tmp_path / "packages",
        name="tiny",
        version="1.2.3",
        create_sdist=False,
        create_wheel=False,
    )
    source = tmp_path / "packages" / "en_tiny-1.2.3"
    requirements = srsly.read_json(source / "meta.json")["requirements"]
    assert any(line.startswith("spacy-mtlner>=") for line in requirements), requirements
    site = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
    subprocess.run(install, check=True)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    result = subprocess.run(
        [sys.executable, "-c", USE, str(site), srsly.json_dumps(TEXTS)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for row, wanted in zip(srsly.json_loads(result.stdout), expected, strict=True):
        assert row.keys() == wanted.keys()
        for key, (scores, spans) in wanted.items():
            assert row[key][1] == spans
            assert row[key][0] == pytest.approx(scores, abs=1e-5)
