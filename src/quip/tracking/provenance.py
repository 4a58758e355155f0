"""Provenance of model versions: the code, params, data and calls that made each of them.

`record_version` tags a version and its run with the model's recipe (see `lineage`) in stage
`register`; `record_runs` tags the other training runs. `link` adds the commit that holds a recipe.
DVC makes an experiment's commit after its last stage, so the next of `register`, `quip sync`,
`quip trace` and `quip versions` links it. Each function may run any number of times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.runtime import paths
from quip.runtime.errors import DataError
from quip.tracking import backfill, registry
from quip.tracking.lineage import (
    Recipe,
    changed_files,
    fingerprint,
    git,
    lock_commits,
    lock_stages,
    output_paths,
    recipe_of,
)
from quip.tracking.mlflow_store import Store, mask_secrets
from quip.tracking.registry import HASH_TAG, Version
from quip.tracking.runs import EXPERIMENT_TAGS

RECIPE_TAG = "quip.recipe"
COMMIT_TAG = "dvc.commit"
ARTIFACT = "lineage.json"
REGISTRY = Path("data/registry.json")
DATA = ("data/prepared", "data/imitation", "data/preferences.jsonl", "data/critique.jsonl")
ROLES = {"teacher": "teacher", "critique@sft": "critic"}
"""Stage that asks a large model for training data -> the model's role there."""


def record_version(store: Store, name: str, version: Version, arm: str) -> None:
    """Tag the version and its run with its recipe, unless its commit is already known.

    Equal weights of a later experiment keep the recipe of the first experiment that made them.
    """
    recipe = recipe_of(lock_stages(), f"models/{arm}")
    known = store.client.get_model_version(name, version.number).tags
    if known.get(RECIPE_TAG) == fingerprint(recipe) or COMMIT_TAG in known:
        return
    if RECIPE_TAG in known and version.number in link(store, name):
        return
    record_run(store, version.run_id, recipe)
    run = store.client.get_run(version.run_id).data.tags
    trained = {key: run[key] for key in EXPERIMENT_TAGS if key in run}
    registry.set_tags(store, name, version, {**trained, **recipe_tags(recipe)})


def record_runs(store: Store) -> None:
    """Tag the runs of trainings that are no version: earlier rounds and warm starts."""
    stages = lock_stages()
    for file in [path for entry in stages.values() for path in output_paths(entry)]:
        if file.endswith(".json") and read_json(Path(file)).get("run_id"):
            pointer = backfill.read_pointer(Path(file))
            run = backfill.find_run(store, pointer["stage"], pointer)
            if run and RECIPE_TAG not in run.data.tags:
                record_run(store, run.info.run_id, recipe_of(stages, file))


def record_run(store: Store, run_id: str, recipe: Recipe) -> None:
    """Tag a run with its recipe's hashes; log the recipe and its calls as an artifact."""
    for key, value in recipe_tags(recipe).items():
        store.client.set_tag(run_id, key, mask_secrets(value))
    if recipe:
        store.client.log_dict(run_id, {"recipe": recipe, "calls": llm_calls(recipe)}, ARTIFACT)


def recipe_tags(recipe: Recipe) -> dict[str, str]:
    return {**output_hashes(recipe), **({RECIPE_TAG: fingerprint(recipe)} if recipe else {})}


def output_hashes(recipe: Recipe) -> dict[str, str]:
    """`dvc.PATH` -> DVC's hash, for the data and models of a recipe."""
    found = [out for entry in recipe.values() for out in entry.get("outs", [])]
    return {
        f"dvc.{out['path']}": out["md5"]
        for out in found
        if out["path"].startswith((*DATA, "models/")) and "md5" in out
    }


