"""critique: choice of the candidates to compare, and the answers kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_endpoint import ChatServer, likes, shown
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import Candidate, Critique, Split
from quip.critics.pair_selection import choose_comparisons, edit_distance, ngrams
from quip.runtime.errors import DataError, ParamsError
from quip.stages import critique
from stage_options import options

Project = Callable[..., Path]
words = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)


def candidates(key: str, *texts: str, split: Split = "train") -> list[Candidate]:
    return [
        Candidate(input=key, split=split, literal=f"{key}.", sample=number, text=text)
        for number, text in enumerate(texts)
    ]


def choose(
    *texts: str,
    ngram: int = 1,
    length_ratio: tuple[float, float] = (0.8, 1.25),
    compare: int = 2,
) -> Any:
    """The compared texts (None when there are none) and what was dropped."""
    params = critique.Params(ngram=ngram, length_ratio=length_ratio, unproven=None)
    pairs, dropped = choose_comparisons(candidates("t", *texts), params, compare)
    return [(pair.a, pair.b) for pair in pairs], dict(dropped)


# ---- how different two texts are


@pytest.mark.parametrize(
    ("a", "b", "n", "distance"),
    [
        ("the bus left", "the bus left", 1, 0.0),
        ("the bus left", "The Bus left", 1, 0.0),
        ("the bus left", "the bus came", 1, 1 / 3),
        ("the bus left", "a cat sat", 1, 1.0),
        ("the bus left", "the bus left me here", 1, 2 / 5),
        ("the bus left", "the bus came", 2, 1 / 2),
        ("a b", "b a", 1, 1.0),
    ],
)
def test_worked_distances(a: str, b: str, n: int, distance: float) -> None:
    assert edit_distance(a, b, n) == pytest.approx(distance)


def test_a_text_shorter_than_n_is_one_ngram() -> None:
    assert ngrams("Hello", 3) == ["hello"]
    assert ngrams("a b c", 2) == ["a b", "b c"]


@given(words, words, st.integers(1, 3))
def test_a_distance_is_symmetric_and_between_0_and_1(a: str, b: str, n: int) -> None:
    assert 0 <= edit_distance(a, b, n) <= 1
    assert edit_distance(a, b, n) == edit_distance(b, a, n)
    assert edit_distance(a, a, n) == 0


# ---- choosing the pair


def test_the_most_diverse_pair_is_compared() -> None:
    pairs, dropped = choose(
        "the bus left me", "the bus left us", "a cat sat down", "the cat sat us"
    )
    assert pairs == [("the bus left me", "a cat sat down")]
    assert dropped == {}


def test_texts_of_unlike_length_are_not_compared() -> None:
    """The critic favours longer texts: 10 words against 8 are allowed, against 7 not."""
    ten, eight, seven = "a " * 10, "b " * 8, "c " * 7
    assert choose(ten.strip(), eight.strip())[0] == [(ten.strip(), eight.strip())]
    assert choose(ten.strip(), seven.strip()) == ([], {"length_ratio": 1})
    assert choose(seven.strip(), ten.strip()) == ([], {"length_ratio": 1})


def test_a_less_diverse_pair_of_like_length_is_taken_instead() -> None:
    pairs, _ = choose("a b c d", "a b c e", "x")
    assert pairs == [("a b c d", "a b c e")]


def test_an_input_whose_samples_are_all_alike_is_dropped_by_that_reason() -> None:
    assert choose("same", "same", "same") == ([], {"all_alike": 1})
    assert choose("only one", "") == ([], {"all_alike": 1})


def test_three_texts_are_compared_each_with_each() -> None:
    """Two of these five lie apart from the others; the third is the most unlike both."""
    texts = ("a b c d", "a b c e", "f g h i", "a b h i", "k l m n")
    pairs, dropped = choose(*texts, compare=3)
    assert pairs == [
        ("a b c d", "f g h i"),
        ("a b c d", "k l m n"),
        ("f g h i", "k l m n"),
    ]
    assert dropped == {}


def test_every_two_texts_of_a_group_have_similar_lengths() -> None:
    """8 words are near 9 and 9 near 11, but 8 not 11: of the three only two are compared."""
    eight, nine, eleven = ("a " * 8).strip(), ("b " * 9).strip(), ("c " * 11).strip()
    assert choose(eight, nine, eleven, compare=3)[0] == [(eight, nine)]


def test_only_training_candidates_are_compared() -> None:
    rows = candidates("t", "a b", "c d", split="test") + candidates("u", "e f", "g h")
    pairs, _ = choose_comparisons(
        rows, critique.Params(ngram=1, length_ratio=(0.8, 1.25), unproven=None), 2
    )
    assert [pair.input for pair in pairs] == ["u"]


# ---- the stage


def run(low: float = 0.6) -> None:
    write_json("audit.json", {"agreement": low + 0.1, "ci95": [low, low + 0.2]})
    files = {"candidates": "candidates.jsonl", "reward": "r", "audit": "audit.json"}
    critique.main(options(**files, out="critique.jsonl", calls="calls.jsonl", metrics="m.json"))


@pytest.mark.usefixtures("critic_prompt")
def test_a_critic_at_chance_is_refused_unless_it_is_named(
    server: ChatServer, scripted_project: Project
) -> None:
    server.answer = likes(len)
    scripted_project(critique={"unproven": "another"})
    with pytest.raises(DataError, match=r"'scripted' is not shown .* 0\.60 \[0\.50, 0\.70\]"):
        run(low=0.5)
    assert not server.asked
    scripted_project(critique={"unproven": "scripted"})
    write_rows("candidates.jsonl", candidates("t1", "dull a b", "fun c d"))
    run(low=0.5)
    assert len(server.asked) == 2


@pytest.mark.usefixtures("critic_prompt")
def test_the_stage_keeps_both_raw_orders_and_counts(
    server: ChatServer, scripted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_project(critique={"ngram": 1, "length_ratio": [0.8, 1.25]})
    server.answer = likes(lambda text: 3.0 * text.startswith("fun"))
    rows = [
        *candidates("t1", "dull a b", "fun c d", "dull a d"),
        *candidates("t2", "x", "x"),
        *candidates("t3", "one", "one two three"),
    ]
    write_rows("candidates.jsonl", rows)
    run()
    (row,) = read_rows("critique.jsonl", Critique)
    assert (row.input, row.split, row.literal, row.judge) == ("t1", "train", "t1.", "scripted")
    assert (row.name_a, row.a, row.name_b, row.b) == ("0", "dull a b", "1", "fun c d")
    assert (row.forward.raw, row.backward.raw) == ("2", "1")
    assert row.forward.p_first == pytest.approx(1 - row.backward.p_first)  # type: ignore[operator]
    assert [shown(body)[1] for body in server.asked] == ["dull a b", "fun c d"]
    assert json.loads(Path("m.json").read_text()) == {
        "pairs": 1,
        "dropped": {"all_alike": 1, "length_ratio": 1},
        "calls": 2,
        "stored": 0,
        "failed": 0,
        "refused": 0,
        "retries": 0,
        "prompt_tokens": 20,
        "cached_tokens": 0,
        "completion_tokens": 4,
        "money": 0.0,
        "paid": 0.0,
        "model": "m",
    }
    assert "critique: pairs 1, all_alike 1, length_ratio 1" in capsys.readouterr().out


def test_more_texts_to_compare_than_there_are_is_refused(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(candidates={"k": 4, "compare": 5})
    with pytest.raises(ParamsError, match=r"'candidates.compare' is 5, more than the 4 samples"):
        run()
    assert not server.asked


@pytest.mark.usefixtures("critic_prompt")
def test_of_three_texts_every_two_are_compared_in_both_orders(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project(candidates={"k": 4, "compare": 3})
    server.answer = likes(len)
    write_rows("candidates.jsonl", candidates("t1", "a b c", "d e f", "g h i", "a b d"))
    run()
    assert [(row.name_a, row.name_b) for row in read_rows("critique.jsonl", Critique)] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "2"),
    ]
    assert len(server.asked) == 6


def test_no_pair_at_all_stops_the_stage_with_the_remedy(
    server: ChatServer, scripted_project: Project
) -> None:
    scripted_project()
    write_rows("candidates.jsonl", candidates("t1", "x", "x"))
    with pytest.raises(DataError, match=r"no pair .* left \(\{'all_alike': 1\}\). Raise candidat"):
        run()
    assert not server.asked
