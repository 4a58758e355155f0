"""The student: a small causal language model with one plain prompt.

`Literal: ...\\nFunny:` in, one line out. The prompt is short because on a CPU every token costs;
the model's own chat template would double a training row.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from quip import weights
from quip.engine import cores
from quip.errors import WeightsError
from quip.params import Section
from quip.precision import Precision, use_bf16


class Lora(Section):
    """Low-rank adapters on every linear layer (PEFT), merged before saving."""

    r: int
    alpha: int
    dropout: float


@dataclass
class Student:
    model: Any
    tokenizer: Any


def prompt(literal: str) -> str:
    """What the student reads. No space at the end: it belongs to the completion."""
    return f"Literal: {literal}\nFunny:"


def completion(paraphrase: str) -> str:
    """What the student writes (the tokenizer's end-of-sequence is added in training)."""
    return f" {paraphrase}"


def load(name: str | Path, precision: Precision = "fp32") -> Student:
    """Load a student from a folder, a pinned base or a hub id; ready to generate.

    Raises WeightsError when there is no such model, when it is an encoder-decoder (which TRL would
    silently train wrong), or when its tokenizer cannot end a text.
    """
    torch.set_num_threads(cores())
    source = weights.student_base(str(name))
    try:
        check_causal(name, AutoConfig.from_pretrained(source, trust_remote_code=False))
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"student '{name}' cannot be loaded: {reason}") from None
    if tokenizer.eos_token_id is None:
        raise WeightsError(f"student '{name}': its tokenizer has no end-of-sequence token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if use_bf16(precision):
        model = model.bfloat16()
    return Student(model.eval(), tokenizer)


def check_causal(name: str | Path, config: Any) -> None:
    """Refuse an encoder-decoder. The configuration is asked before anything is loaded: of some
    (BART) transformers makes a causal model out of half the weights, and the other half at random.
    """
    if config.is_encoder_decoder:
        raise WeightsError(
            f"student '{name}' is an encoder-decoder: TRL trains those wrong without a word. "
            "Choose a causal model."
        )


def save(student: Student, folder: Path) -> None:
    """Save merged float32 safetensors and the tokenizer, whole or not at all."""
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.tmp")
    if beside.exists():
        remove(beside)
    beside.mkdir(parents=True, exist_ok=True)
    model = student.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.float().save_pretrained(beside)
    student.tokenizer.save_pretrained(beside)
    if folder.exists():
        remove(folder)
    beside.rename(folder)


def remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def digest(folder: str | Path) -> str:
    """sha256 over the names and bytes of the folder's safetensors files, in name order."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        total.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def is_model(folder: str | Path) -> bool:
    """Whether the folder holds a student (an arm that was not asked for leaves a note instead)."""
    config = Path(folder) / "config.json"
    return config.is_file() and "model_type" in json.loads(config.read_text(encoding="utf-8"))
