"""What is missing in this checkout and how to mend it. Looks only, changes nothing."""

from __future__ import annotations

import filecmp
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from quip.cli.doctor_checks import (
    Finding,
    addresses,
    calls,
    database,
    disk,
    dvc_locks,
    keys,
    roles_endpoints,
    stages_at_work,
    used_endpoints,
)
from quip.core import params
from quip.llm.endpoints import endpoint
from quip.models import weights
from quip.models.pins import MODELS
from quip.runtime.errors import ParamsError

OLDEST = (3, 11)
PACKAGES = ("dvc", "mlflow", "torch", "transformers", "trl", "aiohttp", "xllamacpp", "pydantic")
REQUIREMENTS = Path("requirements.txt")


def examine() -> list[Finding]:
    checks = (
        python,
        packages,
        code,
        weight_files,
        parameters,
        keys,
        addresses,
        recordings,
        pipeline,
        disk,
        calls,
        database,
        dvc_locks,
        stages_at_work,
    )
    return [finding for check in checks for finding in check()]


def python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST:
        yield Finding("ok", f"python {found}")
    else:
        wanted = ".".join(map(str, OLDEST))
        yield Finding("mend", f"python {found}", f"install Python {wanted} or newer, `make run`")


def packages() -> Iterator[Finding]:
    """Every pinned package in its pinned version; without the pins, the main ones at all."""
    wrong = [f"{name} {found or 'missing'}" for name, found in strays(pinned_versions())]
    if wrong:
        yield Finding(
            "mend", f"packages: {', '.join(wrong)}", "`make setup` (after `rm .venv/.ready`)"
        )
    else:
        yield Finding("ok", "packages as pinned" if REQUIREMENTS.is_file() else "packages")


def pinned_versions() -> dict[str, str | None]:
    """Package -> pinned version of requirements.txt; comments, options and markers left out."""
    if not REQUIREMENTS.is_file():
        return dict.fromkeys(PACKAGES)
    pins = re.findall(r"^([\w.-]+)==([\w.+!-]+)", REQUIREMENTS.read_text("utf-8"), re.MULTILINE)
    return dict(pins)


def strays(wanted: dict[str, str | None]) -> Iterator[tuple[str, str | None]]:
    for name, pin in wanted.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield name, None
            continue
        if pin and found.partition("+")[0] != pin.partition("+")[0]:
            yield name, f"{found} (pinned {pin})"


def code() -> Iterator[Finding]:
    """The code that runs is this checkout's: DVC watches src/quip here, whatever is imported."""
    own, imported = Path("src/quip"), Path(__file__).parents[1]
    if not own.is_dir() or own.resolve() == imported:
        return
    names = [file.relative_to(own) for file in sorted(own.rglob("*.py"))]
    _, differing, absent = filecmp.cmpfiles(own, imported, map(str, names), shallow=False)
    if differing or absent:
        what = f"`python` runs the quip of {imported}, whose {[*differing, *absent][0]} is another"
        remedy = "`export PYTHONPATH=$PWD/src`, or `make setup` and this project's own .venv"
        yield Finding("mend", what, remedy)


def weight_files() -> Iterator[Finding]:
    absent = weights.missing(MODELS)
    for name, size in absent:
        what = f"weights: {name} is not in {weights.cache()} yet ({size / 1e6:,.0f} MB)"
        yield Finding(
            "note", what, "fetched by the first run, or now: `python -m quip.models.weights`"
        )
    if not absent:
        yield Finding("ok", f"weights in {weights.cache()}")


def parameters() -> Iterator[Finding]:
    """Every section as its stage will read it, and no section that nobody reads."""
    try:
        models = section_models()
    except ImportError as error:
        yield Finding("note", f"params.yaml was not checked ({error})", "mend the packages first")
        return
    mistakes = list(dict.fromkeys(parameter_mistakes(models)))
    for line in mistakes:
        yield Finding("mend", line, "edit params.yaml (`git diff params.yaml` shows your changes)")
    if not mistakes:
        yield Finding("ok", "params.yaml")


def recordings() -> Iterator[Finding]:
    """The files of recorded endpoints that some role uses."""
    from quip.cli.recordings import examine

    for name, settings in used_endpoints():
        if settings.recorded:
            yield from examine(name, settings)


def section_models() -> dict[str, type[BaseModel]]:
    """Section -> the model that reads it: a stage's `Params`, or the one several stages share."""
    from quip.critics.critic_kinds import CriticParams
    from quip.critics.debiasing import Debias
    from quip.critics.judges import JudgeParams
    from quip.evaluation.alarms import Limits
    from quip.llm.endpoints import Budget
    from quip.training.brio import Brio
    from quip.training.distributed import Launch
    from quip.training.dpo import Dpo
    from quip.training.reward import RewardParams
    from quip.training.sft import Imitation
    from quip.training.trainer import Training

    modules = {name: module_of(name) for name in stage_names()}
    own = {name: module.Params for name, module in modules.items() if hasattr(module, "Params")}
    shared = {"critic": CriticParams, "judge": JudgeParams, "debias": Debias, "budget": Budget}
    learned = {"reward": RewardParams, "alarms": Limits, "launch": Launch}
    training = {
        "dpo": Dpo,
        "brio": Brio,
        "align": Training,
        "baseline": Imitation,
    }
    return {**own, **shared, **learned, **training}


def stage_names() -> list[str]:
    import quip.stages

    return [module.name for module in pkgutil.iter_modules(quip.stages.__path__)]


def module_of(stage_name: str) -> Any:
    return importlib.import_module(f"quip.stages.{stage_name}")


def parameter_mistakes(models: dict[str, type[BaseModel]]) -> Iterator[str]:
    try:
        sections = params.read_params()
    except ParamsError as error:
        yield str(error)
        return
    known = {*models, "arms", "endpoints", "graded"}
    for name in sections.keys() - known:
        yield f"params.yaml: unknown section '{name}'.{params.nearest(name, known)}"
    endpoints = sections.get("endpoints") or {}
    used, _ = roles_endpoints(sections)
    checks: list[Callable[[], Any]] = [
        partial(module_of("roles").check_arms, sections.get("arms")),
        *(partial(endpoint, name) for name in dict.fromkeys([*endpoints, *used])),
        *(partial(params.load, name, model) for name, model in models.items()),
    ]
    for check in checks:
        try:
            check()
        except ParamsError as error:
            yield str(error)


def pipeline() -> Iterator[Finding]:
    for name, remedy in (
        (".dvc", "run from the root of a clone, or `dvc init` there"),
        ("dvc.yaml", "run from the root of a clone; `git checkout dvc.yaml` brings it back"),
    ):
        if not Path(name).exists():
            yield Finding("mend", f"{name} is missing", remedy)
    if Path("dvc.lock").is_file():
        yield Finding("ok", "dvc.lock")
    else:
        yield Finding("note", "dvc.lock: nothing has run here yet", "`make run`")
