"""Startup bench: seconds until imports, commands and stages do useful work.

Figures are medians of five rounds, in turns. The limits are for wall time; the ratios are of CPU
time, which depends less on other load.

    python bench/startup.py            # imports, help, stages without torch, DVC
    python bench/startup.py --models   # also the stages with a model (needs a finished run here)

A stage without torch does useful work when it opens its first data file, a stage with a model at
the first forward pass. Hooks of Python and PyTorch stop it there; it writes only to temporary
folders.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import guard

ROOT = Path(__file__).parent.parent
ROUNDS = 5
LIMITS = {"import quip": 0.3, "quip --help": 0.3}
STAGE, MODEL_STAGE = 1.5, 6.0
"""Most seconds until useful work."""
REPRO = 2.0
"""Highest ratio of `dvc repro` with nothing to do to `dvc status`."""
MODELS = ("sft", "align@dpo", "candidates", "respond@sft", "reward", "meaning")


class Duration(NamedTuple):
    """Wall and CPU seconds."""

    wall: float
    cpu: float


Measure = Callable[[], Duration]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", action="store_true", help="the stages with a model, too")
    parser.add_argument("--stage", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        run_until_useful(args.stage)
    else:
        compare(args.models)


def compare(models: bool) -> None:
    print(f"{guard.hardware()}; seconds, medians of {ROUNDS}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        make_project(project)
        named = stage_commands()
        without, heavy = (
            measurable({name: stage_timer(named[name], Path(folder)) for name in names})
            for names in (stages_without_torch(named), MODELS if models else ())
        )
        plain = {
            "import quip": command_timer(sys.executable, "-c", "import quip"),
            "quip --help": command_timer(sys.executable, "-m", "quip.cli.main", "--help"),
        }
        dvc = {
            f"dvc {verb}": command_timer(sys.executable, "-m", "dvc", verb, where=project)
            for verb in ("status", "repro")
        }
        limits = LIMITS | dict.fromkeys(without, STAGE) | dict.fromkeys(heavy, MODEL_STAGE)
        found = median_durations({**plain, **without, **heavy, **dvc})
    limits["dvc repro"] = REPRO * found["dvc status"].wall
    print(f"{'what':<24}{'seconds':>9}{'of CPU':>9}{'limit':>8}")
    for name, took in found.items():
        limit = limits.get(name)
        past = "" if limit is None or took.wall <= limit else "  PAST IT"
        shown = f"{limit:.2f}" if limit else ""
        print(f"{name:<24}{took.wall:>9.2f}{took.cpu:>9.2f}{shown:>8}{past}")
    ratios = {"dvc status over dvc repro": found["dvc status"].cpu / found["dvc repro"].cpu}
    for group, names in (("without torch", without), ("with a model", heavy)):
        if names:
            slowest = max(found[name].cpu for name in names)
            limit = limits[next(iter(names))]
            ratios[f"limit over the slowest stage {group}"] = limit / slowest
    guard.report_and_record(ratios)


def measurable(stages: Mapping[str, Measure]) -> dict[str, Measure]:
    """The stages whose inputs exist; prints the names of the others."""
    found = {}
    for name, run in stages.items():
        try:
            run()
            found[name] = run
        except FileNotFoundError as error:
            print(f"not measured: {name} ({error})")
    return found


def median_durations(measures: Mapping[str, Measure]) -> dict[str, Duration]:
    """The median durations over ROUNDS rounds of all measures."""
    rounds = [{name: run() for name, run in measures.items()} for _ in range(ROUNDS)]
    return {
        name: Duration(*map(statistics.median, zip(*(one[name] for one in rounds), strict=True)))
        for name in measures
    }


def command_timer(*command: str, where: Path = ROOT) -> Measure:
    def run() -> Duration:
        began, before = time.perf_counter(), children_cpu()
        subprocess.run(command, cwd=where, env=environment(), check=True, capture_output=True)
        return Duration(time.perf_counter() - began, children_cpu() - before)

    return run


def children_cpu() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **more}


# ---- stages --------------------------------------------------------------------------------


def stage_commands() -> dict[str, list[str]]:
    """{stage: the arguments after `python -m`}, with templates of dvc.yaml resolved."""
    from dvc.repo import Repo

    found: dict[str, list[str]] = {}
    with Repo(str(ROOT)) as repo:
        for stage in repo.index.stages:
            name = getattr(stage, "name", "")
            words = str(getattr(stage, "cmd", "")).split()
            if words[:2] == ["python", "-m"]:
                found[name] = words[2:]
    return found


def stages_without_torch(named: Mapping[str, list[str]]) -> list[str]:
    """The stages without a model, the first of each module."""
    heavy = {named[name][0] for name in MODELS} | {"quip.stages.baseline"}
    modules = {words[0]: name for name, words in reversed(named.items())}
    return [modules[module] for module in reversed(modules) if module not in heavy]


def stage_timer(words: list[str], folder: Path) -> Measure:
    """Measures the seconds to useful work that the stage's process prints. `folder` holds its local
    state: locks, journals, MLflow."""

    def run() -> Duration:
        began = time.time()
        done = subprocess.run(
            [sys.executable, __file__, "--stage", *words],
            cwd=ROOT,
            env=environment(DVC_ROOT=str(folder), BEGAN=str(began)),
            capture_output=True,
            text=True,
        )
        told = [line for line in done.stdout.splitlines() if line.startswith("useful ")]
        if not told:
            raise FileNotFoundError((done.stderr or done.stdout).strip().splitlines()[-1])
        return Duration(*map(float, told[0].split()[1:]))

    return run


def run_until_useful(words: list[str]) -> None:
    """Run a stage as `python -m` does and stop it at the start of its work."""
    module, *arguments = words
    sys.argv = [module, *arguments]
    name = module.removeprefix("quip.stages.")
    if any(name == model.partition("@")[0] for model in MODELS):
        stop_at_first_pass()
    else:
        sys.addaudithook(stop_at_first_data)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the run ends, for MLflow as killed
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def stop_at_first_data(event: str, details: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(details[0], str | Path):
        path = Path(details[0])
        if path.suffix in (".jsonl", ".json", ".yaml") and path.parts[:1] in (
            ("data",),
            ("rounds.yaml",),
        ):
            print_duration()
            os._exit(0)


def stop_at_first_pass() -> None:
    import torch

    def hook(module: torch.nn.Module, _: Any) -> None:
        print_duration()
        raise KeyboardInterrupt

    torch.nn.modules.module.register_module_forward_pre_hook(hook)


def print_duration() -> None:
    wall = time.time() - float(os.environ["BEGAN"])
    print(f"useful {wall:.3f} {time.process_time():.3f}", flush=True)


# ---- DVC -----------------------------------------------------------------------------------


def make_project(project: Path) -> None:
    """Make a project with all stages and a placeholder for every output, committed to DVC as up to
    date."""
    from dvc.repo import Repo

    from quip.cli import try_run

    try_run.lay_out(ROOT, project)
    with Repo(str(project)) as repo:
        stages = list(repo.index.stages)
        for item in [
            *(out for s in stages for out in s.outs),
            *(d for s in stages for d in s.deps),
        ]:
            path = Path(item.fs_path)
            if not path.exists():
                file = path if path.suffix else path / "part"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("{}\n")
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
    subprocess.run(command, cwd=project, env=environment(), check=True)
    status = [sys.executable, "-m", "dvc", "status"]
    said = subprocess.run(status, cwd=project, env=environment(), capture_output=True, text=True)
    assert "up to date" in said.stdout, said.stdout


if __name__ == "__main__":
    main()
