"""The floor under the autoscaler: while revisions share the traffic it may only add pods.

It sees stable's pods alone. As their share of the traffic falls it would take them away, and with
them the candidate's, whose number follows theirs: the side that carries the traffic would starve.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from mooring.api import Autoscaling
from mooring.core import kinds
from mooring.core.allocation import REPLICAS
from mooring.core.clock import annotated_time
from mooring.core.observed import Manifest, Observed
from mooring.core.render.autoscaler import minimum
from mooring.core.situation import Situation

#: How long the floor outlasts the sharing: what an autoscaler measured before the traffic moved is
#: forgotten by then. It goes by the last five minutes, unless its controller was told otherwise.
FORGETS = timedelta(minutes=5)


def floor(
    observed: Observed, situation: Situation, wanted: Autoscaling, front: Iterable[Manifest]
) -> tuple[int, datetime | None]:
    """The least number of pods that the autoscaler may go to now, and when it ends if a time does.

    ``front``: the objects that say where requests go, which carry since when they do.
    """
    least = minimum(wanted)
    if _shared(situation):
        return max(least, situation.total), None
    live = observed.child(kinds.AUTOSCALER, observed.name)
    held = int(live["spec"].get("minReplicas") or 1) if live is not None else least
    taken = situation.setting.routing.taken_at
    routed = [annotated_time(one, kinds.ANNOTATION_ROUTED) for one in front]
    moments = [since for since in (taken, *routed) if since is not None]
    until = max((min(since, observed.now) for since in moments), default=observed.now) + FORGETS
    if held <= least or (observed.now >= until and not _moving(situation)):
        return least, None
    return min(held, wanted.max_replicas), until if observed.now < until else None


def _shared(situation: Situation) -> bool:
    """Whether another revision has a part of the traffic, or is given one with this plan.

    One that waits without traffic takes nothing from stable, whose load says all there is to say.
    """
    own = situation.stable.hash if situation.stable is not None else ""
    routed = situation.setting.routing.route.weights
    return any(name != own for name in (*situation.route.weights, *routed))


def _moving(situation: Situation) -> bool:
    """Whether some router may not know yet where all the traffic goes."""
    routing = situation.setting.routing
    if situation.setting.router == REPLICAS or routing.table is None:
        return False  # the Service is told with the same plan
    told = routing.route.weights == situation.route.weights
    return not (told and (routing.taken or routing.idle))
