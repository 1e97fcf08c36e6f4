"""From what was read of a router pod to what is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mooring.core.judge.readings import Counters, Scrape
from mooring.core.router_counters import Attempts, ClusterCounts, Source

_NONE = ClusterCounts()


def scrape_of(
    source: Source,
    candidate: str,
    stable: Sequence[str],
    sums: Mapping[str, Attempts] | None = None,
    born: float | None = None,
) -> Scrape:
    """One scrape of one router pod, for the candidate's cluster and those of stable (a, b).

    ``sums``: attempts per cluster over all lives of its endpoints (see
    :mod:`mooring.core.endpoint_lives`); without them the endpoints there are now are summed. A
    cluster that the scrape does not have counts zero. An attempt that ended neither well nor badly
    is one that its client gave up waiting for: it is an error, as a hang is.
    """
    ejected = source.clusters.get(candidate, _NONE).ejected
    return Scrape(
        time=source.at,
        candidate=_counters(source, candidate, sums),
        stable=tuple(_counters(source, name, sums) for name in stable),
        born=born,
        ejections=int(ejected or 0),
    )


def _counters(source: Source, cluster: str, sums: Mapping[str, Attempts] | None) -> Counters:
    counts = source.clusters.get(cluster, _NONE)
    attempts = (sums or {}).get(cluster)
    if attempts is None:
        attempts = Attempts()
        for one in counts.endpoints.values():
            attempts = attempts.plus(one)
    given_up = max(attempts.total - attempts.success - attempts.error - attempts.active, 0.0)
    return Counters(
        attempts=attempts.total,
        errors=attempts.error + given_up,
        unfinished=attempts.active,
        latency=counts.latency or (),
    )
