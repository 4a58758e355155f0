"""Bradley-Terry ratings against a library's fit, a planted world and the limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression

from quip.evaluation.metrics import bradley_terry
from quip.evaluation.metrics.bradley_terry import Match, rank_correlation, ratings


def planted(strengths: dict[str, float], inputs: int, seed: int = 0) -> list[Match]:
    """Every two names compared on every input; strengths in Elo's points."""
    chance, names = np.random.default_rng(seed), list(strengths)
    found = []
    for n in range(inputs):
        for at, a in enumerate(names):
            for b in names[:at]:
                p = 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400))
                points = 0.5 if chance.random() < 0.2 else float(chance.random() < p)
                found.append(Match(f"i{n}", a, b, points))
    return found


def test_planted_strengths_are_found_and_covered() -> None:
    strengths = {"teacher": 0.0, "good": 150.0, "weak": -200.0}
    found = ratings(planted(strengths, 3000), "teacher", 1)
    assert list(found) == ["good", "teacher", "weak"]
    for name, value in strengths.items():
        assert found[name]["rating"] == pytest.approx(0.8 * value, abs=25)  # a fifth are ties
        assert found[name]["ci95"][0] <= found[name]["rating"] <= found[name]["ci95"][1]
    assert found["teacher"] == {"rating": 0.0, "ci95": [0.0, 0.0], "n": 6000}


def test_the_iteration_finds_what_a_library_finds() -> None:
    """Without intercept or penalty, logistic regression on e_a - e_b is the same likelihood."""
    chance = np.random.default_rng(2)
    wins = chance.integers(1, 30, (5, 5)).astype(float) * (1 - np.eye(5))
    ours = bradley_terry.fit_log_strengths(wins[None])[0]
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    x = np.array([np.eye(5)[a] - np.eye(5)[b] for a, b in pairs])
    weights = np.array([wins[pair] for pair in pairs])
    model = LogisticRegression(fit_intercept=False, C=1e9, tol=1e-10)
    both, answers = np.vstack([x, -x]), np.repeat([1, 0], len(x))
    model.fit(both, answers, sample_weight=np.tile(weights, 2))
    theirs = model.coef_[0]
    assert ours - ours.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-4)


def test_one_that_always_loses_has_a_rating_all_the_same() -> None:
    rows = [Match(f"i{n}", "bad", "teacher", 0.0) for n in range(20)]
    found = ratings(rows, "teacher", 1)["bad"]
    assert found["rating"] == pytest.approx(-400 * math.log10(20.5 / 0.5), abs=0.1)
    assert np.isfinite(found["ci95"]).all()


def test_all_ties_and_one_row_give_numbers() -> None:
    ties = [Match(f"i{n}", "a", "teacher", 0.5) for n in range(9)]
    assert ratings(ties, "teacher", 1)["a"] == {"rating": 0.0, "ci95": [0.0, 0.0], "n": 9}
    one = ratings([Match("i", "a", "teacher", 1.0)], "teacher", 1)["a"]
    assert one["rating"] == pytest.approx(400 * math.log10(3), abs=0.1)


def test_no_comparison_gives_no_rating_and_unconnected_names_are_left_out() -> None:
    assert ratings([], "teacher", 1) == {}
    rows = [Match("i", "a", "teacher", 1.0), Match("i", "x", "y", 1.0)]
    assert set(ratings(rows, "teacher", 1)) == {"a", "teacher"}


def test_the_order_of_the_rows_plays_no_part() -> None:
    rows = planted({"teacher": 0.0, "a": 40.0, "b": -10.0}, 30)
    again = ratings(rows[::-1], "teacher", 1)
    for name, row in ratings(rows, "teacher", 1).items():
        assert again[name]["rating"] == pytest.approx(row["rating"], abs=0.1)
        assert again[name]["ci95"] == pytest.approx(row["ci95"], abs=0.2)


def test_rank_correlation_is_kendall_s_tau_and_none_where_undefined() -> None:
    one, other = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    assert rank_correlation(one, other)["tau"] == pytest.approx(kendalltau(one, other).statistic)
    assert rank_correlation(one, other)["tau"] == pytest.approx(4 / 6)
    for same in ([], [1.0], [2.0, 2.0]):
        found = rank_correlation(same, [float(n) for n in range(len(same))])
        assert found == {"tau": None, "p": 1.0, "n": len(same)}
