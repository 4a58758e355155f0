"""`quip serve` as a process on the loopback, on a project with two small students."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from quip.core.params import read_params
from repository import SHIPPED_PARAMS
from servers import free_port

SENTENCE = "I missed my bus."


def environment() -> dict[str, str]:
    gone = ("MLFLOW_TRACKING_URI", "DVC_ROOT")
    return {key: value for key, value in os.environ.items() if key not in gone}


def answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; fail with its words when it ends instead."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(url).read()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server ended: {log.read_text()}")


def write_project(folder: Path, weights: Path) -> None:
    """A folder with the arms sft and dpo, of equal weights, and short answers."""
    params = read_params(SHIPPED_PARAMS)
    params["respond"] = {**params["respond"], "num_beams": 2, "max_new_tokens": 12}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for arm in ("sft", "dpo"):
        shutil.copytree(weights, folder / "models" / arm)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a real `quip serve` in `folder`."""
    port = free_port()
    log = folder / "server.log"  # a pipe that nobody empties would stop a server with much to say
    command = [sys.executable, "-m", "quip.cli.main", "serve", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=out, stderr=out)
    base = f"http://127.0.0.1:{port}"
    answers(f"{base}/v1/models", process, log)
    yield base
    process.terminate()
    process.wait()
