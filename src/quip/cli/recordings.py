"""Recordings of what stages got: `quip calls export --stage`, and what `quip doctor` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from quip.cli.doctor_checks import Finding
from quip.core.jsonl import atomic, read_rows
from quip.core.params import load
from quip.core.records import Reply
from quip.data import training_pairs
from quip.data.refusals import refuses
from quip.data.reply_parsing import parse_reply
from quip.llm.call_outputs import FOLDER, Call, read_calls
from quip.llm.endpoints import Endpoint, recording
from quip.llm.recorded import ComparisonRow, Recording, Row, TeacherRow, place
from quip.llm.requests.chat import About
from quip.runtime.errors import DataError, QuipError
from quip.stages import teacher

PREPARED, REPLIES = Path("data/prepared"), Path("data/teacher/replies.jsonl")


def export(stages: Sequence[str], out: Path, model: str | None) -> str:
    """Write what `stages` got to `out`; of several models that compared, `model` says which.
    Returns what was written, in a sentence. Raises DataError when a stage kept nothing."""
    found: list[Row] = []
    for stage in stages:
        found += taught() if stage == "teacher" else compared(stage, model)
    rows = {place(row.about): row for row in found}
    differing = next((row for row in found if rows[place(row.about)] != row), None)
    if differing is not None:
        raise DataError(
            f"export: two answers about {differing.literal!r} for the same texts. Export the "
            "stages apart, or those of one kind of critic only."
        )
    with atomic(out) as handle:
        handle.writelines(
            f"{row.model_dump_json(exclude_defaults=True)}\n" for row in rows.values()
        )
    return (
        f"{out}: {len(rows):,} replies. Next: `replies: {out}` in place of the `base_url` of an "
        "endpoint in params.yaml; `dvc add` or git versions the file."
    )


def taught() -> list[TeacherRow]:
    """What the teacher gave for each input, as the stage `imitation` reads it. A row of fewer
    paraphrases than `teacher.n` says so."""
    params = load("teacher", teacher.Params)
    given = {row.input: row for row in read_rows(REPLIES, Reply)}
    inputs = teacher.read_inputs(PREPARED, params.train_inputs)
    rows = []
    for _, literal in inputs:
        texts = paraphrases(given[literal.id]) if literal.id in given else []
        n = params.n if len(texts) < params.n else 0
        rows.append(TeacherRow(literal=literal.text, paraphrases=texts, n=n))
    return rows


def paraphrases(reply: Reply) -> list[str]:
    """The paraphrases of one reply; none of one that is a refusal as a whole."""
    if refuses(reply.text[: training_pairs.OPENING], reply.literal):
        return []
    return parse_reply(reply.text, reply.finish_reason)


def compared(stage: str, model: str | None) -> list[ComparisonRow]:
    """What critic or judges answered in `stage`, from the calls that it kept."""
    calls = [call for file in files_of(stage) for call in read_calls(file)]
    models = sorted({call.model for call in calls if call.about})
    if model is None and len(models) > 1:
        raise DataError(f"export: {stage} asked {', '.join(models)}. Say which with --model.")
    rows = [row for call in calls if model in (None, call.model) for row in comparison(call)]
    if not rows:
        raise DataError(
            f"export: {FOLDER} holds no comparison of {stage}{f' by {model}' if model else ''}. "
            f"Run `dvc repro {stage}` with an endpoint that has a `base_url` (replies in the call "
            "store are not paid for again)."
        )
    return rows


def files_of(stage: str) -> list[Path]:
    """Its file of calls; of a stage that is repeated (`judge`, `critique`) all of them."""
    name = stage.replace("@", "_")
    return [*sorted(FOLDER.glob(f"{name}.jsonl")), *sorted(FOLDER.glob(f"{name}_*.jsonl"))]


def comparison(call: Call) -> Iterator[ComparisonRow]:
    """The row of one call; none of a call that compares nothing."""
    about, reply = call.about, call.reply
    if about is None or about.n:
        return
    yield ComparisonRow(
        literal=about.literal,
        a=about.first,
        b=about.second,
        question=about.question,
        sample=about.sample,
        text=reply.text,
        top_logprobs=reply.top_logprobs,
    )


# ---- for `quip doctor` -----------------------------------------------------------------------


def examine(name: str, settings: Endpoint) -> Iterator[Finding]:
    """Whether the file of a recorded endpoint is there and whole, and holds what the teacher is
    asked for."""
    try:
        known = Recording(recording(name, settings))
        wanted = wanted_of(name)
    except QuipError as error:
        yield Finding("mend", str(error), f"see endpoints.{name} in params.yaml")
        return
    missing = [about for about in wanted if known.reply(about) is None]
    what = f"endpoint '{name}': {known.file}"
    if missing:
        remedy = "add rows, or `quip calls export --stage teacher` after a run that has them"
        yield Finding("mend", f"{what} {known.lack(missing)}", remedy)
        return
    comparisons = len(known.rows) - known.literals()
    yield Finding(
        "ok", f"{what} holds {known.literals():,} literals and {comparisons:,} comparisons"
    )


def wanted_of(name: str) -> list[About]:
    """What the teacher asks of the endpoint `name`: nothing where it asks another, or where
    nothing is prepared yet."""
    params = load("teacher", teacher.Params)
    if params.endpoint != name or not (PREPARED / "train.jsonl").is_file():
        return []
    inputs = teacher.read_inputs(PREPARED, params.train_inputs)
    return [About(literal.text, n=params.n) for _, literal in inputs]
