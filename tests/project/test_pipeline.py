"""dvc.yaml, the stage modules, params.yaml and the import graph agree with each other.

In a DVC project the import graph is the re-run graph, and nothing but these tests checks it.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dvc_pipeline import expanded, outs_of
from quip.core.params import Section, validate
from quip.training import rounds
from quip.training.rounds import OBJECTIVES
from repository import SOURCE
from rerun_graph import closure, file_of

ROOT = Path(__file__).parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}
"""Each stage as it is written; of one that is repeated over a table, what is repeated."""
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MODELS = {"sft", "align", "baseline", "candidates", "respond", "meaning"}
"""Modules of stages that run a model of their own; all others must start without torch."""
LATE = {
    "quip.serving.pyfunc_model",
    "quip.critics.reward_model",
    "quip.training.reward",
    "quip.models.hardware",
}
"""Modules that are imported only where a model is really needed."""


def module_of(stage: str) -> str:
    found = re.search(r"python -m (\S+)", STAGES[stage]["cmd"])
    assert found, f"{stage}: no module in its command"
    return found[1]


def short(stage: str) -> str:
    """The stage's module, without its package."""
    return module_of(stage).removeprefix("quip.stages.")


TRAINS = {"reward", "sft", "align", "baseline", "candidates", "respond"}
"""Stages that train a model or run a student: they list files, every other stage folders, so that
an edit of one objective trains no other student again."""


def code_deps(stage: str) -> set[str]:
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/quip/")}
    return {dep for dep in deps if not dep.startswith("src/quip/prompts")}


def needed(stage: str) -> set[str]:
    """The files that a stage's module imports, or the packages of these files."""
    found = [file_of(module) for module in closure(module_of(stage))]
    files = {str(file.relative_to(ROOT)) for file in found if file}
    return files if stage in TRAINS else set(map(unit, files))


def unit(file: str) -> str:
    """src/quip/PACKAGE/..., as what stands in `deps`: the package, of a stage the file itself."""
    source, quip, package, *rest = file.split("/")
    if package == "stages":
        return file
    return "/".join((source, quip, package, *(rest[:1] if package == "llm" else [])))


