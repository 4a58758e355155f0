"""A skill is a pack in a folder: `prompts/*.txt`, `raw/*.jsonl`, `params.yaml` and a `README.md`.

A project teaches one skill: its prompts stand in src/quip/prompts, its texts in data/raw, its
values in params.yaml. A pack holds the same for another skill, of params.yaml only what differs.
`put` gives a project that is being laid out (`quip init`, `quip try`) the skill of a pack; of the
skill before nothing stays but the values that the pack does not name.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from quip.core.params import did_you_mean, read_params
from quip.runtime.errors import DataError

PACKS = Path("packs")
PLACES = {"prompts": Path("src/quip/prompts"), "raw": Path("data/raw")}
"""Where a project keeps what a pack has in its folders."""
TEXTS = ("literals", "ood", "exemplars", "gold")


def find(project: Path, name: str) -> Path:
    """The folder of the pack `name`: packs/NAME of the project, or `name` itself as a path.

    Raises DataError when there is none, or when it lacks a part.
    """
    folder = next((path for path in (project / PACKS / name, Path(name)) if path.is_dir()), None)
    if folder is None:
        known = sorted(path.parent.name for path in (project / PACKS).glob("*/params.yaml"))
        raise DataError(
            f"pack '{name}' is no folder under {PACKS}, nor a path. Known packs: "
            f"{', '.join(known) or 'none'}.{did_you_mean(name, known)}"
        )
    wanted = ["params.yaml", "README.md", *(f"raw/{text}.jsonl" for text in TEXTS)]
    lacking = [part for part in wanted if not (folder / part).is_file()]
    if not list(folder.glob("prompts/*.txt")):
        lacking.append("prompts/*.txt")
    if lacking:
        raise DataError(f"{folder}: a pack lacks {', '.join(lacking)}.")
    return folder


def put(pack: Path, folder: Path) -> None:
    """Give the project in `folder` the prompts, texts, card and values of `pack`."""
    for part, place in PLACES.items():
        shutil.rmtree(folder / place, ignore_errors=True)
        shutil.copytree(pack / part, folder / place)
    shutil.copyfile(pack / "README.md", folder / "data" / "README.md")
    overlay(folder / "params.yaml", pack / "params.yaml")


def overlay(params: Path, over: Path) -> None:
    """Put the values of `over`, with what it says about them, into the file `params`. Other
    comments stay."""
    read_params(over)  # says what is wrong with it
    text = YAML()
    text.width = 100
    text.preserve_quotes = True
    text.representer.add_representer(type(None), null)
    merged = overlaid(text.load(params), text.load(over))
    with params.open("w", encoding="utf-8") as handle:
        text.dump(merged, handle)


def null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def overlaid(base: Any, over: Any) -> Any:
    """A copy of the mapping `base` with the keys of `over` put in, section by section; comments of
    `over` (where it has any) take the place of those of `base`."""
    merged = base.copy()
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = overlaid(old, value) if both else value
        if hasattr(over, "ca") and key in over.ca.items:
            merged.ca.items[key] = over.ca.items[key]
    return merged
