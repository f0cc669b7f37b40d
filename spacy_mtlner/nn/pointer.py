"""Cascading pointers and classification by the types' descriptions: the heads of "A Named Entity
Recognition Model Based on Multi-Task Learning and Cascading Pointer Network" (MTL-NER).

The paper pairs each start with the nearest end. Beside that, spans are scored here, by their start,
end, inner tokens, neighbours and length, so that nested entities of one type, and those that share
a start, can be told apart.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding  # Faster than an index, and its gradient deterministic.

from spacy_mtlner.nn.ragged import exact_dtype, group_rows
from spacy_mtlner.nn.rnn import BiRNN, RNNKind

ADDED_FEATURES = ("before.", "after.", "span_peaks.", "gate_starts.", "gate_ends.", "mix.")
FIRST_LOGIT = -2.0  # Where the training data does not tell it: pipelines were saved without.


class PointerScores(NamedTuple):
    """What the heads say of a batch whose tokens follow each other.

    starts (Tensor): Logits of an entity of a type beginning at a token, eq. 9, shape (n_tokens,
        n_types).
    ends (Tensor): Logits of one ending with a token, eq. 10, shape (n_tokens, n_types).
    span_starts (Tensor): Tokens as starts of spans, shape (n_tokens, match_width).
    span_ends (Tensor): Tokens as ends of spans, shape (n_tokens, match_width).
    span_tokens (Tensor): Tokens as parts of spans, of which the mean counts, shape (n_tokens,
        match_width).
    span_peaks (Tensor): Tokens as parts of spans, of which the largest counts, shape (n_tokens,
        match_width).
    gate_starts (Tensor): How far a token as the start of a span opens its features, shape
        (n_tokens, match_width).
    gate_ends (Tensor): The same of a token as the end, shape (n_tokens, match_width).
    span_lengths (Tensor): Lengths of spans, less 1, shape (max_length, match_width).
    mix_weight (Tensor): Weights of the second layer over a span's features, shape (match_width,
        match_width).
    mix_bias (Tensor): Its bias, shape (match_width,).
    span_types (Tensor): The types' weights of a span's features, shape (n_types, match_width).
    classes (Tensor): Similarities of tokens and descriptions, before the softmax of eq. 12; the
        last is that of "O". Shape (n_tokens, n_types + 1), or (n_tokens, 0) without descriptions.
    balance (Tensor): Logit of beta in eq. 15, where it is learned, shape (1,).
    """

    starts: Tensor
    ends: Tensor
    span_starts: Tensor
    span_ends: Tensor
    span_tokens: Tensor
    span_peaks: Tensor
    gate_starts: Tensor
    gate_ends: Tensor
    span_lengths: Tensor
    mix_weight: Tensor
    mix_bias: Tensor
    span_types: Tensor
    classes: Tensor
    balance: Tensor


class PointerTagger(nn.Module):
    """Scores pointers, spans and types from vectors of tokens.

    The last rows of a batch are the types' descriptions and, behind them, that of "O": they pass
    the same recurrent layer as the text.

    width (int): Size of the input vectors.
    n_types (int): Number of types.
    rnn (Optional[RNNKind]): Recurrent layer before the heads, if any.
    hidden_width (int): Size of the recurrent layers' output.
    depth (int): Number of recurrent layers.
    match_width (int): Number of features of a span.
    max_length (int): The longest entity, in tokens.
    description_length (int): The longest description, in tokens; 0 for no descriptions.
    first_logit (float): Logit at which the pointers begin.
    """

    def __init__(
        self,
        width: int,
        n_types: int,
        *,
        rnn: RNNKind | None,
        hidden_width: int,
        depth: int,
        match_width: int,
        max_length: int,
        description_length: int,
        first_logit: float = FIRST_LOGIT,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.rnn = BiRNN(rnn, width, hidden_width, depth) if rnn else None
        size = hidden_width if rnn else width
        self.starts = nn.Linear(size, n_types)
        self.ends = nn.Linear(size, n_types)
        for linear in (self.starts, self.ends):
            nn.init.constant_(linear.bias, first_logit)
        self.span_starts = nn.Linear(size, match_width)
        self.span_ends = nn.Linear(size, match_width)
        self.before = nn.Linear(size, match_width, bias=False)
        self.after = nn.Linear(size, match_width, bias=False)
        self.span_tokens = nn.Linear(size, match_width)
        self.span_peaks = nn.Linear(size, match_width)
        self.gate_starts = nn.Linear(size, match_width)
        self.gate_ends = nn.Linear(size, match_width)
        self.span_lengths = nn.Parameter(torch.zeros(max_length, match_width))
        self.mix = nn.Linear(match_width, match_width)
        self.span_types = nn.Parameter(torch.randn(n_types, match_width) / match_width**0.5)
        # The mean over a description of full length, to begin with.
        self.view = nn.Parameter(torch.full((description_length,), 1 / max(1, description_length)))
        self.view_bias = nn.Parameter(torch.zeros(1))
        self.balance = nn.Parameter(torch.zeros(1))
        self.register_load_state_dict_pre_hook(_add_span_features)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> PointerScores:
        """Score a batch of rows.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        lengths (Sequence[int]): The rows' lengths, texts and descriptions.
        RETURNS (PointerScores): The scores of the texts' tokens.
        """
        x = self.dropout(x)
        if self.rnn is not None:
            x = self.dropout(self.rnn(x, group_rows(lengths, x.device)))
        n_texts = len(lengths)
        if len(self.view):
            n_texts -= len(self.span_types) + 1
        sizes = lengths[:n_texts]
        n_tokens = sum(sizes)
        text = x[:n_tokens]
        return PointerScores(
            self.starts(text),
            self.ends(text),
            self.span_starts(text) + _shift(self.before(text), sizes, 1),
            self.span_ends(text) + _shift(self.after(text), sizes, -1),
            self.span_tokens(text),
            self.span_peaks(text),
            self.gate_starts(text),
            self.gate_ends(text),
            self.span_lengths,
            self.mix.weight,
            self.mix.bias,
            self.span_types,
            self._compare(text, x[n_tokens:], lengths[n_texts:]),
            self.balance,
        )

    def _compare(self, text: Tensor, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Similarity of each token to each description (eq. 11 and 12, before the softmax).

        The "View" and linear layer of eq. 11 weight a description's tokens by their position; the
        weights are the same for all types, so that a type can be added without training.
        """
        if not lengths:
            return text[:, :0]
        sizes = torch.tensor(lengths, device=x.device)
        rows = torch.arange(len(lengths), device=x.device).repeat_interleave(sizes)  # (n,)
        columns = torch.arange(len(x), device=x.device) - (sizes.cumsum(0) - sizes)[rows]  # (n,)
        weighted = x * embedding(columns, self.view[:, None])
        types = x.new_zeros((len(lengths), x.shape[1])).index_add(0, rows, weighted)
        return text @ (types + self.view_bias).T / math.sqrt(x.shape[1])


