"""How many of the gold entities are among the candidates of span_ner, by candidates a token.

    python benchmarks/candidates.py corpus/train.spacy corpus/dev.spacy --lang en --steps 500

Trains the component over spaCy's default CNN with learned boundaries, then proposes spans on the
second corpus. Beside them stand all spans of up to so many tokens, as spaCy's n-gram suggester
lists them. Entities that no tokens of the pipeline express, or of several fragments, count as not
proposed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import spacy
import torch
from compare import make_config
from spacy.cli.train import train as spacy_train
from spacy.training import Corpus, Example

from spacy_mtlner.entities import align_entities, read_entities
from spacy_mtlner.pipeline.span_ner import SpanEntityRecognizer

PER_TOKEN = (0.25, 0.5, 1.0, 2.0, 3.0)
N_GRAMS = (3, 5, 10)


def measure(component: SpanEntityRecognizer, examples: list[Example]) -> tuple[float, float, float]:
    """Candidates a token, share of the gold entities among them, mean length of a candidate."""
    n_tokens = n_candidates = n_inner = n_gold = n_found = 0
    proposed = component.propose([example.predicted for example in examples])
    for example, candidates in zip(examples, proposed, strict=True):
        gold = read_entities(example.reference)
        aligned, _ = align_entities(example, gold)
        n_tokens += len(example.predicted)
        n_candidates += len(candidates)
        n_inner += sum(end - start for fragments in candidates for start, end in fragments)
        n_gold += len({entity.fragments for entity in gold})
        n_found += len({entity.fragments for entity in aligned} & {*candidates})
    return n_candidates / n_tokens, n_found / n_gold, n_inner / max(1, n_candidates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--lang", required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--words", type=int, default=1000, help="words of a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.dropout, args.descriptions, args.evaluations, args.encoder = None, None, 1, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.cfg"
        make_config("span_ner", args, args.seed).to_disk(path)
        spacy_train(path, Path(folder))
        nlp = spacy.load(Path(folder) / "model-best")
    examples = list(Corpus(args.dev)(nlp))
    print(f"\n{'candidates':24} {'a token':>8} {'recall':>7} {'tokens':>7}")

    boundaries, n_grams = "spacy_mtlner.boundary_suggester.v1", "spacy.ngram_range_suggester.v1"
    suggesters: dict[str, dict[str, Any]] = {
        **{f"boundaries, {n}": {"@misc": boundaries, "per_token": n} for n in PER_TOKEN},
        **{
            f"n-grams, up to {n}": {"@misc": n_grams, "min_size": 1, "max_size": n} for n in N_GRAMS
        },
    }
    trained = nlp.get_pipe("span_ner").to_bytes()
    settings = {k: v for k, v in nlp.get_pipe_config("span_ner").items() if k != "factory"}
    for name, suggester in suggesters.items():
        component = spacy.blank(args.lang).create_pipe(
            "span_ner", config={**settings, "suggester": suggester}
        )
        per_token, recall, length = measure(component.from_bytes(trained), examples)
        print(f"{name:24} {per_token:8.2f} {100 * recall:7.2f} {length:7.1f}", flush=True)


if __name__ == "__main__":
    main()
