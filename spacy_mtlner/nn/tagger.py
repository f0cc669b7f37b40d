"""The tagger: an optional recurrent layer, a fully connected layer and a CRF."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from spacy_mtlner.nn.crf import CRF
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.rnn import BiRNN, RNNKind


class CRFScores(NamedTuple):
    """What a CRF head says of a batch; forbidden transitions are -inf.

    emissions (Tensor): Scores of every tag at every token, shape (n_tokens, n_tags).
    transitions (Tensor): Scores of tag i being followed by tag j, shape (n_tags, n_tags).
    start (Tensor): Scores of beginning with a tag, shape (n_tags,).
    end (Tensor): Scores of ending with a tag, shape (n_tags,).
    """

    emissions: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor


class CRFHead(nn.Module):
    """Fully connected layer and CRF: the scores of a task's tags.

    width (int): Size of the input vectors.
    allowed_transitions (Tensor): Whether tag j may follow tag i, shape (n_tags, n_tags), bool.
    allowed_start (Tensor): Whether a row may begin with a tag, shape (n_tags,), bool.
    allowed_end (Tensor): Whether a row may end with a tag, shape (n_tags,), bool.
    """

    def __init__(
        self, width: int, allowed_transitions: Tensor, allowed_start: Tensor, allowed_end: Tensor
    ) -> None:
        super().__init__()
        n_tags = len(allowed_start)
        self.linear = nn.Linear(width, n_tags)
        self.crf = CRF(
            n_tags,
            batch_first=True,
            allowed_transitions=allowed_transitions,
            allowed_start=allowed_start,
            allowed_end=allowed_end,
        )

    def forward(self, x: Tensor) -> CRFScores:
        """Score the tags of tokens.

        x (Tensor): Vectors of the tokens, shape (n_tokens, width).
        RETURNS (CRFScores): The scores.
        """
        return CRFScores(self.linear(x), *self.crf.scores())


class Tagger(nn.Module):
    """Scores of tags from vectors of tokens: figure 1 of "Application of Pre-training Models in
    Named Entity Recognition" (fully connected layer and CRF over an encoder), with the recurrent
    layer of its BiGRU-CRF baseline where wanted.

    width (int): Size of the input vectors.
    constraints (tuple[Tensor, Tensor, Tensor]): Which transitions, starts and ends are allowed: see
        `CRFHead`.
    rnn (Optional[RNNKind]): Recurrent layer before the fully connected one, if any.
    hidden_width (int): Size of the recurrent layers' output.
    depth (int): Number of recurrent layers.
    """

    def __init__(
        self,
        width: int,
        constraints: tuple[Tensor, Tensor, Tensor],
        *,
        rnn: RNNKind | None,
        hidden_width: int,
        depth: int,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.rnn = BiRNN(rnn, width, hidden_width, depth) if rnn else None
        self.head = CRFHead(hidden_width if rnn else width, *constraints)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> CRFScores:
        """Score the tags of a batch of rows.

        x (Tensor): Vectors of all tokens, shape (n_tokens, width).
        lengths (Sequence[int]): The rows' lengths.
        RETURNS (CRFScores): The scores.
        """
        x = self.dropout(x)
        if self.rnn is not None:
            x = self.dropout(self.rnn(x, group_rows(lengths, x.device)))
        scores: CRFScores = self.head(x)
        return scores
