"""Arms that params.yaml does not name: their stages exist, end at once, and leave a note.

So that one list, `arms`, chooses what is trained, and naming another arm disturbs no other.
"""

from __future__ import annotations

import json
from pathlib import Path

from quip.core.jsonl import atomic, write_json


def unwanted(role_file: str) -> bool:
    """Whether data/roles/arms/<arm>.json says that the arm was not asked for."""
    return not json.loads(Path(role_file).read_text(encoding="utf-8"))["wanted"]


def leave_note(arm: str, model: str, curve: str, run: str) -> None:
    """Outputs that say why there is nothing: an empty curve, no run id, a note for the model."""
    print(f"{arm}: not in `arms` of params.yaml, nothing to train.")
    with atomic(Path(model) / "NOT_TRAINED") as handle:
        handle.write(f"Add '{arm}' to `arms` in params.yaml and run `dvc repro`.\n")
    with atomic(curve) as handle:
        handle.write("step\n")
    write_json(run, {"run_id": None, "stage": arm, "model_sha256": None, "seconds": 0})
