"""Looks up what a page names: paths, commands, options, stages, params keys, links.

Every text in backticks and every fenced block is looked up in the thing it speaks of; a word that
belongs to nothing is a problem too.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
import yaml

from dvc_pipeline import expanded, outs_of
from quip.data import readers, sources
from quip.llm.endpoints import Endpoint
from quip.llm.requests import prompts
from quip.stages.roles import KNOWN_ARMS
from quip.training.rounds import FEEDBACK_ARMS
from repository import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
WRITTEN = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STAGES = {name: stage.get("do", stage) for name, stage in WRITTEN.items()}
MAKEFILE = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "develop.mk"))
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))

LOCAL = (".venv", ".quip/", ".dvc/tmp", "~/.cache/quip", "mlflow.db", "mlruns")
"""What comes to be on a user's machine and is in no clone and no output of a stage."""
SHELL = {"source", "export", "du", "git", "rm"}
FENCES = {"sh", "yaml", "python", "text"}
FILLED = re.compile(r"<!-- (results|times|examples) -->.*?<!-- /\1 -->", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")

Problems = Iterator[tuple[str, str | None]]
"""(kind of thing looked at, what is wrong with it or None)."""


# ---- what there is ---------------------------------------------------------------------------


@cache
def stage_names() -> set[str]:
    """Stages as DVC names them, `align@dpo` and the bare `align` alike."""
    names = set(STAGES)
    for name, stage in STAGES.items():
        arms = stage.get("matrix", {}).get("arm", [])
        names |= {f"{name}@{arm}" for arm in (KNOWN_ARMS if isinstance(arms, str) else arms)}
    return names | {f"align@{arm}" for arm in FEEDBACK_ARMS}


@cache
def packages() -> set[str]:
    """Folders of src/quip with a module in them, such as `llm` and `llm/requests`."""
    home = ROOT / "src" / "quip"
    return {str(file.parent.relative_to(home)) for file in home.rglob("*/*.py")}


@cache
def outputs() -> set[str]:
    """Every path that a stage writes, of every arm and of two rounds."""
    return {out for stage in expanded(2).values() for out in outs_of(stage)}


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


@cache
def verbs() -> dict[str, Any]:
    from quip.cli.main import app

    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


@cache
def mlflow_knows(verb: str) -> bool:
    import click
    from mlflow.cli import cli

    return cli.get_command(click.Context(cli), verb) is not None  # `ui` is an alias


@cache
def words() -> set[str]:
    """Values a user can meet: of params, of data files, of the tables in the code."""
    values = [value for section in PARAMS.values() for value in leaves(section)]
    known = {str(value) for value in values} | set(KNOWN_ARMS) | set(Endpoint.model_fields)
    known |= set(sources.PUBLIC) | set(sources.SPLITS)
    known |= set(readers.READERS) | {".tar.gz"} | {p.stem for p in prompts.FOLDER.glob("*.txt")}
    return known


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def has_key(dotted: str) -> bool:
    section: Any = PARAMS
    for key in dotted.split("."):
        if not isinstance(section, dict) or key not in section:
            return False
        section = section[key]
    return True


def path_exists(name: str) -> bool:
    path = name.rstrip("/").replace("NAME.py", "sft.py")
    made = any(
        path == out or out.startswith(f"{path}/") or (path.startswith(f"{out}/") and in_code(path))
        for out in outputs()
    )
    return made or path.startswith(LOCAL) or (ROOT / path).exists()


def in_code(path: str) -> bool:
    """Whether some module writes the file's name: a file inside a folder that is an output."""
    return f'"{Path(path).name}"' in SOURCE or f'/{Path(path).name}"' in SOURCE


# ---- looking things up -----------------------------------------------------------------------


def problems(text: str, folder: Path = ROOT) -> list[str]:
    """What is wrong with the names on a page that stands in `folder`."""
    return [wrong for _, wrong in looked_up(text, folder) if wrong]


def seen(text: str, folder: Path = ROOT) -> Counter[str]:
    return Counter(kind for kind, _ in looked_up(text, folder))


def looked_up(text: str, folder: Path) -> Problems:
    text = FILLED.sub("", text)
    for language, body in FENCE.findall(text):
        yield from fence(language, body)
    prose = FENCE.sub("", text)
    for span in re.findall(r"`([^`]+)`", prose):
        yield from inline(" ".join(span.split()))
    yield from links(text, folder)


def fence(language: str, body: str) -> Problems:
    if language not in FENCES:
        yield "fence", f"a fenced block is marked '{language}': want one of {sorted(FENCES)}"
    elif language == "sh":
        for line in body.splitlines():
            if line.strip():
                yield from command(shlex.split(line, comments=True))
    elif language == "yaml":
        yield from yaml_keys(yaml.safe_load(body))
    elif language == "python":
        yield from imports(body)


def inline(span: str) -> Problems:
    first = span.split()[0]
    if first in {"make", "quip", "dvc", "mlflow", "python", "python3"} | SHELL and first != span:
        yield from command(shlex.split(span))
    elif re.match(r"[a-z_]+: ", span):
        yield from yaml_keys(yaml.safe_load(span))
    elif re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", span):
        yield variable(span)
    elif re.fullmatch(r"(?!src/|tests/|bench/)[a-z_/]+\.py", span):
        there = (ROOT / "src" / "quip" / span).is_file()
        yield "module", None if there else f"`{span}`: no such part in src/quip"
    elif span in packages():
        yield "package", None
    elif span in stage_names():
        yield "stage", None
    elif has_key(span):
        yield "key", None
    elif span.split(".")[0] in PARAMS and re.fullmatch(r"\w+(\.\w+)+", span):
        yield "key", f"`{span}`: no such key in params.yaml"
    elif "/" in span or path_exists(span):
        yield path(span)
    else:
        known = span in words() or f'"{span}"' in SOURCE or f"import {span}" in SOURCE
        yield "word", None if known else f"`{span}`: known to neither params nor code"


def path(name: str) -> tuple[str, str | None]:
    return "path", None if path_exists(name) else f"`{name}`: no such path"


def variable(name: str) -> tuple[str, str | None]:
    known = name in MAKEFILE or name in SOURCE
    return "variable", None if known else f"`{name}`: nothing reads this variable"


def links(text: str, folder: Path) -> Problems:
    """Every link of a page that stands in `folder`: the file must be there, the heading in it."""
    for target in LINK.findall(FENCE.sub("", text)):
        known = target.startswith("https://") or leads_somewhere(target, folder, text)
        yield "link", None if known else f"link to '{target}': not there"


def leads_somewhere(target: str, folder: Path, text: str) -> bool:
    name, _, anchor = target.partition("#")
    if name and not (folder / name).exists():
        return False
    page = (folder / name).read_text(encoding="utf-8") if name and anchor else text
    return not anchor or anchor in headings(page)


def headings(text: str) -> set[str]:
    """The headings of a page as links name them."""
    return {slug(line) for line in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)}


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def command(words: list[str]) -> Problems:
    """A command line: the program, then what it is asked for."""
    if not words:
        return
    name, rest = words[0], words[1:]
    if name == "make":
        goals = [word for word in rest if "=" not in word]
        yield "make", next((f"make {g}: no such target" for g in goals if g not in targets()), None)
    elif name == "quip":
        yield "quip", quip_problem(rest)
    elif name == "dvc":
        yield "dvc", dvc_problem(rest)
    elif name == "mlflow":
        known = mlflow_knows(rest[0])
        yield "mlflow", None if known else f"mlflow {rest[0]}: no such command"
    elif name in ("python", "python3") and rest[0] == "-m":
        yield "python", None if findable(rest[1]) else f"python -m {rest[1]}: no such module"
        yield from (path(word) for word in rest[2:] if "/" in word)
    elif name in ("python", "python3"):
        yield from (path(word) for word in rest if not word.startswith("-"))
    elif name == "export":
        yield from (variable(word.partition("=")[0]) for word in rest)
    elif name in SHELL:
        yield from (path(word) for word in rest if not word.startswith("-"))
    else:
        yield "command", f"{name}: what is this?"


