"""The log of a training: the JSON lines that `spacy.ConsoleLogger.v2` and `v3` write to their
`output_file`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_mtlner.formats.base import CorpusError, Report, read_json_lines


@dataclass(frozen=True)
class TrainingLog:
    """Losses and scores of a training, an entry for each evaluation.

    steps (list[int]): The steps.
    epochs (list[int]): The passes over the data that were complete.
    losses (dict[str, list[float]]): For each component its mean loss of a step since the evaluation
        before. spaCy writes sums.
    scores (list[float]): The score that the best model is chosen by.
    """

    steps: list[int]
    epochs: list[int]
    losses: dict[str, list[float]]
    scores: list[float]


def read_training_log(path: Path) -> TrainingLog:
    """Read the log of a training.

    path (Path): The file.
    RETURNS (TrainingLog): Losses and scores.
    RAISES (CorpusError): If it is no such log.
    """
    entries: list[tuple[int, dict[str, Any]]] = []
    for line, entry in read_json_lines(path, Report()):
        if not _is_entry(entry):
            raise CorpusError(path, line, "No entry of a training log.", _HINT)
        if entries and entry["step"] <= entries[-1][1]["step"]:
            message = f"Step {entry['step']} follows step {entries[-1][1]['step']}."
            raise CorpusError(path, line, message, "The file must hold one training.")
        if entries and entry["losses"].keys() != entries[-1][1]["losses"].keys():
            message = "The components are not those of the line before."
            raise CorpusError(path, line, message, "The file must hold one training.")
        entries.append((line, entry))
    if not entries:
        raise CorpusError(path, None, "Holds no entries.", _HINT)
    steps = [int(entry["step"]) for _, entry in entries]
    # The first evaluation is after step 0, which is one update.
    n_steps = [a - b for a, b in zip(steps, [-1, *steps], strict=False)]
    names = entries[0][1]["losses"]
    return TrainingLog(
        steps=steps,
        epochs=[int(entry["epoch"]) for _, entry in entries],
        losses={
            name: [
                float(entry["losses"][name]) / n
                for (_, entry), n in zip(entries, n_steps, strict=True)
            ]
            for name in names
        },
        scores=[float(entry["score"]) for _, entry in entries],
    )


_HINT = (
    "Have the training write one: [training.logger] @loggers = spacy.ConsoleLogger.v2 with "
    "output_file = ..."
)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("losses"), Mapping):
        return False
    numbers = [entry.get("step"), entry.get("epoch"), entry.get("score"), *entry["losses"].values()]
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
