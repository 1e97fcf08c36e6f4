"""Pods and traffic for every revision that lives: what each should have, now.

Given who is stable, who is the candidate and who is on the way out, this says how many pods each
should have and what share of the requests. No rule of the rollout stands here, only its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mooring.core.capacity import Capacity
from mooring.core.revision import Revision
from mooring.core.routing import Routing
from mooring.core.sizing import Side, Sizes, by_pods, sizes
from mooring.core.steps import Demand, demand
from mooring.core.traffic import Match, Route

ENVOY, GATEWAY, REPLICAS = "envoy", "gateway", "replicas"


@dataclass(frozen=True, slots=True)
class Roles:
    """Who is who. ``previous`` is kept after a promotion; ``leaving`` are on the way out."""

    stable: Revision | None
    candidate: Revision | None = None
    previous: Revision | None = None
    leaving: tuple[Revision, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What the arithmetic works with: pods for all the traffic, who counts them, the router."""

    total: int
    autoscaled: bool
    router: str
    capacities: Mapping[str, Capacity]
    routing: Routing

    def capacity(self, revision: Revision) -> Capacity:
        return self.capacities.get(revision.hash, Capacity())

    def side(self, revision: Revision) -> Side:
        has = self.capacity(revision)
        weight = self.routing.route.weight(revision.hash)
        return Side(has.available, max(has.set if has.exists else 0, has.pods), weight)


@dataclass(frozen=True, slots=True)
class Allocation:
    """``counts`` of pods by revision (who is not named keeps what it has), the ``route`` that
    requests should take, and whether the candidate has the pods that its step needs.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    route: Route = field(default_factory=Route)
    staffed: bool = False


def allocate(roles: Roles, setting: Setting) -> Allocation:
    """What every revision should have now."""
    if roles.stable is None:
        if roles.candidate is None:
            return Allocation()
        first = roles.candidate
        ready = setting.capacity(first).available >= setting.total
        return Allocation({first.hash: setting.total}, Route({first.hash: 100}), ready)
    if roles.candidate is None:
        return _at_rest(roles.stable, roles, setting)
    gone = not any(setting.routing.route.weight(r.hash) for r in roles.leaving)
    if gone or _reach(setting.capacity(roles.stable), setting.total) == 100:
        return _forward(roles.stable, roles.candidate, setting)
    # The candidate before it still has pods that stable needs: first everything goes back.
    back = _at_rest(roles.stable, roles, setting)
    return Allocation({**back.counts, roles.candidate.hash: 0}, back.route)


def _forward(stable: Revision, candidate: Revision, setting: Setting) -> Allocation:
    """On the way from stable to the candidate."""
    plan = candidate.rollout
    wanted = demand(plan) if plan else Demand()
    promoting = plan is None or plan.done
    surge = setting.total if plan is None or setting.autoscaled else plan.surge(setting.total)
    weight = wanted.weight
    if promoting and surge < setting.total:
        weight = 100  # pods and traffic move over together, a few at a time
    least = setting.total if promoting else _least(wanted, setting.total)
    arrange = by_pods if setting.router == REPLICAS else sizes
    found = arrange(
        setting.total, surge, weight, least, setting.side(candidate), setting.side(stable)
    )
    counts = {
        candidate.hash: found.incoming,
        stable.hash: _held(found, stable, setting),
    }
    return Allocation(counts, _split(stable, candidate, found, wanted, setting), found.staffed)


def _least(wanted: Demand, total: int) -> int:
    """The fewest pods of a step: what it names, what copies need, and one to look at."""
    return max(1, wanted.pods, math.ceil(total * wanted.mirror / 100))


def _held(found: Sizes, stable: Revision, setting: Setting) -> int:
    """Stable gives up pods only when every router is known to send it less."""
    settled = setting.router == REPLICAS or setting.routing.taken or setting.routing.idle
    if settled:
        return found.outgoing
    return max(found.outgoing, min(setting.total, setting.capacity(stable).set))


def _split(
    stable: Revision, candidate: Revision, found: Sizes, wanted: Demand, setting: Setting
) -> Route:
    """Never onto pods that do not answer, while others do."""
    has = setting.capacity(candidate).available > 0
    weight = found.weight if has else 0
    if has and setting.capacity(stable).available == 0:
        weight = 100
    weights = {stable.hash: 100 - weight, candidate.hash: weight}
    mirrors: dict[str, int] = {}
    matches: tuple[Match, ...] = ()
    if has and found.staffed and setting.router != REPLICAS:
        if wanted.mirror:
            mirrors = {candidate.hash: wanted.mirror}
        if wanted.headers:
            matches = (Match(candidate.hash, wanted.headers),)
    return Route({k: v for k, v in weights.items() if v}, mirrors, matches)


def _at_rest(stable: Revision, roles: Roles, setting: Setting) -> Allocation:
    """Stable takes everything, as soon as it can; what leaves goes as it takes over."""
    counts = {stable.hash: setting.total}
    has = setting.capacity(stable)
    leaver = max(
        (r for r in roles.leaving if setting.routing.route.weight(r.hash)),
        key=lambda r: setting.routing.route.weight(r.hash),
        default=None,
    )
    if leaver is not None and setting.capacity(leaver).available and setting.router != REPLICAS:
        plan = leaver.rollout
        surge = setting.total if plan is None or setting.autoscaled else plan.surge(setting.total)
        back = sizes(setting.total, surge, 100, 0, setting.side(stable), setting.side(leaver))
        if surge < setting.total:
            counts = {stable.hash: back.incoming, leaver.hash: back.outgoing}
        # What was taken back never gets more again.
        left = min(setting.routing.route.weight(leaver.hash), 100 - _reach(has, setting.total))
        if left > 0:
            route = Route({stable.hash: 100 - left, leaver.hash: left} if left < 100
                          else {leaver.hash: 100})  # fmt: skip
            return Allocation(counts, route)
    if has.available == 0:
        others = [r for r in (roles.previous, *roles.leaving) if r is not None]
        for other in others:
            if other.rejected is None and setting.capacity(other).available:
                return Allocation(counts, Route({other.hash: 100}))
    share = _previous_weight(stable, roles.previous, setting)
    if roles.previous is None or share == 0:
        return Allocation(counts, Route({stable.hash: 100}))
    return Allocation(counts, Route({stable.hash: 100 - share, roles.previous.hash: share}))


def _reach(has: Capacity, total: int) -> int:
    """The share of the traffic for which its pods are enough (percent)."""
    return min(100, 100 * has.available // total) if total else 100


def _previous_weight(stable: Revision, previous: Revision | None, setting: Setting) -> int:
    if previous is None or stable.rollout is None or setting.router == REPLICAS:
        return 0
    if setting.capacity(previous).available == 0 or setting.capacity(stable).available == 0:
        return 0
    return stable.rollout.previous_weight
