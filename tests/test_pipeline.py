"""dvc.yaml, the stage modules, params.yaml and the import graph agree with each other.

In a DVC project the import graph is the re-run graph, and nothing but these tests checks it.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from closure import SOURCE, closure, file_of, imports
from quip.params import Section, check

ROOT = Path(__file__).parent.parent
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = DVC["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MODELS = {"sft", "align", "baseline", "candidates", "respond", "meaning"}
"""Stages that run a model of their own; all others must start without torch."""
LATE = {"quip.serving_model", "quip.reward", "quip.precision"}
"""Modules that are imported only where a model is really needed."""


def module_of(stage: str) -> str:
    found = re.search(r"python -m (\S+)", STAGES[stage]["cmd"])
    assert found, f"{stage}: no module in its command"
    return found[1]


def code_deps(stage: str) -> set[str]:
    return {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}


def needed(stage: str) -> set[str]:
    files = (file_of(module) for module in closure(module_of(stage)))
    return {str(file.relative_to(ROOT)) for file in files if file}


def test_the_design_s_stages_are_all_there() -> None:
    assert set(STAGES) >= {
        *("prepare", "teacher", "imitation", "sft", "audit", "candidates", "critique"),
        *("preferences", "align", "baseline", "respond", "judge", "evaluate", "report", "register"),
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_and_explains_itself(stage: str) -> None:
    assert module_of(stage) == f"quip.stages.{stage}"
    assert file_of(module_of(stage))
    assert len(STAGES[stage]["desc"]) > 20


def test_every_stage_module_is_in_the_pipeline() -> None:
    modules = {path.stem for path in (SOURCE / "quip" / "stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_imported_module(stage: str) -> None:
    assert code_deps(stage) == needed(stage), (
        f"{stage}: missing {sorted(needed(stage) - code_deps(stage))}, "
        f"superfluous {sorted(code_deps(stage) - needed(stage))}"
    )


def test_the_closure_sees_an_import_that_is_hidden_in_a_function() -> None:
    assert "quip.sampling" in closure("quip.stages.respond")
    assert "quip.pins" in closure("quip.stages.sft")
    assert needed("teacher") - {"src/quip/oracle.py"} != needed("teacher")


def test_no_stage_imports_a_stage() -> None:
    for stage in STAGES:
        others = {m for m in closure(module_of(stage)) if m.startswith("quip.stages.")}
        assert others == {module_of(stage)}


def test_no_part_imports_a_stage() -> None:
    for path in (SOURCE / "quip").glob("*.py"):
        if path.stem not in ("cli",):
            stages = {m for m in imports(f"quip.{path.stem}") if m.startswith("quip.stages.")}
            assert not stages, f"{path.stem} imports {stages}"


@pytest.mark.parametrize("stage", sorted(set(STAGES) - MODELS))
def test_a_stage_without_a_model_starts_without_torch(stage: str) -> None:
    for module in closure(module_of(stage)):
        file = file_of(module)
        assert file
        text = file.read_text(encoding="utf-8")
        heavy = re.search(
            r"^(import|from) (torch|transformers|trl|peft|datasets|mlflow)\b", text, re.M
        )
        assert not heavy or module in LATE, f"{stage}: {module} has {heavy}"


@pytest.mark.parametrize("stage", STAGES)
def test_params_sections_exist(stage: str) -> None:
    for name in STAGES[stage].get("params", []):
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
    assert loaded(stage) <= set(STAGES[stage].get("params", []))


def test_the_loaded_sections_are_seen() -> None:
    assert {"critic", "debias", "audit", "judge"} == loaded("audit")


def sections() -> list[tuple[str, type[Section]]]:
    from quip.critic import CriticParams
    from quip.judging import JudgeParams

    found: list[tuple[str, type[Section]]] = [("critic", CriticParams), ("judge", JudgeParams)]
    for stage in STAGES:
        if stage in ("align", "baseline", "roles", "meaning"):
            continue
        params = getattr(importlib.import_module(module_of(stage)), "Params", None)
        if params is not None:
            found.append((stage, params))
    return found


@pytest.mark.parametrize(("section", "model"), sections())
def test_the_shipped_params_are_valid(section: str, model: type[Section]) -> None:
    check(PARAMS[section], model, section)


def test_sections_are_found_for_most_stages() -> None:
    assert len(sections()) >= 12


def test_a_broken_dep_would_be_noticed() -> None:
    stage = "judge"
    assert code_deps(stage) - {"src/quip/critic.py"} != needed(stage)


def test_every_output_has_one_maker() -> None:
    outs: list[str] = []
    for stage in STAGES.values():
        for arm in (
            stage.get("matrix", {}).get("arm", [None])
            if "${" not in str(stage.get("matrix"))
            else ["sft", "dpo"]
        ):
            for out in [*stage.get("outs", []), *(next(iter(m)) for m in stage.get("metrics", []))]:
                outs.append(str(out).replace("${item.arm}", str(arm)))
    assert len(outs) > 20
    assert len(outs) == len(set(outs))
