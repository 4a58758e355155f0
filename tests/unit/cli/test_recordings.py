"""`quip calls export --stage`: what is recorded plays the endpoint, and the outputs are equal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from cli_runner import quip
from fake_endpoint import Body, ChatServer, chat, likes
from quip.cli import doctor, doctor_checks, plan, plan_data
from quip.core.jsonl import read_rows, write_rows
from quip.core.params import read_params
from quip.core.records import LiteralText, Reference, Reply, Response, Split
from quip.critics import prompted
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import CriticParams
from quip.data.reply_parsing import parse_reply
from quip.llm.call_outputs import record_calls
from quip.stages import judge, teacher
from stage_options import options

Project = Callable[..., Path]
FILE = "data/raw/recorded.jsonl"
RECORDED = {"endpoints": {"scripted": {"replies": FILE, "model": "m"}}}
TEACHER = {"endpoint": "scripted", "n": 2, "train_inputs": None, "exemplars": 0}
WRITTEN = (
    "Sure!\n1. My bus left.\n2. Buses and I differ.",
    "1. Only this one stands here.\n2. And this one is cut",
    "I'm sorry, but I cannot help with that.\n1. Nothing.",
    "* One of three texts.\n* Two of three texts.\n* Three of three texts.",
)


def script(text: str) -> float:
    """How good the scripted critic finds a text."""
    return len(text) / 50


@pytest.fixture(autouse=True)
def scripted(scripted_project: Project) -> Project:
    scripted_project(teacher=TEACHER)
    return lambda **changes: scripted_project(teacher=TEACHER, **changes)


def switch(project: Project, **entry: Any) -> None:
    """Let the recording play the endpoint."""
    project()
    params = json.loads(json.dumps(read_params()))
    params["endpoints"]["scripted"] = {"replies": FILE, "model": "m", **entry}
    Path("params.yaml").write_text(json.dumps(params))


# ---- teacher


def taught(server: ChatServer) -> list[Reply]:
    """The teacher's replies to four inputs, one of them in each split."""
    for split in get_args(Split):
        write_rows(f"data/prepared/{split}.jsonl", [LiteralText(id=split, text=f"{split} text.")])
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    Path("data/raw/exemplars.jsonl").write_text(
        '{"id": "e", "literal": "x", "paraphrases": [{"text": "y"}]}\n'
    )

    def answer(body: Body) -> tuple[int, bytes]:
        asked = body["messages"][-1]["content"]
        return next(
            chat(text)
            for split, text in zip(get_args(Split), WRITTEN, strict=True)
            if f"{split} text." in asked
        )

    server.answer = answer
    return teach()


def teach() -> list[Reply]:
    teacher.main(
        options(
            prepared="data/prepared",
            exemplars="data/raw/exemplars.jsonl",
            out="data/teacher/replies.jsonl",
            calls="data/calls/teacher.jsonl",
            metrics="teacher.json",
        )
    )
    return read_rows("data/teacher/replies.jsonl", Reply)


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(FILE).read_text().splitlines()]


def test_a_teacher_s_rows_hold_what_was_parsed_and_how_much_was_asked_where_it_is_less(
    server: ChatServer,
) -> None:
    taught(server)
    said = quip("calls", "export", "--stage", "teacher")
    assert said.stdout.startswith(f"{FILE}: 4 replies. Next: `replies: {FILE}`")
    assert rows() == [
        {"literal": "train text.", "paraphrases": ["My bus left.", "Buses and I differ."]},
        {
            "literal": "val text.",
            "paraphrases": ["Only this one stands here.", "And this one is cut"],
        },
        {"literal": "test text.", "paraphrases": [], "n": 2},
        {
            "literal": "ood text.",
            "paraphrases": [f"{n} of three texts." for n in ("One", "Two", "Three")],
        },
    ]


def test_the_recording_teaches_the_same_without_a_call(
    server: ChatServer, scripted: Project
) -> None:
    before = taught(server)
    quip("calls", "export", "--stage", "teacher")
    asked = len(server.asked)
    switch(scripted)
    after = teach()
    assert len(server.asked) == asked
    assert [row.input for row in after] == [row.input for row in before]
    for old, new in zip(before, after, strict=True):
        wanted = [] if old.input == "test" else parse_reply(old.text, old.finish_reason)[:2]
        assert parse_reply(new.text, new.finish_reason) == wanted
    spent = json.loads(Path("teacher.json").read_text())
    assert (spent["calls"], spent["stored"], spent["paid"]) == (4, 4, 0.0)
    assert Path("data/calls/teacher.jsonl").read_text() == ""


def test_an_input_that_was_set_aside_is_recorded_as_one_without_paraphrases(
    server: ChatServer,
) -> None:
    kept = [row for row in taught(server) if row.input != "train"]
    write_rows("data/teacher/replies.jsonl", kept)
    quip("calls", "export", "--stage", "teacher")
    assert rows()[0] == {"literal": "train text.", "paraphrases": [], "n": 2}


# ---- critics and judges

PAIRS = [
    Comparison(f"t{i}", "test", f"Plain {i}.", "x", "y", "a longer joke" + "!" * i, "flat")
    for i in range(3)
]


def reasoned(body: Body) -> tuple[int, bytes]:
    """A critic with a reason: of two answers one ends without a choice."""
    if body["max_tokens"] == 1 or len(body["messages"]) > 2:
        return chat("1", {"1": math.log(0.7), "2": math.log(0.3)})
    named = len(str(body["messages"])) % 2
    return chat("2" if named else "It is funny", {"1": -1.2, "2": -0.3})


