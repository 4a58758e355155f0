"""The verbs about students and their registered versions; `main` registers them on the command.

Each verb imports its modules when it runs, so help is fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from quip.runtime.errors import DataError


def say(
    text: Annotated[
        str | None, typer.Argument(help="A literal sentence; without one, lines are read.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, max=100, help="How many paraphrases.")] = 3,
    seed: Annotated[int, typer.Option(help="Other seeds, other paraphrases.")] = 0,
    arm: Annotated[
        str | None, typer.Option(help="Ask models/ARM, not the registered champion.")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=2.0,
            help="Above 0 all are samples; at 0 the first is the answer that was judged.",
        ),
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a sentence.")] = False,
) -> None:
    """Say TEXT with humor: paraphrases from the champion. Also reads a terminal or a pipe."""
    if text is not None and not text.strip():
        raise DataError('TEXT is empty. Try: quip say "I missed my bus."')
    from quip.cli import terminal_input
    from quip.serving import paraphrase

    generate = paraphrase.load_paraphraser(arm)
    options = {"num_return_sequences": n, "seed": seed, "temperature": temperature}
    for literal in [text.strip()] if text else terminal_input.read_sentences():
        texts = [line for line in dict.fromkeys(generate(literal, options)) if line]
        typer.echo(terminal_input.as_json(literal, texts, seed) if json else "\n".join(texts))


def trace(
    version: Annotated[str, typer.Argument(help="A version's number or alias.")] = "champion",
) -> None:
    """The code, params, data and calls that made a model VERSION."""
    from quip.serving.paraphrase import model_name
    from quip.tracking import provenance, runs

    with runs.require_store() as store:
        typer.echo(provenance.trace(store, model_name(), version))


def versions(
    branch: Annotated[
        str | None, typer.Option(help="Only those made in this branch (or tag, or commit).")
    ] = None,
) -> None:
    """Model versions, newest first, and the promotions of each champion."""
    from quip.serving.paraphrase import model_name
    from quip.tracking import provenance, runs

    with runs.require_store() as store:
        typer.echo(provenance.version_table(store, model_name(), branch))


def sync() -> None:
    """Send kept entries to MLflow; link versions to commits."""
    from quip.serving.paraphrase import model_name
    from quip.tracking import provenance, runs

    with runs.require_store() as store:
        typer.echo(provenance.sync(store, model_name()))


def promote(
    version: Annotated[str, typer.Argument(help="A version's number or alias.")] = "challenger",
    force: Annotated[bool, typer.Option(help="Promote without a comparison.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is forced; kept with the version.")] = "",
) -> None:
    """Make VERSION the champion, if it beats the present one.

    The two are compared head to head. VERSION is promoted when the whole interval of its score
    lies above one half; else the command reports the shortfall and ends with 1.
    """
    if force != bool(reason.strip()):
        raise DataError('--force and --reason "..." go together: a forced promotion needs both.')
    from quip.serving import promotion
    from quip.serving.paraphrase import model_name
    from quip.tracking import runs

    with runs.require_store() as store:
        typer.echo(promotion.promote(store, model_name(), version, reason.strip() or None))


def serve(
    versions: Annotated[
        list[str] | None,
        typer.Argument(help="Numbers, aliases or arms; champion and challenger when left out."),
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    votes: Annotated[Path, typer.Option(help="Where votes are kept, as gold pairs.")] = Path(
        "data/votes/votes.jsonl"
    ),
) -> None:
    """An OpenAI-compatible endpoint and a page to compare and vote.

    The page shows the paraphrases of two VERSIONS side by side, without their names.
    """
    import uvicorn

    from quip.serving import loaded_models, paraphrase, server

    paraphrase.use_passive_threads()
    found = loaded_models.load_models(versions or [])
    typer.echo(f"quip: {', '.join(model.name for model in found)}")
    typer.echo(f"quip: page http://{host}:{port}/  endpoint http://{host}:{port}/v1")
    uvicorn.run(server.make_app(found, votes), host=host, port=port, log_level="warning")


def export(
    student: Annotated[
        str, typer.Argument(metavar="VERSION|ARM", help="A version's number or alias, or an arm.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder; an earlier export is replaced.")],
    gguf: Annotated[
        Literal["f16", "f32"] | None,
        typer.Option(help="Also a GGUF file for llama.cpp and Ollama, compared with the student."),
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="REPO", help="Say what would go to this hub repository.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: really send it.")] = False,
) -> None:
    """Export a student: safetensors, a model card, a GGUF if wanted."""
    if yes and not push:
        raise DataError("--yes goes with --push REPO: it sends the export there.")
    from quip.serving import export as exporting
    from quip.serving import paraphrase

    paraphrase.use_passive_threads()
    paraphrase.hide_progress_bars()
    exporting.export(student, out, gguf)
    typer.echo(exporting.file_list(out))
    if push:
        typer.echo(exporting.push(out, push, send=yes))


VERBS = (say, trace, versions, sync, promote, serve, export)
"""In the order of `quip --help`."""
