"""Every arm through the pipeline's own commands, in two rounds, on a real small student of either
family; teacher, critic and judge are a scripted endpoint."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dvc_pipeline import ALL_ARMS, expanded, walk
from every_arm_project import ELSEWHERE, vowels
from fake_endpoint import ChatServer
from quip.core.jsonl import read_rows
from quip.core.records import Candidate, Critique, Preference, Ranking, Response
from quip.models import student
from quip.training import rounds

pytestmark = pytest.mark.slow


def steps(curve: str) -> int:
    with Path(curve).open(encoding="utf-8") as handle:
        return max(int(row["step"]) for row in csv.DictReader(handle))


def test_all_arms_in_two_rounds(arms_project: Path, family: str, server: ChatServer) -> None:
    names = walk(expanded(2), without=ELSEWHERE)
    assert {f"align@{arm}" for arm in rounds.FEEDBACK_ARMS} < set(names)
    models = {arm: f"models/{arm}" for arm in ALL_ARMS}
    models |= {f"{arm}-1": f"models/rounds/{arm}-1" for arm in rounds.FEEDBACK_ARMS}
    loaded = {name: student.load(folder) for name, folder in models.items()}
    assert {one.family for one in loaded.values()} == {family}
    assert len({student.weights_digest(folder) for folder in map(Path, models.values())}) == 9
    for arm in ALL_ARMS:
        run = json.loads(Path(f"data/runs/{arm}.json").read_text())
        assert run["run_id"], arm
        assert run["model_sha256"] == student.weights_digest(Path(f"models/{arm}"))
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
