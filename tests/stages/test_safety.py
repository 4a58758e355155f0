"""safety: the pattern list, the user's own words, a real endpoint as classifier, and counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faulty_endpoint import FaultyServer
from quip.core.jsonl import write_rows
from quip.core.records import Reference, Response, TrainingPair
from quip.core.text import fold
from quip.evaluation import safety_screen
from quip.evaluation.safety_screen import (
    Flag,
    Words,
    parse_classification,
    read_patterns,
    read_words,
    screen,
)
from quip.llm import retries
from quip.llm.requests.chat import ModelReply
from quip.runtime.errors import DataError
from quip.stages import safety
from stage_options import options

ROOT = Path(__file__).parents[2]
PATTERNS = ROOT / "data/safety/patterns.yaml"
RULES, CATEGORIES = read_patterns(PATTERNS)
NONE = Words(frozenset(), frozenset())
CASES = [
    (category, kind, text)
    for category, entry in CATEGORIES.items()
    for kind in ("catches", "passes")
    for text in entry[kind]
]


@pytest.mark.parametrize(("category", "kind", "text"), CASES)
def test_the_list_flags_and_passes_its_own_cases(category: str, kind: str, text: str) -> None:
    found = [hit.category for hit in screen(text, RULES, NONE)]
    assert found == ([category] if kind == "catches" else [])


def test_the_list_has_cases_of_both_kinds_for_every_category() -> None:
    assert set(CATEGORIES) == {"violence", "self_harm", "sexual", "demeaning", "personal_data"}
    assert all(len(entry[k]) >= 3 for entry in CATEGORIES.values() for k in ("catches", "passes"))


def test_every_pattern_is_needed_by_no_other_category() -> None:
    """Each category's cases are caught by its own patterns only."""
    for category, entry in CATEGORIES.items():
        others = [rule for rule in RULES if rule.category != category]
        assert not [text for text in entry["catches"] if screen(text, others, NONE)]


def test_curly_apostrophes_width_and_case_do_not_evade_a_pattern() -> None:
    hidden = "I\u2019LL  \uff53\uff54\uff41\uff42 you"
    assert [hit.category for hit in screen(hidden, RULES, NONE)] == ["violence"]


def test_own_words_are_matched_whole_in_the_clear_and_as_digests(tmp_path: Path) -> None:
    digest = hashlib.sha256(fold("purple Walrus!").encode()).hexdigest()
    file = tmp_path / "words.txt"
    file.write_text(f"# a note\n\nTurnip soup\n{digest.upper()}\n", encoding="utf-8")
    words = read_words(file)
    assert words == Words(frozenset({"turnip soup"}), frozenset({digest}))
    for text in ("My TURNIP, soup!", "He is a Purple walrus today"):
        assert [hit.by for hit in screen(text, [], words)] == ["words"]
    for text in ("turnips souped up", "purple and walrus", ""):
        assert screen(text, [], words) == []


def test_the_shipped_words_file_holds_notes_only() -> None:
    assert read_words(ROOT / "data/safety/words.txt") == NONE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("categories: {x: {patterns: ['(']}}", "x 1: not a regular expression"),
        ("categories: {x: {patterns: ['<who>']}}", "x 1: there is no list 'who'"),
        ("categories: {x: {patterns: [{a: b}]}}", "x 1: not a regular expression"),
        ("- a", "found no categories"),
        ("categories: {x: {}}", "found no categories"),
    ],
)
def test_a_broken_list_is_named_by_its_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "patterns.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_patterns(file)


def test_missing_words_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"safety\.words"):
        read_words(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("said", "category"),
    [
        ("safe", ""),
        ("Safe.", ""),
        ("unsafe: sexual", "sexual"),
        ("unsafe\nself_harm", "self_harm"),
        ("unsafe\nS10", "other"),
        ("unsafe", "other"),
        ("It depends", None),
        ("", None),
    ],
)
def test_a_classifiers_answer_is_read_strictly(said: str, category: str | None) -> None:
    assert (
        parse_classification(ModelReply(text=said, finish_reason="stop"), list(CATEGORIES))
        == category
    )


def test_an_unanswered_question_is_no_verdict() -> None:
    assert parse_classification(None, list(CATEGORIES)) is None


def write_texts(root: Path, bad: str = "I will stab you.") -> None:
    write_rows(
        root / "responses/sft.jsonl",
        [
            Response(input=f"i{n}", split="test", literal="l", text=text)
            for n, text in enumerate(["A calm joke.", bad, ""])
        ],
    )
    write_rows(
        root / "imitation/pairs.jsonl",
        [TrainingPair(input="t0", literal="l", paraphrase="Women cannot drive.")],
    )
    write_rows(
        root / "imitation/references.jsonl",
        [Reference(input="i0", split="test", literal="l", paraphrases=["A calm joke.", "Two."])],
    )


