"""What the routers counted: the query that asks Prometheus for it, and the answer as numbers.

One query reads everything about many rollouts at once, from one moment of Prometheus' storage: the
counters of each router pod, its latency buckets, and when it was scraped. Prometheus shows a scrape
to a query whole or not at all, so what is read of one router pod is one scrape, both sides of the
split in it. (Stores that spread a scrape over several machines may show half of one for a moment;
the counts are then right one tick later.)

The raw series would do as well, but their labels are three quarters of the answer. So each series
is reduced to one label, a key ``namespace|pod|cluster|…``, and ``max`` over what remains: two
Prometheus servers that scrape the same pod give the newer of two values, not their sum. The time of
the scrape cannot be seen in an instant vector, so ``timestamp()`` asks for it beside the counters,
under the key ``namespace|pod``.

Envoy counts attempts per endpoint (``envoy_cluster_endpoint_rq_*``, seen at 1.40.0): total,
success, error (5xx, failed gRPC, timeouts, resets; 4xx is a success) and active.
total - success - error - active is what clients gave up.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mooring.core.answers import Keyed, NoAnswer

#: The one label of the series that answer the query.
KEY: Final = "mooring_key"
#: A Deployment's name, the hash of its template, and five letters.
_MODEL_POD: Final = re.compile(r"(.+)-[a-z0-9]{1,10}-[a-z0-9]{5}")
#: The same of a router. When the three exceed 63 characters, Kubernetes cuts the hash and leaves
#: out the last hyphen.
ROUTER_POD: Final = re.compile(r"(.+)-router-[a-z0-9]{1,10}-?[a-z0-9]{5}")
_NAME: Final = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENDPOINT: Final = "envoy_cluster_endpoint_rq_"
_EJECTED: Final = "envoy_cluster_outlier_detection_ejections_active"
_COUNTERS: Final = f"{_ENDPOINT}(total|success|error|active)|{_EJECTED}"
_PLACES: Final = {
    f"{_ENDPOINT}{kind}": place
    for place, kind in enumerate(("total", "success", "error", "active"))
}
_ALWAYS_THERE: Final = "envoy_cluster_membership_total"
_UP: Final = "up"
_DOWN: Final = f"|{_UP}"
_UPTIME: Final = "envoy_server_uptime"
_BUCKETS: Final = "envoy_cluster_canary_upstream_rq_time_bucket"
#: A series of an answer takes about 120 bytes, so this is about 2 MB.
SHARD_SERIES: Final = 15_000


@dataclass(frozen=True, slots=True)
class ScrapeLabels:
    """How the scrape configuration calls the namespace and the pod of a target."""

    namespace: str = "namespace"
    pod: str = "pod"

    def __post_init__(self) -> None:
        for name in (self.namespace, self.pod):
            if not _LABEL.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a label")


@dataclass(frozen=True, slots=True)
class Target:
    """One rollout whose routers are read.

    ``clusters``: Envoy's, as the router renders them. ``pods``: names of its router pods; empty
    means that they are known by their names alone. ``edges``: upper ends of the latency buckets to
    read, in whole or decimal milliseconds, rising; empty reads none. ``endpoints``: about how many
    there are per cluster, to keep answers small.
    """

    namespace: str
    deployment: str
    clusters: tuple[str, ...]
    pods: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    endpoints: int = 3
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            self.namespace,
            self.deployment,
            *self.clusters,
            *self.pods,
            *self.models,
        ):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name that a router uses")

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.deployment

    @property
    def series(self) -> int:
        """About how many series its two routers have."""
        return 2 * len(self.clusters) * (4 * self.endpoints + 2 + len(self.edges))


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts since the endpoint became one, cumulative, but for ``active``: those under way."""

    total: float = 0.0
    success: float = 0.0
    error: float = 0.0
    active: float = 0.0

    def plus(self, other: Attempts) -> Attempts:
        return Attempts(
            self.total + other.total,
            self.success + other.success,
            self.error + other.error,
            self.active + other.active,
        )


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """One cluster of one router pod.

    ``latency``: finished attempts per bucket, not summed up, one per edge of the target and one for
    what is slower; None where it is not read, or the router has other buckets. ``ejected``:
    endpoints that outlier detection keeps out; None where the router does not say.
    """

    endpoints: Mapping[str, Attempts] = field(default_factory=dict)
    latency: tuple[float, ...] | None = None
    ejected: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One scrape of one router pod. Times are seconds on Prometheus' clock.

    ``at``: of the scrape; ``evaluated_at``: of the query; ``born``: when the router began, to the
    second; None where it does not say.
    """

    pod: str
    at: float
    evaluated_at: float
    clusters: Mapping[str, ClusterCounts]
    born: float | None = None

    @property
    def age(self) -> float:
        """How old the scrape was when it was read, in seconds."""
        return self.evaluated_at - self.at


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of many rollouts, by (namespace, deployment).

    A rollout without sources is left out: no router pod of it is scraped. ``unscraped``: of the
    model pods that Prometheus should scrape, those that do not answer; they count against a
    candidate only where the pods of stable do answer. ``failed``: rollouts whose question was not
    answered, with the reason. ``warnings``: Prometheus' own.
    """

    sources: Mapping[tuple[str, str], tuple[Source, ...]] = field(default_factory=dict)
    unscraped: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    failed: Mapping[tuple[str, str], NoAnswer] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def shards(targets: Iterable[Target], most: int = SHARD_SERIES) -> tuple[tuple[Target, ...], ...]:
    """The targets in groups of about ``most`` series, always the same for the same targets."""
    found: list[tuple[Target, ...]] = []
    group: list[Target] = []
    size = 0
    for target in sorted(targets, key=lambda one: one.key):
        if group and size + target.series > most:
            found.append(tuple(group))
            group, size = [], 0
        group.append(target)
        size += target.series
    return (*found, tuple(group)) if group else tuple(found)


