"""Reward model of the learned critic: one score for (literal, text), trained on graded pairs.

An encoder (by default all-MiniLM-L6-v2, 22 million parameters) reads the literal and the text
together; a linear head on the mean of its token vectors gives one number, the reward. It has no
position bias by construction and costs no call; the stage `audit` measures its agreement.
`quip.training.reward` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from quip.runtime.errors import DataError

HEAD = "head.safetensors"
MAX_TOKENS = 96


class RewardModel(nn.Module):
    """Encoder and linear head; `forward` maps (literal, text) pairs to rewards, (batch,).

    The head starts at zero, so that an untrained model prefers no text.
    """

    def __init__(self, folder: Path | str) -> None:
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
    """Load a model that `save` wrote. Raises DataError when `folder` holds none."""
    folder = Path(folder)
    if not (folder / HEAD).is_file():
        raise DataError(f"{folder}: no learned critic here. Run `dvc repro reward` to train it.")
    model = RewardModel(folder)
    model.head.load_state_dict(load_file(folder / HEAD))
    return model.eval()
