"""One run of a study, in a process of its own: study.py starts it with a folder that holds
run.json, and reads result.json there.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import spacy
import srsly
import torch
from spacy.cli._util import setup_gpu
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config, resolve_dot_names


def train_and_score(
    config: str, overrides: dict[str, Any], corpus: str, folder: Path, gpu_id: int = -1
) -> dict[str, Any]:
    """Train a pipeline and score the best one, on a corpus read as its dev corpus is.

    config (str): Path of the config.
    overrides (dict[str, Any]): Settings that replace the config's, by their dotted names.
    corpus (str): Path of the corpus to score it on.
    folder (Path): Where the pipelines are written.
    gpu_id (int): The GPU, or -1 for the CPU.
    RETURNS (dict[str, Any]): The "scores", the "seconds" of training and of evaluation together,
        and how many "parameters" the pipeline has.
    """
    start = time.perf_counter()
    setup_gpu(gpu_id)
    nlp = init_nlp(load_config(config, overrides=overrides, interpolate=False), use_gpu=gpu_id)
    train(nlp, folder, use_gpu=gpu_id)
    nlp = spacy.load(folder / "model-best")
    interpolated = load_config(
        config, overrides={**overrides, "paths.dev": corpus}, interpolate=True
    )
    (read,) = resolve_dot_names(interpolated, [interpolated["training"]["dev_corpus"]])
    scores = nlp.evaluate(list(read(nlp)))
    seconds = time.perf_counter() - start
    return {"scores": scores, "seconds": seconds, "parameters": count_parameters(nlp)}


def count_parameters(nlp: Language) -> int:
    """Count the numbers that training sets, those of frozen components included.

    nlp (Language): The pipeline.
    RETURNS (int): How many there are, those that layers share counted once.
    """
    models = [getattr(pipe, "model", None) for _, pipe in nlp.components]
    nodes = {id(node): node for model in models if model is not None for node in model.walk()}
    arrays = [
        node.get_param(name)
        for node in nodes.values()
        for name in node.param_names
        if node.has_param(name)
    ]
    modules = [getattr(shim, "_model", None) for node in nodes.values() for shim in node.shims]
    tensors = {
        id(tensor): tensor
        for module in modules
        if isinstance(module, torch.nn.Module)
        for tensor in module.parameters()
    }
    return sum(a.size for a in arrays) + sum(tensor.numel() for tensor in tensors.values())


def main(folder: Path) -> None:
    """Do the run that a folder describes, and write scores or what went wrong.

    folder (Path): Holds run.json, with the arguments of `train_and_score`.
    """
    try:
        result = train_and_score(**srsly.read_json(folder / "run.json"), folder=folder)
    except (Exception, SystemExit) as err:
        traceback.print_exc()
        result = {"error": f"{type(err).__name__}: {err}"}
    srsly.write_json(folder / "result.json", result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