def _add_span_features(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pipelines were saved without some of the spans' features, which are nothing at zero; the
    second layer is next to nothing, as at zero it could not learn.
    """
    for name, weight in module.named_parameters():
        if name.startswith(ADDED_FEATURES):
            value = 1e-5 if name == "mix.bias" else 0.0
            state.setdefault(prefix + name, torch.full_like(weight, value))


def _shift(values: Tensor, lengths: Sequence[int], by: int) -> Tensor:
    """Move each token's values to the next one (1) or the one before (-1) of its row."""
    sizes = torch.tensor([n for n in lengths if n], dtype=torch.long, device=values.device)
    behind = sizes.cumsum(0)
    moved = values.roll(by, 0)
    moved[behind - sizes if by > 0 else behind - 1] = 0  # The row's first or last one has none.
    return moved


def running_sums(values: Tensor) -> Tensor:
    """Sum up the values before each token, so that a span's sum is a difference.

    values (Tensor): Values of each token, shape (n_tokens, n).
    RETURNS (Tensor): Shape (n_tokens + 1, n), in double precision where the device has it: long
        texts need it.
    """
    padded = torch.cat([values.new_zeros((1, values.shape[1])), values])
    return padded.to(exact_dtype(values)).cumsum(0)


def list_spans(index: Tensor, row_ends: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """List the spans that begin at some tokens and end within their rows.

    index (Tensor): The tokens, shape (n_starts,), int64.
    row_ends (Tensor): The offset behind the last token of each one's row, shape (n_starts,).
    max_length (int): The longest span, in tokens.
    RETURNS (tuple[Tensor, Tensor]): First token and length less 1 of each span, both of shape
        (n_spans,), int64.
    """
    sizes = (row_ends - index).clamp(max=max_length)
    firsts = index.repeat_interleave(sizes)
    places = torch.arange(len(firsts), device=index.device)
    return firsts, places - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)


class SpanParts(NamedTuple):
    """What spans of some tokens are scored by, beside their first and last one.

    first (int): The first of the tokens.
    sums (Tensor): `running_sums` of `span_tokens`.
    peaks (Tensor): The largest `span_peaks` of the 1, 2, 4, ... tokens from each one on, shape
        (n_levels, n_tokens, match_width).
    """

    first: int
    sums: Tensor
    peaks: Tensor


def prepare_spans(scores: PointerScores, first: int = 0, behind: int | None = None) -> SpanParts:
    """Prepare the scoring of spans.

    scores (PointerScores): The scores.
    first (int): The first token at which a span that will be scored begins.
    behind (Optional[int]): The offset behind the last one; None for all that follow.
    RETURNS (SpanParts): What `span_logits` needs.
    """
    longest = len(scores.span_lengths)
    tokens = slice(first, None if behind is None else behind + longest - 1)
    largest = [scores.span_peaks[tokens]]
    while 2 ** len(largest) <= longest:
        table, size = largest[-1], 2 ** (len(largest) - 1)
        joined = torch.maximum(table[:-size], table[size:])
        largest.append(torch.cat([joined, table[len(joined) :]]))
    sums = running_sums(scores.span_tokens[tokens])
    return SpanParts(first, sums, torch.stack(largest))


def span_logits(scores: PointerScores, parts: SpanParts, firsts: Tensor, offsets: Tensor) -> Tensor:
    """Score spans.

    The logit of start i, end j and type r is start_ir + end_jr + w_r (x + relu(M x + b)), with
    x = 2 sigmoid(g_i + h_j) relu(s_i + e_j + m_ij + p_ij + l). s and e are features of the tokens
    as start and end, which know the token before and that behind the span; m is the mean and p the
    largest of those of all its tokens; l are those of its length; g and h open or close them.

    scores (PointerScores): The scores.
    parts (SpanParts): What `prepare_spans` made of the tokens of these spans.
    firsts (Tensor): First token of each span, shape (n_spans,), int64.
    offsets (Tensor): Length less 1 of each span, below max_length, shape (n_spans,), int64.
    RETURNS (Tensor): The logits, shape (n_spans, n_types).
    """
    lasts = firsts + offsets
    first_parts, behind_parts = firsts - parts.first, lasts + 1 - parts.first
    # In place: the spans are some 30 to a token, and their features the largest tensors of all.
    means = embedding(behind_parts, parts.sums)
    means -= embedding(first_parts, parts.sums)
    means /= (offsets + 1)[:, None]
    features = means.to(scores.starts.dtype)
    # Two runs of 2^level tokens, from the first one on and up to the last one, hold all of them.
    level = (offsets + 1).log2().long()
    peaks = parts.peaks.flatten(0, 1)
    rows = level * parts.peaks.shape[1]
    features += torch.maximum(
        embedding(rows + first_parts, peaks), embedding(rows + behind_parts - (1 << level), peaks)
    )
    features += embedding(firsts, scores.span_starts)
    features += embedding(lasts, scores.span_ends)
    features += embedding(offsets, scores.span_lengths)
    gates = embedding(firsts, scores.gate_starts)
    gates += embedding(lasts, scores.gate_ends)
    # 2 sigmoid(z) is 1 + tanh(z / 2).
    features = torch.addcmul(features.relu_(), features, gates.mul_(0.5).tanh_())
    mixed = torch.addmm(scores.mix_bias, features, scores.mix_weight.T)
    logits = (features + mixed.relu_()) @ scores.span_types.T
    logits += embedding(firsts, scores.starts)
    logits += embedding(lasts, scores.ends)
    return logits


def relative_shares(classes: Tensor) -> Tensor:
    """How near a token is to each type, relative to the one that it is nearest to, "O" included.

    A token of several entities has equal shares of 1/n as its target: relative to the largest one,
    each is 1 again.

    classes (Tensor): Similarities, shape (n_tokens, n_types + 1).
    RETURNS (Tensor): exp(c_r - max c), in (0, 1], shape (n_tokens, n_types).
    """
    return (classes[:, :-1] - classes.amax(1, keepdim=True)).exp()
