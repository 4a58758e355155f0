"""Experiments and hand-over with real git, DVC, SSH, MLflow and endpoint, on the stub project.

One project is made, committed, and pushed: git to a bare repository, data to an SSH server. Two
people clone it. The first tries things, the second takes over.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from faulty_endpoint import FaultyServer
from project_commands import DONE, commit, dvc, environment, git, quip, ran
from quip.tracking import mlflow_store
from repository import ROOT
from servers import SshServer
from stub_project import answer, lay_out

pytestmark = pytest.mark.slow
ARTIFACTS = {"lineage.json", "report.html", "calls.json"}


class World(NamedTuple):
    origin: Path
    baseline: str
    endpoint: FaultyServer
    ssh: SshServer

    def clone(self, folder: Path) -> Path:
        """What a colleague does; their key stays out of git."""
        git(folder.parent, "clone", str(self.origin), str(folder))
        dvc(folder, "remote", "modify", "--local", "shared", "keyfile", str(self.ssh.key))
        dvc(folder, "pull")
        return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The project as its maker leaves it."""
    folder = tmp_path_factory.mktemp("world")
    with FaultyServer() as endpoint, SshServer(folder) as ssh:
        endpoint.answer = answer
        (folder / "maker").mkdir()
        maker, origin = lay_out(folder / "maker", endpoint.url), folder / "origin.git"
        dvc(maker, "remote", "add", "--default", "shared", f"{ssh.url}/store")
        dvc(maker, "remote", "modify", "--local", "shared", "keyfile", str(ssh.key))
        dvc(maker, "repro")
        baseline = commit(maker, "a first run")
        dvc(maker, "push")
        git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
        git(maker, "remote", "add", "origin", str(origin))
        git(maker, "config", "push.autoSetupRemote", "true")
        git(maker, "push")
        yield World(origin, baseline, endpoint, ssh)


def test_a_clone_runs_nothing_and_pays_only_for_what_a_changed_setting_adds(
    world: World, tmp_path: Path
) -> None:
    asked = world.endpoint.requests
    assert asked == 6
    clone = world.clone(tmp_path / "clone")
    assert ran(dvc(clone, "repro")) == []
    assert not (clone / "mlflow.db").exists()
    said = dvc(clone, "exp", "run", "--name", "more", "-S", "prepare.limit.train=4")
    assert "6 replies of teacher imported" in said
    assert world.endpoint.requests == asked + 1
    rerun = ["prepare", "teacher", "imitation", "sft", "align@dpo", "evaluate", "register"]
    assert ran(said) == rerun
    assert ran(dvc(clone, "repro", "--force", "--single-item", "teacher")) == ["teacher"]
    assert world.endpoint.requests == asked + 1


# ---- experiments -----------------------------------------------------------------------------

QUEUED = {"queued-a": 0.2, "queued-b": 0.3}
ASIDE = {"aside-a": 0.4, "aside-b": 0.5}
HERE = {"here": 0.6}
TRIED = {**QUEUED, **ASIDE, **HERE}


def setting(beta: float) -> list[str]:
    return ["-S", f"dpo.beta={beta}"]


