"""Drawing texts from a student: beam or greedy answers, and seeded nucleus samples.

Every sample has a seed of its own and draws by the Gumbel-max trick, so that its text depends on
neither its neighbours in the batch nor the order of the rows (but for floating-point noise). A
literal is read once for all its samples, and a text that has ended leaves the batch.
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
"""Sampling looks at this many likeliest tokens; the nucleus is taken among them."""


class SeededNucleus(LogitsProcessor):
    """An exact nucleus sample of each row's next token, with one random generator a row.

    argmax(log p + Gumbel noise) is a sample from p. As a logits processor, scores (batch,
    vocabulary) come in as logits and go out with all mass on the sampled token, which makes greedy
    decoding of `generate` a sample.
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
        """Go on with these rows alone."""
        self.generators = [self.generators[row] for row in rows]


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
    return in_batches(
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
    """One nucleus sample for each literal, drawn with the seed of the same place in `seeds`."""

    def texts(rows: Sequence[int]) -> list[str]:
        chooser = SeededNucleus([seeds[i] for i in rows], temperature, top_p)
        return written(student, [literals[i] for i in rows], chooser, max_new_tokens)

    return in_batches(literals, batch_size, texts)


def in_batches(
    literals: Sequence[str], batch_size: int, texts_of: Callable[[Sequence[int]], list[str]]
) -> list[str]:
    """Texts in the order of `literals`, made in batches of similar length (less padding)."""
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
    """By the library's `generate`."""
    batch = read(student, literals, options["max_new_tokens"])
    tokenizer = student.tokenizer
    ids = student.model.generate(
        **batch,
        **options,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    start = batch["input_ids"].shape[1] if student.family == "causal" else 1
    return [first_line(t) for t in tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)]


def read(student: Student, literals: Sequence[str], max_new_tokens: int) -> Any:
    """The tokens of the literals and their mask. A causal student's rows are padded on the left,
    where they do not part prompt and answer; an encoder-decoder's on the right, since BART counts
    positions from the row's first place."""
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
def written(
    student: Student, literals: Sequence[str], chooser: SeededNucleus, max_new_tokens: int
) -> list[str]:
    """One text for each literal, its tokens drawn by `chooser`, as `generate` would write it.

    Each different literal is read once, in one pass that also gives the first token; what was read
    is then copied to all its samples. Texts that have ended are taken out when they are an eighth
    of the batch: taking out costs a copy of what the others have read and written.
    """
    different = list(dict.fromkeys(literals))
    reader = Reader(student, read(student, different, max_new_tokens))
    place = {literal: i for i, literal in enumerate(different)}
    scores = reader.take([place[literal] for literal in literals])
    tokens: list[list[int]] = [[] for _ in literals]
    live = list(range(len(literals)))
    end = student.tokenizer.eos_token_id
    for step in range(max_new_tokens):
        drawn = chooser.draw(scores)
        for row, token in zip(live, drawn.tolist(), strict=True):
            if not tokens[row] or tokens[row][-1] != end:
                tokens[row].append(token)
        going = [i for i, row in enumerate(live) if tokens[row][-1] != end]
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) <= len(live) * 7 / 8:
            live, drawn = [live[i] for i in going], drawn[going]
            reader.keep(going)
            chooser.keep(going)
        scores = reader.next(drawn)
    return [first_line(t) for t in student.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


class Reader:
    """What a student has read and written so far, one row a text, and its next logits."""

    def __init__(self, student: Student, batch: Any) -> None:
        """Read the literals: `batch` has their tokens and mask."""
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
        """Read (or write) `ids`; the logits after the last of them, (rows, vocabulary)."""
        if self.causal:
            given = {"input_ids": ids, "logits_to_keep": 1}
            if "position_ids" in inspect.signature(type(self.model).forward).parameters:
                given["position_ids"] = positions
        else:
            given = {"decoder_input_ids": ids, "encoder_outputs": self.encoded}
        out = self.model(**given, attention_mask=self.mask, past_key_values=cache, use_cache=True)
        self.cache = out.past_key_values
        return out.logits[:, -1]

    def take(self, rows: Sequence[int]) -> Tensor:
        """A row for each of `rows`, which may name one several times; their first logits."""
        self.keep(rows)
        return self.scores[torch.tensor(rows, device=self.mask.device)]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
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
        """Write one token a row; the logits of the one after it."""
        ids = tokens.unsqueeze(-1)
        if not self.causal:
            return self.step(ids, None, self.cache)
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=-1)
        positions, self.length = self.length.unsqueeze(-1), self.length + 1
        return self.step(ids, positions, self.cache)


def check_fits(
    student: Student, lengths: Sequence[int], literals: Sequence[str], written: int
) -> None:
    """Refuse a literal that leaves no room in the student's context for the `written` tokens."""
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
