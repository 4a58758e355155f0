"""DPO: direct preference optimisation on the critic's pairs (Rafailov et al. 2023, equation 7).

Two trainers give the same numbers (tests/unit/training/test_losses.py). TRL trains causal students.
quip's own loop trains encoder-decoder students, and causal ones where TRL lacks the loss (smoothed
or soft labels). The pairs come from data/preferences.jsonl.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from quip.core.jsonl import read_rows
from quip.core.params import Section, load
from quip.core.records import Preference
from quip.models.likelihood import Texts, forward
from quip.models.packing import IGNORED
from quip.models.student import Student
from quip.runtime.errors import ParamsError
from quip.training import distributed
from quip.training.loop import Mean, Metrics, Objective
from quip.training.losses import cross_entropy, dpo_loss, robust_dpo_loss, sequence_logps
from quip.training.trainer import Training

Smoothing = float | Literal["confidence"]


class PairWithReference(NamedTuple):
    """A pair and the reference model's log-probabilities of its two texts."""

    pair: Preference
    ref_chosen: float
    ref_rejected: float


def dpo_objective(
    student: Student,
    rows: Sequence[Preference],
    params: Training,
    beta: float,
    label_smoothing: Smoothing,
    weights: Mapping[str, float],
) -> Objective:
    """The objective: a weighted sum of loss terms.

    weights          weight of each term: "sigmoid" (dpo_loss), "robust" (robust_dpo_loss), "sft"
                     (cross-entropy of the chosen texts)
    label_smoothing  see `label_noise`

    The reference model is the student in its present state, evaluated once here. With another
    reference model the caller loads its weights first (`quip.training.reference_model`).
    """

    def loss(batch: Sequence[PairWithReference]) -> tuple[list[Mean], Metrics]:
        pairs = [row.pair for row in batch]
        logits, labels = forward(student, both_texts(pairs), params.max_length)
        logps, _ = sequence_logps(logits, labels)
        chosen, rejected = logps[: len(pairs)], logps[len(pairs) :]
        ref_chosen = logps.new_tensor([row.ref_chosen for row in batch])
        ref_rejected = logps.new_tensor([row.ref_rejected for row in batch])
        four = chosen, rejected, ref_chosen, ref_rejected
        noise = label_noise(pairs, label_smoothing, logps)
        terms = {
            "sigmoid": lambda: dpo_loss(*four, beta, noise).mean(),
            "robust": lambda: robust_dpo_loss(*four, beta, noise).mean(),
            "sft": lambda: cross_entropy(logits[: len(pairs)], labels[: len(pairs)]),
        }
        tokens = int((labels[: len(pairs)] != IGNORED).sum())
        total = [
            Mean(weight * terms[term](), tokens if term == "sft" else len(pairs))
            for term, weight in weights.items()
        ]
        margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected)).detach()
        metrics = {
            "rewards/accuracies": (margin > 0).float(),
            "rewards/margins": margin,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        return total, {k: Mean(v.mean().item(), len(pairs)) for k, v in metrics.items()}

    return Objective(reference_logps(student, rows, params), loss, dropout=False)


def label_noise(pairs: Sequence[Preference], smoothing: Smoothing, like: Tensor) -> float | Tensor:
    """Label noise: the probability that a pair is labelled the wrong way round.

    A number is the same for all pairs. "confidence" gives each pair its own, (batch,): 1 minus the
    critic's debiased preference for the chosen text.
    """
    if smoothing == "confidence":
        return like.new_tensor([1 - pair.confidence for pair in pairs])
    return smoothing


@torch.no_grad()
def reference_logps(
    reference: Student, rows: Sequence[Preference], params: Training
) -> list[PairWithReference]:
    """Each pair with the reference model's log-probabilities, computed in shards."""
    found: list[PairWithReference] = []
    share = distributed.local_shard(rows)
    for start in range(0, len(share), params.batch_size):
        pairs = share[start : start + params.batch_size]
        logits, labels = forward(reference, both_texts(pairs), params.max_length)
        logps = sequence_logps(logits, labels)[0].tolist()
        found += map(PairWithReference, pairs, logps[: len(pairs)], logps[len(pairs) :])
    return distributed.gather(found)


def both_texts(pairs: Sequence[Preference]) -> Texts:
    """All chosen texts, then all rejected ones; each literal once."""
    return Texts(
        [pair.literal for pair in pairs],
        [*range(len(pairs))] * 2,
        [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)],
    )


Term = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "sft"]
"""Terms of the loss by their TRL names; docs/training.md names their papers."""


LOOP_TERMS = ("sigmoid", "robust", "sft")
"""The terms that quip's own loop implements."""


class Dpo(Section):
    """Section `dpo`."""

    beta: float = Field(gt=0)
    loss_type: list[Term] = Field(min_length=1)
    loss_weights: list[float]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | Literal["confidence"]
    """Label noise: one probability for all pairs, or each pair's own (`label_noise`)."""
    ld_alpha: float | None = Field(ge=0, le=1)
    reference: Literal["warm_start", "previous"]


