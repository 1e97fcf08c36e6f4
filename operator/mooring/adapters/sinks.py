"""Posting CloudEvents to the sinks that the administrator has set up.

Signed as Standard Webhooks says (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``:
HMAC-SHA256 over id, time and body), so that a receiver knows whose event it is, that it is new, and
that it has seen it before. No address comes from a tenant; redirects are not followed; credentials
are files that are read again for every event.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_ANSWER_LIMIT = 1024
_KEY_LIMIT = 4096
_SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Sink:
    """One receiver. ``namespaces`` may use it; empty: all. ``timeout`` in seconds."""

    name: str
    url: str
    signing_key_file: Path
    ca_file: Path | None = None
    namespaces: tuple[str, ...] = ()
    timeout: float = 5.0

    def allows(self, namespace: str) -> bool:
        """Whether deployments of this namespace may use it."""
        return not self.namespaces or namespace in self.namespaces


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: version 1, base64."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def read_key(path: Path) -> bytes:
    """The signing key; ``whsec_`` begins one in base64. Raises ValueError."""
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_LIMIT + 1).strip()
    except OSError as error:
        raise ValueError(f"cannot be signed for: {path}: {error.strerror}") from error
    if text.startswith(b"whsec_"):
        try:
            text = base64.b64decode(text.removeprefix(b"whsec_"), validate=True)
        except ValueError as error:
            raise ValueError(f"cannot be signed for: {path} is not base64 after whsec_") from error
    if not _SHORTEST_KEY <= len(text) <= _KEY_LIMIT:
        raise ValueError(f"cannot be signed for: {path} must hold 16 to 4096 bytes")
    return text


@dataclass(slots=True)
class SinkClient:
    """Posts events. One session; never raises for what a sink does."""

    sinks: Mapping[str, Sink] = field(default_factory=dict)
    _session: aiohttp.ClientSession | None = None

    async def post(self, name: str, event_id: str, body: str, timestamp: int) -> str:
        """Posts once; returns what went wrong in words that go on from the sink's name, empty for
        an answer of 2xx.
        """
        sink = self.sinks.get(name)
        if sink is None:
            return "is not set up any more"
        data = body.encode()
        try:
            key = read_key(sink.signing_key_file)
            context = _context(sink)
        except (ValueError, OSError) as error:
            return str(error)
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "mooring-operator",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(key, event_id, timestamp, data),
        }
        try:
            async with self._connected().post(
                sink.url,
                data=data,
                headers=headers,
                allow_redirects=False,
                ssl=context,
                timeout=aiohttp.ClientTimeout(total=sink.timeout),
            ) as answer:
                await answer.content.read(_ANSWER_LIMIT)
                return "" if 200 <= answer.status < 300 else _refusal(answer.status)
        except TimeoutError:
            return f"did not answer within {sink.timeout:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"cannot be reached: {type(error).__name__}"

    async def close(self) -> None:
        """Ends open connections."""
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=20),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}"


def _context(sink: Sink) -> ssl.SSLContext | bool:
    """The authorities to believe; the public ones unless the administrator names another."""
    if sink.ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(sink.ca_file))
