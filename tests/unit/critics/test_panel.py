"""The panel: one critic from several signals, fitted on the tuning half of the gold pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fake_endpoint import ChatServer, chat, likes, shown
from quip.core.jsonl import write_rows
from quip.core.records import Critique, GoldPair
from quip.critics import critic_kinds
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import CriticParams, PanelParams
from quip.critics.debiasing import Debias, calibrated_preference
from quip.critics.panel import gold_half, merge_ledgers, regression
from quip.runtime.errors import DataError, ParamsError

Project = Callable[..., Path]
PAIRS = [
    Comparison("t1", "train", "l", "0", "1", "funny but long", "dull"),
    Comparison("t2", "train", "l", "0", "1", "dull", "funny but long"),
    Comparison("t3", "train", "l", "0", "1", "same", "same"),
]
LOG_ODDS = Debias(method="log_odds", scale=17.0, per_word=-1.0)


def gold() -> list[GoldPair]:
    """Funny is better, whatever the length: half of the better texts are the longer ones."""
    texts = [("funny", "dull"), ("funny indeed it is", "dull"), ("funny", "dull and long it is")]
    return [
        GoldPair(id=f"{half}{n}", kind=f"k{n % 2}", half=half, literal="l", better=b, worse=w)
        for half in ("tune", "held_out")
        for n, (b, w) in enumerate(texts * 2)
    ]


def panel(*signals: str, per_kind: int | None = None) -> CriticParams:
    parts = PanelParams(signals=list(signals), per_kind=per_kind)
    return CriticParams(kind="panel", endpoint="scripted", prompt=None, samples=1, panel=parts)


def ask(project: Project, one: CriticParams) -> list[Critique]:
    folder = project()
    write_rows(folder / "data/raw/gold.jsonl", gold())
    return critic_kinds.ask(one, "reward", PAIRS, "test").rows


@pytest.fixture
def panel_prompt(critic_prompt: None, tmp_path: Path) -> None:
    text = (tmp_path / "prompts/critic.txt").read_text(encoding="utf-8")
    humor = f"--- system\nHumor alone.\n{text}"
    (tmp_path / "prompts/critic_humor.txt").write_text(humor, encoding="utf-8")


@pytest.mark.usefixtures("panel_prompt")
def test_it_learns_which_signal_to_follow(server: ChatServer, scripted_project: Project) -> None:
    """The endpoint likes long texts a little; the gold pairs say that humor counts."""
    server.answer = likes(lambda text: 2.0 * ("funny" in text) + 0.2 * len(text), lean=3.0)
    first, second, same = ask(scripted_project, panel("mcp/critic", "words"))
    likely = calibrated_preference(first, LOG_ODDS)
    assert likely is not None
    assert likely > 0.5
    assert calibrated_preference(second, LOG_ODDS) == pytest.approx(1 - likely)
    assert calibrated_preference(same, LOG_ODDS) == 0.5
    assert {row.judge for row in (first, second, same)} == {"panel"}


@pytest.mark.usefixtures("panel_prompt")
def test_every_signal_is_asked_about_the_tuning_half_and_nothing_twice(
    server: ChatServer, scripted_project: Project
) -> None:
    server.answer = likes(len)
    one = panel("mcp/critic", "mcp:humor/critic", "words", per_kind=1)
    ask(scripted_project, one)
    asked = len(server.asked)
    assert asked == 2 * (2 * 2 + 2)  # two signals, two lessons in both orders, t1 and t2 turned
    ask(scripted_project, one)
    assert len(server.asked) == asked


@pytest.mark.usefixtures("panel_prompt")
def test_a_pair_with_an_unreadable_signal_is_unread(
    server: ChatServer, scripted_project: Project
) -> None:
    good = likes(lambda text: 2.0 * ("funny" in text))
    server.answer = lambda body: chat("I", {"I": -0.1}) if "but" in str(shown(body)) else good(body)
    first, _, _ = ask(scripted_project, panel("mcp/critic"))
    assert (first.forward.p_first, first.forward.source) == (None, "unread")


@pytest.mark.parametrize("spec", ["learned", "panel"])
def test_a_critic_trained_on_the_same_pairs_is_refused_as_a_signal(
    spec: str, scripted_project: Project
) -> None:
    with pytest.raises(ParamsError, match=f"'{spec}' cannot be a signal"):
        ask(scripted_project, panel(spec))


def test_without_tuning_pairs_there_is_nothing_to_fit(scripted_project: Project) -> None:
    folder = scripted_project()
    write_rows(folder / "data/raw/gold.jsonl", [p for p in gold() if p.half == "held_out"])
    with pytest.raises(DataError, match="so the panel cannot be fitted"):
        critic_kinds.ask(panel("words"), "reward", PAIRS, "test")


def test_a_useless_signal_gets_little_weight_and_a_constant_one_none() -> None:
    rng = np.random.default_rng(1)
    good, useless = rng.normal(1.0, 1.0, 200), rng.normal(0.0, 1.0, 200)
    weights = regression(np.stack([good, useless, np.zeros(200)], axis=1))
    assert weights[0] > 5 * abs(weights[1])
    assert weights[2] == pytest.approx(0.0)


def test_the_first_pairs_of_each_kind_are_chosen() -> None:
    assert [pair.id for pair in gold_half(gold(), "tune", 1)] == ["tune0", "tune1"]
    assert len(gold_half(gold(), "held_out", None)) == 6


def test_ledgers_add_up_and_name_their_models() -> None:
    one = {"model": "m", "calls": 2, "money": 0.5}
    assert merge_ledgers([one, {**one, "model": "n"}]) == {
        "model": "m + n",
        "calls": 4,
        "money": 1.0,
    }
    assert merge_ledgers([]) == {}
