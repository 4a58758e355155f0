"""Training pairs: what of the teacher's replies the student imitates, and the references.

A reply is parsed into paraphrases (`quip.data.reply_parsing`); a paraphrase that may not be used is
dropped and counted by its reason. The paper drops refusals and safety warnings only (section
"Teacher"); the other reasons are for weaker teachers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import Field
from rapidfuzz import fuzz

from quip.core.params import Section
from quip.core.records import Exemplar, Reference, Reply, TrainingPair
from quip.core.text import count_words, fold
from quip.data.drop_counts import Drops
from quip.data.language import is_english
from quip.data.refusals import echoes_instructions, refuses, warns
from quip.data.reply_parsing import parse_reply

OPENING = 200  # characters at the start of a reply that are searched for a refusal


class ImitationParams(Section):
    """Section `imitation`: which paraphrases are kept."""

    per_input: int = Field(ge=1)
    min_words: int = Field(ge=1)
    max_words: int = Field(ge=1)
    copy_ratio: float = Field(gt=0, le=100)
    max_drop_share: float = Field(ge=0, le=1)


@dataclass
class InputTexts:
    """The teacher's kept paraphrases of one input. `seen` holds the folds of `kept`."""

    reply: Reply
    kept: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def exemplar_folds(exemplars: Iterable[Exemplar]) -> frozenset[str]:
    """The folded texts of the worked examples in the teacher's prompt."""
    return frozenset(
        fold(text)
        for row in exemplars
        for text in [row.literal, *(p.text for p in row.paraphrases)]
    )


def add_reply(
    reply: Reply,
    texts: InputTexts,
    settings: ImitationParams,
    echoes: frozenset[str],
    drops: Drops,
    unparsed: Drops,
) -> int:
    """Add the usable paraphrases of `reply` to `texts` and count the others by reason; returns the
    number parsed."""
    found = parse_reply(reply.text, reply.finish_reason)
    whole = parse_reply(reply.text, "stop")
    if not whole:
        unparsed.add("unparsed", reply.text or "(empty reply)")
    if len(whole) > len(found):
        drops.add("truncated", whole[-1], len(whole) - len(found))
    refused = refuses(reply.text[:OPENING], reply.literal)
    for text in found:
        fault = "refusal" if refused else None
        fault = fault or drop_reason(text, reply.literal, texts.seen, settings, echoes)
        if fault:
            drops.add(fault, text)
        else:
            texts.kept.append(text)
            texts.seen.add(fold(text))
    return len(whole)


def drop_reason(
    paraphrase: str,
    literal: str,
    seen: set[str],
    settings: ImitationParams,
    echoes: frozenset[str] = frozenset(),
) -> str | None:
    """The reason to drop `paraphrase`, or None. `seen` and `echoes` are folded texts."""
    folded = fold(paraphrase)
    if refuses(paraphrase, literal):
        return "refusal"
    if warns(paraphrase, literal):
        return "safety_warning"
    if fuzz.ratio(folded, fold(literal)) >= settings.copy_ratio:
        return "copy"
    if folded in echoes or echoes_instructions(paraphrase, literal):
        return "prompt_echo"
    if folded in seen:
        return "duplicate"
    if not is_english(paraphrase):
        return "wrong_language"
    if count_words(paraphrase) < settings.min_words:
        return "too_short"
    return "too_long" if count_words(paraphrase) > settings.max_words else None


def training_pairs(
    inputs: Iterable[InputTexts], per_input: int, drops: Drops
) -> list[TrainingPair]:
    """At most `per_input` pairs of each training input, in the teacher's order."""
    pairs = []
    for texts in inputs:
        if texts.reply.split == "train":
            for text in texts.kept[per_input:]:
                drops.add("over_per_input", text)
            pairs += [as_pair(texts.reply, text) for text in texts.kept[:per_input]]
    return pairs


def as_pair(reply: Reply, text: str) -> TrainingPair:
    return TrainingPair(input=reply.input, literal=reply.literal, paraphrase=text)


def make_references(inputs: Iterable[InputTexts]) -> list[Reference]:
    return [
        Reference(
            input=texts.reply.input,
            split=texts.reply.split,
            literal=texts.reply.literal,
            paraphrases=texts.kept,
        )
        for texts in inputs
        if texts.reply.split != "train" and texts.kept
    ]