def query(targets: Sequence[Target], labels: ScrapeLabels | None = None) -> str:
    """The PromQL that reads all ``targets``."""
    names = labels or ScrapeLabels()
    parts = [
        _keyed(
            f'{{__name__=~"{_COUNTERS}",{_where(targets, names)}}}',
            names, "envoy_cluster_name", "envoy_endpoint_address", "__name__",
        )
    ]  # fmt: skip
    timed = [target for target in targets if target.edges]
    if timed:
        edges = "|".join(map(edge_pattern, sorted({edge for one in timed for edge in one.edges})))
        buckets = f'{_BUCKETS}{{le=~"{edges}|[+]Inf",{_where(timed, names)}}}'
        parts.append(_keyed(buckets, names, "envoy_cluster_name", "le"))
    scraped = f"timestamp({_ALWAYS_THERE}{{{_where(targets, names)}}})"
    parts.append(_keyed(scraped, names))
    pods = "|".join(map(_pods, sorted(targets, key=lambda one: one.key)))
    namespaces = _dots("|".join(sorted({target.namespace for target in targets})))
    uptime = f'{_UPTIME}{{{names.namespace}=~"{namespaces}",{names.pod}=~"{pods}"}}'
    parts.append(_keyed(uptime, names, "__name__"))
    models = "|".join(f"{_dots(name)}-.+" for target in targets for name in target.models)
    if models:
        up = f'{_UP}{{{names.namespace}=~"{namespaces}",{names.pod}=~"{models}"}}'
        parts.append(_keyed(up, names, "__name__"))
    return " or ".join(parts)


def _keyed(vector: str, names: ScrapeLabels, *more: str) -> str:
    labels = ",".join(f'"{name}"' for name in (names.namespace, names.pod, *more))
    return f'max by ({KEY}) (label_join({vector},"{KEY}","|",{labels}))'


def _where(targets: Sequence[Target], names: ScrapeLabels) -> str:
    """Alternatives of whole names, which Prometheus looks up as such. Names need no escaping."""
    namespaces = "|".join(sorted({target.namespace for target in targets}))
    clusters = "|".join(sorted({name for target in targets for name in target.clusters}))
    return f'{names.namespace}=~"{_dots(namespaces)}",envoy_cluster_name=~"{_dots(clusters)}"'


def _pods(target: Target) -> str:
    if target.pods:
        return _dots("|".join(target.pods))
    return f"{_dots(target.deployment)}-router-.+"


def _dots(text: str) -> str:
    return text.replace(".", "[.]")


def quoted_names(names: Iterable[str]) -> str:
    """Alternatives of whole names for a matcher; those of Kubernetes have no other special sign."""
    return _dots("|".join(names))


def edge_pattern(edge: float) -> str:
    """Prometheus 3 writes ``10.0`` for an exporter's ``10``; others leave it."""
    whole = f"{edge:.10g}"
    return _dots(whole) if "." in whole else f"{whole}([.]0)?"


def read(answer: Keyed, targets: Sequence[Target]) -> Reading:
    """The numbers of an answer to :func:`query` for the same targets.

    Series of other pods and clusters are passed over: the query's conditions are an outer product.
    A value that is not a finite number leaves out its whole router pod for this tick.
    """
    owners = _Owners.of(targets)
    heads: dict[str, float] = {}
    drafts: dict[str, _Draft] = {}
    odd: set[str] = set()
    down: list[tuple[str, str]] = []
    for key, value in answer.values.items():
        depth = key.count("|")
        if not 0 <= value < math.inf:
            odd.add("|".join(key.split("|", 2)[:2]))
        elif depth == 4:
            cluster, endpoint, name = key.rsplit("|", 2)
            draft = drafts.get(cluster)
            if draft is None:
                draft = drafts[cluster] = _Draft()
            place = _PLACES.get(name)
            if place is not None:
                counts = draft.endpoints.get(endpoint)
                if counts is None:
                    counts = draft.endpoints[endpoint] = [0.0] * len(_PLACES)
                counts[place] = value
            elif name == _EJECTED:
                draft.ejected = value
        elif depth == 3:
            cluster, _, edge = key.rpartition("|")
            drafts.setdefault(cluster, _Draft()).buckets[edge] = value
        elif depth == 2 and key.endswith(_DOWN) and value == 0:
            namespace, pod, _ = key.split("|")
            down.append((namespace, pod))
        elif depth in {1, 2}:
            heads[key] = value
    found = _sources(heads, drafts, odd, owners, answer.evaluated_at)
    return Reading(
        sources={key: tuple(one) for key, one in found.items()},
        unscraped=_unscraped(targets, down),
        warnings=answer.warnings,
    )


