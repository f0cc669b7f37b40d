"""Check folders of annotated sentences (train/dev/test .jsonl) and print their counts.

Where a folder has raw.txt, texts without annotation, one a line, it is checked for texts that are
too similar to each other or to annotated ones.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

PARTS = ("train", "dev", "test")
RAW = "raw.txt"
NEAR_DUPLICATE = 0.5
MAX_SHARED_OPENING = 6

Spans = tuple[tuple[int, int], ...]
Entity = tuple[str, Spans]


@dataclass
class Counts:
    """Counts of one part: sentences, and entities by kind."""

    sentences: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    without_entity: int = 0
    with_nested: int = 0
    nested: int = 0
    discontinuous: int = 0

    @property
    def entities(self) -> int:
        """The number of entities of all labels."""
        return sum(self.labels.values())

    def add(self, entities: Sequence[Entity]) -> None:
        """Count one sentence with its entities."""
        nested = sum(is_nested(entity, entities) for entity in entities)
        self.sentences += 1
        self.labels.update(label for label, _ in entities)
        self.without_entity += not entities
        self.with_nested += nested > 0
        self.nested += nested
        self.discontinuous += sum(len(spans) > 1 for _, spans in entities)


@dataclass
class Report:
    """What `check` found in one folder; `findings` are errors, `warnings` are not."""

    folder: Path
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)


@dataclass
class Sentence:
    """A valid line: where it stands, its text and its entities."""

    where: str
    text: str
    entities: list[Entity]


def covers(outer: Spans, inner: Spans) -> bool:
    """Whether each span of `inner` lies in some span of `outer`."""
    return all(any(a <= c and d <= b for a, b in outer) for c, d in inner)


def is_nested(entity: Entity, entities: Sequence[Entity]) -> bool:
    """Whether another entity with different spans covers this one."""
    return any(spans != entity[1] and covers(spans, entity[1]) for _, spans in entities)


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_spans(raw: Any, text: str) -> tuple[Spans, list[str]]:
    """Return the spans of one entity and what is wrong with them."""
    if not isinstance(raw, list) or not raw:
        return (), ["'spans' is not a non-empty list"]
    spans: list[tuple[int, int]] = []
    for pair in raw:
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(is_integer, pair)):
            return (), [f"span {pair!r} is not a pair of integers"]
        spans.append((pair[0], pair[1]))
    problems: list[str] = []
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            problems.append(f"span [{start}, {end}] is empty or out of range")
        elif text[start:end] != text[start:end].strip():
            problems.append(f"span [{start}, {end}] begins or ends with white space")
    for (_, end), (start, _) in pairwise(spans):
        if start <= end:
            problems.append(f"spans {raw} are unsorted, touching or overlapping")
            break
    return tuple(spans), problems


def parse_line(line: str) -> tuple[str, list[Entity], list[str]]:
    """Return text, entities and problems of one JSON line."""
    try:
        record = json.loads(line)
    except ValueError as error:
        return "", [], [f"not JSON: {error}"]
    if not isinstance(record, dict) or set(record) != {"text", "entities"}:
        return "", [], ["not an object with exactly the keys 'text' and 'entities'"]
    text, raw_entities = record["text"], record["entities"]
    if not isinstance(text, str) or not text.strip():
        return "", [], ["'text' is not a non-empty string"]
    if not isinstance(raw_entities, list):
        return text, [], ["'entities' is not a list"]
    entities: list[Entity] = []
    problems: list[str] = []
    for raw in raw_entities:
        if not isinstance(raw, dict) or set(raw) != {"label", "spans"}:
            problems.append("an entity does not have exactly the keys 'label' and 'spans'")
            continue
        label = raw["label"]
        if not isinstance(label, str) or not label or label != label.strip():
            problems.append(f"label {label!r} is not a clean, non-empty string")
            continue
        spans, span_problems = parse_spans(raw["spans"], text)
        problems.extend(f"{label}: {problem}" for problem in span_problems)
        if span_problems:
            continue
        if (label, spans) in entities:
            problems.append(f"duplicate entity {label} {[list(span) for span in spans]}")
        entities.append((label, spans))
    return text, entities, problems


def read_lines(path: Path) -> tuple[list[str], list[str]]:
    """Return the lines of a file and what is wrong with the file."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{path}:0: cannot be read: {error}"]
    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines, [] if lines else [f"{path}:0: no sentences"]


