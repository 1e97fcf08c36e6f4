"""From what the routers counted to what the judge takes in.

The judge wants, per router pod, counters of both sides that only ever rise while the pod lives.
Three things stand between: endpoints come and go (:mod:`mooring.core.endpoint_lives`), a cluster is
read endpoint by endpoint, and attempts that a client gave up are in no counter of their own.

An attempt that was given up is counted as an error: a model that hangs would otherwise look as if
its impatient clients had never asked. total - success - error - active may waver by as many
requests as begin while the router writes its page, so the highest value so far is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mooring.core.endpoint_lives import Lives
from mooring.core.judge.readings import Counters, Scrape
from mooring.core.router_counters import ClusterCounts, Source

_NONE = ClusterCounts()


@dataclass(frozen=True, slots=True)
class Past:
    """What one cluster of one router pod has counted; ``at`` is when it was last seen."""

    lives: Lives = field(default_factory=Lives)
    given_up: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Kept in memory from tick to tick, for one rollout, by router pod and cluster.

    Without it, after a restart, the sums are those of the endpoints that there are. When one has
    gone meanwhile they fall, and the judge leaves out one window.
    """

    pasts: Mapping[tuple[str, str], Past] = field(default_factory=dict)


def take(
    sources: Iterable[Source], candidate: str, stable: Iterable[str], memory: Memory
) -> tuple[Mapping[str, Scrape], Memory]:
    """The scrapes of one rollout by router pod, and what to remember.

    ``candidate`` and ``stable`` are clusters: one, and one or its two halves. Pods that were not
    read this time are remembered for an hour.
    """
    halves = tuple(stable)
    pasts = dict(memory.pasts)
    scrapes: dict[str, Scrape] = {}
    newest = max((past.at for past in pasts.values()), default=0.0)
    for source in sources:
        newest = max(newest, source.at)
        counters = {}
        for name in (candidate, *halves):
            past = pasts.get((source.pod, name), Past())
            past, counters[name] = _counters(source.clusters.get(name, _NONE), past, source.at)
            pasts[source.pod, name] = past
        scrapes[source.pod] = Scrape(
            time=source.at,
            candidate=counters[candidate],
            stable=tuple(counters[name] for name in halves),
            born=source.born,
            ejections=int(source.clusters.get(candidate, _NONE).ejected or 0),
        )
    kept = {key: past for key, past in pasts.items() if past.at >= newest - 3600}
    return scrapes, Memory(kept)


def _counters(cluster: ClusterCounts, past: Past, at: float) -> tuple[Past, Counters]:
    lives = past.lives.seen(cluster.endpoints)
    whole = lives.sum(cluster.endpoints)
    open_now = whole.total - whole.success - whole.error - whole.active
    given_up = max(past.given_up, open_now, 0.0)
    counters = Counters(
        attempts=whole.total,
        errors=min(whole.error + given_up, whole.total),
        unfinished=whole.active,
        latency=cluster.latency or (),
    )
    return Past(lives, given_up, at), counters
