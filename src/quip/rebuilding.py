"""Replies read back from the outputs of stages, for a call store that was lost or never there.

An output says what was answered but not what was asked; that follows from params.yaml and the data.
So only stages that DVC calls up to date are read: with another prompt or another model their
answers would come to stand under questions that nobody asked. A reply that is back carries no count
of tokens.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from quip.critic import LEARNED, CriticParams, p_first_of_logprobs, questions
from quip.endpoints import endpoint
from quip.errors import DataError
from quip.judging import JudgeParams
from quip.kinds import prompt_of
from quip.params import load
from quip.prompts import read
from quip.records import Answer, Critique, Exemplar, LiteralText, Reply, read_rows
from quip.replies import ModelReply, Request
from quip.stages import teacher
from quip.store import CallStore, Record

REBUILT = "rebuilt"
PREPARED, EXEMPLARS = Path("data/prepared"), Path("data/raw/exemplars.jsonl")
TAUGHT, CRITIQUED = Path("data/teacher/replies.jsonl"), Path("data/critique.jsonl")
VERDICTS = Path("data/verdicts")
SHIFTS = 1024
"""Ways to write one probability, of which one reads back as exactly itself."""

Found = Iterable[tuple[str, Request, ModelReply]]
"""(model, what was asked, what was answered)."""


def rebuild(store: CallStore) -> Iterator[tuple[str, str]]:
    """(stage, what became of it); replies that the store lacks are put into it."""
    stale = stale_stages()
    if "roles" in stale:
        raise DataError("the stage roles is not up to date: `dvc repro roles`, then this again.")
    for stage, found in outputs():
        if stage in stale:
            yield stage, "not up to date, left out"
        else:
            yield stage, f"{sum(put(store, *row) for row in found):,} replies read back"


def put(store: CallStore, model: str, request: Request, reply: ModelReply) -> bool:
    key = request.key(model)
    if store.get(key) is not None:
        return False
    document = reply.model_dump_json(exclude_defaults=True)
    store.write(Record.now("call", key, model, REBUILT, 0.0, document))
    return True


def stale_stages() -> set[str]:
    """The stages that `dvc status` has something to say about."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"`dvc status` failed: {done.stderr.strip()[-300:]}")
    return set(json.loads(done.stdout or "{}"))


def outputs() -> Iterator[tuple[str, Found]]:
    """Every stage that asks an endpoint and whose output is here."""
    critic, judge = load("critic", CriticParams), load("judge", JudgeParams)
    if TAUGHT.is_file():
        yield "teacher", taught()
    if CRITIQUED.is_file() and critic.kind == "mcp":
        yield "critique", compared(CRITIQUED, prompt_of(critic), critic.samples)
    for file in sorted(VERDICTS.glob("*.jsonl")):
        stage = file.stem if file.stem in ("duel", "control") else f"judge@{file.stem}"
        yield stage, compared(file, judge.prompt, judge.samples)


def taught() -> Found:
    params = load("teacher", teacher.Params)
    model = endpoint(params.endpoint).model
    prefixes = teacher.make_prefixes(read_rows(EXEMPLARS, Exemplar), params)
    said = read_rows(TAUGHT, Reply)
    inputs = [(row.split, LiteralText(id=row.input, text=row.literal)) for row in said]
    asked = {
        (item.split, item.literal.id): teacher.request(item, prefixes[item.prefix], params)
        for item in teacher.order(inputs, len(prefixes))
    }
    for row in said:
        reply = ModelReply(text=row.text, finish_reason=row.finish_reason)
        yield model, asked[row.split, row.input], reply


def compared(file: Path, prompt: str, samples: int) -> Found:
    messages = read(prompt)
    for row in read_rows(file, Critique):
        if row.judge == LEARNED or row.a == row.b:
            continue
        settings = endpoint(row.judge.rpartition("@")[2])
        each = 1 if settings.logprobs else samples
        orders = ((row.a, row.b, row.forward), (row.b, row.a, row.backward))
        for first, second, answer in orders:
            asked = questions(messages, row.literal, first, second, samples, settings.logprobs)
            for request, reply in zip(asked, replies(answer, each), strict=False):
                yield settings.model, request, reply


def replies(answer: Answer, each: int) -> list[ModelReply]:
    """The replies of which `quip.critic.read` made `answer`; none where that cannot be known."""
    if answer.source == "samples":
        texts = answer.raw.split(" | ")
        whole = len(texts) == each and len(answer.raw) < 200
        return [ModelReply(text=t, finish_reason="unknown") for t in texts] if whole else []
    top = alternatives(answer.p_first) if answer.source == "logprobs" else None
    if top is None or not answer.raw.strip():
        return []
    return [ModelReply(text=answer.raw, finish_reason="unknown", top_logprobs=top)]


def alternatives(p: float | None) -> list[tuple[str, float]] | None:
    """Log-probabilities of which exactly `p` is read; None when rounding allows none."""
    if p is None or not 0 < p < 1:
        return None
    for shift in range(SHIFTS):
        top = [("1", math.log(p) - shift / SHIFTS), ("2", math.log1p(-p) - shift / SHIFTS)]
        if p_first_of_logprobs(top) == p:
            return top
    return None
