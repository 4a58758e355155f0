"""`quip doctor`: names whatever is missing or wrong, with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli_runner import hosted, quip, shipped_params, write_params
from fake_endpoint import ChatServer
from quip.cli import doctor, doctor_checks
from quip.cli.doctor_checks import Finding
from quip.llm.reply_store import CallStore
from quip.runtime import stage
from quip.tracking import mlflow_store
from repository import ROOT


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def lines(*findings: Finding) -> str:
    return "\n".join(finding.line() for finding in findings)


def test_doctor_ends_with_2_only_when_something_must_be_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [Finding("ok", "python 3.11.7"), Finding("note", "weights", "wait")]
    monkeypatch.setattr(doctor, "run_checks", lambda: found)
    assert quip("doctor").exit_code == 0
    found.append(Finding("mend", "dvc.yaml is missing", "bring it back"))
    done = quip("doctor")
    assert done.exit_code == 2
    assert done.stdout.splitlines()[-1] == "mend dvc.yaml is missing -> bring it back"


def test_doctor_finds_nothing_to_mend_in_this_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    checks = (doctor.python, doctor.parameters, doctor.pipeline)
    assert not [f for check in checks for f in check() if f.level == "mend"]


def test_doctor_names_every_wrong_section() -> None:
    def spoil(sections: dict[str, Any]) -> None:
        sections["dpo"]["betta"] = 0.2
        sections["teechr"] = {}
        del sections["respond"]["num_beams"]
        sections["critic"]["endpoint"] = "nowhere"

    write_params(spoil)
    said = lines(*doctor.parameters())
    assert "unknown key 'dpo.betta'" in said
    assert "Did you mean 'beta'?" in said
    assert "unknown section 'teechr'. Did you mean 'teacher'?" in said
    assert "key 'respond.num_beams' is missing" in said
    assert "endpoint 'nowhere' is not under endpoints" in said


def test_every_section_of_params_yaml_has_a_reader() -> None:
    known = {*doctor.section_models(), "arms", "endpoints", "graded"}
    assert set(shipped_params()) <= known


def test_doctor_compares_packages_with_their_pins() -> None:
    from importlib.metadata import version

    pins = (
        f"typer=={version('typer')}\n# x==1\nmlflow==0.1 \\\n    --hash=sha256:00\nno-such-one==1\n"
    )
    Path("requirements.txt").write_text(pins)
    said = lines(*doctor.packages())
    assert f"mlflow {version('mlflow')} (pinned 0.1), no-such-one missing" in said
    assert "typer" not in said


def test_doctor_asks_for_the_key_of_a_used_endpoint_and_never_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keyed(sections: dict[str, Any]) -> None:
        hosted(sections)
        sections["endpoints"]["hosted"]["api_key_env"] = "HOSTED_KEY"

    write_params(keyed)
    monkeypatch.delenv("HOSTED_KEY", raising=False)
    assert "endpoint 'hosted': HOSTED_KEY is not set" in lines(*doctor_checks.keys())
    Path(".env").write_text("HOSTED_KEY=sk-456\n")
    assert lines(*doctor_checks.keys()) == "ok   endpoint 'hosted': HOSTED_KEY is set"
    monkeypatch.setenv("HOSTED_KEY", "sk-123")
    assert lines(*doctor_checks.keys()) == "ok   endpoint 'hosted': HOSTED_KEY is set"


def test_doctor_names_the_weights_to_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUIP_CACHE", str(tmp_path / "cache"))
    found = list(doctor.weight_files())
    assert {f.level for f in found} == {"note"}
    assert "python -m quip.models.weights" in lines(*found)


def test_doctor_reads_the_tracking_database(checkout: Path) -> None:
    mlflow_store.connect()
    assert lines(*doctor_checks.tracking_store()) == "ok   mlflow.db"
    moved = checkout.with_name("moved")
    checkout.rename(moved)
    found = doctor_checks.examine_database(moved / "mlflow.db")
    assert (found.level, "this checkout was moved" in found.what) == ("note", True)


def test_doctor_sees_a_damaged_database() -> None:
    assert [f.level for f in doctor_checks.tracking_store()] == ["note"]
    Path("mlflow.db").write_text("not a database " * 100)
    assert "mlflow.db cannot be read (file is not a database)" in lines(
        *doctor_checks.tracking_store()
    )


def test_doctor_sees_dvc_locks_that_a_kill_leaves() -> None:
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/tmp/lock").write_text(" 1234\n")
    Path(".dvc/tmp/rwlock").write_text("{}")
    assert not list(doctor_checks.dvc_locks())
    Path(".dvc/tmp/rwlock").write_text('{"a": {"wri')
    assert "`rm .dvc/tmp/rwlock`" in lines(*doctor_checks.dvc_locks())


def test_doctor_sees_a_hard_linked_lock_of_a_dead_process() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Path(".dvc/tmp").mkdir(parents=True)
    lock = Path(".dvc/tmp/lock")
    lock.write_text(f"/x/claim:{os.uname().nodename}:{ended.pid}:77")
    assert f"held by dead process {ended.pid}" in lines(*doctor_checks.dvc_locks())
    lock.write_text(f"/x/claim:{os.uname().nodename}:{os.getpid()}:77")
    assert not list(doctor_checks.dvc_locks())


def test_doctor_sees_a_stage_that_another_process_still_runs() -> None:
    with stage.stage_lock("sft"):
        assert "stage sft is still running" in lines(*doctor_checks.running_stages())
    assert not list(doctor_checks.running_stages())


def asks(address: str, key: str | None = None) -> None:
    """params.yaml with a hosted teacher at `address`."""

    def change(sections: dict[str, Any]) -> None:
        hosted(sections)
        sections["endpoints"]["hosted"].update(base_url=address, api_key_env=key)

    write_params(change)


def test_doctor_names_the_endpoints_that_run_here() -> None:
    write_params()
    assert lines(*doctor_checks.addresses()) == (
        "ok   endpoint 'embedded': runs in the stage's own process"
    )


def test_doctor_asks_an_endpoint_for_its_models_and_for_nothing_that_costs(
    server: ChatServer,
) -> None:
    """The scripted server has no such list (it answers GET with 501): any answer will do."""
    asks(server.url)
    assert f"ok   endpoint 'hosted': {server.url} answers" in lines(*doctor_checks.addresses())
    assert server.asked == []


def test_doctor_sees_an_unreachable_endpoint() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    asks(address)
    said = lines(*doctor_checks.addresses())
    assert f"mend endpoint 'hosted': {address} cannot be reached" in said
    assert "correct endpoints.hosted.base_url (or QUIP_BASE_URL_HOSTED)" in said


def test_doctor_does_not_open_an_address_of_another_kind() -> None:
    asks(Path(__file__).as_uri())
    assert "cannot be reached (not an http address)" in lines(*doctor_checks.addresses())


@pytest.fixture
def guarded() -> Iterator[str]:
    """The address of a server that wants the key sk-right."""

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.headers["Authorization"] == "Bearer sk-right"
            self.send_response(200 if right or self.path == "/health" else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def test_doctor_sees_that_a_key_is_wrong_or_wanted(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks(guarded, "HOSTED_KEY")
    monkeypatch.setenv("HOSTED_KEY", "sk-wrong")
    said = lines(*doctor_checks.addresses())
    assert f"{guarded} refuses the key (401) -> put a valid key into HOSTED_KEY" in said
    assert "sk-wrong" not in said
    monkeypatch.setenv("HOSTED_KEY", "sk-right")
    assert f"{guarded} answers" in lines(*doctor_checks.addresses())
    asks(guarded)
    assert f"{guarded} wants a key (401)" in lines(*doctor_checks.addresses())


def test_doctor_asks_the_tracking_server_for_its_health(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    assert lines(*doctor_checks.tracking_store()) == f"ok   MLflow store: {guarded}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{guarded}/elsewhere")
    assert "does not answer (401) -> start the server" in lines(*doctor_checks.tracking_store())
    hidden = doctor_checks.tracking_server("postgresql://user:secret@host/mlflow").line()
    assert "secret" not in hidden


def test_doctor_counts_the_call_store_and_its_damaged_records() -> None:
    assert [found.level for found in doctor_checks.call_store()] == ["note"]
    journal = Path(".quip/calls.journal")
    with closing(CallStore(journal)) as store:
        store.put("k1", "m", "{}")
        store.put("k2", "m", "{}")
    assert lines(*doctor_checks.call_store()) == "ok   call store: 2 replies"
    journal.write_bytes(journal.read_bytes().replace(b"k2", b"k3"))
    assert "1 of its records are damaged" in lines(*doctor_checks.call_store())
    journal.write_text("something else entirely\n")
    assert "mend call store:" in lines(*doctor_checks.call_store())


def test_doctor_asks_for_room_where_the_weights_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUIP_CACHE", str(tmp_path / "not" / "there"))
    assert f"GiB free on the disk of {tmp_path / 'not' / 'there'}" in lines(*doctor_checks.disk())
    small = shutil.disk_usage("/")._replace(free=2**30)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda _: small)
    assert [found.level for found in doctor_checks.disk()] == ["mend", "mend"]
    assert "QUIP_CACHE names another folder" in lines(*doctor_checks.disk())


def test_doctor_sees_that_the_imported_code_is_not_the_checkout_s() -> None:
    assert not list(doctor.imported_code())  # no code of its own here
    shutil.copytree(Path(doctor.__file__).parents[1], "src/quip")
    assert not list(doctor.imported_code())
    with Path("src/quip/evaluation/metrics/win_tie_rate.py").open("a", encoding="utf-8") as handle:
        handle.write("# changed here\n")
    said = lines(*doctor.imported_code())
    assert "whose evaluation/metrics/win_tie_rate.py differs" in said
    assert "export PYTHONPATH=$PWD/src" in said
