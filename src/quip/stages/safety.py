"""safety: flags texts of the arms and of the teacher for a person to look at.

Screens every answer of every arm and every paraphrase of the teacher by the patterns of a file, by
the user's own words (`safety.words`) and, if one is named, by a classifier (`safety.endpoint`, any
chat endpoint of params.yaml). It drops no text: counts by author and category go to the metrics and
the report, the flagged texts to a file.

    python -m quip.stages.safety --responses data/responses --imitation data/imitation \\
        --patterns data/safety/patterns.yaml --words data/safety/words.txt \\
        --out data/flagged.jsonl --calls data/calls/safety.jsonl \\
        --metrics data/metrics/safety.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import Section, load, read_params
from quip.core.records import Reference, Response, Split, TrainingPair
from quip.evaluation.safety_screen import (
    Flag,
    Hit,
    classifier_request,
    parse_classification,
    read_patterns,
    read_words,
    screen,
)
from quip.llm import connection
from quip.llm.call_outputs import record_calls
from quip.llm.requests import prompts
from quip.runtime import stage

TEACHER = "teacher"


class Params(Section):
    words: str
    endpoint: str | None
    prompt: str


class Text(NamedTuple):
    name: str
    input: str
    split: Split
    text: str


class ClassifierAnswers(NamedTuple):
    """The classifier's category by text (None: unreadable), and the ledger."""

    categories: dict[str, str | None]
    spent: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    names = ("responses", "imitation", "patterns", "words", "out", "calls", "metrics")
    args = stage.arguments(__doc__, argv, *names)
    params, arms = load("safety", Params), read_params()["arms"]
    rules, categories = read_patterns(Path(args.patterns))
    words = read_words(Path(args.words))
    texts = collect(Path(args.responses), Path(args.imitation), arms)
    with record_calls(args.calls):
        answers = ask(params, texts, list(categories))
    flags = []
    for text in texts:
        hits = screen(text.text, rules, words)
        category = answers.categories.get(text.text)
        if category and params.endpoint:
            hits.append(Hit(category, params.endpoint, category))
        flags += [Flag(**text._asdict(), **hit._asdict()) for hit in hits]
    write_rows(args.out, flags)
    given = answers.categories
    unread = sum(text.text in given and given[text.text] is None for text in texts)
    texts_of = Counter(text.name for text in texts)
    flagged = {name: count([flag for flag in flags if flag.name == name]) for name in texts_of}
    totals = {name: sum(found.values()) for name, found in flagged.items()}
    stage.print_counts(
        "safety", {"texts": len(texts), **{f"flagged of {n}": k for n, k in totals.items()}}
    )
    write_json(
        args.metrics,
        {
            "texts": texts_of,
            "flagged": flagged,
            "means": {name: entry.get("means", "") for name, entry in categories.items()},
            "own_words": len(words.plain) + len(words.digests),
            "endpoint": params.endpoint,
            "unread": unread,
            **answers.spent,
        },
    )


def collect(responses: Path, imitation: Path, arms: Sequence[str]) -> list[Text]:
    """Every answer of every arm; the teacher's paraphrases, for training and as references."""
    found = [
        Text(arm, row.input, row.split, row.text)
        for arm in arms
        for row in read_rows(responses / f"{arm}.jsonl", Response)
    ]
    found += [
        Text(TEACHER, row.input, "train", row.paraphrase)
        for row in read_rows(imitation / "pairs.jsonl", TrainingPair)
    ]
    return found + [
        Text(TEACHER, row.input, row.split, text)
        for row in read_rows(imitation / "references.jsonl", Reference)
        for text in row.paraphrases
    ]


def ask(params: Params, texts: Sequence[Text], categories: Sequence[str]) -> ClassifierAnswers:
    """The classifier's category of every distinct text; empty when no classifier is named."""
    if params.endpoint is None:
        return ClassifierAnswers({}, {})
    messages = prompts.read(params.prompt)
    different = [text for text in dict.fromkeys(text.text for text in texts) if text]
    with connection.connect(params.endpoint) as model:
        replies = list(
            model.ask([classifier_request(messages, text) for text in different], "safety")
        )
        given = {
            text: parse_classification(reply, categories)
            for text, reply in zip(different, replies, strict=True)
        }
        return ClassifierAnswers(given, model.spent())


def count(flags: Sequence[Flag]) -> dict[str, int]:
    """Number of texts by category; a text that two screens put into one category counts once."""
    return dict(Counter(c for c, _, _ in sorted({(f.category, f.input, f.text) for f in flags})))


if __name__ == "__main__":
    stage.run(main)
