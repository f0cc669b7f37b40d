"""Predict one document of each of several lengths, and print time and peak memory as a table.

    python benchmarks/long_doc.py training/bio_en/pointer/model-best corpus/bio_en/dev.spacy

Each length is measured in a process of its own, as a process does not give all memory back. Memory
is what the process needs at its peak above what it has with the pipeline loaded and used once; the
document, and what the pipeline writes to it, is part of it. Words of the corpus are repeated, with
its sentence starts if asked for.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_mtlner.entities import read_entities

LENGTHS = "256,1000,5000,10000,50000,200000"
ENOUGH = 0.5  # Seconds: what takes less is repeated.
COLUMNS = ("tokens", "entities", "seconds", "tokens/s", "MiB", "bytes/token")


def measure(model: Path, corpus: Path, n_tokens: int, n_threads: int, sents: bool) -> list[float]:
    """Predict one document in this process.

    model (Path): The pipeline.
    corpus (Path): A .spacy file, whose words are repeated.
    n_tokens (int): The document's length.
    n_threads (int): Threads of torch.
    sents (bool): Whether the document has the corpus's docs as sentences.
    RETURNS (list[float]): The values of the columns.
    """
    torch.set_num_threads(n_threads)
    nlp = spacy.load(model)
    docs = list(DocBin().from_disk(corpus).get_docs(nlp.vocab))
    tokens = ((token.text, token.i == 0) for doc in docs for token in doc)
    words, starts = (list(part) for part in zip(*islice(cycle(tokens), n_tokens), strict=True))
    nlp(make_doc(nlp, words[:100], starts[:100], sents))  # Reads what is read once.
    before = read_memory(reset=True)
    doc = make_doc(nlp, words, starts, sents)
    start = time.perf_counter()
    nlp(doc)
    times = [time.perf_counter() - start]
    peak = read_memory()
    while sum(times) < ENOUGH:
        again = make_doc(nlp, words, starts, sents)
        start = time.perf_counter()
        nlp(again)
        times.append(time.perf_counter() - start)
    keys = {key for _, pipe in nlp.pipeline for key in getattr(pipe, "predicted_keys", ())}
    found = sum(len(read_entities(doc, key)) for key in keys)
    seconds = statistics.median(times)
    memory = peak - before
    return [n_tokens, found, seconds, n_tokens / seconds, memory / 2**20, memory / n_tokens]


def make_doc(nlp: Language, words: list[str], starts: list[bool], sents: bool) -> Doc:
    """Make a document of words."""
    return Doc(nlp.vocab, words=words, sent_starts=starts if sents else None)


def read_memory(*, reset: bool = False) -> int:
    """Read the largest size that this process had so far, in bytes; where the system can set it
    back to the present size (Linux), since that was done.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a saved pipeline")
    parser.add_argument("corpus", type=Path, help="a .spacy file, whose words are repeated")
    parser.add_argument("--tokens", default=LENGTHS, help="the lengths, separated by commas")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--sents", action="store_true", help="set the corpus's docs as sentences")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    lengths = [int(n) for n in args.tokens.split(",")]
    if args.alone:
        print(json.dumps(measure(args.model, args.corpus, lengths[0], args.threads, args.sents)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---:|' * len(COLUMNS)}")
    for n_tokens in lengths:
        options = [f"--tokens={n_tokens}", f"--threads={args.threads}", "--alone"]
        if args.sents:
            options.append("--sents")
        command = [sys.executable, __file__, str(args.model), str(args.corpus), *options]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        n, found, seconds, speed, mib, each = json.loads(output.splitlines()[-1])
        print(
            f"| {n:,} | {found:,} | {seconds:.2f} | {speed:,.0f} | {mib:,.0f} | {each:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
