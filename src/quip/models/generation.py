"""Text generation by a student: beam-search or greedy answers, and seeded nucleus samples.

Every sample has its own seed and is drawn by the Gumbel-max trick. Its text therefore depends on
neither its neighbours in the batch nor the order of the rows (apart from floating-point noise). A
literal is read once for all its samples, and a finished text leaves the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor

from quip.models.student import Student
from quip.runtime.errors import DataError

TOP_K = 200
"""Sampling considers this many likeliest tokens; the nucleus is chosen among them."""


class SeededNucleus(LogitsProcessor):
    """Nucleus sampling (Holtzman et al. 2020) with one random generator for each row.

    argmax(log p + Gumbel noise) is an exact sample from p. As a logits processor it takes logits
    (batch, vocabulary) and returns scores with all mass on the sampled token, so that greedy
    decoding by `generate` is sampling.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self.draw(scores).unsqueeze(-1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)

    def draw(self, scores: Tensor) -> Tensor:
        """The sampled token of each row, (batch,)."""
        top, index = (scores.float() / self.temperature).topk(min(TOP_K, scores.shape[-1]))
        logp = top.log_softmax(-1)
        before = logp.exp().cumsum(-1) - logp.exp()
        logp = logp.masked_fill(before >= self.top_p, -torch.inf)
        uniform = torch.stack([torch.rand(logp.shape[-1], generator=g) for g in self.generators])
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        chosen = (logp + gumbel.to(logp.device)).argmax(-1, keepdim=True)
        return index.gather(-1, chosen).squeeze(-1)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        self.generators = [self.generators[row] for row in rows]


def respond(
    student: Student,
    literals: Sequence[str],
    *,
    max_new_tokens: int,
    num_beams: int,
    batch_size: int = 32,
) -> list[str]:
    """The student's answer to each literal, by beam search (1 beam: greedy).

    Raises DataError when a literal leaves no room for the answer in the student's context.
    """
    options = {"num_beams": num_beams, "do_sample": False, "max_new_tokens": max_new_tokens}
    return generate_in_batches(
        literals,
        batch_size,
        lambda rows: generate(student, [literals[i] for i in rows], options),
    )


def sample(
    student: Student,
    literals: Sequence[str],
    seeds: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int = 64,
) -> list[str]:
    """One nucleus sample for each literal, drawn with the seed at the same index of `seeds`.

    Raises DataError when a literal leaves no room for the sample in the student's context.
    """

    def texts(rows: Sequence[int]) -> list[str]:
        chooser = SeededNucleus([seeds[i] for i in rows], temperature, top_p)
        return sample_batch(student, [literals[i] for i in rows], chooser, max_new_tokens)

    return generate_in_batches(literals, batch_size, texts)


