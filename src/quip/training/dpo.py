"""What a student learns from the critic by quip's own loop: DPO on pairs, BRIO on rankings.

DPO here is for encoder-decoder students, and for causal ones where TRL lacks the loss (labels that
are smoothed or soft); the rest TRL does for these (`stages/align.py`), to the same numbers
(tests/unit/training/test_losses.py). BRIO is for both families.
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
from quip.training.loop import Figures, Mean, Objective
from quip.training.losses import cross_entropy, dpo_loss, robust_dpo_loss, sequence_logps
from quip.training.trainer import Training

Smoothing = float | Literal["confidence"]


class Judged(NamedTuple):
    """A pair and the reference's log-probabilities of its two texts."""

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
    """`weights`: of the terms "sigmoid" (dpo_loss), "robust" (robust_dpo_loss) and "sft"
    (cross-entropy of the chosen texts). `label_smoothing`: see `doubts`.

    The reference is the student as it is now, asked once; `quip.training.reference_model` lends it
    the weights of another.
    """

    def loss(batch: Sequence[Judged]) -> tuple[list[Mean], Figures]:
        pairs = [row.pair for row in batch]
        logits, labels = forward(student, both_texts(pairs), params.max_length)
        logps, _ = sequence_logps(logits, labels)
        chosen, rejected = logps[: len(pairs)], logps[len(pairs) :]
        ref_chosen = logps.new_tensor([row.ref_chosen for row in batch])
        ref_rejected = logps.new_tensor([row.ref_rejected for row in batch])
        four = chosen, rejected, ref_chosen, ref_rejected
        doubt = doubts(pairs, label_smoothing, logps)
        terms = {
            "sigmoid": lambda: dpo_loss(*four, beta, doubt).mean(),
            "robust": lambda: robust_dpo_loss(*four, beta, doubt).mean(),
            "sft": lambda: cross_entropy(logits[: len(pairs)], labels[: len(pairs)]),
        }
        tokens = int((labels[: len(pairs)] != IGNORED).sum())
        total = [
            Mean(weight * terms[term](), tokens if term == "sft" else len(pairs))
            for term, weight in weights.items()
        ]
        margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected)).detach()
        figures = {
            "rewards/accuracies": (margin > 0).float(),
            "rewards/margins": margin,
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        return total, {k: Mean(v.mean().item(), len(pairs)) for k, v in figures.items()}

    return Objective(referenced(student, rows, params), loss, dropout=False)


def doubts(pairs: Sequence[Preference], smoothing: Smoothing, like: Tensor) -> float | Tensor:
    """The chance that a pair is labelled the wrong way round: one number, or with "confidence" each
    pair's own (batch,), one less the critic's debiased preference for its chosen text."""
    if smoothing == "confidence":
        return like.new_tensor([1 - pair.confidence for pair in pairs])
    return smoothing


@torch.no_grad()
def referenced(reference: Student, rows: Sequence[Preference], params: Training) -> list[Judged]:
    judged: list[Judged] = []
    share = distributed.mine(rows)
    for start in range(0, len(share), params.batch_size):
        pairs = share[start : start + params.batch_size]
        logits, labels = forward(reference, both_texts(pairs), params.max_length)
        logps = sequence_logps(logits, labels)[0].tolist()
        judged += map(Judged, pairs, logps[: len(pairs)], logps[len(pairs) :])
    return distributed.gathered(judged)


def both_texts(pairs: Sequence[Preference]) -> Texts:
    """All chosen texts, then all rejected ones; each literal once."""
    return Texts(
        [pair.literal for pair in pairs],
        [*range(len(pairs))] * 2,
        [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)],
    )


Term = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "sft"]
"""Terms of the loss, as TRL names them; docs/training.md names their papers."""


OWN_TERMS = ("sigmoid", "robust", "sft")
"""Those that quip's own loop has."""


class Dpo(Section):
    """Section `dpo`."""

    beta: float = Field(gt=0)
    loss_type: list[Term] = Field(min_length=1)
    loss_weights: list[float]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | Literal["confidence"]
    """One chance of a wrong label for all pairs, or each pair's own (`feedback.doubts`)."""
    ld_alpha: float | None = Field(ge=0, le=1)
    reference: Literal["warm_start", "previous"]


