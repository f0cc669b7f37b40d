"""Prediction by two tasks' heads over one pre-trained encoder, beside a pipeline for each of them,
and by the encoder alone.

    python benchmarks/shared_encoder.py corpus/cluener/dev.spacy --lang zh --encoder FOLDER

The heads are initialised, not trained: what they predict costs little beside what they compute.
Both sides read the same texts in turns, in one process; times are medians over the turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example

from spacy_mtlner.entities import DEFAULT_KEY, read_entities, write_entities

TASKS = ("first", "second")


def make_pipeline(
    lang: str, encoder: str, add_head: Callable[[Language], Any], examples: list[Example]
) -> Language:
    """A transformer with heads, initialised on examples."""
    nlp = spacy.blank(lang)
    model = {
        "@architectures": "spacy_mtlner.TransformerModel.v1",
        "name": encoder,
        "get_spans": {"@span_getters": "spacy_mtlner.safe_spans.v1"},
    }
    nlp.add_pipe("transformer", config={"model": model})
    add_head(nlp)
    nlp.initialize(lambda: examples)
    return nlp


def add_crf(nlp: Language, key: str) -> None:
    """A `crf_ner` that listens to the transformer."""
    model = {"tok2vec": LISTENER, "rnn": None}
    nlp.add_pipe("crf_ner", name=key, config={"spans_key": key, "model": model})


def add_multitask(nlp: Language) -> None:
    """A `multitask_crf_ner` that predicts both tasks."""
    tasks = {"first": "main", "second": "auxiliary"}
    model = {"tok2vec": LISTENER, "hidden_width": 128}
    config = {"tasks": tasks, "predicted_tasks": "all", "model": model}
    nlp.add_pipe("multitask_crf_ner", config=config)


LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
    "upstream": "*",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lang", required=True)
    parser.add_argument("--encoder", required=True, help="name or folder")
    parser.add_argument("--docs", type=int, default=500, help="of the corpus")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    blank = spacy.blank(args.lang)
    docs = list(DocBin().from_disk(args.corpus).get_docs(blank.vocab))[: args.docs]
    examples = []
    for doc in docs:
        reference = blank.make_doc(doc.text)
        entities = [e for e in read_entities(doc, DEFAULT_KEY) if e.end <= len(reference)]
        for key in TASKS:
            write_entities(reference, entities, key)
        examples.append(Example(blank.make_doc(doc.text), reference))

    def build(add_head: Callable[[Language], Any]) -> Language:
        return make_pipeline(args.lang, args.encoder, add_head, examples)

    systems = {
        "a pipeline for each task": [build(lambda nlp, k=k: add_crf(nlp, k)) for k in TASKS],
        "two crf_ner over one encoder": [build(lambda nlp: [add_crf(nlp, k) for k in TASKS])],
        "multitask_crf_ner, both tasks": [build(add_multitask)],
        "one crf_ner": [build(lambda nlp: add_crf(nlp, TASKS[0]))],
        "the encoder alone": [build(lambda nlp: None)],
    }
    texts = [doc.text for doc in docs]
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(args.turns + 1):
        for name, pipelines in systems.items():
            start = time.perf_counter()
            n_tokens = 0
            for nlp in pipelines:
                n_tokens = sum(len(doc) for doc in nlp.pipe(texts, batch_size=64))
            if turn > 0:  # The first one warms up.
                seconds[name].append(time.perf_counter() - start)
    first = statistics.median(next(iter(seconds.values())))
    print(f"{len(texts)} texts, {n_tokens} tokens, {args.threads} threads")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:32} {median:6.2f} s {median / first:5.2f}")


if __name__ == "__main__":
    main()
