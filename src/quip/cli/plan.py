"""What a run would ask of each endpoint and of this machine: calls, tokens, money, time.

Counted from params.yaml and the data, before anything is spent; pure but for `measure`. Counts of
calls are upper limits (identical texts are never asked about, a reply in the call store is never
asked for again). Tokens of a call are the mean of those that the stage got from the same model
before, as the store has them; until there are any, they are guessed from the letters of prompt and
data. Time follows from the speeds below.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from quip.core.jsonl import read_rows
from quip.core.params import check
from quip.core.records import Exemplar, GoldPair, LiteralText, Split
from quip.critics.critic_kinds import LEARNED, PANEL, CriticParams, parse, prompt_name
from quip.llm import reply_store
from quip.llm.costs import LETTERS_PER_TOKEN, prices
from quip.llm.endpoints import Endpoint, checked
from quip.llm.reply_store import Record
from quip.llm.requests import prompts
from quip.llm.requests.chat import ModelReply, Usage
from quip.runtime.errors import ParamsError
from quip.training.rounds import FEEDBACK_ARMS

LETTERS_SHOWN = 110
"""Letters of a typical paraphrase."""
TOKENS_AROUND = 12
"""Chat markers around the messages of a call."""
REASON_TOKENS = 40
"""A reason of 15 to 20 words and the words around it."""

# Speeds on two cores with the default models; a GPU or a faster machine beats all of them.
EMBEDDED = {"teacher": 0.4, "critic": 0.9, "judge": 0.9}
"""Calls a second."""
REMOTE_SECONDS = {"teacher": 5.0, "critic": 1.5, "judge": 1.5}
"""Seconds a call, times calls in flight: an ordinary hosted endpoint."""
ROWS_TRAINED = 3.0
PAIRS_ALIGNED = 1.5
TEXTS_SAMPLED = 12.0
TEXTS_BY_BEAM = 3.3
CHECKPOINT_SECONDS = 15.0
LESSONS_LEARNED = 35.0
"""Pairs of texts a second that the learned critic is trained on."""


@dataclass(frozen=True)
class Data:
    """How much there is: inputs of each split, held-out gold pairs of each kind (as many are for
    tuning), mean letters, and the mean tokens (in, out) of a call by (model, stage) as far as there
    were any."""

    splits: Mapping[str, int]
    gold: Mapping[str, int]
    literal: float
    exemplar: float
    sizes: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One line of the plan. `role` and `endpoint` are empty for work of this machine."""

    stage: str
    role: str = ""
    endpoint: str = ""
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0
    seconds: float = 0.0


def plan(sections: Mapping[str, Any], data: Data) -> list[Work]:
    """Every stage that calls or computes, in the order of the pipeline.

    Raises ParamsError when params.yaml lacks a key that the plan needs.
    """
    try:
        return [*teaching(sections, data), *feedback(sections, data), *judging(sections, data)]
    except (KeyError, TypeError) as error:
        raise ParamsError(
            f"params.yaml: the plan cannot be made ({type(error).__name__}: {error}). "
            "`quip doctor` names the section that is wrong."
        ) from None


def teaching(sections: Mapping[str, Any], data: Data) -> list[Work]:
    teacher, sft = sections["teacher"], sections["sft"]
    letters = (
        prompt_letters(teacher["prompt"]) + data.literal + teacher["exemplars"] * data.exemplar
    )
    out = min(teacher["max_tokens"], tokens(teacher["n"] * (LETTERS_SHOWN + 4)))
    size = (tokens(letters) + TOKENS_AROUND, out)
    asked = sum(data.splits.values()) - data.splits["train"] + taught(sections, data)
    rows = pairs_to_imitate(sections, data) * sft["epochs"]
    return [
        called("teacher", "teacher", teacher["endpoint"], asked, size, sections, data),
        Work("sft", seconds=rows / ROWS_TRAINED + CHECKPOINT_SECONDS * sft["epochs"]),
    ]


