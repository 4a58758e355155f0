"""Votes on two paraphrases become gold pairs, one whole line each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quip.core.jsonl import read_rows
from quip.core.records import GoldPair
from quip.data import votes

SENTENCE = "I missed my bus."


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock on the votes once lay in the checkout of whoever ran the tests."""
    monkeypatch.chdir(tmp_path)


def shown(literal: str = SENTENCE) -> votes.ShownPair:
    return votes.ShownPair(literal, "the bus missed me", "my bus left", "v3", "v2")


@pytest.mark.parametrize(
    ("choice", "better", "start"),
    [("left", "the bus missed me", "vote-v3-over-v2-"), ("right", "my bus left", "vote-v2-over")],
)
def test_a_vote_is_a_gold_pair(tmp_path: Path, choice: Any, better: str, start: str) -> None:
    ballot = votes.Ballot(tmp_path / "votes" / "votes.jsonl")
    found = ballot.vote(ballot.show(shown()), choice)
    assert found is not None
    (pair,) = read_rows(ballot.file, GoldPair)
    assert (pair.kind, pair.literal, pair.better) == ("vote", SENTENCE, better)
    assert pair.id.startswith(start)


def test_all_votes_on_one_sentence_stand_in_one_half() -> None:
    pairs = [votes.gold_pair(str(i), shown(f"Sentence {i % 20}."), "left") for i in range(60)]
    halves: dict[str, set[str]] = {}
    for pair in pairs:
        assert pair is not None
        halves.setdefault(pair.literal, set()).add(pair.half)
    assert all(len(found) == 1 for found in halves.values())
    assert {half for found in halves.values() for half in found} == {"tune", "held_out"}


def test_a_vote_for_neither_writes_nothing(tmp_path: Path) -> None:
    ballot = votes.Ballot(tmp_path / "votes.jsonl")
    assert ballot.vote(ballot.show(shown()), "neither") == (shown(), False)
    assert not ballot.file.exists()


def test_votes_of_many_threads_are_whole_lines(tmp_path: Path) -> None:
    ballot = votes.Ballot(tmp_path / "votes.jsonl")
    keys = [ballot.show(shown(f"Sentence {i}.")) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: ballot.vote(key, "left"), keys))
    assert len({pair.id for pair in read_rows(ballot.file, GoldPair)}) == 40
