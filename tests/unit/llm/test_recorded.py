"""Recorded endpoints: how a reply is found, what is refused, and that nothing is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quip.critics.comparison import Comparison
from quip.critics.multiple_choice import compare
from quip.data.reply_parsing import parse_reply
from quip.llm import connection
from quip.llm.call_outputs import record_calls
from quip.llm.endpoints import endpoint
from quip.llm.recorded import Recording, numbered
from quip.llm.requests.chat import About, ModelReply, Request
from quip.llm.requests.protocols import ECHO, scoring_request
from quip.runtime import paths
from quip.runtime.errors import DataError, ParamsError, QuipError

Project = Callable[..., Path]
FILE = "data/raw/recorded.jsonl"
BUS = {"literal": "I missed my bus.", "paraphrases": ["The bus left.", "Buses and I differ."]}
PAIR = {"literal": "I ran.", "a": "joke", "b": "flat"}


@pytest.fixture
def recorded(project: Project) -> Callable[..., None]:
    """`recorded(row, ...)` makes endpoint `recorded` of these rows."""

    def make(*rows: dict[str, Any], **entry: Any) -> None:
        project(endpoints={"recorded": {"replies": FILE, "model": "m", **entry}})
        Path(FILE).parent.mkdir(parents=True, exist_ok=True)
        Path(FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return make


def ask(*about: About | None, prompt: str = "any") -> list[ModelReply | None]:
    requests = [Request((("user", prompt),), about=one) for one in about]
    with connection.connect("recorded") as llm:
        return list(llm.ask(requests, "test"))


def texts(*about: About | None) -> list[str]:
    return [reply.text if reply else "" for reply in ask(*about)]


def refusal(*about: About | None) -> str:
    with pytest.raises(QuipError) as caught:
        ask(*about)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_n_paraphrases_are_given_as_a_numbered_list(recorded: Any) -> None:
    recorded({**BUS, "id": "s1", "devices": ["irony"]})
    assert texts(About("I missed my bus.", n=2)) == ["1. The bus left.\n2. Buses and I differ."]
    assert texts(About("I missed my bus.", n=1)) == ["1. The bus left."]


def test_a_literal_is_found_whatever_its_case_and_spaces(recorded: Any) -> None:
    recorded(BUS)
    assert texts(About("i missed  MY bus", n=1)) == ["1. The bus left."]


def test_the_words_of_the_prompt_play_no_part(recorded: Any) -> None:
    recorded(BUS)
    one, other = (ask(About(BUS["literal"], n=2), prompt=prompt) for prompt in ("a", "b"))
    assert one == other


def test_missing_literals_are_refused_before_any_reply_is_given(recorded: Any) -> None:
    recorded(BUS)
    said = refusal(About(BUS["literal"], n=2), *(About(f"Other {i}.", n=2) for i in range(5)))
    assert said.startswith(
        f"endpoint 'recorded' ({FILE}) lacks 2 paraphrases of literals (5): 'Other 0.', "
        "'Other 1.', 'Other 2.' and 2 more. Add rows for them, or record them: "
    )


def test_too_few_paraphrases_are_refused_unless_the_row_says_that_they_are_all(
    recorded: Any,
) -> None:
    recorded(BUS)
    said = refusal(About(BUS["literal"], n=3))
    assert "lacks 3 paraphrases of literals (1), of some has only 2: 'I missed my bus.'" in said
    recorded({**BUS, "n": 3})
    assert texts(About(BUS["literal"], n=3)) == ["1. The bus left.\n2. Buses and I differ."]
    recorded({**BUS, "paraphrases": [], "n": 3})
    assert texts(About(BUS["literal"], n=3)) == [""]


def test_nothing_is_called_stored_or_paid_and_all_rows_count_as_stored(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(BUS, api_key_env="NO_SUCH_KEY", price_in=5.0)
    monkeypatch.setattr("quip.llm.connection.RequestScheduler", None)
    request = Request((("user", "?"),), about=About(BUS["literal"], n=2))
    with record_calls("calls.jsonl"), connection.connect("recorded") as llm:
        list(llm.ask([request, request], "test"))
        spent = llm.spent()
        assert len(llm.store) == 0
    assert (spent["calls"], spent["stored"], spent["money"], spent["paid"]) == (2, 2, 0.0, 0.0)
    assert Path("calls.jsonl").read_text() == ""
    assert paths.state("calls.journal").stat().st_size < 20


def critiqued(**changes: Any) -> tuple[float | None, float | None]:
    pair = Comparison("t1", "test", "I ran.", "x", "y", "joke", "flat")
    with connection.connect("recorded") as llm:
        (row,) = compare(llm, "critic_paper", 3, [pair], "test", **changes)
    return row.forward.p_first, row.backward.p_first


@pytest.mark.parametrize("reason", [False, True])
def test_a_probability_is_read_back_by_the_usual_way(recorded: Any, reason: bool) -> None:
    recorded({**PAIR, "p_first": 0.9}, {**PAIR, "a": "flat", "b": "joke", "p_first": 0.0})
    forward, backward = critiqued(reason=reason)
    assert forward == pytest.approx(0.9)
    assert backward == pytest.approx(0.0)


def test_another_question_about_the_same_texts_is_another_reply(recorded: Any) -> None:
    swapped = {**PAIR, "a": "flat", "b": "joke", "p_first": 0.5}
    humor = [{**row, "question": "humor", "p_first": 0.7} for row in (PAIR, swapped)]
    recorded({**PAIR, "p_first": 0.9}, swapped, *humor)
    assert critiqued() == (pytest.approx(0.9), pytest.approx(0.5))
    assert critiqued(question="humor") == (pytest.approx(0.7), pytest.approx(0.7))


def test_a_comparison_that_is_missing_is_refused(recorded: Any) -> None:
    recorded({**PAIR, "p_first": 0.9})
    with pytest.raises(DataError, match=r"lacks answers \(1\) to comparisons about 'I ran.'. Add"):
        critiqued()


def test_what_no_recording_answers_is_refused(recorded: Any) -> None:
    recorded(BUS)
    assert "answers as teacher and as critic or judge" in refusal(None)
    with connection.connect("recorded") as llm, pytest.raises(DataError, match=r"`base_url` here"):
        llm.ask([scoring_request("a", "b")], "cloze", route=ECHO)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([BUS, {**BUS, "paraphrases": ["x"]}], "line 2: another reply for 'I missed my bus.'"),
        ([{"literal": "x", "paraphrases": []}], "line 1: no paraphrase"),
        ([{"literal": "x", "paraphrases": "y"}], "line 1: field 'paraphrases'"),
        ([PAIR], "line 1: a comparison needs either 'p_first' or 'text'"),
        ([{**PAIR, "p_first": 2}], "line 1: field 'p_first'"),
        ([{"literal": "x"}], "line 1: field 'a'"),
    ],
)
def test_a_wrong_row_is_named(recorded: Any, rows: list[dict[str, Any]], message: str) -> None:
    recorded(*rows)
    assert f"{FILE}, {message}" in refusal(About("x", n=1))


def test_an_equal_row_twice_is_no_harm(recorded: Any) -> None:
    recorded(BUS, BUS)
    assert Recording(Path(FILE)).literals() == 1


def test_the_file_stands_where_dvc_watches_it_and_is_there(recorded: Any) -> None:
    recorded(BUS, replies="elsewhere.jsonl")
    assert "endpoints.recorded.replies is elsewhere.jsonl, outside of data/raw" in refusal()
    recorded(BUS, replies="data/raw/none.jsonl")
    assert "endpoint 'recorded' (data/raw/none.jsonl): no such file. `dvc pull`" in refusal()


@pytest.mark.parametrize(
    ("entry", "has"), [({"base_url": "x", "replies": "y"}, "both"), ({}, "neither")]
)
def test_an_endpoint_has_either_an_address_or_a_file(
    project: Project, entry: dict[str, str], has: str
) -> None:
    project(endpoints={"odd": {"model": "m", **entry}})
    with pytest.raises(ParamsError) as caught:
        endpoint("odd")
    assert str(caught.value) == (
        "params.yaml: endpoint 'odd' needs `base_url` (an address) or `replies` (a file of "
        f"recorded replies), and has {has}."
    )


def test_the_environment_gives_a_recorded_endpoint_no_address(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(BUS)
    monkeypatch.setenv("QUIP_BASE_URL_RECORDED", "http://127.0.0.1:9/v1")
    assert endpoint("recorded").recorded
    assert not endpoint("recorded").base_url


@pytest.mark.parametrize("text", ["1. Sure, 2. and done.", "A: b, 3. of them?", 'He said "no".'])
def test_a_list_is_parsed_into_what_it_was_made_of(text: str) -> None:
    assert parse_reply(numbered([text, "Other one."]), "stop") == [text, "Other one."]
