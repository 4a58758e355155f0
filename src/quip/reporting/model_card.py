"""The model card of a student: what it is, what made it, how good it is, and by whose judgement.

`gather` takes everything from the recipe in dvc.lock and the metrics of this checkout; `register`
keeps it with each version (`card.json`, and rendered), and `quip export` puts the card beside the
weights. What is not known stands in the card as unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quip.critics.unproven_gate import most_trusted_judge
from quip.models.pins import STUDENT
from quip.reporting import claims
from quip.tracking import provenance
from quip.tracking.lineage import LOCK_FILE, Recipe, git_commit, read_lock, recipe_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

UNKNOWN = "unknown"
SPLITS = ("test", "ood")
MEASURES = (("wtr", "ci95", "win-tie rate"), ("score", "score_ci95", "score"))
LARGEST = 5000
"""Characters that a description in MLflow's registry can have."""
HUB_NAMES = {STUDENT: "HuggingFaceTB/SmolLM2-135M-Instruct"}
OBJECTIVES = {
    "sft": "imitation of the teacher's paraphrases (cross-entropy)",
    "ft": "imitation of the teacher's paraphrases (cross-entropy), for longer than `sft`",
    "sd": "imitation of those of its own texts that the critic preferred (self-distillation)",
    "brio": "a ranking loss on its own texts as the critic ranked them (BRIO), beside imitation",
    "dpo": "direct preference optimisation on pairs of its own texts as the critic judged them",
    "brio_dpo": "BRIO on the teacher's paraphrases, then DPO on pairs of its own texts",
}
DATA_LICENCES = {
    "shipped": ("cc-by-4.0", "those shipped with quip, data/raw (CC BY 4.0)"),
    "empatheticdialogues": ("cc-by-nc-4.0", "EmpatheticDialogues (CC BY-NC 4.0)"),
    "samsum": ("cc-by-nc-nd-4.0", "SAMSum (CC BY-NC-ND 4.0)"),
}
NOT_DATA = ("data/metrics", "data/roles", "data/runs", "data/curves")


@dataclass(frozen=True)
class Facts:
    """What a card says, of one student."""

    name: str
    arm: str
    sha256: str
    family: str
    """causal or encoder-decoder."""
    made: Recipe
    calls: dict[str, dict[str, Any]]
    """Role -> endpoint, model, prompts, counts (`trail.calls`)."""
    run: dict[str, Any]
    """The content of data/runs/<arm>.json."""
    wtr: dict[str, Any]
    critic: dict[str, Any]
    respond: dict[str, Any]
    commit: str | None

    def section(self, name: str) -> dict[str, Any]:
        """A section of params as the recipe's stages ran with it."""
        return settings(self.made).get(name) or {}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def gather(
    name: str, arm: str, sha256: str, folder: Path, metrics: Path, run: Path, respond: Any
) -> Facts:
    """The facts of models/<arm> from the files of this checkout; `folder` holds its weights."""
    lock = LOCK_FILE.read_text(encoding="utf-8") if LOCK_FILE.is_file() else ""
    made = recipe_of(read_lock(lock), f"models/{arm}")
    return Facts(
        name,
        arm,
        sha256,
        family(folder),
        made,
        provenance.llm_calls(made),
        provenance.read_json(run),
        provenance.read_json(metrics / "wtr.json"),
        provenance.read_json(metrics / "critic.json"),
        dict(respond or {}),
        git_commit(),
    )


def family(folder: Path) -> str:
    config = provenance.read_json(folder / "config.json")
    return "encoder-decoder" if config.get("is_encoder_decoder") else "causal"


# ---- the card ------------------------------------------------------------------------------


def render(facts: Facts, use: str) -> ModelCard:
    """The whole card, with `use` (markdown) telling how to run what it lies beside."""
    from huggingface_hub import ModelCard

    template = (
        files("quip.reporting")
        .joinpath("templates", "student_card.md.j2")
        .read_text(encoding="utf-8")
    )
    return ModelCard.from_template(
        card_data(facts),
        template_str=template,
        use=use.strip(),
        respond=facts.respond,
        rows=(facts.run.get("params") or {}).get("rows"),
        settings=told_settings(facts.made),
        data=hashes(facts.made),
        source=source(facts),
        calls=facts.calls,
        licence=licence(facts),
        **common(facts),
    )


def description(facts: Facts) -> str:
    """The card's heart, short enough for a description in MLflow's registry."""
    from jinja2 import Template

    template = (
        files("quip.reporting")
        .joinpath("templates", "version_card.md.j2")
        .read_text(encoding="utf-8")
    )
    return Template(template).render(**common(facts))[:LARGEST]


def common(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "arm": facts.arm,
        "sha256": facts.sha256,
        "commit": facts.commit,
        "base": base(facts),
        "objective": OBJECTIVES.get(facts.arm, UNKNOWN),
        "verdicts": list(verdicts(facts)),
        "claim": claims.claim(facts.wtr) if facts.wtr.get("arms") else "",
        "audit": list(audit(facts)),
    }


def card_data(facts: Facts) -> Any:
    from huggingface_hub import ModelCardData

    found = str(facts.section("sft").get("base", ""))
    hub = HUB_NAMES.get(found, found if re.fullmatch(r"[\w.-]+/[\w.-]+", found) else None)
    return ModelCardData(
        base_model=hub,
        language="en",
        library_name="transformers",
        license=licence_id(facts),
        license_name=None if licence_id(facts) != "other" else "see-the-card",
        model_name=f"{facts.name}-{facts.arm}",
        pipeline_tag="text-generation" if facts.family == "causal" else None,
        tags=["humor", "paraphrase", facts.arm],
        eval_results=list(eval_results(facts)) or None,
    )


