"""From a model version back to the code, params, data and calls that made it, and the other way.

`record` puts the recipe (see `lineage`) on a version and its run when `register` meets them,
`record_runs` on the other training runs; `link` adds the commit that holds a recipe once there is
one. An experiment's commit is made after its last stage has ended, so it is added by whoever comes
next: `register`, `quip sync`, `quip trace`, `quip versions`. All of it may be done any number of
times.
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
    commits,
    fingerprint,
    git,
    locked,
    outs,
    recipe,
)
from quip.tracking.mlflow_store import Store, clean
from quip.tracking.registry import HASH_TAG, Version
from quip.tracking.runs import PLACES

RECIPE_TAG = "quip.recipe"
COMMIT_TAG = "dvc.commit"
ARTIFACT = "lineage.json"
REGISTRY = Path("data/registry.json")
DATA = ("data/prepared", "data/imitation", "data/preferences.jsonl", "data/critique.jsonl")
ROLES = {"teacher": "teacher", "critique@sft": "critic"}
"""The stages that ask a large model for what a student learns from, and its role there."""


def record(store: Store, name: str, version: Version, arm: str) -> None:
    """Tag the version and its run with where they come from, unless a commit is known already:
    weights that come out the same in a later experiment were made by the first one."""
    made = recipe(locked(), f"models/{arm}")
    known = store.client.get_model_version(name, version.number).tags
    if known.get(RECIPE_TAG) == fingerprint(made) or COMMIT_TAG in known:
        return
    if RECIPE_TAG in known and version.number in link(store, name):
        return
    record_run(store, version.run_id, made)
    run = store.client.get_run(version.run_id).data.tags
    trained = {key: run[key] for key in PLACES if key in run}
    registry.set_tags(store, name, version, {**trained, **tags_of(made)})


def record_runs(store: Store) -> None:
    """Likewise for the runs of trainings that are no version: earlier rounds and warm starts."""
    stages = locked()
    for file in [path for entry in stages.values() for path in outs(entry)]:
        if file.endswith(".json") and read_json(Path(file)).get("run_id"):
            pointer = backfill.read_pointer(Path(file))
            run = backfill.find_run(store, pointer["stage"], pointer)
            if run and RECIPE_TAG not in run.data.tags:
                record_run(store, run.info.run_id, recipe(stages, file))


def record_run(store: Store, run_id: str, made: Recipe) -> None:
    """The tags, and the recipe itself with the calls in it as an artifact."""
    for key, value in tags_of(made).items():
        store.client.set_tag(run_id, key, clean(value))
    if made:
        store.client.log_dict(run_id, {"recipe": made, "calls": calls(made)}, ARTIFACT)


def tags_of(made: Recipe) -> dict[str, str]:
    return {**hashes(made), **({RECIPE_TAG: fingerprint(made)} if made else {})}


def hashes(made: Recipe) -> dict[str, str]:
    """`dvc.PATH` -> DVC's hash, for the data and the models of a recipe."""
    found = [out for entry in made.values() for out in entry.get("outs", [])]
    return {
        f"dvc.{out['path']}": out["md5"]
        for out in found
        if out["path"].startswith((*DATA, "models/")) and "md5" in out
    }


def calls(made: Recipe) -> dict[str, dict[str, Any]]:
    """Role -> endpoint, model, prompt and what was asked, from the files beside this stage."""
    found = {}
    for name, role in ROLES.items():
        if name in made:
            who = read_json(Path(f"data/roles/{role}.json"))
            prompt = [dep for dep in made[name].get("deps", []) if "/prompts/" in dep["path"]]
            texts = {Path(dep["path"]).stem: dep.get("md5", "") for dep in prompt}
            counts = read_json(Path(f"data/metrics/{name.partition('@')[0]}.json"))
            found[role] = {**who, "prompts": texts, "counts": numbers(counts)}
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A document of this project; empty when it is not there."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def numbers(counts: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in counts.items() if isinstance(value, int | float)}


