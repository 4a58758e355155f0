"""The key of a call: by it a reply that was paid for is found again, for years."""

from __future__ import annotations

from dataclasses import replace

from quip.llm.requests.chat import About, Request

ASKED = Request((("user", "?"),), temperature=0.8, max_tokens=64, seed=7)
KEY = "f2b1009e527da41bbdf14ba53daa44245caae18e137e61279f0017df31b235e0"


def test_the_key_is_the_one_that_stored_calls_have() -> None:
    assert ASKED.key("m") == KEY


def test_what_a_call_is_about_changes_neither_its_key_nor_what_is_sent() -> None:
    told = replace(ASKED, about=About("I ran.", n=2))
    assert told.key("m") == KEY
    assert told.body("m") == ASKED.body("m")
