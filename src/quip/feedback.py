"""What a student learns from the critic by quip's own loop: DPO on pairs, BRIO on rankings.

DPO here is for encoder-decoder students, and for causal ones where TRL lacks the loss (labels that
are smoothed or soft); the rest TRL does for these (`stages/align.py`), to the same numbers
(tests/test_losses.py). BRIO is for both families.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from quip import launching
from quip.likelihood import Texts, forward, length
from quip.looping import Figures, Mean, Objective
from quip.losses import (
    ABSENT,
    IGNORED,
    cross_entropy,
    dpo_loss,
    ranking_loss,
    robust_dpo_loss,
    sequence_logps,
)
from quip.records import Preference, Ranking
from quip.student import Student
from quip.training import Training

Smoothing = float | Literal["confidence"]


class Judged(NamedTuple):
    """A pair and the reference's log-probabilities of its two texts."""

    pair: Preference
    ref_chosen: float
    ref_rejected: float


class Taught(NamedTuple):
    """A ranking and the teacher's paraphrase of the same literal, if there is one."""

    ranking: Ranking
    target: str | None


def dpo_objective(
    student: Student,
    rows: Sequence[Preference],
    params: Training,
    beta: float,
    label_smoothing: Smoothing,
    weights: Mapping[str, float],
) -> Objective:
    """`weights`: of the terms "sigmoid" (dpo_loss), "robust" (robust_dpo_loss) and "sft"
    (cross-entropy of the chosen texts). `label_smoothing`: see `doubts`.

    The reference is the student as it is now, asked once; `quip.lending` lends it the weights of
    another.
    """

    def loss(batch: Sequence[Judged]) -> tuple[list[Mean], Figures]:
        pairs = [row.pair for row in batch]
        logits, labels = forward(student, both_texts(pairs), params.max_length)
        logps, _ = sequence_logps(logits, labels)
        chosen, rejected = logps[: len(pairs)], logps[len(pairs) :]
        ref_chosen = logps.new_tensor([row.ref_chosen for row in batch])
        ref_rejected = logps.new_tensor([row.ref_rejected for row in batch])
        four = chosen, rejected, ref_chosen, ref_rejected
        doubt = doubts(pairs, label_smoothing, logps)
        terms = {
            "sigmoid": lambda: dpo_loss(*four, beta, doubt).mean(),
            "robust": lambda: robust_dpo_loss(*four, beta, doubt).mean(),
            "sft": lambda: cross_entropy(logits[: len(pairs)], labels[: len(pairs)]),
        }
        tokens = int((labels[: len(pairs)] != IGNORED).sum())
        total = [
            Mean(weight * terms[term](), tokens if term == "sft" else len(pairs))
            for term, weight in weights.items()
        ]
        margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected)).detach()
        figures = {
            "rewards/accuracies": (margin > 0).float(),
            "rewards/margins": margin,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        return total, {k: Mean(v.mean().item(), len(pairs)) for k, v in figures.items()}

    return Objective(referenced(student, rows, params), loss, dropout=False)


def doubts(pairs: Sequence[Preference], smoothing: Smoothing, like: Tensor) -> float | Tensor:
    """The chance that a pair is labelled the wrong way round: one number, or with "confidence" each
    pair's own (batch,), one less the critic's debiased preference for its chosen text."""
    if smoothing == "confidence":
        return like.new_tensor([1 - pair.confidence for pair in pairs])
    return smoothing


@torch.no_grad()
def referenced(reference: Student, rows: Sequence[Preference], params: Training) -> list[Judged]:
    judged: list[Judged] = []
    share = launching.mine(rows)
    for start in range(0, len(share), params.batch_size):
        pairs = share[start : start + params.batch_size]
        logits, labels = forward(reference, both_texts(pairs), params.max_length)
        logps = sequence_logps(logits, labels)[0].tolist()
        judged += map(Judged, pairs, logps[: len(pairs)], logps[len(pairs) :])
    return launching.gathered(judged)


def both_texts(pairs: Sequence[Preference]) -> Texts:
    """All chosen texts, then all rejected ones; each literal once."""
    return Texts(
        [pair.literal for pair in pairs],
        [*range(len(pairs))] * 2,
        [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)],
    )


def brio_objective(
    student: Student,
    rows: Sequence[Taught],
    params: Training,
    ce_weight: float,
    label_smoothing: float,
) -> Objective:
    """ranking_loss + ce_weight * cross_entropy of the teacher's paraphrases, where there are any.

    The lambda of the margin is the mean length in tokens of all ranked texts.
    """
    mean_length = mean_tokens(student, [row.ranking for row in rows], params.max_length)

    def loss(batch: Sequence[Taught]) -> tuple[list[Mean], Figures]:
        rankings = [row.ranking for row in batch]
        ranked = sum(len(ranking.texts) for ranking in rankings)
        logits, labels = forward(student, ranked_texts(batch), params.max_length)
        logps, tokens = sequence_logps(logits[:ranked], labels[:ranked])
        ranking = ranking_loss(*in_rows(logps / tokens.clamp_min(1), rankings), mean_length)
        figures = {"ranking_loss": Mean(ranking.item(), len(batch))}
        imitation = Mean(ranking.new_zeros(()), 0)
        if len(logits) > ranked:
            entropy = cross_entropy(logits[ranked:], labels[ranked:], label_smoothing)
            targets = int((labels[ranked:] != IGNORED).sum())
            figures["cross_entropy"] = Mean(entropy.item(), targets)
            imitation = Mean(ce_weight * entropy, targets)
        return [Mean(ranking, len(batch)), imitation], figures

    return Objective(rows, loss, dropout=False)


def mean_tokens(student: Student, rankings: Sequence[Ranking], max_length: int) -> float:
    counts = [length(student, r.literal, text, max_length) for r in rankings for text in r.texts]
    return sum(counts) / len(counts)


def ranked_texts(batch: Sequence[Taught]) -> Texts:
    """The candidates of every row, then the teacher's paraphrases; each literal once."""
    candidates = [(i, text) for i, row in enumerate(batch) for text in row.ranking.texts]
    targets = [(i, row.target) for i, row in enumerate(batch) if row.target is not None]
    places, texts = zip(*candidates, *targets, strict=True)
    return Texts([row.ranking.literal for row in batch], places, texts)


def in_rows(scores: Tensor, rankings: Sequence[Ranking]) -> tuple[Tensor, Tensor]:
    """Scores one after the other as (batch, k), and their ranks, ABSENT where there is none."""
    sizes = [len(ranking.texts) for ranking in rankings]
    pad = torch.nn.utils.rnn.pad_sequence
    ranks = [torch.tensor(ranking.ranks, device=scores.device) for ranking in rankings]
    return (
        pad(list(scores.split(sizes)), batch_first=True),
        pad(ranks, batch_first=True, padding_value=ABSENT),
    )
