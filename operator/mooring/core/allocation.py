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
from mooring.core.sizing import Side, Sizes, by_pods, by_pods_share, sizes
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
    onwards = _forward(roles.stable, roles.candidate, setting)
    carrying = _carrying(roles, setting)
    has = setting.capacity(roles.stable)
    if not carrying or _reach(has, setting.total) == 100:
        return _apart(onwards, roles.stable, roles, setting)
    if has.available and not any(_made_room(r, setting) for r in carrying):
        # Stable was left whole, and takes everything back at once.
        return _apart(onwards, roles.stable, roles, setting)
    # The candidate before it still has pods that stable needs: first everything goes back. But
    # where stable does not answer at all, its repair does not wait for it: it gets what there is
    # room for beside the pods that are there.
    back = _at_rest(roles.stable, roles, setting)
    given = 0
    if not has.available:
        given = min(onwards.counts[roles.candidate.hash], _room(roles.candidate, roles, setting))
    return Allocation({**back.counts, roles.candidate.hash: given}, back.route)


def _apart(onwards: Allocation, stable: Revision, roles: Roles, setting: Setting) -> Allocation:
    """A Service that selects the pods of every revision selects those on their way out as well: it
    goes on with a stable that is whole until they are gone.
    """
    has = setting.capacity(stable)
    mixed = setting.router == REPLICAS and len(onwards.route.weights) > 1
    if not (mixed and roles.leaving and has.set >= setting.total):
        return onwards
    return Allocation({**onwards.counts, stable.hash: setting.total}, Route({stable.hash: 100}))


def _room(candidate: Revision, roles: Roles, setting: Setting) -> int:
    """How many pods a candidate may have beside those of stable and of who is on the way out."""
    surge = _surge(candidate, setting)
    if surge >= setting.total:
        return setting.total
    others = (roles.stable, *roles.leaving)
    taken = sum(setting.side(revision).pods for revision in others if revision is not None)
    return max(setting.total + surge - taken, setting.side(candidate).pods, 0)


def _surge(revision: Revision, setting: Setting) -> int:
    """How many pods beyond those for all the traffic may run while it moves."""
    plan = revision.rollout
    return setting.total if plan is None or setting.autoscaled else plan.surge(setting.total)


def _carrying(roles: Roles, setting: Setting) -> list[Revision]:
    """Who is on the way out, and still gets requests; who gets the most comes first."""
    if setting.router == REPLICAS:
        shares = {r.hash: setting.capacity(r).available for r in roles.leaving}
        found = [r for r in roles.leaving if shares[r.hash] and setting.routing.shared]
    else:
        shares = {r.hash: setting.routing.route.weight(r.hash) for r in roles.leaving}
        found = [r for r in roles.leaving if shares[r.hash]]
    return sorted(found, key=lambda r: shares[r.hash], reverse=True)


def _made_room(leaver: Revision, setting: Setting) -> bool:
    """Whether stable may have given up pods as this revision got them: then it needs time to take
    the traffic back. Otherwise it has stayed whole, but for pods that it has lost.
    """
    if _surge(leaver, setting) < setting.total:
        return True
    steps = leaver.rollout.steps if leaver.rollout is not None else ()
    cut = any(50 < (step.weight or 0) < 100 for step in steps)
    return cut and setting.router == REPLICAS and not setting.autoscaled


def _forward(stable: Revision, candidate: Revision, setting: Setting) -> Allocation:
    """On the way from stable to the candidate."""
    plan = candidate.rollout
    wanted = demand(plan) if plan else Demand()
    promoting = plan is None or plan.done
    surge = _surge(candidate, setting)
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
    leaver = next((r for r in _carrying(roles, setting) if setting.capacity(r).available), None)
    if leaver is not None:
        counts |= _changing_places(stable, leaver, setting)
        left = _left(stable, leaver, setting)
        if left > 0:
            weights = {stable.hash: 100 - left, leaver.hash: left}
            return Allocation(counts, Route({k: v for k, v in weights.items() if v}))
    if has.available == 0:
        others = [r for r in (roles.previous, *roles.leaving) if r is not None]
        for other in others:
            if other.rejected is None and setting.capacity(other).available:
                return Allocation(counts, Route({other.hash: 100}))
    share = _previous_weight(stable, roles.previous, setting)
    if roles.previous is None or share == 0:
        return Allocation(counts, Route({stable.hash: 100}))
    return Allocation(counts, Route({stable.hash: 100 - share, roles.previous.hash: share}))


def _changing_places(stable: Revision, leaver: Revision, setting: Setting) -> dict[str, int]:
    """Pods of both while stable takes its own back; nothing where it never gave any up."""
    surge = _surge(leaver, setting)
    stays, gets = setting.side(leaver), setting.side(stable)
    missing = setting.total - gets.available
    most = setting.capacity(leaver).set  # who leaves never gets more pods again
    if setting.router == REPLICAS:
        if missing <= 0:
            return {}  # the Service leaves them now, and they are drained
        most = min(most, missing)  # each of them gets requests
    if surge < setting.total:
        arrange = by_pods if setting.router == REPLICAS else sizes
        back = arrange(setting.total, surge, 100, 0, gets, stays)
        return {stable.hash: back.incoming, leaver.hash: min(back.outgoing, most)}
    if missing > 0 and _made_room(leaver, setting):
        return {stable.hash: setting.total, leaver.hash: most}
    return {}


def _left(stable: Revision, leaver: Revision, setting: Setting) -> int:
    """The share that the one who leaves keeps for now (percent)."""
    has = setting.capacity(stable)
    reach = _reach(has, setting.total)
    served = leaver.promotion is not None and leaver.rejected is None
    if reach == 100 or (has.available and not served and not _made_room(leaver, setting)):
        return 0
    if setting.router == REPLICAS:
        return by_pods_share(setting.side(leaver), setting.side(stable))
    if has.available == 0 and leaver.rejected is None:
        return 100
    # What was taken back never gets more again.
    return min(setting.routing.route.weight(leaver.hash), 100 - reach)


def _reach(has: Capacity, total: int) -> int:
    """The share of the traffic for which its pods are enough (percent)."""
    return min(100, 100 * has.available // total) if total else 100


def _previous_weight(stable: Revision, previous: Revision | None, setting: Setting) -> int:
    if previous is None or stable.rollout is None or setting.router == REPLICAS:
        return 0
    if setting.capacity(previous).available == 0 or setting.capacity(stable).available == 0:
        return 0
    return stable.rollout.previous_weight
