"""Agreement of two judges: Cohen's kappa against scikit-learn's and against known tables."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from quip.evaluation.metrics.interrater import cohens_kappa

OUTCOMES = ("win", "tie", "loss")


def drawn(n: int, seed: int, same: float) -> tuple[list[str], list[str]]:
    """`same` of the comparisons have one outcome by both judges; the others are drawn apart."""
    chance = np.random.default_rng(seed)
    one = [OUTCOMES[i] for i in chance.integers(0, 3, n)]
    other = [OUTCOMES[i] for i in chance.integers(0, 3, n)]
    return one, [a if chance.random() < same else b for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("same", [0.0, 0.4, 1.0])
def test_kappa_is_the_textbook_s(same: float) -> None:
    one, other = drawn(300, 1, same)
    found = cohens_kappa(one, other, 500, 0)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(one, other), abs=1e-4)
    assert found["ci95"][0] <= found["kappa"] <= found["ci95"][1]
    assert found["n"] == 300


def test_the_interval_holds_what_was_planted() -> None:
    planted = [cohens_kappa(*drawn(200, seed, 0.5), 500, 0)["ci95"] for seed in range(60)]
    assert sum(low <= 0.5 <= high for low, high in planted) >= 52


def test_judges_that_always_say_the_same_one_thing_agree_by_chance() -> None:
    found = cohens_kappa(["tie"] * 9, ["tie"] * 9, 100, 0)
    assert (found["kappa"], found["same"]) == (0.0, 1.0)
    assert found["ci95"] == [0.0, 0.0]


def test_opposite_judges_are_below_chance() -> None:
    found = cohens_kappa(["win", "loss"] * 20, ["loss", "win"] * 20, 200, 0)
    assert found["kappa"] == -1.0
    assert found["same"] == 0.0
