"""What pods say about themselves: the digest they fetched, and their last words.

Nothing here knows a particular runtime. The fetcher and the servers speak through the
container's termination message, so status can repeat the one sentence that helps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FETCH_CONTAINER = "fetch"
SERVER_CONTAINER = "server"
#: The fetcher's exit code for what no retry will mend (a wrong digest, a missing object).
EXIT_PERMANENT = 3
_LAST_WORDS_LIMIT = 600


@dataclass(frozen=True, slots=True)
class PodReport:
    """One pod in the terms that a decision needs.

    ``reason`` is empty while nothing is wrong; ``permanent`` says that waiting will not help.
    ``digest`` is what the fetcher found behind the URI.
    """

    name: str
    ready: bool
    reason: str = ""
    message: str = ""
    permanent: bool = False
    restarts: int = 0
    digest: str | None = None


def report(pod: Mapping[str, Any]) -> PodReport:
    """Reads a raw Pod. Never raises on odd or missing status: pods are written by others."""
    status = pod.get("status") or {}
    inits = _by_name(status.get("initContainerStatuses"))
    mains = _by_name(status.get("containerStatuses"))
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )
    reason, message, permanent = ("", "", False)
    if not ready:
        reason, message, permanent = _trouble(status, inits, mains)
    server = mains.get(SERVER_CONTAINER, {})
    return PodReport(
        name=str(pod["metadata"]["name"]),
        ready=ready,
        reason=reason,
        message=message,
        permanent=permanent,
        restarts=int(server.get("restartCount") or 0),
        digest=_fetched_digest(inits.get(FETCH_CONTAINER, {})),
    )


def worst(reports: Iterable[PodReport]) -> PodReport | None:
    """The pod that explains best why a revision is not ready; None when nothing is wrong."""
    troubled = [r for r in reports if r.reason]
    if not troubled:
        return None
    return max(troubled, key=lambda r: (r.permanent, r.reason != "Starting", r.restarts, r.name))


def _by_name(statuses: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(statuses, list):
        return {}
    return {str(s.get("name")): s for s in statuses if isinstance(s, dict)}


def _terminated(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The container's latest end: now, or before the restart that is being waited for."""
    state = (container.get("state") or {}).get("terminated")
    last = (container.get("lastState") or {}).get("terminated")
    return state or last


def _trouble(
    status: Mapping[str, Any],
    inits: Mapping[str, Mapping[str, Any]],
    mains: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str, bool]:
    for name, container in (*inits.items(), *mains.items()):
        waiting = (container.get("state") or {}).get("waiting") or {}
        found = _waiting_trouble(name, waiting)
        if found:
            return found
    fetch = inits.get(FETCH_CONTAINER, {})
    ended = _terminated(fetch)
    if ended and ended.get("exitCode") != 0:
        return _fetch_trouble(ended)
    ended = _terminated(mains.get(SERVER_CONTAINER, {}))
    if ended:
        return _server_trouble(ended)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "Unschedulable", _sentence(condition.get("message")), False
    if status.get("phase") == "Failed":
        return "PodFailed", _sentence(status.get("message") or status.get("reason")), False
    if "running" in (fetch.get("state") or {}):
        return "Starting", "fetching the model", False
    if "running" in (mains.get(SERVER_CONTAINER, {}).get("state") or {}):
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
        digest = json.loads(ended.get("message") or "").get("digest")
    except (ValueError, AttributeError):
        return None
    return digest if isinstance(digest, str) and digest.startswith("sha256:") else None


def _sentence(text: object) -> str:
    """The last line that says something, bounded: a termination message may be a log's tail."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    return last if len(last) <= _LAST_WORDS_LIMIT else last[: _LAST_WORDS_LIMIT - 1] + "…"
