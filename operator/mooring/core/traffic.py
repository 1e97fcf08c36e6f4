"""Who takes the traffic: the one language between the rollout and every router.

A :class:`Route` says what share of the requests each revision gets. A router is a renderer: routes
and backends in, objects out; and what its pods report back, as :class:`RouterReport`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Match:
    """Requests that carry all these headers go to this revision, whatever the weights say.

    ``headers`` holds (name in lower case, exact value).
    """

    revision: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests go.

    ``weights`` is the share of each revision in percent. They sum to 100; a weight of 0 is left
    out; without any nothing is served. ``mirrors`` is the share of the requests of which a revision
    gets a copy, in percent. A match goes before the weights.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    mirrors: Mapping[str, int] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()

    @property
    def revisions(self) -> frozenset[str]:
        """Every revision that this route names."""
        return frozenset(self.weights) | set(self.mirrors) | {m.revision for m in self.matches}

    def weight(self, revision: str) -> int:
        return self.weights.get(revision, 0)

    def to_data(self) -> dict[str, Any]:
        """Its JSON form, without what is empty."""
        data: dict[str, Any] = {"weights": dict(sorted(self.weights.items()))}
        if self.mirrors:
            data["mirrors"] = dict(sorted(self.mirrors.items()))
        if self.matches:
            data["matches"] = [
                {"revision": m.revision, "headers": [list(pair) for pair in m.headers]}
                for m in self.matches
            ]
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Route:
        """Reads :meth:`to_data` back; raises KeyError, TypeError or ValueError for what is none."""
        matches = tuple(
            Match(str(m["revision"]), tuple((str(n), str(v)) for n, v in m["headers"]))
            for m in data.get("matches") or ()
        )
        return cls(
            {str(k): int(v) for k, v in data["weights"].items()},
            {str(k): int(v) for k, v in (data.get("mirrors") or {}).items()},
            matches,
        )


@dataclass(frozen=True, slots=True)
class BackendPort:
    """One public port of a revision: its name, its number in the pods, whether it speaks HTTP/2."""

    name: str
    number: int
    http2: bool = False


def backend_ports(ports: Iterable[Mapping[str, Any]]) -> tuple[BackendPort, ...]:
    """The public ports of a revision as its record has them."""
    return tuple(_backend_port(port) for port in ports)


def _backend_port(port: Mapping[str, Any]) -> BackendPort:
    protocol = str(port.get("appProtocol") or "")
    http2 = protocol in ("grpc", "kubernetes.io/h2c") or port["name"] == "grpc"
    return BackendPort(str(port["name"]), int(port["targetPort"]), http2)


@dataclass(frozen=True, slots=True)
class Backend:
    """A revision that routes may name. ``host`` is its headless Service's full DNS name.

    ``halved`` asks for its randomly split traffic to be divided into two equal halves a and b with
    the same endpoints (see docs/judging.md: it shows how much requests come in bursts).
    ``divisible``: the clusters of the halves stand beside the whole one, whether or not any traffic
    goes there, so that routers have them before a route names them, and after.
    """

    revision: str
    host: str
    ports: tuple[BackendPort, ...]
    halved: bool = False
    divisible: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The clusters of its randomly split traffic: the whole, and the halves where they are."""
        return ("", "a", "b") if self.halved or self.divisible else ("",)


@dataclass(frozen=True, slots=True)
class Table:
    """All that a router is told: its backends and the route over them.

    The route names only revisions that are backends. The two are taken at different moments, so a
    backend is added one write before a route names it, and removed one write after.
    """

    route: Route
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class RouterReport:
    """One router pod. ``taken`` is the version that it says it routes by; empty: no answer.

    ``told`` is the version that its pod's annotation was last set to, which makes the kubelet
    bring the new files at once. ``problem`` is its own word for why it has not taken them.
    ``endpoints`` counts the pods that it knows and may use, by cluster (a revision's hash is one).
    """

    pod: str
    uid: str
    ready: bool
    taken: str = ""
    told: str = ""
    problem: str = ""
    endpoints: Mapping[str, int] = field(default_factory=dict)