def _unscraped(
    targets: Iterable[Target], down: Iterable[tuple[str, str]]
) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Pods that do not answer, by the rollout whose Deployments they are of."""
    owners = {(t.namespace, name): t.key for t in targets for name in t.models}
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for namespace, pod in sorted(down):
        match = _MODEL_POD.fullmatch(pod)
        owner = owners.get((namespace, match[1])) if match else None
        if owner is not None:
            found[owner].append(pod)
    return {key: tuple(pods) for key, pods in found.items()}


@dataclass(slots=True)
class _Draft:
    """A cluster while its series come in; counts in the order of Attempts' fields."""

    endpoints: dict[str, list[float]] = field(default_factory=dict)
    buckets: dict[str, float] = field(default_factory=dict)
    ejected: float | None = None


def _sources(
    heads: Mapping[str, float],
    drafts: Mapping[str, _Draft],
    odd: set[str],
    owners: _Owners,
    evaluated_at: float | None,
) -> Mapping[tuple[str, str], list[Source]]:
    """Sources by rollout. ``heads``: times of scrapes and ages, by pod and by pod and name."""
    clusters: dict[str, dict[str, ClusterCounts]] = defaultdict(dict)
    for key, draft in drafts.items():
        place, _, name = key.rpartition("|")
        if place not in heads or place in odd:
            continue
        namespace, _, pod = place.partition("|")
        target = owners.owner(namespace, pod)
        if target is not None and name in target.clusters:
            clusters[place][name] = ClusterCounts(
                {one: Attempts(*counts) for one, counts in draft.endpoints.items()},
                _latency(draft.buckets, target.edges, _succeeded(draft)),
                draft.ejected,
            )
    found: dict[tuple[str, str], list[Source]] = defaultdict(list)
    for place in sorted(clusters):
        at = heads[place]
        namespace, _, pod = place.partition("|")
        target = owners.owner(namespace, pod)
        uptime = heads.get(f"{place}|{_UPTIME}")
        if target is not None:
            born = None if uptime is None else at - uptime
            when = at if evaluated_at is None else evaluated_at
            found[target.key].append(Source(pod, at, when, clusters[place], born))
    return found


def _succeeded(draft: _Draft) -> float:
    place = _PLACES[f"{_ENDPOINT}success"]
    return sum(counts[place] for counts in draft.endpoints.values())


def _latency(
    buckets: Mapping[str, float], edges: tuple[float, ...], succeeded: float
) -> tuple[float, ...] | None:
    """Counts per bucket from sums up to each edge; None when an edge is not there.

    Envoy shows a histogram from its first value on. One that is not there though requests
    succeeded is not scraped, or comes with Envoy's next flush, some seconds later.
    """
    if not edges or (succeeded > 0 and not buckets):
        return None
    if not buckets:
        return (0.0,) * (len(edges) + 1)
    by_edge = {float(edge): value for edge, value in buckets.items()}
    sums = [by_edge.get(edge) for edge in (*edges, math.inf)]
    known = [value for value in sums if value is not None]
    if len(known) < len(sums) or known != sorted(known):
        return None
    return tuple(after - before for before, after in zip([0.0, *known], known, strict=False))


@dataclass(frozen=True, slots=True)
class _Owners:
    """Which rollout a router pod belongs to: by the pods that it names, else by the pod's name."""

    by_pod: Mapping[tuple[str, str], Target]
    by_name: Mapping[tuple[str, str], Target]

    @classmethod
    def of(cls, targets: Iterable[Target]) -> _Owners:
        by_pod: dict[tuple[str, str], Target] = {}
        by_name: dict[tuple[str, str], Target] = {}
        for target in targets:
            if not target.pods:
                by_name[target.key] = target
            for pod in target.pods:
                by_pod[target.namespace, pod] = target
        return cls(by_pod, by_name)

    def owner(self, namespace: str, pod: str) -> Target | None:
        named = self.by_pod.get((namespace, pod))
        if named is not None:
            return named
        match = ROUTER_POD.fullmatch(pod)
        return None if match is None else self.by_name.get((namespace, match[1]))
