"""Train peers and ours on the same files for the same number of steps, and compare them.

    python benchmarks/compare.py corpus/news_zh/train.spacy corpus/news_zh/dev.spacy --lang zh \
        --systems ner crf_ner configs/bilstm_crf_zh.cfg --steps 1000 --seeds 0 1 2

A system is a name below, whose components all get the same tok2vec layer, or the config of a
recipe. With --encoder the named ones share a pre-trained encoder instead, learned at --rate with a
linear warm-up; our heads learn at 1e-3. The corpora need gold in doc.spans["mtlner"] and,
for `ner`, in doc.ents: convert with --ents. `pointer_ner` needs --descriptions. All are scored by
label and fragments. With --thresholds, components that have one are scored at each of these, too:
their table shows what a search for the best one is worth (spacy find-threshold).

Each training runs in a process of its own. Prediction is timed in one process that holds all
pipelines of the last seed and takes turns between them; speeds are medians over the turns. Memory
is the peak of a training process.
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy.cli.train import train as spacy_train
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.util import load_config
from thinc.api import Config

from spacy_mtlner.entities import read_ents, write_entities
from spacy_mtlner.scoring import score_entities

TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 96,
    "depth": 4,
    "embed_size": 2000,
    "window_size": 1,
    "maxout_pieces": 3,
    "subword_features": True,
}

SYSTEMS: dict[str, dict[str, Any]] = {
    "ner": {
        "factory": "ner",
        "model": {
            "@architectures": "spacy.TransitionBasedParser.v2",
            "state_type": "ner",
            "extra_state_tokens": False,
            "hidden_width": 64,
            "maxout_pieces": 2,
            "use_upper": True,
            "nO": None,
            "tok2vec": TOK2VEC,
        },
    },
    "spancat": {
        "factory": "spancat",
        "spans_key": "mtlner",
        "max_positive": None,
        "threshold": 0.5,
        "suggester": {
            "@misc": "spacy.ngram_range_suggester.v1",
            "min_size": 1,
            "max_size": 10,
        },
        "model": {
            "@architectures": "spacy.SpanCategorizer.v1",
            "reducer": {"@layers": "spacy.mean_max_reducer.v1", "hidden_size": 128},
            "scorer": {"@layers": "spacy.LinearLogistic.v1", "nO": None, "nI": None},
            "tok2vec": TOK2VEC,
        },
    },
    "crf_ner": {"factory": "crf_ner", "model": {"tok2vec": TOK2VEC}},
    "crf_ner, no rnn": {"factory": "crf_ner", "model": {"tok2vec": TOK2VEC, "rnn": None}},
    "pointer_ner": {"factory": "pointer_ner", "model": {"tok2vec": TOK2VEC}},
    "pointer_ner, no descriptions": {
        "factory": "pointer_ner",
        "beta": 1.0,
        "model": {"tok2vec": TOK2VEC},
    },
    "span_ner": {"factory": "span_ner", "model": {"tok2vec": TOK2VEC}},
    "pointer_ner, nearest": {
        "factory": "pointer_ner",
        "matching": "nearest",
        "model": {"tok2vec": TOK2VEC},
    },
}


LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
    "upstream": "*",
}


def make_pipeline(system: str, args: argparse.Namespace) -> Language:
    """Make the untrained pipeline of a named system."""
    nlp = spacy.blank(args.lang)
    component = copy.deepcopy(SYSTEMS[system])
    factory = component.pop("factory")
    if args.encoder:
        spans = {"@span_getters": "spacy_mtlner.safe_spans.v1"}
        model = {
            "@architectures": "spacy_mtlner.TransformerModel.v1",
            "name": args.encoder,
            "precision": args.precision,
        }
        nlp.add_pipe("transformer", config={"model": {**model, "get_spans": spans}})
        component["model"]["tok2vec"] = LISTENER
        if factory.endswith("_ner"):
            component["learn_rate_factor"] = 0.001 / args.rate
        elif factory == "ner":  # As in spaCy's own configs with a transformer.
            component["model"]["use_upper"] = False
    nlp.add_pipe(factory, config=component)
    return nlp


def make_config(system: str, args: argparse.Namespace, seed: int) -> Config:
    """Make the training config of a system, with the settings that all systems share."""
    if system in SYSTEMS:
        nlp = make_pipeline(system, args)
        config = nlp.config.copy()
        if nlp.has_pipe("pointer_ner"):
            config["initialize"]["components"]["pointer_ner"] = {"descriptions": args.descriptions}
        training = config["training"]
        training["dropout"] = 0.1 if args.dropout is None else args.dropout
        training["optimizer"] = {
            "@optimizers": "Adam.v1",
            "L2_is_weight_decay": True,
            "L2": 0.01,
            "grad_clip": 1.0,
            "use_averages": False,
            "learn_rate": 0.001,
        }
        if args.encoder:
            training["optimizer"]["learn_rate"] = {
                "@schedules": "warmup_linear.v1",
                "warmup_steps": args.steps // 10,
                "total_steps": args.steps,
                "initial_rate": args.rate,
            }
    else:
        config = load_config(system)
        training = config["training"]
        config["corpora"] = spacy.blank(args.lang).config["corpora"]
    training.update(
        max_steps=args.steps,
        max_epochs=0,
        patience=0,
        eval_frequency=max(1, args.steps // args.evaluations),
        accumulate_gradient=1,
    )
    training["batcher"] = {
        "@batchers": "spacy.batch_by_words.v1",
        "discard_oversize": False,
        "size": args.words,
        "tolerance": 0.2,
        "get_length": None,
    }
    training["logger"] = {"@loggers": "spacy.ConsoleLogger.v1", "progress_bar": False}
    training["score_weights"] = {"ents_f" if system == "ner" else "spans_mtlner_f": 1.0}
    config["system"] = {"seed": seed, "gpu_allocator": None}
    config["paths"] = {
        "train": str(args.train),
        "dev": str(args.dev),
        "vectors": None,
        "init_tok2vec": None,
    }
    return config


class Stopwatch:
    """Seconds that a function takes over all its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start