def dpo_recipe(
    args: Namespace, params: Any
) -> tuple[Any, dict[str, str], list[Any], dict[str, Any]]:
    """How DPO is trained: (fit, data files, rows, settings)."""
    dpo = check_weights(load("dpo", Dpo))
    reference = args.start if dpo.reference == "previous" else args.reference or args.start

    def fit(student: Any, rows: Sequence[Preference], job: Any) -> Any:
        other = None if reference == args.start else reference
        if student.family == "causal" and not needs_own_loop(dpo):
            return trl_dpo(dpo, params.lora, args.start, other)(student, rows, job)
        return loop_dpo(check_loop_terms(dpo), args.start, other)(student, rows, job)

    rows = read_rows(args.feedback, Preference)
    settings = {**dpo.model_dump(exclude={"loss_type", "loss_weights"}), "reference": reference}
    settings |= {"loss": "+".join(dpo.loss_type), "loss_weights": str(dpo.loss_weights)}
    return fit, {"preferences": args.feedback}, rows, settings


def check_weights(dpo: Dpo) -> Dpo:
    """Refuse another number of weights than of loss terms. Raises ParamsError."""
    if len(dpo.loss_weights) != len(dpo.loss_type):
        raise ParamsError(
            f"params.yaml: key 'dpo.loss_weights' has {len(dpo.loss_weights)} numbers for "
            f"{len(dpo.loss_type)} of dpo.loss_type. Give one weight for each term."
        )
    return dpo


def needs_own_loop(dpo: Dpo) -> bool:
    """Whether TRL lacks this label smoothing. TRL takes one number, applies it to `robust` only and
    ignores it in `sigmoid` without a message."""
    if dpo.label_smoothing == "confidence":
        return True
    return dpo.label_smoothing > 0 and ("sigmoid" in dpo.loss_type or "robust" not in dpo.loss_type)


def check_loop_terms(dpo: Dpo) -> Dpo:
    """Refuse the settings that TRL implements and quip's own loop does not. Raises ParamsError."""
    where = "an encoder-decoder and for smoothed labels (dpo.label_smoothing)"
    for term in dpo.loss_type:
        if term not in LOOP_TERMS:
            raise ParamsError(
                f"params.yaml: key 'dpo.loss_type': '{term}' is for causal students (TRL). For "
                f"{where} use {', '.join(LOOP_TERMS)}."
            )
    if dpo.ld_alpha is not None:
        raise ParamsError(
            "params.yaml: key 'dpo.ld_alpha' is for causal students (TRL). For "
            f"{where} set it to null."
        )
    if dpo.label_smoothing == "confidence" and "robust" in dpo.loss_type:
        raise ParamsError(
            "params.yaml: key 'dpo.label_smoothing' is 'confidence', but the loss 'robust' needs "
            "one number: it divides by 1 - 2e, which is 0 for a pair of confidence 0.5. Use "
            "'sigmoid' with 'confidence'."
        )
    return dpo


def loop_dpo(dpo: Dpo, start: str, reference: str | None) -> Any:
    """A Fit by quip's own loop. Without `reference` the start model is the reference model."""
    from quip.training.loop import loop_fit

    weights: dict[str, float] = dict(zip(dpo.loss_type, dpo.loss_weights, strict=True))

    def make_objective(student: Any, rows: Sequence[Preference], params: Any) -> Any:
        with use_reference(student, start, reference):
            return dpo_objective(student, rows, params, dpo.beta, dpo.label_smoothing, weights)

    return loop_fit(make_objective)


def trl_dpo(dpo: Dpo, lora: Any, start: str, reference: str | None) -> Any:
    """A Fit by TRL's DPOTrainer. Without `reference` the start model is the reference model."""
    from quip.training.trainer import trl_fit

    def make_trainer(student: Any, rows: Sequence[Preference], shared: dict[str, Any]) -> Any:
        with use_reference(student, start, reference):
            return dpo_trainer(student, rows, shared, lora, dpo)

    return trl_fit(make_trainer)


def use_reference(student: Any, start: str, reference: str | None) -> Any:
    """A context in which the student has the weights of `reference`; without one it is unchanged.

    Either trainer evaluates the reference model once, while it builds its objective.
    """
    from quip.training.reference_model import reference_weights

    return (
        nullcontext() if reference is None else reference_weights(reference, student.model, start)
    )


def dpo_trainer(
    student: Any,
    rows: Sequence[Preference],
    shared: dict[str, Any],
    lora: Any,
    dpo: Dpo,
) -> Any:
    """TRL's DPOTrainer on packed rows, with precomputed reference log-probabilities."""
    from datasets import Dataset
    from trl import DPOConfig

    from quip.training.trainer import peft_config
    from quip.training.trl_trainers import PackedDpoTrainer as Trainer

    return Trainer(
        model=student.model,
        args=DPOConfig(
            **shared,
            beta=dpo.beta,
            loss_type=[*dpo.loss_type],
            loss_weights=dpo.loss_weights,
            label_smoothing=float(dpo.label_smoothing),
            ld_alpha=dpo.ld_alpha,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(trl_rows(rows)),
        processing_class=student.tokenizer,
        peft_config=peft_config(lora),
    )


def trl_rows(rows: Sequence[Preference]) -> list[dict[str, str]]:
    """The rows in TRL's format: prompt, chosen, rejected."""
    from quip.models.student import completion, prompt

    return [
        {
            "prompt": prompt(row.literal),
            "chosen": completion(row.chosen),
            "rejected": completion(row.rejected),
        }
        for row in rows
    ]
