"""HTTP client of an endpoint: one call with a wall-clock deadline, and the kind of its failure.

There are three kinds of failure: `TransientError` (another try may help), `Refused` and other
`BadReply` of `quip.llm.requests.chat` (the row is at fault), and EndpointError (no row can be
answered, so the stage stops at once).
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from quip.llm.endpoints import Endpoint, describe
from quip.llm.rate_limit import retry_after
from quip.llm.requests.chat import Refused
from quip.runtime.errors import EndpointError

MAX_BODY = 64 * 2**20
TRANSIENT = {408, 409, 425, 429}
LONGEST_WAIT = 3600.0
"""Longest wait in seconds that an endpoint may ask for; above it the stage stops."""


class TransientError(Exception):
    """A failure that another try may not meet. `wait`: seconds that the endpoint asks to wait;
    `busy`: it has too many calls at once."""

    def __init__(self, reason: str, wait: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.busy = wait, busy


class Client:
    """Open connections to one endpoint, used as `async with Client(...)`."""

    def __init__(self, name: str, settings: Endpoint, base_url: str, key: str | None) -> None:
        self.name, self.settings, self.base_url = name, settings, base_url.rstrip("/")
        self.key = key or "none"

    async def __aenter__(self) -> Client:
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}"},
            trust_env=True,
            auto_decompress=True,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0, ssl=certificates(self.base_url)),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(self, body: Mapping[str, Any], path: str) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers of a 200. Raises TransientError, Refused or EndpointError."""
        return await self.send("POST", path, json.dumps(body).encode())

    async def send(
        self, method: str, path: str, data: Any = None, kind: str | None = "application/json"
    ) -> tuple[bytes, Mapping[str, str]]:
        headers = {"Content-Type": kind} if kind and data is not None else {}
        try:
            async with (
                asyncio.timeout(self.settings.timeout),
                self.session.request(
                    method, self.base_url + path, data=data, headers=headers, allow_redirects=False
                ) as answer,
            ):
                content = await read_body(answer)
        except TimeoutError:
            raise TransientError(f"no answer within {self.settings.timeout:g} s") from None
        except (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError) as error:
            raise EndpointError(f"{self.where()}: {error}") from None
        except aiohttp.ClientConnectorError:
            raise TransientError("nothing answers there") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransientError(f"the connection broke ({type(error).__name__})") from None
        if answer.status != 200:
            raise self.failure(answer.status, answer.headers, content)
        return content, answer.headers

    def failure(self, status: int, headers: Mapping[str, str], content: bytes) -> Exception:
        said = self.clean(message(content))
        if status in TRANSIENT and "insufficient_quota" not in said:
            return self.transient(f"it answered {status}", retry_after(headers), status == 429)
        if status >= 500:
            wait = retry_after(headers)
            return self.transient(f"it answered {status}", wait, wait is not None)
        if status in (400, 413, 422):
            return Refused(f"it refused the request, status {status} ({said})")
        variable = self.settings.api_key_env or "api_key_env (not set)"
        why = {
            401: f"it refused the key in {variable}",
            403: f"it refused the key in {variable}",
            404: f"it does not know the model '{self.settings.model}' or the path",
            429: "its credit is used up",
        }.get(status, f"it answered {status}")
        return EndpointError(f"{self.where()}: {why} ({said})")

    def transient(self, reason: str, wait: float | None, busy: bool) -> Exception:
        if wait is None or wait <= LONGEST_WAIT:
            return TransientError(reason, wait, busy)
        return EndpointError(f"{self.where()}: it asks to wait {wait / 3600:.1f} hours")

    def clean(self, text: str) -> str:
        """`text` without the API key, which some servers repeat in their messages."""
        return text.replace(self.key, "(the key)") if self.key != "none" else text

    def where(self) -> str:
        return describe(self.name, self.settings)


async def read_body(answer: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_chunked(2**16):
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise TransientError(f"an answer of more than {MAX_BODY >> 20} MB")
    return b"".join(parts)


def message(content: bytes) -> str:
    """The message of an error body, in one short line."""
    text = content[:2000].decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(error, dict):
            text = " ".join(str(error[part]) for part in ("code", "message") if error.get(part))
    except ValueError:
        pass
    return " ".join(text.split())[:200]


def certificates(base_url: str) -> ssl.SSLContext | bool:
    if not base_url.startswith("https"):
        return True
    import certifi

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
