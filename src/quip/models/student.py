"""The student: a small language model, causal or encoder-decoder.

A causal one continues one plain prompt, `Literal: ...\\nFunny:`, with one line. The prompt is short
because on a CPU every token costs; the model's own chat template would double a training row. An
encoder-decoder (BART, the paper's) reads the literal itself and writes the paraphrase.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

from quip.core.params import Section
from quip.models import weights
from quip.models.hardware import Precision, cores, use_bf16
from quip.runtime.errors import ParamsError, WeightsError

Family = Literal["causal", "encoder-decoder"]


class Lora(Section):
    """Low-rank adapters on every linear layer (PEFT), merged before saving."""

    r: int
    alpha: int
    dropout: float


@dataclass
class Student:
    model: Any
    tokenizer: Any

    @property
    def family(self) -> Family:
        return "encoder-decoder" if self.model.config.is_encoder_decoder else "causal"

    @property
    def context(self) -> int | None:
        """How many tokens it can read and write at once; None where positions have no end (T5)."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return int(found) if found else None

    def source(self, literal: str) -> str:
        """What it reads before it writes."""
        return prompt(literal) if self.family == "causal" else literal


def prompt(literal: str) -> str:
    """What a causal student reads. No space at the end: it belongs to the completion."""
    return f"Literal: {literal}\nFunny:"


def completion(paraphrase: str) -> str:
    """What a causal student writes (the tokenizer's end-of-sequence is added in training)."""
    return f" {paraphrase}"


def load(name: str | Path, precision: Precision = "fp32") -> Student:
    """Load a student from a folder, a pinned base or a hub id; ready to generate, on the GPU where
    there is one.

    Raises WeightsError when there is no such model or its tokenizer cannot end a text.
    """
    torch.set_num_threads(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    source = weights.student_base(str(name))
    try:
        model = auto_class(source).from_pretrained(
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
    if model.config.is_encoder_decoder:
        plain_generation(model, tokenizer)
    if use_bf16(precision):
        model = model.bfloat16()
    if torch.cuda.is_available():
        model = model.to("cuda")
    return Student(model.eval(), tokenizer)


def auto_class(source: str | Path) -> Any:
    """By the configuration, before anything is loaded: of some encoder-decoders (BART) transformers
    makes a causal model out of half the weights, and the other half at random."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def plain_generation(model: Any, tokenizer: Any) -> None:
    """Generate as asked and no other way: many encoder-decoders come with the beams, n-gram bans
    and length penalties of the task they were last trained for."""
    old = model.generation_config
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        decoder_start_token_id=old.decoder_start_token_id or model.config.decoder_start_token_id,
        bos_token_id=old.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def check_causal(student: Student) -> None:
    """Refuse an encoder-decoder where TRL would train it."""
    if student.family != "causal":
        raise WeightsError(
            "the student is an encoder-decoder: TRL trains those wrong without a word. "
            "Choose a causal model, or train it by quip's own loop."
        )


def check_length(student: Student, tokens: int, key: str) -> None:
    """Refuse a setting that asks for more tokens than the student's context holds."""
    if student.context is not None and tokens > student.context:
        raise ParamsError(
            f"params.yaml: key '{key}' is {tokens}, but the student's context holds "
            f"{student.context} tokens. Lower it, or choose another student (sft.base)."
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
