"""What Gateways say of a route: the status of an HTTPRoute, read.

A controller answers for each Gateway that the route names, with conditions that carry the
generation which they are about. They say that the route is accepted, not that every proxy has it,
so each write is given a little longer. How the requests were split in fact no Gateway says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mooring.core import kinds
from mooring.core.capacity import capacity
from mooring.core.clock import annotated_time, format_time
from mooring.core.fingerprint import covers
from mooring.core.observed import Manifest, Observed
from mooring.core.render.metadata import child_name
from mooring.core.render.router.httproute import route_rules
from mooring.core.render.router.table import read_table
from mooring.core.routing import Routing
from mooring.core.traffic import Table

#: From a Gateway's word that it has accepted a route until its proxies can be expected to have it.
SETTLES = timedelta(seconds=2)
#: How long a Gateway may take to say anything.
ANSWERS = timedelta(seconds=60)

_NEEDED = ("Accepted", "ResolvedRefs")
#: Not in the standard, but where a controller says it of a route, it has to be true.
_HEEDED = (*_NEEDED, "Programmed")
_MEANWHILE = "requests are routed as before, and nothing moves meanwhile"
_MISSING = (
    "this cluster has no HTTPRoute (gateway.networking.k8s.io/v1) that the operator may use: "
    "install the definitions of the Gateway API, v1.3 or later, and a controller for it, or choose "
    "another spec.traffic.router; the Service serves meanwhile"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One Gateway's word on the present generation of a route.

    ``accepted``: all that it must say is true. ``refusal``: why not, in its own words; empty while
    it has not said so. ``routing``: it has accepted this or an earlier generation, so that it may
    go on routing by that.
    """

    gateway: str
    accepted: bool = False
    refusal: str = ""
    routing: bool = False


def read_gateway(observed: Observed) -> Routing:
    """Reads the HTTPRoute and what the Gateways say of it, as what routers have taken."""
    live = observed.child(kinds.HTTP_ROUTE, observed.name)
    found = read_table(live) if live is not None else None
    if live is None or found is None or kinds.HTTP_ROUTE.name in observed.unserved:
        return Routing()
    table, version = found
    told = answers(live)
    problem = "; ".join(f"{a.gateway}: {a.refusal}" for a in told if a.refusal)
    accepted = _accepted(observed, live, table)
    silent = not any(a.routing or a.refusal for a in told)
    written = _time(live, kinds.ANNOTATION_ROUTED, observed.now) or observed.now
    seen = _time(live, kinds.ANNOTATION_ACCEPTED, observed.now) if accepted else None
    return Routing(
        table=table,
        version=version,
        since=seen or written,
        taken=seen is not None and observed.now >= seen + SETTLES,
        # Nobody routes by an older version where none was ever accepted.
        idle=not any(a.routing for a in told) and not (silent and observed.now < written + ANSWERS),
        ready=sum(a.accepted for a in told),
        problem=problem,
        # A Gateway learns of a pod as the Deployment does, from its readiness.
        known={
            b.revision: capacity(
                observed.child(kinds.DEPLOYMENT, child_name(observed.name, b.revision))
            ).available
            for b in table.backends
        },
    )


def _accepted(observed: Observed, live: Manifest, table: Table) -> bool:
    """Whether every Gateway has accepted the route as it was written, not as somebody edited it."""
    told = answers(live)
    whole = covers(live["spec"].get("rules"), route_rules(table, observed.name))
    return whole and bool(told) and all(a.accepted for a in told)


def stamps(observed: Observed, version: str) -> dict[str, str]:
    """Annotations of a route of this version: since when it stands, and since when it was seen to
    be accepted. A change of annotations alone makes no new generation.
    """
    live = observed.child(kinds.HTTP_ROUTE, observed.name)
    found = read_table(live) if live is not None else None
    if live is None or found is None or found[1] != version:
        return {kinds.ANNOTATION_ROUTED: format_time(observed.now)}
    written = _time(live, kinds.ANNOTATION_ROUTED, observed.now) or observed.now
    times = {kinds.ANNOTATION_ROUTED: format_time(written)}
    if _accepted(observed, live, found[0]):
        seen = _time(live, kinds.ANNOTATION_ACCEPTED, observed.now) or observed.now
        times[kinds.ANNOTATION_ACCEPTED] = format_time(seen)
    return times