# ---- the commit ----------------------------------------------------------------------------


def link(store: Store, name: str) -> dict[str, str]:
    """Tag each version and each run with the commit that holds its recipe; version -> commit.

    Those that are linked already are left alone, so this costs nothing the second time.
    """
    versions = unlinked((v.tags, v) for v in registry.versions(store, name))
    query = f"tags.\"{RECIPE_TAG}\" LIKE '%'"
    found = store.client.search_runs([store.experiment], query)
    runs = unlinked((run.data.tags, run.info.run_id) for run in found)
    linked = {}
    for print_, commit in holders({*versions, *runs}):
        for run_id in runs.get(print_, []):
            store.client.set_tag(run_id, COMMIT_TAG, commit)
        for version in versions.get(print_, []):
            store.client.set_model_version_tag(name, version.version, COMMIT_TAG, commit)
            linked[str(version.version)] = commit
    return linked


def unlinked(tagged: Iterable[tuple[Mapping[str, str], Any]]) -> dict[str, list[Any]]:
    """Fingerprint of a recipe -> the versions or runs of it that know no commit yet."""
    found: dict[str, list[Any]] = {}
    for tags, item in tagged:
        if RECIPE_TAG in tags and COMMIT_TAG not in tags:
            found.setdefault(tags[RECIPE_TAG], []).append(item)
    return found


def holders(wanted: set[str]) -> Iterator[tuple[str, str]]:
    """(fingerprint, the oldest commit whose dvc.lock holds that recipe) of those wanted."""
    if not wanted:
        return
    for commit, stages in commits(paths.root()):
        for print_ in recipes(stages) & wanted:
            wanted = wanted - {print_}
            yield print_, commit
        if not wanted:
            return


def recipes(stages: Recipe) -> set[str]:
    """The fingerprints of the recipes of every model in a dvc.lock."""
    return {fingerprint(recipe(stages, path)) for path, _ in models(stages)}


def models(stages: Recipe) -> set[tuple[str, str]]:
    """(path, DVC's hash) of every model in a dvc.lock."""
    entries = [out for entry in stages.values() for out in entry.get("outs", [])]
    return {(o["path"], o.get("md5", "")) for o in entries if o["path"].startswith("models/")}


def of_branch(store: Store, name: str, branch: str) -> list[Any]:
    """The versions whose weights stand in dvc.lock in some commit of a branch (or any revision),
    newest first; none when git knows no such revision."""
    held = {model for _, stages in commits(paths.root(), branch) for model in models(stages)}

    def weights(version: Any) -> tuple[str, str | None]:
        path = f"models/{version.tags.get('arm')}"
        return path, version.tags.get(f"dvc.{path}")

    return [version for version in registry.versions(store, name) if weights(version) in held]


def sync(store: Store, name: str) -> str:
    """Link what can be linked; what there is to say about it."""
    linked = link(store, name)
    lines = [f"version {number} was made by commit {commit}" for number, commit in linked.items()]
    known = {version.tags.get(HASH_TAG) for version in registry.versions(store, name)}
    here = read_json(REGISTRY)
    absent = [arm for arm, entry in here.items() if entry.get("model_sha256") not in known]
    if absent:
        told = f"{', '.join(absent)}: made elsewhere and no version here yet"
        lines.append(f"{told}; `dvc repro --force --single-item register` makes one of each.")
    return "\n".join(lines or ["everything that was logged is in MLflow and linked"])


def listing(store: Store, name: str, branch: str | None) -> str:
    """The versions as a table, newest first, and below it the promotions, oldest first."""
    link(store, name)
    found = of_branch(store, name, branch) if branch else registry.versions(store, name)
    if not found:
        where = f"the dvc.lock of '{branch}' made no version of" if branch else "there is no"
        raise DataError(f"{where} {name}. `dvc repro` trains and registers students.")
    lines = [f"{'version':<9}{'arm':<10}{'score':<8}{'experiment':<20}{'commit':<14}aliases"]
    lines += [line(version, registry.held(store, name, version)) for version in found]
    told = [registry.told(at, entry) for at, entry in registry.history(store, name)]
    return "\n".join([*lines, "", "Promotions:", *(f"  {row}" for row in told)])


