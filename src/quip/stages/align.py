"""align: learn from the critic. One arm a run: `brio`, `dpo` or `brio_dpo`.

dpo       DPO on the critic's pairs (Rafailov et al. 2023, equation 7): by TRL for a causal student,
          by quip's own loop for an encoder-decoder and for a loss that TRL lacks
brio      BRIO on the critic's rankings, beside the imitation of the teacher (Liu et al. 2022)
brio_dpo  DPO that starts from, and refers to, a student trained by BRIO on the teacher's own
          paraphrases (which is this stage with `--arm brio` on the teacher's rankings)

`--rounds`: in how many rounds feedback is collected; this one takes its share of align.epochs.
docs/OBJECTIVES.md explains the objectives, their settings and the rounds.

    python -m quip.stages.align --arm dpo --wanted data/roles/arms/dpo.json --start models/sft \
        --reference models/sft --preferences data/preferences.jsonl \
        --rankings data/rankings.jsonl --pairs data/imitation/pairs.jsonl --model models/dpo \
        --curve data/curves/dpo.csv --run data/runs/dpo.json
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from quip import launching, stage
from quip.errors import ParamsError
from quip.params import Section, load
from quip.records import Preference, Ranking, TrainingPair, read_rows
from quip.unwanted import leave_note, unwanted

Term = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "sft"]
"""Terms of the loss, as TRL names them; docs/OBJECTIVES.md names their papers."""
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


class Brio(Section):
    """Section `brio`."""

    ce_weight: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)


def main(argv: Sequence[str] | None = None) -> None:
    names = ("arm", "wanted", "start", "rankings", "pairs", "model", "curve", "run")
    args = stage.arguments(__doc__, argv, *names, reference="", preferences="", rounds="1")
    if unwanted(args.wanted):
        return leave_note(Path(args.wanted).stem, args.model, args.curve, args.run)
    if launching.handed_over("quip.stages.align", argv):
        return
    if args.arm not in ("brio", "dpo", "brio_dpo"):
        raise ParamsError(f"align: unknown arm '{args.arm}' (brio, dpo, brio_dpo).")
    from quip import training

    class Params(training.Training):
        pass

    params = load("align", Params)
    params = params.model_copy(update={"epochs": params.epochs / int(args.rounds)})
    learn = by_brio if args.arm == "brio" else by_dpo
    fit, data, rows, settings = learn(args, params)
    training.train(
        f"align@{name_of(Path(args.model))}",
        fit,
        params,
        args.start,
        {name: Path(path) for name, path in data.items()},
        rows,
        Path(args.model),
        Path(args.curve),
        Path(args.run),
        {**settings, "base": args.start},
    )


def name_of(model: Path) -> str:
    """models/dpo -> dpo, models/rounds/dpo-1 -> rounds-dpo-1: no two trainings share a name."""
    return "-".join(model.parts[1:] if model.parts[0] == "models" else model.parts[-1:])


def by_brio(args: Namespace, params: Any) -> tuple[Any, dict[str, str], list[Any], dict[str, Any]]:
    """How BRIO is trained: fit, data files, rows, settings. The teacher's first paraphrase of an
    input is its target; an input for which the teacher was not asked is ranked only."""
    from quip.feedback import Taught, brio_objective
    from quip.looping import by_loop

    brio = load("brio", Brio)
    targets: dict[str, str] = {}
    for pair in read_rows(args.pairs, TrainingPair):
        targets.setdefault(pair.input, pair.paraphrase)
    rows = [Taught(row, targets.get(row.input)) for row in read_rows(args.rankings, Ranking)]
    fit = by_loop(
        lambda student, rows, params: brio_objective(
            student, rows, params, brio.ce_weight, brio.label_smoothing
        )
    )
    data = {"rankings": args.rankings, "pairs": args.pairs}
    return fit, data, rows, {"loss": "brio", **brio.model_dump()}


def by_dpo(args: Namespace, params: Any) -> tuple[Any, dict[str, str], list[Any], dict[str, Any]]:
    """How DPO is trained: fit, data files, rows, settings."""
    dpo = check_weights(load("dpo", Dpo))
    reference = args.start if dpo.reference == "previous" else args.reference or args.start

    def fit(student: Any, rows: Sequence[Preference], job: Any) -> Any:
        other = None if reference == args.start else reference
        if student.family == "causal" and not smoothed(dpo):
            return trl_dpo(dpo, params.lora, args.start, other)(student, rows, job)
        return own_dpo(check_own(dpo), args.start, other)(student, rows, job)

    rows = read_rows(args.preferences, Preference)
    settings = {**dpo.model_dump(exclude={"loss_type", "loss_weights"}), "reference": reference}
    settings |= {"loss": "+".join(dpo.loss_type), "loss_weights": str(dpo.loss_weights)}
    return fit, {"preferences": args.preferences}, rows, settings


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
    from quip.feedback import dpo_objective
    from quip.looping import by_loop

    weights: dict[str, float] = dict(zip(dpo.loss_type, dpo.loss_weights, strict=True))

    def objective_of(student: Any, rows: Sequence[Preference], params: Any) -> Any:
        with referring(student, start, reference):
            return dpo_objective(student, rows, params, dpo.beta, dpo.label_smoothing, weights)

    return by_loop(objective_of)


def trl_dpo(dpo: Dpo, lora: Any, start: str, reference: str | None) -> Any:
    """By TRL's DPOTrainer; without `reference` the student refers to itself as it came in."""
    from quip.training import by_trl

    def make_trainer(student: Any, rows: Sequence[Preference], shared: dict[str, Any]) -> Any:
        with referring(student, start, reference):
            return dpo_trainer(student, rows, shared, lora, dpo)

    return by_trl(make_trainer)


def referring(student: Any, start: str, reference: str | None) -> Any:
    """Both ways ask the reference once, while their objective is made: for as long the student is
    it."""
    from quip.lending import weights_of

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

    from quip.trainers import Dpo as Trainer
    from quip.training import peft_config

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
    from quip.student import completion, prompt

    return [
        {
            "prompt": prompt(row.literal),
            "chosen": completion(row.chosen),
            "rejected": completion(row.rejected),
        }
        for row in rows
    ]


if __name__ == "__main__":
    stage.run(main)
