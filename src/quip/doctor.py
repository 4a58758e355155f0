"""What is missing in this checkout and how to mend it. Looks only, changes nothing."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from quip import params, stage, tracking, weights
from quip.errors import ParamsError, QuipError
from quip.pins import MODELS

OLDEST = (3, 11)
FREE_GIB = 6
PACKAGES = ("dvc", "mlflow", "torch", "transformers", "trl", "aiohttp", "xllamacpp", "pydantic")
REQUIREMENTS = Path("requirements.txt")

Level = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Finding:
    """`mend` stops a run; a `note` is worth knowing and mends itself or may stay."""

    level: Level
    what: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.level:<5}{self.what}{f' -> {self.remedy}' if self.remedy else ''}"


def examine() -> list[Finding]:
    checks = (
        python,
        packages,
        weight_files,
        parameters,
        keys,
        pipeline,
        disk,
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


def weight_files() -> Iterator[Finding]:
    absent = weights.missing(MODELS)
    for name, size in absent:
        what = f"weights: {name} is not in {weights.cache()} yet ({size / 1e6:,.0f} MB)"
        yield Finding("note", what, "fetched by the first run, or now: `python -m quip.weights`")
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


def section_models() -> dict[str, type[BaseModel]]:
    """Section -> the model that reads it: a stage's `Params`, or the one several stages share."""
    from quip.critic import CriticParams
    from quip.endpoints import Budget
    from quip.imitating import Imitation
    from quip.judging import JudgeParams
    from quip.preference import Debias
    from quip.reward import RewardParams
    from quip.training import Training

    modules = {name: module_of(name) for name in stage_names()}
    own = {name: module.Params for name, module in modules.items() if hasattr(module, "Params")}
    shared = {"critic": CriticParams, "judge": JudgeParams, "debias": Debias, "budget": Budget}
    learned = {"reward": RewardParams}
    training = {
        "dpo": modules["align"].Dpo,
        "brio": modules["align"].Brio,
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
    from quip.endpoints import endpoint

    try:
        sections = params.read_params()
    except ParamsError as error:
        yield str(error)
        return
    known = {*models, "arms", "endpoints"}
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


def keys() -> Iterator[Finding]:
    """The key variable of every endpoint that some role uses. Its value is never looked at."""
    try:
        used, table = roles_endpoints(params.read_params())
    except QuipError:
        return  # said by `parameters`
    for name in used:
        variable = (table.get(name) or {}).get("api_key_env")
        if variable and not os.environ.get(variable):
            yield Finding(
                "mend", f"endpoint '{name}': {variable} is not set", f"`export {variable}=...`"
            )


def roles_endpoints(sections: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    names = [(sections.get(role) or {}).get("endpoint") for role in ("teacher", "critic")]
    names += (sections.get("judge") or {}).get("endpoints") or []
    names += audited_endpoints(sections)
    return sorted({str(name) for name in names if name}), sections.get("endpoints") or {}


def audited_endpoints(sections: dict[str, Any]) -> list[str]:
    """The endpoints that critics of a panel or of the audit name themselves (`mcp@openai`)."""
    critic, audit = (sections.get(name) or {} for name in ("critic", "audit"))
    panel = (critic.get("panel") or {}).get("signals") if critic.get("kind") == "panel" else []
    return [
        spec.partition("@")[2]
        for spec in [*(panel or []), *(audit.get("kinds") or [])]
        if isinstance(spec, str) and "@" in spec
    ]


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


def disk() -> Iterator[Finding]:
    free = shutil.disk_usage(stage.root()).free / 2**30
    what = f"{free:,.0f} GiB free on the disk of {stage.root()}"
    if free >= FREE_GIB:
        yield Finding("ok", what)
    else:
        remedy = f"a run wants {FREE_GIB}; `dvc gc --workspace` drops what no stage needs"
        yield Finding("mend", what, remedy)


def database() -> Iterator[Finding]:
    """The tracking store: whole, and its artifacts still where the addresses say."""
    file = tracking.database()
    if file is None:
        yield Finding("ok", "MLflow store: MLFLOW_TRACKING_URI names a server")
    elif not file.exists():
        yield Finding("note", "mlflow.db is not there yet", "made by the first training stage")
    else:
        yield examine_database(file)


def examine_database(file: Path) -> Finding:
    aside = f"`mv {file.name} {file.name}.bad`, then `dvc repro -f -s register`"
    try:
        with sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True) as rows:
            (state,) = rows.execute("PRAGMA quick_check(1)").fetchone()
            rows.execute("SELECT version_num FROM alembic_version").fetchone()
            query = "SELECT artifact_location FROM experiments WHERE name = ?"
            found = rows.execute(query, (tracking.EXPERIMENT,)).fetchone()
    except sqlite3.Error as error:
        return Finding("mend", f"{file.name} cannot be read ({error})", aside)
    if state != "ok":
        return Finding("mend", f"{file.name} is damaged ({state})", aside)
    if found and moved(found[0]):
        what = f"{file.name} points to {found[0]}: this checkout was moved"
        return Finding("note", what, "`dvc repro -f -s register` registers the models anew")
    return Finding("ok", file.name)


def moved(location: str) -> bool:
    parts = urlsplit(location)
    here = tracking.artifacts() == location
    return parts.scheme == "file" and not here and not Path(unquote(parts.path)).exists()


def dvc_locks() -> Iterator[Finding]:
    """DVC frees its locks when it dies, but for a read-write table that a kill cut in two and
    for hard-linked locks (`core.hardlink_lock`), which outlive their owner."""
    lock, table = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")
    if lock.is_file() and held(lock):
        yield Finding("note", "another dvc is at work here", "wait for it to end")
    elif lock.is_file() and (owner := dead_owner(lock)):
        yield Finding("mend", f"{lock} is held by dead process {owner}", f"`rm {lock}`")
    if table.is_file() and not is_json(table):
        yield Finding("mend", f"{table} is cut off", f"with no dvc running, `rm {table}`")


def held(file: Path) -> bool:
    """Whether some process holds the lock of `file`."""
    with file.open("r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def dead_owner(lock: Path) -> int | None:
    """The process named in a hard-linked lock file (`path:host:pid:random`), if it is gone."""
    found = re.search(r":([^:]+):(\d+):\d+\s*$", lock.read_text("utf-8", errors="replace"))
    here = found and found.group(1) == os.uname().nodename
    return (
        int(found.group(2)) if found and here and not tracking.alive(int(found.group(2))) else None
    )


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text("utf-8") or "{}")
    except ValueError:
        return False
    return True


def stages_at_work() -> Iterator[Finding]:
    for file in sorted(Path(".quip/locks").glob("*.lock")):
        if held(file):
            what = f"stage {file.stem} is still running in another process"
            yield Finding("note", what, "`dvc repro` waits for it")
