"""Compare the speed of our CRF with pytorch-crf: `python benchmarks/crf.py --threads 2`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torchcrf
from torch import Tensor

from spacy_mtlner.codecs.tags import TagScheme
from spacy_mtlner.nn.crf import CRF

TYPES = 10
SHAPES = ((64, 50), (8, 512))  # (rows, tokens)


def biluo_constraints(types: int) -> dict[str, Tensor]:
    """Get the legal transitions of tags O, then B, I, L and U of every type, T = 4 * types + 1."""
    scheme = TagScheme("BILUO", tuple(map(str, range(types))))
    names = ("allowed_transitions", "allowed_start", "allowed_end")
    return {name: torch.from_numpy(getattr(scheme, name)) for name in names}


def interleave(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Time functions in turns, and return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat + 2):
        for name, run in runs.items():
            began = perf_counter()
            run()
            if turn >= 2:  # the first turns warm up
                times[name].append(perf_counter() - began)
    return {name: median(values) for name, values in times.items()}


def measure(rows: int, tokens: int, repeat: int) -> list[dict[str, object]]:
    """Measure loss with backward pass and decoding on one batch."""
    torch.manual_seed(0)
    num_tags = 4 * TYPES + 1
    ours = CRF(num_tags, batch_first=True, **biluo_constraints(TYPES))
    theirs = torchcrf.CRF(num_tags, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    emissions = torch.randn(rows, tokens, num_tags, requires_grad=True)  # (B, L, T)
    lengths = torch.randint(tokens // 2, tokens + 1, (rows, 1))  # (B, 1)
    lengths[0] = tokens
    mask = torch.arange(tokens) < lengths  # (B, L)
    tags = torch.zeros_like(mask, dtype=torch.long)  # (B, L)
    for row, path in enumerate(ours.decode(torch.randn_like(emissions), mask)):
        tags[row, : len(path)] = torch.tensor(path)

    def loss(crf: torchcrf.CRF) -> Callable[[], None]:
        return lambda: crf(emissions, tags, mask, reduction="mean").neg().backward()

    def decode(crf: torchcrf.CRF) -> Callable[[], object]:
        return torch.no_grad()(lambda: crf.decode(emissions, mask))

    records = []
    for task, make in (("loss+backward", loss), ("decode", decode)):
        seconds = interleave({"ours": make(ours), "pytorch-crf": make(theirs)}, repeat)
        records.append(
            {
                "task": task,
                "batch": f"{rows}x{tokens}",
                "ours_ms": round(1000 * seconds["ours"], 2),
                "pytorch_crf_ms": round(1000 * seconds["pytorch-crf"], 2),
                "ratio": round(seconds["pytorch-crf"] / seconds["ours"], 2),
            }
        )
    return records


def main() -> None:
    """Run the benchmark, print a table and save it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--path", type=Path, default=Path(__file__).parent / "results" / "crf.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    records = [record for shape in SHAPES for record in measure(*shape, args.repeat)]
    print(f"{'task':14} {'batch':>7} {'ours ms':>9} {'pytorch-crf ms':>15} {'ratio':>6}")
    for record in records:
        print("{task:14} {batch:>7} {ours_ms:9} {pytorch_crf_ms:15} {ratio:6}".format(**record))
    result = {"threads": args.threads, "torch": torch.__version__, "results": records}
    args.path.parent.mkdir(parents=True, exist_ok=True)
    args.path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
