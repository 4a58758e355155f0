"""teacher: the requests, their prompts and seeds, and the replies kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from fake_endpoint import ChatServer, chat
from quip.core.jsonl import read_rows, write_rows
from quip.core.records import Exemplar, LiteralText, Paraphrase, Reply, Split
from quip.runtime.errors import DataError, ParamsError
from quip.stages import teacher
from stage_options import options

Project = Callable[..., Path]

SETTINGS = {
    "prompt": "teacher",
    "n": 2,
    "train_inputs": None,
    "exemplars": 2,
    "prefixes": 2,
    "temperature": 0.8,
    "top_p": 1.0,
    "max_tokens": 64,
    "seed": 1,
}
COUNTS = {"train": 4, "val": 1, "test": 2, "ood": 1}


def prepare(counts: dict[str, int] = COUNTS) -> None:
    for split, count in counts.items():
        rows = [LiteralText(id=f"{split}{i}", text=f"I saw {split} {i}.") for i in range(count)]
        write_rows(f"prepared/{split}.jsonl", rows)
    write_rows("exemplars.jsonl", exemplars(5))


def exemplars(count: int) -> list[Exemplar]:
    return [
        Exemplar(
            id=f"e{i}",
            literal=f"Plain {i}.",
            paraphrases=[Paraphrase(text=f"Fun {i}{letter}.") for letter in "abc"],
        )
        for i in range(count)
    ]


def run() -> list[Reply]:
    paths = options(prepared="prepared", exemplars="exemplars.jsonl")
    teacher.main(
        [*paths, *options(out="replies.jsonl", calls="calls.jsonl", metrics="teacher.json")]
    )
    return read_rows("replies.jsonl", Reply)


def asked_for(server: ChatServer) -> dict[str, dict[str, Any]]:
    """The calls by the sentence they asked about."""
    return {
        body["messages"][-1]["content"].removeprefix("Sentence: "): body for body in server.asked
    }


@pytest.fixture
def ready(server: ChatServer, scripted_project: Project) -> ChatServer:
    scripted_project(teacher=SETTINGS)
    prepare()
    server.answer = lambda body: chat(f"Sure!\n1. {body['messages'][-1]['content']}\n2. ...")
    return server


def test_every_input_is_asked_once_and_raw_replies_are_kept_in_order(ready: ChatServer) -> None:
    rows = run()
    assert [(row.split, row.input) for row in rows] == [
        (split, f"{split}{i}") for split in get_args(Split) for i in range(COUNTS[split])
    ]
    assert rows[0] == Reply(
        input="train0",
        split="train",
        literal="I saw train 0.",
        text="Sure!\n1. Sentence: I saw train 0.\n2. ...",
        finish_reason="stop",
    )
    assert len(ready.asked) == 8


def test_the_counts_and_what_was_spent_are_written(
    ready: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    assert json.loads(Path("teacher.json").read_text()) == {
        "asked": 8,
        "answered": 8,
        "calls": 8,
        "stored": 0,
        "failed": 0,
        "refused": 0,
        "retries": 0,
        "prompt_tokens": 80,
        "cached_tokens": 0,
        "completion_tokens": 16,
        "money": 0.0,
        "paid": 0.0,
        "model": "m",
    }
    assert "teacher: asked 8, answered 8, train 4, val 1, test 2, ood 1" in capsys.readouterr().out


def test_the_settings_reach_the_endpoint(ready: ChatServer) -> None:
    run()
    body = ready.asked[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (
        "m",
        0.8,
        1.0,
        64,
    )


def test_two_fixed_prefixes_alternate_and_share_no_example(ready: ChatServer) -> None:
    run()
    systems = [body["messages"][0]["content"] for body in ready.asked]
    first, second = dict.fromkeys(systems)
    assert systems == sorted(systems, key=systems.index), "equal prefixes stand side by side"
    shots = [{i for i in range(5) if f"Plain {i}." in text} for text in (first, second)]
    assert sorted(map(sorted, shots)) == [[0, 2], [1, 3]]
    assert "Sentence: Plain 0.\n1. Fun 0a.\n2. Fun 0b." in first + second
    assert "Fun 0c." not in first + second


def test_a_row_s_call_depends_on_its_id_and_on_no_other_row(ready: ChatServer) -> None:
    run()
    before = asked_for(ready)
    assert len({body["seed"] for body in before.values()}) == 8
    prepare({**COUNTS, "train": 9})
    ready.asked.clear()
    run()
    assert len(ready.asked) == 5, "only the new rows are asked"
    Path(".quip/calls.journal").unlink()
    ready.asked.clear()
    run()
    assert {text: asked_for(ready)[text] for text in before} == before


def test_another_seed_is_another_question(ready: ChatServer, scripted_project: Project) -> None:
    run()
    scripted_project(teacher={**SETTINGS, "seed": 2})
    run()
    assert len(ready.asked) == 16


def test_a_second_run_makes_no_call_and_the_same_file(ready: ChatServer) -> None:
    run()
    before = Path("replies.jsonl").read_bytes()
    run()
    assert Path("replies.jsonl").read_bytes() == before
    assert len(ready.asked) == 8


def test_train_inputs_limits_the_training_part_only(
    ready: ChatServer, scripted_project: Project
) -> None:
    scripted_project(teacher={**SETTINGS, "train_inputs": 1})
    assert [row.input for row in run()] == ["train0", "val0", "test0", "test1", "ood0"]


def test_zero_shot_uses_the_paper_s_prompt(ready: ChatServer, scripted_project: Project) -> None:
    scripted_project(teacher={**SETTINGS, "prompt": "teacher_zero_shot", "exemplars": 0, "n": 3})
    run()
    (message,) = ready.asked[0]["messages"]
    assert message["content"].startswith("Write 3 creative and humorous paraphrases")
    assert "Plain" not in message["content"]


def test_more_exemplars_than_the_file_has_are_refused(
    ready: ChatServer, scripted_project: Project
) -> None:
    scripted_project(teacher={**SETTINGS, "exemplars": 3})
    with pytest.raises(ParamsError) as caught:
        run()
    assert str(caught.value) == (
        "params.yaml: teacher.exemplars x teacher.prefixes asks for 6 exemplars, the file has 5."
    )
    assert not ready.asked


def test_a_missing_split_is_named(ready: ChatServer) -> None:
    Path("prepared/ood.jsonl").unlink()
    with pytest.raises(DataError, match=r"prepared/ood.jsonl: no such file"):
        run()
