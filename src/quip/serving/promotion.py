"""Promotion gate of `quip promote`: a challenger becomes champion when it is shown to be better.

The challenger and the champion are compared head to head on the same test inputs by the most
trusted judge (`quip.critics.unproven_gate.most_trusted_judge`). The challenger is promoted when
the 95 % interval of its score (win + tie/2) lies above one half. The verdicts of stage `duel` are
used when they compare exactly these two sets of weights. Otherwise both versions answer the test
inputs and the judge is asked; its replies are stored, so a second comparison costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quip.core.jsonl import read_rows
from quip.core.params import load, read_params
from quip.core.records import Critique, LiteralText, Response
from quip.critics import debiasing
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import LEARNED
from quip.critics.debiasing import Debias
from quip.critics.judges import JudgeParams, ask_judges
from quip.critics.unproven_gate import CHANCE, most_trusted_judge
from quip.evaluation.metrics import text_metrics, win_tie_rate
from quip.runtime.errors import DataError, QuipError
from quip.tracking import registry
from quip.tracking.lineage import data_hash
from quip.tracking.mlflow_store import Store, mask_secrets
from quip.tracking.registry import HASH_TAG

SPLIT = "test"
RUNS = Path("data/runs")
RESULTS = Path("data/metrics/wtr.json")
AUDIT = Path("data/metrics/critic.json")
INPUTS = Path("data/prepared/test.jsonl")
REWARD = Path("models/reward")


class NotPromoted(QuipError):
    """The challenger is not shown to be better. Nothing was changed."""

    exit_code = 1


class Duel(NamedTuple):
    """Head-to-head result of two versions: score of the first and its 95 % interval on n inputs."""

    score: float
    low: float
    high: float
    n: int
    judge: str
    data: str
    """DVC's hash of the test inputs."""

    def summary(self) -> str:
        return (
            f"score {self.score:.3f} [{self.low:.3f}, {self.high:.3f}] head to head on {self.n} "
            f"test inputs, judge {self.judge}"
        )


def promote(store: Store, name: str, wanted: str, reason: str | None = None) -> str:
    """Make a version champion if it passes the gate or a `reason` forces it; returns a line of
    report. Raises NotPromoted, with the shortfall, when it does not pass."""
    new, held = registry.find_version(store, name, wanted), registry.aliases(store, name)
    number, old_number = str(new.version), held.get("champion")
    if number == old_number:
        return f"{name} version {number} is the champion already."
    duel = None
    if old_number and not reason:
        duel = head_to_head(store, name, new, registry.find_version(store, name, old_number))
        refuse_unless_better(duel, number, old_number)
    why = duel.summary() if duel else f"forced: {reason}" if reason else "there was no champion"
    details = {"forced": True} if reason else duel._asdict() if duel else {}
    registry.promote(store, name, number, old_number, why, details)
    if reason:
        store.client.set_model_version_tag(name, number, "promotion.reason", mask_secrets(reason))
    return f"{name} version {number} is now champion ({why})."


def refuse_unless_better(duel: Duel, number: str, champion: str) -> None:
    if duel.low <= CHANCE:
        raise NotPromoted(
            f"version {number} is not promoted over version {champion}: {duel.summary()}. The "
            f"interval must lie above {CHANCE:.3f}: its lower end is {CHANCE - duel.low:.3f} "
            "short. More test inputs (prepare.limit) narrow it; `--force --reason TEXT` overrules."
        )


# ---- head to head --------------------------------------------------------------------------


def head_to_head(store: Store, name: str, new: Any, old: Any) -> Duel:
    """Compare `new` with `old` (MLflow's versions), by the verdicts of stage `duel` or a new
    comparison. Raises DataError when both have the same weights."""
    if new.tags.get(HASH_TAG) == old.tags.get(HASH_TAG):
        raise DataError(f"versions {new.version} and {old.version} have the same weights.")
    arms = arms_by_digest()
    pair = (arms.get(new.tags.get(HASH_TAG)), arms.get(old.tags.get(HASH_TAG)))
    found = recorded_duel(*pair) if all(pair) else None
    return found or run_duel(store, name, (new, old), arms)


