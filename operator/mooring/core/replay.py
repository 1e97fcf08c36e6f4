"""What the judge would have done: the same ticks as in production, over what was counted before.

Prometheus keeps what the routers counted. The rest of an examination is derived from it: the
weights, as the share of the attempts that the candidate got (or as a person gives them), and the
pods, as the endpoints that the routers knew. What no router counts is not seen: restarts of pods.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from mooring.core.analysis import Standard
from mooring.core.examination import Evidence, Examination, Phase
from mooring.core.judge import Latency, Pods, Weights
from mooring.core.promql_print import quoted
from mooring.core.render.metadata import child_name
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.router_counters import ScrapeLabels, Source, Target
from mooring.core.tribunal import Case, Measured, Remembered, weigh

#: The share of the attempts is that of the last seconds: long enough to have some.
_SHARE_SECONDS: Final = 60.0
_CLUSTER: Final = re.compile(r"([a-z0-9]+)(-[ab])?(_[a-z0-9-]+)?")


@dataclass(frozen=True, slots=True)
class Span:
    """A weight in percent, in force from a time on (seconds on Prometheus' clock)."""

    since: float
    weight: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What is replayed: two revisions of a ModelDeployment, and what the first is held to.

    ``candidate``, ``stable``: the routers' clusters of ``revision`` and ``against`` with the split
    traffic. ``began``: of the first look. ``weights``: as somebody knows them, rising in time;
    empty means as they were counted.
    """

    namespace: str
    deployment: str
    revision: str
    against: str
    standard: Standard
    candidate: tuple[str, ...]
    stable: tuple[str, ...]
    began: float
    weights: tuple[Span, ...] = ()
    phase: Phase = Phase.ROLLOUT

    @property
    def target(self) -> Target:
        """What to read at each look."""
        timed = any(isinstance(m.rule, Latency) for m in self.standard.analysis.counted)
        return Target(
            namespace=self.namespace,
            deployment=self.deployment,
            clusters=(*self.candidate, *self.stable),
            edges=tuple(map(float, LATENCY_EDGES_MS)) if timed else (),
            models=tuple(child_name(self.deployment, r) for r in (self.revision, self.against)),
        )


@dataclass(frozen=True, slots=True)
class Playing:
    """Where a replay is: what is remembered between two looks.

    ``totals``: attempts by router pod and cluster. ``shares``: per look of late, its time and the
    attempts of both sides since the look before. ``endpoints``: when each was first seen; None for
    those of the first look, which may be old.
    """

    remembered: Remembered | None = None
    totals: Mapping[tuple[str, str], float] = field(default_factory=dict)
    shares: tuple[tuple[float, float, float], ...] = ()
    endpoints: Mapping[str, float | None] = field(default_factory=dict)
    weight: float = 0.0


def look(trial: Trial, playing: Playing, at: float, measured: Measured) -> tuple[Evidence, Playing]:
    """One look at ``at`` (seconds): the evidence that production would have had, and what follows.

    Looks must come in their order. Pure, but for the judge's own arithmetic.
    """
    playing = _counted(trial, playing, at, measured.sources)
    playing = replace(playing, endpoints=_endpoints(trial, playing.endpoints, measured.sources))
    weights = _weights(trial, playing, at)
    examination = Examination(
        attempt=trial.revision,
        asked="",
        phase=trial.phase,
        revision=trial.revision,
        against=trial.against,
        analysis=trial.standard.analysis,
        weights=weights,
        pods=_pods(trial, playing, measured.sources),
        target=trial.target,
        candidate=trial.candidate,
        stable=trial.stable,
        queries=trial.standard.queries,
    )
    now = datetime.fromtimestamp(at, UTC)
    ((evidence, remembered),) = weigh([Case(examination, measured, playing.remembered)], now)
    return evidence, replace(playing, remembered=remembered, weight=weights.candidate)


def _counted(trial: Trial, playing: Playing, at: float, sources: Sequence[Source]) -> Playing:
    """Adds the attempts of both sides since the look before, and forgets those of long ago."""
    totals = dict(playing.totals)
    new = [0.0, 0.0]
    for source in sources:
        for side, names in enumerate((trial.candidate, trial.stable)):
            for name in names:
                cluster = source.clusters.get(name)
                total = sum(one.total for one in cluster.endpoints.values()) if cluster else 0.0
                before = totals.get((source.pod, name))
                # What was counted before the first look is not of it, and a fall is a restart.
                if before is not None:
                    new[side] += total - before if total >= before else total
                totals[source.pod, name] = total
    kept = tuple(one for one in playing.shares if at - one[0] < _SHARE_SECONDS)
    return replace(playing, totals=totals, shares=(*kept, (at, new[0], new[1])))


def _weights(trial: Trial, playing: Playing, at: float) -> Weights:
    """As given, else as counted. Nobody knows exactly, so the split itself is not checked."""
    known = [span for span in trial.weights if span.since <= at]
    if known:
        weight, since = known[-1].weight, known[-1].since
    elif trial.weights:
        weight, since = 0.0, trial.began
    else:
        candidate, stable = (sum(one[side] for one in playing.shares) for side in (1, 2))
        some = candidate + stable > 0
        weight = 100 * candidate / (candidate + stable) if some else playing.weight
        since = trial.began
    return Weights(weight, since, random=weight > 0, exact=False)


def _addresses(sources: Iterable[Source], names: Sequence[str]) -> set[str]:
    """The hosts behind these clusters, each once though it has several ports."""
    return {
        endpoint.rpartition(":")[0]
        for source in sources
        for name in names
        if name in source.clusters
        for endpoint in source.clusters[name].endpoints
    }


def _endpoints(
    trial: Trial, known: Mapping[str, float | None], sources: Sequence[Source]
) -> Mapping[str, float | None]:
    newest = max((source.at for source in sources), default=None)
    seen = _addresses(sources, (*trial.candidate, *trial.stable))
    return {**known, **{one: newest if known else None for one in seen if one not in known}}


def _pods(trial: Trial, playing: Playing, sources: Sequence[Source]) -> Pods:
    candidate = _addresses(sources, trial.candidate)
    stable = _addresses(sources, trial.stable)
    began = [playing.endpoints.get(one) for one in candidate | stable]
    return Pods(
        candidate=len(candidate),
        stable=len(stable),
        newest=max((at for at in began if at is not None), default=None),
    )


def clusters_query(
    namespace: str, deployment: str, seconds: float, labels: ScrapeLabels | None = None
) -> str:
    """PromQL for the names of the clusters that a ModelDeployment's routers had of late."""
    names = labels or ScrapeLabels()
    pods = quoted(f"{re.escape(deployment)}-router-.+".replace("\\-", "-"))
    where = f"{names.namespace}={quoted(namespace)},{names.pod}=~{pods}"
    counter = f"envoy_cluster_membership_total{{{where}}}[{math.ceil(seconds)}s]"
    return f"count by (envoy_cluster_name) (count_over_time({counter}))"


def split_clusters_of(revision: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those with the revision's randomly split traffic: one per port, two where it is halved."""
    return tuple(sorted(name for name in names if _revision(name) == revision))


def revisions_of(names: Iterable[str]) -> tuple[str, ...]:
    """The revisions that these clusters belong to."""
    return tuple(sorted({found for name in names if (found := _revision(name))}))


def _revision(cluster: str) -> str:
    """Empty for clusters of copies, of matched requests, and of others."""
    found = _CLUSTER.fullmatch(cluster)
    return found[1] if found else ""


def spans(weights: Iterable[tuple[float, float]], began: float) -> Iterator[Span]:
    """From (percent, seconds) one after the other to when each began."""
    at = began
    for weight, seconds in weights:
        yield Span(at, weight)
        at += seconds
