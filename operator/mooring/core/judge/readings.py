"""What the judge is given at one tick, as the adapter of Prometheus fills it in.

All counts are raw cumulative counters, never rates: differences are taken here, where resets,
missing scrapes and changes of weight are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Counters that contradict the last ones are refused so long, then taken as a new beginning (s).
CONTRADICTION: Final = 60.0


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of one cluster of one router pod, since that pod began.

    ``attempts``: attempts started, retries and those never answered among them (Envoy's rq_total).
    ``errors``: attempts that ended badly: error answers of HTTP and gRPC, timeouts, resets.
    ``unfinished``: attempts without an answer at the moment of the scrape; a gauge (rq_active).
    ``latency``: finished attempts per bucket, one entry per edge and one for what lies above the
    last; each bucket by itself, not summed up as Prometheus' ``le`` has it. Empty where nobody
    measures latency. A class of counter that the scrape does not have is 0: Envoy creates a
    counter at its first increment.
    """

    attempts: float = 0.0
    errors: float = 0.0
    unfinished: float = 0.0
    latency: tuple[float, ...] = ()

    def plus(self, other: Counters) -> Counters:
        """Both together, as for the two halves of stable's traffic."""
        longest = max(len(self.latency), len(other.latency))
        ours = self.latency + (0.0,) * (longest - len(self.latency))
        theirs = other.latency + (0.0,) * (longest - len(other.latency))
        return Counters(
            self.attempts + other.attempts,
            self.errors + other.errors,
            self.unfinished + other.unfinished,
            tuple(a + b for a, b in zip(ours, theirs, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Scrape:
    """One successful scrape of one router pod: both sides at one moment.

    ``time``: the timestamp of the samples, seconds on Prometheus' clock. ``stable``: the clusters
    of the revision that the candidate is compared with, one or its two halves. A cluster that the
    scrape does not have is left out: its counters are 0. ``born``: when the router pod began, on
    the same clock; what a pod counted before it was first seen, or since it restarted, is counted
    only when this is known. ``ejections``: candidate pods that outlier detection keeps out now.
    """

    time: float
    candidate: Counters = field(default_factory=Counters)
    stable: tuple[Counters, ...] = ()
    born: float | None = None
    ejections: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """The split in force: percent of the traffic on the candidate, and since when.

    ``since``: when the routers had taken it, in seconds on the clock of the samples; no window
    reaches across it. ``random``: requests are split by chance. With header match and mirroring
    they are not, and nothing is evidence. ``exact``: the split may be checked; with session
    affinity or without a router it may not.
    """

    candidate: float
    since: float
    random: bool = True
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods behind the two sides.

    ``candidate``, ``stable``: ready endpoints. ``*_restarts``: restarts of their containers so far.
    ``unscraped``: candidate pods that should answer a scrape and do not. ``newest``: when the
    youngest ready endpoint of either side became one, on the clock of the samples.
    """

    candidate: int = 1
    stable: int = 1
    candidate_restarts: int = 0
    stable_restarts: int = 0
    unscraped: int = 0
    newest: float | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """All that is known of one rollout at one look.

    ``now``: the operator's clock in seconds. ``scrapes``: by the name of the router pod; a pod
    whose scrape failed is left out, and one with an old sample may be given again.
    ``values``: what free queries gave, by metric; None or a missing entry means no data.
    ``interval``: seconds between two scrapes, 0 where unknown: samples cannot be fresher.
    """

    now: float
    weights: Weights
    scrapes: Mapping[str, Scrape] = field(default_factory=dict)
    pods: Pods = field(default_factory=Pods)
    values: Mapping[str, float | None] = field(default_factory=dict)
    interval: float = 0.0
