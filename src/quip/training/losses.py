"""Loss functions of feedback learning: pure functions, tensors in and tensors out.

Log-probabilities are natural logarithms summed over a text's tokens, end-of-sequence included,
unless a docstring says otherwise. docs/training.md names the papers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from quip.models.packing import IGNORED

ABSENT = -1
"""The rank of a place that holds no candidate."""


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float | Tensor = 0.0,
) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7); (batch,) in, (batch,) out.

    -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d), with d = (chosen - ref_chosen) -
    (rejected - ref_rejected). e, `label_smoothing`, is the label noise: the probability that a pair
    is labelled the wrong way round (conservative DPO, Mitchell 2023). It is one number, or one for
    each pair (batch,), which makes soft labels.
    """
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def robust_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float | Tensor,
) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024), TRL's loss_type "robust"; (batch,) in, (batch,) out.

    ((1 - e) l(d) - e l(-d)) / (1 - 2e), with l(d) = -log sigmoid(beta d). It is unbiased when a
    share e = `label_smoothing` < 1/2 of the pairs is labelled the wrong way round. It equals
    `dpo_loss` with a smoothing of -e / (1 - 2e).
    """
    negative = -label_smoothing / (1 - 2 * label_smoothing)
    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, negative)


def ranking_loss(scores: Tensor, ranks: Tensor, mean_length: float) -> Tensor:
    """BRIO's contrastive loss (Liu et al. 2022, equation 8, with the margin of the humor paper).

    For each row the sum, over pairs of candidates i ranked before j, of
    max(0, s_j - s_i + (log 2 / mean_length) (rank_j - rank_i)); then the mean over rows. The loss
    is 0 when a text of mean length is twice as likely for each rank it is better.

    scores       (batch, k) mean log-probability per token
    ranks        (batch, k) 0 is best; equal ranks are tied and not compared; ABSENT: no candidate
    mean_length  the lambda of the paper: the mean length of the outputs, in tokens
    """
    better, worse = scores.unsqueeze(2), scores.unsqueeze(1)
    gap = ranks.unsqueeze(1) - ranks.unsqueeze(2)
    present = (ranks != ABSENT).unsqueeze(2) & (ranks != ABSENT).unsqueeze(1)
    short = F.relu(worse - better + gap * (math.log(2) / mean_length))
    return torch.where(present & (gap > 0), short, 0.0).sum((1, 2)).mean()


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over all tokens of -log p, smoothed towards the uniform distribution
    (Szegedy et al. 2016); a scalar. Logits (n, length, vocabulary); labels (n, length), of which
    IGNORED ones do not count."""
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )


def sequence_logps(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(summed log-probability, number of tokens) of each text, both (n,).

    Logits (n, length, vocabulary); labels (n, length), of which IGNORED ones do not count.
    """
    counted = labels != IGNORED
    each = logits.float().log_softmax(-1).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return torch.where(counted, each, 0.0).sum(-1), counted.sum(-1)
