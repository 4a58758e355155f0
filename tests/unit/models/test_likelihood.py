"""Log-probabilities of texts under a student, against a plain loop over the tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quip.models import student
from quip.models.likelihood import Texts, count_tokens, forward
from quip.models.packing import IGNORED
from quip.models.student import Student
from quip.training.losses import sequence_logps

LITERALS = ["I missed my bus.", "It rained on our picnic, so we all went home early.", "I ran."]
BATCH = Texts(
    LITERALS,
    [0, 0, 1, 2, 2, 2],
    [
        "my bus missed me",
        "The bus and I have parted ways, by mutual timetable.",
        "Our sandwiches learned to swim.",
        "My legs fled",
        "I ran",
        "The couch will never forgive me for leaving it like that.",
    ],
)


@pytest.fixture(params=["causal", "encoder-decoder"])
def tiny(request: pytest.FixtureRequest, tiny_student: Path, tiny_bart: Path) -> Student:
    found = student.load(tiny_student if request.param == "causal" else tiny_bart)
    assert found.family == request.param
    return found


@torch.no_grad()
def logps(tiny: Student, batch: Texts) -> torch.Tensor:
    return sequence_logps(*forward(tiny, batch, 128))[0]


def next_token(tiny: Student, literal: str) -> Callable[[list[int]], torch.Tensor]:
    """The distribution of the token after those already written, without any padding."""
    tokens = tiny.tokenizer(tiny.source(literal))["input_ids"]

    def causal(written: list[int]) -> Any:
        return tiny.model(input_ids=torch.tensor([[*tokens, *written]])).logits[0, -1]

    def encoder_decoder(written: list[int]) -> Any:
        start = tiny.model.config.decoder_start_token_id
        return tiny.model(
            input_ids=torch.tensor([tokens]),
            decoder_input_ids=torch.tensor([[start, *written]]),
        ).logits[0, -1]

    chosen = causal if tiny.family == "causal" else encoder_decoder
    return lambda written: chosen(written).log_softmax(-1)


@torch.no_grad()
def by_loop(tiny: Student, literal: str, text: str) -> float:
    """One forward pass a token."""
    end = tiny.tokenizer.eos_token_id
    if tiny.family == "causal":
        whole = tiny.tokenizer(student.prompt(literal) + student.completion(text))["input_ids"]
        tokens = [*whole[len(tiny.tokenizer(student.prompt(literal))["input_ids"]) :], end]
    else:
        tokens = tiny.tokenizer(text)["input_ids"]
        assert tokens[0] == tiny.tokenizer.bos_token_id
        assert tokens[-1] == end
    after = next_token(tiny, literal)
    return sum(float(after(tokens[:i])[token]) for i, token in enumerate(tokens))


@pytest.mark.parametrize("side", ["left", "right"])
def test_it_equals_a_plain_loop_over_tokens(tiny: Student, side: str) -> None:
    """Whatever side the tokenizer pads on."""
    tiny.tokenizer.padding_side = side
    expected = [
        by_loop(tiny, LITERALS[row], text)
        for row, text in zip(BATCH.rows, BATCH.texts, strict=True)
    ]
    assert max(expected) - min(expected) > 1
    assert logps(tiny, BATCH).tolist() == pytest.approx(expected, abs=1e-4, rel=1e-6)


def test_the_batch_plays_no_part(tiny: Student) -> None:
    together = logps(tiny, BATCH)
    for i, (row, text) in enumerate(zip(BATCH.rows, BATCH.texts, strict=True)):
        alone = logps(tiny, Texts([LITERALS[row]], [0], [text]))[0]
        tokens = count_tokens(tiny, LITERALS[row], text, 128)
        assert abs(float(alone - together[i])) / tokens < 1e-5


def test_the_encoder_reads_each_literal_once(tiny_bart: Path) -> None:
    tiny = student.load(tiny_bart)
    seen: list[int] = []
    tiny.model.get_encoder().register_forward_hook(
        lambda module, inputs, output: seen.append(len(output.last_hidden_state))
    )
    logps(tiny, BATCH)
    assert seen == [3]


def test_the_length_is_the_number_of_scored_tokens(tiny: Student) -> None:
    _, tokens = sequence_logps(*forward(tiny, BATCH, 128))
    assert tokens.tolist() == [
        count_tokens(tiny, LITERALS[row], text, 128)
        for row, text in zip(BATCH.rows, BATCH.texts, strict=True)
    ]


def test_a_longer_text_keeps_its_first_tokens(tiny: Student) -> None:
    _, labels = forward(tiny, BATCH, 128)
    _, cut = forward(tiny, BATCH, 20)
    kept = cut != IGNORED
    assert kept.sum() < (labels != IGNORED).sum()
    assert torch.equal(cut[kept], labels[:, : cut.shape[1]][kept])
