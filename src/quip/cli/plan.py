"""`quip plan`: the calls, tokens, money and time of a run, by stage and endpoint.

The plan is computed from params.yaml and the data that `plan_data` measures, before anything is
spent. Counts of calls are upper limits: identical texts are never compared, and
a reply in the call store is never paid for again. Tokens per call are the mean of the stage's
earlier calls to the same model in the call store; without such calls they are estimated from the
letters of prompt and data. Time follows from the speeds below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from quip.cli.plan_data import Data, prompt_letters, tokens
from quip.core.params import validate
from quip.critics.critic_settings import LEARNED, PANEL, CriticParams, parse, prompt_name
from quip.data import graded_pairs
from quip.llm.costs import prices
from quip.llm.endpoints import Endpoint, validated_endpoint
from quip.llm.requests.chat import Usage
from quip.runtime.errors import ParamsError
from quip.training.rounds import FEEDBACK_ARMS

LETTERS_SHOWN = 110
"""Letters of a typical paraphrase."""
TOKENS_AROUND = 12
"""Tokens of chat markers around the messages of a call."""
REASON_TOKENS = 40
"""Tokens of a reason of 15 to 20 words and the words around it."""

# Speeds on two cores with the default models; a GPU or a faster machine beats all of them.
EMBEDDED_CALLS_PER_SECOND = {"teacher": 0.4, "critic": 0.9, "judge": 0.9}
"""Calls a second."""
REMOTE_SECONDS = {"teacher": 5.0, "critic": 1.5, "judge": 1.5}
"""Seconds a call, times calls in flight: an ordinary hosted endpoint."""
TRAINING_ROWS_PER_SECOND = 3.0
ALIGN_PAIRS_PER_SECOND = 1.5
SAMPLES_PER_SECOND = 12.0
BEAM_TEXTS_PER_SECOND = 3.3
CHECKPOINT_SECONDS = 15.0
GRADED_PAIRS_PER_SECOND = 35.0
"""Training pairs a second of the learned critic."""


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
        return [
            *imitation_work(sections, data),
            *feedback_work(sections, data),
            *judge_work(sections, data),
        ]
    except (KeyError, TypeError) as error:
        raise ParamsError(
            f"params.yaml: the plan cannot be made ({type(error).__name__}: {error}). "
            "`quip doctor` names the section that is wrong."
        ) from None


def imitation_work(sections: Mapping[str, Any], data: Data) -> list[Work]:
    teacher, sft = sections["teacher"], sections["sft"]
    letters = (
        prompt_letters(teacher["prompt"]) + data.literal + teacher["exemplars"] * data.exemplar
    )
    out = min(teacher["max_tokens"], tokens(teacher["n"] * (LETTERS_SHOWN + 4)))
    size = (tokens(letters) + TOKENS_AROUND, out)
    asked = sum(data.splits.values()) - data.splits["train"] + teacher_inputs(sections, data)
    rows = imitation_pairs(sections, data) * sft["epochs"]
    return [
        call_work("teacher", "teacher", teacher["endpoint"], asked, size, sections, data),
        Work("sft", seconds=rows / TRAINING_ROWS_PER_SECOND + CHECKPOINT_SECONDS * sft["epochs"]),
    ]


def feedback_work(sections: Mapping[str, Any], data: Data) -> list[Work]:
    candidates = sections["candidates"]
    train = data.splits["train"]
    samples = train * candidates["k"] + best_inputs(sections, data) * candidates["best_of"]
    trained = [work for arm in sections["arms"] for work in arm_work(arm, sections, data)]
    compare = candidates["compare"]
    return [
        *reward_work(sections, data),
        *audit_work(sections, data),
        Work("candidates", seconds=samples / SAMPLES_PER_SECOND),
        *critic_work("critique", train * compare * (compare - 1) // 2, sections, data),
        *trained,
    ]


def reward_work(sections: Mapping[str, Any], data: Data) -> list[Work]:
    """Training of the learned critic: every tuning pair and two spoiled texts, each epoch."""
    if sections["critic"]["kind"] != LEARNED and not sections["judge"]["learned"]:
        return []
    lessons = 3 * sum(data.gold.values()) * sections["reward"]["epochs"]
    return [Work("reward", seconds=lessons / GRADED_PAIRS_PER_SECOND)]


def audit_work(sections: Mapping[str, Any], data: Data) -> list[Work]:
    """Audit of the critic and of every judge that is not the critic, on held-out gold pairs and on
    the files of audit.extra."""
    critic, judge = critic_of(sections), sections["judge"]
    pairs = sum(min(n, sections["audit"]["per_kind"] or n) for n in data.gold.values())
    pairs += extra_pairs(sections)
    same = critic.kind == "mcp" and (prompt_name(critic), critic.samples) == (
        judge["prompt"],
        judge["samples"],
    )
    others = [name for name in judge["endpoints"] if not (same and name == critic.endpoint)]
    further = [parse(spec, critic) for spec in sections["audit"].get("kinds") or []]
    return [
        *critic_work("audit", pairs, sections, data),
        *(comparison_work("audit", "judge", name, pairs, judge, sections, data) for name in others),
        *(
            work
            for kind in further
            for work in calls_of_critic("audit", pairs, kind, sections, data)
        ),
    ]


def extra_pairs(sections: Mapping[str, Any]) -> int:
    """Pairs of the files of audit.extra, at most audit.extra_pairs of each; files that are not here
    count none."""
    audit, graded = sections["audit"], sections.get("graded") or {}
    files = [Path(graded[name]) for name in audit.get("extra") or [] if name in graded]
    counts = [
        len(graded_pairs.evaluation_pairs(graded_pairs.read(file).pairs))
        for file in files
        if file.is_file()
    ]
    return sum(min(count, audit.get("extra_pairs") or count) for count in counts)


def critic_work(stage: str, pairs: int, sections: Mapping[str, Any], data: Data) -> list[Work]:
    """Comparisons of `pairs` by the critic; a learned critic costs no call."""
    return calls_of_critic(stage, pairs, critic_of(sections), sections, data)


def critic_of(sections: Mapping[str, Any]) -> CriticParams:
    return validate(sections["critic"], CriticParams, "critic")


def calls_of_critic(
    stage: str, pairs: int, critic: CriticParams, sections: Mapping[str, Any], data: Data
) -> list[Work]:
    """Comparisons of `pairs` by one critic.

    A panel asks all its members. Its fit also asks them about the tuning pairs, which is counted
    once, at the audit.
    """
    if critic.kind == LEARNED:
        return []
    if critic.kind == PANEL:
        most = critic.panel.per_kind
        lessons = sum(min(n, most or n) for n in data.gold.values()) if stage == "audit" else 0
        members = [parse(one, critic) for one in critic.panel.signals if one != "words"]
        return [
            work
            for one in members
            for work in calls_of_critic(stage, pairs + lessons, one, sections, data)
        ]
    if critic.kind == "cloze":
        calls = pairs * (4 if critic.calibrated else 2)
        size = (tokens(data.literal + LETTERS_SHOWN) + TOKENS_AROUND, 1)
        return [call_work(stage, "critic", critic.endpoint, calls, size, sections, data)]
    asker = {"prompt": prompt_name(critic), "samples": critic.samples}
    out = REASON_TOKENS if critic.kind == "mcp_reason" else 0
    return [comparison_work(stage, "critic", critic.endpoint, pairs, asker, sections, data, out)]


def arm_work(arm: str, sections: Mapping[str, Any], data: Data) -> list[Work]:
    """Training of one arm after the warm start: from feedback, or by more imitation."""
    train = data.splits["train"]
    if arm in FEEDBACK_ARMS:
        epochs = sections["align"]["epochs"]
        seconds = train * epochs / ALIGN_PAIRS_PER_SECOND + CHECKPOINT_SECONDS * epochs
        aligned = Work(f"align@{arm}", seconds=seconds)
        if arm != "brio_dpo":
            return [aligned]
        inputs, n = teacher_inputs(sections, data), paraphrases_per_input(sections)
        pairs = inputs * n * (n - 1) // 2
        warm = Work("align@warm_brio", seconds=inputs * epochs / ALIGN_PAIRS_PER_SECOND)
        return [*critic_work("rank", pairs, sections, data), warm, aligned]
    if arm in ("ft", "sd"):
        epochs = sections["baseline"]["epochs"]
        rows = imitation_pairs(sections, data) if arm == "ft" else train
        return [Work(f"baseline@{arm}", seconds=rows * epochs / TRAINING_ROWS_PER_SECOND)]
    return []


def judge_work(sections: Mapping[str, Any], data: Data) -> list[Work]:
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
        *(Work(f"respond@{arm}", seconds=answered / BEAM_TEXTS_PER_SECOND) for arm in arms),
        *critic_work("control", knock_out, sections, data),
        *(
            comparison_work(stage, "judge", name, count, judge, sections, data)
            for name in judge["endpoints"]
            for stage, count in pairs
        ),
    ]


def comparison_work(
    stage: str,
    role: str,
    endpoint: str,
    pairs: int,
    asker: Mapping[str, Any],
    sections: Mapping[str, Any],
    data: Data,
    reason: int = 0,
) -> Work:
    """`pairs` comparisons in both orders: one call an order, or `samples` calls when the endpoint
    has no log-probabilities. `reason` is the number of tokens before the choice."""
    certain = endpoint_settings(sections, endpoint).logprobs
    calls = 2 * pairs * (1 if certain else asker["samples"])
    letters = prompt_letters(asker["prompt"]) + data.literal + 2 * LETTERS_SHOWN
    size = (tokens(letters) + TOKENS_AROUND, reason + (1 if certain else 4))
    return call_work(stage, role, endpoint, calls, size, sections, data)


def call_work(
    stage: str,
    role: str,
    endpoint: str,
    calls: int,
    size: tuple[int, int],
    sections: Mapping[str, Any],
    data: Data,
) -> Work:
    """`calls` calls with their cost and time; `size` (tokens in, tokens out) holds when the store
    has no earlier calls. A recorded endpoint is not called."""
    chosen = endpoint_settings(sections, endpoint)
    if chosen.recorded:
        return Work(stage, role, endpoint)
    read, written = (round(calls * n) for n in data.sizes.get((chosen.model, stage), size))
    money = prices(chosen).of(Usage(read, 0, written))
    if chosen.embedded:
        seconds = calls / EMBEDDED_CALLS_PER_SECOND[role]
    else:
        seconds = calls * REMOTE_SECONDS[role] / chosen.concurrency
    return Work(stage, role, endpoint, calls, read, written, money, seconds)


def endpoint_settings(sections: Mapping[str, Any], endpoint: str) -> Endpoint:
    table = sections.get("endpoints") or {}
    if endpoint not in table:
        known = ", ".join(table) or "none"
        raise ParamsError(
            f"params.yaml: endpoint '{endpoint}' is not under endpoints (known: {known})."
        )
    return validated_endpoint(endpoint, table[endpoint])


def imitation_pairs(sections: Mapping[str, Any], data: Data) -> int:
    return teacher_inputs(sections, data) * paraphrases_per_input(sections)


def teacher_inputs(sections: Mapping[str, Any], data: Data) -> int:
    """Number of training inputs sent to the teacher."""
    train = data.splits["train"]
    return min(sections["teacher"]["train_inputs"] or train, train)


def paraphrases_per_input(sections: Mapping[str, Any]) -> int:
    """Largest number of paraphrases of an input that the student imitates."""
    return min(sections["teacher"]["n"], sections["imitation"]["per_input"])


def best_inputs(sections: Mapping[str, Any], data: Data) -> int:
    return min(sections["candidates"]["best_of_inputs"], data.splits["test"])


# ---- writing the table -----------------------------------------------------------------------


def table(works: Sequence[Work], budget: float | None = None) -> str:
    """The plan as text: a line a stage and role, the sum, and the assumptions. `budget` is the
    money allowed, None for no limit."""
    head = f"{'stage':<16}{'role':<9}{'endpoint':<14}{'calls':>8}{'tokens in':>12}"
    lines = [f"{head}{'out':>10}{'money':>10}{'minutes':>9}"]
    lines += [table_row(work) for work in works if work.calls or not work.role]
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
    return "\n".join([*lines, table_row(whole), *warning, "", NOTE])


NOTE = """\
Upper limits: replies in the call store are not paid for again, identical texts are never compared.
Money is in the currency of endpoints.*.price_in and price_out (per million tokens); where these
are absent, MLflow's price catalogue is used, and a model that it does not know costs 0. Tokens: as
measured in earlier calls of the stage, else 4 letters each. Minutes: two cores for the embedded
engine and for training; 5 s a teacher call and 1.5 s a comparison, divided by the concurrency, for
other endpoints."""


def table_row(work: Work) -> str:
    counts = f"{work.calls:>8,}{work.tokens_in:>12,}{work.tokens_out:>10,}{work.money:>10,.2f}"
    blank = " " * len(counts)
    shown = counts if work.calls else blank
    head = f"{work.stage:<16}{work.role:<9}{work.endpoint:<14}"
    return f"{head}{shown}{work.seconds / 60:>9,.1f}"
