"""Measure what `add_type` is worth without training: leave a type out, then add it again.

    python benchmarks/new_type.py corpus/cluener/train.spacy corpus/cluener/dev.spacy --lang zh \
        --config configs/pointer_zh.cfg --descriptions assets/descriptions_cluener.json \
        --types address game --steps 1000

For each type, a pipeline is trained on the docs that have no entity of it, with the descriptions of
the other types. Then the type is added by its description and scored on all dev docs, beside

- a pipeline that is trained on everything ("trained"),
- the type added by words drawn from the training texts ("random words"), and
- the type added by the description of another type ("another's description").

The last two, means of several draws, show what the description itself contributes. Boundary recall
is that of the type's entities, whatever the label. The threshold is the config's first, then
others, as scores of an added type run low. The last step of the training counts, as a choice of the
best one would see the left-out type. Each training runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy
import spacy
from spacy.scorer import PRFScore
from spacy.tokens import Doc, DocBin

from spacy_mtlner.entities import DEFAULT_KEY, Entity, read_entities

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
N_DRAWS = 3
ADDED = ("description", "random words", "another's description")

Scores = dict[str, float]


class Part(NamedTuple):
    """Docs of a corpus and the gold entities of each."""

    docs: list[Doc]
    gold: list[list[Entity]]


def read_part(path: Path, lang: str) -> Part:
    """Read a part of a corpus."""
    docs = list(DocBin().from_disk(path).get_docs(spacy.blank(lang).vocab))
    return Part(docs, [read_entities(doc, DEFAULT_KEY) for doc in docs])


def train(
    path: Path, left_out: str | None, part: Part, seed: int, args: argparse.Namespace
) -> None:
    """Train a pipeline on the docs without a type, unless it is there."""
    if path.exists():
        return
    folder = path.with_name(f"{path.name}.part")  # Until the training is through.
    folder.mkdir(parents=True, exist_ok=True)
    descriptions = json.loads(args.descriptions.read_text(encoding="utf8"))
    descriptions.pop(left_out, None)
    (folder / "descriptions.json").write_text(json.dumps(descriptions), encoding="utf8")
    has_it = [any(entity.label == left_out for entity in entities) for entities in part.gold]
    kept = [doc for doc, is_out in zip(part.docs, has_it, strict=True) if not is_out]
    DocBin(docs=kept, store_user_data=True).to_disk(folder / "train.spacy")
    settings = {
        "paths.train": folder / "train.spacy",
        "paths.dev": args.dev,
        "paths.descriptions": folder / "descriptions.json",
        "system.seed": seed,
        "training.max_steps": args.steps,
        "training.eval_frequency": args.steps,
        "training.batcher.size": args.words,
    }
    overrides = [str(x) for name, value in settings.items() for x in (f"--{name}", value)]
    command = [sys.executable, "-m", "spacy", "train", str(args.config), "--output", str(folder)]
    subprocess.run([*command, *overrides], check=True)
    folder.rename(path)


class Tagger:
    """A trained pipeline's component, and the dev docs to score it on."""

    def __init__(self, path: Path, dev: Part) -> None:
        self.nlp = spacy.load(path / "model-last")
        component: Any = self.nlp.get_pipe("pointer_ner")
        self.component = component
        self.threshold = component.cfg["threshold"]
        self.docs = [
            Doc(self.nlp.vocab, [t.text for t in doc], [bool(t.whitespace_) for t in doc])
            for doc in dev.docs
        ]
        self.gold = _keys(dev.gold)

    def score(self, label: str) -> dict[float, Scores]:
        """Score a type and the others, at each threshold."""
        component = self.component
        scores = component.model.predict(component.make_inputs(self.docs, is_train=False))
        results = {}
        for threshold in dict.fromkeys((self.threshold, *THRESHOLDS)):
            component.cfg["threshold"] = threshold
            found = _keys(component.decode(self.docs, scores))
            results[threshold] = _score(found, self.gold, label)
        return results


def _keys(entities: Iterable[Sequence[Entity]]) -> set[tuple[str, int, int, int]]:
    return {(e.label, i, e.start, e.end) for i, row in enumerate(entities) for e in row}


def _score(found: set, gold: set, label: str) -> Scores:
    one, others = PRFScore(), PRFScore()
    one.score_set({x for x in found if x[0] == label}, {x for x in gold if x[0] == label})
    others.score_set({x for x in found if x[0] != label}, {x for x in gold if x[0] != label})
    spans = {x[1:] for x in gold if x[0] == label}
    boundary = len(spans & {x[1:] for x in found}) / max(1, len(spans))
    return {
        "p": one.precision,
        "r": one.recall,
        "f": one.fscore,
        "boundary_r": boundary,
        "others_f": others.fscore,
    }


