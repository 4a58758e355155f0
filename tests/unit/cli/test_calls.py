"""`quip calls`: records listed, exported and pruned, and calls imported from stages."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner, Result

from fake_endpoint import Body
from faulty_endpoint import FaultyServer, chance
from quip.cli.main import app
from quip.core.jsonl import write_rows
from quip.core.records import LiteralText, Reference, Response, Split
from quip.llm import reply_store
from quip.llm.requests.chat import Request
from quip.runtime import paths

Project = Callable[..., Path]
PROJECT = Path(__file__).parents[3]


def quip(*words: str) -> Result:
    return CliRunner().invoke(app, ["calls", *words])


@pytest.fixture
def asked(project: Project) -> list[Request]:
    """A store of four replies of `m` for one stage and two of `n` for another, 1 paid for each."""
    project()
    requests = [Request((("user", f"question {i}"),)) for i in range(6)]
    store = reply_store.open_store()
    for number, request in enumerate(requests):
        model, by = ("m", "teacher") if number < 4 else ("n", "critique")
        reply = json.dumps({"text": f"answer {number}", "finish_reason": "stop"})
        store.put(request.key(model), model, reply, by, 1.0)
    store.close()
    return requests


def test_the_newest_record_is_listed_last(asked: list[Request]) -> None:
    lines = quip("list", "--n", "2").stdout.splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines] == ["'answer 4'", "'answer 5'"]


def test_a_record_is_shown_by_the_start_of_its_key(asked: list[Request]) -> None:
    found = json.loads(quip("show", asked[3].key("m")[:12]).stdout)
    assert (found["reply"]["text"], found["model"], found["by"]) == ("answer 3", "m", "teacher")
    assert quip("show", "").exit_code == quip("show", "no such").exit_code == 2


def test_replies_are_counted_by_model_and_stage(asked: list[Request]) -> None:
    lines = quip("count").stdout.splitlines()
    assert lines[1].split() == ["4", "4.0000", "m,", "teacher"]
    assert lines[2].split() == ["2", "2.0000", "n,", "critique"]
    assert lines[3].startswith("6 replies, ")
    assert "0 damaged records" in lines[3]


def test_records_are_exported_whole(asked: list[Request]) -> None:
    assert quip("export", "all.jsonl").exit_code == 0
    rows = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [r.key("m") for r in asked[:4]] + [
        r.key("n") for r in asked[4:]
    ]
    assert rows[5]["reply"]["text"] == "answer 5"


def test_what_was_spent_outlives_what_is_pruned(asked: list[Request]) -> None:
    store = reply_store.open_store()
    store.put(asked[0].key("m"), "m", '{"text": "anew", "finish_reason": "stop"}', "teacher", 1.0)
    store.close()
    assert quip("prune", "--model", "n").exit_code == 0
    store = reply_store.open_store()
    assert (len(store), store.money) == (4, pytest.approx(7.0))
    assert store.get(asked[0].key("m"))
    assert store.get(asked[5].key("n")) is None
    store.close()


def test_prune_drops_nothing_that_is_not_named(asked: list[Request]) -> None:
    assert quip("prune").exit_code == 2
    assert quip("prune", "--model", "m", "--stage", "critique").exit_code == 0
    assert quip("prune", "--older", "1").exit_code == 0
    store = reply_store.open_store()
    assert (len(store), store.money) == (6, pytest.approx(6.0))
    store.close()


# ---- import


PIPELINE = f"""
stages:
  teacher:
    cmd: {sys.executable} -m quip.stages.teacher --prepared data/prepared
      --exemplars data/raw/exemplars.jsonl --out data/teacher/replies.jsonl
      --calls data/calls/teacher.jsonl --metrics teacher.json
    deps: [data/prepared, data/raw/exemplars.jsonl]
    params: [teacher]
    outs: [data/teacher/replies.jsonl, data/calls/teacher.jsonl]
  judge:
    matrix: {{arm: [sft]}}
    cmd: {sys.executable} -m quip.stages.judge --arm sft --responses responses.jsonl
      --references references.jsonl --reward none --out data/verdicts/sft.jsonl
      --calls data/calls/judge_sft.jsonl --metrics data/metrics/judge_sft.json
    deps: [responses.jsonl, references.jsonl]
    params: [judge]
    outs: [data/verdicts/sft.jsonl, data/calls/judge_sft.jsonl]