def line(version: Any, aliases: Sequence[str]) -> str:
    tags = version.tags
    commit = tags.get(COMMIT_TAG, "")[:12]
    cells = (tags.get("arm", ""), tags.get("score", ""), tags.get("dvc.exp.name", ""), commit)
    arm, score, experiment, commit = (cell or "-" for cell in cells)
    row = f"{version.version:<9}{arm:<10}{score:<8}{experiment:<20}{commit:<14}"
    return f"{row}{', '.join(aliases)}".rstrip()


# ---- as text -------------------------------------------------------------------------------

Rows = Iterator[tuple[str, str]]


def trace(store: Store, name: str, wanted: str) -> str:
    """The whole trail of one version, a line each: what `quip trace` prints."""
    link(store, name)
    version = registry.pick(store, name, wanted)
    found, tags = document(store, version.run_id), version.tags
    rows = [
        ("model", f"arm {tags.get('arm')}, weights sha256 {tags.get(HASH_TAG)}"),
        *worth(tags),
        ("run", run_line(store, version.run_id)),
        *code(tags, found["recipe"]),
        *settings(found["recipe"]),
        *hash_lines(tags),
        *asked(found["calls"]),
    ]
    title = registry.title(store, name, version)
    return "\n".join([title, *(f"  {key:<8}{value}" for key, value in rows)])


def document(store: Store, run_id: str) -> dict[str, Any]:
    """The recipe and calls that `record` left with the run; empty where there were none."""
    if ARTIFACT not in [file.path for file in store.client.list_artifacts(run_id)]:
        return {"recipe": {}, "calls": {}}
    file = Path(store.client.download_artifacts(run_id, ARTIFACT))
    return dict(json.loads(file.read_text(encoding="utf-8")))


def worth(tags: Mapping[str, str]) -> Rows:
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


def code(tags: Mapping[str, str], made: Recipe) -> Rows:
    """The experiment, the commit, and whether the commit's files are those that ran."""
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
        yield "code", compared(commit, made)
        yield "remake", f"git checkout {commit[:12]} && dvc repro"


def compared(commit: str, made: Recipe) -> str:
    """Whether the source files that dvc.lock names stand in the commit as they ran."""
    deps = [dep for entry in made.values() for dep in entry.get("deps", [])]
    ran = {dep["path"]: dep for dep in deps if dep["path"].startswith("src/") and "md5" in dep}
    changed = changed_files(paths.root(), commit, list(ran.values()))
    if changed:
        return f"{len(changed)} of {len(ran)} files ran other than committed: {', '.join(changed)}"
    return f"the commit's {len(ran)} files are those that ran"


def settings(made: Recipe) -> Rows:
    """The params of every stage of the recipe, a line a section."""
    files = [values for entry in made.values() for values in entry.get("params", {}).values()]
    sections = {key: value for values in files for key, value in values.items()}
    for key, value in sorted(sections.items()):
        yield "params", f"{key}: {json.dumps(value)}"


def hash_lines(tags: Mapping[str, str]) -> Rows:
    for key, value in sorted(tags.items()):
        if key.startswith(("dvc.data/", "dvc.models/")):
            yield "hash", f"{value} {key.removeprefix('dvc.')}"


def asked(found: Mapping[str, Mapping[str, Any]]) -> Rows:
    for role, call in found.items():
        prompts = ", ".join(f"{name} (md5 {md5})" for name, md5 in call["prompts"].items())
        counts = ", ".join(f"{key} {value:,}" for key, value in call["counts"].items())
        who = f"{role} {call.get('model')} at endpoint {call.get('endpoint')}"
        yield "calls", f"{who}, prompt {prompts or 'unknown'}: {counts}"