def train_worker(system: str, seed: int, folder: Path, args: argparse.Namespace) -> None:
    """Train one system in this process; write its result to a file in the folder."""
    torch.set_num_threads(args.threads)
    folder.mkdir(parents=True)
    path = folder / "config.cfg"
    make_config(system, args, seed).to_disk(path)
    evaluate, update = Stopwatch(Language.evaluate), Language.update
    Language.evaluate = lambda *a, **k: evaluate(*a, **k)  # type: ignore[method-assign]
    words, start = 0, 0.0

    def counting_update(nlp: Language, examples: Any, *a: Any, **k: Any) -> Any:
        nonlocal words, start
        start = start or time.perf_counter()  # Initialisation is no part of the training.
        words += sum(len(example.predicted) for example in examples)
        return update(nlp, examples, *a, **k)

    Language.update = counting_update  # type: ignore[method-assign]
    spacy_train(path, folder)
    seconds = time.perf_counter() - start - evaluate.seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    best = spacy.load(folder / "model-best")
    result = {
        **score(best, args.dev),
        **score_thresholds(best, args),
        "train_words_per_second": words / seconds,
        "train_seconds": seconds,
        "peak_memory_mb": peak,
    }
    (folder / "result.json").write_text(json.dumps(result))


def score(nlp: Language, path: Path) -> dict[str, float]:
    """Precision, recall and F1 of all entities, and F1 of nested ones."""
    examples = list(Corpus(path)(nlp))
    for doc in nlp.pipe([example.predicted for example in examples]):
        if "mtlner" not in doc.spans:
            write_entities(doc, read_ents(doc))
    scores = score_entities(examples, spans_key="mtlner")
    found = {name: scores[f"spans_mtlner_{name}"] for name in "prf"}
    return {**found, "nested_f": scores["spans_mtlner_nested_f"]}


