"""A pre-trained encoder for docs of any length: spacy-transformers' model, with windows that fit,
no token without a vector, prediction in chunks, and a choice of precision.
"""

import json
import platform
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import srsly
import torch
from spacy.tokens import Doc
from spacy_transformers.align import get_alignment, get_alignment_via_offset_mapping
from spacy_transformers.data_classes import FullTransformerBatch, HFObjects, WordpieceBatch
from spacy_transformers.layers import TransformerModel, split_trf_batch, trfs2arrays
from spacy_transformers.layers.hf_shim import HFShim
from spacy_transformers.layers.transformer_model import (
    huggingface_from_pretrained,
    huggingface_tokenize,
)
from spacy_transformers.truncate import truncate_oversize_splits
from thinc.api import ArgsKwargs, Model, chain, get_torch_default_device
from thinc.types import Floats2d, Ragged
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.modeling_outputs import ModelOutput

from spacy_mtlner.models.learning_shim import LearningShim, release_memory
from spacy_mtlner.models.pieces import SafeSpans, fill_gaps, piece_limit
from spacy_mtlner.nn.quantise import dequantise_state, quantise_linears

Precision = Literal["float32", "bfloat16", "int8"]

GetSpans = Callable[..., list[list[Any]]]
Backprop = Callable[[FullTransformerBatch], list[Doc]]


def build_transformer_model_v1(
    name: str,
    get_spans: GetSpans,
    tokenizer_config: dict[str, Any] = {"use_fast": True},  # noqa: B006 (thinc's schema)
    transformer_config: dict[str, Any] = {},  # noqa: B006
    precision: Precision = "float32",
    chunk: int = 8192,
) -> Model[list[Doc], FullTransformerBatch]:
    """Build the model of a `transformer` component over a pre-trained encoder; it does what
    `spacy-transformers.TransformerModel.v3` does, a chunk at a time and without cutting windows.

    name (str): The encoder's folder or its name on the model hub.
    get_spans (GetSpans): Cuts docs into windows, for example `spacy_mtlner.safe_spans.v1`.
    tokenizer_config (dict[str, Any]): Settings of the tokenizer.
    transformer_config (dict[str, Any]): Settings of the encoder.
    precision (Precision): "bfloat16" computes the encoder's products in 16 bits, in training and
        prediction, where the hardware can; "int8" quantises its linear layers, for prediction on
        the CPU alone.
    chunk (int): Word pieces, padding included, that are encoded at once in prediction.
    RETURNS (Model[list[Doc], FullTransformerBatch]): The model.
    RAISES (ValueError): If a setting is out of its range.
    """
    return EncoderModel(name, get_spans, tokenizer_config, transformer_config, precision, chunk)


def build_tok2vec_transformer_v1(
    name: str,
    get_spans: GetSpans,
    pooling: Model[Ragged, Floats2d],
    tokenizer_config: dict[str, Any] = {"use_fast": True},  # noqa: B006
    transformer_config: dict[str, Any] = {},  # noqa: B006
    precision: Precision = "float32",
    chunk: int = 8192,
    grad_factor: float = 1.0,
) -> Model[list[Doc], list[Floats2d]]:
    """Build the same encoder as the tok2vec layer of one component, which does not share it; it is
    what `nlp.replace_listeners` makes.

    name (str): The encoder's folder or its name on the model hub.
    get_spans (GetSpans): Cuts docs into windows.
    pooling (Model[Ragged, Floats2d]): Makes one vector of those of a token's pieces.
    tokenizer_config (dict[str, Any]): Settings of the tokenizer.
    transformer_config (dict[str, Any]): Settings of the encoder.
    precision (Precision): "float32", "bfloat16" or "int8".
    chunk (int): Word pieces that are encoded at once in prediction.
    grad_factor (float): Factor of the gradient that the encoder gets.
    RETURNS (Model[list[Doc], list[Floats2d]]): The layer.
    RAISES (ValueError): If a setting is out of its range.
    """
    encoder = EncoderModel(name, get_spans, tokenizer_config, transformer_config, precision, chunk)
    model: Model[list[Doc], list[Floats2d]] = chain(
        chain(encoder, split_trf_batch()), trfs2arrays(pooling, grad_factor)
    )
    return model


