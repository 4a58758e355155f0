"""Skill packs: folders with `prompts/*.txt`, `raw/*.jsonl`, `params.yaml` and a `README.md`.

A project teaches one skill, by the prompts in src/quip/prompts, the texts in data/raw and the
values in params.yaml. A pack holds these for another skill; its params.yaml names only the values
that differ. `install_pack` gives a new project (`quip init`, `quip try`) the skill of a pack: it
replaces all prompts and texts, and keeps the values that the pack does not name.
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
"""A pack's folder -> its place in a project."""
TEXTS = ("literals", "ood", "exemplars", "gold")


def find_pack(project: Path, name: str) -> Path:
    """The folder of the pack `name`: packs/NAME of the project, or `name` itself as a path.

    Raises DataError when the folder is missing or lacks a part of a pack.
    """
    folder = next((path for path in (project / PACKS / name, Path(name)) if path.is_dir()), None)
    if folder is None:
        known = sorted(path.parent.name for path in (project / PACKS).glob("*/params.yaml"))
        raise DataError(
            f"pack '{name}' is neither a folder under {PACKS} nor a path. Known packs: "
            f"{', '.join(known) or 'none'}.{did_you_mean(name, known)}"
        )
    wanted = ["params.yaml", "README.md", *(f"raw/{text}.jsonl" for text in TEXTS)]
    lacking = [part for part in wanted if not (folder / part).is_file()]
    if not list(folder.glob("prompts/*.txt")):
        lacking.append("prompts/*.txt")
    if lacking:
        raise DataError(f"{folder}: the pack lacks {', '.join(lacking)}. Add what is missing.")
    return folder


def install_pack(pack: Path, folder: Path) -> None:
    """Replace prompts, texts and data card of the project in `folder` by those of `pack`, and
    overlay its params."""
    for part, place in PLACES.items():
        shutil.rmtree(folder / place, ignore_errors=True)
        shutil.copytree(pack / part, folder / place)
    shutil.copyfile(pack / "README.md", folder / "data" / "README.md")
    overlay_file(folder / "params.yaml", pack / "params.yaml")
    drop_missing_graded(folder)


def drop_missing_graded(folder: Path) -> None:
    """Remove the files that the pack does not bring from params `graded`, `reward.pairs` and
    `audit.extra`."""
    params, text = folder / "params.yaml", yaml_keeping_comments()
    sections = text.load(params)
    missing = [name for name, file in sections["graded"].items() if not (folder / file).is_file()]
    for name in missing:
        del sections["graded"][name]
    for section, key in (("reward", "pairs"), ("audit", "extra")):
        sections[section][key] = [n for n in sections[section][key] if n not in missing]
    with params.open("w", encoding="utf-8") as handle:
        text.dump(sections, handle)


def overlay_file(params: Path, over: Path) -> None:
    """Write the values of the file `over`, with their comments, into the file `params`; other
    values and comments stay. Raises ParamsError for a malformed `over`."""
    read_params(over)  # raises ParamsError with the mistake
    overlay_values(params, yaml_keeping_comments().load(over))


def overlay_values(params: Path, values: Any) -> None:
    """Write `values` into the file `params`; other values and comments stay."""
    text = yaml_keeping_comments()
    merged = merge_params(text.load(params), values)
    with params.open("w", encoding="utf-8") as handle:
        text.dump(merged, handle)


def yaml_keeping_comments() -> YAML:
    text = YAML()
    text.width = 100
    text.preserve_quotes = True
    text.representer.add_representer(type(None), represent_null)
    return text


def represent_null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def merge_params(base: Any, over: Any) -> Any:
    """A copy of the mapping `base` updated recursively by `over`; a comment of `over` replaces
    that of the same key in `base`."""
    merged = base.copy()
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        merged[key] = merge_params(old, value) if both else value
        if hasattr(over, "ca") and key in over.ca.items:
            merged.ca.items[key] = over.ca.items[key]
    return merged