"""


def dvc(*words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_lost_store_is_imported_from_what_the_stages_wrote(project: Project) -> None:
    with FaultyServer() as server:
        paid = run_pipeline(project, server)
        taught, judged = Path(TAUGHT).read_bytes(), Path(JUDGED).read_bytes()
        paths.state("calls.journal").unlink()
        said = quip("import").stdout
        assert said == "judge_sft: 10 replies imported\nteacher: 8 replies imported\n"
        dvc("repro", "--force")
        assert (Path(TAUGHT).read_bytes(), Path(JUDGED).read_bytes()) == (taught, judged)
        assert server.requests == paid
        assert "teacher: 0 replies" in quip("import").stdout


def test_a_stage_that_finds_the_store_empty_imports_from_dvc_s_cache(project: Project) -> None:
    """A fresh clone whose working files are gone: DVC removes a stage's outputs before it runs."""
    with FaultyServer() as server:
        paid = run_pipeline(project, server)
        written = Path(CALLS).read_bytes()
        paths.state("calls.journal").unlink()
        shutil.rmtree("data/calls")
        said = dvc("repro", "--force", "--single-item", "teacher")
        assert "8 replies of teacher imported" in said
        assert "10 replies of judge_sft imported" in said
        assert "8 of 8 replies from the store" in said
        assert server.requests == paid
        assert Path(CALLS).read_bytes() == written


def test_a_changed_question_is_asked_after_an_import(project: Project) -> None:
    with FaultyServer() as server:
        paid = run_pipeline(project, server)
        paths.state("calls.journal").unlink()
        configure(project, server, temperature=0.3)
        dvc("repro", "teacher")
        assert server.requests == paid + 8


def test_without_files_of_calls_nothing_is_imported(project: Project) -> None:
    project()
    assert quip("import").exit_code == 2


def run_pipeline(project: Project, server: FaultyServer) -> int:
    """A teacher of 8 calls and a judge of 10 have run under real DVC; how many requests it took."""
    server.answer = lambda body: chosen(body) if body.get("logprobs") else None
    configure(project, server)
    lay_out()
    dvc("init", "--no-scm")
    dvc("repro")
    assert server.requests == 8 + 2 * 5
    return server.requests


def configure(project: Project, server: FaultyServer, **teacher: object) -> None:
    project(
        endpoints={"scripted": {"base_url": server.url, "model": "m", "concurrency": 8}},
        judge={"endpoints": ["scripted"], "learned": False, "prompt": "critic_paper"},
        teacher={"endpoint": "scripted", "train_inputs": None, **teacher},
    )


def test_after_kill_9_of_dvc_alone_a_second_repro_waits_for_the_orphaned_stage(
    project: Project,
) -> None:
    with FaultyServer(delay=0.5) as server:
        entry = {"base_url": server.url, "model": "m", "concurrency": 1}
        project(
            endpoints={"scripted": entry}, teacher={"endpoint": "scripted", "train_inputs": None}
        )
        lay_out()
        dvc("init", "--no-scm")
        repro = [sys.executable, "-m", "dvc", "repro", "teacher"]
        first = subprocess.Popen(repro, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while server.requests < 2:
            time.sleep(0.01)
        first.kill()
        first.wait()
        second = subprocess.run(repro, capture_output=True, text=True)
        assert second.returncode == 0, second.stderr[-2000:]
        assert "another process is running this stage here; waiting" in second.stdout
        assert "8 of 8 replies from the store" in second.stdout
        assert set(server.answered.values()) == {1}
        assert len(Path(TAUGHT).read_text().splitlines()) == server.requests == 8


TAUGHT, JUDGED = "data/teacher/replies.jsonl", "data/verdicts/sft.jsonl"
CALLS = "data/calls/teacher.jsonl"


def chosen(body: Body) -> tuple[int, bytes, dict[str, str]]:
    """A judge's answer: the token and alternatives of a probability that depends on the text."""
    one = math.log(0.05 + 0.9 * chance(body["messages"]))
    top = [{"token": " 1", "logprob": one}, {"token": "2", "logprob": -1.0}]
    top.append({"token": "the", "logprob": -7.5})
    choice = {"index": 0, "finish_reason": "length", "message": {"content": "1"}}
    answer = {"choices": [{**choice, "logprobs": {"content": [{"top_logprobs": top}]}}]}
    return 200, json.dumps(answer).encode(), {}


def lay_out() -> None:
    for split in get_args(Split):
        rows = [LiteralText(id=f"{split}{i}", text=f"I saw {split} {i}.") for i in range(2)]
        write_rows(f"data/prepared/{split}.jsonl", rows)
    Path("data/raw").mkdir()
    shutil.copy(PROJECT / "data/raw/exemplars.jsonl", "data/raw")
    common = [{"input": f"test{i}", "split": "test", "literal": f"Plain {i}."} for i in range(5)]
    write_rows("responses.jsonl", [Response(**row, text=f"fun {row}") for row in common])
    write_rows("references.jsonl", [Reference(**row, paraphrases=["more fun"]) for row in common])
    Path("dvc.yaml").write_text(PIPELINE)
