"""Skipped arms: an arm that `arms` in params.yaml does not name writes placeholder outputs.

dvc.yaml holds the stages of every arm, and the list `arms` chooses which are trained. The stage of
a skipped arm ends at once, so a change of `arms` re-runs no other arm.
"""

from __future__ import annotations

import json
from pathlib import Path

from quip.core.jsonl import atomic, write_json


def is_skipped(role_file: str) -> bool:
    """Whether data/roles/arms/<arm>.json says that params.yaml does not name the arm."""
    return not json.loads(Path(role_file).read_text(encoding="utf-8"))["wanted"]


def leave_note(arm: str, model: str, curve: str, run: str) -> None:
    """Write placeholder outputs: an empty curve, a run without id, a note in place of a model."""
    print(f"{arm}: not in `arms` of params.yaml, nothing to train.")
    with atomic(Path(model) / "NOT_TRAINED") as handle:
        handle.write(f"Add '{arm}' to `arms` in params.yaml and run `dvc repro`.\n")
    with atomic(curve) as handle:
        handle.write("step\n")
    write_json(run, {"run_id": None, "stage": arm, "model_sha256": None, "seconds": 0})
