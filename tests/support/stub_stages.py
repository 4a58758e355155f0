"""The heavy stages of the stub project (`stub_project.py`): the same files and the same MLflow run
as the real ones, in no time. Its students are a few random numbers.

    python stub_stages.py sft | dpo | evaluate
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from quip.core.jsonl import read_rows, write_rows
from quip.core.params import read_params
from quip.core.records import Reference, Response
from quip.runtime import stage
from quip.tracking import runs
from quip.tracking.lineage import model_digest

STEPS = 4


def train(arm: str) -> None:
    settings = {"beta": read_params()["dpo"]["beta"]} if arm == "dpo" else {"epochs": 1}
    name = arm if arm == "sft" else f"align@{arm}"
    rows = ["step,loss"]
    with runs.run(name, settings, {"train": Path("data/imitation/pairs.jsonl")}) as run:
        for step in range(1, STEPS + 1):
            loss = 1 / (step + settings.get("beta", 0.0))
            run.log(step, {"loss": loss})
            rows.append(f"{step},{loss}")
            if step == STEPS // 2:
                half_way()
        weights = np.random.default_rng(round(1000 * settings.get("beta", 0.0))).normal(size=8)
        Path("models", arm).mkdir(parents=True, exist_ok=True)
        save_file({"weights": weights}, f"models/{arm}/model.safetensors")
    write(f"data/curves/{arm}.csv", "\n".join([*rows, ""]))
    pointer = {"run_id": run.id, "stage": name, "seconds": 1, "params": settings}
    digest = model_digest(Path("models", arm))
    write(f"data/runs/{arm}.json", json.dumps({**pointer, "model_sha256": digest}))


def half_way() -> None:
    """With HALF_WAY set: make this file, and go on when somebody has taken it away."""
    if file := os.environ.get("HALF_WAY"):
        Path(file).touch()
        while Path(file).exists():
            time.sleep(0.02)


def evaluate() -> None:
    beta = read_params()["dpo"]["beta"]
    cell = {"score_ci95": [0.1, 0.9], "wtr": 0.6, "n": 4, "win": 0.4, "tie": 0.2, "loss": 0.4}
    scores = {"sft": 0.4, "dpo": round(0.5 + beta / 10, 3)}
    arms = {arm: {"test": {"scripted": {**cell, "score": scores[arm]}}} for arm in scores}
    write("data/metrics/wtr.json", json.dumps({"arms": arms}))
    write("data/metrics/critic.json", json.dumps({"agreement": 0.8, "position_bias": 0.1}))
    write("data/report/report.html", f"<p>beta {beta}")
    references = read_rows("data/imitation/references.jsonl", Reference)
    for arm in scores:
        rows = [
            Response(input=r.input, split=r.split, literal=r.literal, text=f"{arm}!")
            for r in references
        ]
        write_rows(f"data/responses/{arm}.jsonl", rows)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage.run(evaluate if sys.argv[1] == "evaluate" else lambda: train(sys.argv[1]))
