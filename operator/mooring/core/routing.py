"""Where requests go now, where they should go, and the next safe step between the two.

A router takes its backends and its routes at different moments. So a backend is added one write
before a route names it and removed one write after, and the next write waits until every ready
router has been seen to have taken the last (measured: replacing both at once loses requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mooring.core import kinds
from mooring.core.clock import annotated_time, parse_time
from mooring.core.observed import Manifest, Observed
from mooring.core.render.metadata import child_name
from mooring.core.render.router.objects import router_name
from mooring.core.render.router.table import read_table
from mooring.core.revision import Revision
from mooring.core.traffic import Backend, BackendPort, Route, RouterReport, Table, backend_ports


@dataclass(frozen=True, slots=True)
class Routing:
    """What the routers were told and have taken; with router gateway, the Gateways.

    ``table`` stands in their configuration, as ``version``; None before it is first written.
    ``since`` is when it was written, ``taken_at`` when it was first seen to be taken. ``taken``:
    every ready router, and there is one, routes by it. ``idle``: no router is ready, so nobody
    holds on to anything older. ``known`` is how many pods of each revision every ready router
    knows. ``shared``: the public Service itself selects the pods of every revision, as it does with
    router replicas while revisions share the traffic.
    """

    table: Table | None = None
    version: str = ""
    since: datetime | None = None
    taken: bool = False
    idle: bool = True
    ready: int = 0
    problem: str = ""
    known: Mapping[str, int] = field(default_factory=dict)
    taken_at: datetime | None = None
    shared: bool = False

    @property
    def route(self) -> Route:
        return self.table.route if self.table else Route()

    def carries(self, route: Route) -> bool:
        """Whether requests go by this route, beyond doubt."""
        return self.taken and self.table is not None and self.table.route == route

    def holds(self, revision: str) -> bool:
        """Whether the table still has it as a backend, while there is a router to read it.

        It is taken out by one more write, from which the time to drain runs anew: what is removed
        before that would be made again by a round that did not get to its end.
        """
        return (
            not self.idle
            and self.table is not None
            and any(backend.revision == revision for backend in self.table.backends)
        )

    def names(self, revision: str) -> bool:
        """Whether some router may still send requests there."""
        if self.table is None:
            return False
        if revision in self.route.revisions:
            return True
        return not (self.taken or self.idle) and any(
            b.revision == revision for b in self.table.backends
        )


def read_routers(observed: Observed) -> Routing:
    """Reads the routers' ConfigMap and what their pods have answered."""
    config_map = observed.child(kinds.CONFIG_MAP, router_name(observed.name))
    found = read_table(config_map) if config_map is not None else None
    if config_map is None or found is None:
        return Routing()
    table, version = found
    reports = observed.routers or ()
    ready = [report for report in reports if report.ready]
    status = observed.status.get("router") or {}
    seen = status.get("taken")
    # Without a change there is no need to ask: what was taken stays taken.
    taken = seen == version if observed.routers is None else _all_took(ready, version)
    return Routing(
        table=table,
        version=version,
        since=annotated_time(config_map, kinds.ANNOTATION_ROUTED) or observed.now,
        taken=taken,
        idle=observed.routers is not None and not ready,
        ready=len(ready),
        problem="" if taken else next((f"{r.pod}: {r.problem}" for r in ready if r.problem), ""),
        known={
            b.revision: min((r.endpoints.get(b.revision, 0) for r in ready), default=0)
            for b in table.backends
        },
        taken_at=_taken_at(observed, status, version) if taken else None,
    )


def _taken_at(observed: Observed, status: Manifest, version: str) -> datetime:
    """Since when this version is known to be taken; from now on where that is not recorded."""
    if status.get("taken") != version:
        return observed.now
    try:
        return min(parse_time(status["takenAt"]), observed.now)
    except (KeyError, TypeError, ValueError):
        return observed.now


def _all_took(ready: Sequence[RouterReport], version: str) -> bool:
    return bool(ready) and all(report.taken == version for report in ready)


def next_table(
    routing: Routing,
    desired: Route,
    backends: Mapping[str, Backend],
    pods: Mapping[str, int],
    halves: Mapping[str, int] | None = None,
) -> Table:
    """The table to write now on the way to ``desired``: the present one while it has to wait.

    ``backends`` holds every revision that ``desired`` names, ``pods`` how many of its pods a router
    must know before it gets more requests: DNS tells of a new pod some seconds after it is ready.
    ``halves``: whose traffic is to be halved once the route is there, and how many pods routers
    must know in the clusters of the halves before.
    """
    wanted = halves or {}
    now = routing.table
    if now is None or routing.idle:
        fresh = (backends[name] for name in desired.revisions)
        return Table(
            desired,
            _ordered(
                replace(one, halved=one.revision in wanted, divisible=one.revision in wanted)
                for one in fresh
            ),
        )
    present = {backend.revision: backend for backend in now.backends}
    if desired == now.route:
        if not routing.taken:
            return now
        kept = (_halving(routing, backends[r], present[r], wanted) for r in desired.revisions)
        return Table(desired, _ordered(kept))
    known = replace(now, route=desired)
    rising = [r for r in desired.revisions if _rises(r, now.route, desired)]
    reached = all(routing.known.get(r, 0) >= pods.get(r, 1) for r in rising)
    if desired.revisions <= now.route.revisions and reached:
        return known  # every router has known these backends for long: no need to wait
    if not routing.taken:
        return now
    if desired.revisions <= present.keys():
        return known if reached else now
    added = {name: backends[name] for name in desired.revisions if name not in present}
    return replace(now, backends=_ordered((present | added).values()))


def _halving(
    routing: Routing, backend: Backend, present: Backend, wanted: Mapping[str, int]
) -> Backend:
    """One write on the way into halves or out of them: their clusters come a write before traffic
    goes there, and leave a write after.
    """
    if backend.revision not in wanted:
        return replace(backend, halved=False, divisible=present.halved)
    known = routing.known.get(backend.revision, 0) >= wanted[backend.revision]
    there = present.halved or (present.divisible and known)
    return replace(backend, halved=there, divisible=True)


def halved(routing: Routing, wanted: Iterable[str]) -> bool:
    """Whether exactly these revisions of the table are halved, with nothing left to tidy up."""
    backends = routing.table.backends if routing.table is not None else ()
    asked = set(wanted)
    return all(b.halved == b.divisible == (b.revision in asked) for b in backends)


def _rises(revision: str, now: Route, desired: Route) -> bool:
    """Whether it gets more requests than now."""
    if desired.weight(revision) > now.weight(revision):
        return True
    return revision not in now.revisions


def _ordered(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    return tuple(sorted(backends, key=lambda backend: backend.revision))


def backend(observed: Observed, revision: Revision) -> Backend:
    """A revision as routers find it: its headless Service and public ports."""
    name = child_name(observed.name, revision.hash)
    host = f"{name}.{observed.namespace}.svc.{observed.settings.cluster_domain}"
    return Backend(revision.hash, host, ports(revision))


def ports(revision: Revision) -> tuple[BackendPort, ...]:
    """The public ports of a revision."""
    return backend_ports(revision.rendered.ports)