@pytest.mark.usefixtures("critic_prompt")
@pytest.mark.parametrize("logprobs", [True, False])
def test_a_recorded_critic_answers_bit_for_bit_as_the_one_that_was_asked(
    server: ChatServer, scripted: Project, logprobs: bool
) -> None:
    server.answer = likes(script, lean=-3.3)
    scripted(endpoints={"scripted": {"logprobs": logprobs}})
    critic = CriticParams(kind="mcp", endpoint="scripted", prompt="critic", samples=3)
    with record_calls("data/calls/critique_sft.jsonl"):
        before = prompted.ask(critic, PAIRS, "critique").rows
    assert quip("calls", "export", "--stage", "critique").exit_code == 0
    assert len(rows()) == (6 if logprobs else 18)
    asked = len(server.asked)
    switch(scripted, logprobs=logprobs)
    assert prompted.ask(critic, PAIRS, "critique").rows == before
    assert len(server.asked) == asked


def test_a_recorded_critic_that_gives_reasons_does_so_again(
    server: ChatServer, scripted: Project
) -> None:
    server.answer = reasoned
    critic = CriticParams(kind="mcp_reason", endpoint="scripted", samples=3)
    with record_calls("data/calls/critique.jsonl"):
        before = prompted.ask(critic, PAIRS, "critique").rows
    quip("calls", "export", "--stage", "critique")
    assert len(rows()) > 6, "some answers were asked for the choice alone"
    switch(scripted)
    assert prompted.ask(critic, PAIRS, "critique").rows == before


@pytest.mark.usefixtures("critic_prompt")
def test_a_recorded_judge_writes_the_same_verdicts(server: ChatServer, scripted: Project) -> None:
    server.answer = likes(script)
    common = [{"input": f"test{i}", "split": "test", "literal": f"Plain {i}."} for i in range(2)]
    write_rows("responses.jsonl", [Response(**row, text=f"fun {row}") for row in common])
    write_rows("references.jsonl", [Reference(**row, paraphrases=["more"]) for row in common])
    words = options(
        arm="sft",
        responses="responses.jsonl",
        references="references.jsonl",
        reward="none",
        out="verdicts.jsonl",
        calls="data/calls/judge_sft.jsonl",
        metrics="judge.json",
    )
    judge.main(words)
    before = Path("verdicts.jsonl").read_bytes()
    quip("calls", "export", "--stage", "judge@sft")
    switch(scripted)
    judge.main(words)
    assert Path("verdicts.jsonl").read_bytes() == before
    assert json.loads(Path("judge.json").read_text())["judges"]["scripted"]["stored"] == 4


# ---- what is refused


@pytest.mark.usefixtures("critic_prompt")
def test_two_answers_to_the_same_comparison_are_refused(server: ChatServer) -> None:
    critic = CriticParams(kind="mcp", endpoint="scripted", prompt="critic", samples=3)
    for name, lean in (("one", 0.0), ("two", 1.0)):
        server.answer = likes(script, lean)
        with record_calls(f"data/calls/critique_{name}.jsonl"):
            prompted.ask(critic, PAIRS, "critique")
        Path(".quip/calls.journal").unlink()
        Path(f"data/calls/critique_{name}.jsonl").rename(f"{name}.jsonl")
    for name in ("one", "two"):
        Path(f"{name}.jsonl").rename(f"data/calls/critique_{name}.jsonl")
    assert quip("calls", "export", "--stage", "critique@one").exit_code == 0
    said = quip("calls", "export", "--stage", "critique")
    assert said.exit_code == 2
    assert "two answers about 'Plain 0.' for the same texts" in said.output


def test_a_stage_that_kept_no_comparison_is_named() -> None:
    said = quip("calls", "export", "--stage", "duel")
    assert said.exit_code == 2
    assert "data/calls holds no comparison of duel. Run `dvc repro duel`" in said.output


def test_export_wants_a_file_or_a_stage() -> None:
    assert quip("calls", "export").exit_code == 2
    assert quip("calls", "export", "all.jsonl", "--stage", "teacher").exit_code == 2


# ---- doctor and plan


def said_by_doctor() -> str:
    return "\n".join(finding.line() for finding in doctor.recordings())


def test_doctor_counts_what_a_recording_holds_and_names_what_it_lacks(
    server: ChatServer, scripted: Project
) -> None:
    taught(server)
    quip("calls", "export", "--stage", "teacher")
    switch(scripted, api_key_env="NO_SUCH_KEY")
    assert said_by_doctor() == (
        f"ok   endpoint 'scripted': {FILE} holds 4 literals and 0 comparisons"
    )
    Path(FILE).write_text("".join(f"{json.dumps(row)}\n" for row in rows()[:2]))
    assert said_by_doctor().startswith(
        f"mend endpoint 'scripted': {FILE} lacks 2 paraphrases of literals (2): 'test text.', "
        "'ood text.' -> add rows"
    )
    Path(FILE).unlink()
    assert "no such file" in said_by_doctor()
    assert "NO_SUCH_KEY" not in "".join(f.what for f in doctor_checks.keys())  # noqa: SIM118
    assert not [f for f in doctor_checks.addresses() if "scripted" in f.what]


def test_the_plan_has_no_call_and_no_money_for_a_recording() -> None:
    params = read_params()
    params["endpoints"]["paid"] = {"replies": FILE, "model": "m", "price_in": 9.0}
    params["teacher"] = {**params["teacher"], "endpoint": "paid"}
    data = plan_data.Data(dict.fromkeys(get_args(Split), 5), {"plain": 3}, 60.0, 200.0)
    works = [work for work in plan.plan(params, data) if work.stage == "teacher"]
    assert [(work.calls, work.money, work.seconds) for work in works] == [(0, 0.0, 0.0)]
    assert "paid" not in plan.table(works).split("\n\n")[0]
