"""Drawing texts from a student: beam or greedy answers, and seeded nucleus samples.

Every sample has a seed of its own and draws by the Gumbel-max trick, so that its text depends on
neither its neighbours in the batch nor the order of the rows (but for floating-point noise).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor

from quip.errors import DataError
from quip.student import Student

TOP_K = 200
"""Sampling looks at this many likeliest tokens; the nucleus is taken among them."""


def seed_of(*parts: object) -> int:
    """A stable 63-bit seed from (seed, row id, sample number)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class SeededNucleus(LogitsProcessor):
    """Makes greedy decoding an exact nucleus sample, with one random generator a row.

    argmax(log p + Gumbel noise) is a sample from p. Scores (batch, vocabulary) come in as logits
    and go out with all mass on the sampled token.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        top, index = (scores.float() / self.temperature).topk(min(TOP_K, scores.shape[-1]))
        logp = top.log_softmax(-1)
        before = logp.exp().cumsum(-1) - logp.exp()
        logp = logp.masked_fill(before >= self.top_p, -torch.inf)
        uniform = torch.stack([torch.rand(logp.shape[-1], generator=g) for g in self.generators])
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        chosen = index.gather(-1, (logp + gumbel.to(logp.device)).argmax(-1, keepdim=True))
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)


def respond(
    student: Student,
    literals: Sequence[str],
    *,
    max_new_tokens: int,
    num_beams: int,
    batch_size: int = 32,
) -> list[str]:
    """The student's answer to each literal, by beam search (1 beam: greedy)."""
    options = {"num_beams": num_beams, "do_sample": False, "max_new_tokens": max_new_tokens}
    return in_batches(student, literals, batch_size, lambda rows: options)


def sample(
    student: Student,
    literals: Sequence[str],
    seeds: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int = 48,
) -> list[str]:
    """One nucleus sample for each literal, drawn with the seed of the same place in `seeds`."""

    def options(rows: Sequence[int]) -> dict[str, Any]:
        chooser = SeededNucleus([seeds[i] for i in rows], temperature, top_p)
        return {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": max_new_tokens,
            "logits_processor": [chooser],
        }

    return in_batches(student, literals, batch_size, options)


def in_batches(
    student: Student, literals: Sequence[str], batch_size: int, options: Any
) -> list[str]:
    """Generate in batches of similar length (less padding); texts in the order of `literals`."""
    order = sorted(range(len(literals)), key=lambda i: (len(literals[i]), literals[i], i))
    texts = [""] * len(literals)
    with tqdm(total=len(order), desc="generate", unit="text", mininterval=1, disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for i, text in zip(
                rows, generate(student, [literals[i] for i in rows], options(rows)), strict=True
            ):
                texts[i] = text
            bar.update(len(rows))
    return texts


@torch.inference_mode()
def generate(student: Student, literals: Sequence[str], options: dict[str, Any]) -> list[str]:
    """A causal student's rows are padded on the left, where they do not part prompt and answer; an
    encoder-decoder's on the right, since BART counts positions from the row's first place."""
    tokenizer, causal = student.tokenizer, student.family == "causal"
    tokenizer.padding_side = "left" if causal else "right"
    batch = tokenizer(
        [student.source(literal) for literal in literals],
        return_tensors="pt",
        padding=True,
        return_token_type_ids=False,
    ).to(student.model.device)
    check_fits(student, batch["attention_mask"].sum(-1).tolist(), literals, options)
    ids = student.model.generate(
        **batch,
        **options,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    start = batch["input_ids"].shape[1] if causal else 1
    return [first_line(t) for t in tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)]


def check_fits(
    student: Student, lengths: Sequence[int], literals: Sequence[str], options: dict[str, Any]
) -> None:
    """Refuse a literal that leaves no room in the student's context for the answer."""
    written = options["max_new_tokens"]
    for length, literal in zip(lengths, literals, strict=True):
        needed = length + written if student.family == "causal" else max(length, written)
        if student.context is not None and needed > student.context:
            raise DataError(
                f"the input {literal[:40]!r} takes {length} tokens, with {written} to write; the "
                f"student's context holds {student.context}. Lower prepare.max_words or "
                "max_new_tokens, or choose another student (sft.base)."
            )


def first_line(text: str) -> str:
    """The answer is one line; whatever the student writes after it is not part of it."""
    return text.strip().split("\n")[0].strip()