class EncoderModel(TransformerModel):
    """The model of `build_transformer_model_v1`, where the arguments are described."""

    def __init__(
        self,
        name: str,
        get_spans: GetSpans,
        tokenizer_config: dict[str, Any],
        transformer_config: dict[str, Any],
        precision: Precision,
        chunk: int,
    ) -> None:
        if precision not in ("float32", "bfloat16", "int8"):
            raise ValueError(
                f"The encoder's precision must be float32, bfloat16 or int8, not {precision!r}."
            )
        if chunk < 1:
            raise ValueError(f"The encoder's chunk must be at least 1 word piece, not {chunk}.")
        super().__init__(name, get_spans, dict(tokenizer_config), dict(transformer_config))
        wrapper: Any = self.layers[0]
        wrapper.shims[0] = EncoderShim(wrapper.shims[0]._hfmodel, precision, chunk)
        wrapper.attrs["convert_outputs"] = _convert_outputs
        self._func = _forward
        self.init = _init
        self.attrs["replace_listener_cfg"] = _replace_listener_config

    @property
    def shim(self) -> "EncoderShim":
        """RETURNS (EncoderShim): What holds the encoder."""
        return cast(EncoderShim, self.layers[0].shims[0])

    def copy(self) -> "EncoderModel":
        """RETURNS (EncoderModel): The same model with an encoder of its own."""
        settings = self.shim.precision, self.shim.chunk
        copied = EncoderModel(self.attrs["name"], self.attrs["get_spans"], {}, {}, *settings)
        copied.layers[0] = self.layers[0].copy()
        copied.attrs["has_transformer"] = self.attrs["has_transformer"]
        copied._dims = dict(self._dims)
        return copied


