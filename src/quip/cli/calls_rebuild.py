"""Replies read back from the outputs of stages, for a call store that was lost or never there.

An output says what was answered but not what was asked; that follows from params.yaml and the data.
So only stages that DVC calls up to date are read (`rebuild`): with another prompt or another model
their answers would come to stand under questions that nobody asked. A reply that is back carries no
count of tokens.

A stage that asks while the store is empty has everything brought back first (`recover`), so that a
clone that pulled the outputs and then changed a setting pays for new calls only. DVC has removed
the stage's outputs by then; dvc.lock still says what they were and under which params, and DVC's
cache has them.

    python -m quip.cli.calls_rebuild
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from quip.core.jsonl import read_rows
from quip.core.params import load
from quip.core.records import Answer, Critique, Exemplar, LiteralText, Reply
from quip.critics.critic_kinds import LEARNED, CriticParams, prompt_name
from quip.critics.judges import JudgeParams
from quip.critics.multiple_choice import p_first_of_logprobs, questions
from quip.llm.endpoints import endpoint
from quip.llm.reply_store import CallStore, Record
from quip.llm.requests.chat import ModelReply, Request
from quip.llm.requests.prompts import read
from quip.runtime import paths
from quip.runtime.errors import DataError
from quip.stages import teacher
from quip.tracking.lineage import hash_file, locked

REBUILT = "rebuilt"
PREPARED, EXEMPLARS = Path("data/prepared"), Path("data/raw/exemplars.jsonl")
TAUGHT, CRITIQUED = Path("data/teacher/replies.jsonl"), Path("data/critique.jsonl")
VERDICTS = Path("data/verdicts")
SHIFTS = 1024
"""Ways to write one probability, of which one reads back as exactly itself."""

Found = Iterable[tuple[str, Request, ModelReply]]
"""(model, what was asked, what was answered)."""


def rebuild(store: CallStore) -> Iterator[tuple[str, str]]:
    """(stage, what became of it); replies that the store lacks are put into it."""
    stale = stale_stages()
    if "roles" in stale:
        raise DataError("the stage roles is not up to date: `dvc repro roles`, then this again.")
    for stage, found in outputs():
        if stage in stale:
            yield stage, "not up to date, left out"
        else:
            yield stage, f"{sum(put(store, *row) for row in found):,} replies read back"


def put(store: CallStore, model: str, request: Request, reply: ModelReply) -> bool:
    key = request.key(model)
    if store.get(key) is not None:
        return False
    document = reply.model_dump_json(exclude_defaults=True)
    store.write(Record.now("call", key, model, REBUILT, 0.0, document))
    return True


def stale_stages() -> set[str]:
    """The stages that `dvc status` has something to say about."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"`dvc status` failed: {done.stderr.strip()[-300:]}")
    return set(json.loads(done.stdout or "{}"))


def outputs() -> Iterator[tuple[str, Found]]:
    """Every stage that asks an endpoint and whose output is here."""
    if TAUGHT.is_file():
        yield "teacher", taught()
    if CRITIQUED.is_file():
        critic = load("critic", CriticParams)
        if critic.kind == "mcp":
            yield "critique", compared(CRITIQUED, prompt_name(critic), critic.samples)
    for file in sorted(VERDICTS.glob("*.jsonl")):
        judge = load("judge", JudgeParams)
        stage = file.stem if file.stem in ("duel", "control") else f"judge@{file.stem}"
        yield stage, compared(file, judge.prompt, judge.samples)


# ---- out of DVC's cache ----------------------------------------------------------------------


def recover(store: CallStore) -> Iterator[tuple[str, int]]:
    """(stage, replies that the store lacked) for every stage whose last run dvc.lock describes and
    whose outputs are in DVC's cache or still in place."""
    stages, objects = locked(), cache()
    for entry in stages.values():
        if answers := [out for out in entry.get("outs", []) if answered(Path(out["path"]))]:
            with laid_out(entry, answers, params_of(stages.get("roles", {})), objects) as whole:
                for name, found in outputs() if whole else ():
                    yield name, sum(put(store, *row) for row in found)


def answered(file: Path) -> bool:
    """Whether that output holds answers of a large model."""
    return file in (TAUGHT, CRITIQUED) or file.parent == VERDICTS


def cache() -> Path:
    """Where DVC keeps files by their md5."""
    from dvc.repo import Repo

    with closing(Repo(os.getcwd())) as repo:
        return Path(repo.cache.local.path)


