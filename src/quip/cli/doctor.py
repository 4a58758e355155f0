"""`quip doctor`: reports what is missing or wrong in this checkout, and the remedy.

The checks only read; they change nothing. Those of endpoints, disk, stores and locks are in
`doctor_checks`.
"""

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
    call_store,
    disk,
    dvc_locks,
    keys,
    roles_endpoints,
    running_stages,
    tracking_store,
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


def run_checks() -> list[Finding]:
    """The findings of all checks, in order."""
    checks = (
        python,
        packages,
        imported_code,
        weight_files,
        parameters,
        keys,
        addresses,
        recordings,
        pipeline,
        disk,
        call_store,
        tracking_store,
        dvc_locks,
        running_stages,
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
    """Whether every pinned package has its pinned version; without pins, whether the main packages
    are installed."""
    wrong = [f"{name} {found or 'missing'}" for name, found in wrong_versions(pinned_versions())]
    if wrong:
        yield Finding(
            "mend", f"packages: {', '.join(wrong)}", "`make setup` (after `rm .venv/.ready`)"
        )
    else:
        yield Finding("ok", "packages as pinned" if REQUIREMENTS.is_file() else "packages")


def pinned_versions() -> dict[str, str | None]:
    """Package -> pinned version by requirements.txt, without comments, options and markers; the
    main packages with None when the file is missing."""
    if not REQUIREMENTS.is_file():
        return dict.fromkeys(PACKAGES)
    pins = re.findall(r"^([\w.-]+)==([\w.+!-]+)", REQUIREMENTS.read_text("utf-8"), re.MULTILINE)
    return dict(pins)


def wrong_versions(wanted: dict[str, str | None]) -> Iterator[tuple[str, str | None]]:
    """(package, installed version or None) of each package that is missing or off its pin."""
    for name, pin in wanted.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield name, None
            continue
        if pin and found.partition("+")[0] != pin.partition("+")[0]:
            yield name, f"{found} (pinned {pin})"


def imported_code() -> Iterator[Finding]:
    """Whether the imported `quip` equals src/quip of this checkout, which DVC watches."""
    own, imported = Path("src/quip"), Path(__file__).parents[1]
    if not own.is_dir() or own.resolve() == imported:
        return
    names = [file.relative_to(own) for file in sorted(own.rglob("*.py"))]
    _, differing, absent = filecmp.cmpfiles(own, imported, map(str, names), shallow=False)
    if differing or absent:
        what = f"`python` runs the quip of {imported}, whose {[*differing, *absent][0]} differs"
        remedy = "`export PYTHONPATH=$PWD/src`, or `make setup` and this project's own .venv"
        yield Finding("mend", what, remedy)


def weight_files() -> Iterator[Finding]:
    absent = weights.missing_models(MODELS)
    for name, size in absent:
        what = f"weights: {name} is not in {weights.cache()} yet ({size / 1e6:,.0f} MB)"
        yield Finding(
            "note", what, "fetched by the first run, or now: `python -m quip.models.weights`"
        )
    if not absent:
        yield Finding("ok", f"weights in {weights.cache()}")


def parameters() -> Iterator[Finding]:
    """Whether every section of params.yaml is valid for its stage, and no section is unknown."""
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
    """Section -> the pydantic model that reads it: a stage's `Params`, or a model that stages
    share."""
    from quip.critics.critic_settings import CriticParams
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
        yield f"params.yaml: unknown section '{name}'.{params.did_you_mean(name, known)}"
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
