"""Student: a small language model, causal or encoder-decoder.

A causal student continues one plain prompt, `Literal: ...\\nFunny:`, with one line. The prompt is
short because every token costs time on a CPU; the model's own chat template would double a training
row. An encoder-decoder (BART in the paper) reads the literal itself and writes the paraphrase.
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
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def family(self) -> Family:
        return "encoder-decoder" if self.model.config.is_encoder_decoder else "causal"

    @property
    def context(self) -> int | None:
        """The context length in tokens; None for relative positions without a limit (T5)."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return int(found) if found else None

    def source(self, literal: str) -> str:
        """The student's input for a literal."""
        return prompt(literal) if self.family == "causal" else literal


def prompt(literal: str) -> str:
    """The input of a causal student. The space after it belongs to the completion."""
    return f"Literal: {literal}\nFunny:"


def completion(paraphrase: str) -> str:
    """The output of a causal student; training adds the tokenizer's end-of-sequence."""
    return f" {paraphrase}"


def load(name: str | Path, precision: Precision = "fp32") -> Student:
    """Load a student from a folder, a pinned base or a hub id, in evaluation mode, on the GPU where
    there is one.

    Raises WeightsError when the model cannot be loaded or its tokenizer has no end-of-sequence.
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
        reset_generation_config(model, tokenizer)
    if use_bf16(precision):
        model = model.bfloat16()
    if torch.cuda.is_available():
        model = model.to("cuda")
    return Student(model.eval(), tokenizer)


def auto_class(source: str | Path) -> Any:
    """The transformers class of the model, by its configuration.

    AutoModelForCausalLM would load an encoder-decoder such as BART as a causal model, with half of
    its weights random.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def reset_generation_config(model: Any, tokenizer: Any) -> None:
    """Drop the checkpoint's own generation settings, but for its special tokens.

    Many encoder-decoders come with the beams, n-gram bans and length penalties of their last task.
    """
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
    """Refuse an encoder-decoder for training by TRL. Raises WeightsError."""
    if student.family != "causal":
        raise WeightsError(
            "the student is an encoder-decoder, which TRL trains wrongly without an error. "
            "Choose a causal model, or train it by quip's own loop."
        )


def check_length(student: Student, tokens: int, key: str) -> None:
    """Refuse a setting of more tokens than the student's context holds. Raises ParamsError."""
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


def weights_digest(folder: str | Path) -> str:
    """sha256 over the names and bytes of the folder's safetensors files, in name order."""
    sha256 = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        sha256.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                sha256.update(block)
    return sha256.hexdigest()
