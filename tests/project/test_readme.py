"""Whatever README.md names exists: paths, commands, options, stages, params keys, links.

Every text in backticks and every fenced block is looked up in the thing it speaks of; a word that
belongs to nothing is a problem too. The last tests break names on purpose: the checker must see it.
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

import pytest
import typer.main
import yaml

from quip.data import readers, sources
from quip.llm.endpoints import Endpoint
from quip.llm.requests import prompts
from quip.stages.roles import KNOWN_ARMS
from quip.training.rounds import FEEDBACK_ARMS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
WRITTEN = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STAGES = {name: stage.get("do", stage) for name, stage in WRITTEN.items()}
MAKEFILE = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "develop.mk"))
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))

LOCAL = (".venv", ".quip/", ".dvc/tmp", "~/.cache/quip", "mlflow.db", "mlruns")
"""What comes to be on a user's machine and is in no clone and no output of a stage."""
SHELL = {"source", "export", "du", "git", "rm"}
FENCES = {"sh", "yaml", "python", "text"}
FILLED = re.compile(r"<!-- (results|times) -->.*?<!-- /\1 -->", re.DOTALL)
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
def outputs() -> set[str]:
    """Every path that a stage writes, of every arm."""
    found = set()
    for stage in STAGES.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path = out if isinstance(out, str) else next(iter(out))
            found |= {path.replace("${item.arm}", arm).replace("${key}", arm) for arm in KNOWN_ARMS}
    return found


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


def problems(text: str) -> list[str]:
    return [wrong for _, wrong in looked_up(text) if wrong]


def seen(text: str) -> Counter[str]:
    return Counter(kind for kind, _ in looked_up(text))


def looked_up(text: str) -> Problems:
    text = FILLED.sub("", text)
    for language, body in FENCE.findall(text):
        yield from fence(language, body)
    prose = FENCE.sub("", text)
    for span in re.findall(r"`([^`]+)`", prose):
        yield from inline(" ".join(span.split()))
    headings = {slug(line) for line in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}
    for target in LINK.findall(prose):
        yield link(target, headings)


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


def link(target: str, headings: set[str]) -> tuple[str, str | None]:
    if target.startswith("https://"):
        return "link", None
    there = target[1:] in headings if target.startswith("#") else (ROOT / target).exists()
    return "link", None if there else f"link to '{target}': not there"


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


# ---- the README ------------------------------------------------------------------------------


def test_everything_that_the_readme_names_exists() -> None:
    assert problems(README) == []


def test_the_checker_saw_what_the_readme_is_made_of() -> None:
    found = seen(README)
    least = {"path": 40, "key": 60, "stage": 15, "module": 40, "word": 20, "variable": 6}
    least |= {"make": 5, "quip": 5, "dvc": 15, "mlflow": 2, "python": 2, "link": 2}
    assert {kind: found[kind] for kind, n in least.items() if found[kind] < n} == {}


def test_the_map_names_every_stage_and_every_part() -> None:
    map_ = README.split("\n## Map\n")[1].split("\n## ")[0]
    for stage in STAGES:
        assert f"\n| `{stage}` |" in map_, stage
    for file in (ROOT / "src" / "quip").glob("*.py"):
        assert file.stem == "__init__" or f"`{file.name}`" in map_, file.name


def test_the_readme_keeps_its_order() -> None:
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == [
        *("Result", "Run it small", "Run it for real", "Your own data", "Map"),
        *("From the paper to the code", "Where we differ, and why", "Every day", "Limits"),
        "Licence",
    ]


def test_the_result_table_has_its_place() -> None:
    assert README.count("<!-- results -->\n") == README.count("<!-- /results -->\n") == 1
    assert README.index("<!-- results -->") < README.index("<!-- /results -->")


def test_it_names_no_path_of_one_machine() -> None:
    assert not re.search(r"/(home|root|work|Users|tmp)/", README)


# ---- the checker -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        "`make fly`",
        "`quip fly`",
        "`quip say --loud hello`",
        "`dvc fly`",
        "`dvc repro aling@dpo`",
        "`dvc repro --sideways`",
        "`dvc exp run -S dpo.betta=0.3`",
        "`mlflow fly`",
        "`python -m quip.wieghts`",
        "`python -m pytest tests/test_nothing.py`",
        "`export QUIP_NOTHING=1`",
        "`QUIP_NOTHING`",
        "`dpo.betta`",
        "`arms.first`",
        "`betta: 0.1`",
        "`data/raw/nothing.jsonl`",
        "`models/bart`",
        "`data/report/nothing.html`",
        "`nothing.py`",
        "`nobody_knows_me`",
        "[text](docs/NOTHING.md)",
        "[text](#nowhere)",
        "```yaml\nteacher:\n  nn: 3\n```",
        "```yaml\nendpoints:\n  mine:\n    url: x\n```",
        "```sh\nmake run\nmake fly  # both\n```",
        "```sh\nfly away\n```",
        "```python\nimport quip_nothing\n```",
        "```bash\nmake run\n```",
    ],
)
def test_a_broken_name_is_noticed(broken: str) -> None:
    assert len(problems(f"# Title\n\n{broken}\n")) == 1, broken


@pytest.mark.parametrize(
    "right",
    [
        "`make run PYTHON=python3.12`",
        '`quip say "I missed my bus." --n 5`',
        "`dvc repro align@dpo`",
        "`dvc exp run -S dpo.beta=0.3`",
        "`models/dpo`",
        "`data/verdicts`",
        "`data/report/report.html`",
        "`dpo.beta`",
        "`prepare.limit.train`",
        "[here](#title)",
        "```yaml\nteacher:\n  n: 3\n```",
        "```text\nanything `fly`\n```",
        "<!-- results -->\n`fly`\n<!-- /results -->",
    ],
)
def test_a_right_name_passes(right: str) -> None:
    assert problems(f"# Title\n\n{right}\n") == []
