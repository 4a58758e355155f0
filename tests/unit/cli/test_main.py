"""The command `quip`: fast help, clear errors, and each verb on a small checkout."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli_runner import hosted, quip, shipped_params, write_params
from quip.cli import plan, plan_data
from quip.core.params import read_params
from quip.llm.reply_store import Record
from quip.llm.requests.chat import ModelReply
from quip.runtime import stage_times
from quip.runtime.errors import DataError, ParamsError
from quip.serving import paraphrase
from quip.tracking import mlflow_store
from repository import ROOT

VERBS = (
    "say",
    "doctor",
    "plan",
    "calls",
    "human",
    "times",
    "results",
    "trace",
    "versions",
    "promote",
    "serve",
    "try",
    "init",
    "critics",
    "rounds",
)
SENTENCE = "I missed my bus."


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


# ---- all verbs


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from quip.cli.main import app\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'numpy', 'openai', 'yaml', 'rich'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    assert verb in quip("--help").stdout
    assert quip(verb, "--help").exit_code == 0


def test_the_list_of_verbs_cuts_no_sentence_short() -> None:
    verbs = quip("--help").stdout.split("Commands:")[1]
    assert len(verbs.splitlines()) > len(VERBS)
    assert "..." not in verbs.split("An arm is")[0]


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2() -> None:
    done = quip("results")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "quip: data/metrics/wtr.json: no results yet. Run `make run` or `dvc repro`.\n"
    )


def test_an_error_s_own_exit_code_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arm: str | None) -> None:
        raise mlflow_store.TrackingError("the store is gone")

    monkeypatch.setattr(paraphrase, "load_paraphraser", broken)
    assert quip("say", SENTENCE).exit_code == 3


# ---- say


def test_say_without_any_model_names_the_remedy() -> None:
    write_params()
    done = quip("say", SENTENCE)
    assert done.exit_code == 2
    assert "no champion in the registry and no trained model in models/" in done.stderr
    assert "`dvc repro` makes it" in done.stderr
    assert not Path("mlflow.db").exists()


def test_say_refuses_an_empty_text() -> None:
    assert "TEXT is empty" in quip("say", "  ").stderr


def test_say_names_the_arms_that_are_there(tiny_student: Path) -> None:
    write_params()
    shutil.copytree(tiny_student, "models/sft")
    done = quip("say", SENTENCE, "--arm", "dpp")
    assert done.exit_code == 2
    assert "there is no model 'dpp'. Trained here: sft." in done.stderr


def test_say_uses_a_model_folder_and_repeats_a_seed(tiny_student: Path) -> None:
    write_params()
    shutil.copytree(tiny_student, "models/sft")
    first = quip("say", SENTENCE, "--n", "2")
    assert first.exit_code == 0, first.output
    assert 1 <= first.stdout.count("\n") <= 2
    assert quip("say", SENTENCE, "--n", "2").stdout == first.stdout


def test_say_reads_a_pipe_a_sentence_a_line(tiny_student: Path) -> None:
    write_params()
    shutil.copytree(tiny_student, "models/sft")
    done = quip("say", "--json", "--n", "2", "--seed", "7", typed=f"{SENTENCE}\n\n  It rained. \n")
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["literal"] for row in found] == [SENTENCE, "It rained."]
    assert all(1 <= len(row["paraphrases"]) <= 2 and row["seed"] == 7 for row in found)
    single = quip("say", SENTENCE, "--json", "--n", "2", "--seed", "7")
    assert json.loads(single.stdout) == found[0]
    other = quip("say", SENTENCE, "--json", "--n", "2", "--seed", "8")
    assert json.loads(other.stdout)["paraphrases"][1:] != found[0]["paraphrases"][1:]


def test_say_without_a_text_reads_the_terminal(tiny_student: Path) -> None:
    write_params()
    shutil.copytree(tiny_student, "models/sft")
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "-m", "quip.cli.main", "say", "--n", "1", "--json"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, f"{SENTENCE}\nIt rained.\n\n".encode())
    out, err = started.communicate()
    os.close(ours)
    assert started.returncode == 0, err
    rows = [json.loads(line.removeprefix("> ")) for line in out.splitlines() if "{" in line]
    assert [row["literal"] for row in rows] == [SENTENCE, "It rained."]
    assert "One sentence per line" in err


def test_without_a_registry_the_recorded_champion_is_used(tiny_student: Path) -> None:
    write_params()
    for arm in ("sft", "dpo"):
        shutil.copytree(tiny_student, Path("models", arm))
    assert paraphrase.arm_folder(None) == Path("models/dpo")
    Path("data").mkdir()
    Path("data/registry.json").write_text('{"sft": {"aliases": ["champion"]}, "dpo": {}}')
    assert paraphrase.arm_folder(None) == Path("models/sft")


def test_an_unusable_store_is_reported_and_the_folder_is_used(
    tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params()
    shutil.copytree(tiny_student, "models/sft")
    Path("mlflow.db").write_text("not a database " * 100)
    assert paraphrase.champion_uri() is None
    assert "Using the model folder." in capsys.readouterr().err


def test_without_a_champion_the_folder_is_used(checkout: Path) -> None:
    write_params()
    assert paraphrase.champion_uri() is None


class Parrot:
    """A student whose answers show how it was asked."""


def test_the_judged_answer_comes_first_and_samples_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    from quip.models import generation

    monkeypatch.setattr(generation, "respond", lambda s, rows, **_: [f"beam {t}" for t in rows])
    monkeypatch.setattr(
        generation,
        "sample",
        lambda s, rows, seeds, temperature, **_: [f"{temperature} {t}" for t in rows],
    )
    options = {"top_p": 0.9, "seed": 0, "max_new_tokens": 8, "num_beams": 2}

    def said(n: int, temperature: float) -> list[str]:
        return paraphrase.paraphrases(
            Parrot(), ["a", "b"], num_return_sequences=n, temperature=temperature, **options
        )

    assert said(1, 0.0) == ["beam a", "beam b"]
    assert said(2, 0.0) == ["beam a", "0.9 a", "beam b", "0.9 b"]
    assert said(2, 0.5) == ["0.5 a", "0.5 a", "0.5 b", "0.5 b"]


# ---- times and results


def test_times_shows_the_last_run_of_each_stage_and_its_share() -> None:
    Path(".quip").mkdir()
    rows = [("sft", 90.0, 1), ("prepare", 25.0, 2), ("sft", 75.0, 3)]
    lines = [json.dumps({"stage": s, "seconds": n, "at": at}) for s, n, at in rows]
    Path(".quip/times.jsonl").write_text("\n".join([*lines, '{"stage": "cut o']))
    table = quip("times").stdout.splitlines()
    assert [line.split() for line in table[1:]] == [
        ["prepare", "25.0", "25%"],
        ["sft", "75.0", "75%"],
        ["all", "100.0", "100%"],
    ]


def test_times_before_any_run_says_so() -> None:
    with pytest.raises(DataError, match="no stage has finished here yet"):
        stage_times.read(Path("times.jsonl"))


def test_results_prints_the_table_the_page_and_three_things_to_try() -> None:
    cell = {
        **{"wtr": 0.5, "ci95": [0.4, 0.6], "score": 0.45, "score_ci95": [0.35, 0.55]},
        **{"win": 0.4, "tie": 0.1, "loss": 0.5, "n": 120, "flip_rate": 0.2},
        **{"length_ratio": 1.0, "unparsed": 0.0},
    }
    block = {"test": {"embedded": cell}}
    found = {"arms": {"sft": block, "dpo": block}, "duels": {"dpo_vs_sft": block}}
    Path("data/metrics").mkdir(parents=True)
    controls = {"controls": {"teacher": block}, "texts": {}}
    Path("data/metrics/wtr.json").write_text(json.dumps({**found, **controls}))
    shown = quip("results").stdout
    assert "0.50 [0.40, 0.60]" in shown
    assert "dpo against sft, head to head on test" in shown
    assert "Report page: not there yet: `dvc repro report`" in shown
    assert "  3. " in shown
    Path("data/report").mkdir()
    Path("data/report/report.html").write_text("")
    assert "Report page: data/report/report.html" in quip("results").stdout


# ---- plan


DATA = plan_data.Data(
    {"train": 100, "val": 10, "test": 40, "ood": 20}, {"plain": 30, "length": 10}, 60, 300
)


def sections_with(*changes: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    sections = shipped_params()
    sections["critic"]["prompt"] = sections["judge"]["prompt"] = "teacher"
    sections["critic"]["kind"] = "mcp"
    sections["teacher"]["train_inputs"] = None
    for change in changes:
        change(sections)
    return sections


def work(works: list[plan.Work], stage: str, role: str = "") -> plan.Work:
    (found,) = [w for w in works if w.stage == stage and role in w.role]
    return found


@pytest.mark.parametrize(
    ("critic", "calls"),
    [
        ({"kind": "mcp_reason"}, 2),
        ({"kind": "cloze"}, 2),
        ({"kind": "cloze", "calibrated": True}, 4),
        ({"kind": "panel", "panel": {"signals": ["mcp", "mcp:humor", "words"]}}, 2 + 2),
        ({"kind": "learned"}, 0),
    ],
)
def test_the_plan_counts_the_calls_of_every_kind_of_critic(
    critic: dict[str, Any], calls: int
) -> None:
    sections = shipped_params()
    sections["critic"].update(critic)
    works = [w for w in plan.plan(sections, DATA) if w.stage == "critique" and w.calls]
    assert sum(w.calls for w in works) == calls * DATA.splits["train"]


def test_the_plan_counts_further_audited_critics() -> None:
    sections = shipped_params()
    plain = sum(w.calls for w in plan.plan(sections, DATA) if w.stage == "audit")
    sections["audit"]["kinds"] = ["cloze:humor", "mcp_reason", "learned"]
    more = sum(w.calls for w in plan.plan(sections, DATA) if w.stage == "audit")
    pairs = sum(min(n, sections["audit"]["per_kind"]) for n in DATA.gold.values())
    assert more - plain == (2 + 2) * pairs


def test_the_plan_counts_the_calls_of_every_role() -> None:
    def small(sections: dict[str, Any]) -> None:
        sections["arms"] = ["sft", "dpo"]
        sections["teacher"].update(endpoint="embedded")
        sections["judge"].update(endpoints=["embedded"], splits=["test", "ood"], control_inputs=15)
        sections["candidates"].update(best_of=3, best_of_inputs=10)
        sections["audit"]["per_kind"] = 20

    works = plan.plan(sections_with(small), DATA)
    assert work(works, "teacher").calls == 170
    assert work(works, "audit").calls == 2 * (20 + 10)
    assert work(works, "critique").calls == 2 * 100
    assert work(works, "judge@dpo").calls == 2 * 60
    assert work(works, "duel").calls == 2 * 40
    assert work(works, "control", "critic").calls == 2 * 10 * 2
    assert work(works, "control", "judge").calls == 2 * (15 + 15 + 10)
    assert work(works, "align@dpo").seconds > 0


def test_duels_are_planned_on_no_more_inputs_than_wanted() -> None:
    works = plan.plan(sections_with(lambda s: s["judge"].update(duel_inputs=7)), DATA)
    assert work(works, "duel").calls == 2 * 7


def test_other_params_are_planned_from_their_limits() -> None:
    shutil.copytree(ROOT / "data" / "raw", "data/raw")
    recipe = read_params(ROOT / "params.paper.yaml")
    assert plan_data.measure_data(recipe, prepared_here=False).splits["train"] == 12000
    recipe["prepare"]["limit"]["train"] = None
    with pytest.raises(ParamsError, match=r"dvc repro prepare"):
        plan_data.measure_data(recipe, prepared_here=False)


def test_a_learned_critic_is_asked_for_nothing_but_its_training() -> None:
    def learned(sections: dict[str, Any]) -> None:
        sections["critic"]["kind"] = "learned"
        sections["audit"]["per_kind"] = 20

    works = plan.plan(sections_with(learned), DATA)
    assert work(works, "reward").seconds > 0
    assert not [w for w in works if w.role == "critic"]
    assert work(works, "audit").calls == 2 * (20 + 10)


def test_the_teacher_is_asked_for_no_more_training_inputs_than_wanted() -> None:
    few = {"endpoint": "embedded", "train_inputs": 30}
    works = plan.plan(sections_with(lambda s: s["teacher"].update(few)), DATA)
    assert work(works, "teacher").calls == 30 + 70


def test_brio_dpo_adds_the_ranking_of_the_teacher_s_texts() -> None:
    def more(sections: dict[str, Any]) -> None:
        sections["arms"] = ["sft", "brio_dpo"]
        sections["teacher"]["n"] = sections["imitation"]["per_input"] = 3
        sections["candidates"]["compare"] = 3

    works = plan.plan(sections_with(more), DATA)
    assert work(works, "rank").calls == 2 * 100 * 3
    assert work(works, "critique").calls == 2 * 100 * 3
    assert work(works, "align@warm_brio").seconds > 0


def test_an_endpoint_without_log_probabilities_is_asked_more_often() -> None:
    def sampled(sections: dict[str, Any]) -> None:
        sections["endpoints"]["embedded"]["logprobs"] = False
        sections["critic"]["samples"] = 5

    works = plan.plan(sections_with(sampled), DATA)
    assert work(works, "critique").calls == 2 * 100 * 5


def test_money_follows_from_prices_and_tokens() -> None:
    teacher = work(plan.plan(sections_with(hosted), DATA), "teacher")
    assert teacher.money == pytest.approx((teacher.tokens_in * 2 + teacher.tokens_out * 8) / 1e6)
    assert teacher.seconds == pytest.approx(170 * plan.REMOTE_SECONDS["teacher"] / 10)
    assert sum(w.money for w in plan.plan(sections_with(), DATA)) == 0


def test_a_learned_critic_costs_no_call_and_judges_are_audited_beside_it() -> None:
    works = plan.plan(sections_with(lambda s: s["critic"].update(kind="learned")), DATA)
    assert not [w for w in works if w.role == "critic"]
    assert work(works, "audit", "judge").calls == 2 * (10 + 10)


def test_pairs_of_audit_extra_are_counted(tmp_path: Path) -> None:
    """They once were not: the audit of 50 attempts by a judge was missing from the plan."""
    file = tmp_path / "votes.jsonl"
    rows = [{"literal": f"l{i}", "better": f"b{i}", "worse": f"w{i}"} for i in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = {"extra": ["votes", "absent"], "extra_pairs": 20}
    sections = {"audit": audit, "graded": {"votes": str(file), "absent": str(tmp_path / "x")}}
    assert plan.extra_pairs(sections) == 20
    assert plan.extra_pairs({**sections, "audit": {**audit, "extra_pairs": None}}) == 30


def test_tokens_are_those_of_earlier_calls_where_there_were_any() -> None:
    sections = sections_with(hosted)
    measured = replace(DATA, sizes={("m", "teacher"): (321.5, 45.0)})
    teacher = work(plan.plan(sections, measured), "teacher")
    assert (teacher.tokens_in, teacher.tokens_out) == (54655, 7650)
    reply = ModelReply(text="a", finish_reason="stop", prompt_tokens=10, completion_tokens=4)
    silent = ModelReply(text="a", finish_reason="stop")
    larger = reply.model_copy(update={"prompt_tokens": 20})
    records = [
        Record.now("call", "k", "m", "teacher", 0.0, one.model_dump_json())
        for one in (reply, silent, larger)
    ]
    assert plan_data.mean_call_tokens(records) == {("m", "teacher"): (15.0, 4.0)}


def test_a_plan_above_the_budget_says_so() -> None:
    works = plan.plan(sections_with(hosted), DATA)
    assert "more than budget.money (0.001)" in plan.table(works, 0.001)
    assert "budget.money (" not in plan.table(works, 1000.0)


def test_an_arm_that_is_not_named_costs_nothing() -> None:
    works = plan.plan(sections_with(lambda s: s.update(arms=["sft"])), DATA)
    assert not [w for w in works if w.stage.startswith("align") or w.stage.endswith("dpo")]
    assert work(works, "duel").calls == 0
    assert "duel" not in plan.table(works)


def test_the_table_ends_with_the_sum() -> None:
    works = plan.plan(sections_with(hosted), DATA)
    whole = next(line for line in plan.table(works).splitlines() if line.startswith("all"))
    assert f"{sum(w.calls for w in works):,}" in whole


def test_a_missing_key_or_endpoint_is_named() -> None:
    with pytest.raises(ParamsError, match="KeyError: 'sft'"):
        plan.plan(sections_with(lambda s: s.pop("sft")), DATA)
    with pytest.raises(ParamsError, match="endpoint 'nowhere' is not under endpoints"):
        plan.plan(sections_with(lambda s: s["critic"].update(endpoint="nowhere")), DATA)


def test_the_shipped_data_are_counted_before_the_first_run() -> None:
    shutil.copytree(ROOT / "data" / "raw", "data/raw")
    limit = {"train": 50, "val": 5, "test": None, "ood": 7}
    chosen = {"source": "shipped", "ood_source": "shipped", "limit": limit}
    data = plan_data.measure_data({"prepare": chosen})
    assert (data.splits["train"], data.splits["val"], data.splits["ood"]) == (50, 5, 7)
    assert data.splits["test"] >= 120
    assert sum(data.gold.values()) >= 150


def test_prepared_data_are_counted_exactly() -> None:
    shutil.copytree(ROOT / "data" / "raw", "data/raw")
    Path("data/prepared").mkdir()
    for number, split in enumerate(("train", "val", "test", "ood"), start=1):
        rows = [json.dumps({"id": f"{split}{i}", "text": "abcd"}) for i in range(number)]
        Path(f"data/prepared/{split}.jsonl").write_text("\n".join(rows))
    data = plan_data.measure_data({})
    assert data.splits == {"train": 1, "val": 2, "test": 3, "ood": 4}
    assert data.literal == 4


def test_another_source_must_be_prepared_first() -> None:
    shutil.copytree(ROOT / "data" / "raw", "data/raw")
    with pytest.raises(ParamsError, match="Run `dvc repro prepare`"):
        plan_data.measure_data({"prepare": {"source": "my.csv", "ood_source": "shipped"}})
