"""The audit: agreement and biases of a critic on gold pairs, worked by hand and as a stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import ChatServer, chat, likes, shown
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import Answer, Critique, GoldPair
from quip.critics.debiasing import Debias
from quip.critics.unproven_gate import most_trusted_judge, refuse_unproven
from quip.evaluation.critic_audit import CONTENT, HUMOR, agreement, audit_summary
from quip.evaluation.metrics.bootstrap import rounded_interval
from quip.llm.requests import prompts
from quip.runtime.errors import DataError
from quip.stages import audit
from stage_options import options

Project = Callable[..., Path]
SIGNALS = ["mcp", "mcp:humor", "mcp:content", "words"]
LOG_ODDS = Debias(method="log_odds", scale=1.0, per_word=0.0)
DEBIAS = {"method": "log_odds", "scale": 1.0, "per_word": 0.0}


def pair(key: str, kind: str = "plain", better: str = "b b", worse: str = "w w") -> GoldPair:
    return GoldPair(
        id=key, kind=kind, half="held_out", literal="l", better=better, worse=worse, device=None
    )


def critique(forward: float | None, backward: float | None) -> Critique:
    def answer(p: float | None) -> Answer:
        return Answer(p_first=p, source="unread" if p is None else "logprobs")

    return Critique(
        input="g",
        split="gold",
        literal="l",
        name_a="better",
        name_b="worse",
        a="",
        b="",
        judge="j",
        forward=answer(forward),
        backward=answer(backward),
    )


def summary(pairs: Sequence[GoldPair], critiques: Sequence[Critique]) -> dict[str, Any]:
    return audit_summary(pairs, critiques, LOG_ODDS, resamples=200, seed=1)


PAIRS = [
    pair("right"),
    pair("wrong"),
    pair("torn", kind="nonsense"),
    pair("longer", kind="length", better="b", worse="w w"),
    pair("unread", kind="length"),
]
CRITIQUES = [
    critique(0.9, 0.2),  # names the better text in both orders
    critique(0.1, 0.4),  # the first order names the worse, the second the better: worse in sum
    critique(0.7, 0.7),  # the first position twice: one half
    critique(0.2, 0.9),  # the longer and worse text in both orders
    critique(None, 0.1),
]


def test_worked_rows() -> None:
    found = summary(PAIRS, CRITIQUES)
    assert found["n"] == 4
    assert found["agreement"] == 0.375  # 1, 0, 1/2, 0
    assert found["position_bias"] == 0.5  # "wrong" and "torn" change with the order
    assert found["length_bias"] == 0.25
    assert found["first_share"] == 0.5  # 0.9, 0.7, 0.7, 0.9 of eight answers
    assert (found["unparsed"], found["unparsed_pairs"]) == (0.2, 1)
    assert found["sources"] == {"logprobs": 4, "unread": 1}
    assert {kind: (row["agreement"], row["n"]) for kind, row in found["by_kind"].items()} == {
        "plain": (0.5, 2),
        "nonsense": (0.5, 1),
        "length": (0.0, 1),
    }
    low, high = found["ci95"]
    assert 0 <= low <= 0.375 <= high <= 1
    assert (found["ag_h"]["agreement"], found["ag_h"]["n"]) == (round(1 / 3, 4), 3)  # 1, 0, 0
    assert (found["ag_c"]["agreement"], found["ag_c"]["n"]) == (0.5, 1)
    for bias in ("position_bias", "length_bias"):
        low, high = found[f"{bias}_ci95"]
        assert 0 <= low <= found[bias] <= high <= 1
    assert found["by_kind"]["length"]["length_bias"] == 1.0
    assert found["by_kind"]["nonsense"]["position_bias"] == 1.0


def test_pairs_of_no_known_kind_count_in_the_agreement_alone() -> None:
    found = summary([pair("g", kind="people")], [critique(0.9, 0.1)])
    assert found["agreement"] == 1.0
    assert "ag_h" not in found
    assert "ag_c" not in found


def test_every_shipped_kind_tests_humor_or_content() -> None:
    gold_file = Path(__file__).parents[3] / "data/raw/gold.jsonl"
    assert {row.kind for row in read_rows(gold_file, GoldPair)} == {*HUMOR, *CONTENT}


def test_a_critic_that_is_always_right_agrees_wholly() -> None:
    found = summary(PAIRS[:2], [critique(0.9, 0.1)] * 2)
    assert (found["agreement"], found["ci95"]) == (1.0, [1.0, 1.0])
    assert (found["position_bias"], found["length_bias"]) == (0, 0)


def test_a_critic_that_always_names_the_first_knows_nothing() -> None:
    found = summary(PAIRS, [critique(0.99, 0.99)] * 5)
    assert (found["agreement"], found["position_bias"]) == (0.5, 1.0)
    assert found["first_share"] == 1.0


def test_a_critic_that_always_says_two_is_not_trusted_either() -> None:
    found = summary(PAIRS, [critique(0.01, 0.01)] * 5)
    assert (found["agreement"], found["position_bias"], found["first_share"]) == (0.5, 1.0, 0.0)


def test_the_length_correction_can_change_a_choice() -> None:
    """The critic likes the longer, worse text at odds of 3 : 1; two words more cost log 16."""
    longer = [pair("g", better="b", worse="w w w")]
    critiques = [critique(0.25, 0.75).model_copy(update={"a": "b", "b": "w w w"})]
    assert summary(longer, critiques)["length_bias"] == 1.0
    corrected = Debias(method="log_odds", scale=1.0, per_word=-1.386)
    found = audit_summary(longer, critiques, corrected, resamples=100, seed=1)
    assert (found["agreement"], found["length_bias"]) == (1.0, 0.0)


def test_not_one_readable_answer_is_an_error() -> None:
    with pytest.raises(DataError, match="no answer of the critic could be read"):
        summary(PAIRS[:1], [critique(None, None)])


@pytest.mark.parametrize(("value", "score"), [(0.51, 1.0), (0.5, 0.5), (0.49, 0.0)])
def test_agreement_of_one_pair(value: float, score: float) -> None:
    assert agreement(value) == score


def test_an_interval_is_the_same_for_the_same_seed_and_narrower_for_more_pairs() -> None:
    values = [1.0, 0.0] * 20
    assert rounded_interval(values, 500, 1) == rounded_interval(values, 500, 1)
    wide, narrow = rounded_interval(values, 500, 1), rounded_interval(values * 25, 500, 1)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert wide[0] < 0.5 < wide[1]


# ---- the stage


def gold() -> list[GoldPair]:
    rows = [
        pair(f"{kind}{i}", kind, better=f"good {kind} {i}", worse=f"bad {kind} {i}")
        for kind in ("plain", "length")
        for i in range(3)
    ]
    tune = [rows[0].model_copy(update={"id": "tuned", "half": "tune", "better": "tuned on"})]
    return tune + rows


MCP = {"kind": "mcp", "endpoint": "scripted", "prompt": "critic", "samples": 3}
UNASKED = {
    "question": "overall",
    "calibrated": False,
    "panel": {"signals": SIGNALS, "per_kind": 10},
}


def run(extra: dict[str, Any] | None = None) -> dict[str, Any]:
    write_rows("gold.jsonl", gold())
    write_json("extra.json", extra or {})
    out = options(out="critiques.jsonl", calls="calls.jsonl", metrics="critic.json")
    ledger = options(reward="reward", ledger="ledger.json")
    audit.main([*options(gold="gold.jsonl", extra="extra.json"), *out, *ledger])
    found: dict[str, Any] = json.loads(Path("critic.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.usefixtures("critic_prompt")
def test_the_stage_asks_about_the_held_out_half_only(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(audit={"per_kind": None, "resamples": 100, "seed": 1}, debias=DEBIAS)
    server.answer = likes(lambda text: 2.0 * ("good" in text), lean=0.5)
    found = run()
    assert (found["agreement"], found["n"], found["position_bias"]) == (1.0, 6, 0.0)
    assert found["critic"] == MCP | UNASKED
    assert found["debias"] == DEBIAS | {"content_free": None}
    assert found["kinds"] == {}
    (spent,) = json.loads(Path("ledger.json").read_text())["gold"].values()
    assert (spent["calls"], spent["prompt_tokens"]) == (12, 120)
    assert not {"calls", "stored", "paid"} & found.keys()
    assert not any("tuned on" in text for body in server.asked for text in shown(body))
    rows = read_rows("critiques.jsonl", Critique)
    assert [row.input for row in rows] == [row.id for row in gold()[1:]]
    assert {(row.split, row.name_a, row.name_b) for row in rows} == {("gold", "better", "worse")}
    assert "agreement 1.000 [1.000, 1.000]" in capsys.readouterr().out


@pytest.mark.usefixtures("critic_prompt")
def test_every_critic_of_the_audit_is_measured_on_people_s_grades_too(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(audit={"per_kind": 1, "kinds": ["mcp/other"], "resamples": 100}, debias=DEBIAS)
    (prompts.FOLDER / "other.txt").write_text(
        "--- user\nLiteral: {literal}\n1: {first}\n2: {second}\n", encoding="utf-8"
    )
    server.answer = likes(lambda text: 2.0 * ("liked" in text), lean=0.5)
    texts = {"literal": "I ran.", "better": "liked", "worse": "not so"}
    found = run({"votes": [{"id": "v1", **texts}]})
    assert {name: one["agreement"] for name, one in found["extra"]["votes"].items()} == {
        "scripted": 1.0,
        "mcp/other@scripted": 1.0,
    }


@pytest.mark.usefixtures("critic_prompt")
def test_per_kind_takes_the_first_pairs_of_each_kind(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(audit={"per_kind": 1, "resamples": 100, "seed": 1})
    server.answer = likes(len)
    run()
    rows = read_rows("critiques.jsonl", Critique)
    assert [row.input for row in rows] == ["plain0", "length0"]


@pytest.mark.usefixtures("critic_prompt")
def test_a_critic_without_readable_answers_is_an_error(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(audit={"per_kind": 1, "resamples": 100, "seed": 1})
    server.answer = lambda body: chat("I", {"I": -0.1})
    with pytest.raises(
        DataError, match=r"no answer of the critic could be read. Look at prompts/critic.txt"
    ):
        run()
    assert not Path("critic.json").exists()


def test_gold_pairs_without_a_held_out_half_are_refused() -> None:
    with pytest.raises(DataError, match="no gold pair is marked 'held_out'"):
        audit.held_out_pairs(gold()[:1], None)


# ---- further critics


@pytest.mark.usefixtures("critic_prompt")
def test_further_critics_are_audited_beside_and_change_nothing_of_the_first(
    server: ChatServer, scripted_project: Project, tmp_path: Path
) -> None:
    text = (tmp_path / "prompts/critic.txt").read_text(encoding="utf-8")
    (tmp_path / "prompts/critic_humor.txt").write_text(text, encoding="utf-8")
    settings = {"per_kind": None, "resamples": 100, "seed": 1}
    server.answer = likes(lambda text: 2.0 * ("good" in text), lean=0.5)
    scripted_project(audit=settings, debias=DEBIAS | {"per_word": -9.0})
    alone = run()
    kinds = ["mcp/critic", "mcp:humor/critic"]
    scripted_project(audit=settings | {"kinds": kinds}, debias=DEBIAS | {"per_word": -9.0})
    found = run()
    more = found.pop("kinds")
    assert alone.pop("kinds") == {}
    assert {**found, "stored": 0} == {**alone, "stored": 0}
    assert list(more) == ["mcp:humor/critic@scripted"]  # the first is the critic itself
    assert more["mcp:humor/critic@scripted"]["agreement"] == 1.0  # no length is corrected
    judges = {row.judge for row in read_rows("critiques.jsonl", Critique)}
    assert judges == {"scripted", "mcp:humor/critic@scripted"}


@pytest.mark.usefixtures("critic_prompt")
def test_a_further_critic_gets_its_own_content_free_probability(
    server: ChatServer, scripted_project: Project
) -> None:
    """The lean of the params is the critic's; another prompt leans elsewhere."""
    (prompts.FOLDER / "other.txt").write_text(
        "--- user\nLiteral: {literal}\n1: {first}\n2: {second}\n", encoding="utf-8"
    )
    server.answer = likes(lambda text: 2.0 * ("good" in text), lean=3.0)
    scripted_project(
        audit={"per_kind": None, "kinds": ["mcp/other"], "resamples": 100},
        debias=DEBIAS | {"method": "content_free", "content_free": 0.5},
    )
    found = run()
    assert found["agreement"] < 1.0  # a lean of 3 is more than a difference of 2
    assert found["kinds"]["mcp/other@scripted"]["agreement"] == 1.0


