"""Distributed training: two processes give the result of one; a wrong count is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from quip.core.jsonl import write_rows
from quip.core.records import LiteralText, Preference, Ranking, Reference, TrainingPair
from quip.runtime.errors import ParamsError
from quip.training import distributed
from quip.training.distributed import Launch, LaunchError
from repository import SOURCE
from stage_options import options
from tiny_training import BAD, GOOD, LITERALS


def launch(**changes: Any) -> Launch:
    one: dict[str, Any] = {"processes": 1, "machines": 1, "address": None}
    return Launch(**{**one, "mixed_precision": None, "fsdp": False, **changes})


# ---- shards


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shards_are_all_rows_in_order(rows: int, size: int, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    shards, evens = [], []
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        shards.append(list(distributed.local_shard(range(rows))))
        evens.append(distributed.even_shard(rows) if rows else [])
    assert [row for shard in shards for row in shard] == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert len({len(places) for places in evens}) == 1
    assert [row for places in evens for row in places][:rows] == list(range(rows))


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert distributed.local_batch_size(6) == 2
    with pytest.raises(ParamsError, match="batch_size of 8 cannot be divided among 3"):
        distributed.local_batch_size(8)


# ---- launch


def test_one_process_starts_nothing(project: Callable[..., Path]) -> None:
    project()
    assert not distributed.launch_processes("quip.stages.sft", [])


def test_several_machines_meet_at_the_first() -> None:
    command = distributed.command(
        launch(processes=8, machines=2, address="a:29400"), "quip.stages.sft", ["--model", "m"]
    )
    text = " ".join(command[1:])
    assert "--nnodes 2" in text
    assert "--rdzv-endpoint a:29400" in text
    assert "--nproc-per-node 8 -m -- quip.stages.sft --model m" in text
    with pytest.raises(ParamsError, match=r"launch.address.*host:port"):
        distributed.command(launch(machines=2), "m", [])


@pytest.mark.parametrize(("asked", "found"), [(4, 2), (1, 2)])
def test_another_number_of_processes_than_wanted_is_refused(
    asked: int, found: int, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project(launch={"processes": asked})
    monkeypatch.setenv("WORLD_SIZE", str(found))
    with pytest.raises(LaunchError, match=f"asks for {asked} processes .* but {found} started"):
        distributed.launch_processes("quip.stages.sft", [])


# ---- two real processes


def environment() -> dict[str, str]:
    dropped = ("RANK", "WORLD_SIZE", "DVC_STAGE", "DVC_ROOT", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), text=True, capture_output=True
    )


def accelerate_launch(*arguments: str) -> list[str]:
    return ["-m", "accelerate.commands.launch", *arguments]


SETTINGS: dict[str, Any] = {"precision": "fp32", "epochs": 2, "batch_size": 4, "max_length": 64}


@pytest.fixture
def data(project: Callable[..., Path], tmp_path: Path, migrated_database: Path) -> Path:
    """A project with inputs for every model stage: seven rows, so that an epoch's second batch of
    four is incomplete."""
    rates = {"learning_rate": 1e-3}
    folder = project(
        launch={"processes": 1},
        sft={**SETTINGS, **rates},
        align={**SETTINGS, **rates},
        candidates={"k": 2, "best_of_inputs": 2, "best_of": 2, "precision": "fp32"},
        respond={"precision": "fp32", "num_beams": 2},
        dpo={"loss_type": ["sigmoid"], "loss_weights": [1.0]},
    )
    shutil.copyfile(migrated_database, folder / "mlflow.db")
    literals = [*LITERALS, "My cat left.", "I fell."]
    good, bad = [*GOOD, "The cat resigned", "Gravity won"], [*BAD, "the cat went", "I fell down"]
    rows = list(zip(literals, good, bad, strict=True))
    write_rows(
        folder / "pairs.jsonl",
        [TrainingPair(input=str(i), literal=a, paraphrase=b) for i, (a, b, _) in enumerate(rows)],
    )
    write_rows(
        folder / "preferences.jsonl",
        [
            Preference(input=str(i), literal=a, chosen=b, rejected=c, confidence=0.9)
            for i, (a, b, c) in enumerate(rows)
        ],
    )
    write_rows(
        folder / "rankings.jsonl",
        [
            Ranking(
                input=str(i), literal=a, texts=[b, c, a], scores=[0.9, 0.5, 0.1], ranks=[0, 1, 2]
            )
            for i, (a, b, c) in enumerate(rows)
        ],
    )
    held_out = [
        Reference(input=f"v{i}", split="val", literal=a, paraphrases=[b])
        for i, (a, b, _) in enumerate(rows[:5])
    ]
    write_rows(folder / "references.jsonl", held_out)
    (folder / "wanted.json").write_text(json.dumps({"arm": "x", "wanted": True}))
    prepared = folder / "prepared"
    for split in ("train", "val", "test", "ood"):
        write_rows(
            prepared / f"{split}.jsonl",
            [LiteralText(id=f"{split}{i}", text=text) for i, text in enumerate(literals[:5])],
        )
    return folder


def both(folder: Path, stage: str, **arguments: object) -> None:
    """Run a stage in one process and in two, into `one` and `two` (in place of OUT)."""
    params = folder / "params.yaml"
    single = params.read_text()
    for name, processes in (("one", 1), ("two", 2)):
        params.write_text(single.replace("processes: 1", f"processes: {processes}"))
        where = {key: str(value).replace("OUT", name) for key, value in arguments.items()}
        done = run(folder, "-m", f"quip.stages.{stage}", *options(**where))
        assert done.returncode == 0, done.stderr[-3000:]
    params.write_text(single)


def same_weights(folder: Path) -> None:
    """The biases of keys aside: no loss depends on them, so that Adam moves them by what rounding
    leaves of their gradient."""
    one = load_file(folder / "one" / "model" / "model.safetensors")
    two = load_file(folder / "two" / "model" / "model.safetensors")
    assert one.keys() == two.keys()
    names = [name for name in one if not name.endswith("k_proj.bias")]
    apart = max((one[name] - two[name]).abs().max().item() for name in names)
    assert apart < 2e-5


def same_curve(folder: Path) -> None:
    """The held-out loss is a mean over batches, which accelerate makes smaller."""
    one, two = (
        list(csv.DictReader((folder / name / "curve.csv").read_text().splitlines()))
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 4
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            near = 1e-2 if name == "eval_loss" else 2e-4
            assert float(other[name] or "nan") == pytest.approx(
                float(value or "nan"), abs=near, nan_ok=True
            ), name


TRAINED = {"model": "OUT/model", "curve": "OUT/curve.csv", "run": "OUT/run.json"}


@pytest.mark.slow
def test_supervised_training_in_two_processes(data: Path, tiny_weights: Path) -> None:
    params = data / "params.yaml"
    params.write_text(
        params.read_text().replace("base: smollm2-135m-instruct", f"base: {tiny_weights}")
    )
    both(data, "sft", pairs="pairs.jsonl", references="references.jsonl", **TRAINED)
    same_weights(data)
    same_curve(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "family"), [("dpo", "causal"), ("brio", "causal"), ("dpo", "encoder-decoder")]
)
def test_feedback_learning_in_two_processes(
    arm: str,
    family: str,
    data: Path,
    tiny_weights: Path,
    bart_weights: Path,
) -> None:
    start = tiny_weights if family == "causal" else bart_weights
    learned = "rankings.jsonl" if arm == "brio" else "preferences.jsonl"
    both(
        data,
        "align",
        **{"arm": arm, "wanted": "wanted.json", "start": start, "reference": start},
        **{"feedback": learned, "pairs": "pairs.jsonl", **TRAINED},
    )
    same_weights(data)
    same_curve(data)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["candidates", "respond"])
def test_texts_drawn_by_two_processes(stage: str, data: Path, tiny_weights: Path) -> None:
    both(data, stage, model=tiny_weights, prepared="prepared", out="OUT.jsonl")
    assert (data / "one.jsonl").read_text() == (data / "two.jsonl").read_text()
    assert len((data / "one.jsonl").read_text().splitlines()) >= 14


@pytest.mark.slow
def test_accelerate_that_starts_one_process_instead_of_two_is_refused(
    data: Path, tiny_weights: Path
) -> None:
    """It says nothing itself (`--cpu --num_processes 2`)."""
    params = data / "params.yaml"
    params.write_text(params.read_text().replace("processes: 1", "processes: 2"))
    stage = options(model=tiny_weights, prepared="prepared", out="out.jsonl")
    launcher = accelerate_launch("--cpu", "--num_processes", "2", "-m", "quip.stages.respond")
    done = run(data, *launcher, *stage)
    assert done.returncode != 0
    assert "asks for 2 processes (launch.processes x launch.machines), but 1 started" in done.stderr
    assert not (data / "out.jsonl").exists()
