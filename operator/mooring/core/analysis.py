"""What a candidate is judged by: from ``spec.analysis`` to the judge's settings and to queries.

What nobody measures, or can be measured, is found here, before anything is asked: it is a
:class:`Gap`, and holds the rollout until somebody mends it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from mooring.api import ModelDeploymentSpec, parse_duration
from mooring.api.analysis_spec import AnalysisMetric
from mooring.core.allocation import ENVOY
from mooring.core.judge import (
    Analysis,
    ErrorRate,
    Latency,
    Metric,
    PredictionShift,
    Threshold,
    problems,
)
from mooring.core.observed import RenderSettings
from mooring.core.promql import BadQuery, Bound, prepare
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.router_counters import ScrapeLabels
from mooring.core.signals import Group, Signals, check

#: Free queries look back so many ticks, and at least this long.
_WINDOW_TICKS = 6
_WINDOW = timedelta(minutes=1)
_EDGES = tuple(edge / 1000 for edge in LATENCY_EDGES_MS)


@dataclass(frozen=True, slots=True)
class Query:
    """A free query, safe to be sent. ``optional``: where it gives nothing, that holds nobody up."""

    metric: str
    text: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Why something cannot be judged: a condition's reason, and a sentence that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Standard:
    """What candidates are held to: the judge's settings, free queries, and what cannot be judged.

    With a gap nothing passes, though what can be judged still fails a candidate. ``signals``: the
    counts are those of the servers themselves, since no router counts.
    """

    analysis: Analysis
    queries: tuple[Query, ...] = ()
    gaps: tuple[Gap, ...] = ()
    signals: bool = False


def standard(
    spec: ModelDeploymentSpec,
    settings: RenderSettings,
    *,
    namespace: str,
    name: str,
    revision: str,
    signals: Signals | None = None,
) -> Standard | None:
    """What ``revision`` is held to; None where the spec asks for no analysis.

    ``signals``: what its server counts by itself; None where nobody can be asked.
    """
    if spec.analysis is None:
        return None
    interval = settings.analysis_interval.total_seconds()
    bound = Bound(
        namespace=namespace,
        deployment=name,
        revision=revision,
        window=max(_WINDOW, _WINDOW_TICKS * settings.analysis_interval),
        namespace_label=settings.scrape_namespace_label,
        pod_label=settings.scrape_pod_label,
    )
    labels = ScrapeLabels(settings.scrape_namespace_label, settings.scrape_pod_label)
    metrics: list[Metric] = []
    queries: list[Query] = []
    gaps: list[Gap] = []
    if not settings.prometheus:
        gaps.append(
            Gap(
                "PrometheusNotConfigured",
                "spec.analysis asks for evidence, and the operator has no Prometheus to read it "
                "from: set prometheus.url in its configuration (chart: config.prometheus.url)",
            )
        )
    for wanted in spec.analysis.metrics:
        gap = _unmeasured(wanted, spec, signals)
        if gap is not None:
            gaps.append(gap)
            continue
        if wanted.prometheus is not None:
            try:
                text = prepare(wanted.prometheus.query, bound).text
            except BadQuery as error:
                gaps.append(Gap("InvalidQuery", f"metric {wanted.name}: {error}"))
                continue
            queries.append(Query(wanted.name, text, wanted.prometheus.on_no_data == "Ignore"))
        metrics.append(_metric(wanted))
    slowest = [m.rule.max for m in metrics if isinstance(m.rule, Latency) and m.rule.max]
    routed = spec.traffic.router == ENVOY
    limit = min(slowest, default=parse_duration(spec.traffic.timeout).total_seconds())
    analysis = Analysis(
        metrics=tuple(metrics),
        alpha=spec.analysis.alpha,
        edges=_EDGES if routed else tuple(sorted(set(slowest))),
        tick=interval,
        unfinished_after=limit if routed else None,
    )
    if not routed and signals is not None and analysis.counted:
        try:
            check(Group(namespace, f"{name}-{revision}", signals), labels)
        except BadQuery as error:
            gaps.append(Gap("InvalidQuery", f"spec.signals of the runtime: {error}"))
    bake = spec.rollout.bake
    wrong = problems(analysis, relative_in_bake=bake is None or bool(bake.previous_weight))
    gaps += [Gap("InvalidAnalysis", f"spec.analysis: {text}") for text in wrong]
    return Standard(analysis, tuple(queries), tuple(gaps), signals=not routed)


def _unsignalled(wanted: AnalysisMetric, spec: ModelDeploymentSpec, has: Signals) -> Gap | None:
    """What the server does not tell, or tells in a way that does not do, where no router counts."""
    rule = wanted.error_rate or wanted.latency
    lacking = ""
    if wanted.error_rate is not None and not (has.requests and has.errors):
        lacking = "the runtime's spec.signals has no requests and errors"
    elif wanted.latency is not None and not has.buckets:
        lacking = "the runtime's spec.signals has no latency.buckets"
    elif rule is not None and rule.max_ratio is not None:
        lacking = "maxRatio compares what one router counted at one moment (max needs no router)"
    if not lacking:
        return None
    return Gap(
        "NotMeasured",
        f"metric {wanted.name}: nobody measures it with traffic.router {spec.traffic.router}: "
        f"{lacking}; use router {ENVOY}, or a prometheus metric that reads what the server exports",
    )


def _metric(wanted: AnalysisMetric) -> Metric:
    """One metric with the defaults filled in."""
    if wanted.error_rate is not None:
        rate = wanted.error_rate
        return Metric(
            wanted.name, ErrorRate(rate.max_ratio, rate.max, rate.pass_ratio, rate.pass_floor)
        )
    if wanted.latency is not None:
        latency = wanted.latency
        most = parse_duration(latency.max).total_seconds() if latency.max else None
        rule = Latency(max=most, max_ratio=latency.max_ratio, pass_ratio=latency.pass_ratio)
        if latency.quantile is not None:
            rule = replace(rule, quantile=latency.quantile)
        return Metric(wanted.name, rule)
    if wanted.prediction_shift is not None:
        return Metric(wanted.name, PredictionShift(wanted.prediction_shift.max_psi))
    if wanted.prometheus is None:
        raise ValueError(f"metric {wanted.name} is of no kind")
    free = wanted.prometheus
    limits = Threshold(free.min, free.max)
    if free.consecutive is not None:
        limits = replace(limits, consecutive=free.consecutive)
    return Metric(wanted.name, limits)


def _unmeasured(
    wanted: AnalysisMetric, spec: ModelDeploymentSpec, signals: Signals | None
) -> Gap | None:
    """What nobody measures, and who could."""
    rule = wanted.error_rate or wanted.latency
    if rule is not None and spec.traffic.router != ENVOY:
        return _unsignalled(wanted, spec, signals or Signals())
    observed = spec.monitoring is not None and spec.traffic.router == ENVOY
    if wanted.prediction_shift is not None and not observed:
        return Gap(
            "NotMeasured",
            f"metric {wanted.name}: nobody counts the predictions of both revisions: set "
            f"spec.monitoring and use router {ENVOY}, or a prometheus metric that reads what you "
            "measure of them",
        )
    return None
