"""roles: the files that later stages depend on, and the changes that leave them equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quip.runtime.errors import ParamsError
from quip.stages import roles
from quip.training import rounds
from stage_options import options

Project = Callable[..., Path]

ENDPOINTS: dict[str, Any] = {
    "small": {"base_url": "http://127.0.0.1:9/v1", "model": "s"},
    "large": {"base_url": "http://127.0.0.1:9/v1", "model": "l", "logprobs": False},
}
PLAYED = {
    "endpoints": ENDPOINTS,
    "arms": ["sft", "dpo"],
    "teacher": {"endpoint": "large"},
    "critic": {"kind": "mcp", "endpoint": "small"},
    "judge": {"endpoints": ["small", "large"], "learned": False},
}


@pytest.fixture
def project(project: Project) -> Project:
    """With the rounds laid out for one, unless the test has done it."""

    def make(**changes: Any) -> Path:
        folder = project(**changes)
        if not rounds.FILE.exists():
            rounds.write(1, [])
        return folder

    return make


def run() -> dict[str, bytes]:
    """The bytes of every role file by its name."""
    roles.main(options(out="roles"))
    files = [path for path in Path("roles").rglob("*") if path.is_file()]
    return {path.relative_to("roles").as_posix(): path.read_bytes() for path in files}


def test_one_file_a_role_and_an_arm(project: Project) -> None:
    project(**PLAYED)
    files = {name: json.loads(content) for name, content in run().items()}
    assert files == {
        "teacher.json": {"endpoint": "large", "model": "l", "logprobs": False},
        "critic.json": {"endpoint": "small", "model": "s", "logprobs": True},
        "reward.json": {"wanted": False},
        "safety.json": {"endpoint": None},
        "judges.json": [
            {"endpoint": "small", "model": "s", "logprobs": True},
            {"endpoint": "large", "model": "l", "logprobs": False},
        ],
        "audit.json": [
            {"endpoint": "small", "model": "s", "logprobs": True},
            {"endpoint": "large", "model": "l", "logprobs": False},
        ],
        "arms/sft.json": {"arm": "sft", "wanted": True},
        "arms/dpo.json": {"arm": "dpo", "wanted": True},
        "arms/ft.json": {"arm": "ft", "wanted": False},
        "arms/sd.json": {"arm": "sd", "wanted": False},
        "arms/brio.json": {"arm": "brio", "wanted": False},
        "arms/brio_dpo.json": {"arm": "brio_dpo", "wanted": False},
    }


@pytest.mark.parametrize(
    "speed",
    [
        {"base_url": "http://127.0.0.1:10/v1"},
        {"concurrency": 64},
        {"timeout": 1.0},
        {"retries": 9},
        {"api_key_env": "OTHER_KEY"},
        {"price_in": 2.0, "price_out": 3.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_speed_address_and_prices_leave_every_file_byte_identical(
    speed: dict[str, Any], project: Project
) -> None:
    project(**PLAYED)
    before = run()
    project(**PLAYED | {"endpoints": {**ENDPOINTS, "small": {**ENDPOINTS["small"], **speed}}})
    assert run() == before


@pytest.mark.parametrize("change", [{"model": "other"}, {"logprobs": False}])
def test_another_model_changes_the_roles_it_plays_and_no_other(
    change: dict[str, Any], project: Project
) -> None:
    project(**PLAYED)
    before = run()
    project(**PLAYED | {"endpoints": {**ENDPOINTS, "small": {**ENDPOINTS["small"], **change}}})
    after = run()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"critic.json", "judges.json", "audit.json"}


def test_another_arm_changes_its_own_file_and_no_other(project: Project) -> None:
    project(**PLAYED)
    before = run()
    project(**PLAYED | {"arms": ["sft", "ft", "dpo"]})
    after = run()
    assert {name for name in before if before[name] != after[name]} == {"arms/ft.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": ["sft", "dop"]},
            "params.yaml: unknown arm 'dop' in 'arms'. Known arms: ",
        ),
        ({"arms": ["dpo"]}, "params.yaml: key 'arms' must be a list that holds 'sft'."),
        ({"arms": "sft"}, "params.yaml: key 'arms' must be a list that holds 'sft'."),
        ({"arms": None}, "params.yaml: key 'arms' must be a list that holds 'sft'."),
        ({"arms": ["sft", "sft"]}, "params.yaml: key 'arms' names an arm twice."),
        (
            {"judge": {"endpoints": []}},
            "params.yaml: key 'judge.endpoints' must name at least one endpoint.",
        ),
        ({"critic": {"endpoint": ""}}, "params.yaml: key 'critic.endpoint' is missing."),
        (
            {"teacher": {"endpoint": "larg"}},
            "params.yaml: endpoint 'larg' is not under endpoints (known: recorded, embedded, "
            "small, large). Did you mean 'large'?",
        ),
        (
            {"endpoints": {**ENDPOINTS, "large": {"base_url": "x", "modle": "m"}}},
            "params.yaml: unknown key 'endpoints.large.modle'. Known keys: answers_as, ",
        ),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], message: str, project: Project) -> None:
    project(**PLAYED | changes)
    with pytest.raises(ParamsError) as caught:
        run()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_arm_hints_at_the_nearest(project: Project) -> None:
    project(arms=["sft", "dpo2"])
    with pytest.raises(ParamsError, match=r"Did you mean 'dpo'\?$"):
        run()


def test_another_arm_needs_a_new_rounds_yaml_only_with_several_rounds(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(**PLAYED)
    rounds.write(2, ["sft", "dpo"])
    run()
    assert "rounds 2" in capsys.readouterr().out
    project(**PLAYED | {"arms": ["sft", "dpo", "brio"]})
    with pytest.raises(ParamsError, match=r"^rounds.yaml does not fit .*Run `quip rounds 2`"):
        run()
    rounds.write(1, ["sft", "dpo"])
    run()


def test_endpoints_that_a_panel_or_the_audit_name_are_described(project: Project) -> None:
    """Another model behind `mcp:humor@large` must make the audit stale."""
    panel = {"kind": "panel", "endpoint": "small", "panel": {"signals": ["mcp@large", "words"]}}
    project(**PLAYED | {"critic": panel, "audit": {"kinds": ["cloze", "mcp:humor@large"]}})
    files = {name: json.loads(content) for name, content in run().items()}
    large = {"endpoint": "large", "model": "l", "logprobs": False}
    assert files["critic.json"]["members"] == [large]
    assert large in files["audit.json"]


def recorded(text: str, file: str = "data/raw/recorded.jsonl") -> dict[str, Any]:
    """Params whose teacher is a recording in `file`, which holds `text`."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)
    large = {"model": "l", "replies": file}
    return PLAYED | {"endpoints": {**ENDPOINTS, "taped": large}, "teacher": {"endpoint": "taped"}}


def test_another_recording_changes_its_role_and_another_path_to_it_does_not(
    project: Project,
) -> None:
    project(**PLAYED)
    project(**recorded("one"))
    before = run()
    assert len(json.loads(before["teacher.json"])["recording"]) == 64
    project(**recorded("one", "./data/raw/further/copy.jsonl"))
    assert run() == before
    project(**recorded("two"))
    after = run()
    assert {name for name in before if before[name] != after[name]} == {"teacher.json"}