def test_the_design_s_stages_are_all_there() -> None:
    assert set(STAGES) >= {
        *("prepare", "teacher", "imitation", "sft", "audit", "candidates", "critique"),
        *("preferences", "align", "baseline", "respond", "judge", "evaluate", "report", "register"),
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_and_explains_itself(stage: str) -> None:
    assert stage == short(stage)
    assert file_of(module_of(stage))
    assert len(STAGES[stage]["desc"]) > 20


def test_every_stage_module_is_in_the_pipeline() -> None:
    modules = {path.stem for path in (SOURCE / "quip" / "stages").glob("*.py")} - {"__init__"}
    assert modules == {short(stage) for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_imported_module(stage: str) -> None:
    assert code_deps(stage) == needed(stage), (
        f"{stage}: missing {sorted(needed(stage) - code_deps(stage))}, "
        f"superfluous {sorted(code_deps(stage) - needed(stage))}"
    )


def test_the_closure_sees_an_import_that_is_hidden_in_a_function() -> None:
    assert "quip.models.generation" in closure("quip.stages.respond")
    assert "quip.models.pins" in closure("quip.stages.sft")
    assert "src/quip/llm/requests" in needed("teacher")


@pytest.mark.parametrize("stage", sorted(s for s in STAGES if short(s) not in MODELS))
def test_a_stage_without_a_model_starts_without_torch(stage: str) -> None:
    for module in closure(module_of(stage)):
        file = file_of(module)
        assert file
        text = file.read_text(encoding="utf-8")
        heavy = re.search(
            r"^(import|from) (torch|transformers|trl|peft|datasets|mlflow)\b", text, re.M
        )
        assert not heavy or module in LATE, f"{stage}: {module} has {heavy}"


def test_nothing_heavy_is_imported_at_the_start_of_a_stage_without_a_model() -> None:
    """By the libraries too, which the source of quip does not show."""
    modules = sorted({module_of(stage) for stage in STAGES if short(stage) not in MODELS})
    heavy = ("torch", "transformers", "trl", "peft", "datasets", "mlflow")
    script = (
        "import importlib, sys\n"
        f"for name in {['quip.cli.main', *modules]!r}:\n"
        "    importlib.import_module(name)\n"
        f"    print(name, *sorted(set({heavy!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["quip.cli.main", *modules]


def params_of(stage: str) -> set[str]:
    """The params a stage names; an `objective` out of rounds.yaml stands for all there are."""
    names = STAGES[stage].get("params", [])
    templated = {*OBJECTIVES.values()} if "${item.objective}" in names else set()
    return {name for name in names if "$" not in name} | templated


@pytest.mark.parametrize("stage", STAGES)
def test_params_sections_exist(stage: str) -> None:
    for name in params_of(stage):
        section = PARAMS
        for key in name.split("."):
            assert key in section, f"{stage}: params.yaml has no '{name}'"
            section = section[key]


def loaded(stage: str) -> set[str]:
    """The sections that the modules of a stage load, `load("name", ...)` in their source."""
    files = (file_of(module) for module in closure(module_of(stage)))
    texts = (file.read_text(encoding="utf-8") for file in files if file)
    return {name for text in texts for name in re.findall(r"(?<!`)\bload\(\s*\"(\w+)\"", text)}


@pytest.mark.parametrize("stage", STAGES)
def test_params_name_every_section_that_is_loaded(stage: str) -> None:
    """`debias` once stood in no stage's params, so that changing it re-ran nothing."""
    assert loaded(stage) <= params_of(stage)


def test_the_loaded_sections_are_seen() -> None:
    assert {"critic", "debias", "audit", "judge"} == loaded("audit")


def sections() -> list[tuple[str, type[Section]]]:
    from quip.critics.critic_settings import CriticParams
    from quip.critics.judges import JudgeParams

    found: list[tuple[str, type[Section]]] = [("critic", CriticParams), ("judge", JudgeParams)]
    for stage in STAGES:
        if stage != short(stage) or stage in ("align", "baseline", "roles", "meaning"):
            continue
        params = getattr(importlib.import_module(module_of(stage)), "Params", None)
        if params is not None:
            found.append((stage, params))
    return found


@pytest.mark.parametrize(("section", "model"), sections())
def test_the_shipped_params_are_valid(section: str, model: type[Section]) -> None:
    validate(PARAMS[section], model, section)


def test_sections_are_found_for_most_stages() -> None:
    assert len(sections()) >= 12


def test_a_broken_dep_would_be_noticed() -> None:
    assert code_deps("judge") - {"src/quip/critics"} != needed("judge")
    assert code_deps("sft") - {"src/quip/training/sft.py"} != needed("sft")


def test_what_changes_no_result_re_runs_nothing() -> None:
    for stage in STAGES:
        assert not {
            d for d in code_deps(stage) if d.startswith(("src/quip/llm/http", "src/quip/cli"))
        }
    assert "src/quip/training/dpo.py" in code_deps("align")
    assert "src/quip/training/dpo.py" not in code_deps("sft")


def test_a_stage_that_asks_a_large_model_keeps_its_calls_as_an_output() -> None:
    """`data/calls/STAGE.jsonl`, by which a clone pays nothing again."""
    asking = {name for name in STAGES if "record_calls" in source_of(module_of(name))}
    assert asking >= {"teacher", "audit", "critique", "rank", "judge", "duel", "control", "safety"}
    for name, stage in expanded(3).items():
        file = f"data/calls/{name.replace('@', '_')}.jsonl"
        kept = [out for out in outs_of(stage) if out.startswith("data/calls/")]
        assert kept == ([file] if name.split("@")[0] in asking else []), name
        assert not kept or f"--calls {file}" in stage["cmd"], name


def test_no_stage_asks_a_large_model_without_keeping_its_calls() -> None:
    asks = re.compile(r"\b(connection\.connect|critic_kinds import ask|ask_judges)\b")
    for name in STAGES:
        text = source_of(module_of(name))
        assert bool(asks.search(text)) == ("record_calls" in text), name


def source_of(module: str) -> str:
    file = file_of(module)
    assert file, module
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 3])
def test_every_output_has_one_maker(count: int) -> None:
    outs = [out for stage in expanded(count).values() for out in outs_of(stage)]
    assert len(outs) > 20
    assert len(outs) == len(set(outs))


@pytest.mark.parametrize("count", [1, 3])
def test_every_file_a_stage_needs_is_made_by_another_or_shipped(count: int) -> None:
    stages = expanded(count)
    outs = {out for stage in stages.values() for out in outs_of(stage)}
    for name, stage in stages.items():
        for dep in stage["deps"]:
            made = any(out == dep or dep.startswith(f"{out}/") for out in outs)
            folder = any(out.startswith(f"{dep}/") for out in outs)
            assert made or folder or "$" in dep or (ROOT / dep).exists(), f"{name}: {dep}"


def test_one_round_has_no_stage_of_an_earlier_round() -> None:
    assert not [name for name in expanded(1) if name[-1].isdigit()]
    assert {"candidates@sft", "candidates@dpo-1", "align@dpo-1"} <= set(expanded(2))


def test_the_second_round_leaves_the_stages_of_the_first_as_they_are() -> None:
    """What was paid for stays: only `align` itself, which now is round 2, is another stage."""
    one, two = expanded(1), expanded(2)
    assert {name for name in one if one[name] != two[name]} == {
        f"align@{arm}" for arm in rounds.FEEDBACK_ARMS
    }
    assert "data/rounds/dpo-1/preferences.jsonl" in two["align@dpo"]["deps"]
    assert "data/preferences.jsonl" in two["align@dpo-1"]["deps"]
    assert "models/warm/brio" in two["align@brio_dpo-1"]["deps"]


def test_the_shipped_rounds_fit_the_shipped_arms() -> None:
    assert rounds.check(PARAMS["arms"], ROOT / "rounds.yaml") == 1
