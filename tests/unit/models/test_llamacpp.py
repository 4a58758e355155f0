"""The embedded engine: one at a time on a machine, and one line when it does not start."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout

from quip.models import hardware, llamacpp, weights
from quip.runtime.errors import EndpointError


class Server:
    """Stands in for llama.cpp's server; `started` keeps the settings of each."""

    started: list[SimpleNamespace] = []  # noqa: RUF012
    listening_address = "http://127.0.0.1:1"
    stopped = 0

    def __init__(self, settings: SimpleNamespace) -> None:
        Server.started.append(settings)

    def stop(self) -> None:
        Server.stopped += 1


def settings() -> SimpleNamespace:
    parts = ("model", "cpuparams", "cpuparams_batch")
    return SimpleNamespace(**{name: SimpleNamespace() for name in parts})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "small.gguf"
    fake = SimpleNamespace(CommonParams=settings, Server=Server)
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(weights, "path", lambda name: path)
    monkeypatch.setattr(Server, "started", [])
    monkeypatch.setattr(Server, "stopped", 0)
    return path


def test_the_weights_are_served_with_room_for_every_slot(file: Path) -> None:
    with llamacpp.serve("small", concurrency=3) as base_url:
        assert base_url == "http://127.0.0.1:1/v1"
        assert Server.stopped == 0
    (used,) = Server.started
    assert (used.model.path, used.n_parallel) == (str(file), 3)
    assert used.n_ctx == 3 * llamacpp.CONTEXT_PER_SLOT
    assert used.cpuparams.n_threads == hardware.cores()
    assert Server.stopped == 1


def test_a_second_engine_has_to_wait(file: Path) -> None:
    lock = FileLock(file.with_name(".small.gguf.engine.lock"))
    with llamacpp.serve("small", 1), pytest.raises(Timeout):
        lock.acquire(timeout=0)
    lock.acquire(timeout=0)
    lock.release()


def test_an_engine_that_does_not_start_says_why(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sys.modules["xllamacpp"], "Server", fail)
    with (
        pytest.raises(EndpointError, match=r"did not start with .*small.gguf \(out of memory\)"),
        llamacpp.serve("small", 1),
    ):
        pass
    FileLock(file.with_name(".small.gguf.engine.lock")).acquire(timeout=0)


def test_there_is_at_least_one_core() -> None:
    assert hardware.cores() >= 1