@pytest.mark.parametrize("name", ["learned", "panel", "small", "mcp_reason@small", "cloze@small"])
def test_the_gate_holds_for_every_kind_and_opens_by_name(name: str) -> None:
    chance = {"agreement": 0.55, "ci95": [0.5, 0.6]}
    with pytest.raises(DataError, match=f"'{name}' is not shown .* critique.unproven to {name} "):
        refuse_unproven(chance, name, None)
    with pytest.raises(DataError):
        refuse_unproven(chance, name, "another")
    refuse_unproven(chance, name, name)
    refuse_unproven({**chance, "ci95": [0.501, 0.6]}, name, None)


# ---- whom to believe


def audited(critic: dict[str, str], agreement: float, **judges: float) -> dict[str, Any]:
    found = {name: {"agreement": value} for name, value in judges.items()}
    return {"critic": critic, "agreement": agreement, "judges": found}


def test_the_judge_that_agrees_best_with_the_gold_pairs_is_trusted() -> None:
    learned = audited({"kind": "learned", "endpoint": "small"}, 0.9, small=0.6, large=0.95)
    assert most_trusted_judge(learned, ["small", "learned"]) == "learned"
    assert most_trusted_judge(learned, ["small", "large", "learned"]) == "large"
    asked = audited({"kind": "mcp", "endpoint": "small"}, 0.7, large=0.6)
    assert most_trusted_judge(asked, ["large", "small"]) == "small"


def test_a_judge_nobody_audited_counts_as_a_coin_and_equals_keep_their_order() -> None:
    found = audited({"kind": "learned", "endpoint": "x"}, 0.4, small=0.5)
    assert most_trusted_judge(found, ["learned", "unknown", "small"]) == "unknown"
    assert most_trusted_judge({}, ["b", "a"]) == "b"


def test_a_critic_of_another_kind_says_nothing_of_the_judge_at_its_endpoint() -> None:
    cloze = audited({"kind": "cloze", "endpoint": "small"}, 0.9, small=0.6, large=0.7)
    assert most_trusted_judge(cloze, ["small", "large"]) == "large"
    other_prompt = audited({"kind": "mcp", "endpoint": "small"}, 0.9, small=0.6, large=0.7)
    assert most_trusted_judge(other_prompt, ["small", "large"]) == "large"
