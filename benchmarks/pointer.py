"""Measure what `pointer_ner` costs by length of the text and by number of types.

    python benchmarks/pointer.py --turns 5

One document of words drawn at random is predicted, and learned in one training step with random
entities, by a pipeline of the default model that is not trained. The threshold is set so that it
finds about one entity in 50 tokens. Each size runs in a process of its own, on one thread. Seconds
are medians over turns, of the processor's time, so that other work on the machine counts little.
Memory is the peak above that of the loaded pipeline. The exponent is the slope of log seconds over
log size among the three largest sizes: 1 is linear.

Needs the extra "plots"; writes pointer.json, pointer.png and pointer.svg.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mtlner.entities import Entity, write_entities

MATCHINGS = ("spans", "nearest")
TASKS = ("predict", "train")
LENGTHS = [256, 1024, 4096, 16384, 65536]
TYPES = [5, 10, 20, 50, 100]
LENGTH, N_TYPES = 4096, 10  # Where the other one varies.
N_WORDS = 5000
DENSITY = 1 / 50  # Entities per token: at lengths of 1 to 8 they cover about 10 % of the tokens.

Record = dict[str, Any]


def make_words(n_tokens: int) -> list[str]:
    """Draw words at random, frequent and rare ones."""
    rng = numpy.random.default_rng(0)
    letters = numpy.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, N_WORDS)]
    weights = 1 / numpy.arange(10, N_WORDS + 10)
    return rng.choice(vocabulary, n_tokens, p=weights / weights.sum()).tolist()


def make_gold(n_tokens: int, labels: list[str]) -> list[Entity]:
    """Draw entities at random."""
    rng = numpy.random.default_rng(1)
    size = int(n_tokens * DENSITY)
    starts = rng.integers(0, n_tokens, size)
    ends = numpy.minimum(starts + rng.integers(1, 9, size), n_tokens)
    picked = rng.integers(0, len(labels), size)
    drawn = {*zip(picked.tolist(), starts.tolist(), ends.tolist(), strict=True)}
    return [Entity(labels[label], ((start, end),)) for label, start, end in sorted(drawn)]


def make_pipeline(matching: str, labels: list[str]) -> Language:
    """Make a pipeline that finds as many entities as one might in real text."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("pointer_ner", config={"matching": matching})
    words = make_words(16 * (len(labels) + 1))
    names = [*labels, "O"]
    component.set_descriptions(
        {name: " ".join(words[i :: len(names)]) for i, name in enumerate(names)}
    )
    reference = Doc(nlp.vocab, words=make_words(256))
    write_entities(reference, [Entity(label, ((i, i + 1),)) for i, label in enumerate(labels)])
    nlp.initialize(lambda: [Example(Doc(nlp.vocab, words=make_words(256)), reference)])
    component.cfg["threshold"] = 1.0  # From above: below it, all candidates are entities.
    while len(component.predict([reference])[0]) < DENSITY * len(reference):
        component.cfg["threshold"] *= 0.99
    return nlp


