"""What pods say about themselves: the digest they fetched, and their last words.

Nothing here knows a particular runtime. The fetcher and the servers speak through the
container's termination message, so status can repeat the one sentence that helps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mooring.core.clock import parse_time

FETCH_CONTAINER = "fetch"
SERVER_CONTAINER = "server"
#: The fetcher's exit code for what no retry will mend (a wrong digest, a missing object).
EXIT_PERMANENT = 3
_LAST_WORDS_LIMIT = 600
_NOT_READY = object()
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PodReport:
    """One pod in the terms that a decision needs.

    ``reason`` is empty while nothing is wrong; ``permanent`` says that waiting will not help.
    ``digest`` is what the fetcher found behind the URI. ``ready_since`` is None while it is not
    ready.
    """

    name: str
    ready: bool
    reason: str = ""
    message: str = ""
    permanent: bool = False
    restarts: int = 0
    digest: str | None = None
    ready_since: datetime | None = None


def report(pod: Mapping[str, Any]) -> PodReport:
    """Reads a raw Pod. Never raises on odd or missing fields: pods are written by others."""
    meta, status = _object(pod.get("metadata")), _object(pod.get("status"))
    inits = _by_name(status.get("initContainerStatuses"))
    mains = _by_name(status.get("containerStatuses"))
    since = next(
        (
            c.get("lastTransitionTime")
            for c in _objects(status.get("conditions"))
            if c.get("type") == "Ready" and c.get("status") == "True"
        ),
        _NOT_READY,
    )
    ready = since is not _NOT_READY
    reason, message, permanent = ("", "", False)
    # How a pod ends that is told to go says nothing about the others.
    if not ready and not meta.get("deletionTimestamp"):
        reason, message, permanent = _trouble(status, inits, mains)
    return PodReport(
        name=str(meta.get("name") or ""),
        ready=ready,
        reason=reason,
        message=message,
        permanent=permanent,
        restarts=_number(mains.get(SERVER_CONTAINER, {}).get("restartCount")) or 0,
        digest=_fetched_digest(inits.get(FETCH_CONTAINER, {})),
        ready_since=_time(since),
    )


def worst(reports: Iterable[PodReport]) -> PodReport | None:
    """The pod that explains best why a revision is not ready; None when nothing is wrong."""
    troubled = [r for r in reports if r.reason]
    if not troubled:
        return None
    return max(troubled, key=lambda r: (r.permanent, r.reason != "Starting", r.restarts, r.name))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _time(value: object) -> datetime | None:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _by_name(statuses: object) -> dict[str, Mapping[str, Any]]:
    return {str(status.get("name")): status for status in _objects(statuses)}


def _state(container: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """One of ``waiting``, ``running`` and ``terminated``, if it is the container's state."""
    found = _object(container.get("state")).get(name)
    return found if isinstance(found, dict) else None


def _terminated(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container's latest end: now, or before the restart that is being waited for."""
    last = _object(_object(container.get("lastState")).get("terminated"))
    return _state(container, "terminated") or last


def _trouble(
    status: Mapping[str, Any],
    inits: Mapping[str, Mapping[str, Any]],
    mains: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str, bool]:
    for name, container in (*inits.items(), *mains.items()):
        found = _waiting_trouble(name, _state(container, "waiting") or {})
        if found:
            return found
    fetch, server = inits.get(FETCH_CONTAINER, {}), mains.get(SERVER_CONTAINER, {})
    ended = _terminated(fetch)
    if ended and ended.get("exitCode") != 0:
        return _fetch_trouble(ended)
    ended = _terminated(server)
    if ended:
        return _server_trouble(ended)
    for condition in _objects(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "Unschedulable", _sentence(condition.get("message")), False
    if status.get("phase") == "Failed":
        return "PodFailed", _sentence(status.get("message") or status.get("reason")), False
    if _state(fetch, "running") is not None:
        return "Starting", "fetching the model", False
    if _state(server, "running") is not None:
        return "Starting", "the server runs, and its model is not ready yet", False
    return "Starting", "", False


def _waiting_trouble(name: str, waiting: Mapping[str, Any]) -> tuple[str, str, bool] | None:
    reason = str(waiting.get("reason") or "")
    message = _sentence(waiting.get("message"))
    if reason in {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}:
        return "ImagePullFailed", f"container {name}: {message or reason}", False
    if reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        return "ContainerRefused", f"container {name}: {message or reason}", False
    return None


def _fetch_trouble(ended: Mapping[str, Any]) -> tuple[str, str, bool]:
    if ended.get("reason") == "OOMKilled":
        return "OutOfMemory", "the fetcher was killed at its memory limit", False
    message = _sentence(ended.get("message")) or (
        f"the fetcher ended with exit code {ended.get('exitCode')} and left no message"
    )
    return "FetchFailed", message, ended.get("exitCode") == EXIT_PERMANENT


def _server_trouble(ended: Mapping[str, Any]) -> tuple[str, str, bool]:
    words = _sentence(ended.get("message"))
    if ended.get("reason") == "OOMKilled":
        return (
            "OutOfMemory",
            "the server was killed at its memory limit: raise "
            "spec.runtime.resources.limits.memory" + (f" ({words})" if words else ""),
            False,
        )
    code = ended.get("exitCode")
    if words:
        return "ServerFailed", f"the server ended with exit code {code}: {words}", False
    return "ServerFailed", f"the server ended with exit code {code} and said nothing", False


def _fetched_digest(container: Mapping[str, Any]) -> str | None:
    ended = _terminated(container)
    if not ended or ended.get("exitCode") != 0:
        return None
    try:
        found = json.loads(str(ended.get("message") or ""))
    except (ValueError, RecursionError):
        return None
    digest = found.get("digest") if isinstance(found, dict) else None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _sentence(text: object) -> str:
    """The last line that says something, bounded: a termination message may be a log's tail."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    return last if len(last) <= _LAST_WORDS_LIMIT else last[: _LAST_WORDS_LIMIT - 1] + "…"
