"""A recorded teacher under real DVC: a run is recorded and repeated without a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from faulty_endpoint import FaultyServer
from project_commands import dvc, quip, ran
from stub_project import answer, lay_out

pytestmark = pytest.mark.slow
FILE = Path("data/raw/recorded.jsonl")
LEARNED = ("pairs.jsonl", "references.jsonl")


def play(folder: Path, **entry: Any) -> None:
    """Make `entry` the endpoint of every role."""
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["endpoints"]["scripted"] = {"model": "m", **entry}
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def learned(folder: Path) -> list[bytes]:
    return [(folder / "data" / "imitation" / name).read_bytes() for name in LEARNED]


def repro(folder: Path, *words: str) -> list[str]:
    return ran(dvc(folder, "repro", "imitation", *words))


def test_a_run_is_recorded_and_repeated_and_runs_again_only_when_a_text_changes(
    tmp_path: Path,
) -> None:
    with FaultyServer() as server:
        server.answer = answer
        folder = lay_out(tmp_path, server.url)
        repro(folder)
        assert server.requests == 6
        paid = learned(folder)
        assert "6 replies" in quip(folder, "calls", "export", "--stage", "teacher")
    dvc(folder, "add", str(FILE))
    play(folder, replies=str(FILE))
    assert repro(folder) == ["roles", "teacher"], "the replies are equal, so that nothing else runs"
    assert learned(folder) == paid

    assert repro(folder, "--dry") == []
    play(folder, replies=f"./data/../{FILE}", concurrency=9)
    assert repro(folder) == ["roles"]

    rows = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    rows[0]["paraphrases"][0] = "The kettle tells another story of it by now."
    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert repro(folder) == ["roles", "teacher", "imitation"]
    assert learned(folder) != paid

    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    said = dvc(folder, "repro", "imitation", fails=True)
    assert f"lacks 2 paraphrases of literals (1): {rows[0]['literal']!r}" in said