def feedback(sections: Mapping[str, Any], data: Data) -> list[Work]:
    candidates = sections["candidates"]
    train = data.splits["train"]
    samples = train * candidates["k"] + best_inputs(sections, data) * candidates["best_of"]
    trained = [work for arm in sections["arms"] for work in training(arm, sections, data)]
    compare = candidates["compare"]
    return [
        *growing(sections, data),
        *audits(sections, data),
        Work("candidates", seconds=samples / TEXTS_SAMPLED),
        *criticised("critique", train * compare * (compare - 1) // 2, sections, data),
        *trained,
    ]


def growing(sections: Mapping[str, Any], data: Data) -> list[Work]:
    """The learned critic: every tuning pair and two spoiled texts, each epoch."""
    if sections["critic"]["kind"] != LEARNED and not sections["judge"]["learned"]:
        return []
    lessons = 3 * sum(data.gold.values()) * sections["reward"]["epochs"]
    return [Work("reward", seconds=lessons / LESSONS_LEARNED)]


def audits(sections: Mapping[str, Any], data: Data) -> list[Work]:
    """The critic and every judge that is not the critic itself, on the held-out gold pairs."""
    critic, judge = critic_of(sections), sections["judge"]
    few = sum(min(n, sections["audit"]["per_kind"] or n) for n in data.gold.values())
    same = critic.kind == "mcp" and (prompt_name(critic), critic.samples) == (
        judge["prompt"],
        judge["samples"],
    )
    others = [name for name in judge["endpoints"] if not (same and name == critic.endpoint)]
    further = [parse(spec, critic) for spec in sections["audit"].get("kinds") or []]
    return [
        *criticised("audit", few, sections, data),
        *(compared("audit", "judge", name, few, judge, sections, data) for name in others),
        *(work for kind in further for work in asked_of("audit", few, kind, sections, data)),
    ]


def criticised(stage: str, pairs: int, sections: Mapping[str, Any], data: Data) -> list[Work]:
    """`pairs` put to the critic; a learned one costs no call."""
    return asked_of(stage, pairs, critic_of(sections), sections, data)


def critic_of(sections: Mapping[str, Any]) -> CriticParams:
    return check(sections["critic"], CriticParams, "critic")


def asked_of(
    stage: str, pairs: int, critic: CriticParams, sections: Mapping[str, Any], data: Data
) -> list[Work]:
    """`pairs` put to one critic. A panel asks all its members; fitting it asks them about the
    tuning pairs, which counts once, at the audit."""
    if critic.kind == LEARNED:
        return []
    if critic.kind == PANEL:
        most = critic.panel.per_kind
        lessons = sum(min(n, most or n) for n in data.gold.values()) if stage == "audit" else 0
        members = [parse(one, critic) for one in critic.panel.signals if one != "words"]
        return [
            work
            for one in members
            for work in asked_of(stage, pairs + lessons, one, sections, data)
        ]
    if critic.kind == "cloze":
        calls = pairs * (4 if critic.calibrated else 2)
        size = (tokens(data.literal + LETTERS_SHOWN) + TOKENS_AROUND, 1)
        return [called(stage, "critic", critic.endpoint, calls, size, sections, data)]
    asker = {"prompt": prompt_name(critic), "samples": critic.samples}
    out = REASON_TOKENS if critic.kind == "mcp_reason" else 0
    return [compared(stage, "critic", critic.endpoint, pairs, asker, sections, data, out)]


def training(arm: str, sections: Mapping[str, Any], data: Data) -> list[Work]:
    """What one arm learns beyond the warm start: from feedback, or more imitation."""
    train = data.splits["train"]
    if arm in FEEDBACK_ARMS:
        epochs = sections["align"]["epochs"]
        seconds = train * epochs / PAIRS_ALIGNED + CHECKPOINT_SECONDS * epochs
        aligned = Work(f"align@{arm}", seconds=seconds)
        if arm != "brio_dpo":
            return [aligned]
        inputs, n = taught(sections, data), texts_imitated(sections)
        pairs = inputs * n * (n - 1) // 2
        warm = Work("align@warm_brio", seconds=inputs * epochs / PAIRS_ALIGNED)
        return [*criticised("rank", pairs, sections, data), warm, aligned]
    if arm in ("ft", "sd"):
        epochs = sections["baseline"]["epochs"]
        rows = pairs_to_imitate(sections, data) if arm == "ft" else train
        return [Work(f"baseline@{arm}", seconds=rows * epochs / ROWS_TRAINED)]
    return []


def judging(sections: Mapping[str, Any], data: Data) -> list[Work]:
    judge, arms = sections["judge"], sections["arms"]
    shown = sum(data.splits[split] for split in judge["splits"])
    answered = sum(data.splits[split] for split in sections["respond"]["splits"])
    best = best_inputs(sections, data)
    knock_out = best * (sections["candidates"]["best_of"] - 1)
    controls = 2 * min(judge["control_inputs"], data.splits["test"]) + best
    fought = min(judge["duel_inputs"] or data.splits["test"], data.splits["test"])
    duels = len(list(combinations(arms, 2))) * fought
    pairs = [*((f"judge@{arm}", shown) for arm in arms), ("duel", duels), ("control", controls)]
    return [
        *(Work(f"respond@{arm}", seconds=answered / TEXTS_BY_BEAM) for arm in arms),
        *criticised("control", knock_out, sections, data),
        *(
            compared(stage, "judge", name, count, judge, sections, data)
            for name in judge["endpoints"]
            for stage, count in pairs
        ),
    ]


def compared(
    stage: str,
    role: str,
    endpoint: str,
    pairs: int,
    asker: Mapping[str, Any],
    sections: Mapping[str, Any],
    data: Data,
    reason: int = 0,
) -> Work:
    """`pairs` comparisons in both orders: one call an order, or `samples` of them without
    log-probabilities; `reason` tokens stand before the choice."""
    certain = settings(sections, endpoint).logprobs
    calls = 2 * pairs * (1 if certain else asker["samples"])
    letters = prompt_letters(asker["prompt"]) + data.literal + 2 * LETTERS_SHOWN
    size = (tokens(letters) + TOKENS_AROUND, reason + (1 if certain else 4))
    return called(stage, role, endpoint, calls, size, sections, data)


def called(
    stage: str,
    role: str,
    endpoint: str,
    calls: int,
    size: tuple[int, int],
    sections: Mapping[str, Any],
    data: Data,
) -> Work:
    """`calls` of `size` (tokens in, tokens out) where none were measured, with what they cost and
    how long they take; a recorded endpoint is not called."""
    chosen = settings(sections, endpoint)
    if chosen.recorded:
        return Work(stage, role, endpoint)
    read, written = (round(calls * n) for n in data.sizes.get((chosen.model, stage), size))
    money = prices(chosen).of(Usage(read, 0, written))
    if chosen.embedded:
        seconds = calls / EMBEDDED[role]
    else:
        seconds = calls * REMOTE_SECONDS[role] / chosen.concurrency
    return Work(stage, role, endpoint, calls, read, written, money, seconds)


def settings(sections: Mapping[str, Any], endpoint: str) -> Endpoint:
    table = sections.get("endpoints") or {}
    if endpoint not in table:
        known = ", ".join(table) or "none"
        raise ParamsError(
            f"params.yaml: endpoint '{endpoint}' is not under endpoints (known: {known})."
        )
    return checked(endpoint, table[endpoint])


def pairs_to_imitate(sections: Mapping[str, Any], data: Data) -> int:
    return taught(sections, data) * texts_imitated(sections)


def taught(sections: Mapping[str, Any], data: Data) -> int:
    """Training inputs that the teacher is asked for."""
    train = data.splits["train"]
    return min(sections["teacher"]["train_inputs"] or train, train)


def texts_imitated(sections: Mapping[str, Any]) -> int:
    """Paraphrases of an input that are imitated, at most."""
    return min(sections["teacher"]["n"], sections["imitation"]["per_input"])


def best_inputs(sections: Mapping[str, Any], data: Data) -> int:
    return min(sections["candidates"]["best_of_inputs"], data.splits["test"])


def tokens(letters: float) -> int:
    return round(letters / LETTERS_PER_TOKEN)


def prompt_letters(name: str) -> int:
    return sum(len(text) for _, text in prompts.read(name))


# ---- reading the data, writing the table -----------------------------------------------------


def measure(sections: Mapping[str, Any], prepared_here: bool = True) -> Data:
    """Count the prepared inputs; before the first run, or for params of which nothing is prepared
    here, what prepare.limit allows."""
    gold = read_rows("data/raw/gold.jsonl", GoldPair)
    exemplars = read_rows("data/raw/exemplars.jsonl", Exemplar)
    splits, literals = (prepared() if prepared_here else None) or raw(sections)
    return Data(
        splits,
        Counter(pair.kind for pair in gold if pair.half == "held_out"),
        mean(len(text) for text in literals),
        mean(sum(len(p.text) + 4 for p in e.paraphrases) + len(e.literal) for e in exemplars),
        sizes(stored()),
    )


def stored() -> list[Record]:
    with closing(reply_store.open_store()) as store:
        return [record for record in store.records() if record.kind == "call"]


def sizes(calls: Iterable[Record]) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean tokens (in, out) of a call by (model, stage), of replies that say theirs."""
    found: dict[tuple[str, str], list[Usage]] = {}
    for record in calls:
        usage = ModelReply.model_validate_json(record.payload).usage
        if usage.prompt:
            found.setdefault((record.model, record.by), []).append(usage)
    return {
        who: (mean(u.prompt for u in usages), mean(u.completion for u in usages))
        for who, usages in found.items()
    }


def prepared() -> tuple[dict[str, int], list[str]] | None:
    files: dict[Split, Path] = {
        split: Path(f"data/prepared/{split}.jsonl") for split in ("train", "val", "test", "ood")
    }
    if not all(file.is_file() for file in files.values()):
        return None
    rows = {split: read_rows(file, LiteralText) for split, file in files.items()}
    return {split: len(found) for split, found in rows.items()}, texts(rows.values())


def raw(sections: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """The shipped inputs, cut to the limits; of another source the limits themselves, its sentences
    taken to be as long as the shipped ones.

    Raises ParamsError when a limit is open and the source is not the shipped one.
    """
    chosen = sections.get("prepare") or {}
    limit = chosen.get("limit") or {}
    lines = Path("data/raw/literals.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    found = Counter(row["split"] for row in rows)
    found["ood"] = len(Path("data/raw/ood.jsonl").read_text(encoding="utf-8").splitlines())
    texts = [row["text"] for row in rows]
    if (chosen.get("source"), chosen.get("ood_source")) == ("shipped", "shipped"):
        return {split: min(n, limit.get(split) or n) for split, n in found.items()}, texts
    if all(limit.get(split) for split in found):
        return {split: limit[split] for split in found}, texts
    raise ParamsError(
        "params.yaml: prepare.source is not the shipped data and prepare.limit leaves a part open, "
        "so how much there is shows only after `dvc repro prepare` (it calls nothing). Run that, "
        "then `quip plan`."
    )


def texts(groups: Iterable[Sequence[LiteralText]]) -> list[str]:
    return [row.text for rows in groups for row in rows]


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def table(works: Sequence[Work], budget: float | None = None) -> str:
    """One line a stage and role, the sum, and what the figures stand on. `budget`: money allowed,
    None for no limit."""
    head = f"{'stage':<16}{'role':<9}{'endpoint':<14}{'calls':>8}{'tokens in':>12}"
    lines = [f"{head}{'out':>10}{'money':>10}{'minutes':>9}"]
    lines += [line(work) for work in works if work.calls or not work.role]
    whole = Work(
        "all",
        calls=sum(work.calls for work in works),
        tokens_in=sum(work.tokens_in for work in works),
        tokens_out=sum(work.tokens_out for work in works),
        money=sum(work.money for work in works),
        seconds=sum(work.seconds for work in works),
    )
    warning = []
    if budget is not None and whole.money > budget:
        warning = [f"This is more than budget.money ({budget:g}): the run will stop at it."]
    return "\n".join([*lines, line(whole), *warning, "", NOTE])


NOTE = """\
At most: replies in the call store are not paid for again, identical texts are never asked about.
Money is in the currency of endpoints.*.price_in and price_out (per million tokens); where they are
absent, MLflow's catalogue of prices is asked, and what it does not know counts 0. Tokens: as
measured in earlier calls of the stage, else 4 letters each. Minutes: two cores for the embedded
engine and for training; 5 s a teacher call and 1.5 s a comparison, divided by the concurrency, for
other endpoints."""


def line(work: Work) -> str:
    counts = f"{work.calls:>8,}{work.tokens_in:>12,}{work.tokens_out:>10,}{work.money:>10,.2f}"
    blank = " " * len(counts)
    shown = counts if work.calls else blank
    head = f"{work.stage:<16}{work.role:<9}{work.endpoint:<14}"
    return f"{head}{shown}{work.seconds / 60:>9,.1f}"
