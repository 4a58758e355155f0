"""Model card of a student: its base and data, its training, its scores and their judges.

`gather_facts` reads the recipe in dvc.lock and the metrics of this checkout; the stage `register`
stores the facts with each version (`card.json`, and rendered), and `quip export` writes the card
beside the weights. The card names missing facts as unknown.
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
MAX_DESCRIPTION = 5000
"""Most characters of a description in MLflow's registry."""
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
    """The facts in the card of one student."""

    name: str
    arm: str
    sha256: str
    family: str
    """causal or encoder-decoder."""
    made: Recipe
    calls: dict[str, dict[str, Any]]
    """{role: endpoint, model, prompts, counts} (`quip.tracking.provenance.calls`)."""
    run: dict[str, Any]
    """The content of data/runs/<arm>.json."""
    wtr: dict[str, Any]
    critic: dict[str, Any]
    respond: dict[str, Any]
    commit: str | None

    def section(self, name: str) -> dict[str, Any]:
        """A section of params as the stages of the recipe used it."""
        return recipe_settings(self.made).get(name) or {}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def gather_facts(
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


def render_card(facts: Facts, use: str) -> ModelCard:
    """The whole card; `use` is Markdown that says how to run the weights beside it."""
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
        settings=settings_rows(facts.made),
        data=data_hashes(facts.made),
        source=data_source(facts),
        calls=facts.calls,
        licence=licence_text(facts),
        **shared_fields(facts),
    )


def description(facts: Facts) -> str:
    """A short card that fits a description in MLflow's registry."""
    from jinja2 import Template

    template = (
        files("quip.reporting")
        .joinpath("templates", "version_card.md.j2")
        .read_text(encoding="utf-8")
    )
    return Template(template).render(**shared_fields(facts))[:MAX_DESCRIPTION]


def shared_fields(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "arm": facts.arm,
        "sha256": facts.sha256,
        "commit": facts.commit,
        "base": base_model(facts),
        "objective": OBJECTIVES.get(facts.arm, UNKNOWN),
        "verdicts": list(result_rows(facts)),
        "claim": claims.claim(facts.wtr) if facts.wtr.get("arms") else "",
        "audit": list(audit_rows(facts)),
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

    revision = dict(data_hashes(facts.made)).get("data/prepared")
    for split, judge, cell in result_cells(facts):
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


# ---- parts of the card ---------------------------------------------------------------------


def result_cells(facts: Facts) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(split, judge, figures against the teacher); the most trusted judge first."""
    splits = (facts.wtr.get("arms") or {}).get(facts.arm) or {}
    for split in SPLITS:
        judges = splits.get(split) or {}
        first = most_trusted_judge(facts.critic, list(judges)) if judges else ""
        for judge in sorted(judges, key=lambda name: name != first):
            yield split, judge, judges[judge]


def result_rows(facts: Facts) -> Iterator[dict[str, Any]]:
    for split, judge, cell in result_cells(facts):
        yield {
            "split": split,
            "judge": judge,
            "n": cell["n"],
            "wtr": estimate_text(cell, "wtr", "ci95"),
            "score": estimate_text(cell, "score", "score_ci95"),
            "at_length": estimate_text(cell, "score_at_length", "score_at_length_ci95"),
            "outcome": " / ".join(f"{100 * cell[key]:.0f} %" for key in ("win", "tie", "loss")),
        }


def estimate_text(cell: Mapping[str, Any], key: str, ends: str) -> str:
    """A figure and its 95 % interval."""
    if cell.get(key) is None:
        return "-"
    return f"{cell[key]:.2f}" + (f" {claims.interval_text(cell[ends])}" if cell.get(ends) else "")


def audit_rows(facts: Facts) -> Iterator[dict[str, Any]]:
    """The audit of each judge on the gold pairs; the critic's is the top level of critic.json."""
    found = facts.critic
    kind = (found.get("critic") or {}).get("kind")
    own = {"learned" if kind == "learned" else "critic": found} if "agreement" in found else {}
    for judge, cell in {**own, **(found.get("judges") or {})}.items():
        yield {
            "judge": judge,
            "n": cell.get("n", UNKNOWN),
            "agreement": estimate_text(cell, "agreement", "ci95"),
            "position": estimate_text(cell, "position_bias", ""),
            "length": estimate_text(cell, "length_bias", ""),
            "kinds": {
                key: estimate_text(k, "agreement", "") for key, k in kind_cells(cell).items()
            },
        }


def kind_cells(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    return cell.get("by_kind") or {}


def recipe_settings(made: Recipe) -> dict[str, dict[str, Any]]:
    """{section: values} over all stages of a recipe."""
    found = [values for entry in made.values() for values in entry.get("params", {}).values()]
    return {key: value for values in found for key, value in values.items()}


def settings_rows(made: Recipe) -> list[tuple[str, str]]:
    """(section, its values in one line), without endpoints; absolute paths are shortened to their
    last part, so that the card names no folder of this machine."""
    return [
        (key, ", ".join(f"{name} {value_text(value)}" for name, value in values.items()))
        for key, values in sorted(recipe_settings(made).items())
        if isinstance(values, dict) and key != "endpoints"
    ]


def value_text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).strip('"').replace("|", "\\|")
    return Path(text).name if text.startswith(("/", "~")) else text


def data_hashes(made: Recipe) -> list[tuple[str, str]]:
    """(path, md5 by DVC) of every data file and folder that the model depends on."""
    entries = [part for e in made.values() for side in ("deps", "outs") for part in e.get(side, [])]
    found = {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}
    return [
        (path, md5)
        for path, md5 in sorted(found.items())
        if path.startswith("data/") and not path.startswith(NOT_DATA)
    ]


def base_model(facts: Facts) -> str:
    found = str(facts.section("sft").get("base", UNKNOWN))
    return HUB_NAMES.get(found, value_text(found))


def data_source(facts: Facts) -> str:
    """The source of the literal sentences, with its licence."""
    found = str(facts.section("prepare").get("source", UNKNOWN))
    return DATA_LICENCES.get(found, ("", f"`{value_text(found)}`"))[1]


def licence_id(facts: Facts) -> str:
    """The licence of the weights: Apache-2.0 where base and data allow it, the data's where it is
    stricter, else "other"."""
    if facts.section("sft").get("base") != STUDENT:
        return "other"
    data = DATA_LICENCES.get(str(facts.section("prepare").get("source")), ("other", ""))[0]
    return "apache-2.0" if data == "cc-by-4.0" else data


def licence_text(facts: Facts) -> str:
    known = facts.section("sft").get("base") == STUDENT
    return (
        f"The base, {base_model(facts)}, is "
        + ("Apache-2.0" if known else "under its own licence, which holds for these weights too")
        + f". The sentences it learnt from: {data_source(facts)}. The paraphrases were written by "
        "the teacher named above, under whose terms they stand."
    )