def generate_in_batches(
    literals: Sequence[str], batch_size: int, texts_of: Callable[[Sequence[int]], list[str]]
) -> list[str]:
    """One text for each literal, in their order. Batches hold literals of similar length, for less
    padding; `texts_of` makes the texts of one batch of row indices."""
    order = sorted(range(len(literals)), key=lambda i: (len(literals[i]), literals[i], i))
    texts = [""] * len(literals)
    with tqdm(total=len(order), desc="generate", unit="text", mininterval=1, disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for i, text in zip(rows, texts_of(rows), strict=True):
                texts[i] = text
            bar.update(len(rows))
    return texts


@torch.inference_mode()
def generate(student: Student, literals: Sequence[str], options: dict[str, Any]) -> list[str]:
    """The answers of one batch by transformers' `generate`."""
    batch = tokenize_prompts(student, literals, options["max_new_tokens"])
    tokenizer = student.tokenizer
    ids = student.model.generate(
        **batch,
        **options,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    start = batch["input_ids"].shape[1] if student.family == "causal" else 1
    return [first_line(t) for t in tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)]


def tokenize_prompts(student: Student, literals: Sequence[str], max_new_tokens: int) -> Any:
    """The tokens of the student's inputs and their mask, both (n, length).

    A causal student's rows are padded on the left, so that no padding separates prompt and answer.
    An encoder-decoder's rows are padded on the right: BART counts positions from the row's start.
    """
    tokenizer = student.tokenizer
    tokenizer.padding_side = "left" if student.family == "causal" else "right"
    batch = tokenizer(
        [student.source(literal) for literal in literals],
        return_tensors="pt",
        padding=True,
        return_token_type_ids=False,
    ).to(student.model.device)
    check_fits(student, batch["attention_mask"].sum(-1).tolist(), literals, max_new_tokens)
    return batch


@torch.inference_mode()
def sample_batch(
    student: Student, literals: Sequence[str], chooser: SeededNucleus, max_new_tokens: int
) -> list[str]:
    """One sampled text for each literal, with the tokens that `generate` would sample.

    Each distinct literal is read once, in one pass that also gives the first token's logits; its
    cache is then copied to all its samples. Finished texts are removed when they are an eighth of
    the batch, since each removal copies the cache of the others.
    """
    distinct = list(dict.fromkeys(literals))
    decoder = IncrementalDecoder(student, tokenize_prompts(student, distinct, max_new_tokens))
    place = {literal: i for i, literal in enumerate(distinct)}
    scores = decoder.take([place[literal] for literal in literals])
    tokens: list[list[int]] = [[] for _ in literals]
    live = list(range(len(literals)))
    end = student.tokenizer.eos_token_id
    for step in range(max_new_tokens):
        drawn = chooser.draw(scores)
        for row, token in zip(live, drawn.tolist(), strict=True):
            if not tokens[row] or tokens[row][-1] != end:
                tokens[row].append(token)
        unfinished = [i for i, row in enumerate(live) if tokens[row][-1] != end]
        if not unfinished or step + 1 == max_new_tokens:
            break
        if len(unfinished) <= len(live) * 7 / 8:
            live, drawn = [live[i] for i in unfinished], drawn[unfinished]
            decoder.keep(unfinished)
            chooser.keep(unfinished)
        scores = decoder.next(drawn)
    return [first_line(t) for t in student.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


class IncrementalDecoder:
    """Incremental decoding: the key-value cache of a batch, one row for each text."""

    def __init__(self, student: Student, batch: Any) -> None:
        """Read the inputs; `batch` has their tokens and mask."""
        self.model, self.causal = student.model, student.family == "causal"
        self.mask = batch["attention_mask"]
        self.encoded: Any = None
        if self.causal:
            positions = (self.mask.cumsum(-1) - 1).clamp_min(0)
            self.scores = self.step(batch["input_ids"], positions, None)
            self.length = self.mask.sum(-1)
        else:
            self.encoded = self.model.get_encoder()(**batch)
            start = self.model.generation_config.decoder_start_token_id
            self.scores = self.step(torch.full_like(self.mask[:, :1], start), None, None)

    def step(self, ids: Tensor, positions: Tensor | None, cache: Any) -> Tensor:
        """Feed `ids` (rows, n) to the model; returns the last logits, (rows, vocabulary)."""
        if self.causal:
            inputs = {"input_ids": ids, "logits_to_keep": 1}
            if "position_ids" in inspect.signature(type(self.model).forward).parameters:
                inputs["position_ids"] = positions
        else:
            inputs = {"decoder_input_ids": ids, "encoder_outputs": self.encoded}
        out = self.model(**inputs, attention_mask=self.mask, past_key_values=cache, use_cache=True)
        self.cache = out.past_key_values
        return out.logits[:, -1]

    def take(self, rows: Sequence[int]) -> Tensor:
        """Keep `rows`, which may repeat a row; returns the logits of their first tokens."""
        self.keep(rows)
        return self.scores[torch.tensor(rows, device=self.mask.device)]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]
        if self.causal:
            self.length = self.length[index]
        else:
            self.encoded = type(self.encoded)(
                last_hidden_state=self.encoded.last_hidden_state[index]
            )

    def next(self, tokens: Tensor) -> Tensor:
        """Append one token to each row, (rows,); returns the next logits, (rows, vocabulary)."""
        ids = tokens.unsqueeze(-1)
        if not self.causal:
            return self.step(ids, None, self.cache)
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=-1)
        positions, self.length = self.length.unsqueeze(-1), self.length + 1
        return self.step(ids, positions, self.cache)


def check_fits(
    student: Student, lengths: Sequence[int], literals: Sequence[str], new_tokens: int
) -> None:
    """Refuse a literal that leaves no room in the student's context for `new_tokens`.

    `lengths` are the inputs' lengths in tokens. Raises DataError.
    """
    for length, literal in zip(lengths, literals, strict=True):
        needed = length + new_tokens if student.family == "causal" else max(length, new_tokens)
        if student.context is not None and needed > student.context:
            raise DataError(
                f"the input {literal[:40]!r} takes {length} tokens and the answer up to "
                f"{new_tokens}; the student's context holds {student.context}. Lower "
                "prepare.max_words or max_new_tokens, or choose another student (sft.base)."
            )


def first_line(text: str) -> str:
    """The answer: the first line of what the student wrote."""
    return text.strip().split("\n")[0].strip()
