"""A checkout in which everything before `register` is done, with weights that are not any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quip.core.jsonl import write_rows
from quip.core.records import Reference, Response
from quip.stages import register
from quip.tracking import mlflow_store, registry, runs
from quip.tracking.lineage import model_digest
from quip.tracking.registry import TrainedStudent

NAME = "quip-student"
ARMS = ("sft", "dpo")


def cell(score: float) -> dict[str, Any]:
    return {
        **{"wtr": score + 0.1, "score": score, "score_ci95": [score - 0.1, score + 0.1]},
        **{"n": 120, "win": 0.3, "tie": 0.2, "loss": 0.5},
        **{"ci95": [score, score + 0.2]},
    }


def write_results(scores: Mapping[str, float]) -> None:
    arms = {
        arm: {"test": {"embedded": cell(score)}, "ood": {"embedded": cell(score)}}
        for arm, score in scores.items()
    }
    write(Path("data/metrics/wtr.json"), {"arms": arms})
    write(Path("data/metrics/critic.json"), {"agreement": 0.8, "position_bias": 0.1})


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_answers(*arms: str) -> None:
    """The evaluation inputs with the teacher's texts, and what each arm answers."""
    rows = [
        Reference(
            input=f"t{i}",
            split=split,
            literal=f"My bus number {i} was late.",
            paraphrases=[f"bus {i} took a nap"],
        )
        for i, split in enumerate(("test", "test", "ood"))
    ]
    write_rows("data/imitation/references.jsonl", rows)
    for arm in arms:
        answers = [
            Response(input=r.input, split=r.split, literal=r.literal, text=f"{arm} on {r.input}")
            for r in rows
        ]
        write_rows(f"data/responses/{arm}.jsonl", answers)


def write_params(arms: Any = ARMS) -> None:
    arms = list(arms) if isinstance(arms, tuple) else arms
    sections = {"arms": arms, "register": {"name": NAME}, "respond": {"num_beams": 2}}
    Path("params.yaml").write_text(yaml.safe_dump(sections))


def write_student(arm: str, weights: bytes) -> None:
    folder = Path("models", arm)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    point_to(arm)


def point_to(arm: str, run_id: str = "feed0000") -> None:
    pointer = {
        **{"run_id": run_id, "stage": arm if arm == "sft" else f"align@{arm}", "seconds": 60},
        **{"model_sha256": model_digest(Path("models", arm)), "params": {"beta": 0.1}},
    }
    write(Path(f"data/runs/{arm}.json"), pointer)
    curve = Path(f"data/curves/{arm}.csv")
    curve.parent.mkdir(parents=True, exist_ok=True)
    curve.write_text("step,loss\n1,2.0\n2,1.0\n")


def run_stage() -> dict[str, Any]:
    register.main(
        [
            *("--models", "models", "--metrics", "data/metrics", "--runs", "data/runs"),
            *("--curves", "data/curves", "--responses", "data/responses"),
            *("--references", "data/imitation/references.jsonl"),
            *("--report", "data/report/report.html", "--out", "data/registry.json"),
        ]
    )
    found: dict[str, Any] = json.loads(Path("data/registry.json").read_text())
    return found


def client() -> Any:
    return mlflow_store.connect().client


def held(alias: str) -> str:
    return str(client().get_model_version_by_alias(NAME, alias).version)


def put(arm: str, folder: Path) -> str:
    store = mlflow_store.connect()
    run = runs.create_run(store, arm, {}, {})
    student = TrainedStudent(arm, folder, run, model_digest(folder))
    return registry.register(store, NAME, student, registry.SERVING_OPTIONS).number


def alias(name: str, number: str) -> None:
    mlflow_store.connect().client.set_registered_model_alias(NAME, name, number)