def llm_calls(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Role -> endpoint, model, prompts and counts of calls, from data/roles and data/metrics."""
    found = {}
    for name, role in ROLES.items():
        if name in recipe:
            endpoint = read_json(Path(f"data/roles/{role}.json"))
            prompt = [dep for dep in recipe[name].get("deps", []) if "/prompts/" in dep["path"]]
            texts = {Path(dep["path"]).stem: dep.get("md5", "") for dep in prompt}
            counts = read_json(Path(f"data/metrics/{name.partition('@')[0]}.json"))
            found[role] = {**endpoint, "prompts": texts, "counts": numeric_values(counts)}
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is missing or holds something else."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def numeric_values(counts: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in counts.items() if isinstance(value, int | float)}


# ---- the commit ----------------------------------------------------------------------------


def link(store: Store, name: str) -> dict[str, str]:
    """Tag versions and runs with the commit that holds their recipe; returns version -> commit.

    Versions and runs that have a commit are skipped, so that a second call is cheap.
    """
    versions = group_unlinked((v.tags, v) for v in registry.versions(store, name))
    query = f"tags.\"{RECIPE_TAG}\" LIKE '%'"
    found = store.client.search_runs([store.experiment], query)
    runs = group_unlinked((run.data.tags, run.info.run_id) for run in found)
    linked = {}
    for digest, commit in recipe_commits({*versions, *runs}):
        for run_id in runs.get(digest, []):
            store.client.set_tag(run_id, COMMIT_TAG, commit)
        for version in versions.get(digest, []):
            store.client.set_model_version_tag(name, version.version, COMMIT_TAG, commit)
            linked[str(version.version)] = commit
    return linked


def group_unlinked(tagged: Iterable[tuple[Mapping[str, str], Any]]) -> dict[str, list[Any]]:
    """Fingerprint of a recipe -> its versions or runs without a commit."""
    found: dict[str, list[Any]] = {}
    for tags, item in tagged:
        if RECIPE_TAG in tags and COMMIT_TAG not in tags:
            found.setdefault(tags[RECIPE_TAG], []).append(item)
    return found


def recipe_commits(wanted: set[str]) -> Iterator[tuple[str, str]]:
    """(fingerprint, oldest commit whose dvc.lock holds that recipe) for the `wanted`
    fingerprints."""
    if not wanted:
        return
    for commit, stages in lock_commits(paths.root()):
        for digest in recipe_fingerprints(stages) & wanted:
            wanted = wanted - {digest}
            yield digest, commit
        if not wanted:
            return


def recipe_fingerprints(stages: Recipe) -> set[str]:
    """The fingerprints of the recipes of every model in a dvc.lock."""
    return {fingerprint(recipe_of(stages, path)) for path, _ in locked_models(stages)}


def locked_models(stages: Recipe) -> set[tuple[str, str]]:
    """(path, DVC's hash) of every model in a dvc.lock."""
    entries = [out for entry in stages.values() for out in entry.get("outs", [])]
    return {(o["path"], o.get("md5", "")) for o in entries if o["path"].startswith("models/")}


def versions_of_branch(store: Store, name: str, branch: str) -> list[Any]:
    """The versions whose weights some dvc.lock of a branch (or any revision) names, newest first.

    Empty when git knows no such revision.
    """
    held = {
        model for _, stages in lock_commits(paths.root(), branch) for model in locked_models(stages)
    }

    def weights(version: Any) -> tuple[str, str | None]:
        path = f"models/{version.tags.get('arm')}"
        return path, version.tags.get(f"dvc.{path}")

    return [version for version in registry.versions(store, name) if weights(version) in held]


def sync(store: Store, name: str) -> str:
    """Link versions to commits; returns a report, a line each."""
    linked = link(store, name)
    lines = [f"version {number} was made by commit {commit}" for number, commit in linked.items()]
    known = {version.tags.get(HASH_TAG) for version in registry.versions(store, name)}
    here = read_json(REGISTRY)
    absent = [arm for arm, entry in here.items() if entry.get("model_sha256") not in known]
    if absent:
        state = f"{', '.join(absent)}: made elsewhere and no version here yet"
        lines.append(f"{state}; `dvc repro --force --single-item register` makes one of each.")
    return "\n".join(lines or ["everything that was logged is in MLflow and linked"])


def version_table(store: Store, name: str, branch: str | None) -> str:
    """A table of the versions, newest first, and the promotions below it, oldest first.

    Raises DataError when there is no version (of `branch`).
    """
    link(store, name)
    found = versions_of_branch(store, name, branch) if branch else registry.versions(store, name)
    if not found:
        where = f"the dvc.lock of '{branch}' made no version of" if branch else "there is no"
        raise DataError(f"{where} {name}. `dvc repro` trains and registers students.")
    lines = [f"{'version':<9}{'arm':<10}{'score':<8}{'experiment':<20}{'commit':<14}aliases"]
    lines += [version_row(version, registry.aliases_of(store, name, version)) for version in found]
    promotions = [registry.promotion_line(at, entry) for at, entry in registry.history(store, name)]
    return "\n".join([*lines, "", "Promotions:", *(f"  {row}" for row in promotions)])


def version_row(version: Any, aliases: Sequence[str]) -> str:
    tags = version.tags
    commit = tags.get(COMMIT_TAG, "")[:12]
    cells = (tags.get("arm", ""), tags.get("score", ""), tags.get("dvc.exp.name", ""), commit)
    arm, score, experiment, commit = (cell or "-" for cell in cells)
    row = f"{version.version:<9}{arm:<10}{score:<8}{experiment:<20}{commit:<14}"
    return f"{row}{', '.join(aliases)}".rstrip()


# ---- as text -------------------------------------------------------------------------------

Rows = Iterator[tuple[str, str]]


def trace(store: Store, name: str, wanted: str) -> str:
    """The provenance of one version as lines of text: what `quip trace` prints."""
    link(store, name)
    version = registry.find_version(store, name, wanted)
    found, tags = read_lineage(store, version.run_id), version.tags
    rows = [
        ("model", f"arm {tags.get('arm')}, weights sha256 {tags.get(HASH_TAG)}"),
        *score_rows(tags),
        ("run", run_line(store, version.run_id)),
        *code_rows(tags, found["recipe"]),
        *params_rows(found["recipe"]),
        *hash_rows(tags),
        *call_rows(found["calls"]),
    ]
    title = registry.version_title(store, name, version)
    return "\n".join([title, *(f"  {key:<8}{value}" for key, value in rows)])


def read_lineage(store: Store, run_id: str) -> dict[str, Any]:
    """The recipe and calls that `record_run` logged with a run; empty without them."""
    if ARTIFACT not in [file.path for file in store.client.list_artifacts(run_id)]:
        return {"recipe": {}, "calls": {}}
    file = Path(store.client.download_artifacts(run_id, ARTIFACT))
    return dict(json.loads(file.read_text(encoding="utf-8")))


def score_rows(tags: Mapping[str, str]) -> Rows:
    if "score" in tags:
        yield (
            "score",
            f"{tags['score']} ({tags.get('score_ci95')}) against the teacher on "
            f"{tags.get('n')} test inputs, judge {tags.get('judge')}",
        )


def run_line(store: Store, run_id: str) -> str:
    run = store.client.get_run(run_id)
    params = ", ".join(f"{key} {value}" for key, value in sorted(run.data.params.items()))
    return f"{run.info.run_name} {run_id}" + (f": {params}" if params else "")


def code_rows(tags: Mapping[str, str], recipe: Recipe) -> Rows:
    """The experiment, the commit, and whether the files that ran equal the commit's."""
    if "dvc.exp.name" in tags:
        yield "exp", f"{tags['dvc.exp.name']}, from baseline {tags.get('dvc.exp.baseline')}"
    commit = tags.get(COMMIT_TAG)
    if commit is None:
        base = tags.get("git.commit", "no commit")
        yield "commit", f"none holds this model's dvc.lock yet; it was made on top of {base}"
        return
    subject = "".join(git(paths.root(), "log", "-1", "--format=%s", commit))
    yield "commit", f"{commit} {subject or '(not in this clone: fetch it)'}"
    if subject:
        yield "code", compare_code(commit, recipe)
        yield "remake", f"git checkout {commit[:12]} && dvc repro"


def compare_code(commit: str, recipe: Recipe) -> str:
    """Whether the source files that dvc.lock names equal those of the commit."""
    deps = [dep for entry in recipe.values() for dep in entry.get("deps", [])]
    ran = {dep["path"]: dep for dep in deps if dep["path"].startswith("src/") and "md5" in dep}
    changed = changed_files(paths.root(), commit, list(ran.values()))
    if changed:
        return f"{len(changed)} of {len(ran)} files differ from the commit: {', '.join(changed)}"
    return f"the {len(ran)} files that ran equal the commit's"


def params_rows(recipe: Recipe) -> Rows:
    """The params of all stages of a recipe, a row a section."""
    files = [values for entry in recipe.values() for values in entry.get("params", {}).values()]
    sections = {key: value for values in files for key, value in values.items()}
    for key, value in sorted(sections.items()):
        yield "params", f"{key}: {json.dumps(value)}"


def hash_rows(tags: Mapping[str, str]) -> Rows:
    for key, value in sorted(tags.items()):
        if key.startswith(("dvc.data/", "dvc.models/")):
            yield "hash", f"{value} {key.removeprefix('dvc.')}"


def call_rows(found: Mapping[str, Mapping[str, Any]]) -> Rows:
    for role, call in found.items():
        prompts = ", ".join(f"{name} (md5 {md5})" for name, md5 in call["prompts"].items())
        counts = ", ".join(f"{key} {value:,}" for key, value in call["counts"].items())
        model = f"{role} {call.get('model')} at endpoint {call.get('endpoint')}"
        yield "calls", f"{model}, prompt {prompts or 'unknown'}: {counts}"
