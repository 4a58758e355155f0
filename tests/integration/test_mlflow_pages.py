"""`mlflow ui` on a store that the real stages' code filled, walked through in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import browsing, click, needs_browser, seen
from quip.tracking import mlflow_store
from quip.tracking import runs as runs_module
from registry_project import (
    ARMS,
    NAME,
    point_to,
    run_stage,
    write_answers,
    write_params,
    write_results,
)
from servers import free_port

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def store(checkout: Path, tiny_student: Path) -> Path:
    """Two arms trained live, with curves, and registered."""
    write_params()
    Path("data").mkdir()
    Path("data/pairs.jsonl").write_text("{}\n")
    for arm in ARMS:
        shutil.copytree(tiny_student, Path("models", arm))
        stage = arm if arm == "sft" else f"align@{arm}"
        with runs_module.run(stage, {"epochs": 2}, {"train": Path("data/pairs.jsonl")}) as run:
            for step in range(1, 11):
                run.log(step, {"loss": 2.0 / step, "token_accuracy": 0.5 + step / 40})
        point_to(arm, run.id)
    write_results({"sft": 0.3, "dpo": 0.4})
    write_answers(*ARMS)
    Path("data/report").mkdir()
    Path("data/report/report.html").write_text("<h1>The report</h1>")
    run_stage()
    return checkout


@pytest.fixture
def address(store: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    with Path("ui.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", mlflow_store.default_uri()],
            stdout=log,
            stderr=log,
            env={**os.environ, **mlflow_store.DEFAULT_ENVIRONMENT},
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health").read()
            break
        except OSError:
            time.sleep(0.3)
    else:
        pytest.fail(Path("ui.log").read_text())
    yield url
    os.killpg(process.pid, 15)
    process.wait()


def test_from_the_experiment_over_runs_and_arms_to_the_champion_s_page(
    address: str, tmp_path: Path
) -> None:
    with browsing() as browser:

        def shot(name: str) -> None:
            time.sleep(1)
            browser.save_screenshot(str(tmp_path / f"{name}.png"))

        browser.get(f"{address}/#/experiments")
        click(browser, "Model training", "*")
        click(browser, "quip")
        seen(browser, "data/pairs.jsonl")
        seen(browser, "One run a training")
        shot("runs")
        runs = browser.current_url.partition("?")[0]

        browser.get(f"{runs}?compareRunsMode=CHART")
        seen(browser, "test/score.embedded")
        # MLflow draws a chart when it comes into sight; the search brings it there.
        search = browser.find_element("css selector", "input[placeholder^='Search metric']")
        search.send_keys("token_accuracy")
        seen(browser, "token_accuracy")
        shot("curves")
        browser.get(f"{runs}?compareRunsMode=ARTIFACT")
        for words in ("sft on t0", "dpo on t0"):
            seen(browser, words)
        shot("samples")

        browser.get(runs)
        click(browser, "align@dpo")
        seen(browser, "direct preference optimisation")
        seen(browser, "test/score.embedded")
        shot("run")
        click(browser, NAME)
        seen(browser, "champion")
        seen(browser, "0.40 [0.30, 0.50]")
        seen(browser, "Against the teacher's own paraphrases")
        shot("champion")
