"""A table as an annotation of the object that tells it to a router, and read back from there.

It stands beside what the router reads, so that a decision never has to understand that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mooring.core import kinds
from mooring.core.traffic import Backend, BackendPort, Route, Table


def table_text(table: Table) -> str:
    """The annotation; the same for the same table."""
    backends = sorted(table.backends, key=lambda backend: backend.revision)
    data = {"route": table.route.to_data(), "backends": [_backend_data(b) for b in backends]}
    return json.dumps(data, separators=(",", ":"))


def read_table(live: Mapping[str, Any]) -> tuple[Table, str] | None:
    """The table and the version that an object was written with; None when it cannot be read,
    since somebody has changed or removed the annotations.
    """
    try:
        annotations = live["metadata"]["annotations"]
        data = json.loads(annotations[kinds.ANNOTATION_TABLE])
        backends = tuple(_backend_from(item) for item in data["backends"])
        table = Table(Route.from_data(data["route"]), backends)
        version = str(annotations[kinds.ANNOTATION_VERSION])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return None
    known = {backend.revision for backend in table.backends}
    return (table, version) if table.route.revisions <= known else None


def _backend_data(backend: Backend) -> dict[str, Any]:
    ports = [[port.name, port.number, port.http2] for port in backend.ports]
    data: dict[str, Any] = {"revision": backend.revision, "host": backend.host, "ports": ports}
    flags = {"halved": backend.halved, "divisible": backend.divisible}
    return data | {name: True for name, value in flags.items() if value}


def _backend_from(data: Mapping[str, Any]) -> Backend:
    ports = tuple(BackendPort(str(n), int(number), bool(h2)) for n, number, h2 in data["ports"])
    return Backend(
        str(data["revision"]),
        str(data["host"]),
        ports,
        halved=bool(data.get("halved", False)),
        divisible=bool(data.get("divisible", False)),
    )
