"""Sentence embeddings by all-MiniLM-L6-v2: the mean of the token vectors, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from quip.models import weights

NAME = "all-minilm-l6-v2"


def vectors(texts: Sequence[str], batch_size: int = 64) -> Tensor:
    """The embedding of each text, a row of norm 1: (n, 384)."""
    folder = weights.path(NAME)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Tensor:
        batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    parts = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    return torch.cat([embed(part) for part in parts])


def cosines(left: Tensor, right: Tensor) -> list[float]:
    """The cosine of each row of `left` and the same row of `right`; both (n, 384), of norm 1."""
    values: list[float] = (left * right).sum(-1).tolist()
    return values


def self_similarity(rows: Tensor) -> float:
    """The mean cosine of every two different rows; 0 for a single row.

    The sum over all pairs is the square of the rows' sum, less each row with itself.
    """
    n = len(rows)
    if n < 2:
        return 0.0
    return float((rows.sum(0).square().sum() - rows.square().sum()) / (n * (n - 1)))