@pytest.fixture(scope="module")
def tried(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which four experiments have run at once, two in the queue and two in folders
    of their own, so that all meet a tracking store that is not there; and then one in place."""
    clone = world.clone(tmp_path_factory.mktemp("tried") / "clone")
    for name, beta in QUEUED.items():
        dvc(clone, "exp", "run", "--queue", "--name", name, *setting(beta))
    DONE.append(("dvc", "exp", "run", "--temp", "--name", "x", "-S", "x"))
    apart = [
        subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=clone,
            env=environment(clone),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in (
            ["exp", "run", "--temp", "--name", name, *setting(beta)] for name, beta in ASIDE.items()
        )
    ]
    seen: set[Path] = set()
    while len(seen) < len(ASIDE):
        seen |= {*clone.glob(".dvc/tmp/exps/standalone/*/params.yaml")}
        time.sleep(0.05)
    # An experiment runs the code it was begun with, whatever becomes of the checkout's.
    code = clone / "src" / "quip" / "stages" / "register.py"
    kept = code.read_text(encoding="utf-8")
    code.write_text("raise SystemExit('the code of the checkout ran')\n", encoding="utf-8")
    dvc(clone, "queue", "start", "-j", "2")
    said = [process.communicate()[0] for process in apart]
    assert [process.returncode for process in apart] == [0, 0], said
    wait_for_queue(clone)
    code.write_text(kept, encoding="utf-8")
    for name, beta in HERE.items():
        dvc(clone, "exp", "run", "--name", name, *setting(beta))
    return clone


def wait_for_queue(clone: Path) -> None:
    while True:
        states = [line.split()[-1] for line in dvc(clone, "queue", "status").splitlines() if line]
        if not {"Queued", "Running"} & set(states):
            break
        time.sleep(1)
    logs = [dvc(clone, "queue", "logs", name) for name in QUEUED]
    assert "Failed" not in states, logs


@pytest.fixture
def store(tried: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow_store.Store:
    monkeypatch.chdir(tried)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return mlflow_store.connect()


def made_by(store: mlflow_store.Store) -> dict[str, Any]:
    """Name of the experiment -> its one version."""
    quip(Path.cwd(), "sync")
    versions = store.client.search_model_versions("name = 'quip-student'")
    return {v.tags["dvc.exp.name"]: v for v in versions if v.tags["arm"] == "dpo"}


def commit_of(clone: Path, name: str) -> str:
    (found,) = git(clone, "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}").split()
    return found


def test_four_at_once_on_a_fresh_checkout_leave_a_whole_store(store: mlflow_store.Store) -> None:
    with sqlite3.connect("mlflow.db") as rows:
        assert rows.execute("pragma integrity_check").fetchall() == [("ok",)]
    runs = store.client.search_runs([store.experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = [run.data.tags.get("dvc.exp.name") for run in runs if run.info.run_name != "sft"]
    assert sorted(names) == sorted(TRIED)
    assert sorted(made_by(store)) == sorted(TRIED)
    assert len(store.client.search_model_versions("name = 'quip-student'")) == len(TRIED) + 1


def test_runs_and_artifacts_survive_the_temporary_folder(store: mlflow_store.Store) -> None:
    assert not list(Path(".dvc/tmp/exps/standalone").glob("*/params.yaml"))
    for version in made_by(store).values():
        files = {file.path for file in store.client.list_artifacts(version.run_id)}
        assert files >= ARTIFACTS
        weights = Path(store.client.download_artifacts(version.run_id, "lineage.json"))
        assert json.loads(weights.read_text())["calls"]["teacher"]["counts"]["asked"] == 6
        where = store.client.get_model_version_download_uri("quip-student", version.version)
        assert Path(where.removeprefix("file://"), "MLmodel").is_file()
    curve = store.client.get_metric_history(version.run_id, "loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]


def test_each_run_carries_experiment_baseline_hashes_and_its_own_commit(
    world: World, tried: Path, store: mlflow_store.Store
) -> None:
    for name, version in made_by(store).items():
        run = store.client.get_run(version.run_id)
        own = commit_of(tried, name)
        assert run.data.params == {"beta": str(TRIED[name])}
        lock = git(tried, "show", f"{own}:dvc.lock")
        for tags in (run.data.tags, version.tags):
            assert tags["dvc.exp.baseline"] == tags["git.commit"] == world.baseline
            assert tags["dvc.commit"] == own
            for path in ("data/prepared", "data/imitation", "models/sft", "models/dpo"):
                assert f"md5: {tags[f'dvc.{path}']}" in lock


def test_exp_show_compares_them(tried: Path) -> None:
    assert "[queued-a]" in dvc(tried, "exp", "show")
    table = list(csv.DictReader(io.StringIO(dvc(tried, "exp", "show", "--csv"))))
    shown = {row["Experiment"]: float(row["dpo.beta"]) for row in table if row["Experiment"]}
    assert shown == {"main": 0.1, **TRIED} or shown == TRIED
    scores = [column for column in table[0] if column.endswith("dpo.test.scripted.score")]
    assert len(scores) == 1
    assert len({row[scores[0]] for row in table if row["Experiment"] in TRIED}) == len(TRIED)


def test_trace_leads_back_to_code_params_data_and_calls(
    tried: Path, store: mlflow_store.Store
) -> None:
    version = made_by(store)["queued-b"]
    assert f"{version.version:<9}dpo" in quip(tried, "versions")
    told = quip(tried, "trace", str(version.version))
    assert "exp     queued-b, from baseline" in told
    assert f"commit  {commit_of(tried, 'queued-b')}" in told
    assert "files that ran equal the commit's" in told
    assert 'params  dpo: {"beta": 0.3' in told
    assert "data/prepared" in told
    assert "calls   teacher m at endpoint scripted, prompt teacher (md5 " in told
    assert "asked 6" in told


def test_a_branch_of_an_experiment_leads_to_its_version(
    tried: Path, store: mlflow_store.Store
) -> None:
    made = made_by(store)
    dvc(tried, "exp", "branch", "aside-a", "keep-it")
    rows = quip(tried, "versions", "--branch", "keep-it").split("\n\n")[0].splitlines()[1:]
    assert [row.split()[0] for row in rows if " dpo " in row] == [str(made["aside-a"].version)]
    assert [row.split()[1] for row in rows] == ["dpo", "sft"]
    assert git(tried, "rev-parse", "keep-it") == commit_of(tried, "aside-a")


def test_an_experiment_that_is_applied_runs_nothing(tried: Path) -> None:
    dvc(tried, "exp", "apply", "queued-a")
    assert "beta: 0.2" in (tried / "params.yaml").read_text(encoding="utf-8")
    assert ran(dvc(tried, "repro")) == []


def test_an_experiment_is_pushed_and_taken_over_by_a_colleague(
    world: World, tried: Path, store: mlflow_store.Store, tmp_path: Path
) -> None:
    dvc(tried, "exp", "push", "origin", "here")
    assert commit_of(world.origin, "here") == commit_of(tried, "here")
    clone, asked = world.clone(tmp_path / "clone"), world.endpoint.requests
    dvc(clone, "exp", "pull", "origin", "here")
    dvc(clone, "exp", "apply", "here")
    assert ran(dvc(clone, "repro")) == []
    assert "sft, dpo: made elsewhere and no version here yet" in quip(clone, "sync")
    dvc(clone, "repro", "--force", "--single-item", "register")
    told = quip(clone, "trace", "champion")
    assert f"commit  {commit_of(tried, 'here')}" in told
    assert 'params  dpo: {"beta": 0.6' in told
    assert world.endpoint.requests == asked


ELSEWHERE = {("quip", "promote"), ("mlflow", "server"), ("export",)}
"""Commands of the page that `test_gate` and `test_remote_tracking` run."""


def shape(words: Sequence[str]) -> tuple[str, ...]:
    """A command without its names and values: its verbs, then its options in order."""
    if words[0] == sys.executable:
        words = [words[2].partition(".")[0], *words[3:]]
    nested = words[:2] in (["dvc", "exp"], ["dvc", "remote"], ["dvc", "queue"])
    verbs = words[: 1 if words[0] == "export" else 3 if nested else 2]
    return (*verbs, *sorted(word for word in words if word.startswith("-")))


def test_every_command_of_the_page_was_run(tried: Path) -> None:
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    told = {shape(shlex.split(line, comments=True)) for line in lines}
    run = {shape(list(words)) for words in DONE}
    assert len(told) > 20
    assert sorted(command for command in told - run if command[:2] not in ELSEWHERE) == []
