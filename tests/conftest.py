import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.tiny_encoders import make_tiny_encoder

# Several tests run at the same time.
torch.set_num_threads(1)

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real corpora: MTLNER_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("MTLNER_DATA", beside))
    if not path.is_dir():
        pytest.skip("no real corpora: set MTLNER_DATA to their folder")
    return path


@pytest.fixture
def tiny_bert() -> Callable[[Path], str]:
    """Writes a small untrained BERT with a tokenizer of single letters; returns its folder."""

    def make(folder: Path) -> str:
        letters = "abcdefghijklmnopqrstuvwxyz.,"
        return str(make_tiny_encoder("bert", folder / "bert", [letters]))

    return make


@pytest.fixture
def tiny_bart() -> Callable[[Path], str]:
    """Writes a small untrained BART with a tokenizer of bytes and some pairs of them; returns its
    folder.
    """

    def make(folder: Path) -> str:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import BartConfig, BartModel, BartTokenizerFast

        path = folder / "bart"
        path.mkdir()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        merges = [("Ġ", "a"), ("p", "a"), ("i", "n"), ("pa", "in"), ("Ġ", "pain")]
        pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
        vocab = {piece: i for i, piece in enumerate([*special, *pieces])}
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        config = BartConfig(
            vocab_size=len(vocab),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=64,
            init_std=0.1,
        )
        BartModel(config).save_pretrained(path)
        BartTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
        return str(path)

    return make
