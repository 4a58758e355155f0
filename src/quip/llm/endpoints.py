"""The entries of `endpoints:` in params.yaml, their keys, and the section `budget`.

All but `model` and `logprobs` are speed, money or access, which change no result.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quip.core.params import Section, did_you_mean, read_params, validate
from quip.runtime.errors import DataError, EndpointError, ParamsError

EMBEDDED = "embedded"
FILES = "files"
"""As an address: batches are left as files and answered by hand."""
WATCHED = Path("data/raw")
"""Where recorded replies lie. The stage `roles` depends on this folder, so that DVC sees when they
change."""


class Endpoint(Section):
    """One entry of `endpoints:`, with either an address or a file of recorded replies. Prices are
    per million tokens; None asks MLflow's catalogue."""

    base_url: str = ""
    replies: str | None = None
    """A file of recorded replies that answers in place of an address (`quip.llm.recorded`)."""
    model: str
    api_key_env: str | None = None
    logprobs: bool = True
    answers_as: str | None = None
    """The name its replies bear when that is not `model` (a deployment, an alias)."""
    concurrency: int = 4
    """Calls in flight at most; how many really are adapts to what the endpoint takes."""
    timeout: float = 120.0
    """Seconds by the clock on the wall that one call may take."""
    retries: int = 8
    rpm: int | None = None
    tpm: int | None = None
    batch: bool = False
    price_in: float | None = None
    price_out: float | None = None
    price_cached: float | None = None

    @property
    def embedded(self) -> bool:
        return self.base_url == EMBEDDED

    @property
    def by_file(self) -> bool:
        return self.base_url == FILES

    @property
    def recorded(self) -> bool:
        return self.replies is not None

    @property
    def batched(self) -> bool:
        return self.batch or self.by_file


class Budget(Section):
    """Section `budget`. `money`: what the call store may hold in all, None for no limit.
    `set_aside`: the share of a stage's rows that may stay without an answer."""

    money: float | None = None
    set_aside: float = 0.02


def endpoint(name: str) -> Endpoint:
    """The entry `name` of `endpoints:`; the environment may override its address
    (QUIP_BASE_URL_NAME) where it has one."""
    table = read_params().get("endpoints") or {}
    if name not in table:
        known = ", ".join(table) or "none"
        raise ParamsError(
            f"params.yaml: endpoint '{name}' is not under endpoints (known: {known})."
            f"{did_you_mean(name, table)}"
        )
    found = validated_endpoint(name, table[name])
    address = os.environ.get(f"QUIP_BASE_URL_{name.upper().replace('-', '_')}")
    named = address and not found.recorded
    return found.model_copy(update={"base_url": address}) if named else found


def validated_endpoint(name: str, entry: Any) -> Endpoint:
    """The entry `name` of `endpoints:` from its YAML. Raises ParamsError."""
    found = validate(entry, Endpoint, f"endpoints.{name}")
    if bool(found.base_url) == found.recorded:
        raise ParamsError(
            f"params.yaml: endpoint '{name}' needs `base_url` (an address) or `replies` (a file of "
            f"recorded replies), and has {'both' if found.recorded else 'neither'}."
        )
    return found


def recording(name: str, settings: Endpoint) -> Path:
    """The file of recorded replies of a recorded endpoint. Raises ParamsError when DVC does not
    watch it, and DataError when it is missing."""
    file = Path(settings.replies or "")
    if not file.resolve().is_relative_to(WATCHED.resolve()):
        raise ParamsError(
            f"params.yaml: endpoints.{name}.replies is {file}, outside of {WATCHED}, which DVC "
            "watches for changes. Move the file there."
        )
    if not file.is_file():
        raise DataError(
            f"{describe(name, settings)}: no such file. `dvc pull` or `git checkout` brings it, "
            "`quip calls export --stage teacher` writes one from a run."
        )
    return file


def describe(name: str, settings: Endpoint) -> str:
    """The endpoint as messages name it."""
    return f"endpoint '{name}' ({settings.replies or settings.base_url})"


def budget() -> Budget:
    return validate(read_params().get("budget"), Budget, "budget")


def api_key(name: str, settings: Endpoint) -> str | None:
    """The key, from the environment or the git-ignored file `.env`; None when none is named."""
    variable = settings.api_key_env
    if variable is None:
        return None
    found = os.environ.get(variable) or dotenv().get(variable)
    if not found:
        raise EndpointError(
            f"endpoint '{name}': the environment variable {variable} is not set. "
            f"`export {variable}=...` (or a line in .env) and run `dvc repro` again."
        )
    return found


def dotenv() -> dict[str, str | None]:
    """`.env` of the main checkout (an experiment's temporary folder has none)."""
    from dotenv import dotenv_values

    from quip.runtime import paths

    file = paths.root() / ".env"
    return dict(dotenv_values(file)) if file.is_file() else {}
