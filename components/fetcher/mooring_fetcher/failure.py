"""The three ways in which fetching goes wrong, and how they are told.

A failure is one sentence for a person who reads it in ``kubectl describe`` or in the status of
a ModelDeployment: what happened, where, why, and what to do. It never carries a secret: every
sentence passes :func:`sentence`, which cuts query strings (presigned URLs are credentials) and
user information out of anything that looks like a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EXIT_OK = 0
EXIT_TRANSIENT = 1
EXIT_PERMANENT = 3

MAX_SENTENCE = 1000
"""Characters. The kubelet keeps 4096 bytes of a termination message; status shows less."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<rest>[^\s'\"<>]+)", re.IGNORECASE)
_USER = re.compile(r"^[^/@]*@")
_NAMED_BEFORE_AT = ("az://", "abfs://", "abfss://", "mlflow://")
"""Where a name stands before the @: Azure's container, or MLflow's model with an alias behind."""
_LOOSE_SECRET = re.compile(
    r"(?P<name>X-Amz-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|sig|token)="
    r"[^\s&'\"]+",
    re.IGNORECASE,
)
_MIN_SECRET = 4
"""Characters. Anything shorter would blank out ordinary words and protects nothing."""


class PermanentFailure(Exception):
    """The input is wrong: fetching the same thing again fails again (exit code 3)."""


class TransientFailure(Exception):
    """The world is wrong (network, server, disk): a later start may succeed (exit code 1)."""


class Interruption(Exception):
    """A store stumbled. Retried inside this run; never leaves it.

    ``retry_after`` is what the server asked for, in seconds, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Changed(Exception):
    """The remote bytes are no longer those that were listed: start over with a new listing."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without user information and query strings of URLs, and without the secrets."""

    def clean(match: re.Match[str]) -> str:
        # With a colon it is no name but user:password, which these schemes do not have.
        rest = match["rest"]
        if match["scheme"].lower() not in _NAMED_BEFORE_AT or ":" in rest.partition("@")[0]:
            rest = _USER.sub("", rest)
        head, mark, _ = rest.partition("?")
        return f"{match['scheme']}{head}{'?…' if mark else ''}"

    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, "***")
    return _LOOSE_SECRET.sub(lambda match: f"{match['name']}=***", _URL.sub(clean, text))


def sentence(text: str, secrets: Iterable[str] = ()) -> str:
    """The text as one redacted printable line of at most :data:`MAX_SENTENCE` characters."""
    line = "".join(char if char.isprintable() else " " for char in redact(text, secrets))
    line = " ".join(line.split())
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 1] + "…"
