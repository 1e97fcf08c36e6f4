"""Sums over endpoints that never fall when an endpoint goes.

A router counts per endpoint. A pod that goes takes its counters with it, and one that comes back
under its address begins at zero; a plain sum over endpoints would fall, which looks like a restart
of the router, and the window would be lost. Here each life of each endpoint stays in the sum.

What was under way at an endpoint when it was last seen ends unseen: a pod that is drained or
evicted answers it, and the router no longer shows the counts. Nobody can tell, so it is taken as
answered, neither as an error nor as unfinished. A pod that dies is still there when its connections
break: the router counts those as errors of its own, and a pod's restart is judged by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, Self, TypeVar

from mooring.core.router_counters import Attempts

_NOTHING: Final = Attempts()
#: Endpoints remembered after they went. Beyond it, those that went first are only in the sum.
_REMEMBERED: Final = 200


class Addable(Protocol):
    """Counts that can be added up."""

    def plus(self, other: Self, /) -> Self:
        """Both together."""
        ...


C = TypeVar("C", bound=Addable)


def past_lives(
    ended: C, last: Mapping[str, C], now: Mapping[str, C], fell: Callable[[C, C], bool]
) -> tuple[C, Mapping[str, C]]:
    """After another look: the sum of the lives that are over, and the last counts of each name.

    ``fell(before, now)`` tells a new life. A name that is away keeps its counts, since it may come
    back with them; of more than are remembered, those that went first are only in the sum.
    """
    away: dict[str, C] = {}
    for name, before in last.items():
        present = now.get(name)
        if present is None:
            away[name] = before
        elif fell(before, present):
            ended = ended.plus(before)
    for name in list(away)[: max(0, len(away) - _REMEMBERED)]:
        ended = ended.plus(away.pop(name))
    return ended, {**away, **now} if away else now


def _fell(before: Attempts, now: Attempts) -> bool:
    return now.total < before.total or now.success < before.success or now.error < before.error


def _began(before: Attempts, now: Attempts) -> bool:
    """Whether counts that fell are of a life that begins: it has fewer attempts than the one that
    ended, and no more answers than attempts.
    """
    return now.total < before.total and now.success + now.error + now.active <= now.total


@dataclass(frozen=True, slots=True)
class Lives:
    """What the endpoints of one cluster of one router pod have counted so far.

    ``ended``: all lives that are over; its ``active`` was under way at their ends. ``last``: the
    counts of the present life, or of the last one of an endpoint that is away. ``present``: who was
    there at the last look.
    """

    ended: Attempts = _NOTHING
    last: Mapping[str, Attempts] = field(default_factory=dict)
    present: frozenset[str] = frozenset()

    def seen(self, endpoints: Mapping[str, Attempts]) -> Lives:
        """After another scrape. Counts that fell are of a new life."""
        return Lives(*past_lives(self.ended, self.last, endpoints, _fell), frozenset(endpoints))

    def contradicted(self, endpoints: Mapping[str, Attempts]) -> bool:
        """Whether another scrape is not whole: of some endpoint it shows a part of the counts.

        Who was away begins anew with any number of attempts, as long as they add up.
        """
        last = self.last.get
        for name, now in endpoints.items():  # of every endpoint at every tick: kept plain
            before = last(name)
            if before is not None and _fell(before, now) and not _began(before, now):
                answered = now.success + now.error
                if name in self.present or answered + now.active != now.total:
                    return True
        return False

    def sum(self, endpoints: Mapping[str, Attempts]) -> Attempts:
        """All lives together. Under way is what the present ``endpoints`` say; what was under way
        at those that have gone is among the successes.
        """
        total, error = self.ended.total, self.ended.error
        success = self.ended.success + self.ended.active
        for name, counts in self.last.items():
            total += counts.total
            success += counts.success
            error += counts.error
            if name not in endpoints:
                success += counts.active
        return Attempts(total, success, error, sum(now.active for now in endpoints.values()))
