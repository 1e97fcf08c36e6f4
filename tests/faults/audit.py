"""What the operator has written, by the API server's own audit log, and what must hold of it.

Watches show what became of objects. The log shows each request: also one that changed nothing, one
that was refused, and what it was guarded by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.apiserver.cluster import Api

from mooring_dev.control_plane import AUDIT_LOG

#: The operator's. The user of these runs, who comes without the proxy, has another.
_AGENT = "mooring"


@dataclass(frozen=True, slots=True)
class Written:
    """One request that was to change something.

    ``body``: where the policy has it kept (audit-policy.yaml), else empty.
    """

    at: datetime
    verb: str
    resource: str
    name: str
    code: int
    body: Mapping[str, Any]

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Written:
        """From an ``audit.k8s.io/v1`` Event."""
        target = event["objectRef"]
        parts = (target["resource"], target.get("subresource"))
        return cls(
            datetime.fromisoformat(event["requestReceivedTimestamp"]),
            event["verb"],
            "/".join(part for part in parts if part),
            target.get("name", ""),
            event["responseStatus"]["code"],
            event.get("requestObject") or {},
        )

    def __str__(self) -> str:
        return f"{self.verb} of {self.resource} {self.name}, answered {self.code}"


@dataclass(frozen=True, slots=True)
class Audit:
    """The log of a control plane, of one namespace and from one moment on."""

    path: Path
    namespace: str
    begin: int

    @classmethod
    def of(cls, api: Api, namespace: str) -> Audit:
        """From now on."""
        path = api.folder / AUDIT_LOG
        return cls(path, namespace, path.stat().st_size)

    def writes(self) -> list[Written]:
        """The operator's, in the order of the log."""
        with self.path.open("rb") as log:
            log.seek(self.begin)
            lines = log.read().split(b"\n")[:-1]  # what comes last may be written at this moment
        mine = f'"namespace":"{self.namespace}"'.encode()
        events = (json.loads(line) for line in lines if mine in line)
        return [
            Written.read(event)
            for event in events
            if event["objectRef"].get("namespace") == self.namespace
            if event.get("userAgent") == _AGENT
        ]


def judge_writes(writes: Iterable[Written], rested: datetime | None) -> list[str]:
    """Every breach as a sentence. ``rested``: since when nothing is to be written any more."""
    return [f"{text} ({written})" for written in writes for text in _breaches(written, rested)]


def _breaches(written: Written, rested: datetime | None) -> Iterator[str]:
    meta = written.body.get("metadata") or {}
    if rested is not None and written.at >= rested:
        yield "I1: a write while nothing happens"
    if written.resource == "modeldeployments":
        yield "I10: more than the status is written"
    if written.resource == "modeldeployments/status":
        if set(written.body) - {"metadata", "status"}:
            yield f"I10: a status with {sorted(written.body)}"
        if not meta.get("resourceVersion"):
            yield "I9: a status that no resourceVersion guards would be written however late"
    if written.verb == "delete" and not (written.body.get("preconditions") or {}).get("uid"):
        yield "I2: a deletion without the uid of what was looked at"
    if written.verb == "deletecollection":
        yield "I2: a deletion of whatever is there"
