"""A project of six inputs with every arm; teacher, critic and judge are one scripted endpoint."""

from __future__ import annotations

from typing import Any

from dvc_pipeline import ALL_ARMS
from fake_endpoint import Body, chat, likes

ELSEWHERE = ("reward", "control", "meaning", "safety", "evaluate", "report", "register")
"""Stages that no arm's training depends on, and that have tests of their own."""


SMALL: dict[str, Any] = {
    "arms": [*ALL_ARMS],
    "prepare": {"limit": {"train": 6, "val": 2, "test": 3, "ood": 2}},
    "teacher": {"n": 3, "train_inputs": 5, "exemplars": 0, "prefixes": 1},
    "imitation": {"per_input": 3, "copy_ratio": 100},
    "candidates": {"k": 4, "compare": 3, "best_of_inputs": 1, "max_new_tokens": 12},
    "critique": {"length_ratio": [0.05, 20.0], "unproven": "scripted"},
    "preferences": {"min_confidence": 0.5},
    "debias": {"scale": 1.0, "per_word": 0.0},
    "align": {"epochs": 2, "batch_size": 2, "learning_rate": 1.0e-3},
    "baseline": {"epochs": 1, "learning_rate": 1.0e-3},
    "respond": {"num_beams": 2, "max_new_tokens": 12},
    "judge": {"splits": ["test", "ood"]},
}


FRAMES = (
    "{} like a duck in a lift.",
    "{} as calmly as a cat in the rain.",
    "{} which is more than my toaster did.",
)


def teacher(body: Body) -> tuple[int, bytes]:
    literal = body["messages"][-1]["content"].removeprefix("Sentence: ").rstrip(".")
    start = " ".join(literal.split()[:7])
    return chat("\n".join(f"{i}. {frame.format(start)}" for i, frame in enumerate(FRAMES, 1)))


def vowels(text: str) -> float:
    """A taste that tells any two texts apart."""
    return sum(text.count(letter) for letter in "aeiou") + len(text) / 1000


def either(body: Body) -> tuple[int, bytes]:
    asked = body["messages"][-1]["content"]
    return teacher(body) if asked.startswith("Sentence: ") else likes(vowels)(body)