def quip_problem(words: list[str]) -> str | None:
    if words[0] not in verbs():
        return f"quip {words[0]}: no such verb"
    known = {option for param in verbs()[words[0]].params for option in param.opts} | {"--help"}
    return next(
        (f"quip {words[0]} {w}: no such option" for w in words if w[:2] == "--" and w not in known),
        None,
    )


def dvc_problem(words: list[str]) -> str | None:
    """What DVC's own parser refuses, an unknown stage, or an unknown key in `-S`."""
    from dvc.cli.parser import get_main_parser

    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = get_main_parser().parse_args(words)
    except Exception as error:  # DVC's parser raises its own
        return f"dvc {' '.join(words)}: {error!r}"
    except SystemExit:
        return f"dvc {' '.join(words)}: refused"
    known = stage_names() | {"dvc.yaml"}  # the latter is the default of some commands
    stages = [t for t in getattr(found, "targets", None) or [] if t not in known]
    keys = [change.partition("=")[0] for change in getattr(found, "set_param", None) or []]
    wrong = [*stages, *(key for key in keys if not has_key(key))]
    return f"dvc {' '.join(words)}: unknown {', '.join(wrong)}" if wrong else None


def yaml_keys(settings: dict[str, Any], prefix: str = "") -> Problems:
    """Each key must be one of params.yaml; those of an endpoint, fields of `Endpoint`."""
    for key, value in settings.items():
        dotted = f"{prefix}{key}"
        if prefix == "endpoints.":
            yield from ((yield_field(field)) for field in value)
        elif not prefix and key in Endpoint.model_fields:
            yield yield_field(key)
        elif not has_key(dotted):
            yield "key", f"'{dotted}': no such key in params.yaml"
        else:
            yield "key", None
            if isinstance(value, dict):
                yield from yaml_keys(value, f"{dotted}.")


def yield_field(field: str) -> tuple[str, str | None]:
    known = field in Endpoint.model_fields
    return "key", None if known else f"'{field}': no such setting of an endpoint"


def imports(code: str) -> Problems:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                wrong = None if findable(alias.name) else f"import {alias.name}: not there"
                yield "python", wrong


def findable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
