"""Results as `evaluate` writes them, made up: each cell by its interval."""

from __future__ import annotations


def cell(low, high, n=140, **other):
    score = (low + high) / 2
    return {
        "score": score, "score_ci95": [low, high], "n": n, "wtr": score, "ci95": [low, high],
        "flip_rate": 0.1, "length_ratio": 1.0, "unparsed": 0.0, **other,
    }  # fmt: skip


def results(duel=None, arms=("sft", "dpo"), **other):
    duels = {} if duel is None else {"dpo_vs_sft": {"test": duel}}
    every = {arm: {"test": {"embedded": cell(0.3, 0.5)}} for arm in arms}
    return {"arms": every, "duels": duels, "controls": {}, "texts": {}, **other}
