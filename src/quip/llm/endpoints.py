"""The entries of `endpoints:` in params.yaml, their keys, and the section `budget`.

All but `model` and `logprobs` are speed, money or access, which change no result.
"""

from __future__ import annotations

import os

from quip.core.params import Section, did_you_mean, read_params, validate
from quip.runtime.errors import EndpointError, ParamsError

EMBEDDED = "embedded"
FILES = "files"
"""As an address: batches are left as files and answered by hand."""


class Endpoint(Section):
    """One entry of `endpoints:`. Prices are per million tokens; None asks MLflow's catalogue."""

    base_url: str
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
    def batched(self) -> bool:
        return self.batch or self.by_file


class Budget(Section):
    """Section `budget`. `money`: what the call store may hold in all, None for no limit.
    `set_aside`: the share of a stage's rows that may stay without an answer."""

    money: float | None = None
    set_aside: float = 0.02


def endpoint(name: str) -> Endpoint:
    """The entry `name` of `endpoints:`; the environment may override its address
    (QUIP_BASE_URL_NAME)."""
    table = read_params().get("endpoints") or {}
    if name not in table:
        known = ", ".join(table) or "none"
        raise ParamsError(
            f"params.yaml: endpoint '{name}' is not under endpoints (known: {known})."
            f"{did_you_mean(name, table)}"
        )
    found = validate(table[name], Endpoint, f"endpoints.{name}")
    address = os.environ.get(f"QUIP_BASE_URL_{name.upper().replace('-', '_')}")
    return found.model_copy(update={"base_url": address}) if address else found


def describe(name: str, settings: Endpoint) -> str:
    """The endpoint as messages name it."""
    return f"endpoint '{name}' ({settings.base_url})"


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
