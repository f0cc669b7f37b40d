"""Predict one very long document and report time and peak memory per token.

python benchmarks/long_doc.py training/news_zh/bilstm_crf/model-best corpus/news_zh/dev.spacy
"""

import argparse
import resource
import time
from itertools import cycle, islice
from pathlib import Path

import spacy
import torch
from spacy.tokens import Doc, DocBin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path, help="its texts are repeated")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nlp = spacy.load(args.model)
    docs = list(DocBin().from_disk(args.corpus).get_docs(nlp.vocab))
    words = list(islice(cycle(token.text for doc in docs for token in doc), args.tokens))
    nlp(Doc(nlp.vocab, words=words[:1000]))  # Warms up.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    doc = Doc(nlp.vocab, words=words)
    start = time.perf_counter()
    nlp(doc)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{len(doc):,} tokens, {len(doc._.entities):,} entities: {seconds:.1f} s, "
        f"{len(doc) / seconds:,.0f} tokens/s, peak memory +{(peak - before) / 2**20:,.0f} MiB, "
        f"{(peak - before) / len(doc):,.0f} bytes per token"
    )


if __name__ == "__main__":
    main()
