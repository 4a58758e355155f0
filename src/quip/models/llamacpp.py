"""Embedded engine: llama.cpp's own server, in this process, on the loopback interface.

`with serve(model, concurrency) as base_url:` gives an OpenAI-compatible endpoint. It needs no key,
no GPU and no installed server. It ends with the process, so a kill leaves no orphan. Only one runs
on a machine at a time: two sets of spinning threads on the same cores run five times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from quip.models import weights
from quip.models.hardware import cores
from quip.runtime.errors import EndpointError

CONTEXT_PER_SLOT = 4096
"""Tokens of context in a slot: a few-shot prompt takes about 900, an answer about 100."""


@contextmanager
def serve(model: str, concurrency: int) -> Iterator[str]:
    """Serve the pinned weights `model` with `concurrency` slots; yields the base URL.

    Raises WeightsError when the weights cannot be fetched, EndpointError when the engine does not
    start.
    """
    path = weights.path(model)
    with engine_lock(path):
        server = start_server(path, concurrency)
        yield f"{server.listening_address}/v1"
        server.stop() if hasattr(server, "stop") else None


def start_server(path: Path, concurrency: int):  # type: ignore[no-untyped-def]
    """Start llama.cpp's server with `concurrency` slots. Raises EndpointError."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_parallel = concurrency
    settings.n_ctx = CONTEXT_PER_SLOT * concurrency
    settings.cpuparams.n_threads = cores()
    settings.cpuparams_batch.n_threads = cores()
    settings.verbosity = 0
    try:
        return xllamacpp.Server(settings)
    except RuntimeError as error:
        raise EndpointError(
            f"the embedded engine did not start with {path} ({error}). "
            "Is there enough memory (it needs about 2 GB)? `quip doctor` checks the weights."
        ) from None


@contextmanager
def engine_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the one engine on this machine that serves the weights at `path`."""
    lock = FileLock(path.with_name(f".{path.name}.engine.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another process uses the embedded engine; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
