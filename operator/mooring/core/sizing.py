"""How many pods the two sides of a rollout should have, and how much traffic they can take.

Seen from the side that the traffic goes to (``incoming``: the candidate, or stable while a
candidate is taken back) and the side that it leaves (``outgoing``). Where both fit next to each
other, the outgoing side stays whole. Where they do not, pods move over a few at a time, and the
traffic with them: never more of it than there are pods for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """Pods of one revision: how many are available, how many its Deployment asks for or still
    has, and the share of the traffic that it may get until all routers agree (percent).
    """

    available: int = 0
    pods: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Pods to ask for on both sides, and the share of the traffic that the incoming side may take
    now (percent). ``staffed``: it has what the share asked for needs.
    """

    incoming: int
    outgoing: int
    weight: int
    staffed: bool


def comparable(total: int, weight: int) -> int:
    """Pods with which the load per pod is that of ``total`` others: total·w/(1-w), rounded up, at
    most ``total``.
    """
    if weight <= 0:
        return 0
    if weight >= 50:
        return total
    return min(total, math.ceil(total * weight / (100 - weight)))


def sizes(total: int, surge: int, weight: int, least: int, incoming: Side, outgoing: Side) -> Sizes:
    """The next sizes on the way to ``weight`` percent for the incoming side.

    ``total``: pods for all the traffic. ``surge``: how many more may run meanwhile. ``least``: the
    fewest that the incoming side should get at the end. Raises nothing; any numbers give sizes
    between 0 and ``total``.
    """
    goal = min(total, max(comparable(total, weight), least))
    if goal <= surge:
        ready = incoming.available >= goal
        share = weight if ready else min(weight, incoming.weight, _capacity(total, incoming))
        return Sizes(goal, total, share, ready)
    share = min(weight, max(_capacity(total, incoming), _proportion(incoming, outgoing)))
    needed = math.ceil(total * weight / 100)
    goal = min(goal, max(needed, least, total + surge - math.ceil(total * (100 - weight) / 100)))
    room = total + surge
    # Until all routers agree, the outgoing side may still get the greater of its two shares.
    carries = _rest(total, min(share, incoming.weight))
    if surge == 0 and incoming.available < goal:
        carries -= 1  # somebody has to make room for the first pod
    stays = max(0, min(total, max(carries, room - goal), room - incoming.pods))
    asked = max(min(goal, room - max(stays, outgoing.pods)), min(incoming.pods, goal))
    ready = incoming.available >= goal and share >= weight
    return Sizes(max(0, asked), stays, share, ready)


def by_pods(
    total: int, surge: int, weight: int, least: int, incoming: Side, outgoing: Side
) -> Sizes:
    """As :func:`sizes` where the ratio of pods is the weight, and every pod gets the same load.

    A share between 0 and 100 means that the pods of both sides get requests. The outgoing side
    gets them alone only while it is whole, the incoming one once it has pods for everything.
    """
    if weight <= 50:
        goal, remain = min(total, max(comparable(total, weight), least)), total
    else:  # at 100 there is no ratio to keep, and who is left whole can take everything back
        goal, remain = total, math.ceil(total * (100 - weight) / weight) or total
    if goal <= surge:
        if incoming.available >= goal:
            return Sizes(goal, remain, weight, True)
        whole = outgoing.pods >= total
        carries = total if whole else max(remain, outgoing.pods, total - incoming.available)
        share = incoming.weight
        if outgoing.available < total:
            share = _together(weight, incoming, outgoing)
        return Sizes(goal, carries, share, False)
    goal = min(total, max(least, math.ceil(total * weight / 100)))
    room = total + surge
    carries = total - incoming.available
    if surge == 0 and incoming.available < goal:
        carries -= 1
    stays = max(0, min(total, max(carries, room - goal), room - incoming.pods))
    asked = max(min(goal, room - max(stays, outgoing.pods)), min(incoming.pods, goal))
    share = weight if incoming.available >= total else _together(weight, incoming, outgoing)
    return Sizes(max(0, asked), stays, share, incoming.available >= goal)


def by_pods_share(side: Side, other: Side) -> int:
    """What a side gets where the pods of both get requests: between 1 and 99 percent."""
    return max(1, min(99, _proportion(side, other)))


def _together(weight: int, incoming: Side, outgoing: Side) -> int:
    """A share by which the pods of both sides get requests."""
    return weight if weight < 100 else by_pods_share(incoming, outgoing)


def _rest(total: int, weight: int) -> int:
    """Pods for what the other side leaves, but for less than a percent: weights are whole percents,
    rounded down. One pod in eleven gets 9 %, and ten are enough for the other 91.
    """
    return math.ceil(total * (99 - weight) / 100) if weight else total


def _capacity(total: int, side: Side) -> int:
    """The share of the traffic for which its available pods are enough (percent, rounded down)."""
    return min(100, 100 * side.available // total) if total else 100


def _proportion(side: Side, other: Side) -> int:
    """Its share of all available pods (percent, rounded down)."""
    both = side.available + other.available
    return 100 * side.available // both if both else 0
