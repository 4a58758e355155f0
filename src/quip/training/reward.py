"""Reward model training: the learned critic (`quip.critics.reward_model`) from pairs that people
graded.

The loss is the pairwise logistic loss -log sigmoid(r(better) - r(worse)) of Bradley and Terry,
which is also the reward-model loss of Ouyang et al. 2022 (equation 1). Where people gave grades, a
pair's weight is proportional to its difference of grades, and `reward.ranking_weight` adds the same
loss over every two texts of a batch, also of different literals.

The loop is quip's own, not TRL's RewardTrainer (1.16). That trainer gives a model the token ids of
one text without a second segment, has a margin for a pair but no weight, and trains on rows fixed
beforehand. Here literal and text are two segments, the head reads the mean of all tokens, and the
rule-based corruptions are drawn anew each epoch.
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
NO_GRADES = (math.nan, math.nan)


class RewardParams(Section):
    """Section `reward`."""

    pairs: list[str] = Field(min_length=1)
    """Names in params `graded`: the files the critic learns from (the stage `pairs` reads them)."""
    base: str
    """The encoder: a name of quip.models.weights, a local folder or a hub id."""
    spoiled: bool
    """Whether each better text is also paired with two rule-based corruptions."""
    ranking_weight: float = Field(ge=0)
    """Weight of the ranking loss over all graded texts of a batch, relative to the pairs' loss."""
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: Precision


class WeightedPair(NamedTuple):
    """A training pair: the better and the worse text of one literal, the pair's weight in the loss,
    and the grades of both texts (NaN without grades)."""

    literal: str
    better: str
    worse: str
    weight: float
    grades: tuple[float, float] = NO_GRADES
    source: str = ""


def pairwise_loss(better: Tensor, worse: Tensor, weight: Tensor) -> Tensor:
    """The mean over the batch of -weight * log sigmoid(better - worse); all inputs (batch,)."""
    return -(weight * logsigmoid(better - worse)).mean()


def ranking_loss(rewards: Tensor, grades: Tensor, groups: Tensor) -> Tensor:
    """The mean of -log sigmoid(r_i - r_j) over every two texts i, j of one group of which i has the
    higher grade, weighted by the difference of their grades; a scalar, 0 without such texts.

    All inputs have shape (texts,). Texts of one group have grades on one scale; NaN is no grade.
    """
    gaps = torch.nan_to_num(grades[:, None] - grades[None, :]).clamp(min=0)
    gaps = gaps * (groups[:, None] == groups[None, :])
    losses = -logsigmoid(rewards[:, None] - rewards[None, :])
    return (gaps * losses).sum() / gaps.sum().clamp(min=1e-9)


def gap_weights(pairs: Sequence[GradedPair]) -> list[float]:
    """The weight of each pair: its difference of grades divided by the mean difference of its file.

    The weight is 1 without grades, and in a file whose grades are all equal.
    """
    gaps: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.gap is not None:
            gaps.setdefault(pair.source, []).append(pair.gap)
    means = {source: float(np.mean(found)) for source, found in gaps.items()}
    return [
        1.0 if pair.gap is None or not means[pair.source] else pair.gap / means[pair.source]
        for pair in pairs
    ]


def weighted_pairs(pairs: Sequence[GradedPair], spoiled: bool, rng: Random) -> list[WeightedPair]:
    """The training pairs of one epoch, shuffled. With `spoiled` each better text is also paired
    with two rule-based corruptions, of weight 1."""
    others = [pair.better for pair in pairs]
    rows = [
        WeightedPair(
            pair.literal, pair.better, pair.worse, weight, pair.grades or NO_GRADES, pair.source
        )
        for pair, weight in zip(pairs, gap_weights(pairs), strict=True)
    ]
    if spoiled:
        rows += [
            WeightedPair(p.literal, p.better, worse, 1.0)
            for p in pairs
            for worse in worse_versions(p.literal, p.better, others, rng)
        ]
    rng.shuffle(rows)
    return rows


def batch_loss(batch: Sequence[WeightedPair], values: Tensor, ranking_weight: float) -> Tensor:
    """The loss of a batch, a scalar. `values` (2 x batch,) are the rewards of its texts: better and
    worse of the first pair, of the second, and so on."""
    weights = torch.tensor([row.weight for row in batch])
    loss = pairwise_loss(values[::2], values[1::2], weights)
    if not ranking_weight:
        return loss
    sources = sorted({row.source for row in batch})
    groups = torch.tensor([sources.index(row.source) for row in batch for _ in range(2)])
    grades = torch.tensor([grade for row in batch for grade in row.grades])
    return loss + ranking_weight * ranking_loss(values, grades, groups)


def encoder_source(base: str) -> Path | str:
    """The folder or hub id that transformers loads for params `reward.base`."""
    if base in pins.MODELS and base != pins.STUDENT:
        return weights.path(base)
    return weights.student_base(base)


def train(pairs: Sequence[GradedPair], params: RewardParams, what: str = "reward") -> RewardModel:
    """A reward model trained on `pairs` by AdamW with linear decay. `what` labels the progress bar.

    The corruptions are drawn anew each epoch.
    """
    torch.manual_seed(params.seed)
    rng = Random(params.seed)
    model = RewardModel(encoder_source(params.base)).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "lr": params.learning_rate},
            {"params": model.head.parameters(), "lr": HEAD_RATE},
        ]
    )
    batches = [
        rows[start : start + params.batch_size]
        for rows in (weighted_pairs(pairs, params.spoiled, rng) for _ in range(params.epochs))
        for start in range(0, len(rows), params.batch_size)
    ]
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    for batch in tqdm(batches, desc=what, unit="step", mininterval=1, disable=None):
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16(params.precision)):
            values = model(
                [(row.literal, text) for row in batch for text in (row.better, row.worse)]
            )
        loss = batch_loss(batch, values, params.ranking_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model.eval()


def pair_accuracies(model: RewardModel, pairs: Sequence[GradedPair]) -> list[float]:
    """The model's accuracy on each pair: 1 when the better text has the higher reward, 1/2 at a
    tie, else 0."""
    rows = [(pair.literal, text) for pair in pairs for text in (pair.better, pair.worse)]
    texts = list(dict.fromkeys(rows))
    value = dict(zip(texts, rewards(model, texts), strict=True))
    gaps = [value[p.literal, p.better] - value[p.literal, p.worse] for p in pairs]
    return [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps]
