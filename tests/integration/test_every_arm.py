"""Every arm through the pipeline's own commands, in two rounds, on a real small student of either
family; teacher, critic and judge are a scripted endpoint."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Body, ChatServer, chat, likes
from quip.core.jsonl import read_rows
from quip.core.records import Candidate, Critique, Preference, Ranking, Response
from quip.models import student
from quip.training import rounds
from walking import ALL_ARMS, ROOT, expanded, walk

pytestmark = pytest.mark.slow
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


@pytest.fixture(params=["encoder-decoder", "causal"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def laid_out(
    family: str,
    tiny_student: Path,
    tiny_bart: Path,
    scripted_project: Callable[..., Path],
    server: ChatServer,
    critic_prompt: None,
    migrated_database: Path,
    tmp_path: Path,
) -> Path:
    """A project of six inputs whose student is a small one of the family, in two rounds. The causal
    one is trained by adapters, the other in full."""
    (tmp_path / "prompts" / "teacher.txt").write_text("--- user\nSentence: {literal}\n")
    server.answer = either
    base = tiny_bart if family == "encoder-decoder" else tiny_student
    lora = {"r": 4, "alpha": 8, "dropout": 0.0} if family == "causal" else None
    changes = {**SMALL, "sft": {"base": str(base), "epochs": 2, "learning_rate": 1.0e-3}}
    folder = scripted_project(**{**changes, "align": {**SMALL["align"], "lora": lora}})
    shutil.copytree(ROOT / "data" / "raw", folder / "data" / "raw")
    shutil.copyfile(migrated_database, folder / "mlflow.db")
    rounds.write(2, ALL_ARMS)
    return folder


def steps(curve: str) -> int:
    with Path(curve).open(encoding="utf-8") as handle:
        return max(int(row["step"]) for row in csv.DictReader(handle))


def test_all_arms_in_two_rounds(laid_out: Path, family: str, server: ChatServer) -> None:
    names = walk(expanded(2), without=ELSEWHERE)
    assert {f"align@{arm}" for arm in rounds.FEEDBACK_ARMS} < set(names)
    models = {arm: f"models/{arm}" for arm in ALL_ARMS}
    models |= {f"{arm}-1": f"models/rounds/{arm}-1" for arm in rounds.FEEDBACK_ARMS}
    loaded = {name: student.load(folder) for name, folder in models.items()}
    assert {one.family for one in loaded.values()} == {family}
    assert len({student.digest(folder) for folder in map(Path, models.values())}) == 9
    for arm in ALL_ARMS:
        run = json.loads(Path(f"data/runs/{arm}.json").read_text())
        assert run["run_id"], arm
        assert run["model_sha256"] == student.digest(Path(f"models/{arm}"))
        assert len(read_rows(f"data/responses/{arm}.jsonl", Response)) == 2 + 3 + 2
        verdicts = read_rows(f"data/verdicts/{arm}.jsonl", Critique)
        assert len(verdicts) == 5
        assert all(row.forward.p_first is not None for row in verdicts)
    # Three texts an input were compared, each with each; the teacher's three likewise.
    assert {len(row.texts) for row in read_rows("data/rankings.jsonl", Ranking)} == {3}
    assert {len(row.texts) for row in read_rows("data/rank/rankings.jsonl", Ranking)} == {3}
    pairs = read_rows("data/preferences.jsonl", Preference)
    assert all(vowels(pair.chosen) > vowels(pair.rejected) for pair in pairs)
    # The second round's texts are those of the first round's student, one set an arm.
    drawn = [
        tuple(row.text for row in read_rows(f"{folder}/candidates.jsonl", Candidate))
        for folder in ("data", *(f"data/rounds/{arm}-1" for arm in rounds.FEEDBACK_ARMS))
    ]
    assert len(set(drawn)) == 4
    # Two epochs in all: one a round, of three steps of two pairs each.
    for arm in rounds.FEEDBACK_ARMS:
        assert steps(f"data/rounds/{arm}-1/curve.csv") == steps(f"data/curves/{arm}.csv") == 3
