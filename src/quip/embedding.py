"""Sentence embeddings by all-MiniLM-L6-v2: mean of the token vectors, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from quip import weights

NAME = "all-minilm-l6-v2"


def cosines(left: Sequence[str], right: Sequence[str], batch_size: int = 64) -> list[float]:
    """Cosine similarity of each text of `left` with the one at the same place in `right`."""
    folder = weights.path(NAME)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Tensor:
        batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    values: list[float] = []
    for i in range(0, len(left), batch_size):
        values += (
            (embed(left[i : i + batch_size]) * embed(right[i : i + batch_size])).sum(-1).tolist()
        )
    return values
