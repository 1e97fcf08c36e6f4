"""From what was read of a router pod to what is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mooring.core.judge.readings import Counters, Scrape
from mooring.core.router_counters import Attempts, ClusterCounts, Source

_NONE = ClusterCounts()


def scrape_of(
    source: Source,
    candidate: tuple[str, ...],
    stable: Sequence[str],
    sums: Mapping[str, Attempts] | None = None,
    born: float | None = None,
) -> Scrape:
    """One scrape of one router pod, for the candidate's clusters and those of stable.

    Each side has a cluster per port, and stable two where it is halved. ``sums``: attempts per
    cluster over all lives of its endpoints (see :mod:`mooring.core.endpoint_lives`); without them
    the endpoints there are now are summed. A cluster that the scrape does not have counts zero. An
    attempt that ended neither well nor badly is one that its client gave up waiting for: it is an
    error, as a hang is.
    """
    counted = Counters()
    for name in candidate:
        counted = counted.plus(_counters(source, name, sums))
    return Scrape(
        time=source.at,
        candidate=counted,
        stable=tuple(_counters(source, name, sums) for name in stable),
        born=born,
        ejections=sum(int(source.clusters.get(name, _NONE).ejected or 0) for name in candidate),
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
