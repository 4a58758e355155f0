"""judge, duel and control: the texts they compare, by every judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_endpoint import ChatServer, likes, shown
from quip.core.jsonl import read_rows, write_rows
from quip.core.records import Answer, Candidate, Critique, Reference, Response, Split
from quip.critics.comparison import Comparison
from quip.runtime.errors import DataError
from quip.stages import control, duel, judge
from stage_options import options

Project = Callable[..., Path]
SPLITS: list[Split] = ["val", "test", "ood"]

pytestmark = pytest.mark.usefixtures("critic_prompt")


def respond(arm: str, text: str, inputs: int = 2) -> None:
    """Write the answers of `arm` to `inputs` inputs of each split."""
    rows = [
        Response(input=f"{split}{i}", split=split, literal=f"{split} {i}.", text=f"{text} {i}")
        for split in SPLITS
        for i in range(inputs)
    ]
    write_rows(f"responses/{arm}.jsonl", rows)


def refer(inputs: int = 2, paraphrases: int = 2) -> None:
    rows = [
        Reference(
            input=f"{split}{i}",
            split=split,
            literal=f"{split} {i}.",
            paraphrases=[f"teacher {split} {i} {n}" for n in range(paraphrases)],
        )
        for split in SPLITS
        for i in range(inputs)
    ]
    write_rows("references.jsonl", rows)


def named(rows: list[Critique]) -> list[tuple[str, str, str]]:
    return [(row.name_a, row.name_b, row.input) for row in rows]


MADE = {"out": "duel.jsonl", "calls": "calls.jsonl", "metrics": "m.json"}


# ---- judge


def judged() -> list[Critique]:
    judge.main(
        options(
            arm="dpo",
            responses="responses/dpo.jsonl",
            references="references.jsonl",
            reward="r",
            out="v",
            calls="calls.jsonl",
            metrics="m.json",
        )
    )
    return read_rows("v", Critique)


def test_an_arm_is_judged_against_the_teacher_s_first_paraphrase(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(judge={"splits": ["test", "ood"]})
    server.answer = likes(lambda text: 2.0 * text.startswith("student"))
    respond("dpo", "student")
    refer()
    rows = judged()
    keys = ["test0", "test1", "ood0", "ood1"]
    assert named(rows) == [("dpo", "teacher", key) for key in keys]
    assert (rows[0].a, rows[0].b) == ("student 0", "teacher test 0 0")
    assert {row.judge for row in rows} == {"scripted"}
    assert all((row.forward.p_first or 0) > 0.8 for row in rows)
    assert len(server.asked) == 8
    assert "judge: verdicts 4, without_reference 0" in capsys.readouterr().out


def test_every_judge_is_asked_about_every_pair(
    server: ChatServer, scripted_project: Project
) -> None:
    other = {"base_url": server.url, "model": "other", "logprobs": False}
    scripted_project(
        endpoints={"other": other}, judge={"endpoints": ["scripted", "other"], "splits": ["test"]}
    )
    server.answer = likes(len)
    respond("dpo", "student")
    refer()
    rows = judged()
    assert [(row.judge, row.input, row.forward.source) for row in rows] == [
        ("scripted", "test0", "logprobs"),
        ("scripted", "test1", "logprobs"),
        ("other", "test0", "samples"),
        ("other", "test1", "samples"),
    ]
    assert [body["model"] for body in server.asked] == ["m"] * 4 + ["other"] * 12


def test_an_input_the_teacher_did_not_answer_is_counted(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(judge={"splits": ["test"]})
    server.answer = likes(len)
    respond("dpo", "student", inputs=3)
    refer(inputs=1)
    assert [row.input for row in judged()] == ["test0"]
    assert "without_reference 2" in capsys.readouterr().out


def test_no_reference_at_all_is_an_error(server: ChatServer, scripted_project: Project) -> None:
    scripted_project(judge={"splits": ["test"]})
    respond("dpo", "student")
    write_rows(
        "references.jsonl",
        [Reference(input="elsewhere", split="test", literal="l", paraphrases=["p"])],
    )
    with pytest.raises(DataError, match="judge dpo: no pairs to compare"):
        judged()
    assert not server.asked


def test_what_each_judge_cost_is_in_the_metrics(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project()
    server.answer = likes(len)
    respond("dpo", "dpo")
    refer()
    rows = judged()
    found = json.loads(Path("m.json").read_text())
    assert found["verdicts"] == len(rows)
    assert found["judges"]["scripted"]["calls"] == len(server.asked) > 0
    judged()
    again = json.loads(Path("m.json").read_text())["judges"]["scripted"]
    assert (again["calls"], again["stored"]) == (len(server.asked), len(server.asked))


# ---- duel


def fought() -> list[Critique]:
    duel.main(options(responses="responses", reward="r", **MADE))
    return read_rows("duel.jsonl", Critique)


def test_the_later_arm_duels_every_earlier_one_on_the_test_inputs(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(arms=["sft", "ft", "dpo"])
    server.answer = likes(len)
    for arm in ("sft", "ft", "dpo"):
        respond(arm, arm, inputs=1)
    rows = fought()
    assert named(rows) == [
        ("ft", "sft", "test0"),
        ("dpo", "sft", "test0"),
        ("dpo", "ft", "test0"),
    ]
    assert [(row.a, row.b) for row in rows][1] == ("dpo 0", "sft 0")


def test_endpoints_compare_arms_on_the_first_inputs_only_and_the_learned_critic_on_all(
    server: ChatServer, scripted_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_project(arms=["sft", "dpo"], judge={"duel_inputs": 2, "learned": True})
    monkeypatch.setattr(
        "quip.critics.learned.compare", lambda reward, pairs: [sure(p) for p in pairs]
    )
    server.answer = likes(len)
    for arm in ("sft", "dpo"):
        respond(arm, arm, inputs=3)
    rows = fought()
    assert [(row.judge, row.input) for row in rows] == [
        *(("scripted", f"test{i}") for i in range(2)),
        *(("learned", f"test{i}") for i in range(3)),
    ]
    assert len(server.asked) == 2 * 2


def sure(pair: Comparison) -> Critique:
    one = Answer(source="learned", p_first=0.9)
    named = {"judge": "learned", "input": pair.input, "split": pair.split, "literal": pair.literal}
    texts = {"name_a": pair.name_a, "name_b": pair.name_b, "a": pair.a, "b": pair.b}
    return Critique(**named, **texts, forward=one, backward=one)


def test_equal_texts_tie_without_a_call(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(arms=["sft", "dpo"])
    for arm in ("sft", "dpo"):
        respond(arm, "the same")
    rows = fought()
    assert {row.forward.source for row in rows} == {"identical"}
    assert not server.asked
    assert "duel: verdicts 2, identical 2" in capsys.readouterr().out


def test_a_single_arm_has_no_duel(scripted_project: Project) -> None:
    scripted_project(arms=["sft"])
    respond("sft", "alone")
    duel.main(options(responses="responses", reward="r", **MADE))
    assert Path("duel.jsonl").read_text() == ""


# ---- control


def sampled(*texts: str, key: str = "test0", split: Split = "test") -> list[Candidate]:
    return [
        Candidate(input=key, split=split, literal=f"{key}.", sample=number, text=text)
        for number, text in enumerate(texts)
    ]


def controlled(candidates: list[Candidate]) -> list[Critique]:
    write_rows("candidates.jsonl", candidates)
    control.main(
        options(
            references="references.jsonl",
            candidates="candidates.jsonl",
            reward="r",
            out="c",
            calls="calls.jsonl",
            metrics="m.json",
        )
    )
    return read_rows("c", Critique)


def test_the_controls_are_aa_copy_and_best_of_n(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(judge={"control_inputs": 1})
    server.answer = likes(lambda text: 2.0 * text.count("!"))
    refer()
    rows = controlled(sampled("one", "two !", "three !!", "four"))
    assert [(row.name_a, row.name_b, row.a, row.b) for row in rows] == [
        ("teacher", "teacher", "teacher test 0 1", "teacher test 0 0"),
        ("copy", "teacher", "test 0.", "teacher test 0 0"),
        ("best_of_n", "teacher", "three !!", "teacher test 0 0"),
    ]
    assert "control: teacher 1, copy 1, best_of_n 1" in capsys.readouterr().out


@pytest.mark.parametrize("best", range(5))
def test_the_favourite_wins_the_knock_out_from_every_place(
    best: int, server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(judge={"control_inputs": 1})
    server.answer = likes(lambda text: 2.0 * text.count("!"), lean=1.5)
    refer(inputs=1, paraphrases=1)
    texts = [f"text {i}" + " !" * (i == best) for i in range(5)]
    rows = controlled(sampled(*texts))
    assert [(row.name_a, row.a) for row in rows][1:] == [("best_of_n", texts[best])]
    among_samples = [body for body in server.asked if "teacher" not in "".join(shown(body))]
    assert len(among_samples) == 2 * 4, "n - 1 comparisons, each in both orders"


def test_a_reference_of_one_paraphrase_has_no_aa_control(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(judge={"control_inputs": 2})
    server.answer = likes(len)
    refer(paraphrases=1)
    rows = controlled(sampled("a"))
    assert {row.name_a for row in rows} == {"copy", "best_of_n"}


def test_training_samples_and_empty_ones_do_not_compete(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(judge={"control_inputs": 0})
    server.answer = likes(len)
    refer()
    rows = controlled([*sampled("", "said"), *sampled("x", "y", key="test1", split="train")])
    assert [(row.name_a, row.input, row.a) for row in rows] == [("best_of_n", "test0", "said")]


@pytest.mark.parametrize(("preference", "out"), [(0.9, "b"), (0.5, "b"), (None, "b"), (0.1, "a")])
def test_an_unreadable_comparison_keeps_the_first(preference: float | None, out: str) -> None:
    assert control.loser(preference, "a", "b") == out
