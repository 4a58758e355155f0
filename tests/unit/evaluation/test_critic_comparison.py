"""Critic comparison: every debiasing method of each, its costs, and the fitted numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fake_endpoint import CRITIC_PROMPT, ChatServer, likes
from quip.core.jsonl import write_rows
from quip.core.records import GoldPair
from quip.critics.critic_settings import CriticParams, parse
from quip.critics.debiasing import logit
from quip.evaluation import critic_comparison
from quip.llm.requests import prompts
from quip.runtime.errors import ParamsError

Project = Callable[..., Path]


@pytest.fixture
def gold(scripted_project: Project, server: ChatServer, critic_prompt: None) -> None:
    """Eight pairs a half; the critic names the good text at odds of 2, and leans to the first."""
    (prompts.FOLDER / "critic_paper.txt").write_text(CRITIC_PROMPT, encoding="utf-8")
    server.answer = likes(lambda text: 2.0 * ("good" in text), lean=3.0)
    rows = [
        GoldPair(
            **{"id": f"{half}{n}", "kind": kind, "half": half, "literal": f"l {n}"},
            **{"better": f"good {n}", "worse": f"bad {n}" + " and long" * (n % 2)},
        )
        for half in ("tune", "held_out")
        for n, kind in enumerate(["plain", "off_topic"] * 4)
    ]
    write_rows(scripted_project() / "data/raw/gold.jsonl", rows)


@pytest.mark.usefixtures("gold")
def test_every_debiasing_of_a_critic_is_a_row(server: ChatServer) -> None:
    rows, fits = critic_comparison.compare_critics(["mcp"], "held_out", None)
    assert [row.method for row in rows] == ["none", "probability", "log_odds", "content_free"]
    found = {row.method: row.found["agreement"] for row in rows}
    assert found["log_odds"] == found["content_free"] == found["probability"] == 1.0
    assert found["none"] < 1.0  # the lean of 3 is more than the difference of 2
    assert {row.found["position_bias"] for row in rows} == {1.0}
    assert [(row.calls, row.tokens) for row in rows] == [(1, 12), (2, 24), (2, 24), (1, 12)]
    assert fits == {}
    assert len(server.asked) == 2 * 8 + 3


@pytest.mark.usefixtures("gold")
def test_a_second_table_costs_nothing(server: ChatServer) -> None:
    first = critic_comparison.compare_critics(["mcp"], "held_out", 2)
    asked = len(server.asked)
    assert critic_comparison.compare_critics(["mcp"], "held_out", 2) == first
    assert len(server.asked) == asked


@pytest.mark.usefixtures("gold")
def test_the_tuning_half_fits_the_numbers_of_debias(server: ChatServer) -> None:
    _, fits = critic_comparison.compare_critics(["critic"], "tune", None)
    found = fits["mcp/critic"]
    assert found.method == "log_odds"
    assert found.scale > 0
    assert found.content_free is not None
    assert logit(found.content_free) == pytest.approx(3.0, abs=0.01)


@pytest.mark.usefixtures("gold")
def test_the_length_is_corrected_by_numbers_of_the_other_half(server: ChatServer) -> None:
    """It likes length more than the good: fitted on the tuning half, a word is taken off."""
    server.answer = likes(lambda text: 0.5 * ("good" in text) + len(text.split()))
    plain, corrected = critic_comparison.compare_critics(["mcp"], "held_out", None, length=True)[0][
        2::2
    ]
    assert (plain.method, corrected.method) == ("log_odds", "log_odds, length")
    assert plain.found["length_bias"] == 0.5
    assert corrected.found["length_bias"] == 0.0
    assert corrected.found["agreement"] == 1.0


@pytest.mark.usefixtures("gold")
def test_the_table_is_markdown_with_a_line_a_row() -> None:
    rows, _ = critic_comparison.compare_critics(["mcp"], "held_out", 1)
    lines = list(critic_comparison.comparison_table(rows))
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[4].startswith("| `mcp` | log_odds | 1.00 [1.00, 1.00] | 1.00")


BASE = CriticParams(kind="learned", endpoint="embedded", samples=3)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("mcp", 2),
        ("mcp_reason:humor", 2),
        ("cloze", 2),
        ("cloze:calibrated", 4),
        ("panel", 6),
        ("learned", 0),
        ("mcp@plain", 6),
    ],
)
def test_calls_of_a_comparison(spec: str, count: int, project: Project) -> None:
    plain = {"base_url": "http://localhost:1/v1", "model": "m", "logprobs": False}
    project(endpoints={"plain": plain})
    assert critic_comparison.calls_per_comparison(parse(spec, BASE)) == count


def test_the_compared_critics_are_every_kind_and_question() -> None:
    kinds = [parse(spec, BASE) for spec in critic_comparison.DEFAULT_CRITICS]
    assert {(one.kind, one.question) for one in kinds} == {
        *(
            (kind, q)
            for kind in ("mcp", "mcp_reason", "cloze")
            for q in ("overall", "humor", "content")
        ),
        *(("panel", "overall"), ("learned", "overall")),
    }


def test_a_name_that_is_no_critic_is_refused() -> None:
    with pytest.raises(ParamsError, match="names no critic"):
        parse(critic_comparison.critic_spec("critic_nobody"), BASE)
