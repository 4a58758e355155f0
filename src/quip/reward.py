"""The learned critic: a reward model over (literal, paraphrase), grown from pairs people graded.

A small sentence encoder (all-MiniLM-L6-v2, 22 million parameters) reads the literal and the
paraphrase together; a linear head on the mean of its token vectors gives one number, the reward.
Trained with the pairwise logistic loss -log sigmoid(r(better) - r(worse)) of Bradley and Terry,
which is also the reward-model loss of Ouyang et al. 2022 (equation 1). It has no position bias by
construction and costs no call; whether it can be trusted is for the stage `audit` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from quip import weights
from quip.corruptions import worse_versions
from quip.errors import DataError
from quip.params import Section
from quip.precision import Precision, use_bf16
from quip.records import GoldPair

BASE = "all-minilm-l6-v2"
HEAD = "head.safetensors"
HEAD_RATE = 1e-3
MAX_TOKENS = 96


class RewardParams(Section):
    """Section `reward`."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: Precision


class Graded(NamedTuple):
    """Of two texts for one literal, which is the better."""

    literal: str
    better: str
    worse: str


class RewardModel(nn.Module):
    """Encoder and head; `forward` takes (literal, text) pairs and returns their rewards, (batch,).

    The head starts at zero, so that an untrained model prefers nothing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder)
        self.head = nn.Linear(self.encoder.config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, rows: Sequence[tuple[str, str]]) -> Tensor:
        batch = self.tokenizer(
            [literal for literal, _ in rows],
            [text for _, text in rows],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden.float() * mask).sum(1) / mask.sum(1)
        return self.head(mean).squeeze(-1).float()


def pairwise_loss(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid(better - worse), the mean over the batch; both of shape (batch,)."""
    return -logsigmoid(better - worse).mean()


def lessons(pairs: Sequence[GoldPair], rng: Random) -> list[Graded]:
    """Each gold pair, and its better text beside two texts that are worse by rule; shuffled."""
    others = [pair.better for pair in pairs]
    rows = [Graded(p.literal, p.better, p.worse) for p in pairs]
    rows += [
        Graded(p.literal, p.better, worse)
        for p in pairs
        for worse in worse_versions(p.literal, p.better, others, rng)
    ]
    rng.shuffle(rows)
    return rows


def train(pairs: Sequence[GoldPair], params: RewardParams, what: str = "reward") -> RewardModel:
    """A reward model fitted to `pairs` (AdamW, linear decay; corruptions drawn anew each epoch)."""
    torch.manual_seed(params.seed)
    rng = Random(params.seed)
    model = RewardModel(weights.path(BASE)).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "lr": params.learning_rate},
            {"params": model.head.parameters(), "lr": HEAD_RATE},
        ]
    )
    batches = [
        rows[start : start + params.batch_size]
        for rows in (lessons(pairs, rng) for _ in range(params.epochs))
        for start in range(0, len(rows), params.batch_size)
    ]
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    for batch in tqdm(batches, desc=what, unit="step", mininterval=1, disable=None):
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16(params.precision)):
            values = model(
                [(row.literal, text) for row in batch for text in (row.better, row.worse)]
            )
        loss = pairwise_loss(values[::2], values[1::2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model.eval()


@torch.inference_mode()
def rewards(
    model: RewardModel, rows: Sequence[tuple[str, str]], batch_size: int = 64
) -> list[float]:
    """The reward of each (literal, text), in the order of `rows`; batched by length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    found = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        values = model([rows[i] for i in places]).tolist()
        for place, value in zip(places, values, strict=True):
            found[place] = value
    return found


def save(model: RewardModel, folder: str | Path) -> None:
    """Write encoder, tokenizer and head, safetensors only."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.encoder.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    head: dict[str, Any] = model.head.state_dict()
    save_file(head, folder / HEAD)


def load(folder: str | Path) -> RewardModel:
    """Read what `save` wrote. Raises DataError when there is no learned critic in `folder`."""
    folder = Path(folder)
    if not (folder / HEAD).is_file():
        raise DataError(f"{folder}: no learned critic here. Run `dvc repro reward` to grow it.")
    model = RewardModel(folder)
    model.head.load_state_dict(load_file(folder / HEAD))
    return model.eval()
