"""Growing a learned critic (`quip.critics.reward_model`) from pairs that people graded.

Trained with the pairwise logistic loss -log sigmoid(r(better) - r(worse)) of Bradley and Terry,
which is also the reward-model loss of Ouyang et al. 2022 (equation 1). Where people gave grades, a
pair weighs as much as its grades differ, and `reward.ranking_weight` adds the same loss over every
two texts of a batch, also of different literals.

A loop of its own instead of TRL's RewardTrainer (1.16): that one hands a model the token ids of one
text, without a second segment, knows a margin a pair but no weight, and trains on rows fixed
beforehand; here literal and text are two segments, the head stands on the mean of all tokens, and
the texts worse by rule are drawn anew each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid
from tqdm import tqdm

from quip.core.params import Section
from quip.critics.reward_model import RewardModel, rewards
from quip.data.graded_pairs import GradedPair
from quip.models import pins, weights
from quip.models.hardware import Precision, use_bf16
from quip.training.corruptions import worse_versions

HEAD_RATE = 1e-3
NONE = (math.nan, math.nan)


class RewardParams(Section):
    """Section `reward`."""

    pairs: list[str] = Field(min_length=1)
    """Names of params `graded`: what the critic learns from (read by the stage `pairs`)."""
    base: str
    """The encoder: a name of quip.models.weights, a local folder or a hub id."""
    spoiled: bool
    """Whether each better text is also set against two texts that are worse by rule."""
    ranking_weight: float = Field(ge=0)
    """Weight of the ranking of all graded texts of a batch beside the pairs' own loss."""
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: Precision


class Lesson(NamedTuple):
    """Of two texts for one literal, which is the better, how much that weighs, and their grades
    (NaN where there are none)."""

    literal: str
    better: str
    worse: str
    weight: float
    grades: tuple[float, float] = NONE
    source: str = ""


def pairwise_loss(better: Tensor, worse: Tensor, weight: Tensor) -> Tensor:
    """-log sigmoid(better - worse) times `weight`, the mean over the batch; all of shape
    (batch,)."""
    return -(weight * logsigmoid(better - worse)).mean()


def ranking_loss(rewards: Tensor, grades: Tensor, groups: Tensor) -> Tensor:
    """-log sigmoid(r_i - r_j) over every two texts of one group of which i has the higher grade,
    weighted by the difference of their grades; a scalar, 0 where there are no such two.

    All of shape (texts,). `groups` tells scales of grades apart; a grade that is NaN is none.
    """
    gaps = torch.nan_to_num(grades[:, None] - grades[None, :]).clamp(min=0)
    gaps = gaps * (groups[:, None] == groups[None, :])
    losses = -logsigmoid(rewards[:, None] - rewards[None, :])
    return (gaps * losses).sum() / gaps.sum().clamp(min=1e-9)


def gap_weights(pairs: Sequence[GradedPair]) -> list[float]:
    """How much each pair weighs: its gap in grades as a multiple of the mean gap of its file; 1
    where there are no grades, or none that differ."""
    gaps: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.gap is not None:
            gaps.setdefault(pair.source, []).append(pair.gap)
    means = {source: float(np.mean(found)) for source, found in gaps.items()}
    return [
        1.0 if pair.gap is None or not means[pair.source] else pair.gap / means[pair.source]
        for pair in pairs
    ]


def lessons(pairs: Sequence[GradedPair], spoiled: bool, rng: Random) -> list[Lesson]:
    """Each pair and, if `spoiled`, its better text beside two texts that are worse by rule;
    shuffled."""
    others = [pair.better for pair in pairs]
    rows = [
        Lesson(pair.literal, pair.better, pair.worse, weight, pair.grades or NONE, pair.source)
        for pair, weight in zip(pairs, gap_weights(pairs), strict=True)
    ]
    if spoiled:
        rows += [
            Lesson(p.literal, p.better, worse, 1.0)
            for p in pairs
            for worse in worse_versions(p.literal, p.better, others, rng)
        ]
    rng.shuffle(rows)
    return rows


def loss_of(batch: Sequence[Lesson], values: Tensor, ranking_weight: float) -> Tensor:
    """The loss of a batch; `values`, (2 x batch,), are the rewards of its texts, pair by pair."""
    weights = torch.tensor([row.weight for row in batch])
    loss = pairwise_loss(values[::2], values[1::2], weights)
    if not ranking_weight:
        return loss
    sources = sorted({row.source for row in batch})
    groups = torch.tensor([sources.index(row.source) for row in batch for _ in range(2)])
    grades = torch.tensor([grade for row in batch for grade in row.grades])
    return loss + ranking_weight * ranking_loss(values, grades, groups)


def encoder(base: str) -> Path | str:
    """What transformers should load for params `reward.base`."""
    if base in pins.MODELS and base != pins.STUDENT:
        return weights.path(base)
    return weights.student_base(base)


def train(pairs: Sequence[GradedPair], params: RewardParams, what: str = "reward") -> RewardModel:
    """A reward model fitted to `pairs` (AdamW, linear decay; corruptions drawn anew each epoch)."""
    torch.manual_seed(params.seed)
    rng = Random(params.seed)
    model = RewardModel(encoder(params.base)).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "lr": params.learning_rate},
            {"params": model.head.parameters(), "lr": HEAD_RATE},
        ]
    )
    batches = [
        rows[start : start + params.batch_size]
        for rows in (lessons(pairs, params.spoiled, rng) for _ in range(params.epochs))
        for start in range(0, len(rows), params.batch_size)
    ]
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    for batch in tqdm(batches, desc=what, unit="step", mininterval=1, disable=None):
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16(params.precision)):
            values = model(
                [(row.literal, text) for row in batch for text in (row.better, row.worse)]
            )
        loss = loss_of(batch, values, params.ranking_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model.eval()


def verdicts(model: RewardModel, pairs: Sequence[GradedPair]) -> list[float]:
    """For each pair 1 when its better text has the higher reward, 1/2 at a tie, else 0."""
    rows = [(pair.literal, text) for pair in pairs for text in (pair.better, pair.worse)]
    texts = list(dict.fromkeys(rows))
    value = dict(zip(texts, rewards(model, texts), strict=True))
    gaps = [value[p.literal, p.better] - value[p.literal, p.worse] for p in pairs]
    return [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps]
