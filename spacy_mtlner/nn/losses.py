"""The components' losses: pure functions of scores, targets and the examples' weights."""

from collections.abc import Sequence

from torch import Tensor

from spacy_mtlner.nn.crf import crf_log_likelihood
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.tagger import CRFScores


def weighted_mean(losses: Tensor, weights: Tensor, annotated: Tensor) -> Tensor:
    """Sum of w_i l_i over the number of annotated examples; 0 if there is none.

    losses (Tensor): Loss of each example, shape (n_examples,).
    weights (Tensor): Weight of each example, shape (n_examples,).
    annotated (Tensor): Whether an example is annotated for the task, shape (n_examples,), bool.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    return (losses * weights * annotated).sum() / annotated.sum().clamp(min=1)


def crf_loss(
    scores: CRFScores, tags: Tensor, lengths: Sequence[int], weights: Tensor, annotated: Tensor
) -> Tensor:
    """Negative log-likelihood of the gold tags of a batch of rows.

    scores (CRFScores): The scores.
    tags (Tensor): Gold tags of all tokens, shape (n_tokens,), int64; or the tags that are possible
        at each token, shape (n_tokens, n_tags), bool, where some are unknown.
    lengths (Sequence[int]): The rows' lengths.
    weights (Tensor): Weight of each row, shape (n_rows,).
    annotated (Tensor): Whether a row is annotated for the task, shape (n_rows,), bool.
    RETURNS (Tensor): The batch's loss, a scalar.
    """
    losses = scores.emissions.new_zeros(len(lengths))
    for group in group_rows(lengths, scores.emissions.device):
        log_likelihood = crf_log_likelihood(
            scores.emissions[group.index],  # (rows, length, n_tags)
            scores.transitions,
            scores.start,
            scores.end,
            tags[group.index],  # (rows, length) or (rows, length, n_tags)
            group.mask,
        )
        losses = losses.index_copy(0, group.rows, -log_likelihood)
    return weighted_mean(losses, weights, annotated)