def skeleton(text: str, entities: Sequence[Entity]) -> str:
    """Replace outermost entities by their labels and digits by 0."""
    outer = [entity for entity in entities if not is_nested(entity, entities)]
    pieces = sorted(
        ((start, -end, label) for label, spans in outer for start, end in spans),
    )
    result: list[str] = []
    position = 0
    for start, minus_end, label in pieces:
        if start < position:  # overlaps the piece before it
            position = max(position, -minus_end)
            continue
        result += [re.sub(r"\d", "0", text[position:start]), f"<{label}>"]
        position = -minus_end
    result.append(re.sub(r"\d", "0", text[position:]))
    return "".join(result)


def opening(text: str) -> str:
    """Return the first four words, or the first four characters without spaces."""
    words = text.split()
    return " ".join(words[:4]) if len(words) > 1 else text.strip()[:4]


def trigrams(text: str) -> frozenset[str]:
    """Return the set of character 3-grams (the text itself when it is shorter)."""
    return frozenset(text[i : i + 3] for i in range(max(1, len(text) - 2)))


def near_duplicates(sentences: Sequence[Sentence]) -> list[str]:
    """Report all pairs of texts that share half of their 3-grams or more."""
    findings: list[str] = []
    grams = [(sentence, trigrams(sentence.text)) for sentence in sentences]
    for (first, a), (second, b) in combinations(grams, 2):
        if min(len(a), len(b)) < NEAR_DUPLICATE * max(len(a), len(b)):
            continue
        shared = len(a & b)
        jaccard = shared / (len(a) + len(b) - shared)
        if jaccard >= NEAR_DUPLICATE:
            findings.append(f"{second.where}: near-duplicate of {first.where} ({jaccard:.2f})")
    return findings


def check(folder: Path) -> Report:
    """Check the three parts of one folder, and its raw texts where it has some."""
    report = Report(folder)
    sentences: list[Sentence] = []
    for part in PARTS:
        path = folder / f"{part}.jsonl"
        counts = report.counts[part] = Counts()
        lines, faults = read_lines(path)
        report.findings.extend(faults)
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            text, entities, problems = parse_line(line)
            report.findings.extend(f"{where}: {problem}" for problem in problems)
            if not problems:
                counts.add(entities)
                sentences.append(Sentence(where, text, entities))
    raw: list[Sentence] = []
    path = folder / RAW
    if path.exists():
        lines, faults = read_lines(path)
        report.findings.extend(faults)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                report.findings.append(f"{path}:{number}: an empty line")
            else:
                raw.append(Sentence(f"{path}:{number}", line, []))
    report.findings.extend(near_duplicates(sentences + raw))
    first_of: dict[str, str] = {}
    openings: dict[str, list[str]] = defaultdict(list)
    for sentence in sentences:
        shape = skeleton(sentence.text, sentence.entities)
        first = first_of.setdefault(shape, sentence.where)
        if first != sentence.where:
            report.findings.append(f"{sentence.where}: same skeleton as {first}: {shape}")
        openings[opening(sentence.text)].append(sentence.where)
    for start, places in openings.items():
        if len(places) > MAX_SHARED_OPENING:
            report.warnings.append(
                f"{places[0]}: warning: {len(places)} sentences open with {start!r}"
            )
    return report


def total(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of several parts."""
    result = Counts()
    for part in counts:
        result.sentences += part.sentences
        result.labels.update(part.labels)
        result.without_entity += part.without_entity
        result.with_nested += part.with_nested
        result.nested += part.nested
        result.discontinuous += part.discontinuous
    return result


def table(report: Report) -> str:
    """Return the counts as a Markdown table.

    "% without" and "% with nested" are of sentences, "% nested" and
    "% discontinuous" of entities.
    """
    rows = dict(report.counts)
    rows["all"] = total(list(report.counts.values()))
    labels = sorted(rows["all"].labels)
    head = ["part", "sentences", *labels, "entities"]
    head += ["% without", "% with nested", "% nested", "% discontinuous"]
    cells = [head]
    for name, part in rows.items():
        row = [name, str(part.sentences), *(str(part.labels[label]) for label in labels)]
        row.append(str(part.entities))
        for value, whole in (
            (part.without_entity, part.sentences),
            (part.with_nested, part.sentences),
            (part.nested, part.entities),
            (part.discontinuous, part.entities),
        ):
            row.append(f"{100 * value / whole:.1f}" if whole else "-")
        cells.append(row)
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines: list[str] = []
    for row in cells:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the folders named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with the three parts")
    arguments = parser.parse_args(argv)
    failed = False
    for folder in arguments.folders:
        report = check(folder)
        for line in report.findings + report.warnings:
            print(line)
        print(f"{folder}\n\n{table(report)}\n")
        failed = failed or bool(report.findings)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