def eval_results(facts: Facts) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    revision = dict(hashes(facts.made)).get("data/prepared")
    for split, judge, cell in cells(facts):
        for key, ends, called in (
            ("wtr", "ci95", "win-tie rate"),
            ("score", "score_ci95", "score"),
        ):
            arguments = {"judge": judge, "n": cell["n"], "ci95": cell.get(ends)}
            yield EvalResult(
                task_type="text-generation",
                task_name="humorous paraphrase against the teacher's",
                dataset_type="quip",
                dataset_name=f"quip inputs, {split}",
                dataset_split=split,
                dataset_revision=revision,
                metric_type=key,
                metric_name=f"{called}, judge {judge}",
                metric_value=round(cell[key], 4),
                metric_args=arguments,
            )


# ---- its parts -----------------------------------------------------------------------------


def cells(facts: Facts) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(split, judge, figures against the teacher); the most trusted judge first."""
    splits = (facts.wtr.get("arms") or {}).get(facts.arm) or {}
    for split in SPLITS:
        judges = splits.get(split) or {}
        first = most_trusted_judge(facts.critic, list(judges)) if judges else ""
        for judge in sorted(judges, key=lambda name: name != first):
            yield split, judge, judges[judge]


def verdicts(facts: Facts) -> Iterator[dict[str, Any]]:
    for split, judge, cell in cells(facts):
        yield {
            "split": split,
            "judge": judge,
            "n": cell["n"],
            "wtr": estimate(cell, "wtr", "ci95"),
            "score": estimate(cell, "score", "score_ci95"),
            "at_length": estimate(cell, "score_at_length", "score_at_length_ci95"),
            "outcome": " / ".join(f"{100 * cell[key]:.0f} %" for key in ("win", "tie", "loss")),
        }


def estimate(cell: Mapping[str, Any], key: str, ends: str) -> str:
    """A figure and its 95 % interval."""
    if cell.get(key) is None:
        return "-"
    return f"{cell[key]:.2f}" + (f" {claims.span(cell[ends])}" if cell.get(ends) else "")


def audit(facts: Facts) -> Iterator[dict[str, Any]]:
    """What each judge is worth on the gold pairs; the critic itself stands at the top level."""
    found = facts.critic
    kind = (found.get("critic") or {}).get("kind")
    own = {"learned" if kind == "learned" else "critic": found} if "agreement" in found else {}
    for judge, cell in {**own, **(found.get("judges") or {})}.items():
        yield {
            "judge": judge,
            "n": cell.get("n", UNKNOWN),
            "agreement": estimate(cell, "agreement", "ci95"),
            "position": estimate(cell, "position_bias", ""),
            "length": estimate(cell, "length_bias", ""),
            "kinds": {key: estimate(k, "agreement", "") for key, k in kinds(cell).items()},
        }


def kinds(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    return cell.get("by_kind") or {}


def settings(made: Recipe) -> dict[str, dict[str, Any]]:
    """Section -> values, of every stage of a recipe."""
    found = [values for entry in made.values() for values in entry.get("params", {}).values()]
    return {key: value for values in found for key, value in values.items()}


def told_settings(made: Recipe) -> list[tuple[str, str]]:
    """(section, its values in a line): folders of this machine shortened to their names, and no
    addresses of endpoints, which concern nobody else."""
    return [
        (key, ", ".join(f"{name} {plain(value)}" for name, value in values.items()))
        for key, values in sorted(settings(made).items())
        if isinstance(values, dict) and key != "endpoints"
    ]


def plain(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).strip('"').replace("|", "\\|")
    return Path(text).name if text.startswith(("/", "~")) else text


def hashes(made: Recipe) -> list[tuple[str, str]]:
    """(path, md5) of every file and folder of data that led to the model, as DVC counts it."""
    entries = [part for e in made.values() for side in ("deps", "outs") for part in e.get(side, [])]
    found = {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}
    return [
        (path, md5)
        for path, md5 in sorted(found.items())
        if path.startswith("data/") and not path.startswith(NOT_DATA)
    ]


def base(facts: Facts) -> str:
    found = str(facts.section("sft").get("base", UNKNOWN))
    return HUB_NAMES.get(found, plain(found))


def source(facts: Facts) -> str:
    """Where the sentences came from."""
    found = str(facts.section("prepare").get("source", UNKNOWN))
    return DATA_LICENCES.get(found, ("", f"`{plain(found)}`"))[1]


def licence_id(facts: Facts) -> str:
    """Apache-2.0 where base and data allow it, the data's where that is stricter, else other."""
    if facts.section("sft").get("base") != STUDENT:
        return "other"
    data = DATA_LICENCES.get(str(facts.section("prepare").get("source")), ("other", ""))[0]
    return "apache-2.0" if data == "cc-by-4.0" else data


def licence(facts: Facts) -> str:
    known = facts.section("sft").get("base") == STUDENT
    return (
        f"The base, {base(facts)}, is "
        + ("Apache-2.0" if known else "under its own licence, which holds for these weights too")
        + f". The sentences it learnt from: {source(facts)}. The paraphrases were written by the "
        "teacher named above, under whose terms they stand."
    )
