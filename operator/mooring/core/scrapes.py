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
from mooring.core.judge.readings import Scrape
from mooring.core.judge.sources import scrape_of
from mooring.core.router_counters import Attempts, ClusterCounts, Source

_NONE = ClusterCounts()


@dataclass(frozen=True, slots=True)
class Past:
    """What one cluster of one router pod has counted; ``at`` is when it was last seen."""

    lives: Lives = field(default_factory=Lives)
    given_up: float = 0.0
    at: float = 0.0


_NEVER = Past()


@dataclass(frozen=True, slots=True)
class Memory:
    """Kept in memory from tick to tick, for one rollout, by router pod and cluster.

    Without it, after a restart, the sums are those of the endpoints that there are. When one has
    gone meanwhile they fall, and the judge leaves out one window.
    """

    pasts: Mapping[tuple[str, str], Past] = field(default_factory=dict)


def take(
    sources: Iterable[Source], candidate: tuple[str, ...], stable: Iterable[str], memory: Memory
) -> tuple[Mapping[str, Scrape], Memory]:
    """The scrapes of one rollout by router pod, and what to remember.

    ``candidate`` and ``stable`` are clusters: one per port, of stable two where it is halved.
    Router pods that were not read this time are remembered for an hour.
    """
    halves = tuple(stable)
    pasts = dict(memory.pasts)
    scrapes: dict[str, Scrape] = {}
    newest = max((past.at for past in pasts.values()), default=0.0)
    for source in sources:
        newest = max(newest, source.at)
        sums = {}
        for name in (*candidate, *halves):
            past = pasts.get((source.pod, name), _NEVER)
            past, sums[name] = _sum(source.clusters.get(name, _NONE), past, source.at)
            pasts[source.pod, name] = past
        scrapes[source.pod] = scrape_of(source, candidate, halves, sums, source.born)
    kept = {key: past for key, past in pasts.items() if past.at >= newest - 3600}
    return scrapes, Memory(kept)


def _sum(cluster: ClusterCounts, past: Past, at: float) -> tuple[Past, Attempts]:
    """All lives of the endpoints, with as many successes as leave those given up unexplained."""
    lives = past.lives.seen(cluster.endpoints)
    whole = lives.sum(cluster.endpoints)
    unexplained = whole.total - whole.success - whole.error - whole.active
    given_up = max(past.given_up, unexplained, 0.0)
    if given_up != unexplained:
        counted = min(given_up, whole.total - whole.error)
        success = whole.total - whole.error - whole.active - counted
        whole = Attempts(whole.total, success, whole.error, whole.active)
    return Past(lives, given_up, at), whole
