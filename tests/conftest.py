import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

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
        from transformers import BertConfig, BertModel, BertTokenizerFast

        path = folder / "bert"
        path.mkdir()
        letters = "abcdefghijklmnopqrstuvwxyz.,"
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocab += [*letters, *(f"##{letter}" for letter in letters)]
        (path / "vocab.txt").write_text("\n".join(vocab))
        config = BertConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(path)
        BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
        return str(path)

    return make
