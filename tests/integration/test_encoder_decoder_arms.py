"""Every arm for an encoder-decoder student (the paper's family), through the stages themselves.

A tiny BART, a scripted critic behind a real loopback server, the files that DVC would pass on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_endpoint import ChatServer, likes
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import LiteralText, Preference, Ranking, Reference, Response, TrainingPair
from quip.models import student
from quip.stages import align, baseline, candidates, critique, preferences, rank, respond, sft
from stage_options import options

WORDS = ("bus", "soup", "keys", "hat", "tea", "dog")
ARMS = ("ft", "sd", "brio", "dpo", "brio_dpo")

pytestmark = pytest.mark.usefixtures("critic_prompt")


def write_inputs() -> None:
    for split in ("train", "val", "test", "ood"):
        rows = [LiteralText(id=f"{split}{i}", text=f"I lost my {w}.") for i, w in enumerate(WORDS)]
        write_rows(f"prepared/{split}.jsonl", rows)
    pairs = [
        TrainingPair(input=f"train{i}", literal=f"I lost my {w}.", paraphrase=text)
        for i, w in enumerate(WORDS)
        for text in (f"My {w} has run away from me.", f"My {w} and I no longer talk at all.")
    ]
    write_rows("pairs.jsonl", pairs)
    references = [
        Reference(input=f"val{i}", split="val", literal=f"I lost my {w}.", paraphrases=[f"No {w}."])
        for i, w in enumerate(WORDS)
    ]
    write_rows("references.jsonl", references)
    for arm in ARMS:
        write_json(f"arms/{arm}.json", {"arm": arm, "wanted": True})


def trained(name: str) -> dict[str, str]:
    return {"model": f"models/{name}", "curve": f"{name}.csv", "run": f"{name}.json"}


def train_all() -> None:
    sft.main(options(pairs="pairs.jsonl", references="references.jsonl", **trained("sft")))
    drawn = {"model": "models/sft", "prepared": "prepared", "out": "candidates.jsonl"}
    candidates.main(options(**drawn))
    write_json("audit.json", {"agreement": 0.9, "ci95": [0.8, 1.0]})
    asked = {"candidates": "candidates.jsonl", "reward": "r", "audit": "audit.json"}
    critique.main(options(**asked, out="c.jsonl", calls="k.jsonl", metrics="c.json"))
    decided = {"critique": "c.jsonl", "out": "preferences.jsonl", "rankings": "rankings.jsonl"}
    preferences.main(options(**decided, metrics="p.json"))
    wanted = {"wanted": "arms/brio_dpo.json", "pairs": "pairs.jsonl"}
    asked = {"reward": "r", "audit": "audit.json", "calls": "k.jsonl"}
    rank.main(options(**wanted, **asked, out="teacher.jsonl", metrics="rank.json"))
    start = {"start": "models/sft", "pairs": "pairs.jsonl"}
    warm = {**start, **wanted, "feedback": "teacher.jsonl"}
    align.main(options(arm="brio", **warm, **trained("warm")))
    for arm in ("brio", "dpo", "brio_dpo"):
        learned = "rankings.jsonl" if arm == "brio" else "preferences.jsonl"
        own = {**start, "wanted": f"arms/{arm}.json", "feedback": learned}
        own |= {"start": "models/warm"} if arm == "brio_dpo" else {}
        align.main(options(arm=arm, **own, **trained(arm)))
    for arm in ("ft", "sd"):
        own = {**start, "wanted": f"arms/{arm}.json", "preferences": "preferences.jsonl"}
        baseline.main(options(arm=arm, **own, **trained(arm)))


LORA = {"r": 2, "alpha": 4, "dropout": 0.0}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_every_arm_of_a_bart_is_trained_and_answers(
    server: ChatServer,
    scripted_project: Callable[..., Path],
    checkout: Path,
    tiny_bart: Path,
    lora: dict[str, float] | None,
) -> None:
    settings = {"epochs": 1, "learning_rate": 1e-3, "precision": "fp32", "lora": lora}
    folder = scripted_project(
        sft={**settings, "base": str(tiny_bart)},
        align=settings,
        baseline=settings,
        candidates={"k": 3, "compare": 3, "best_of": 1, "max_new_tokens": 12, "precision": "fp32"},
        critique={"length_ratio": [0.01, 100.0]},
        preferences={"min_confidence": 0.5},
        respond={"splits": ["test"], "max_new_tokens": 8, "precision": "fp32", "num_beams": 2},
    )
    (folder / "mlflow.db").write_bytes((checkout / "mlflow.db").read_bytes())
    server.answer = likes(lambda text: sum(map(ord, text)) % 7)
    write_inputs()
    train_all()
    assert read_rows("preferences.jsonl", Preference)
    assert max(len(row.texts) for row in read_rows("rankings.jsonl", Ranking)) == 3
    digests = {}
    for arm in ("sft", *ARMS):
        run = json.loads(Path(f"{arm}.json").read_text(encoding="utf-8"))
        digests[arm] = run["model_sha256"]
        made = student.load(f"models/{arm}")
        assert made.family == "encoder-decoder"
        assert not any("lora" in name for name, _ in made.model.named_parameters())
        paths = {"model": f"models/{arm}", "prepared": "prepared", "out": f"{arm}.jsonl"}
        respond.main(options(**paths))
        assert len(read_rows(f"{arm}.jsonl", Response)) == len(WORDS)
    assert len(set(digests.values())) == len(digests)
