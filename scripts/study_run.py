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
from spacy.cli._util import setup_gpu
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
    RETURNS (dict[str, Any]): The "scores", the "seconds" of training and of evaluation together.
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
    return {"scores": scores, "seconds": time.perf_counter() - start}


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
