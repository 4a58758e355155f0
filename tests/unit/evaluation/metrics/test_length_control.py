"""The score at equal length: it removes a judge's length bias and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from quip.evaluation.metrics import length_control
from quip.evaluation.metrics.length_control import score_at_length


def world(n: int, better: float, per_log: float, bias: float) -> tuple[list[float], list[float]]:
    """Verdicts of a judge whose log-odds are `better` + `per_log` x log ratio; the texts are longer
    by `bias` in log ratio on average."""
    chance = np.random.default_rng(3)
    logs = chance.normal(bias, 0.5, n)
    p = 1 / (1 + np.exp(-(better + per_log * logs)))
    return list((chance.random(n) < p).astype(float)), list(np.exp(logs))


def test_a_gain_that_is_only_length_vanishes() -> None:
    points, ratios = world(2000, better=0.0, per_log=3.0, bias=0.4)
    assert np.mean(points) > 0.65
    score, (low, high) = score_at_length(points, ratios)
    assert low < 0.5 < high
    assert score == pytest.approx(0.5, abs=0.06)


def test_a_gain_that_is_not_length_stays() -> None:
    points, ratios = world(2000, better=1.0, per_log=0.0, bias=0.4)
    score, (low, _) = score_at_length(points, ratios)
    assert score == pytest.approx(1 / (1 + np.exp(-1)), abs=0.04)
    assert low > 0.5


def test_equal_lengths_leave_the_plain_score() -> None:
    score, interval = score_at_length([1, 1, 0.5, 0], [1.0] * 4)
    assert score == pytest.approx(0.625, abs=1e-6)
    assert interval[0] <= score <= interval[1]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_verdicts_all_alike_give_numbers(value: float) -> None:
    score, (low, high) = score_at_length([value] * 5, [0.0, 0.5, 1.0, 2.0, 9.0])
    assert score == pytest.approx(value, abs=0.01)
    assert np.isfinite([low, high]).all()


def test_one_row_gives_numbers() -> None:
    score, interval = score_at_length([1.0], [2.0])
    assert 0.5 < score <= 1
    assert np.isfinite(interval).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    points, ratios = world(50, 0.5, 1.0, 0.2)
    assert score_at_length(points, ratios, 1) == score_at_length(points, ratios, 1)


def test_the_size_of_the_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, ratios = world(60, 0.4, 0.5, 0.2)
    whole = length_control.score_at_length(points, ratios)
    monkeypatch.setattr(length_control, "MAX_NUMBERS", 7 * 60)
    parts = length_control.score_at_length(points, ratios)
    assert parts[0] == pytest.approx(whole[0], abs=1e-9)
    assert parts[1] == pytest.approx(whole[1], abs=1e-9)
    assert max(len(rows) for rows in length_control.bootstrap_weights(60, 0)) == 8
