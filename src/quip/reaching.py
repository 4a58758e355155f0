"""Keys and addresses, for `quip doctor`: does each endpoint in use, and MLflow's server, answer?

One GET each, which asks no model and costs nothing.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from quip import params
from quip.endpoints import Endpoint, api_key, endpoint
from quip.errors import EndpointError, QuipError
from quip.remedy import Finding

SECONDS = 5.0


def get(url: str, key: str | None = None) -> int | str:
    """The HTTP status of a GET, whatever it is; or, when nobody answers, why."""
    if not url.startswith(("http://", "https://")):
        return "not an http address"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def used_endpoints() -> Iterator[tuple[str, Endpoint]]:
    """Every endpoint that some role uses; none where params.yaml is wrong, which `doctor` says."""
    try:
        names, _ = roles_endpoints(params.read_params())
        found = [(name, endpoint(name)) for name in names]
    except QuipError:
        return
    yield from found


def keys() -> Iterator[Finding]:
    """The key of every endpoint that some role uses; it is never shown."""
    for name, settings in used_endpoints():
        try:
            key = api_key(name, settings)
        except EndpointError:
            what = f"endpoint '{name}': {settings.api_key_env} is not set"
            remedy = f"`export {settings.api_key_env}=...`, or a line in .env"
            yield Finding("mend", what, remedy)
            continue
        if key:
            yield Finding("ok", f"endpoint '{name}': {settings.api_key_env} is set")


def addresses() -> Iterator[Finding]:
    """Whether every endpoint that some role uses answers, and takes the key: its list of models is
    asked for, which costs nothing. Not every server has one, so that any answer will do."""
    for name, settings in used_endpoints():
        if settings.embedded:
            yield Finding("ok", f"endpoint '{name}': runs in the stage's own process")
        elif settings.by_file:
            yield Finding("ok", f"endpoint '{name}': answers by hand")
        else:
            yield answering(name, settings)


def answering(name: str, settings: Endpoint) -> Finding:
    try:
        key = api_key(name, settings)
    except EndpointError:
        key = None  # said by `keys`
    status = get(f"{settings.base_url}/models", key)
    where = f"endpoint '{name}': {settings.base_url}"
    if isinstance(status, str):
        variable = f"QUIP_BASE_URL_{name.upper().replace('-', '_')}"
        remedy = f"start it, or correct endpoints.{name}.base_url (or {variable})"
        return Finding("mend", f"{where} cannot be reached ({status})", remedy)
    if status in (401, 403) and key:
        remedy = f"put a valid key into {settings.api_key_env}"
        return Finding("mend", f"{where} refuses the key ({status})", remedy)
    if status in (401, 403) and not settings.api_key_env:
        remedy = f"name the variable that holds one as endpoints.{name}.api_key_env"
        return Finding("mend", f"{where} wants a key ({status})", remedy)
    return Finding("ok", f"{where} answers")


def roles_endpoints(sections: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    names = [(sections.get(role) or {}).get("endpoint") for role in ("teacher", "critic")]
    names += (sections.get("judge") or {}).get("endpoints") or []
    names += [(sections.get("safety") or {}).get("endpoint"), *audited_endpoints(sections)]
    return sorted({str(name) for name in names if name}), sections.get("endpoints") or {}


def audited_endpoints(sections: dict[str, Any]) -> list[str]:
    """The endpoints that critics of a panel or of the audit name themselves (`mcp@openai`)."""
    critic, audit = (sections.get(name) or {} for name in ("critic", "audit"))
    panel = (critic.get("panel") or {}).get("signals") if critic.get("kind") == "panel" else []
    return [
        spec.partition("@")[2]
        for spec in [*(panel or []), *(audit.get("kinds") or [])]
        if isinstance(spec, str) and "@" in spec
    ]


def tracking_server(uri: str) -> Finding:
    """A server is asked for its health, as MLflow's own clients do; a database is not asked."""
    status = get(f"{uri}/health") if uri.startswith("http") else 200
    if status == 200:
        return Finding("ok", f"MLflow store: {without_password(uri)}")
    what = f"MLflow store: {without_password(uri)} does not answer ({status})"
    return Finding("mend", what, "start the server, or unset MLFLOW_TRACKING_URI")


def without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
