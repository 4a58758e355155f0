"""A small measured project on disk, made up: what `evaluate` and `report` read, in their layout."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from quip.core.jsonl import write_json, write_rows
from quip.core.records import (
    Answer,
    Candidate,
    Critique,
    Meaning,
    Preference,
    Reference,
    Response,
    Split,
)
from quip.training import rounds

Input = tuple[str, Split, str]
SKILL = {"sft": -0.6, "dpo": 0.1, "teacher": 0.0, "copy": -1.6, "best_of_n": -0.2}
EVENTS = ["missed my bus", "burnt the toast", "met my new neighbour", "lost my keys again"]
TAILS = [
    "so the kettle has filed a complaint",
    "and the cat now runs the household",
    "a triumph by any measure but success",
    "so the birds have been warned",
    "which my mother will hear about first",
    "as the prophecy on the fridge foretold",
]


def answer(p: float) -> Answer:
    return Answer(p_first=round(p, 4), source="logprobs", raw="1" if p > 0.5 else "2")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def critique(
    rng: random.Random,
    literal: Input,
    name_a: str,
    name_b: str,
    a: str,
    b: str,
    shift: float,
    judge: str,
) -> Critique:
    """A verdict of a critic that likes the first position and prefers `a` by about `shift`."""
    key, split, text = literal
    lean = rng.gauss(shift, 1.2)
    forward, backward = answer(sigmoid(1.0 + lean)), answer(sigmoid(1.0 - lean))
    if a == b:
        forward = backward = Answer(p_first=0.5, source="identical")
    return Critique.model_validate(
        dict(
            input=key,
            split=split,
            literal=text,
            name_a=name_a,
            name_b=name_b,
            a=a,
            b=b,
            judge=judge,
            forward=forward,
            backward=backward,
        )
    )


def literals(count: int) -> list[Input]:
    """`count` test inputs and half as many of ood and val: (id, split, text)."""
    sizes: dict[Split, int] = {"val": count // 2, "test": count, "ood": count // 2}
    return [
        (f"{split}{number}", split, f"On day {number} I {EVENTS[number % 4]} before work.")
        for split, size in sizes.items()
        for number in range(size)
    ]


def phrase(rng: random.Random, literal: str, name: str) -> str:
    if name == "copy":
        return literal
    tail = TAILS[3] if name == "sft" and rng.random() < 0.3 else rng.choice(TAILS)
    extra = " and nobody clapped" if name == "dpo" and rng.random() < 0.3 else ""
    return f"{literal.rstrip('.')}, {tail}{extra}."


def write(
    root: Path,
    count: int = 12,
    arms: Sequence[str] = ("sft", "dpo"),
    judges: Sequence[str] = ("embedded",),
    seed: int = 1,
) -> Path:
    """Write the whole folder under root/data and a params.yaml beside it; returns root/data."""
    rng, data, inputs = random.Random(seed), root / "data", literals(count)
    first = {key: phrase(rng, text, "teacher") for key, _, text in inputs}
    second = {key: phrase(rng, text, "teacher") for key, _, text in inputs}
    texts = {
        name: {key: phrase(rng, text, name) for key, _, text in inputs}
        for name in (*arms, "copy", "best_of_n")
    }
    judged = [row for row in inputs if row[1] != "val"]
    tested = [row for row in inputs if row[1] == "test"]
    write_params(root, arms)
    write_rows(
        data / "imitation/references.jsonl",
        [
            Reference(input=key, split=split, literal=text, paraphrases=[first[key], second[key]])
            for key, split, text in inputs
        ],
    )
    for arm in arms:
        write_rows(data / f"responses/{arm}.jsonl", responses(inputs, texts[arm]))
        write_rows(
            data / f"verdicts/{arm}.jsonl", against(rng, judged, arm, texts[arm], first, judges)
        )
    controls = {"teacher": second, "copy": texts["copy"], "best_of_n": texts["best_of_n"]}
    write_rows(
        data / "verdicts/control.jsonl",
        [
            row
            for name in controls
            for row in against(rng, tested, name, controls[name], first, judges)
        ],
    )
    write_rows(data / "verdicts/duel.jsonl", duel(rng, tested, arms, texts, judges))
    write_rows(
        data / "meaning.jsonl",
        [
            Meaning(name=name, input=key, split=split, cosine=round(rng.uniform(0.5, 0.9), 4))
            for name in (*texts, "teacher")
            for key, split, _ in judged
        ],
    )
    alike = {name: {"test": 0.14, "ood": 0.12} for name in (*texts, "teacher")}
    write_json(data / "similarity.json", alike)
    write_rows(data / "candidates.jsonl", samples(inputs, first))
    rounds.write(1, arms, root / "rounds.yaml")
    write_rest(rng, data, arms)
    return data


def samples(inputs: Iterable[Input], texts: dict[str, str]) -> list[Candidate]:
    return [
        Candidate(input=key, split=split, literal=text, sample=0, text=texts[key])
        for key, split, text in inputs
    ]


def responses(inputs: Iterable[Input], texts: dict[str, str]) -> list[Response]:
    return [
        Response(input=key, split=split, literal=text, text=texts[key])
        for key, split, text in inputs
    ]


def against(
    rng: random.Random,
    inputs: Iterable[Input],
    name: str,
    mine: dict[str, str],
    teacher: dict[str, str],
    judges: Sequence[str],
) -> list[Critique]:
    return [
        critique(
            rng, row, name, "teacher", mine[row[0]], teacher[row[0]], SKILL.get(name, 0), judge
        )
        for judge in judges
        for row in inputs
    ]


def duel(
    rng: random.Random,
    inputs: Iterable[Input],
    arms: Sequence[str],
    texts: dict[str, dict[str, str]],
    judges: Sequence[str],
) -> list[Critique]:
    return [
        critique(
            rng,
            row,
            later,
            earlier,
            texts[later][row[0]],
            texts[earlier][row[0]],
            SKILL.get(later, 0) - SKILL.get(earlier, 0),
            judge,
        )
        for place, later in enumerate(arms)
        for earlier in arms[:place]
        for judge in judges
        for row in inputs
    ]


def write_params(root: Path, arms: Sequence[str]) -> None:
    lines = [
        f"arms: [{', '.join(arms)}]",
        "endpoints: {embedded: {base_url: 'http://127.0.0.1:1/v1', model: qwen, api_key_env: KEY}}",
        "candidates: {k: 6, temperature: 0.9}",
        "dpo: {beta: 0.1, epochs: 2}",
        "evaluate: {tie_margin: 0.05, resamples: 500, seed: 1}",
        "debias: {method: log_odds, scale: 1.0, per_word: 0.0}",
        "alarms: {copy_rate: 0.2, stock_phrase: 0.2, distinct_2: 0.75, self_similarity: 0.1,"
        " meaning: 0.5, length_drift: [0.75, 1.33]}",
        "report: {samples: 20}",
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_rest(rng: random.Random, data: Path, arms: Sequence[str]) -> None:
    """Roles, metrics of the earlier stages, audit, curves, runs and preferences."""
    roles = data / "roles"
    model = {"endpoint": "embedded", "model": "qwen2.5-coder-1.5b-instruct-q4_k_m"}
    write_json(roles / "teacher.json", model)
    write_json(roles / "critic.json", model)
    write_json(roles / "judges.json", [model])
    spent = {"calls": 618, "failed": 2, "prompt_tokens": 412345, "cached_tokens": 390000}
    spent |= {"completion_tokens": 40321, "money": 0.0}
    metrics = {
        "prepare": {
            "read": {"source": 640, "ood_source": 60},
            "splits": {"train": 220, "val": 24, "test": 120, "ood": 40},
            "dropped": {"duplicate": 14, "too_long": 6},
        },
        "teacher": {"asked": 620, "answered": 618, **spent},
        "imitation": {
            "counts": {"replies": 618, "parsed": 1790, "kept": 1623},
            "dropped": {"refusal": 4, "copy": 63, "duplicate": 22, "too_long": 78},
            "examples": {"refusal": "I cannot <b>joke</b> about this & that."},
        },
        "preferences": {"critiques": 220, "kept": 60, "dropped": {"unsure": 160}, "flip_rate": 0.4},
    }
    for name, content in metrics.items():
        write_json(data / f"metrics/{name}.json", content)
    write_rows(
        data / "preferences.jsonl",
        (
            Preference(
                input=f"train{n}",
                literal="I slept.",
                chosen=phrase(rng, "I slept.", "dpo"),
                rejected=phrase(rng, "I slept.", "sft"),
                confidence=rng.uniform(0.6, 0.99),
            )
            for n in range(60)
        ),
    )
    audit(rng, data)
    for arm in arms:
        write_curve(rng, data / f"curves/{arm}.csv", dpo=arm == "dpo")
        write_json(
            data / f"runs/{arm}.json",
            {
                "run_id": f"run-{arm}",
                "stage": arm,
                "model_sha256": f"{arm}" + "0" * 60,
                "seconds": 312.4,
            },
        )


def audit(rng: random.Random, data: Path) -> None:
    kinds = {"plain": 1.4, "off_topic": 1.2, "nonsense": 1.9, "length": 0.5, "weaker": 0.25}
    rows: list[BaseModel] = []
    by_kind: dict[str, Any] = {}
    for kind, shift in kinds.items():
        mine = [
            critique(
                rng,
                (f"{kind}{n}", "gold", "I slept."),
                "better",
                "worse",
                "funny",
                "flat",
                shift,
                "embedded",
            )
            for n in range(30)
        ]
        right = sum(row.forward.p_first > row.backward.p_first for row in mine)
        rows += mine
        share = right / len(mine)
        half = 1.96 * math.sqrt(share * (1 - share) / len(mine))
        by_kind[kind] = {
            "agreement": share,
            "n": len(mine),
            "ci95": [max(0, share - half), min(1, share + half)],
        }
    write_rows(data / "audit/critiques.jsonl", rows)
    overall = sum(kind["agreement"] for kind in by_kind.values()) / len(by_kind)
    write_json(
        data / "metrics/critic.json",
        {
            "agreement": overall,
            "ci95": [overall - 0.07, overall + 0.07],
            "position_bias": 0.41,
            "length_bias": 0.16,
            "n": len(rows),
            "by_kind": by_kind,
            "critic": {"endpoint": "embedded", "model": "qwen2.5-coder-1.5b-instruct-q4_k_m"},
            "ag_h": {"agreement": 0.71, "ci95": [0.6, 0.8], "n": 90},
            "kinds": {
                "cloze:humor@embedded": {
                    **{"agreement": 0.5, "ci95": [0.43, 0.57], "n": len(rows)},
                    **{"position_bias": 0.0, "position_bias_ci95": [0.0, 0.0]},
                    **{"length_bias": 0.31, "length_bias_ci95": [0.2, 0.4], "by_kind": {}},
                }
            },
        },
    )


def write_curve(rng: random.Random, path: Path, dpo: bool) -> None:
    names = ["step", "loss", "eval_loss"]
    if dpo:
        names += ["reward_margin", "reward_accuracy", "logp_chosen", "logp_rejected"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(names)
        for step in range(5, 205, 5):
            done = step / 200
            row: list[Any] = [
                step,
                0.69 - 0.3 * done + rng.gauss(0, 0.02),
                0.66 - 0.2 * done if step % 50 == 0 else "",
            ]
            if dpo:
                row += [
                    1.2 * done + rng.gauss(0, 0.05),
                    0.5 + 0.35 * done,
                    -40 - 6 * done,
                    -42 - 14 * done,
                ]
            rows.writerow(row)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def evaluate_arguments(data: Path) -> list[str]:
    """The command line of `evaluate` on this project."""
    return [
        "--verdicts",
        f"{data}/verdicts",
        "--responses",
        f"{data}/responses",
        "--references",
        f"{data}/imitation/references.jsonl",
        *("--candidates", f"{data}/candidates.jsonl", "--rounds", f"{data}/rounds"),
        *("--similarity", f"{data}/similarity.json", "--roles", f"{data}/roles"),
        "--meaning",
        f"{data}/meaning.jsonl",
        "--out",
        f"{data}/metrics/wtr.json",
        "--plots",
        f"{data}/plots/wtr.csv",
        "--paper",
        f"{data}/metrics/paper.md",
    ]