def peak_mb() -> float:
    """Get this process's peak of memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(matching: str, n_tokens: int, n_types: int, turns: int) -> Record:
    """Measure prediction and a training step in this process."""
    torch.set_num_threads(1)
    labels = [f"type_{i:03}" for i in range(n_types)]
    nlp = make_pipeline(matching, labels)
    words = make_words(n_tokens)
    reference = Doc(nlp.vocab, words=words)
    write_entities(reference, make_gold(n_tokens, labels))
    optimizer = nlp.create_optimizer()
    record: Record = {"matching": matching, "tokens": n_tokens, "types": n_types}
    record["found"] = 0

    def predict(doc: Doc) -> None:
        record["found"] = len(nlp(doc).spans["mtlner"])

    def train(doc: Doc) -> None:
        nlp.update([Example(doc, reference)], sgd=optimizer, drop=0.1)

    before = peak_mb()
    run: Callable[[Doc], None]
    # A step keeps what prediction drops, so that its peak is above that of prediction.
    for task, run in (("predict", predict), ("train", train)):
        seconds = []
        for _ in range(turns + 1):
            doc = Doc(nlp.vocab, words=words)
            start = time.process_time()
            run(doc)
            seconds.append(time.process_time() - start)
        record[f"{task}_seconds"] = statistics.median(seconds[1:])  # The first one warms up.
        record[f"{task}_mb"] = peak_mb() - before
    return record


def exponent(records: list[Record], size: str, value: str) -> float:
    """Get the slope of the log of a value over the log of the size, among the largest sizes."""
    largest = sorted(records, key=lambda record: record[size])[-3:]
    sizes, values = ([record[key] for record in largest] for key in (size, value))
    return float(numpy.polyfit(numpy.log(sizes), numpy.log(values), 1)[0])


def print_table(records: list[Record], size: str) -> dict[str, float]:
    """Print a table of each matching, and return the exponents."""
    exponents = {}
    for matching in MATCHINGS:
        rows = [record for record in records if record["matching"] == matching]
        print(f'\nmatching = "{matching}"')
        heads = " ".join(f"{task + ' s':>10} {'us/token':>9} {'MB':>8}" for task in TASKS)
        print(f"{'tokens':>7} {'types':>5} {'found':>6} {heads}")
        for row in rows:
            cells = " ".join(
                f"{row[f'{task}_seconds']:10.3f} "
                f"{1e6 * row[f'{task}_seconds'] / row['tokens']:9.1f} {row[f'{task}_mb']:8,.0f}"
                for task in TASKS
            )
            print(f"{row['tokens']:7} {row['types']:5} {row['found']:6} {cells}")
        for task in TASKS:
            for unit in ("seconds", "mb"):
                name = f"{matching} {task} {unit}"
                exponents[name] = exponent(rows, size, f"{task}_{unit}")
        slopes = ", ".join(
            f"{task} {exponents[f'{matching} {task} seconds']:.2f}"
            f" (memory {exponents[f'{matching} {task} mb']:.2f})"
            for task in TASKS
        )
        print(f"exponents by {size}: {slopes}")
    return exponents


def plot(tables: dict[str, list[Record]], folder: Path) -> None:
    """Plot seconds and memory over each size, beside a line that is linear."""
    from matplotlib.figure import Figure  # Not in the workers, whose memory is measured.

    figure = Figure(figsize=(9, 7), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes_row, (size, records) in zip(grid, tables.items(), strict=True):
        units = (("seconds", "seconds", 0), ("mb", "peak memory, MB", 1))
        for axes, (unit, name, floor) in zip(axes_row, units, strict=True):
            for color, matching in enumerate(MATCHINGS):
                for marker, task in zip("os", TASKS, strict=True):
                    # What a small text takes is less than what loading took before.
                    rows = [
                        record
                        for record in records
                        if record["matching"] == matching and record[f"{task}_{unit}"] > floor
                    ]
                    axes.loglog(
                        [row[size] for row in rows],
                        [row[f"{task}_{unit}"] for row in rows],
                        color=f"C{color}",
                        marker=marker,
                        fillstyle="full" if task == "train" else "none",
                        label=f"{task}, {matching}",
                    )
            ends = numpy.array([records[0][size], records[-1][size]])
            top = max(record[f"train_{unit}"] for record in records)
            axes.loglog(ends, top * ends / ends[1], "k--", linewidth=1, label="linear")
            axes.set(xlabel=size, ylabel=name)
            axes.grid(alpha=0.3)
    grid[0, 0].set_title(f"{N_TYPES} types")
    grid[1, 0].set_title(f"{LENGTH:,} tokens")
    grid[0, 0].legend()
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"pointer.{suffix}", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="in tokens")
    parser.add_argument("--types", type=int, nargs="+", default=TYPES)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        matching, n_tokens, n_types = args.worker
        print(json.dumps(measure(matching, int(n_tokens), int(n_types), args.turns)))
        return
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def run(matching: str, n_tokens: int, n_types: int) -> Record:
        worker = ["--worker", matching, str(n_tokens), str(n_types)]
        command = [sys.executable, *sys.argv, *worker]
        return json.loads(subprocess.check_output(command, env=environ))

    tables: dict[str, list[Record]] = {
        "tokens": [run(m, n, N_TYPES) for n in sorted(args.lengths) for m in MATCHINGS],
        "types": [run(m, LENGTH, n) for n in sorted(args.types) for m in MATCHINGS],
    }
    result = {
        "turns": args.turns,
        "torch": torch.__version__,
        "results": tables,
        "exponents": {size: print_table(records, size) for size, records in tables.items()},
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "pointer.json").write_text(json.dumps(result, indent=2))
    plot(tables, args.output)


if __name__ == "__main__":
    main()