class EncoderShim(LearningShim, HFShim):
    """Holds an encoder of the package transformers and runs it at the wanted precision. It is in
    evaluation mode but while it learns, so that several threads may predict.

    hf_model (HFObjects): The encoder, or its settings, with its tokenizer.
    precision (Precision): "float32", "bfloat16" or "int8".
    chunk (int): Word pieces that are encoded at once in prediction.
    """

    def __init__(self, hf_model: Any, precision: Precision, chunk: int) -> None:
        self.precision = precision
        self.chunk = chunk
        super().__init__(hf_model)

    def prepare(self) -> None:
        """Make an encoder that was just read ready for prediction, by several threads at once."""
        self._model.eval()
        # What decoders and XLNet keep of the text so far, which nobody reads here.
        for setting in ("use_cache", "use_mems_eval"):
            if hasattr(self._model.config, setting):
                setattr(self._model.config, setting, False)
        tokenizer = self._hfmodel.tokenizer
        tokenizer.padding_side = "right"
        # A tokenizer's first call sets its padding; then calls change nothing in it.
        huggingface_tokenize(tokenizer, ["a"])

    def predict(self, inputs: ArgsKwargs) -> ModelOutput:
        """Encode windows, a chunk at a time.

        inputs (ArgsKwargs): The encoder's arguments, tensors of shape (n_windows, n_pieces).
        RETURNS (ModelOutput): Its output for all windows.
        """
        n_windows, n_pieces = inputs.kwargs["input_ids"].shape
        size = max(1, self.chunk // n_pieces)
        if size >= n_windows:
            with torch.no_grad():
                return self._run(inputs.kwargs)
        output = ModelOutput()
        with torch.no_grad():
            for start in range(0, n_windows, size):
                part = slice(start, start + size)
                encoded = self._run({k: v[part] for k, v in inputs.kwargs.items()})
                for key, value in encoded.items():
                    if key not in output:
                        output[key] = _room_for(value, n_windows)
                    _fill(output[key], value, part)
        release_memory()
        return output

    def begin_update(
        self, inputs: ArgsKwargs
    ) -> tuple[ModelOutput, Callable[[ArgsKwargs], ArgsKwargs]]:
        """Encode windows in training mode.

        inputs (ArgsKwargs): The encoder's arguments, tensors of shape (n_windows, n_pieces).
        RETURNS (tuple[ModelOutput, Callable[[ArgsKwargs], ArgsKwargs]]): Its output, and the
            callback that takes the gradients.
        RAISES (ValueError): If the encoder is quantised.
        """
        if self.precision == "int8":
            raise ValueError(
                "An encoder with precision = 'int8' cannot learn: train it with 'float32' or "
                "'bfloat16' and quantise the trained pipeline, or freeze the component."
            )
        self._model.train()
        try:
            output = self._run(inputs.kwargs)
        finally:
            self._model.eval()

        def backprop(gradients: ArgsKwargs) -> ArgsKwargs:
            torch.autograd.backward(*gradients.args, **gradients.kwargs)
            return inputs

        return output, backprop

    def from_bytes(self, bytes_data: bytes) -> "EncoderShim":
        """Read the encoder and its tokenizer; weights that were saved at another precision are
        converted.

        bytes_data (bytes): What `to_bytes` returned.
        RETURNS (EncoderShim): Itself.
        RAISES (ValueError): If weights are missing.
        """
        content = srsly.msgpack_loads(bytes_data)
        files = content["tokenizer"]
        if not content["config"]:  # It was not initialised.
            return self
        with TemporaryDirectory() as name:
            folder = Path(name)
            settings = files.pop("kwargs", {})
            for file, data in files.items():
                (folder / file).write_bytes(data)
            # Not by srsly, which writes 1e-12 as 0.
            (folder / "config.json").write_text(json.dumps(content["config"]), encoding="utf-8")
            tokenizer = _TokenizerClass.from_pretrained(name, **settings)
            config = AutoConfig.from_pretrained(name)
            vocab = getattr(tokenizer, "vocab_file", None)
            vocab_contents = Path(vocab).read_bytes() if vocab else None
        encoder = AutoModel.from_config(config)
        device = get_torch_default_device()
        state = torch.load(BytesIO(content["state"]), map_location=device, weights_only=True)
        if self.precision == "int8":
            quantise_linears(encoder)
        else:
            dequantise_state(state)
        missing = encoder.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise ValueError(
                f"The saved encoder lacks the weights {', '.join(missing)}: load it with the "
                f"version of the package transformers that it was saved with."
            )
        self._hfmodel = HFObjects(tokenizer, encoder.to(device), vocab_contents)
        self._model = encoder
        self.prepare()
        return self

    def _run(self, arguments: dict[str, Tensor]) -> ModelOutput:
        device = arguments["input_ids"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._is_half(device)):
            return self._model(**arguments)

    def _is_half(self, device: str) -> bool:
        if self.precision == "int8" and device != "cpu":
            raise ValueError(
                "An encoder with precision = 'int8' runs on the CPU alone: use 'bfloat16' on a GPU."
            )
        if self.precision != "bfloat16":
            return False
        if not can_halve(device):
            warnings.warn(
                f"This {device} does not compute in bfloat16: the encoder runs in float32.",
                stacklevel=1,
            )
            return False
        return True


def can_halve(device: str) -> bool:
    """Tell whether products in bfloat16 are faster than in float32.

    device (str): The kind of device: "cpu", "cuda" ...
    RETURNS (bool): Whether the hardware has them.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu" and torch.backends.mkldnn.is_available():
        # On x86 also where they are emulated, or take twice the time: without AMX.
        is_x86 = platform.machine().lower() in ("x86_64", "amd64")
        has_tiles = not is_x86 or torch.cpu._is_amx_tile_supported()
        return has_tiles and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


class _TokenizerClass:
    """What reads a tokenizer, also one that is in the file tokenizer.json alone."""

    @staticmethod
    def from_pretrained(source: str, **settings: Any) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(source, **settings)
        if getattr(tokenizer, "vocab_file", "") is None:
            del tokenizer.vocab_file  # spacy-transformers reads the file where this is set.
        return tokenizer


def _room_for(value: Any, n_windows: int) -> Any:
    """Room for all windows, like one chunk's output: a tensor or a tuple of such."""
    if isinstance(value, tuple):
        return tuple(_room_for(item, n_windows) for item in value)
    return value.new_empty((n_windows, *value.shape[1:]))


def _fill(room: Any, value: Any, part: slice) -> None:
    if isinstance(value, tuple):
        for item_room, item in zip(room, value, strict=True):
            _fill(item_room, item, part)
    else:
        room[part] = value


def _as_float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_as_float32(item) for item in value)
    return value.float()


def _init(model: EncoderModel, X: list[Doc] | None = None, Y: Any = None) -> None:
    if model.attrs["has_transformer"]:
        return
    name = model.attrs["name"]
    try:
        objects = huggingface_from_pretrained(
            name,
            model._init_tokenizer_config,
            model._init_transformer_config,
            tokenizer_cls=_TokenizerClass,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The encoder {name!r} cannot be loaded: give a folder of the package transformers "
            f"with its tokenizer, or a name of the model hub where that can be reached. {error}"
        ) from error
    if objects.transformer.config.is_encoder_decoder:
        raise ValueError(
            f"The encoder {name!r} is an encoder with a decoder, which a transformer component "
            f"cannot use (seq2seq_ner takes a BART)."
        )
    if objects.tokenizer.pad_token is None:
        raise ValueError(
            f"The tokenizer of {name!r} has no token for padding: name one of its tokens in "
            f'tokenizer_config, as {{"use_fast": true, "pad_token": "..."}}.'
        )
    if model.shim.precision == "int8":
        quantise_linears(objects.transformer)
    model.attrs["set_transformer"](model, objects)
    model.shim.prepare()


