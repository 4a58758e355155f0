"""BRIO: the ranking objective, its data and its settings (Liu et al. 2022).

It trains either family of students by quip's own loop on the critic's rankings
(data/rankings.jsonl).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from quip.core.jsonl import read_rows
from quip.core.params import Section, load
from quip.core.records import Ranking, TrainingPair
from quip.models.likelihood import Texts, count_tokens, forward
from quip.models.packing import IGNORED
from quip.models.student import Student
from quip.training.loop import Mean, Metrics, Objective
from quip.training.losses import ABSENT, cross_entropy, ranking_loss, sequence_logps
from quip.training.trainer import Training


class RankingWithTarget(NamedTuple):
    """A ranking and the teacher's paraphrase of the same literal, if there is one."""

    ranking: Ranking
    target: str | None


def brio_objective(
    student: Student,
    rows: Sequence[RankingWithTarget],
    params: Training,
    ce_weight: float,
    label_smoothing: float,
) -> Objective:
    """The objective ranking_loss + ce_weight * cross_entropy of the teacher's paraphrases.

    A row without a teacher's paraphrase counts in the ranking loss only. The margin's lambda is the
    mean length in tokens of all ranked texts.
    """
    mean_length = mean_tokens(student, [row.ranking for row in rows], params.max_length)

    def loss(batch: Sequence[RankingWithTarget]) -> tuple[list[Mean], Metrics]:
        rankings = [row.ranking for row in batch]
        ranked = sum(len(ranking.texts) for ranking in rankings)
        logits, labels = forward(student, ranked_texts(batch), params.max_length)
        logps, tokens = sequence_logps(logits[:ranked], labels[:ranked])
        ranking = ranking_loss(*pad_by_ranking(logps / tokens.clamp_min(1), rankings), mean_length)
        metrics = {"ranking_loss": Mean(ranking.item(), len(batch))}
        imitation = Mean(ranking.new_zeros(()), 0)
        if len(logits) > ranked:
            entropy = cross_entropy(logits[ranked:], labels[ranked:], label_smoothing)
            targets = int((labels[ranked:] != IGNORED).sum())
            metrics["cross_entropy"] = Mean(entropy.item(), targets)
            imitation = Mean(ce_weight * entropy, targets)
        return [Mean(ranking, len(batch)), imitation], metrics

    return Objective(rows, loss, dropout=False)


def mean_tokens(student: Student, rankings: Sequence[Ranking], max_length: int) -> float:
    """The mean length of all ranked texts, in scored tokens."""
    counts = [
        count_tokens(student, r.literal, text, max_length) for r in rankings for text in r.texts
    ]
    return sum(counts) / len(counts)


def ranked_texts(batch: Sequence[RankingWithTarget]) -> Texts:
    """The candidates of every row, then the teacher's paraphrases; each literal once."""
    candidates = [(i, text) for i, row in enumerate(batch) for text in row.ranking.texts]
    targets = [(i, row.target) for i, row in enumerate(batch) if row.target is not None]
    places, texts = zip(*candidates, *targets, strict=True)
    return Texts([row.ranking.literal for row in batch], places, texts)


def pad_by_ranking(scores: Tensor, rankings: Sequence[Ranking]) -> tuple[Tensor, Tensor]:
    """Scores of all candidates (candidates,) -> scores and ranks, both (batch, k).

    A row with fewer than k candidates is padded; the rank of a padded place is ABSENT.
    """
    sizes = [len(ranking.texts) for ranking in rankings]
    pad = torch.nn.utils.rnn.pad_sequence
    ranks = [torch.tensor(ranking.ranks, device=scores.device) for ranking in rankings]
    return (
        pad(list(scores.split(sizes)), batch_first=True),
        pad(ranks, batch_first=True, padding_value=ABSENT),
    )


class Brio(Section):
    """Section `brio`."""

    ce_weight: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)


def brio_recipe(
    args: Namespace, params: Any
) -> tuple[Any, dict[str, str], list[Any], dict[str, Any]]:
    """How BRIO is trained: (fit, data files, rows, settings).

    The teacher's first paraphrase of an input is its target. An input without one has no target.
    """
    from quip.training.loop import loop_fit

    brio = load("brio", Brio)
    targets: dict[str, str] = {}
    for pair in read_rows(args.pairs, TrainingPair):
        targets.setdefault(pair.input, pair.paraphrase)
    rows = [
        RankingWithTarget(row, targets.get(row.input)) for row in read_rows(args.feedback, Ranking)
    ]
    fit = loop_fit(
        lambda student, rows, params: brio_objective(
            student, rows, params, brio.ce_weight, brio.label_smoothing
        )
    )
    data = {"rankings": args.feedback, "pairs": args.pairs}
    return fit, data, rows, {"loss": "brio", **brio.model_dump()}
