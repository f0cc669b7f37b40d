"""Tagging heads of several tasks over one encoder, the auxiliary ones feeding the main one: the
model of "A Multi-Task BERT-BiLSTM-AM-CRF Strategy for Chinese Named Entity Recognition".
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.rnn import BiRNN, RNNKind
from spacy_mtlner.nn.tagger import CRFHead, CRFScores
from spacy_mtlner.nn.transformer import RowLayout, WindowedAttention

Fusion = Literal["attention", "none"]

_PER_TASK = len(CRFScores._fields)


class MultiTaskScores(tuple[Tensor, ...]):
    """What the CRF heads say of a batch: the tensors of each task's `CRFScores` behind each other.

    A task's emissions are those of the tokens of its own rows; a task without rows has none.

    *scores (Tensor): The tensors.
    """

    def __new__(cls, *scores: Tensor) -> "MultiTaskScores":
        return super().__new__(cls, scores)

    def of_task(self, task: int) -> CRFScores:
        """Get a task's scores.

        task (int): The task's number; the main task is 0.
        RETURNS (CRFScores): Its scores.
        """
        return CRFScores(*self[task * _PER_TASK : (task + 1) * _PER_TASK])


class MultiTaskTagger(nn.Module):
    """Scores of several tasks' tags from vectors of tokens (figures 7 and 8).

    Each task has a recurrent layer, a fully connected layer and a CRF. With fusion, the main task's
    sentences also run through the auxiliary tasks' recurrent layers; what these say passes
    self-attention and stands beside the main task's own hidden states before its fully connected
    layer. So the main task's sentences train the auxiliary recurrent layers as well. The paper
    attends over whole sentences of at most 150 tokens; here a token attends to those of its row
    that are at most `window` tokens away.

    width (int): Size of the input vectors.
    constraints (Sequence[tuple[Tensor, Tensor, Tensor]]): Of each task, the main task first, which
        transitions, starts and ends are allowed: see `CRFHead`.
    rnn (Optional[RNNKind]): The tasks' recurrent layers, if any.
    hidden_width (int): Size of the recurrent layers' output.
    depth (int): Number of recurrent layers of each task.
    fusion (Fusion): "attention", or "none" for tasks that share the encoder alone.
    n_heads (int): Number of attention heads.
    window (int): Reach of the attention to either side, in tokens.
    RAISES (ValueError): If the fusion is unknown or the sizes do not fit.
    """

    def __init__(
        self,
        width: int,
        constraints: Sequence[tuple[Tensor, Tensor, Tensor]],
        *,
        rnn: RNNKind | None,
        hidden_width: int,
        depth: int,
        fusion: Fusion,
        n_heads: int,
        window: int,
    ) -> None:
        super().__init__()
        if fusion not in ("attention", "none"):
            raise ValueError(f"Unknown fusion {fusion!r}: use 'attention' or 'none'.")
        n_fused = len(constraints) - 1 if fusion == "attention" else 0
        size = hidden_width if rnn else width
        if n_fused and (n_heads < 1 or size % n_heads or window < 1):
            raise ValueError(
                f"The attention needs a window of at least 1 (not {window}) and a size of the "
                f"hidden states ({size}) that is a multiple of n_heads ({n_heads})."
            )
        self.dropout = nn.Dropout()
        self.rnns = nn.ModuleList(
            BiRNN(rnn, width, hidden_width, depth) if rnn else nn.Identity() for _ in constraints
        )
        self.attentions = nn.ModuleList(
            WindowedAttention(size, n_heads, window) for _ in range(n_fused)
        )
        widths = [size * (1 + n_fused)] + [size] * (len(constraints) - 1)
        self.heads = nn.ModuleList(
            CRFHead(w, *allowed) for w, allowed in zip(widths, constraints, strict=True)
        )

    def forward(self, x: Tensor, lengths: Sequence[int], wanted: Tensor) -> MultiTaskScores:
        """Score the tags of a batch of rows, each for the tasks that are wanted of it.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        lengths (Sequence[int]): The rows' lengths.
        wanted (Tensor): Whether a row is to be scored for a task, shape (n_tasks, n_rows), bool.
        RETURNS (MultiTaskScores): The scores.
        """
        x = self.dropout(x)
        # Rows and tokens are selected on the CPU: a GPU would be waited for at each selection.
        wanted, sizes = wanted.cpu(), torch.tensor(lengths)
        is_run = wanted.any(1).tolist()
        is_fused = len(self.attentions) > 0 and is_run[0]
        scores: list[CRFScores | None] = [None] * len(self.heads)
        fused = []
        for task in range(1, len(self.heads)):
            if not is_run[task] and not is_fused:
                continue
            rows = wanted[task] | wanted[0] if is_fused else wanted[task]
            hidden = self._run_rnn(task, x, sizes, rows)
            if is_run[task]:
                own = wanted[task][rows]
                scores[task] = self.heads[task](_select(hidden, sizes[rows], own))
            if is_fused:
                of_main = _select(hidden, sizes[rows], wanted[0][rows])
                fused.append(self._attend(task, of_main, sizes[wanted[0]]))
        if is_run[0]:
            hidden = self._run_rnn(0, x, sizes, wanted[0])
            scores[0] = self.heads[0](torch.cat([hidden, *fused], dim=1))
        return MultiTaskScores(
            *(
                tensor
                for head, said in zip(self.heads, scores, strict=True)
                for tensor in (_score_nothing(head, x) if said is None else said)
            )
        )

    def _run_rnn(self, task: int, x: Tensor, sizes: Tensor, rows: Tensor) -> Tensor:
        """Hidden states of the tokens of some rows, (n_rows,) bool: (their tokens, size)."""
        rnn = self.rnns[task]
        x = _select(x, sizes, rows)
        if isinstance(rnn, nn.Identity):
            return x
        hidden: Tensor = self.dropout(rnn(x, group_rows(sizes[rows].tolist(), x.device)))
        return hidden

    def _attend(self, task: int, hidden: Tensor, sizes: Tensor) -> Tensor:
        """Self-attention over an auxiliary task's hidden states, (n_tokens, size)."""
        if not len(hidden):
            return hidden
        attention = cast(WindowedAttention, self.attentions[task - 1])
        layout = RowLayout.of(sizes.tolist(), attention.window, hidden.device)
        attended: Tensor = self.dropout(attention(hidden, layout))
        return attended


def _select(x: Tensor, sizes: Tensor, rows: Tensor) -> Tensor:
    """The tokens of some rows, (n_rows,) bool, of all tokens, (n_tokens, ...)."""
    if rows.all():
        return x
    return x[rows.repeat_interleave(sizes).nonzero()[:, 0].to(x.device)]


def _score_nothing(head: nn.Module, x: Tensor) -> CRFScores:
    """Scores of no token by a head, without running it, on the device of a tensor."""
    n_tags = cast(CRFHead, head).linear.out_features
    tags, pairs = x.new_zeros(n_tags), x.new_zeros((n_tags, n_tags))
    return CRFScores(x.new_zeros((0, n_tags)), pairs, tags, tags)