def _forward(
    model: EncoderModel, docs: list[Doc], is_train: bool
) -> tuple[FullTransformerBatch, Backprop]:
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("The encoder is not there yet: initialise the pipeline or load it.")
    limit = piece_limit(tokenizer, model.transformer)
    spans, encoded = _cut_and_tokenize(model.attrs["get_spans"], docs, tokenizer, limit)
    if encoded is None:
        return FullTransformerBatch.empty(len(docs)), lambda d_output: docs
    flat = [span for doc_spans in spans for span in doc_spans]
    wordpieces = WordpieceBatch.from_batch_encoding(encoded)
    if "offset_mapping" in encoded:
        align = get_alignment_via_offset_mapping(flat, encoded["offset_mapping"])
    else:
        align = get_alignment(flat, wordpieces.strings, tokenizer.all_special_tokens)
    lengths = align.lengths
    if wordpieces.input_ids.shape[1] > limit:
        wordpieces, align = truncate_oversize_splits(wordpieces, align, limit)
        n_cut = int((align.lengths < lengths).sum())
        if n_cut:
            warnings.warn(
                f"{n_cut} tokens in a batch of {len(docs)} docs lost word pieces, since their "
                f"windows are longer than the {limit} pieces that the encoder takes: use "
                f"spacy_mtlner.safe_spans.v1 or smaller windows. (A single token of more pieces "
                f"is always cut.)",
                stacklevel=1,
            )
    align = fill_gaps(align, spans, wordpieces.input_ids.shape[1])
    output, backprop_encoder = model.layers[0](wordpieces, is_train)

    def backprop(d_output: FullTransformerBatch) -> list[Doc]:
        backprop_encoder(d_output.model_output)
        return docs

    return FullTransformerBatch(
        spans=spans, wordpieces=wordpieces, model_output=output, align=align
    ), backprop


def _cut_and_tokenize(
    get_spans: GetSpans, docs: list[Doc], tokenizer: Any, limit: int
) -> tuple[list[list[Any]], Any]:
    """The docs' windows and their pieces; None for the pieces if all docs are empty."""
    rooms = [limit - tokenizer.num_special_tokens_to_add()] * len(docs)
    while True:
        if isinstance(get_spans, SafeSpans):
            spans = get_spans(docs, tokenizer=tokenizer, rooms=rooms)
        else:
            spans = get_spans(docs)
        texts = [span.text for doc_spans in spans for span in doc_spans]
        if not texts:
            return spans, None
        encoded = huggingface_tokenize(tokenizer, texts)
        lengths = iter(encoded["attention_mask"].sum(axis=1).tolist())
        # A window alone may have more pieces than the same text inside its doc.
        longest = [
            max((n for span, n in zip(own, lengths, strict=False) if len(span) > 1), default=0)
            for own in spans
        ]
        smaller = [
            room if n <= limit else max(1, min(room - 1, room * limit // n))
            for room, n in zip(rooms, longest, strict=True)
        ]
        if smaller == rooms or not isinstance(get_spans, SafeSpans):
            return spans, encoded
        rooms = smaller


def _convert_outputs(
    model: Model, inputs_outputs: tuple[Any, ModelOutput], is_train: bool
) -> tuple[ModelOutput, Callable[[ModelOutput], ArgsKwargs]]:
    _, output = inputs_outputs
    hidden = output["last_hidden_state"]
    for key, value in output.items():  # The components behind read float32.
        output[key] = _as_float32(value)

    def backprop(d_output: ModelOutput) -> ArgsKwargs:
        gradients = tuple(gradient.to(hidden.dtype) for gradient in d_output.values())
        return ArgsKwargs(args=((hidden,),), kwargs={"grad_tensors": gradients})

    return output, backprop


def _replace_listener_config(
    encoder_config: dict[str, Any], listener_config: dict[str, Any]
) -> dict[str, Any]:
    config = dict(encoder_config)
    if "TransformerListener" in listener_config["@architectures"]:
        config["@architectures"] = "spacy_mtlner.Tok2VecTransformer.v1"
        for key in ("pooling", "grad_factor"):
            config.setdefault(key, listener_config[key])
    return config