def score_thresholds(nlp: Language, args: argparse.Namespace) -> dict[str, float]:
    """Scores of a pipeline at other thresholds, if its component has one."""
    cfg = getattr(nlp.get_pipe(nlp.pipe_names[-1]), "cfg", {})
    if "threshold" not in cfg:
        return {}
    found = {}
    for threshold in args.thresholds:
        cfg["threshold"] = threshold
        scores = score(nlp, args.dev)
        found.update({f"{name} at {threshold:g}": value for name, value in scores.items()})
    return found


def time_prediction(folders: dict[str, Path], args: argparse.Namespace) -> dict[str, float]:
    """Words per second of `nlp.pipe` on the dev texts, the pipelines taking turns."""
    pipelines = {name: spacy.load(folder / "model-best") for name, folder in folders.items()}
    docs = list(DocBin().from_disk(args.dev).get_docs(spacy.blank(args.lang).vocab))
    texts = [doc.text for doc in docs]
    speeds: dict[str, list[float]] = {name: [] for name in pipelines}
    for turn in range(args.turns + 1):
        for name, nlp in pipelines.items():
            start = time.perf_counter()
            n_words = sum(len(doc) for doc in nlp.pipe(texts, batch_size=256))
            if turn > 0:  # The first one warms up.
                speeds[name].append(n_words / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--lang", required=True)
    parser.add_argument("--systems", nargs="+", default=["ner", "crf_ner"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--words", type=int, default=1000, help="words of a batch")
    parser.add_argument("--encoder", help="name or folder of a pre-trained one")
    parser.add_argument("--rate", type=float, default=5e-5, help="learn rate of the encoder")
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16"], help="of the encoder"
    )
    parser.add_argument("--descriptions", help="JSON file of the types' descriptions")
    parser.add_argument("--dropout", type=float, help="of all named systems [default: 0.1]")
    parser.add_argument("--evaluations", type=int, default=5, help="the best one counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--turns", type=int, default=5, help="of timing prediction")
    parser.add_argument("--thresholds", type=float, nargs="*", default=[], help="to score at")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/compare.json"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        system, seed, folder = args.worker
        train_worker(system, int(seed), Path(folder), args)
        return
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temp:
        runs: dict[str, list[dict[str, float]]] = {system: [] for system in args.systems}
        folders: dict[str, Path] = {}
        for seed in args.seeds:
            for i, system in enumerate(args.systems):
                folder = folders[system] = Path(temp) / f"{i}-{seed}"
                worker = ["--worker", system, str(seed), str(folder)]
                subprocess.run([sys.executable, *sys.argv, *worker], check=True)
                runs[system].append(json.loads((folder / "result.json").read_text()))
        speeds = time_prediction(folders, args)
    print(f"\n{args.train}: {args.steps} steps of {args.words} words, seeds {args.seeds}")
    print(
        f"{'system':32} {'F1':>6} {'(of seeds)':>20} {'nested':>6} {'train w/s':>10} "
        f"{'pipe w/s':>9} {'MB':>6}"
    )
    results = {}
    for system, entries in runs.items():
        mean = {key: statistics.mean(run[key] for run in entries) for key in entries[0]}
        results[system] = {**mean, "pipe_words_per_second": speeds[system], "runs": entries}
        of_seeds = " ".join(f"{100 * run['f']:.1f}" for run in entries)
        print(
            f"{system:32} {100 * mean['f']:6.2f} {of_seeds:>20} {100 * mean['nested_f']:6.2f} "
            f"{mean['train_words_per_second']:10,.0f} {speeds[system]:9,.0f} "
            f"{mean['peak_memory_mb']:6,.0f}"
        )
        for threshold in args.thresholds:
            if f"f at {threshold:g}" in mean:
                f, nested = mean[f"f at {threshold:g}"], mean[f"nested_f at {threshold:g}"]
                print(f"{f'  at {threshold:g}':32} {100 * f:6.2f} {'':20} {100 * nested:6.2f}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(args).items() if key != "worker"}
    args.output.write_text(json.dumps({"settings": settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
