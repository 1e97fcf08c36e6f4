"""The front of a deployment: the public Service, and the routers behind it where there are any.

The Service names what takes the requests: the router's pods, or those of revisions. It is never
moved off pods that answer onto none, whatever the spec says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mooring.api import ModelDeploymentSpec
from mooring.core import kinds
from mooring.core.allocation import ENVOY, GATEWAY, REPLICAS
from mooring.core.capacity import Capacity, capacity
from mooring.core.clock import annotated_time, format_time
from mooring.core.gateway import ANSWERS, SETTLES, stamps
from mooring.core.observation import observation
from mooring.core.observed import Manifest, Observed
from mooring.core.render.metadata import selector
from mooring.core.render.router.httproute import http_route
from mooring.core.render.router.objects import (
    router_config_map,
    router_deployment,
    router_name,
    router_network_policy,
    router_pdb,
    router_selector,
    router_template,
)
from mooring.core.render.service import public_service
from mooring.core.revision import Revision
from mooring.core.routing import Routing, backend, halved, next_table, ports, read_routers
from mooring.core.situation import Situation, routed_revision
from mooring.core.traffic import Backend, Route, Table

_SOON, _LATER = timedelta(seconds=0.5), timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Touch:
    """A router pod to annotate with the version of its files, so that its kubelet brings them."""

    pod: str
    uid: str
    version: str


@dataclass(frozen=True, slots=True)
class Front:
    """``objects`` to apply, the revision whose pods are guarded by a disruption budget, router pods
    to ``touch``, and when to look again.
    """

    objects: tuple[Manifest, ...] = ()
    budget: Revision | None = None
    touch: tuple[Touch, ...] = ()
    look_again: datetime | None = None


def front(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Front:
    """The objects between a client and the pods."""
    serving = situation.serving
    if serving is None:
        return Front()
    chosen = _chosen(observed, situation, serving)
    service = public_service(
        serving,
        deployment=observed.name,
        namespace=observed.namespace,
        uid=observed.uid,
        selected=chosen,
        targets=_targets(serving) if chosen == router_selector(observed.name) else {},
        since=_since(observed, chosen),
    )
    if _needs_router(observed, situation, chosen):
        found = _routed(observed, spec, situation, serving, service)
        if situation.setting.router != ENVOY:
            found = replace(found, look_again=_router_gone_at(observed, chosen))
    else:
        found = Front((service,), serving)
    if situation.setting.router != GATEWAY:
        return found
    return _with_route(observed, spec, situation, found)


def _selected(observed: Observed) -> dict[str, str] | None:
    """What the public Service selects in the cluster; None where there is none."""
    service = observed.child(kinds.SERVICE, observed.name)
    return dict(service["spec"].get("selector") or {}) if service is not None else None


def _chosen(observed: Observed, situation: Situation, serving: Revision) -> dict[str, str]:
    """What the public Service should select: routers as soon as they answer, or pods directly."""
    live = _selected(observed)
    routers = router_selector(observed.name)
    if situation.setting.router == ENVOY:
        ready = capacity(observed.child(kinds.DEPLOYMENT, router_name(observed.name))).available
        answers = situation.capacity(serving).available > 0
        if live in (None, routers) or not answers or (ready and situation.setting.routing.taken):
            return routers
        return live
    if len(situation.route.weights) > 1 and situation.setting.router == REPLICAS:
        return selector(observed.name)  # the ratio of pods is the weight
    direct = _direct(observed, situation, serving)
    if live == selector(observed.name) and situation.total and not _answers(situation, direct):
        return live  # whoever still answers goes on
    return selector(observed.name, direct.hash)


def _answers(situation: Situation, revision: Revision) -> bool:
    return situation.capacity(revision).available > 0


def _direct(observed: Observed, situation: Situation, serving: Revision) -> Revision:
    """The revision that serves, unless another one answers and it does not."""
    if situation.setting.router == REPLICAS:
        named = (situation.history.by_hash(name) for name in situation.route.weights)
        serving = next((r for r in named if r is not None), serving)
    if situation.total == 0 or _answers(situation, serving):
        return serving
    routed = routed_revision(observed, situation.setting.routing)
    if routed is None:
        return serving
    kept = (situation.stable, situation.candidate, situation.previous, *situation.leaving)
    current = next((r for r in kept if r is not None and r.hash == routed), None)
    if current is None or not _answers(situation, current):
        return serving
    return current


def _since(observed: Observed, chosen: dict[str, str]) -> datetime:
    """Since when the public Service has selected this; now if it does not yet."""
    service = observed.child(kinds.SERVICE, observed.name)
    if service is None or _selected(observed) != chosen:
        return observed.now
    # Somebody may have removed it; at the latest since now.
    return annotated_time(service, kinds.ANNOTATION_ROUTED) or observed.now


def leaves(
    observed: Observed, situation: Situation, revision: Revision
) -> tuple[bool, datetime | None]:
    """Whether the pods of a revision on the way out stay, and until when if that is known."""
    steps = revision.rollout.steps if revision.rollout else ()
    seen = any(s.weight or s.mirror or s.match for s in steps)
    if revision.hash in situation.counts:
        return True, None  # pods of the two sides still change places
    if revision.promotion is None and not seen:
        return False, None
    live = _selected(observed)
    routers = router_selector(observed.name)
    left = []
    if live == routers or situation.setting.router == GATEWAY:
        routing = situation.setting.routing
        if revision.hash in situation.route.revisions or routing.names(revision.hash):
            return True, None
        if not (routing.taken or routing.idle) or routing.holds(revision.hash):
            return True, None
        left.append(routing.since or observed.now)
    if live != routers:
        if (live or {}).get(kinds.LABEL_REVISION) in (None, revision.hash):
            return True, None
        left.append(_since(observed, live or {}))
    until = max(left) + observed.settings.drain
    if observed.now >= until:
        return False, None
    # A clock that was set back must not keep the pods for ever.
    soonest, latest = observed.now + timedelta(seconds=1), observed.now + observed.settings.drain
    return True, min(max(until, soonest), latest)


def _needs_router(observed: Observed, situation: Situation, chosen: dict[str, str]) -> bool:
    """Whether there have to be routers: to stay, or while connections may still go through them."""
    routers = router_selector(observed.name)
    if situation.setting.router == ENVOY or routers in (chosen, _selected(observed)):
        return True
    exists = observed.child(kinds.DEPLOYMENT, router_name(observed.name)) is not None
    return exists and observed.now < _since(observed, chosen) + observed.settings.drain


def _router_gone_at(observed: Observed, chosen: dict[str, str]) -> datetime | None:
    """When routers that nobody is sent to any more can go; None where there are none."""
    if observed.child(kinds.DEPLOYMENT, router_name(observed.name)) is None:
        return None
    return _since(observed, chosen) + observed.settings.drain


def _routed(
    observed: Observed,
    spec: ModelDeploymentSpec,
    situation: Situation,
    serving: Revision,
    service: Manifest,
) -> Front:
    owner = {
        "deployment": observed.name,
        "namespace": observed.namespace,
        "uid": observed.uid,
    }
    # Routers that are on their way out keep the routes that they have.
    envoy = situation.setting.router == ENVOY
    routing = situation.setting.routing if envoy else read_routers(observed)
    wanted = situation.route if envoy else routing.route
    halves = _halves(situation, wanted) if envoy else {}
    wanted, table = _next(observed, situation, routing, wanted, halves)
    public = ports(serving)
    copies = observation(observed, spec, serving, envoy=envoy)
    config_map = router_config_map(
        table, spec.traffic, ports=public, collector=copies.address, **owner
    )
    annotations = config_map["metadata"]["annotations"]
    version = annotations[kinds.ANNOTATION_VERSION]
    written = routing.since if version == routing.version else observed.now
    annotations[kinds.ANNOTATION_ROUTED] = format_time(written or observed.now)
    template = serving.rendered.router or router_template(
        public, spec.traffic, observed.settings, deployment=observed.name
    )
    manifests = (
        copies.policy(router_network_policy(public, observed.settings, **owner), observed.name),
        router_pdb(**owner),
        router_deployment(copies.template(template), spec.traffic.replicas, **owner),
        *copies.objects,
    )
    touch = tuple(
        Touch(report.pod, report.uid, version)
        for report in observed.routers or ()
        if version not in (report.told, report.taken)
    )
    settled = routing.taken and version == routing.version and table.route == wanted
    settled = settled and halved(routing, halves)
    again = None
    if not settled:
        again = observed.now + (
            _patience(observed, written) if table.route == wanted else 2 * _SOON
        )
    return Front((config_map, service, *manifests), serving, touch, again)


def _with_route(
    observed: Observed, spec: ModelDeploymentSpec, situation: Situation, found: Front
) -> Front:
    """The HTTPRoute beside the rest, where the cluster knows what that is."""
    gateway, routing = spec.traffic.gateway, situation.setting.routing
    if gateway is None or kinds.HTTP_ROUTE.name in observed.unserved:
        return found
    # What no Gateway takes does not move on, even where none holds on to anything older.
    waiting = replace(routing, idle=routing.table is None)
    wanted, table = _next(observed, situation, waiting, situation.route)
    route = http_route(
        table,
        spec.traffic,
        gateway,
        deployment=observed.name,
        namespace=observed.namespace,
        uid=observed.uid,
    )
    annotations = route["metadata"]["annotations"]
    version = annotations[kinds.ANNOTATION_VERSION]
    annotations |= stamps(observed, version)
    same = version == routing.version
    since = (routing.since if same else None) or observed.now
    # What a Gateway says is watched; only the time that it may take is not.
    moments = [since + SETTLES, since + ANSWERS, found.look_again]
    again = min((m for m in moments if m is not None and m > observed.now), default=None)
    if routing.taken and same and table.route == wanted:
        again = found.look_again
    return replace(found, objects=(*found.objects, route), look_again=again)


def _next(
    observed: Observed,
    situation: Situation,
    routing: Routing,
    wanted: Route,
    halves: Mapping[str, int] | None = None,
) -> tuple[Route, Table]:
    """The route to get to, and the table to write now on the way there."""
    backends = {r.hash: backend(observed, r) for r in situation.history.revisions}
    wanted = _known(wanted, backends)
    pods = _pods_to_know(situation, routing, wanted)
    return wanted, next_table(routing, wanted, backends, pods, halves)


def _halves(situation: Situation, route: Route) -> dict[str, int]:
    """Whose traffic is divided in two, and how many pods the routers must know for that.

    Stable's, at all times while there is an analysis: what its two halves showed in the hours
    before a rollout says how much its requests come in bursts. Who is halved stays so while it has
    traffic, since evidence is under way: the revision before stable in the bake.
    """
    if situation.held_to is None or not situation.held_to.analysis.counted:
        return {}
    table = situation.setting.routing.table
    names = {b.revision for b in table.backends if b.halved} if table is not None else set()
    if situation.stable is not None:
        names.add(situation.stable.hash)
    return {
        name: max(1, situation.capacities.get(name, Capacity()).available)
        for name in names
        if route.weight(name) > 0
    }


def _pods_to_know(situation: Situation, routing: Routing, route: Route) -> dict[str, int]:
    """How many pods of each revision routers must know before it gets more requests: as many as its
    share needs, if there are so many. Going back to stable waits for nothing but that it answers.
    """
    found = {}
    before = routing.route.revisions
    for name in route.revisions:
        if situation.stable is not None and name == situation.stable.hash and name in before:
            continue
        has = situation.capacities.get(name, Capacity()).available
        found[name] = max(1, min(has, math.ceil(situation.total * route.weight(name) / 100)))
    return found


def _known(route: Route, backends: Mapping[str, Backend]) -> Route:
    """The route without revisions that there is no record of any more."""
    if route.revisions <= backends.keys():
        return route
    return Route({name: weight for name, weight in route.weights.items() if name in backends})


def _patience(observed: Observed, written: datetime | None) -> timedelta:
    """How long to wait before routers are asked again."""
    waited = observed.now - (written or observed.now)
    return _SOON if waited < timedelta(seconds=10) else _LATER


def _targets(serving: Revision) -> dict[str, str]:
    """Where the routers listen: their ports have the names of the public ones."""
    return {port.name: port.name for port in ports(serving)}
