"""Multiple choice: reading the answers, and asking in both orders."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_endpoint import ChatServer, chat, likes, shown
from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.debiasing import preference
from quip.critics.multiple_choice import (
    compare,
    p_first_of_choices,
    p_first_of_logprobs,
    parse_choice,
    read_answer,
)
from quip.llm import connection
from quip.llm.requests.chat import ModelReply

Project = Callable[..., Path]


def reply(text: str, top: dict[str, float] | None = None) -> ModelReply:
    return ModelReply(
        text=text, finish_reason="stop", top_logprobs=list(top.items()) if top else None
    )


# ---- log-probabilities


def test_the_probability_is_read_from_the_two_tokens() -> None:
    top = [("1", math.log(0.6)), ("2", math.log(0.2)), ("The", math.log(0.1))]
    assert p_first_of_logprobs(top) == pytest.approx(0.75)


def test_spellings_of_one_choice_are_added_up() -> None:
    top = [("1", math.log(0.3)), (" 1", math.log(0.3)), ("\n2", math.log(0.2))]
    assert p_first_of_logprobs(top) == pytest.approx(0.75)


def test_a_token_that_only_holds_a_choice_is_not_one() -> None:
    top = [("12", -0.1), ("1.", -0.2), ("-1", -0.3), ("2", math.log(0.2)), ("1", math.log(0.2))]
    assert p_first_of_logprobs(top) == pytest.approx(0.5)


@pytest.mark.parametrize(("named", "p"), [("1", 0.9), ("2", 0.1)])
def test_a_choice_outside_the_list_counts_as_its_last_entry(named: str, p: float) -> None:
    top = [(named, math.log(0.45)), ("The", math.log(0.1)), ("A", math.log(0.05))]
    assert p_first_of_logprobs(top) == pytest.approx(p)


def test_a_choice_alone_in_the_list_gets_one_half() -> None:
    assert p_first_of_logprobs([("2", -0.01)]) == pytest.approx(0.5)


@pytest.mark.parametrize("top", [[("The", -0.1), ("A", -2.0)], [("1", -9999.0), ("2", -9999.0)]])
def test_without_either_choice_there_is_no_vote(top: list[tuple[str, float]]) -> None:
    assert p_first_of_logprobs(top) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["1", " 1", "2", "2 ", "A", "-1", ""]), st.floats(-9999, 0)),
        min_size=1,
        max_size=20,
    )
)
def test_a_probability_is_read_or_nothing(top: list[tuple[str, float]]) -> None:
    p = p_first_of_logprobs(top)
    assert p is None or 0 <= p <= 1
    mirrored = p_first_of_logprobs(
        [({"1": "2", "2": "1"}.get(token.strip(), token), value) for token, value in top]
    )
    assert (p is None) == (mirrored is None)
    if p is not None and mirrored is not None:
        assert p + mirrored == pytest.approx(1)


# ---- answers in words

CHOICES = {
    "1": "1",
    "2": "2",
    " 2\n": "2",
    "1.": "1",
    "**2**": "2",
    "(1)": "1",
    "Choice 2 is funnier.": "2",
    "The answer is 1!": "1",
    "Option 1, definitely option 1.": "1",
    "": None,
    "Both made me laugh": None,
    "1 or 2": None,
    "Option-1": "1",
    "1-2": None,
    "2/1": None,
    "3": None,
    "12": None,
    "-1": None,
    "-2": None,
    "\u22122": None,
    "1.5": None,
    "0.2": None,
    "1,000 times yes": None,
    "I would say 2 out of 10": None,
    "First": None,
    "one": None,
    "v2": None,
    "I cannot compare these.": None,
}


@pytest.mark.parametrize(("text", "choice"), CHOICES.items())
def test_an_answer_names_one_choice_or_none(text: str, choice: str | None) -> None:
    assert parse_choice(text) == choice


@pytest.mark.parametrize("text", ["-1", "0", "3", "None", "1 2", "error"])
def test_an_invalid_answer_is_never_a_vote(text: str) -> None:
    """Elsewhere an answer that could not be read became -1 and then counted as a vote for 2."""
    assert read_answer([reply(text)] * 5) == Answer(
        p_first=None, source="unread", raw=" | ".join([text] * 5)
    )


@given(st.text(alphabet="0123456789-.,/ ab\n"))
def test_the_parser_is_total(text: str) -> None:
    assert parse_choice(text) in ("1", "2", None)


@pytest.mark.parametrize(
    ("choices", "p"),
    [
        (["1", "1", "1"], 4 / 5),
        (["1", "2"], 1 / 2),
        (["2", "2", "2", "2"], 1 / 6),
        (["1", None, None], 2 / 3),
        ([None], None),
        ([], None),
    ],
)
def test_sampled_answers_become_a_share_and_unread_ones_are_left_out(
    choices: list[str | None], p: float | None
) -> None:
    found = p_first_of_choices(choices)
    assert found == (None if p is None else pytest.approx(p))


# ---- one order's answer


def test_log_probabilities_take_precedence_over_the_text() -> None:
    top = {"1": math.log(0.2), "2": math.log(0.8)}
    answer = read_answer([reply("1", top)])
    assert (answer.source, answer.raw) == ("logprobs", "1")
    assert answer.p_first == pytest.approx(0.2)


def test_unreadable_log_probabilities_are_unread_even_where_the_text_names_a_choice() -> None:
    assert read_answer([reply("1", {"The": -0.1})]) == Answer(
        p_first=None, source="unread", raw="1"
    )


def test_an_endpoint_that_leaves_log_probabilities_out_is_read_by_its_text() -> None:
    assert read_answer([reply("2")]) == Answer(p_first=1 / 3, source="samples", raw="2")


def test_a_call_that_failed_for_good_is_unread() -> None:
    assert read_answer([None]) == Answer(p_first=None, source="unread", raw="")
    assert read_answer([None, reply("1")]).p_first == pytest.approx(2 / 3)


def test_a_long_answer_is_kept_short() -> None:
    assert len(read_answer([reply("word " * 200)]).raw) == 200


# ---- asking

PAIRS = [
    Comparison("t1", "test", "I ran.", "dpo", "teacher", "long long joke", "joke"),
    Comparison("t2", "test", "I sat.", "dpo", "teacher", "same", "same"),
    Comparison("t3", "ood", "I {hid}.", "dpo", "teacher", "a", "a {b} 1"),
]


def ask(server: ChatServer, project: Project, logprobs: bool = True) -> list[Critique]:
    entry = {"base_url": server.url, "model": "m", "logprobs": logprobs, "concurrency": 1}
    project(endpoints={"scripted": entry})
    with connection.connect("scripted") as model:
        return compare(model, "critic", 3, PAIRS, "test")


@pytest.mark.usefixtures("critic_prompt")
def test_every_pair_is_asked_in_both_orders_one_after_the_other(
    server: ChatServer, project: Project
) -> None:
    server.answer = likes(len)
    rows = ask(server, project)
    assert [shown(body) for body in server.asked] == [
        ("I ran.", "long long joke", "joke"),
        ("I ran.", "joke", "long long joke"),
        ("I {hid}.", "a", "a {b} 1"),
        ("I {hid}.", "a {b} 1", "a"),
    ]
    assert [(row.input, row.split, row.a, row.b) for row in rows] == [
        (pair.input, pair.split, pair.a, pair.b) for pair in PAIRS
    ]
    assert {(row.judge, row.name_a, row.name_b) for row in rows} == {("scripted", "dpo", "teacher")}


@pytest.mark.usefixtures("critic_prompt")
def test_identical_texts_are_a_tie_and_are_not_asked_about(
    server: ChatServer, project: Project
) -> None:
    server.answer = likes(len)
    same = ask(server, project)[1]
    assert same.forward == same.backward == Answer(p_first=0.5, source="identical")
    assert not any("same" in shown(body) for body in server.asked)


@pytest.mark.usefixtures("critic_prompt")
def test_the_critic_s_bias_for_the_first_position_cancels(
    server: ChatServer, project: Project
) -> None:
    server.answer = likes(lambda text: 2.0 * (text == "joke"), lean=3.0)
    row = ask(server, project)[0]
    assert row.forward.p_first == pytest.approx(1 / (1 + math.exp(-1)))
    assert row.backward.p_first == pytest.approx(1 / (1 + math.exp(-5)))
    assert preference(row.forward, row.backward) == pytest.approx(1 / (1 + math.exp(2)))


@pytest.mark.usefixtures("critic_prompt")
def test_an_endpoint_with_log_probabilities_is_asked_for_one_token(
    server: ChatServer, project: Project
) -> None:
    server.answer = likes(len)
    assert {row.forward.source for row in ask(server, project)} == {"logprobs", "identical"}
    body = server.asked[0]
    assert (body["max_tokens"], body["temperature"], body["top_logprobs"]) == (1, 0, 20)


@pytest.mark.usefixtures("critic_prompt")
def test_an_endpoint_without_them_is_asked_samples_times_an_order(
    server: ChatServer, project: Project
) -> None:
    server.answer = likes(len)
    rows = ask(server, project, logprobs=False)
    assert len(server.asked) == 2 * 2 * 3
    assert [body["seed"] for body in server.asked[:6]] == [0, 1, 2, 0, 1, 2]
    assert all("top_logprobs" not in body for body in server.asked)
    assert rows[0].forward == Answer(p_first=0.8, source="samples", raw="1 | 1 | 1")
    assert rows[0].backward == Answer(p_first=0.2, source="samples", raw="2 | 2 | 2")
    assert preference(rows[0].forward, rows[0].backward) == pytest.approx(0.8)


@pytest.mark.usefixtures("critic_prompt")
def test_an_unreadable_answer_stays_in_the_critiques(server: ChatServer, project: Project) -> None:
    server.answer = lambda body: chat("I", {"I": -0.1, "We": -2.0})
    row = ask(server, project)[0]
    assert row.forward == row.backward == Answer(p_first=None, source="unread", raw="I")
    assert preference(row.forward, row.backward) is None