def by_dpo(args: Namespace, params: Any) -> tuple[Any, dict[str, str], list[Any], dict[str, Any]]:
    """How DPO is trained: fit, data files, rows, settings."""
    dpo = check_weights(load("dpo", Dpo))
    reference = args.start if dpo.reference == "previous" else args.reference or args.start

    def fit(student: Any, rows: Sequence[Preference], job: Any) -> Any:
        other = None if reference == args.start else reference
        if student.family == "causal" and not smoothed(dpo):
            return trl_dpo(dpo, params.lora, args.start, other)(student, rows, job)
        return own_dpo(check_own(dpo), args.start, other)(student, rows, job)

    rows = read_rows(args.feedback, Preference)
    settings = {**dpo.model_dump(exclude={"loss_type", "loss_weights"}), "reference": reference}
    settings |= {"loss": "+".join(dpo.loss_type), "loss_weights": str(dpo.loss_weights)}
    return fit, {"preferences": args.feedback}, rows, settings


def check_weights(dpo: Dpo) -> Dpo:
    if len(dpo.loss_weights) != len(dpo.loss_type):
        raise ParamsError(
            f"params.yaml: key 'dpo.loss_weights' has {len(dpo.loss_weights)} numbers for "
            f"{len(dpo.loss_type)} of dpo.loss_type. Give one weight a term."
        )
    return dpo


def smoothed(dpo: Dpo) -> bool:
    """Whether labels are smoothed in a way that TRL lacks. It takes one number, for `robust` only,
    and leaves it out of `sigmoid` without a word."""
    if dpo.label_smoothing == "confidence":
        return True
    return dpo.label_smoothing > 0 and ("sigmoid" in dpo.loss_type or "robust" not in dpo.loss_type)


def check_own(dpo: Dpo) -> Dpo:
    """Refuse by name what TRL has and quip's own loop has not. That loop trains encoder-decoder
    students, and causal ones with smoothed labels."""
    where = "an encoder-decoder and for smoothed labels (dpo.label_smoothing)"
    for term in dpo.loss_type:
        if term not in OWN_TERMS:
            raise ParamsError(
                f"params.yaml: key 'dpo.loss_type': '{term}' is for causal students (TRL). For "
                f"{where} there are {', '.join(OWN_TERMS)}."
            )
    if dpo.ld_alpha is not None:
        raise ParamsError(
            "params.yaml: key 'dpo.ld_alpha' is for causal students (TRL). For "
            f"{where} set it to null."
        )
    if dpo.label_smoothing == "confidence" and "robust" in dpo.loss_type:
        raise ParamsError(
            "params.yaml: key 'dpo.label_smoothing': the loss 'robust' takes one number, which it "
            "divides by; a pair of confidence 0.5 would weigh without end. With 'confidence' take "
            "'sigmoid'."
        )
    return dpo


def own_dpo(dpo: Dpo, start: str, reference: str | None) -> Any:
    """By quip's own loop; without `reference` the student refers to itself as it came in."""
    from quip.training.dpo import dpo_objective
    from quip.training.loop import by_loop

    weights: dict[str, float] = dict(zip(dpo.loss_type, dpo.loss_weights, strict=True))

    def objective_of(student: Any, rows: Sequence[Preference], params: Any) -> Any:
        with referring(student, start, reference):
            return dpo_objective(student, rows, params, dpo.beta, dpo.label_smoothing, weights)

    return by_loop(objective_of)


def trl_dpo(dpo: Dpo, lora: Any, start: str, reference: str | None) -> Any:
    """By TRL's DPOTrainer; without `reference` the student refers to itself as it came in."""
    from quip.training.trainer import by_trl

    def make_trainer(student: Any, rows: Sequence[Preference], shared: dict[str, Any]) -> Any:
        with referring(student, start, reference):
            return dpo_trainer(student, rows, shared, lora, dpo)

    return by_trl(make_trainer)


def referring(student: Any, start: str, reference: str | None) -> Any:
    """Both ways ask the reference once, while their objective is made: for as long the student is
    it."""
    from quip.training.reference_model import weights_of

    return nullcontext() if reference is None else weights_of(reference, student.model, start)


def dpo_trainer(
    student: Any,
    rows: Sequence[Preference],
    shared: dict[str, Any],
    lora: Any,
    dpo: Dpo,
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    from quip.training.trainer import peft_config
    from quip.training.trl_trainers import Dpo as Trainer

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
        train_dataset=Dataset.from_list(pairs_of(rows)),
        processing_class=student.tokenizer,
        peft_config=peft_config(lora),
    )


def pairs_of(rows: Sequence[Preference]) -> list[dict[str, str]]:
    """As TRL takes them."""
    from quip.models.student import completion, prompt

    return [
        {
            "prompt": prompt(row.literal),
            "chosen": completion(row.chosen),
            "rejected": completion(row.rejected),
        }
        for row in rows
    ]
