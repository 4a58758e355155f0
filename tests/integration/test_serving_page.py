"""The page of `quip serve` in a real browser, and the registered model behind `mlflow models`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import browsing, click, needs_browser, seen
from quip.core.jsonl import read_rows
from quip.core.records import GoldPair
from quip.tracking import mlflow_store, registry
from quip_server import SENTENCE, answers, environment, serving, write_project
from registry_project import NAME, alias, put, write_params
from servers import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path: Path, tiny_weights: Path) -> Iterator[str]:
    """`quip serve` with two students that differ: one has its tokens' vectors in another order."""
    from safetensors.torch import load_file, save_file

    write_project(tmp_path, tiny_weights)
    file = tmp_path / "models/dpo/model.safetensors"
    weights = load_file(file)
    key = "model.embed_tokens.weight"
    save_file({**weights, key: weights[key].roll(7, 0)}, file, metadata={"format": "pt"})
    with serving(tmp_path) as base:
        yield base


@needs_browser
def test_a_sentence_is_said_by_two_versions_and_the_vote_is_in_the_file(
    served: str, tmp_path: Path
) -> None:
    def text(side: str) -> str:
        return " ".join(browser.find_element("css selector", f"#{side} p").text.split())

    with browsing() as browser:
        browser.get(served)
        browser.find_element("id", "text").send_keys(SENTENCE)
        click(browser, "Say it", "button")
        seen(browser, "Neither is better")
        browser.save_screenshot(str(tmp_path / "asked.png"))
        left, right = text("left"), text("right")
        browser.find_element("css selector", "#right button").click()
        seen(browser, "Your vote is kept")
        for arm in ("sft", "dpo"):
            seen(browser, f"was {arm}")
        browser.save_screenshot(str(tmp_path / "voted.png"))
        assert not browser.find_element("css selector", "#left button").is_enabled()
    (pair,) = read_rows(tmp_path / "data/votes/votes.jsonl", GoldPair)
    assert (pair.kind, pair.literal) == ("vote", SENTENCE)
    assert (" ".join(pair.worse.split()), " ".join(pair.better.split())) == (left, right)


@needs_browser
def test_what_the_server_refuses_stands_on_the_page(served: str) -> None:
    with browsing() as browser:
        browser.get(served)
        browser.find_element("id", "text").send_keys("bus " * 400)
        click(browser, "Say it", "button")
        seen(browser, "exceed this model's 128")


def test_mlflow_serves_the_champion(checkout: Path, tiny_student: Path) -> None:
    write_params()
    shutil.copytree(tiny_student, "student")
    alias("champion", put("sft", Path("student")))
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"),
        *("--env-manager", "local", "--port", str(port)),
    ]
    here = str(Path(sys.executable).parent)  # mlflow starts a uvicorn by its name
    own = {
        **environment(),
        "MLFLOW_TRACKING_URI": mlflow_store.default_uri(),
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
    }
    log = Path("server.log")
    with log.open("w") as out:
        process = subprocess.Popen(command, env=own, stdout=out, stderr=out, start_new_session=True)
    try:
        answers(f"http://127.0.0.1:{port}/ping", process, log)
        asked = {"inputs": [SENTENCE, "It rained."], "params": {"num_return_sequences": 2}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        said = json.loads(urllib.request.urlopen(request).read())["predictions"]
    finally:
        os.killpg(process.pid, 15)
        process.wait()
    store = mlflow_store.connect()
    student = registry.load_student(store, NAME, registry.find_version(store, NAME, "champion"))
    from quip.serving.paraphrase import paraphrases

    options: Any = {**registry.SERVING_OPTIONS, "num_return_sequences": 2}
    assert said == paraphrases(student, [SENTENCE, "It rained."], **options)