def arms_by_digest() -> dict[str, str]:
    """sha256 of weights -> arm, for the latest training of each arm in this checkout.

    The answers and verdicts of this checkout belong to these weights. They do not belong to a
    version whose arm was trained again since its registration.
    """
    found = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(RUNS.glob("*.json"))}
    return {run["model_sha256"]: arm for arm, run in found.items() if run.get("model_sha256")}


def chosen_judge() -> str:
    """The most trusted judge of params.yaml, by the audit in data/metrics/critic.json."""
    params = load("judge", JudgeParams)
    audit = json.loads(AUDIT.read_text(encoding="utf-8")) if AUDIT.is_file() else {}
    return most_trusted_judge(audit, [*params.endpoints, *([LEARNED] if params.learned else [])])


def recorded_duel(new: Any, old: Any) -> Duel | None:
    """The result of stage `duel` on two arms; None when it did not compare them."""
    duels = json.loads(RESULTS.read_text(encoding="utf-8"))["duels"] if RESULTS.is_file() else {}
    judge = chosen_judge()
    for key, turned in ((f"{new}_vs_{old}", False), (f"{old}_vs_{new}", True)):
        cell = duels.get(key, {}).get(SPLIT, {}).get(judge)
        if cell:
            score, (low, high) = cell["score"], cell["score_ci95"]
            ends = (1 - score, 1 - high, 1 - low) if turned else (score, low, high)
            return Duel(*ends, cell["n"], judge, data_hash(INPUTS))
    return None


def run_duel(store: Store, name: str, pair: Sequence[Any], arms: Mapping[str, str]) -> Duel:
    """Let both versions answer the test inputs of this checkout and the most trusted judge compare
    the answers."""
    inputs, judge = read_rows(INPUTS, LiteralText), chosen_judge()
    new, old = (version_answers(store, name, version, inputs, arms) for version in pair)
    this, that = (f"version {version.version}" for version in pair)
    pairs = [
        Comparison(row.id, SPLIT, row.text, this, that, new[row.id], old[row.id]) for row in inputs
    ]
    one = {"endpoints": [judge], "learned": False}
    if judge == LEARNED:
        one = {"endpoints": [], "learned": True}
    params = load("judge", JudgeParams).model_copy(update=one)
    settings, debias = read_params()["evaluate"], load("debias", Debias)
    rows = [judged_input(row, debias) for row in ask_judges(params, REWARD, pairs, "promote").rows]
    found = win_tie_rate.summarise(
        rows, settings["tie_margin"], settings["resamples"], settings["seed"]
    )
    low, high = found["score_ci95"]
    return Duel(found["score"], low, high, found["n"], judge, data_hash(INPUTS))


def judged_input(row: Critique, debias: Debias) -> win_tie_rate.JudgedInput:
    flipped = debiasing.order_flips(row.forward, row.backward)
    ratio = text_metrics.length_ratio(row.a, row.b)
    return win_tie_rate.JudgedInput(
        row.input, debiasing.calibrated_preference(row, debias), flipped, ratio
    )


def version_answers(
    store: Store, name: str, version: Any, inputs: Sequence[LiteralText], arms: Mapping[str, str]
) -> dict[str, str]:
    """Input id -> this version's answer: from stage `respond` when its weights are this checkout's,
    else generated now."""
    arm = arms.get(version.tags.get(HASH_TAG, ""))
    file = Path(f"data/responses/{arm}.jsonl")
    known = {r.input: r.text for r in read_rows(file, Response)} if file.is_file() else {}
    if all(row.id in known for row in inputs):
        return known
    from quip.models import generation

    student, options = registry.load_student(store, name, version), read_params()["respond"]
    texts = generation.respond(
        student,
        [row.text for row in inputs],
        max_new_tokens=options["max_new_tokens"],
        num_beams=options["num_beams"],
    )
    return {row.id: text for row, text in zip(inputs, texts, strict=True)}