def _time(live: Manifest, annotation: str, now: datetime) -> datetime | None:
    """A moment from an annotation, not after now; None where there is none that can be read."""
    found = annotated_time(live, annotation)
    return None if found is None else min(found, now)


def answers(route: Manifest) -> tuple[Answer, ...]:
    """What each Gateway that the route names says of it, in their order."""
    meta = route["metadata"]
    said = (route.get("status") or {}).get("parents") or ()
    return tuple(
        _answer(parent, meta, [s for s in said if _same(s.get("parentRef") or {}, parent, meta)])
        for parent in route["spec"].get("parentRefs") or ()
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    return _key(one, meta) == _key(other, meta)


def _key(reference: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells references apart, with the defaults that a server or a controller fills in."""
    return (
        reference.get("group", kinds.HTTP_ROUTE.group),
        reference.get("kind", "Gateway"),
        reference.get("namespace") or meta.get("namespace"),
        reference.get("name"),
        reference.get("sectionName") or "",
        reference.get("port"),
    )


def _answer(
    parent: Mapping[str, Any], meta: Mapping[str, Any], said: list[Mapping[str, Any]]
) -> Answer:
    """Of several controllers that answer for one Gateway, one that accepts is enough: what
    another one has left behind is never brought up to date.
    """
    words = [_read(status, int(meta.get("generation", 0))) for status in said]
    routing = any(was for _, _, was in words)
    name = gateway_name(parent, meta)
    if any(accepted for accepted, _, _ in words):
        return Answer(name, True, "", routing)
    refusal = next((refused for _, refused, _ in words if refused), "")
    return Answer(name, False, refusal, routing)


def gateway_name(parent: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """``Gateway infra/public`` or ``Gateway infra/public, listener web``."""
    where = f"Gateway {parent.get('namespace') or meta.get('namespace')}/{parent.get('name')}"
    section = parent.get("sectionName")
    return f"{where}, listener {section}" if section else where


def _read(status: Mapping[str, Any], generation: int) -> tuple[bool, str, bool]:
    """Whether this controller accepts the generation, why not, and whether it may be routing by
    this or an earlier one.
    """
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    present = {k: c for k, c in conditions.items() if c.get("observedGeneration") == generation}
    last = conditions.get("Accepted") or {}
    # What it accepted once and has not looked at again since is still in its proxies.
    routing = last.get("status") == "True"
    refusal = "; ".join(_refusals(present))
    accepted = not refusal and all(
        (present.get(kind) or {}).get("status") == "True"
        for kind in _HEEDED
        if kind in _NEEDED or kind in conditions
    )
    return accepted, refusal, routing


def _refusals(conditions: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for kind, bad in (*((kind, "False") for kind in _HEEDED), ("PartiallyInvalid", "True")):
        condition = conditions.get(kind)
        if condition is not None and condition.get("status") == bad:
            words = str(condition.get("message") or "it does not say why")
            yield f"{kind} is {bad}, {condition.get('reason') or 'no reason'}: {words}"


def gateway_trouble(observed: Observed, routing: Routing) -> tuple[str, str] | None:
    """Reason and message while nobody routes as the spec asks, and somebody has to act."""
    if kinds.HTTP_ROUTE.name in observed.unserved:
        return "GatewayApiMissing", _MISSING
    if routing.table is None or routing.taken:
        return None
    if routing.problem:
        return "GatewayRefused", f"{routing.problem}; {_MEANWHILE}"
    live = observed.child(kinds.HTTP_ROUTE, observed.name)
    if live is None or observed.now < (routing.since or observed.now) + ANSWERS:
        return None
    silent = [a.gateway for a in answers(live) if not a.accepted]
    if not silent:
        return None
    words = (
        f"nobody has answered for {' and '.join(silent)} within {ANSWERS.seconds} s: does it "
        f"exist, and does a controller run it? {_MEANWHILE}"
    )
    return "GatewayNotAnswering", words
