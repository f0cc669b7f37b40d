"""The from-scratch TransformerEncoder on docs of mixed lengths: short rows that attend as wholes,
in groups of similar length, against all rows behind each other, in blocks of the window's size that
are copied beside their neighbours.

    python benchmarks/mixed_lengths.py corpus/genia/dev.spacy

Three mixes, in batches of the size that components predict at once: the corpus's own docs; its
sentences of at most 20 words with a doc of 400 words in every batch; docs of 5 to 400 words, with
log-uniform lengths. Both sides run in turns in one process; the vectors must be the same, and the
words per second of processor time are medians. `encoder` is the module alone, `tok2vec` the layer
with its embedding.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import spacy
import torch
from spacy.tokens import Doc, DocBin
from thinc.api import Model
from torch import Tensor

from spacy_mtlner.models.encoders import build_transformer_encoder_v1
from spacy_mtlner.models.torch_layer import get_module_shim
from spacy_mtlner.nn import transformer
from spacy_mtlner.nn.transformer import RowLayout, TransformerEncoder

N_TOKENS = 8192  # Of a batch.


def lay_out_blocks(
    lengths: Sequence[int], window: int, device: torch.device | None = None
) -> RowLayout:
    """All rows behind each other, in blocks of the window's size."""
    sizes = torch.tensor(lengths, device=device)
    rows = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    return RowLayout(None, [], [], None, rows, None, positions)


def copy_neighbours(x: Tensor, size: int) -> Tensor:
    """Each block with the ones before and behind: see `_join_neighbours`."""
    blocks = x.unflatten(0, (-1, size)).movedim(1, -2)
    edge = torch.zeros_like(blocks[:1])
    before, behind = torch.cat([edge, blocks[:-1]]), torch.cat([blocks[1:], edge])
    return torch.cat([before, blocks, behind], dim=-2)


def batch_docs(docs: list[Doc]) -> list[list[Doc]]:
    """Cut docs, in their order, into batches of some tokens."""
    batches: list[list[Doc]] = [[]]
    for doc in docs:
        if sum(map(len, batches[-1])) > N_TOKENS:
            batches.append([])
        batches[-1].append(doc)
    return batches


def mix_lengths(nlp: Any, words: list[str], n_tokens: int) -> list[Doc]:
    """Docs of 5 to 400 words, log-uniform, n_tokens of them altogether."""
    draw, source, docs = random.Random(0), cycle(words), []
    while sum(map(len, docs)) < n_tokens:
        size = round(math.exp(draw.uniform(math.log(5), math.log(400))))
        docs.append(Doc(nlp.vocab, words=list(islice(source, size))))
    return docs


@contextmanager
def as_before() -> Iterator[None]:
    """Let all rows attend in blocks that are copied beside their neighbours."""
    with (
        patch.object(RowLayout, "of", lay_out_blocks),
        patch.object(transformer, "_join_neighbours", copy_neighbours),
    ):
        yield


def mix_one_long(nlp: Any, docs: list[Doc], words: list[str], n_tokens: int) -> list[Doc]:
    """Docs of at most 20 words and, among as many as a batch holds, one of 400 words."""
    long = Doc(nlp.vocab, words=list(islice(cycle(words), 400)))
    short = cycle(Doc(nlp.vocab, words=[token.text for token in doc[:20]]) for doc in docs)
    mixed: list[Doc] = []
    while sum(map(len, mixed)) < n_tokens:
        mixed += [long, *islice(short, (N_TOKENS - 400) // 20)]
    return mixed


def compare(
    model: Model[list[Doc], Any], batches: list[list[Doc]], n_turns: int
) -> dict[str, list[float]]:
    """Seconds of module and layer, before and after, median over the turns."""
    module = get_module_shim(model.get_ref("encode")).module
    assert isinstance(module, TransformerEncoder)
    embedded = [
        (torch.from_numpy(model.ops.xp.concatenate(rows)), list(map(len, rows)))
        for rows in map(model.get_ref("embed").predict, batches)
    ]

    @torch.no_grad()
    def encode() -> list[Tensor]:
        return [module(*batch) for batch in embedded]

    def predict() -> list[Any]:
        return [model.predict(batch) for batch in batches]

    times: dict[str, list[list[float]]] = {"encoder": [[], []], "tok2vec": [[], []]}
    with as_before():
        expected = encode()
    for y, same in zip(encode(), expected, strict=True):
        torch.testing.assert_close(y, same, rtol=1e-4, atol=1e-4)
    for _ in range(n_turns):
        for name, run in (("encoder", encode), ("tok2vec", predict)):
            for side, context in enumerate((as_before, nullcontext)):
                with context():
                    start = time.process_time()
                    run()
                    times[name][side].append(time.process_time() - start)
    return {name: [statistics.median(side) for side in sides] for name, sides in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="a .spacy file")
    parser.add_argument("--lang", default="en")
    parser.add_argument("--tokens", type=int, default=50_000, help="of each mix, at most")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nlp = spacy.blank(args.lang)
    docs = [doc for doc in DocBin().from_disk(args.corpus).get_docs(nlp.vocab) if len(doc)]
    words = [token.text for token in chain.from_iterable(docs)]
    n_kept = sum(1 for n in torch.tensor([len(doc) for doc in docs]).cumsum(0) if n <= args.tokens)
    mixes = {
        args.corpus.stem: docs[:n_kept],
        "up to 20, and one of 400": mix_one_long(nlp, docs, words, args.tokens),
        "5 to 400": mix_lengths(nlp, words, args.tokens),
    }
    embed = {"width": 128, "rows": [5000, 1000, 2500, 2500], "include_static_vectors": False}
    attrs = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
    make_embed = spacy.registry.architectures.get("spacy.MultiHashEmbed.v2")
    model = build_transformer_encoder_v1(make_embed(attrs=attrs, **embed))
    model.initialize(X=docs[:10])
    print("| mix | words | longest | | blocks, words/s | by length, words/s | |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for mix, texts in mixes.items():
        n_words, longest = sum(map(len, texts)), max(map(len, texts))
        for name, (before, after) in compare(model, batch_docs(texts), args.turns).items():
            print(
                f"| {mix} | {n_words:,} | {longest} | {name} | {n_words / before:,.0f} | "
                f"{n_words / after:,.0f} | {before / after:.2f} |"
            )


if __name__ == "__main__":
    main()