@contextmanager
def laid_out(
    entry: Mapping[str, Any],
    answers: Iterable[Mapping[str, Any]],
    endpoints: Mapping[str, Any],
    objects: Path,
) -> Iterator[bool]:
    """As working directory a folder with what one stage's questions and answers can be read from,
    as they were; False when something of it is not to be had or the code has changed since."""
    project, deps = Path.cwd(), entry.get("deps", [])
    code = [dep for dep in deps if dep["path"].startswith("src/")]
    same = all(has(Path(dep["path"]), dep["md5"]) for dep in code)
    asked = [dep for dep in deps if dep["path"].startswith(("data/raw/", "data/roles/"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        brought = same and all([bring(file, folder, objects) for file in [*asked, *answers]])
        sections = {**endpoints, **params_of(entry)}
        (folder / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
        os.chdir(folder)
        try:
            yield brought and "endpoints" in endpoints and roles_agree()
        finally:
            os.chdir(project)


def bring(file: Mapping[str, Any], folder: Path, objects: Path) -> bool:
    """Copy one file of dvc.lock, with the content that it names; whether there is one."""
    here, md5 = Path(file["path"]), str(file.get("md5", ""))
    kept = objects / md5[:2] / md5[2:]
    source = here if has(here, md5) else kept
    if not source.is_file():
        return False
    target = folder / here
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return True


def has(file: Path, md5: str) -> bool:
    return file.is_file() and hash_file(file, "md5") == md5


def params_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return dict(entry.get("params", {}).get("params.yaml", {}))


def roles_agree() -> bool:
    """Whether the endpoints are still the models that the stage asked."""
    for file in Path("data/roles").glob("*.json"):
        said = json.loads(file.read_text(encoding="utf-8"))
        for role in said if isinstance(said, list) else [said]:
            if role["endpoint"] != LEARNED:
                settings = endpoint(role["endpoint"])
                if (settings.model, settings.logprobs) != (role["model"], role["logprobs"]):
                    return False
    return True


# ---- what was asked and answered -------------------------------------------------------------


def taught() -> Found:
    params = load("teacher", teacher.Params)
    model = endpoint(params.endpoint).model
    prefixes = teacher.make_prefixes(read_rows(EXEMPLARS, Exemplar), params)
    said = read_rows(TAUGHT, Reply)
    inputs = [(row.split, LiteralText(id=row.input, text=row.literal)) for row in said]
    asked = {
        (item.split, item.literal.id): teacher.request(item, prefixes[item.prefix], params)
        for item in teacher.order(inputs, len(prefixes))
    }
    for row in said:
        reply = ModelReply(text=row.text, finish_reason=row.finish_reason)
        yield model, asked[row.split, row.input], reply


def compared(file: Path, prompt: str, samples: int) -> Found:
    messages = read(prompt)
    for row in read_rows(file, Critique):
        if row.judge == LEARNED or row.a == row.b:
            continue
        settings = endpoint(row.judge.rpartition("@")[2])
        each = 1 if settings.logprobs else samples
        orders = ((row.a, row.b, row.forward), (row.b, row.a, row.backward))
        for first, second, answer in orders:
            asked = questions(messages, row.literal, first, second, samples, settings.logprobs)
            for request, reply in zip(asked, replies(answer, each), strict=False):
                yield settings.model, request, reply


def replies(answer: Answer, each: int) -> list[ModelReply]:
    """The replies of which `quip.critics.multiple_choice.read` made `answer`; none where that
    cannot be known."""
    if answer.source == "samples":
        texts = answer.raw.split(" | ")
        whole = len(texts) == each and len(answer.raw) < 200
        return [ModelReply(text=t, finish_reason="unknown") for t in texts] if whole else []
    top = alternatives(answer.p_first) if answer.source == "logprobs" else None
    if top is None or not answer.raw.strip():
        return []
    return [ModelReply(text=answer.raw, finish_reason="unknown", top_logprobs=top)]


def alternatives(p: float | None) -> list[tuple[str, float]] | None:
    """Log-probabilities of which exactly `p` is read; None when rounding allows none."""
    if p is None or not 0 < p < 1:
        return None
    for shift in range(SHIFTS):
        top = [("1", math.log(p) - shift / SHIFTS), ("2", math.log1p(-p) - shift / SHIFTS)]
        if p_first_of_logprobs(top) == p:
            return top
    return None


def main() -> None:
    with closing(CallStore(paths.state("calls.journal"))) as store:
        for name, count in recover(store):
            print(f"call store: {count:,} replies of {name} are back, from its last output")


if __name__ == "__main__":
    main()