def run(root: Path) -> tuple[list[Flag], dict[str, Any]]:
    """The stage's flags and metrics."""
    safety.main(
        options(
            responses=root / "responses",
            imitation=root / "imitation",
            patterns=PATTERNS,
            words=ROOT / "data/safety/words.txt",
            out=root / "flagged.jsonl",
            calls=root / "calls.jsonl",
            metrics=root / "safety.json",
        )
    )
    lines = (root / "flagged.jsonl").read_text(encoding="utf-8").splitlines()
    flags = [Flag.model_validate_json(line) for line in lines]
    return flags, json.loads((root / "safety.json").read_text(encoding="utf-8"))


def test_arms_and_teacher_are_screened_and_every_flag_is_listed(
    project: Callable[..., Path],
) -> None:
    root = project(arms=["sft"])
    write_texts(root)
    flags, metrics = run(root)
    assert [(f.name, f.input, f.split, f.category, f.by, f.rule) for f in flags] == [
        ("sft", "i1", "test", "violence", "patterns", "violence 1"),
        ("teacher", "t0", "train", "demeaning", "patterns", "demeaning 2"),
    ]
    assert metrics["texts"] == {"sft": 3, "teacher": 3}
    assert metrics["flagged"] == {"sft": {"violence": 1}, "teacher": {"demeaning": 1}}
    assert "calls" not in metrics


def test_a_run_without_any_flag_writes_an_empty_list_and_zero_counts(
    project: Callable[..., Path],
) -> None:
    root = project(arms=["sft"])
    write_texts(root, bad="Another calm joke.")
    write_rows(
        root / "imitation/pairs.jsonl", [TrainingPair(input="t", literal="l", paraphrase="P.")]
    )
    flags, metrics = run(root)
    assert flags == []
    assert metrics["flagged"] == {"sft": {}, "teacher": {}}


def test_a_classifier_at_a_real_endpoint_adds_its_flags_and_its_ledger(
    project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once per different text, none for the empty one; what it does not say clearly is counted."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.02)
    said = {"Two.": "unsafe: sexual", "I will stab you.": "unsafe\nviolence", "Women": "Hm."}

    def answer(body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        asked = body["messages"][-1]["content"]
        text = next((reply for start, reply in said.items() if f"Text: {start}" in asked), "safe")
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
        return 200, json.dumps({"model": "m", "choices": [choice]}).encode(), {}

    with FaultyServer() as server:
        server.answer = answer
        root = project(
            arms=["sft"],
            endpoints={"guard": {"base_url": server.url, "model": "m"}},
            safety={"endpoint": "guard"},
        )
        write_texts(root)
        flags, metrics = run(root)
        assert server.requests == 4
    assert {(f.name, f.text, f.category, f.by) for f in flags} == {
        ("sft", "I will stab you.", "violence", "patterns"),
        ("sft", "I will stab you.", "violence", "guard"),
        ("teacher", "Women cannot drive.", "demeaning", "patterns"),
        ("teacher", "Two.", "sexual", "guard"),
    }
    assert metrics["flagged"]["sft"] == {"violence": 1}
    assert metrics["flagged"]["teacher"] == {"demeaning": 1, "sexual": 1}
    assert (metrics["unread"], metrics["calls"], metrics["endpoint"]) == (1, 4, "guard")


def test_the_classifier_screens_every_text_despite_faults(
    project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The misbehaving server answers in numbers: nothing is read, nothing is lost or flagged."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.02)
    with FaultyServer(faults=True) as server:
        endpoint = {"base_url": server.url, "model": "m", "timeout": 5, "retries": 12}
        root = project(arms=["sft"], endpoints={"guard": endpoint}, safety={"endpoint": "guard"})
        write_texts(root)
        flags, metrics = run(root)
    assert metrics["unread"] == 5  # "A calm joke." stands in two files
    assert {flag.by for flag in flags} == {"patterns"}


def test_the_shipped_sentences_hold_no_flag() -> None:
    """Our own literals, exemplars and gold pairs pass the screen, or are known here by name."""
    found = []
    for name in ("literals", "ood", "exemplars", "gold"):
        for line in (ROOT / f"data/raw/{name}.jsonl").read_text(encoding="utf-8").splitlines():
            found += [
                (hit.category, text)
                for text in strings(json.loads(line))
                for hit in screen(text, RULES, NONE)
            ]
    assert found == []


def strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_the_words_file_says_the_longest_phrase() -> None:
    text = (ROOT / "data/safety/words.txt").read_text(encoding="utf-8")
    assert safety_screen.MAX_PHRASE_WORDS == 3
    assert "up to three words" in text
