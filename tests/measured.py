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

from quip.records import (
    Answer,
    Critique,
    Meaning,
    Preference,
    Reference,
    Response,
    TrainingPair,
    write_json,
    write_rows,
)

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
    literal: tuple[str, str, str],
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


def literals(count: int) -> list[tuple[str, str, str]]:
    """`count` test inputs and half as many of ood and val: (id, split, text)."""
    sizes = {"val": count // 2, "test": count, "ood": count // 2}
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
    rng = random.Random(seed)
    data = root / "data"
    inputs = literals(count)
    teacher = {key: [phrase(rng, text, "teacher") for _ in range(2)] for key, _, text in inputs}
    texts = {
        name: {key: phrase(rng, text, name) for key, _, text in inputs}
        for name in (*arms, "copy", "best_of_n")
    }
    write_params(root, arms)
    write_rows(
        data / "imitation/references.jsonl",
        (
            Reference.model_validate(
                dict(input=key, split=split, literal=text, paraphrases=teacher[key])
            )
            for key, split, text in inputs
        ),
    )
    write_rows(
        data / "imitation/pairs.jsonl",
        (
            TrainingPair(
                input=f"train{n}", literal="I slept.", paraphrase=phrase(rng, "I slept.", "t")
            )
            for n in range(20)
        ),
    )
    for arm in arms:
        write_rows(
            data / f"responses/{arm}.jsonl",
            (
                Response.model_validate(
                    dict(input=key, split=split, literal=text, text=texts[arm][key])
                )
                for key, split, text in inputs
            ),
        )
        write_rows(
            data / f"verdicts/{arm}.jsonl",
            against(rng, inputs, arm, texts[arm], {k: v[0] for k, v in teacher.items()}, judges),
        )
    second = {key: paraphrases[1] for key, paraphrases in teacher.items()}
    firsts = {key: paraphrases[0] for key, paraphrases in teacher.items()}
    tested = [row for row in inputs if row[1] == "test"]
    write_rows(
        data / "verdicts/control.jsonl",
        [
            row
            for name, mine in (
                ("teacher", second),
                ("copy", texts["copy"]),
                ("best_of_n", texts["best_of_n"]),
            )
            for row in against(rng, tested, name, mine, firsts, judges)
        ],
    )
    if len(arms) > 1:
        write_rows(data / "verdicts/duel.jsonl", duel(rng, tested, arms, texts, judges))
    write_rows(
        data / "meaning.jsonl",
        (
            Meaning.model_validate(
                dict(name=name, input=key, split=split, cosine=round(rng.uniform(0.5, 0.9), 4))
            )
            for name in (*texts, "teacher")
            for key, split, _ in inputs
        ),
    )
    write_rest(rng, data, arms)
    return data


def against(
    rng: random.Random,
    inputs: Iterable[tuple[str, str, str]],
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
    inputs: Iterable[tuple[str, str, str]],
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
        "evaluate: {tie_margin: 0.05, resamples: 500, seed: 1, debias: log_odds}",
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
    write_json(
        data / "metrics/prepare.json",
        {
            "counts": {"read": 640, "kept": 620, "duplicate": 14, "too_long": 6},
            "examples": {
                "duplicate": "I missed my bus.",
                "too_long": "I went to <b>the</b> shop & ...",
            },
        },
    )
    write_json(data / "metrics/teacher.json", {"counts": {"asked": 620, "answered": 618}})
    write_json(
        data / "metrics/imitation.json",
        {
            "counts": {"replies": 618, "parsed": 1790, "kept": 1623},
            "dropped": {"refusal": 4, "copy": 63, "duplicate": 22, "too_long": 78},
        },
    )
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
            "variants": [
                {"name": "plain", "agreement": 0.71},
                {"name": "four_shot", "agreement": 0.77},
            ],
        },
    )


def write_curve(rng: random.Random, path: Path, dpo: bool) -> None:
    names = ["step", "loss", "eval_loss"]
    if dpo:
        names += ["rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"]
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
