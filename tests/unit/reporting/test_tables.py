"""Tables of the report from small made-up data."""

from __future__ import annotations

import pytest

from quip.core.records import Answer, Critique, Reference
from quip.critics.debiasing import Debias
from quip.reporting import tables
from quip.reporting.call_costs import cost_rows


def critique(first, second, name_a="better", split="gold", source="logprobs"):
    forward, backward = (Answer(p_first=p, source=source) for p in (first, second))
    return Critique(
        input="x", split=split, literal="l", name_a=name_a, name_b="worse", a="a", b="b", judge="j",
        forward=forward, backward=backward,
    )  # fmt: skip


def test_samples_are_the_smallest_digests_whatever_the_order():
    rows = [
        Reference(input=f"i{n}", split="test", literal="l", paraphrases=["p"]) for n in range(30)
    ]
    chosen = [row.input for row in tables.sample_inputs(rows, "test", 5)]
    assert chosen == [row.input for row in tables.sample_inputs(rows[::-1], "test", 5)]
    assert len(chosen) == 5
    assert tables.sample_inputs(rows, "val", 5) == []


def test_position_points_leave_out_unread_and_identical():
    rows = [critique(0.9, 0.8, split="test"), critique(None, 0.8, split="test")]
    rows.append(critique(0.5, 0.5, split="test", source="identical"))
    assert tables.position_points(rows, "test") == [(0.9, pytest.approx(0.2))]


def test_a_judge_that_always_names_the_first_is_seen():
    assert tables.first_position_share([(0.9, 0.1), (0.8, 0.3)]) == 1.0
    assert tables.first_position_share([(0.9, 0.9)]) == 0.5
    assert tables.first_position_share([]) == 0.5


def test_calibration_counts_the_better_text_on_either_side():
    rows = [critique(0.9, 0.1), critique(0.1, 0.9), critique(None, 0.5), critique(0.7, 0.7)]
    found = tables.calibration(rows, Debias(method="log_odds", scale=1.0, per_word=0.0))
    assert [agreed for _, agreed in found] == [1.0, 0.0]
    assert [confidence for confidence, _ in found] == pytest.approx([0.9, 0.9])


def test_bins_cover_one_half_to_one_and_skip_the_empty():
    found = tables.reliability_bins([(0.5, 1.0), (0.55, 0.0), (1.0, 1.0)])
    assert [(round(mean, 3), share, count) for mean, share, _, _, count in found] == [
        (0.525, 0.5, 2),
        (1.0, 1.0, 1),
    ]
    assert all(low <= share <= high for _, share, low, high, _ in found)


def test_curve_columns_find_their_panels():
    columns = ["loss", "eval_loss", "token_accuracy", "reward_accuracy", "reward_margin",
               "logp_chosen", "rewards/margins", "learning_rate"]  # fmt: skip
    assert [tables.panel_of(column) for column in columns] == [
        "loss", "loss", "token accuracy", "reward accuracy", "reward margin",
        "log-probability", "reward margin", None,
    ]  # fmt: skip


def test_a_judge_s_ledger_inside_another_stage_s_metrics_is_a_row_of_its_own():
    ledger = {"calls": 4, "stored": 1, "model": "m", "money": 0.5, "paid": 0.25}
    [critic, judge] = cost_rows({"critic": {**ledger, "judges": {"j": {**ledger, "model": "n"}}}})
    assert [(row["stage"], row["model"]) for row in (critic, judge)] == [
        ("critic", "m"),
        ("critic", "n"),
    ]
    assert (judge["stored"], judge["paid"], judge["retries"]) == (1, 0.25, 0)


def test_funnel_follows_the_pipeline_and_keeps_costs_apart():
    metrics = {
        "zeta": {"kept": 1},
        "teacher": {"asked": 10, "calls": 10, "prompt_tokens": 9000},
        "prepare": {"counts": {"read": 12}, "dropped": {"copy": 2}, "examples": {"copy": "Hi."}},
        "rates": {"flip_rate": 0.2},
    }
    found = tables.funnel(metrics)
    assert [block["stage"] for block in found] == ["prepare", "teacher", "zeta"]
    assert [(row["label"], row["value"], row["example"]) for row in found[0]["rows"]] == [
        ("read", 12, None),
        ("dropped · copy", 2, "Hi."),
    ]
    assert [row["label"] for row in found[1]["rows"]] == ["asked"]
    assert [(row["stage"], row["prompt_tokens"]) for row in cost_rows(metrics)] == [
        ("teacher", 9000)
    ]


def test_settings_never_hold_endpoints():
    found = tables.settings_rows({"arms": ["sft"], "endpoints": {"x": {}}, "sft": {"lora": None}})
    assert found == [
        {"section": "arms", "rows": [("", '["sft"]')]},
        {"section": "sft", "rows": [("lora", "null")]},
    ]


def test_intervals_do_not_break():
    assert tables.keep_together("score 0.5 [0.4, 0.6], n = 14, 95 %") == (
        "score 0.5 [0.4,\u00a00.6], n\u00a0=\u00a014, 95\u00a0%"
    )
