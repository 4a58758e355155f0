"""The shipped data keeps what its card (data/README.md) and the experiments promise.

The checks are functions that return what is wrong, so that the last tests can show each of them
a row that breaks it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pytest
from rapidfuzz import fuzz, process

from quip.core.jsonl import read_rows
from quip.core.records import Exemplar, GoldPair, LiteralText, Row, Split
from quip.core.text import count_words, fold

RAW = Path(__file__).parents[2] / "data" / "raw"
NEAR = 80
"""Similarity (rapidfuzz ratio of the folded texts, 0 to 100) from which two texts say the same."""

KINDS = {"plain", "off_topic", "nonsense", "length", "weaker"}
DEVICES = {"exaggeration", "comparison", "understatement", "irony", "wordplay", "bathos"}
PRIVATE = re.compile(
    r"[\w.+-]+@[\w-]+\.\w|https?:|www\.|\b[\w-]+\.(?:com|org|net|io|uk)\b"
    r"|\+?\d(?:[ ()./-]?\d){6,}",
    re.IGNORECASE,
)


class Recorded(Row):
    """A row of replies.jsonl: what the recorded teacher answers to a literal."""

    id: str
    literal: str
    paraphrases: list[str]
    devices: list[str]


class Attempts(Row):
    """A row of attempts.jsonl: two attempts of one student, as a reader graded them."""

    id: str
    half: Literal["tune", "held_out"]
    literal: str
    better: str
    worse: str
    funnier: Literal["better", "worse", "equal"]
    nearer: Literal["better", "worse", "equal"]
    student: str
    second_reader: Literal["better", "worse", "equal"] | None = None


class Shipped(Row):
    """A row of literals.jsonl: a literal with its published split."""

    id: str
    split: Split
    emotion: str
    text: str


LITERALS = read_rows(RAW / "literals.jsonl", Shipped)
OOD = read_rows(RAW / "ood.jsonl", LiteralText)
EXEMPLARS = read_rows(RAW / "exemplars.jsonl", Exemplar)
GOLD = read_rows(RAW / "gold.jsonl", GoldPair)
REPLIES = read_rows(RAW / "replies.jsonl", Recorded)
ATTEMPTS = read_rows(RAW / "attempts.jsonl", Attempts)


def of(split: str) -> list[str]:
    return [row.text for row in LITERALS if row.split == split]


def gold(half: str) -> list[str]:
    return [pair.literal for pair in GOLD if pair.half == half]


def paraphrases() -> list[str]:
    return [p.text for row in EXEMPLARS for p in row.paraphrases]


def all_texts() -> list[str]:
    pairs = [text for pair in GOLD for text in (pair.literal, pair.better, pair.worse)]
    rest = [row.text for row in [*LITERALS, *OOD]] + [row.literal for row in EXEMPLARS]
    return [*rest, *paraphrases(), *recorded(), *pairs]


def recorded() -> list[str]:
    return [text for row in REPLIES for text in row.paraphrases]


# ---- the checks: each returns what is wrong --------------------------------------------------


def repeated(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def near(some: Sequence[str], others: Sequence[str], cutoff: float = NEAR) -> list[str]:
    """Texts of `some` that are `cutoff` or more like one of `others`."""
    scores = process.cdist([fold(t) for t in some], [fold(t) for t in others], scorer=fuzz.ratio)
    return [text for text, row in zip(some, scores, strict=True) if row.max() >= cutoff]


def outside(texts: Iterable[str], low: int, high: int) -> list[str]:
    return [text for text in texts if not low <= count_words(text) <= high]


def private(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if PRIVATE.search(text)]


def not_shorter(pairs: Iterable[GoldPair]) -> list[str]:
    """Pairs of kind `length` whose better text is not the shorter one."""
    return [
        p.id for p in pairs if p.kind == "length" and count_words(p.better) >= count_words(p.worse)
    ]


# ---- how much there is -----------------------------------------------------------------------


def test_there_are_enough_literals_with_a_large_test_part() -> None:
    assert len(LITERALS) >= 600
    assert len(of("test")) >= 120
    assert len(of("train")) >= 400
    assert len(of("val")) >= 50


def test_there_are_enough_chat_lines_exemplars_and_gold_pairs() -> None:
    assert len(OOD) >= 60
    assert len(EXEMPLARS) >= 60
    assert len(GOLD) >= 300


def test_every_part_holds_all_32_emotions_equally() -> None:
    for split in ("train", "val", "test"):
        counts = Counter(row.emotion for row in LITERALS if row.split == split)
        assert len(counts) == 32
        assert len(set(counts.values())) == 1, counts


# ---- ids and texts ---------------------------------------------------------------------------


def test_ids_are_unique_over_all_files() -> None:
    assert not repeated(row.id for row in [*LITERALS, *OOD, *EXEMPLARS, *GOLD])


def test_no_text_stands_twice_as_an_input_also_after_folding() -> None:
    assert not repeated(fold(row.text) for row in [*LITERALS, *OOD])


def test_literals_have_4_to_25_words() -> None:
    assert not outside((row.text for row in [*LITERALS, *OOD]), 4, 25)
    assert not outside((row.literal for row in [*EXEMPLARS, *GOLD]), 5, 25)


def test_paraphrases_fit_the_limits_that_the_teacher_s_must_keep() -> None:
    assert not outside(paraphrases(), 4, 40)
    assert not outside((pair.better for pair in GOLD), 4, 40)


def test_texts_are_tidy() -> None:
    assert not [text for text in all_texts() if text != " ".join(text.split()) or "_comma_" in text]


def test_no_address_link_or_phone_number() -> None:
    assert not private(all_texts())


# ---- disjointness ----------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "val"), ("val", "test")])
def test_splits_share_no_near_duplicate(one: str, other: str) -> None:
    assert not near(of(one), of(other))


def test_chat_lines_are_no_near_duplicates_of_literals() -> None:
    assert not near([row.text for row in OOD], [row.text for row in LITERALS])


def test_exemplars_are_no_input_and_no_gold_pair() -> None:
    inputs = [row.text for row in [*LITERALS, *OOD]]
    assert not near([row.literal for row in EXEMPLARS], inputs)
    assert not near([row.literal for row in EXEMPLARS], [pair.literal for pair in GOLD])
    assert not near(paraphrases(), [text for pair in GOLD for text in (pair.better, pair.worse)])


def test_no_paraphrase_is_worked_twice() -> None:
    assert not repeated(fold(text) for text in paraphrases())
    assert not repeated(fold(row.literal) for row in EXEMPLARS)


def test_gold_literals_are_no_inputs_and_the_halves_share_none() -> None:
    assert not near([pair.literal for pair in GOLD], [row.text for row in [*LITERALS, *OOD]])
    assert not near(gold("tune"), gold("held_out"))
    assert not repeated(fold(pair.literal) for pair in GOLD)


# ---- gold pairs and exemplars ----------------------------------------------------------------


def test_gold_kinds_and_halves_are_balanced() -> None:
    counts = Counter((pair.kind, pair.half) for pair in GOLD)
    assert {kind for kind, _ in counts} == KINDS
    assert len(counts) == 10
    assert len(set(counts.values())) == 1, counts


def test_better_and_worse_differ_also_after_folding() -> None:
    assert not [pair.id for pair in GOLD if fold(pair.better) == fold(pair.worse)]
    assert not repeated(fold(pair.better) for pair in GOLD)


def test_neither_text_of_a_pair_is_the_literal_itself() -> None:
    for pair in GOLD:
        assert not near([pair.better, pair.worse], [pair.literal], cutoff=92), pair.id


def test_the_better_text_of_a_length_pair_is_the_shorter() -> None:
    assert not not_shorter(GOLD)


@pytest.mark.parametrize("kind", sorted(KINDS - {"length"}))
def test_length_gives_the_better_text_away_in_no_other_kind(kind: str) -> None:
    pairs = [pair for pair in GOLD if pair.kind == kind]
    shorter = sum(count_words(pair.better) < count_words(pair.worse) for pair in pairs)
    assert 0.25 <= shorter / len(pairs) <= 0.75


def test_devices_are_known_and_varied() -> None:
    for devices in (
        Counter(pair.device for pair in GOLD),
        Counter(p.device for row in EXEMPLARS for p in row.paraphrases),
    ):
        assert set(devices) == DEVICES
        assert max(devices.values()) <= 2 * min(devices.values())


def test_an_exemplar_has_at_least_two_paraphrases() -> None:
    assert min(len(row.paraphrases) for row in EXEMPLARS) >= 2


# ---- the recorded teacher --------------------------------------------------------------------


def test_every_literal_has_three_recorded_paraphrases_and_no_other_text_has() -> None:
    inputs = {row.id: row.text for row in [*LITERALS, *OOD]}
    assert {row.id: row.literal for row in REPLIES} == inputs
    assert {len(row.paraphrases) for row in REPLIES} == {len(row.devices) for row in REPLIES} == {3}


def test_there_are_300_short_everyday_literals_in_every_split() -> None:
    short = Counter(row.split for row in LITERALS if count_words(row.text) <= 9)
    assert short["train"] >= 180
    assert short["val"] >= 30
    assert short["test"] >= 90


def test_recorded_paraphrases_have_8_to_30_words() -> None:
    assert not outside(recorded(), 8, 30)


def test_no_device_and_no_opening_makes_more_than_a_tenth_of_the_recording() -> None:
    devices = Counter(device for row in REPLIES for device in row.devices)
    openings = Counter(fold(text).split()[0] for text in recorded())
    assert len(devices) >= 12
    assert max(devices.values()) <= len(recorded()) / 10
    assert max(openings.values()) <= len(recorded()) / 10


def phrases(text: str) -> set[tuple[str, ...]]:
    """The 4-grams of a text."""
    found = fold(text).split()
    return set(zip(*(found[i:] for i in range(4)), strict=False))


def stock_phrases(most: int) -> list[tuple[str, ...]]:
    """4-grams in the recorded paraphrases of more than `most` literals; a literal's own do not
    count."""
    counts = Counter[tuple[str, ...]]()
    for row in REPLIES:
        used = set[tuple[str, ...]]().union(*map(phrases, row.paraphrases))
        counts.update(used - phrases(row.literal))
    return [phrase for phrase, count in counts.items() if count > most]


def test_recorded_paraphrases_share_no_stock_phrase() -> None:
    assert not stock_phrases(10)  # of 1,104 literals


def test_stock_phrases_are_found_where_there_are_any() -> None:
    assert ("for", "the", "first", "time") in stock_phrases(2)


def test_no_recorded_paraphrase_is_near_an_exemplar_or_a_gold_pair() -> None:
    gold_texts = [text for pair in GOLD for text in (pair.better, pair.worse)]
    assert not near(recorded(), [*paraphrases(), *gold_texts])


def test_no_recorded_paraphrase_stands_twice_or_copies_its_literal() -> None:
    assert not repeated(fold(text) for text in recorded())
    for row in REPLIES:
        assert not near(row.paraphrases, [row.literal], cutoff=92), row.id


# ---- graded attempts -------------------------------------------------------------------------


def test_there_are_800_graded_attempts_in_two_halves_and_120_were_graded_twice() -> None:
    assert len(ATTEMPTS) >= 800
    halves = Counter(pair.half for pair in ATTEMPTS)
    assert min(halves.values()) >= 350
    assert sum(pair.second_reader is not None for pair in ATTEMPTS) >= 120


def test_the_halves_of_the_attempts_share_no_literal_and_none_is_a_test_input() -> None:
    tune, held_out = (
        {fold(p.literal) for p in ATTEMPTS if p.half == half} for half in ("tune", "held_out")
    )
    assert not tune & held_out
    assert not (tune | held_out) & {fold(text) for text in of("test")}


def test_attempts_are_of_students_of_both_teachers() -> None:
    students = Counter(pair.student for pair in ATTEMPTS)
    assert min(students.values()) >= 300
    assert len(students) == 2


def test_no_attempt_is_paired_with_itself() -> None:
    assert not [pair.id for pair in ATTEMPTS if fold(pair.better) == fold(pair.worse)]


# ---- the checks themselves -------------------------------------------------------------------


def test_the_checks_saw_the_data() -> None:
    assert len(all_texts()) >= 600 + 60 + 60 * 3 + 300 * 3


def test_repeated_and_near_find_a_copy_that_differs_in_case_and_stops_only() -> None:
    copy = of("test")[0].upper().rstrip(".") + "!"
    assert repeated([fold(copy), fold(of("test")[0])])
    assert near([copy], of("test")) == [copy]


def test_near_finds_one_changed_word_and_not_another_event() -> None:
    assert near(["I burned the toast again today."], ["I burned the toast this morning."], 70)
    assert not near(["I burned the toast again today."], ["My dentist found a hole in a tooth."])


@pytest.mark.parametrize(
    "text",
    [
        "write to jo.doe@example.org please",
        "see https://x.y",
        "it is on example.com",
        "ring me at 030 123 45 67",
        "ring +44 20 7946 0000",
    ],
)
def test_private_finds(text: str) -> None:
    assert private([text])


@pytest.mark.parametrize("text", ["We met at 7:30 on 3 May 2026.", "It was 45 degrees. No joke."])
def test_private_lets_plain_numbers_pass(text: str) -> None:
    assert not private([text])


def test_outside_and_not_shorter_find_what_breaks_them() -> None:
    assert outside(["too short"], 5, 25)
    pair = GOLD[0].model_copy(update={"kind": "length", "better": "a b c", "worse": "a b"})
    assert not_shorter([pair]) == [pair.id]
