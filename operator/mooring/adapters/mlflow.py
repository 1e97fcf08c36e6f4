"""Asking MLflow's model registry which version a name stands for, and where that has its bytes.

Plain REST: two short questions. The address is the administrator's and none comes from a tenant;
redirects are not followed, answers are bounded, the credentials are files that are read again for
every question. Of an answer only what :func:`mooring.core.registry.registered` lets pass is used.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from mooring.adapters.prometheus_access import SERVICE_ACCOUNT_FOLDER
from mooring.core.registry import (
    NOT_CONFIGURED,
    NOT_FOUND,
    SCHEME,
    UNAVAILABLE,
    UNREADABLE,
    Answer,
    NotRegistered,
    registered,
)

_API = "api/2.0/mlflow"
_ANSWER_LIMIT = 256 * 1024
_SECRET_LIMIT = 16 * 1024
#: MLflow says so of a version that is still being copied, or whose copy failed.
_READY = ("READY", "")
UNSET = NotRegistered(
    NOT_CONFIGURED,
    "mlflow:// needs a model registry, and the operator's administrator has named none "
    "(config.registry.url)",
)


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """Where the registry is and who asks; ``timeout`` in seconds for one question."""

    url: str
    bearer_token_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout: float = 5.0


class _Refused(Exception):
    """No answer that says anything of the model."""


@dataclass(slots=True)
class MlflowRegistry:
    """One registry, one session. Never raises for what the registry does."""

    access: RegistryAccess
    _session: aiohttp.ClientSession | None = None

    async def resolve(self, uri: str) -> Answer:
        """The version that ``mlflow://model@alias`` or ``…/version`` stands for now."""
        name, alias, version = _parts(uri)
        try:
            if alias:
                found = await self._ask("registered-models/alias", {"name": name, "alias": alias})
            else:
                found = await self._ask("model-versions/get", {"name": name, "version": version})
            if isinstance(found, NotRegistered):
                return found
            held = found["model_version"]
            version, status = str(held["version"]), str(held.get("status") or "")
            if not (version.isascii() and version.isdigit()):
                return self._unavailable("does not answer as MLflow does")
            if status not in _READY:
                return NotRegistered(
                    UNREADABLE,
                    f"version {version} of {name} is not ready in the registry ({status[:40]})",
                    lasting=False,
                )
            where = await self._ask(
                "model-versions/get-download-uri", {"name": name, "version": version}
            )
            if isinstance(where, NotRegistered):
                return where
            return registered(name, version, str(where["artifact_uri"]), _tags(held))
        except _Refused as refusal:
            return self._unavailable(str(refusal))
        except (KeyError, TypeError, AttributeError):
            return self._unavailable("does not answer as MLflow does")

    async def close(self) -> None:
        """Ends open connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, path: str, query: Mapping[str, str]) -> Any:
        """The JSON of an answer; NotRegistered where the registry knows no such model or version.

        Raises _Refused.
        """
        url = f"{self.access.url}/{_API}/{path}"
        try:
            async with self._connected().get(
                url, params=query, headers=self._headers(), allow_redirects=False,
                ssl=self._context(),
                timeout=aiohttp.ClientTimeout(total=self.access.timeout),
            ) as answer:  # fmt: skip
                status, body = answer.status, await _bounded(answer)
        except TimeoutError:
            raise _Refused(f"did not answer within {self.access.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Refused(f"cannot be reached: {type(error).__name__}") from None
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if status == 200 and isinstance(said, dict):
            return said
        unknown = _unknown(said)
        if status in (400, 404) and unknown:
            return NotRegistered(NOT_FOUND, f"the model registry says: {unknown}")
        raise _Refused(_meaning(status))

    def _headers(self) -> dict[str, str]:
        found = {"Accept": "application/json", "User-Agent": "mooring-operator"}
        access = self.access
        if access.bearer_token_file is not None:
            found["Authorization"] = f"Bearer {_secret(access.bearer_token_file)}"
        elif access.username is not None and access.password_file is not None:
            pair = f"{access.username}:{_secret(access.password_file)}".encode()
            found["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        return found

    def _context(self) -> ssl.SSLContext | bool:
        """The authorities to believe; the public ones unless the administrator names another."""
        if self.access.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.access.ca_file))
        except (OSError, ssl.SSLError):
            raise _Refused(f"cannot be asked: {self.access.ca_file} holds no authority") from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=4),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _unavailable(self, why: str) -> NotRegistered:
        return NotRegistered(UNAVAILABLE, f"the model registry {why}", lasting=False)


def _parts(uri: str) -> tuple[str, str, str]:
    """Model, alias and version of a URI that the schema has accepted."""
    rest = uri.removeprefix(SCHEME)
    name, mark, alias = rest.partition("@")
    if mark:
        return name, alias, ""
    name, _, version = rest.partition("/")
    return name, "", version


def _tags(held: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag["key"]): str(tag.get("value", "")) for tag in held.get("tags") or ()}


def _unknown(said: Any) -> str:
    """MLflow's own sentence where it knows the model or its alias not; empty for another error.

    An unknown alias is told as a wrong parameter.
    """
    if not isinstance(said, dict):
        return ""
    code, message = str(said.get("error_code")), str(said.get("message") or "").strip()
    missing = code == "RESOURCE_DOES_NOT_EXIST" or (
        code == "INVALID_PARAMETER_VALUE" and "not found" in message
    )
    return message[:300] if missing else ""


def _meaning(status: int) -> str:
    if status in (401, 403):
        return f"lets the operator not in ({status}): its administrator has to see to the token"
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}"


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for part in answer.content.iter_chunked(64 * 1024):
        body += part
        if len(body) > _ANSWER_LIMIT:
            raise _Refused("sent an answer without end")
    return body


def _secret(path: Path) -> str:
    try:
        if path.resolve().is_relative_to(SERVICE_ACCOUNT_FOLDER.resolve()):
            raise _Refused(f"cannot be asked: {path} holds the token for the API server")
        with path.open("rb") as file:
            text = file.read(_SECRET_LIMIT + 1).decode("ascii").strip()
    except (OSError, ValueError):
        raise _Refused(f"cannot be asked: {path} cannot be read") from None
    if not text or len(text) > _SECRET_LIMIT or not text.isprintable():
        raise _Refused(f"cannot be asked: {path} holds no secret of one line")
    return text
