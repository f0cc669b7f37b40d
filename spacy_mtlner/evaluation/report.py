"""One table over the metrics of several pipelines."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import srsly

from spacy_mtlner.evaluation.tables import format_percent, make_table
from spacy_mtlner.scoring import SUBSETS

_BOUNDARY = "_boundary_f"  # A score of all recognition, and of nothing else.
_TYPING = re.compile(r"typing_.+_acc")


@dataclass(frozen=True)
class Metrics:
    """Scores of one pipeline on one corpus.

    corpus (str): The corpus.
    recipe (str): The recipe that trained the pipeline.
    key (str): The spans key that was scored.
    scores (dict[str, Any]): What `spacy evaluate` wrote.
    """

    corpus: str
    recipe: str
    key: str
    scores: dict[str, Any]

    @property
    def is_typing(self) -> bool:
        """RETURNS (bool): Whether the labels of given entities were predicted, and no more."""
        return f"spans_{self.key}{_BOUNDARY}" not in self.scores

    def __getitem__(self, name: str) -> float | None:
        task = "typing" if self.is_typing else "spans"
        return self.scores.get(f"{task}_{self.key}_{name}")


def read_metrics(folder: Path) -> list[Metrics]:
    """Read the metrics of all pipelines.

    folder (Path): Holds `<corpus>/<recipe>.json` files, written by `spacy evaluate`.
    RETURNS (list[Metrics]): One for each spans key of each file that has scores, by corpus and
        recipe.
    RAISES (ValueError): If there is no such file, or one holds no scores of entities.
    """
    metrics = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            scores = srsly.read_json(path)
        except ValueError as err:
            raise ValueError(f"{path}: not JSON ({err}). Evaluate the pipeline again.") from None
        names = scores if isinstance(scores, dict) else {}
        keys = [name[len("spans_") : -len(_BOUNDARY)] for name in names if name.endswith(_BOUNDARY)]
        typed = [n[len("typing_") : -len("_acc")] for n in names if _TYPING.fullmatch(n)]
        if not keys and not typed:
            raise ValueError(
                f"{path}: no scores of entities. Evaluate a pipeline that has a component of "
                f"spacy_mtlner, with: python -m spacy evaluate MODEL CORPUS --output {path}"
            )
        # A pipeline of several tasks is scored for those that the corpus is annotated for.
        scored = [key for key in sorted(keys) if scores.get(f"spans_{key}_f") is not None]
        place = (path.parent.name, path.stem)
        metrics += [Metrics(*place, key, scores) for key in scored or sorted(keys) or typed]
    if not metrics:
        raise ValueError(f"{folder}: no <corpus>/<recipe>.json in this folder.")
    return metrics


def make_report(metrics: Iterable[Metrics]) -> str:
    """Write metrics as Markdown: per corpus a table of the recipes and one of the labels' F1.

    metrics (Iterable[Metrics]): The metrics.
    RETURNS (str): The text.
    """
    metrics = list(metrics)
    parts = [
        "# Results",
        "Precision, recall and F1 in percent, of entities with label and all fragments right. "
        "The further columns are F1 of parts: boundary ignores the labels; discontinuous entities "
        "have several fragments, nested ones overlap another one, flat ones are neither. Of "
        "entity typing, accuracy is the share of given entities whose label is right, macro F1 the "
        "mean over the labels.",
    ]
    for corpus in dict.fromkeys(entry.corpus for entry in metrics):
        entries = [entry for entry in metrics if entry.corpus == corpus]
        recognised = [entry for entry in entries if not entry.is_typing]
        typed = [entry for entry in entries if entry.is_typing]
        parts.append(f"## {corpus}")
        for table, some in ((_overview, recognised), (_typing, typed), (_per_label, entries)):
            if some:
                parts.append(table(some))
    return "\n\n".join(parts) + "\n"


def _overview(entries: Sequence[Metrics]) -> str:
    header = ["recipe", "P", "R", "F1", *SUBSETS, "words/s"]
    names = ["p", "r", "f", *(f"{subset}_f" for subset in SUBSETS)]
    rows = []
    for entry in entries:
        speed = entry.scores.get("speed")
        words = f"{speed:,.0f}" if isinstance(speed, float) else "-"
        rows.append([_name(entry), *(format_percent(entry[name]) for name in names), words])
    return make_table(header, rows)


def _typing(entries: Sequence[Metrics]) -> str:
    rows = [
        [_name(entry), *(format_percent(entry[name]) for name in ("acc", "macro_f"))]
        for entry in entries
    ]
    return make_table(["entity typing", "accuracy", "macro F1"], rows)


def _per_label(entries: Sequence[Metrics]) -> str:
    per_type: list[Any] = [entry["per_type"] or {} for entry in entries]
    labels = sorted({label for scores in per_type for label in scores})
    rows = [
        [_name(entry), *(format_percent(scores.get(label, {}).get("f")) for label in labels)]
        for entry, scores in zip(entries, per_type, strict=True)
    ]
    return make_table(["F1", *labels], rows)


def _name(entry: Metrics) -> str:
    n_keys = sum(name.endswith(_BOUNDARY) for name in entry.scores)
    return entry.recipe if n_keys <= 1 else f"{entry.recipe} ({entry.key})"
