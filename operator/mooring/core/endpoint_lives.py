"""Sums over endpoints that never fall when an endpoint goes.

A router counts per endpoint. A pod that goes takes its counters with it, and one that comes back
under its address begins at zero; a plain sum over endpoints would fall, which looks like a restart
of the router, and the window would be lost. Here each life of each endpoint stays in the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mooring.core.router_counters import Attempts

_NOTHING: Final = Attempts()
#: Endpoints remembered after they went. Beyond it, those that went first are only in the sum.
_REMEMBERED: Final = 200


def _fell(before: Attempts, now: Attempts) -> bool:
    return now.total < before.total or now.success < before.success or now.error < before.error


@dataclass(frozen=True, slots=True)
class Lives:
    """What the endpoints of one cluster of one router pod have counted so far.

    ``ended``: all lives that are over. ``last``: the counts of the present life, or of the last one
    of an endpoint that is away.
    """

    ended: Attempts = _NOTHING
    last: Mapping[str, Attempts] = field(default_factory=dict)

    def seen(self, endpoints: Mapping[str, Attempts]) -> Lives:
        """After another scrape. Counts that fell are of a new life."""
        ended = self.ended
        away: dict[str, Attempts] = {}
        for name, before in self.last.items():
            now = endpoints.get(name)
            if now is None:
                away[name] = before
            elif _fell(before, now):
                ended = ended.plus(before)
        for name in list(away)[: max(0, len(away) - _REMEMBERED)]:
            ended = ended.plus(away.pop(name))
        return Lives(ended, {**away, **endpoints} if away else endpoints)

    def sum(self, endpoints: Mapping[str, Attempts]) -> Attempts:
        """All lives together; under way is what the present ``endpoints`` say."""
        total, success, error = self.ended.total, self.ended.success, self.ended.error
        for counts in self.last.values():
            total += counts.total
            success += counts.success
            error += counts.error
        return Attempts(total, success, error, sum(now.active for now in endpoints.values()))
