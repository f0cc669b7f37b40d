"""Small untrained encoders, in folders as the model hub has them: no network is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("bert", "ernie", "roberta", "electra", "albert")
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ALBERT_SPECIAL = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]


def make_tiny_encoder(kind: str, folder: Path, texts: list[str]) -> Path:
    """Write an untrained encoder of two layers and its tokenizer, always the same.

    kind (str): One of `KINDS`.
    folder (Path): Where to write it; made if it is not there.
    texts (list[str]): All characters that its tokenizer shall know.
    RETURNS (Path): The folder.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    makers = {"roberta": _make_byte_pairs, "albert": _make_unigrams}
    tokenizer = makers.get(kind, _make_wordpieces)(kind, texts)
    # RoBERTa counts positions from the padding piece on.
    n_positions = 66 if kind == "roberta" else 64
    # These two would make embeddings of 128.
    settings: dict[str, Any] = {"embedding_size": 16} if kind in ("electra", "albert") else {}
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=n_positions,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        initializer_range=0.2,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _list_characters(texts: list[str]) -> list[str]:
    return sorted({char for text in texts for char in text if not char.isspace()})


def _make_wordpieces(kind: str, texts: list[str]) -> Any:
    """A tokenizer of lower-case letters and Chinese characters, as BERT's."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.normalizers import BertNormalizer
    from transformers import BertTokenizerFast, ElectraTokenizerFast

    # As the tokenizer sees them: what it folds must be known in that form.
    normalised = BertNormalizer(lowercase=True).normalize_str("".join(texts))
    pieces = _list_characters([normalised])
    vocab = [*BERT_SPECIAL, *pieces, *(f"##{piece}" for piece in pieces)]
    backend = BertWordPieceTokenizer({piece: i for i, piece in enumerate(vocab)}, lowercase=True)
    make = ElectraTokenizerFast if kind == "electra" else BertTokenizerFast
    return make(tokenizer_object=backend._tokenizer, do_lower_case=True, model_max_length=64)


def _make_byte_pairs(kind: str, texts: list[str]) -> Any:
    """A tokenizer of bytes and of the most frequent pairs of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import RobertaTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(ROBERTA_SPECIAL) + 256 + 16,
        special_tokens=ROBERTA_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False
    )
    return RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=64)


def _make_unigrams(kind: str, texts: list[str]) -> Any:
    """A tokenizer of single characters with the mark that begins a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AlbertTokenizerFast

    def list_pieces() -> Iterator[tuple[str, float]]:
        yield from ((piece, 0.0) for piece in ALBERT_SPECIAL)
        yield "▁", -1.0
        for character in _list_characters(texts):
            yield character, -2.0
            yield f"▁{character}", -2.5

    tokenizer = Tokenizer(models.Unigram([*list_pieces()], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return AlbertTokenizerFast(tokenizer_object=tokenizer, model_max_length=64)
