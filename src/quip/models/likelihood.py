"""Log-probabilities of texts under a student: one forward pass for many texts, either family.

A text's log-probability depends on neither its padding nor its neighbours in the batch (apart from
floating-point noise): padding is masked, and positions count from a text's own first token. Either
family reads each literal once, however many texts answer it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quip.models.packing import IGNORED, Text, logits
from quip.models.student import Student, completion, prompt


class Texts(NamedTuple):
    """A batch: `texts[i]` answers `literals[rows[i]]`."""

    literals: Sequence[str]
    rows: Sequence[int]
    texts: Sequence[str]


def forward(student: Student, batch: Texts, max_length: int) -> tuple[Tensor, Tensor]:
    """Logits (n, length, vocabulary) and the labels (n, length) they predict, for n texts.

    Places after a text's end have the label IGNORED. Longer rows keep their first `max_length`
    tokens, as in TRL.
    """
    if student.family == "causal":
        return forward_causal(student, batch, max_length)
    return forward_encoder_decoder(student, batch, max_length)


def forward_causal(student: Student, batch: Texts, max_length: int) -> tuple[Tensor, Tensor]:
    """`forward` of a causal student, on packed rows where the model supports them."""
    tokens = [
        causal_tokens(student, batch.literals[row], text, max_length)
        for row, text in zip(batch.rows, batch.texts, strict=True)
    ]
    texts = [Text(tuple(ids[:n]), tuple(ids[n:])) for ids, n in tokens]
    found = logits(student.model, texts)
    each = found.split([len(text.tokens) for text in texts])
    labels = pad_rows([text.tokens for text in texts], IGNORED).to(found.device)
    return torch.nn.utils.rnn.pad_sequence(list(each), batch_first=True), labels


def causal_tokens(
    student: Student, literal: str, text: str, max_length: int
) -> tuple[list[int], int]:
    """The tokens of prompt, text and end-of-sequence, and how many are the prompt's."""
    start = student.tokenizer(prompt(literal))["input_ids"]
    whole = student.tokenizer(prompt(literal) + completion(text))["input_ids"]
    return [*whole, student.tokenizer.eos_token_id][:max_length], len(start)


def forward_encoder_decoder(
    student: Student, batch: Texts, max_length: int
) -> tuple[Tensor, Tensor]:
    """`forward` of an encoder-decoder, whose encoder reads each literal once.

    Rows are padded on the right: BART counts positions from the row's start. The decoder reads the
    labels shifted one place to the right, after the model's own start token
    (`prepare_decoder_input_ids_from_labels`).
    """
    from transformers.modeling_outputs import BaseModelOutput

    model, device = student.model, student.model.device
    sources = [student.tokenizer(text)["input_ids"][:max_length] for text in batch.literals]
    ids = pad_rows(sources, student.tokenizer.pad_token_id).to(device)
    mask = pad_rows([[1] * len(row) for row in sources], 0).to(device)
    targets = [target_tokens(student, text, max_length) for text in batch.texts]
    labels = pad_rows(targets, IGNORED).to(device)
    read = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    rows = torch.tensor(batch.rows, device=device)
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=read[rows]),
        attention_mask=mask[rows],
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=labels),
        use_cache=False,
    ).logits
    return logits, labels


def target_tokens(student: Student, text: str, max_length: int) -> list[int]:
    """The tokens an encoder-decoder writes for `text`, with its tokenizer's special tokens."""
    ids: list[int] = student.tokenizer(text_target=text)["input_ids"]
    end = student.tokenizer.eos_token_id
    return (ids if ids and ids[-1] == end else [*ids, end])[:max_length]


def count_tokens(student: Student, literal: str, text: str, max_length: int) -> int:
    """The number of scored tokens of `text`: its own and end-of-sequence."""
    if student.family == "causal":
        ids, start = causal_tokens(student, literal, text, max_length)
        return max(0, len(ids) - start)
    return len(target_tokens(student, text, max_length))


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of different lengths as one tensor (n, longest), padded with `value` on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
