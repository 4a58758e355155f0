"""A stage holds no more than one model.

The real stages on a tiny student; the models that are alive are counted at every pass of one.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quip.core.jsonl import write_rows
from quip.core.records import LiteralText, Preference, Reference, TrainingPair
from quip.stages import align, candidates, respond, sft
from stage_options import options

LITERALS = [LiteralText(id=f"i{n}", text=f"I missed bus {n}.") for n in range(6)]


def models() -> int:
    """Those that are alive and no part of another."""
    from transformers import PreTrainedModel

    gc.collect()
    alive = [thing for thing in gc.get_objects() if isinstance(thing, PreTrainedModel)]
    parts = {id(part) for whole in alive for part in whole.modules() if part is not whole}
    return sum(id(one) not in parts for one in alive)


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many were alive at each pass of a whole model, less those of other tests."""
    from transformers import PreTrainedModel

    found: list[int] = []
    before = models()

    def hook(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, PreTrainedModel) and module.can_generate() and len(found) < 4:
            found.append(models() - before)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield found
    handle.remove()


@pytest.fixture
def here(project: Callable[..., Path], tiny_student: Path) -> Path:
    once: dict[str, Any] = {"epochs": 1, "batch_size": 2, "precision": "fp32", "max_length": 64}
    project(
        sft={"base": str(tiny_student), **once},
        align=once,
        candidates={"max_new_tokens": 2, "precision": "fp32", "k": 2},
        respond={"max_new_tokens": 2, "num_beams": 2, "precision": "fp32", "splits": ["test"]},
    )
    for split in ("train", "test"):
        write_rows(f"prepared/{split}.jsonl", LITERALS)
    pairs = [TrainingPair(input=r.id, literal=r.text, paraphrase="my bus") for r in LITERALS]
    write_rows("pairs.jsonl", pairs)
    preferences = [
        Preference(input=r.id, literal=r.text, chosen="my bus", rejected="a bus", confidence=0.9)
        for r in LITERALS
    ]
    write_rows("preferences.jsonl", preferences)
    reference = Reference(input="v", split="val", literal="A bus.", paraphrases=["my bus"])
    write_rows("references.jsonl", [reference])
    Path("dpo.json").write_text(json.dumps({"arm": "dpo", "wanted": True}))
    return tiny_student


MADE = {"model": "models/a", "curve": "a.csv", "run": "a.json"}


def trained(student: Path, reference: Path) -> None:
    data = {"feedback": "preferences.jsonl", "pairs": "pairs.jsonl"}
    arm = {"arm": "dpo", "wanted": "dpo.json", "start": student, "reference": reference}
    align.main(options(**arm, **data, **MADE))


STAGES: dict[str, Callable[[Path], None]] = {
    "sft": lambda student: sft.main(
        options(pairs="pairs.jsonl", references="references.jsonl", **MADE)
    ),
    "align": lambda student: trained(student, student),
    "candidates": lambda student: candidates.main(
        options(model=student, prepared="prepared", out="candidates.jsonl")
    ),
    "respond": lambda student: respond.main(
        options(model=student, prepared="prepared", out="responses.jsonl")
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_holds_one_model(stage: str, here: Path, most: list[int]) -> None:
    STAGES[stage](here)
    assert most
    assert max(most) == 1


def test_a_reference_that_is_another_model_is_none_besides(
    here: Path, most: list[int], tmp_path: Path
) -> None:
    """Of a later round, and of brio_dpo."""
    other = tmp_path / "other"
    other.mkdir()
    for file in here.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    trained(here, other)
    assert max(most) == 1
