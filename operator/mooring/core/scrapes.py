"""From what the routers counted to what the judge takes in.

The judge wants, per router pod, counters of both sides that only ever rise while the pod lives.
Four things stand between: endpoints come and go (:mod:`mooring.core.endpoint_lives`), a cluster is
read endpoint by endpoint, attempts that a client gave up are in no counter of their own, and a
store may show half of a scrape, or one that is older than the last.

Such a scrape is passed over whole, both sides of it: the last one is given again, which says
nothing new. Taken as it is, it would look as if endpoints had begun anew, and all that they ever
counted would count a second time, or as errors.

An attempt that was given up is counted as an error: a model that hangs would otherwise look as if
its impatient clients had never asked. total - success - error - active may waver by as many
requests as begin while the router writes its page, so the highest value so far is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mooring.core.clock import CLOCK_SET_BACK
from mooring.core.endpoint_lives import Lives
from mooring.core.judge.readings import CONTRADICTION, Scrape
from mooring.core.judge.sources import scrape_of
from mooring.core.router_counters import Attempts, ClusterCounts, Source

_NONE = ClusterCounts()


@dataclass(frozen=True, slots=True)
class Past:
    """What one cluster of one router pod has counted; ``at`` is when it was last seen, and
    ``sum`` what was given then.
    """

    lives: Lives = field(default_factory=Lives)
    given_up: float = 0.0
    at: float = 0.0
    sum: Attempts = field(default_factory=Attempts)


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
    Of one that shows half of a scrape, the last is given again. Router pods that were not read this
    time are remembered for an hour.
    """
    halves = tuple(stable)
    pasts = dict(memory.pasts)
    scrapes: dict[str, Scrape] = {}
    newest = max((past.at for past in pasts.values()), default=0.0)
    for source in sources:
        newest = max(newest, source.at)
        clusters, pod = source.clusters, source.pod
        known = {name: pasts.get((pod, name), _NEVER) for name in (*candidate, *halves)}
        shown = {name: _shown(clusters.get(name, _NONE)) for name in known}
        last = max([past.at for past in known.values()], default=0.0)
        whole = _whole(source, last, known, shown)
        if whole:
            for name, past in known.items():
                known[name] = pasts[pod, name] = _summed(shown[name], past, source.at)
        sums = {name: past.sum for name, past in known.items()}
        scrape = scrape_of(source, candidate, halves, sums, source.born)
        scrapes[pod] = scrape if whole else replace(scrape, time=min(source.at, last))
    kept = {key: past for key, past in pasts.items() if past.at >= newest - 3600}
    return scrapes, Memory(kept)


def _whole(
    source: Source,
    last: float,
    known: Mapping[str, Past],
    shown: Mapping[str, Mapping[str, Attempts]],
) -> bool:
    """Whether a scrape can be taken after the one of ``last``. Behind one address there may be two
    Prometheus servers, of which the one is behind the other.
    """
    age = source.at - last
    if age < 0:
        return age <= -CLOCK_SET_BACK
    restarted = source.born is not None and source.born > last
    if age >= CONTRADICTION or restarted:
        return True
    return all(not past.lives.contradicted(shown[name]) for name, past in known.items())


def _shown(cluster: ClusterCounts) -> Mapping[str, Attempts]:
    """The endpoints that have counted anything: one without counts may be one that is not shown."""
    endpoints = cluster.endpoints
    for one in endpoints.values():
        if not one.total:
            return {
                name: at for name, at in endpoints.items() if at.total or at.success or at.error
            }
    return endpoints


def _summed(endpoints: Mapping[str, Attempts], past: Past, at: float) -> Past:
    """All lives of the endpoints, with as many successes as leave those given up unexplained."""
    lives = past.lives.seen(endpoints)
    whole = lives.sum(endpoints)
    unexplained = whole.total - whole.success - whole.error - whole.active
    given_up = max(past.given_up, unexplained, 0.0)
    if given_up != unexplained:
        counted = min(given_up, whole.total - whole.error)
        success = whole.total - whole.error - whole.active - counted
        whole = Attempts(whole.total, success, whole.error, whole.active)
    return Past(lives, given_up, at, whole)
