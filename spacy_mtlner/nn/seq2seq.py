"""The encoder-decoder of "Multi-task Transformer with Relation-attention and Type-attention for
Named Entity Recognition": it points at tokens and types, and predicts the relations of token pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from spacy_mtlner.codecs.relations import N_RELATIONS, count_cells
from spacy_mtlner.codecs.sequence import END
from spacy_mtlner.nn.attention import IMPLEMENTATION, ExtraKeys, ExtraStates, using
from spacy_mtlner.nn.generation import generate
from spacy_mtlner.nn.ragged import RowGroup, group_rows
from spacy_mtlner.nn.relations import PairClassifier
from spacy_mtlner.nn.transformer import sinusoidal_positions

FREE_SYMBOLS = 8  # Symbols that any window may have, however short.


@dataclass(frozen=True)
class Pieces:
    """The pieces of a batch's tokens, of BART's own vocabulary.

    ids (Tensor): Ids of all pieces, shape (n_pieces,), int64.
    counts (Tensor): How many each token has, at least 1, shape (n_tokens,), int64.
    """

    ids: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Names:
    """Known entities of the types, by what their names consist of.

    types (Tensor): Type of the entity that a token, or piece, belongs to, shape (n,), int64.
    weights (Tensor): The share that it has in its type's representation, shape (n,).
    vectors (Optional[Tensor]): The tokens' vectors, shape (n, width).
    ids (Optional[Tensor]): With a BART of its own vocabulary: the pieces' ids, shape (n,), int64.
    """

    types: Tensor
    weights: Tensor
    vectors: Tensor | None = None
    ids: Tensor | None = None


@dataclass(frozen=True)
class Seq2SeqBatch:
    """What the model reads, and what is wanted of it.

    lengths (Sequence[int]): The windows' numbers of tokens, at least 1; the tokens follow each
        other.
    vectors (Optional[Tensor]): The tokens' vectors, shape (n_tokens, width).
    pieces (Optional[Pieces]): With a BART of its own vocabulary: the tokens' pieces.
    names (Optional[Names]): Known entities of the types, for type attention.
    symbols (Optional[Tensor]): Gold sequences, of which each step is to be predicted from those
        before it, shape (n_windows, n_steps), int64; at most as many as BART has positions.
    with_cells (bool): Whether the relations of token pairs are wanted.
    beam_width (int): Hypotheses per window if sequences are to be generated, else 0.
    """

    lengths: Sequence[int]
    vectors: Tensor | None = None
    pieces: Pieces | None = None
    names: Names | None = None
    symbols: Tensor | None = None
    with_cells: bool = False
    beam_width: int = 0


class Seq2SeqScores(NamedTuple):
    """What the model says of a batch of windows; parts that were not asked for have no elements.

    steps (Tensor): Logits of all symbols (eq. 11) at each step of the gold sequences, `END`
        included and padding not, shape (n_steps of all windows, 1 + n_types + longest window);
        those of tokens that a window does not have are without meaning.
    cells (Tensor): Logits of the relations of each pair of tokens, then of the types as that of an
        entity from the first to the second one; all windows' grids behind each other, row-major,
        shape (n_cells, N_RELATIONS + n_types).
    symbols (Tensor): Generated sequences, padded with `END`, shape (n_windows, n_steps), int64.
    log_probs (Tensor): Their symbols' log-probabilities, shape (n_windows, n_steps).
    """

    steps: Tensor
    cells: Tensor
    symbols: Tensor
    log_probs: Tensor


def count_steps(symbols: Tensor) -> Tensor:
    """Count the steps of sequences up to and with their first `END`.

    symbols (Tensor): The sequences, which may be cut off before it, shape (n_rows, n_steps).
    RETURNS (Tensor): Shape (n_rows,), int64.
    """
    return (1 + (symbols != END).cumprod(1).sum(1)).clamp(max=symbols.shape[1])


class _Encoded(NamedTuple):
    """A group of windows behind the encoder.

    inputs (Tensor): Each token as the encoder reads it, shape (n_rows, length, width).
    states (Tensor): H^e, shape (n_rows, length, width).
    memory (Tensor): What the decoder attends to: the same, or the states of all pieces, shape
        (n_rows, n_memory, width).
    memory_mask (Tensor): 1 for what is no padding there, shape (n_rows, n_memory).
    """

    inputs: Tensor
    states: Tensor
    memory: Tensor
    memory_mask: Tensor


class Seq2Seq(nn.Module):
    """A stock BART that points at tokens and types (section 2.5), with relation prediction (2.2),
    token relation attention (2.3) and type attention (2.4).

    The decoder reads a pointed token as what the encoder reads there plus a projection of its state
    behind the encoder: without it, two equal words would be the same to it. Types are read and
    pointed at by one embedding; `END` is the first of these.

    width (int): Size of the tokens' vectors; 0 with a BART of its own vocabulary.
    n_types (int): Number of types.
    bart (dict[str, Any]): Settings of a `BartConfig`.
    is_pretrained (bool): Whether BART reads pieces of its own vocabulary.
    has_relations (bool): Whether relations are predicted.
    relation_width (int): Size of the pairs' vectors.
    relation_attention (bool): Whether the decoder attends to the tokens' relations.
    type_attention (bool): Whether encoder and decoder attend to the types.
    type_width (int): Size between the two layers that known entities' vectors pass.
    max_symbols (float): Symbols that are generated per token, at most.
    """

    def __init__(
        self,
        width: int,
        n_types: int,
        *,
        bart: dict[str, Any],
        is_pretrained: bool,
        has_relations: bool,
        relation_width: int,
        relation_attention: bool,
        type_attention: bool,
        type_width: int,
        max_symbols: float,
    ) -> None:
        super().__init__()
        self.n_types = n_types
        self.max_symbols = max_symbols
        self.bart = BartModel(BartConfig(**bart))
        self.bart.config._attn_implementation = IMPLEMENTATION
        size: int = self.bart.config.d_model
        self.project = None if is_pretrained else nn.Linear(width, size)
        if not is_pretrained:  # From sinusoids, shifts by some places are learned much faster.
            for part in (self.bart.encoder, self.bart.decoder):
                weights = part.embed_positions.weight
                positions = sinusoidal_positions(torch.arange(len(weights)), size)
                with torch.no_grad():
                    weights.copy_(positions[:, :size])
        self.context = nn.Linear(size, size)
        if is_pretrained:  # The decoder first sees the inputs that it knows.
            nn.init.zeros_(self.context.weight)
            nn.init.zeros_(self.context.bias)
        self.types = nn.Embedding(1 + n_types, size)
        nn.init.normal_(self.types.weight, std=self.bart.config.init_std)
        self.from_names = None
        if type_attention:
            self.from_names = nn.Sequential(
                nn.Linear(size, type_width), nn.Tanh(), nn.Linear(type_width, size)
            )
        self.pairs = None
        if has_relations or relation_attention:
            self.pairs = PairClassifier(
                size, n_types, relation_width=relation_width, has_tokens=relation_attention
            )
        self.from_relations = nn.Linear(relation_width, size) if relation_attention else None

    def set_dropout_rate(self, rate: float) -> None:
        """Set BART's dropout, which is no module.

        rate (float): The rate.
        """
        for part in (self.bart.encoder, self.bart.decoder):
            for layer in (part, *part.layers):
                layer.dropout = rate

    @property
    def max_positions(self) -> int:
        """RETURNS (int): How many pieces the encoder, and steps the decoder, can tell apart."""
        return int(self.bart.config.max_position_embeddings)

    def forward(self, batch: Seq2SeqBatch) -> Seq2SeqScores:
        """Run what the batch asks for.

        batch (Seq2SeqBatch): The windows.
        RETURNS (Seq2SeqScores): The scores.
        """
        device = self.types.weight.device
        n_columns = 1 + self.n_types + max(batch.lengths, default=0)
        types = self._embed_types(batch.names)
        x = None
        if self.project is not None:
            assert batch.vectors is not None
            x = self.project(batch.vectors)
        steps: list[tuple[Tensor, Tensor]] = []  # Flat places, and what is there.
        cells: list[tuple[Tensor, Tensor]] = []
        n_windows = len(batch.lengths)
        symbols = numpy.full((n_windows, 0), END, dtype=numpy.int64)
        log_probs = numpy.zeros((n_windows, 0), dtype=numpy.float32)
        sizes = torch.zeros(n_windows, dtype=torch.int64, device=device)
        if batch.symbols is not None:
            sizes = count_steps(batch.symbols)
        step_offsets = sizes.cumsum(0) - sizes
        cell_offsets = torch.from_numpy(count_cells(numpy.array(batch.lengths, dtype=int)))
        cell_offsets = cell_offsets.to(device)
        wants_steps = batch.symbols is not None or batch.beam_width > 0
        for group in group_rows(batch.lengths, device):
            encoded = self._encode(batch, group, x, types)
            extra = self._attend_to_types(types)
            if self.pairs is not None:
                scores = self.pairs(
                    encoded.states,
                    group.mask,
                    with_cells=batch.with_cells,
                    with_tokens=wants_steps,
                )
                if batch.with_cells:
                    cells.append(_flatten_cells(scores.cells, group, cell_offsets))
                if self.from_relations is not None and wants_steps:
                    mask = _to_additive(group.mask, scores.tokens.dtype)
                    relations = ExtraStates(self.from_relations(scores.tokens), mask)
                    extra["cross"] = [*extra["cross"], relations]
            if not wants_steps:
                continue
            decoder = _StepDecoder(self.bart, encoded, types, self.context, ExtraKeys(**extra))
            if batch.symbols is not None:
                own = sizes[group.rows]
                gold = batch.symbols[group.rows, : int(own.max())]
                logits = decoder.run(gold)  # (n_rows, n_steps, n_symbols)
                places = torch.arange(gold.shape[1], device=device)
                is_step = places < own[:, None]
                flat = (step_offsets[group.rows][:, None] + places)[is_step]
                missing = n_columns - logits.shape[2]
                steps.append((flat, nn.functional.pad(logits[is_step], (0, missing))))
            if batch.beam_width:
                rows = group.rows.cpu().numpy()
                lengths = numpy.asarray(batch.lengths)[rows]
                limits = (FREE_SYMBOLS + self.max_symbols * lengths).astype(numpy.int64)
                limits = limits.clip(max=self.max_positions - 1)
                decoder.repeat(batch.beam_width)
                found, values = generate(
                    decoder, lengths, limits, self.n_types, batch.beam_width, device
                )
                missing = found.shape[1] - symbols.shape[1]
                if missing > 0:
                    symbols = numpy.pad(symbols, ((0, 0), (0, missing)), constant_values=END)
                    log_probs = numpy.pad(log_probs, ((0, 0), (0, missing)))
                symbols[rows, : found.shape[1]] = found
                log_probs[rows, : found.shape[1]] = values
        n_steps = int(sizes.sum())
        n_cells = int(cell_offsets[-1]) if batch.with_cells else 0
        return Seq2SeqScores(
            _gather(steps, types.new_zeros((n_steps, n_columns))),
            _gather(cells, types.new_zeros((n_cells, N_RELATIONS + self.n_types))),
            # Gradients are asked for of all scores: in training there must be no integers.
            torch.from_numpy(symbols) if batch.beam_width else types.new_zeros((n_windows, 0)),
            torch.from_numpy(log_probs) if batch.beam_width else types.new_zeros((n_windows, 0)),
        )

    def _embed_types(self, names: Names | None) -> Tensor:
        """E_T of `END` and the types, (1 + n_types, width): a learned vector, plus what the
        weighted sum of the vectors of known entities (eq. 8) becomes behind two layers.
        """
        types: Tensor = self.types.weight
        if self.from_names is None or names is None:
            return types
        if names.ids is not None:
            x = self.bart.encoder.embed_tokens(names.ids)
        else:
            assert self.project is not None and names.vectors is not None
            x = self.project(names.vectors)
        sums = torch.zeros_like(types[1:]).index_add(0, names.types, x * names.weights[:, None])
        return torch.cat([types[:1], types[1:] + self.from_names(sums)])

    def _attend_to_types(self, types: Tensor) -> dict[str, list[ExtraStates]]:
        states = [ExtraStates(types[None, 1:])] if self.from_names is not None else []
        return {"encoder": states, "decoder": states, "cross": states}

    def _encode(
        self, batch: Seq2SeqBatch, group: RowGroup, x: Tensor | None, types: Tensor
    ) -> _Encoded:
        if x is not None:
            inputs = x[group.index]
            firsts = None
            mask = group.mask
        else:
            assert batch.pieces is not None
            ids, mask, firsts = self._pad_pieces(batch.pieces, group)
            inputs = self.bart.encoder.embed_tokens(ids)
        memory_mask = mask.to(types.dtype)
        with using(ExtraKeys(**self._attend_to_types(types))):
            memory = self.bart.encoder(
                inputs_embeds=inputs, attention_mask=memory_mask
            ).last_hidden_state
        if firsts is None:
            return _Encoded(inputs, memory, memory, memory_mask)
        rows = torch.arange(len(firsts), device=firsts.device)[:, None]
        return _Encoded(inputs[rows, firsts], memory[rows, firsts], memory, memory_mask)

    def _pad_pieces(self, pieces: Pieces, group: RowGroup) -> tuple[Tensor, Tensor, Tensor]:
        """Ids between BART's first and last one and their mask, (n_rows, n_pieces), and the place
        of each token's first piece, (n_rows, length).
        """
        config: Any = self.bart.config
        ends = pieces.counts.cumsum(0)
        begins = ends - pieces.counts
        first = begins[group.index[:, 0]]
        last = ends[group.index.gather(1, group.mask.sum(1, keepdim=True) - 1)[:, 0]]
        sizes = last - first
        places = torch.arange(int(sizes.max()) + 2, device=first.device)
        inside = (first[:, None] + places - 1).clamp(0, len(pieces.ids) - 1)
        ids = pieces.ids[inside]
        ids = ids.where(places <= sizes[:, None], config.pad_token_id)
        ids = ids.where(places != sizes[:, None] + 1, config.eos_token_id)
        ids[:, 0] = config.bos_token_id
        mask = places <= sizes[:, None] + 1
        return ids, mask, begins[group.index] - first[:, None] + 1


class _StepDecoder:
    """BART's decoder over a group of windows, on whole sequences or step by step."""

    def __init__(
        self,
        bart: BartModel,
        encoded: _Encoded,
        types: Tensor,
        context: nn.Module,
        extra: ExtraKeys,
    ) -> None:
        self.bart = bart
        self.extra = extra
        n_rows = len(encoded.states)
        fixed = types.expand(n_rows, -1, -1)
        # What the decoder reads and points at for each symbol: (n_rows, n_symbols, width).
        self.inputs = torch.cat([fixed, encoded.inputs + context(encoded.states)], dim=1)
        self.keys = torch.cat([fixed, encoded.states], dim=1) / math.sqrt(types.shape[1])
        self.memory = encoded.memory
        self.memory_mask = encoded.memory_mask
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def run(self, symbols: Tensor) -> Tensor:
        """Logits, (n_rows, n_steps, n_symbols), at each step of sequences, (n_rows, n_steps)."""
        before = nn.functional.pad(symbols[:, :-1], (1, 0), value=END)
        return self._decode(before, None)

    def step(self, symbols: Tensor) -> Tensor:
        """See `Decoder`."""
        return self._decode(symbols[:, None], self.cache)[:, 0]

    def _decode(self, symbols: Tensor, cache: Any) -> Tensor:
        rows = torch.arange(len(symbols), device=symbols.device)[:, None]
        with using(self.extra):
            hidden = self.bart.decoder(
                inputs_embeds=self.inputs[rows, symbols],
                encoder_hidden_states=self.memory,
                encoder_attention_mask=self.memory_mask,
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state
        return hidden @ self.keys.transpose(1, 2)  # eq. 11

    def repeat(self, times: int) -> None:
        """Make several hypotheses of each window."""
        if times > 1:
            rows = torch.arange(len(self.inputs), device=self.inputs.device)
            self._select_windows(rows.repeat_interleave(times))

    def select(self, hypotheses: Tensor, *, of_same_rows: bool) -> None:
        """See `Decoder`."""
        if of_same_rows:
            self.cache.self_attention_cache.reorder_cache(hypotheses)
        else:
            self.cache.batch_select_indices(hypotheses)
            self._select_windows(hypotheses)

    def _select_windows(self, rows: Tensor) -> None:
        self.inputs, self.keys = self.inputs[rows], self.keys[rows]
        self.memory, self.memory_mask = self.memory[rows], self.memory_mask[rows]
        self.extra.select(rows)


def _to_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(n_rows, n) to what is added to the scores of an attention, (n_rows, 1, 1, n)."""
    additive = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return additive.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]


def _flatten_cells(cells: Tensor, group: RowGroup, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Flat places of the grids' cells, and the cells without padding."""
    lengths = group.mask.sum(1)
    places = torch.arange(group.mask.shape[1], device=cells.device)
    flat = places[:, None] * lengths[:, None, None] + places
    flat = flat + offsets[group.rows][:, None, None]
    is_cell = group.mask[:, :, None] & group.mask[:, None, :]
    return flat[is_cell], cells[is_cell]


def _gather(parts: list[tuple[Tensor, Tensor]], flat: Tensor) -> Tensor:
    """Put all parts to their places in a tensor of zeros."""
    if not parts:
        return flat
    places, values = (torch.cat(part) for part in zip(*parts, strict=True))
    return flat.index_copy(0, places, values)
