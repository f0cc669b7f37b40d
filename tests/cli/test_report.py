import re
from pathlib import Path

from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_mtlner.cli  # noqa: F401  (registers the commands)

SCORES = '{"spans_mtlner_f": 0.5, "spans_mtlner_boundary_f": 0.75}'


def test_writes_the_table(tmp_path: Path) -> None:
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "bilstm.json").write_text(SCORES)
    output = tmp_path / "out" / "report.md"
    result = CliRunner().invoke(app, ["mtlner", "report", str(tmp_path), str(output)])
    assert result.exit_code == 0, result.output
    assert "| bilstm | - | - | 50.0 | 75.0 |" in re.sub(
        " +", " ", output.read_text(encoding="utf-8")
    )


def test_fails_without_metrics(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mtlner", "report", str(tmp_path), str(tmp_path / "r.md")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
