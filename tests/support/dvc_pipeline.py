"""dvc.yaml as DVC expands it, and its commands run one after the other in this process."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from typing import Any

import yaml

from quip.training import rounds
from repository import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
GRADED = {"graded": PARAMS["graded"]}
ALL_ARMS = ("sft", "ft", "sd", *rounds.FEEDBACK_ARMS)

Stages = dict[str, dict[str, Any]]


def expanded(count: int, arms: Sequence[str] = ALL_ARMS) -> Stages:
    """Every stage of the pipeline with these arms and `count` rounds."""
    table = rounds.table(count, arms)
    found: Stages = {}
    for name, stage in DVC["stages"].items():
        for key, item in items(stage, {**GRADED, **table}, arms).items():
            text = json.dumps(stage.get("do", stage)).replace("${key}", key)
            text = text.replace("${item}", item.get("", ""))
            for field, value in item.items():
                text = text.replace(f"${{item.{field}}}", str(value))
            found[f"{name}@{key}" if key else name] = json.loads(text)
    return found


def items(
    stage: dict[str, Any], table: dict[str, Any], arms: Sequence[str]
) -> dict[str, dict[str, Any]]:
    if "foreach" in stage:
        found = table[stage["foreach"].strip("${}")]
        return {key: {"": item} if isinstance(item, str) else item for key, item in found.items()}
    named = stage.get("matrix", {}).get("arm", [""])
    return {arm: {"arm": arm} for arm in (arms if isinstance(named, str) else named)}


def outs_of(stage: dict[str, Any]) -> list[str]:
    """Paths, with or without settings of their own (`cache: false`)."""
    found = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in found]


def in_order(stages: Stages) -> list[str]:
    """Every stage after those that make what it depends on."""
    makers = {out: name for name, stage in stages.items() for out in outs_of(stage)}

    def before(stage: dict[str, Any]) -> Iterator[str]:
        for dep in stage["deps"]:
            for out, maker in makers.items():
                if dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/"):
                    yield maker

    graph = {name: set(before(stage)) for name, stage in stages.items()}
    return list(TopologicalSorter(graph).static_order())


def run(stage: dict[str, Any]) -> None:
    """The stage's own command, by its module's `main`, in the working directory."""
    _, _, module, *argv = shlex.split(stage["cmd"])
    importlib.import_module(module).main(argv)


def walk(stages: Stages, without: Sequence[str] = ()) -> list[str]:
    """Run them all but those named `without` (`judge` is every judge); the names of those run."""
    names = [name for name in in_order(stages) if name.split("@")[0] not in without]
    for name in names:
        run(stages[name])
    return names