def draw_descriptions(left_out: str, path: Path, part: Part, seed: int) -> dict[str, list[str]]:
    """Draw descriptions that say nothing of a type, from the training texts and other types."""
    rng = numpy.random.default_rng(seed)
    tokens = [token for doc in part.docs for token in doc]
    known = json.loads((path / "descriptions.json").read_text(encoding="utf8"))
    others = [text for label, text in known.items() if label != "O"]
    return {
        "random words": [
            "".join(tokens[i].text + " " * bool(tokens[i].whitespace_) for i in row)
            for row in rng.integers(0, len(tokens), (N_DRAWS, 50))
        ],
        "another's description": rng.choice(others, N_DRAWS, replace=False).tolist(),
    }


def average(runs: Sequence[dict[float, Scores]]) -> dict[float, Scores]:
    """Average the scores at each threshold."""
    return {
        threshold: {name: mean(run[threshold][name] for run in runs) for name in scores}
        for threshold, scores in runs[0].items()
    }


def measure(
    left_out: str, seed: int, folder: Path, parts: tuple[Part, Part], args: argparse.Namespace
) -> dict[str, dict[float, Scores]]:
    """Score a type that is trained, one that is left out, and one that is added."""
    train_part, dev = parts
    everything, path = folder / f"all-{seed}", folder / f"{left_out}-{seed}"
    train(everything, None, train_part, seed, args)
    train(path, left_out, train_part, seed, args)
    description = json.loads(args.descriptions.read_text(encoding="utf8"))[left_out]
    texts = {"description": [description], **draw_descriptions(left_out, path, train_part, seed)}
    results = {
        "trained": Tagger(everything, dev).score(left_out),
        "left out": Tagger(path, dev).score(left_out),
    }
    for name in ADDED:
        runs = []
        for text in texts[name]:
            tagger = Tagger(path, dev)
            tagger.component.add_type(left_out, text)
            runs.append(tagger.score(left_out))
        results[name] = average(runs)
    return results


def print_tables(results: dict[str, dict[str, dict[float, Scores]]]) -> None:
    """Print a table of all types for each threshold, and of their mean."""
    first = next(iter(results.values()))
    results = {
        **results,
        "mean": {name: average([result[name] for result in results.values()]) for name in first},
    }
    for threshold in first["trained"]:
        print(f"\nthreshold {threshold}")
        print(
            f"{'':16} {'trained':>7} | {'by its description':^29} | {'random':>6} {'another':>7} | "
            f"{'others':>6} {'after':>6}"
        )
        print(f"{'type':16} {'F1':>7} | {'P':>6} {'R':>6} {'F1':>6} {'bound.R':>8} |")
        for label, result in results.items():
            of = {name: by_threshold[threshold] for name, by_threshold in result.items()}
            added = of["description"]
            print(
                f"{label:16} {100 * of['trained']['f']:7.1f} | {100 * added['p']:6.1f} "
                f"{100 * added['r']:6.1f} {100 * added['f']:6.1f} {100 * added['boundary_r']:8.1f} "
                f"| {100 * of['random words']['f']:6.1f} "
                f"{100 * of[ADDED[2]]['f']:7.1f} | {100 * of['left out']['others_f']:6.1f} "
                f"{100 * added['others_f']:6.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--lang", required=True)
    parser.add_argument("--config", type=Path, required=True, help="recipe with pointer_ner")
    parser.add_argument("--descriptions", type=Path, required=True, help="JSON file")
    parser.add_argument("--types", nargs="+", required=True, help="the types to leave out")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--words", type=int, default=1000, help="words of a batch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", type=Path, help="keep the pipelines here, and use those there")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/new_type.json"))
    args = parser.parse_args()
    parts = read_part(args.train, args.lang), read_part(args.dev, args.lang)
    with tempfile.TemporaryDirectory() as temp:
        results = {
            label: [
                measure(label, seed, args.models or Path(temp), parts, args) for seed in args.seeds
            ]
            for label in args.types
        }
    means = {
        label: {name: average([run[name] for run in runs]) for name in runs[0]}
        for label, runs in results.items()
    }
    print(f"\n{args.train}: {args.steps} steps of {args.words} words, seeds {args.seeds}")
    print_tables(means)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(args).items()}
    text = json.dumps({"settings": settings, "results": means, "runs": results}, indent=2)
    args.output.write_text(text)


if __name__ == "__main__":
    main()
