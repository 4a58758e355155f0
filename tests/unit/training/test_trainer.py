"""bfloat16 in training: used where the processor supports it and it changes little."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.core.records import TrainingPair
from quip.models import student
from quip.training import trainer
from tiny_training import params, preferences, rankings


@pytest.fixture
def tiny(tiny_student: Path) -> student.Student:
    return student.load(tiny_student)


def processor(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "use_bf16", lambda precision: has_bf16)


def test_a_processor_without_bfloat16_is_not_tried(
    tiny: student.Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(False, monkeypatch)
    monkeypatch.setattr(trainer, "bf16_drift", lambda *_: pytest.fail("tried"))
    assert trainer.choose_precision(tiny, preferences(), params(precision="auto")) == "auto"


def test_bfloat16_is_used_while_it_changes_log_probabilities_little(
    tiny: student.Student, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processor(True, monkeypatch)
    found = trainer.bf16_drift(tiny, trainer.first_texts(preferences()), 64)
    assert 0 < found < trainer.DRIFT
    assert trainer.choose_precision(tiny, preferences(), params(precision="auto")) == "bf16"
    monkeypatch.setattr(trainer, "DRIFT", found / 2)
    assert trainer.choose_precision(tiny, preferences(), params(precision="auto")) == "fp32"
    assert "nats per token for this student; using float32" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_given_precision_is_used(
    asked: str, tiny: student.Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "DRIFT", 0.0)
    assert trainer.choose_precision(tiny, preferences(), params(precision=asked)) == asked


def test_every_kind_of_training_row_has_a_target_text() -> None:
    pair = TrainingPair(input="1", literal="I ran.", paraphrase="My legs fled")
    assert trainer.first_texts([pair]).texts == ["My legs fled"]
    assert trainer.first_texts(preferences()[:2]).texts == ["my bus missed me", "My legs fled"]
    assert trainer.first_texts(rankings()[:1]) == trainer.first_texts(preferences()[:1])
