"""How Prometheus is reached: the administrator's address, credentials from mounted files, limits.

Nothing here comes from a tenant. The credentials are read again for every question, so a rotated
Secret needs no restart. The service account's token is for the API server alone: a file of it is
refused.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mooring.core.answers import NoAnswer, Reason

#: Where the kubelet mounts the token for the API server.
SERVICE_ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECRET_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Everything about one Prometheus, or what speaks its API (Thanos, Mimir, VictoriaMetrics).

    ``url``: up to, and without, ``/api/v1``. Times in seconds: ``deadline`` for a whole question,
    ``connect`` for a connection, ``pause`` for the longest silence. ``body_limit`` in bytes.
    ``concurrency``: threads, which is how many questions are asked at the same time.
    ``parameters``: sent with every query, such as Thanos' ``dedup``. ``headers``: such as
    ``X-Scope-OrgID``.
    """

    url: str
    bearer_token_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    client_certificate: tuple[Path, Path] | None = None
    verify: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    deadline: float = 10.0
    connect: float = 2.0
    pause: float = 5.0
    body_limit: int = 8 * 1024 * 1024
    concurrency: int = 4

    def request_headers(self) -> dict[str, str] | NoAnswer:
        """Headers of one request, with the credentials as their files hold them now."""
        found = {
            "Accept": "application/json",
            # Compressing costs Prometheus more than the network within a cluster saves.
            "Accept-Encoding": "identity",
            # Evidence is never taken from a cache of a query frontend.
            "Cache-Control": "no-store",
            "User-Agent": "mooring-operator",
            **self.headers,
        }
        if self.bearer_token_file is not None:
            token = _secret(self.bearer_token_file)
            if isinstance(token, NoAnswer):
                return token
            found["Authorization"] = f"Bearer {token}"
        elif self.username is not None and self.password_file is not None:
            password = _secret(self.password_file)
            if isinstance(password, NoAnswer):
                return password
            pair = f"{self.username}:{password}".encode()
            found["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return found


def _secret(path: Path) -> str | NoAnswer:
    """One line from a mounted file. What is wrong is said of the file, never of what it holds."""
    try:
        if path.resolve().is_relative_to(SERVICE_ACCOUNT_FOLDER.resolve()):
            return _unusable(path, "holds the token for the API server, which is sent nowhere else")
        with path.open("rb") as file:
            raw = file.read(_SECRET_LIMIT + 1)
    except OSError as error:
        return _unusable(path, f"cannot be read ({error.strerror})")
    if len(raw) > _SECRET_LIMIT:
        return _unusable(path, f"is larger than {_SECRET_LIMIT} bytes")
    text = raw.decode("utf-8", errors="replace").strip()
    if not text:
        return _unusable(path, "is empty")
    if not text.isprintable() or "\ufffd" in text:
        return _unusable(path, "holds more than one line of text")
    return text


def _unusable(path: Path, why: str) -> NoAnswer:
    return NoAnswer(Reason.CREDENTIALS, f"The credentials for Prometheus: the file {path} {why}.")
