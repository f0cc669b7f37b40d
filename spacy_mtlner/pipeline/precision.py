"""The precision at which a saved pipeline's pre-trained encoders compute."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacy
from spacy.language import Language
from thinc.api import Config

if TYPE_CHECKING:  # Commands that need no encoder would wait for the package transformers.
    from spacy_mtlner.models.transformer import Precision

_STOCK = "spacy-transformers."
_OURS = "spacy_mtlner."
_NOT_OURS = ("mixed_precision", "grad_scaler_config")


def set_precision(config: Config, precision: "Precision") -> list[str]:
    """Change a pipeline's config, so that its pre-trained encoders compute at another precision;
    those of spacy-transformers become ours, which do the same.

    config (Config): The config; changed in place.
    precision (Precision): "float32", "bfloat16" or "int8".
    RETURNS (list[str]): The components with an encoder of their own.
    RAISES (ValueError): If there is none.
    """
    changed = []
    for name, component in config["components"].items():
        for section in _find_encoders(component):
            section["@architectures"] = _our_name(section["@architectures"])
            for key in _NOT_OURS:
                section.pop(key, None)
            section["precision"] = precision
            changed.append(name)
    if not changed:
        raise ValueError(
            "The pipeline has no pre-trained encoder: only those of the architectures "
            "TransformerModel and Tok2VecTransformer have a precision."
        )
    return changed


def convert_precision(model: Path, output: Path, precision: "Precision") -> Language:
    """Save a copy of a pipeline whose pre-trained encoders compute at another precision.

    model (Path): Folder of the pipeline.
    output (Path): Folder of the copy.
    precision (Precision): "float32", "bfloat16" or "int8".
    RETURNS (Language): The copy.
    RAISES (ValueError): If the pipeline has no pre-trained encoder.
    """
    config = spacy.util.load_config(model / "config.cfg")
    set_precision(config, precision)
    nlp = spacy.util.load_model_from_config(config, meta=spacy.util.load_meta(model / "meta.json"))
    nlp.from_disk(model)
    nlp.meta["performance"] = {}  # What is there was measured before.
    nlp.to_disk(output)
    return nlp


def _find_encoders(section: Any) -> Iterator[dict[str, Any]]:
    """The sections of a config, however deep, that make a pre-trained encoder."""
    if not isinstance(section, dict):
        return
    kind = _our_name(section.get("@architectures", ""))
    if kind in (f"{_OURS}TransformerModel.v1", f"{_OURS}Tok2VecTransformer.v1"):
        yield section
    for value in section.values():
        yield from _find_encoders(value)


def _our_name(architecture: str) -> str:
    """Our architecture that does what one of spacy-transformers does, else the same name."""
    if not architecture.startswith(_STOCK):
        return architecture
    kind = architecture.removeprefix(_STOCK).partition(".")[0]
    return f"{_OURS}{kind}.v1"
