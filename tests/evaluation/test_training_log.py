from pathlib import Path

import pytest
import spacy
from spacy.training.loggers import console_logger

from spacy_mtlner.evaluation.training_log import read_training_log

ROW = '{"epoch":0,"step":%d,"losses":{"ner":%s},"scores":{"f":1.0},"score":0.5}\n'


def test_reads_what_spacy_writes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec")
    nlp.add_pipe("ner")
    log_step, finalize = console_logger(console_output=False, output_file=path)(nlp)
    for epoch, step, loss in ((0, 0, 8.0), (0, 10, 50.0), (1, 15, 10.0)):
        log_step(None)
        info = {"epoch": epoch, "step": step, "score": step / 20, "other_scores": {}}
        log_step({**info, "losses": {"tok2vec": 2 * loss, "ner": loss}})
    finalize()
    log = read_training_log(path)
    assert (log.steps, log.epochs, log.scores) == ([0, 10, 15], [0, 0, 1], [0.0, 0.5, 0.75])
    # Sums since the evaluation before, of 1, 10 and 5 steps.
    assert log.losses == {"tok2vec": [16.0, 10.0, 4.0], "ner": [8.0, 5.0, 2.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Holds no entries"),
        ("{}\n", "log.jsonl:1: No entry of a training log"),
        ("E    #  LOSS\n", "log.jsonl:1: Not JSON"),
        (ROW % (0, "true"), "log.jsonl:1: No entry"),
        (ROW % (0, "1") + ROW % (0, "1"), "log.jsonl:2: Step 0 follows step 0"),
        (ROW % (0, "1") + (ROW % (5, "1")).replace("ner", "x"), "log.jsonl:2: The components"),
    ],
)
def test_other_files_are_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_training_log(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Cannot be read"):
        read_training_log(tmp_path / "log.jsonl")
