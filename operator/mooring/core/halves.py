"""What stable's two halves counted in the hours before a rollout, asked of Prometheus as sums.

Of every minute and router pod with m errors in both halves, a of them in the one and b in the
other, :mod:`mooring.core.judge.dispersion` needs no more than the sums of m, m² and (a−b)². They
are taken where the counters are: one query answers for many rollouts, with a few numbers for each,
however many pods and minutes there were. (a−b)² = 2(a²+b²) − m², so each half is looked at by
itself. The halves of all revisions count that were stable in that time: bursts come from clients
and connections, and hardly from a model.

Differences of raw counters are taken per endpoint and minute. Where one began anew in a minute that
minute counts nothing, in both halves alike, since both have the same endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mooring.core.answers import Keyed
from mooring.core.judge.edges import snap
from mooring.core.judge.settings import Analysis, Latency
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.router_counters import KEY, ROUTER_POD, ScrapeLabels, edge_pattern, quoted_names

#: How long stable is looked back at, and in windows of what length (seconds).
SPAN: Final = 12 * 3600
WINDOW: Final = 60
#: Rollouts that one query reads: what a query may look at is bounded in Prometheus.
SHARD: Final = 25
#: The channel of errors; the others are edges of latency buckets in milliseconds.
ERRORS: Final = "errors"
#: At so many edges requests are slow or fast, where a metric has no edge of its own.
_EVERY: Final = 6

_ERRORS_COUNTER: Final = "envoy_cluster_endpoint_rq_error"
_BUCKETS: Final = "envoy_cluster_canary_upstream_rq_time_bucket"
_HALVES: Final = "[a-z0-9]+-[ab](_.+)?"
_WHOLE: Final = "mooring_whole"
_KIND: Final = "mooring_kind"


@dataclass(frozen=True, slots=True)
class Halved:
    """One ModelDeployment whose stable traffic was halved. ``edges``: in milliseconds."""

    namespace: str
    deployment: str
    edges: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.deployment


@dataclass(frozen=True, slots=True)
class Sums:
    """Over all windows with m > 0: how many, Σm, Σm², and Σ(a²+b²)."""

    windows: float = 0.0
    both: float = 0.0
    both_squared: float = 0.0
    halves_squared: float = 0.0

    def plus(self, kind: str, value: float) -> Sums:
        parts = {
            "n": Sums(windows=value),
            "m": Sums(both=value),
            "mm": Sums(both_squared=value),
            "hh": Sums(halves_squared=value),
        }
        more = parts.get(kind, Sums())
        return Sums(
            self.windows + more.windows,
            self.both + more.both,
            self.both_squared + more.both_squared,
            self.halves_squared + more.halves_squared,
        )


@dataclass(frozen=True, slots=True)
class History:
    """Sums by channel: ERRORS, or requests slower than an edge (milliseconds, as text)."""

    channels: Mapping[str, Sums] = field(default_factory=dict)


def edges_of(analysis: Analysis) -> tuple[float, ...]:
    """The edges (milliseconds) at which requests of either half are to be compared."""
    found = {edge for metric in analysis.counted for edge in _metric_edges(analysis, metric.rule)}
    return tuple(sorted(found))


def channels_of(analysis: Analysis) -> Mapping[str, tuple[str, ...]]:
    """By counted metric the channels that tell of its over-dispersion: the worst of them counts."""
    return {
        metric.name: tuple(f"{edge:g}" for edge in _metric_edges(analysis, metric.rule))
        if isinstance(metric.rule, Latency)
        else (ERRORS,)
        for metric in analysis.counted
    }


def _metric_edges(analysis: Analysis, rule: object) -> tuple[float, ...]:
    if not isinstance(rule, Latency):
        return ()
    found = set(map(float, LATENCY_EDGES_MS[_EVERY::_EVERY])) if rule.max_ratio else set()
    edge = None if rule.max is None else snap(analysis.edges, rule.max)
    if edge is not None:
        found.add(round(1000 * analysis.edges[edge], 6))
    return tuple(sorted(found))


def shards(halved: Iterable[Halved]) -> tuple[tuple[Halved, ...], ...]:
    """In groups that one query may read, always the same for the same ones."""
    ordered = sorted(halved, key=lambda one: one.key)
    return tuple(tuple(ordered[at : at + SHARD]) for at in range(0, len(ordered), SHARD))


def query(
    halved: Sequence[Halved],
    labels: ScrapeLabels | None = None,
    *,
    span: int = SPAN,
    window: int = WINDOW,
) -> str:
    """The PromQL whose answer is the sums of all ``halved``. ``span``, ``window``: in seconds."""
    names = labels or ScrapeLabels()
    counted = _errors(halved, names, window)
    parts = _sums(counted, names, (), span, window)
    edges = {edge for one in halved for edge in one.edges}
    if edges:
        timed = [one for one in halved if one.edges]
        parts += _sums(_slower(timed, edges, names, window), names, ("le",), span, window)
    return " or ".join(parts)


def _where(halved: Sequence[Halved], names: ScrapeLabels) -> str:
    pods = "|".join(f"{quoted_names([one.deployment])}-router-.+" for one in halved)
    spaces = quoted_names(sorted({one.namespace for one in halved}))
    return f'{names.namespace}=~"{spaces}",{names.pod}=~"{pods}",envoy_cluster_name=~"{_HALVES}"'


def _increase(series: str, by: str, window: int) -> str:
    """What a raw counter grew by in each window; two servers that scrape it count once."""
    now, before = (f"max by ({by}) ({series}{then})" for then in ("", f" offset {window}s"))
    return f"clamp_min({now} - {before}, 0)"


def _errors(halved: Sequence[Halved], names: ScrapeLabels, window: int) -> str:
    """Errors per window and half."""
    place = f"{names.namespace},{names.pod},envoy_cluster_name"
    series = f"{_ERRORS_COUNTER}{{{_where(halved, names)}}}"
    grown = _increase(series, f"{place},envoy_endpoint_address", window)
    return f"sum by ({place}) ({grown})"


def _slower(halved: Sequence[Halved], edges: set[float], names: ScrapeLabels, window: int) -> str:
    """Answers per window, half and edge that were slower than the edge."""
    place = f"{names.namespace},{names.pod},envoy_cluster_name"
    where = _where(halved, names)
    patterns = "|".join(map(edge_pattern, sorted(edges)))
    every = _increase(f'{_BUCKETS}{{le="+Inf",{where}}}', place, window)
    within = _increase(f'{_BUCKETS}{{le=~"{patterns}",{where}}}', f"{place},le", window)
    return f"clamp_min({every} - on ({place}) group_right () {within}, 0)"


def _sums(
    counted: str, names: ScrapeLabels, more: tuple[str, ...], span: int, window: int
) -> list[str]:
    """Σm, Σm², Σ(a²+b²) and the windows with m > 0, per router pod and label of ``more``."""
    half = (
        f'label_replace({counted},"{_WHOLE}","$1$2","envoy_cluster_name","([a-z0-9]+)-[ab](_.+)?")'
    )
    whole = ",".join((names.namespace, names.pod, *more, _WHOLE))
    both = f"sum by ({whole}) ({half})"
    kinds = {
        "n": f"({both} > bool 0)",
        "m": f"({both})",
        "mm": f"({both} ^ 2)",
        "hh": f"(sum by ({whole}) (({half}) ^ 2))",
    }
    kept = ",".join((names.namespace, names.pod, *more))
    listed = ",".join(f'"{name}"' for name in (names.namespace, names.pod, _KIND, *more))
    found = []
    for kind, value in kinds.items():
        total = f"sum by ({kept}) (sum_over_time({value}[{span}s:{window}s]))"
        named = f'label_replace({total},"{_KIND}","{kind}","","")'
        found.append(f'max by ({KEY}) (label_join({named},"{KEY}","|",{listed}))')
    return found


def read(answer: Keyed, halved: Sequence[Halved]) -> Mapping[tuple[str, str], History]:
    """The sums of an answer to :func:`query`; what is of nobody or no number is passed over."""
    owners = {one.key for one in halved}
    found: dict[tuple[str, str], dict[str, Sums]] = {key: {} for key in owners}
    for key, value in answer.values.items():
        namespace, pod, kind, *edge = key.split("|")
        router = ROUTER_POD.fullmatch(pod)
        owner = (namespace, router[1]) if router else None
        if owner not in found or not 0 <= value < float("inf"):
            continue
        channel = f"{float(edge[0]):g}" if edge else ERRORS
        channels = found[owner]
        channels[channel] = channels.get(channel, Sums()).plus(kind, value)
    return {key: History(channels) for key, channels in found.items()}
