"""Planted biases are found by the audit and taken off by debiasing (docs/critics.md, drawn by
known_bias.py), over 200 seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import known_bias as bench
from quip.core.jsonl import write_rows
from quip.critics.debiasing import calibrated_preference
from quip.critics.unproven_gate import refuse_unproven
from quip.evaluation.critic_audit import audit_summary
from quip.runtime.errors import DataError
from quip.stages import preferences
from stage_options import options

Project = Callable[..., Path]
Key = tuple[str, str, float]
FIGURES = ("agreement", "position_bias", "length_bias")


@pytest.fixture(scope="module")
def seeds() -> list[bench.Seed]:
    return [bench.draw(number) for number in range(bench.SEEDS)]


@pytest.fixture(scope="module")
def found(seeds: list[bench.Seed]) -> dict[Key, bench.Found]:
    return {(critic, way, word): one for critic, way, word, one in bench.all_methods(seeds)}


def near(values: np.ndarray, planted: float) -> bool:
    """Whether the mean over seeds is within four of its standard errors of what was planted; the
    audit's rounding to four digits is let pass."""
    return bool(abs(values.mean() - planted) <= 4 * values.std() / len(values) ** 0.5 + 1e-4)


def test_every_method_that_the_code_offers_is_on_the_bench(found: dict[Key, bench.Found]) -> None:
    for critic in bench.LEANING:
        assert {way for name, way, _ in found if name == critic} == set(bench.METHODS)
    assert {name for name, _, _ in found} == set(bench.CRITICS)


@pytest.mark.parametrize("figure", FIGURES)
def test_the_audit_finds_what_was_planted(figure: str, found: dict[Key, bench.Found]) -> None:
    for (critic, way, word), one in found.items():
        planted = bench.expect(critic, way, word)[figure]  # type: ignore[arg-type]
        values = getattr(one, figure)
        assert near(values, planted), (critic, way, word, values.mean(), planted)


def test_the_bench_sees_a_figure_that_is_off(found: dict[Key, bench.Found]) -> None:
    values = found["position", "log_odds", 0.0].agreement
    assert not near(values, bench.expect("position", "log_odds")["agreement"] + 0.02)


def test_nineteen_in_twenty_intervals_hold_the_planted_agreement(
    found: dict[Key, bench.Found],
) -> None:
    for key, one in found.items():
        if key[0] != "letter":
            assert 0.88 <= one.covered.mean() <= 0.99, key


def preferred(seed: bench.Seed, critic: str, method: str, word: float = 0.0) -> np.ndarray:
    rows = bench.answers(seed, bench.CRITICS[critic](seed))
    used = bench.debias(method, critic, word)  # type: ignore[arg-type]
    return np.array([calibrated_preference(row, used) for row in rows], dtype=float)


def test_a_constant_lean_is_taken_off_altogether(seeds: list[bench.Seed]) -> None:
    """By log-odds to the fair critic's very preferences (by `content_free`, too, where the lean was
    measured), by probabilities to the same order of preference."""
    for seed in seeds[:20]:
        fair = preferred(seed, "fair", "log_odds")
        for method in {"log_odds", "content_free"} & set(bench.METHODS):
            assert preferred(seed, "position", method) == pytest.approx(fair, abs=1e-9)
        averaged = preferred(seed, "position", "probability")
        assert ((averaged > 0.5) == (fair > 0.5)).all()
        assert (abs(averaged - 0.5) <= abs(fair - 0.5)).all()


def test_the_planted_taste_for_length_is_taken_off_altogether(seeds: list[bench.Seed]) -> None:
    for seed in seeds[:20]:
        fair = preferred(seed, "fair", "log_odds")
        found = preferred(seed, "length", "log_odds", -bench.A_WORD)
        assert found == pytest.approx(fair, abs=1e-9)


def test_fewer_wrong_pairs_are_learned_from_a_debiased_critic(
    found: dict[Key, bench.Found],
) -> None:
    biased, fair = found["length", "log_odds", 0.0], found["length", "log_odds", -bench.A_WORD]
    assert fair.wrong / fair.kept < 0.85 * biased.wrong / biased.kept
    if "none" in bench.METHODS:
        one, both = (found["position", way, 0.0] for way in ("none", "log_odds"))
        assert both.wrong / both.kept < 0.85 * one.wrong / one.kept


def test_the_fit_finds_scale_and_taste_for_length() -> None:
    """Drawn towards 0 by its ridge, by no more than a tenth; each seed's numbers scatter about."""
    weights = bench.fitted()
    for values, planted in zip(weights.T, (1.0, -bench.A_WORD), strict=True):
        assert 0.9 <= values.mean() / planted <= 1.02
        low, high = np.quantile(values, [0.025, 0.975])
        assert low < planted < high


def test_self_preference_is_the_gap_to_an_unbiased_judge(seeds: list[bench.Seed]) -> None:
    gaps, planted = bench.leakage(seeds)
    assert near(gaps, planted)
    assert np.quantile(gaps, 0.975) < -0.1


@pytest.mark.parametrize("method", bench.METHODS)
def test_a_critic_that_always_names_one_letter_teaches_nothing(
    method: str, seeds: list[bench.Seed], found: dict[Key, bench.Found], project: Project
) -> None:
    """Not one training pair over all seeds, the stage says so, and the gate would not let it in."""
    assert found["letter", method, 0.0].kept == 0.0
    used = bench.debias(method, "letter")  # type: ignore[arg-type]
    project(debias=used.model_dump(), preferences={"min_confidence": 0.5})
    seed = seeds[0]
    rows = bench.answers(seed, bench.letter(seed))
    write_rows("critique.jsonl", rows)
    paths = {"critique": "critique.jsonl", "out": "p.jsonl", "rankings": "r.jsonl"}
    with pytest.raises(DataError, match=rf"no pair is left of {bench.PAIRS} .*'unsure'"):
        preferences.main(options(**paths, metrics="m.json"))
    assert not Path("p.jsonl").exists()
    audit = audit_summary(seed.pairs, rows, used, 500, 1)
    with pytest.raises(DataError, match="not shown to be better than chance"):
        refuse_unproven(audit, "letter", allowed=None)
