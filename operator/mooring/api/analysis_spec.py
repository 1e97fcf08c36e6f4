"""What a candidate is judged by: metrics with their limits, and the risk of a wrong rollback.

Numbers are JSON numbers. Nothing here has a schema default but alpha: the rest are list items,
whose defaults Argo CD would show as a difference for ever, so they are filled in when deciding
(`mooring.core.judge.settings`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from mooring.api.schema_types import (
    DNS_LABEL_PATTERN,
    ApiModel,
    ListMap,
    Rule,
    StrictInt,
    matcher,
    parse_duration,
    pattern_rule,
)

MAX_METRICS = 10
MAX_QUERY = 2048
_MAX_RATIO = 1e6

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; whole ones are taken too."""

Alpha = Annotated[
    Number,
    Rule(
        cel="self > 0.0 && self < 0.5",
        message="must lie between 0 and 0.5: it is the chance to fail a good candidate",
        check=lambda value: 0 < value < 0.5,
    ),
]
Share = Annotated[
    Number,
    Rule(
        cel="self > 0.0 && self < 1.0",
        message="must lie between 0 and 1, such as 0.02: it is a share",
        check=lambda value: 0 < value < 1,
    ),
]
Ratio = Annotated[
    Number,
    Rule(
        cel="self > 0.0 && self < 1000000.0",
        message="must be positive, such as 1.5",
        check=lambda value: 0 < value < _MAX_RATIO,
    ),
]
Quantile = Annotated[
    Number,
    Rule(
        cel="self > 0.0 && self < 1.0",
        message="must lie between 0 and 1, such as 0.95",
        check=lambda value: 0 < value < 1,
    ),
]
_TIME_PATTERN = r"^([0-9]{1,7}ms|[0-9]{1,4}(\.[0-9]{1,3})?s)$"
_is_time = matcher(_TIME_PATTERN)
Time = Annotated[
    str,
    Field(max_length=16),
    Rule(
        cel=f"self.matches(r'{_TIME_PATTERN}') && duration(self) > duration('0s')",
        message="must be a positive time such as 300ms or 1.5s",
        check=lambda text: _is_time(text) and parse_duration(text).total_seconds() > 0,
    ),
]
"""A latency: a Go duration of milliseconds or seconds alone."""

_LIMIT_GIVEN = Rule(
    cel="has(self.max) || has(self.maxRatio)",
    message="give max, maxRatio or both",
    check=lambda m: m.max is not None or m.max_ratio is not None,
)
_PASS_RATIO_EXCEEDS = Rule(
    cel="!has(self.passRatio) || has(self.maxRatio) && self.passRatio > self.maxRatio",
    message="passRatio must exceed maxRatio, or a good candidate could never pass",
    check=lambda m: (
        m.pass_ratio is None or (m.max_ratio is not None and m.pass_ratio > m.max_ratio)
    ),
)


class ErrorRateMetric(ApiModel):
    """Failed attempts per attempt, as the router counts them: against stable, against an
    objective, or both.
    """

    max_ratio: Ratio | None = None
    """How many times stable's errors are tolerated. Example: 1.5."""
    max: Share | None = None
    """The share of failed attempts that is tolerated. Example: 0.02."""
    pass_ratio: Number | None = None
    """Pass takes fewer than this many times stable's errors; twice maxRatio when unset."""
    pass_floor: Share | None = None
    """Up to this share, errors do not prevent Pass; max when unset, else 0.02."""

    rules = (_LIMIT_GIVEN, _PASS_RATIO_EXCEEDS)


class LatencyMetric(ApiModel):
    """A quantile of the latency, as the router measures it: against stable, against an objective,
    or both.
    """

    quantile: Quantile | None = None
    """Which quantile; 0.95 when unset."""
    max: Time | None = None
    """The latency that is tolerated, rounded up to a bucket of the router. Example: 300ms."""
    max_ratio: Ratio | None = None
    """How many times stable's latency is tolerated. Example: 1.3."""
    pass_ratio: Number | None = None
    """Pass takes less than this many times stable's latency; 1.5 times maxRatio when unset."""

    rules = (_LIMIT_GIVEN, _PASS_RATIO_EXCEEDS)


class PredictionShiftMetric(ApiModel):
    """What the candidate predicts against what stable predicts in the same time."""

    max_psi: Annotated[
        Number,
        Field(alias="maxPSI"),
        Rule(cel="self > 0.0", message="must be positive, such as 0.2", check=lambda v: v > 0),
    ]
    """The population stability index that is tolerated. Example: 0.2."""


class PrometheusMetric(ApiModel):
    """A value of your own query between limits, without the guarantee of alpha."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]
    """PromQL that gives one number, from its own namespace only. Placeholders: {{ selector }} (the
    candidate's pods, inside braces), {{ revision }}, {{ deployment }}, {{ namespace }} and
    {{ window }}."""
    min: Number | None = None
    """The least value that is right."""
    max: Number | None = None
    """The greatest value that is right."""
    consecutive: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    """So many values in a row decide; 3 when unset."""
    on_no_data: Literal["Hold", "Ignore"] | None = None
    """What the rollout does while the query has no answer: Hold, also when unset, or Ignore it."""

    rules = (
        Rule(
            cel="has(self.min) || has(self.max)",
            message="give min, max or both",
            check=lambda m: m.min is not None or m.max is not None,
        ),
        Rule(
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            message="min exceeds max, so no value can be right: lower min or raise max",
            check=lambda m: m.min is None or m.max is None or m.min <= m.max,
        ),
    )


METRIC_KINDS = {
    "errorRate": "error_rate",
    "latency": "latency",
    "predictionShift": "prediction_shift",
    "prometheus": "prometheus",
}
"""Name in YAML to attribute, of which a metric has exactly one."""


class AnalysisMetric(ApiModel):
    """One thing to judge by, of exactly one kind."""

    name: Annotated[
        str,
        Field(max_length=40),
        pattern_rule(
            DNS_LABEL_PATTERN,
            "must be lower-case letters, digits and '-', such as errors or p95",
        ),
    ]
    """Its name in status and Events. Example: errors."""
    error_rate: ErrorRateMetric | None = None
    """Failed attempts, counted by the router."""
    latency: LatencyMetric | None = None
    """A quantile of the latency, measured by the router."""
    prediction_shift: PredictionShiftMetric | None = None
    """How far its predictions lie from stable's."""
    prometheus: PrometheusMetric | None = None
    """A query of your own, with fixed limits."""

    rules = (
        Rule(
            cel="["
            + ", ".join(f"has(self.{kind})" for kind in METRIC_KINDS)
            + "].filter(given, given).size() == 1",
            message=("set exactly one of errorRate, latency, predictionShift and prometheus"),
            check=lambda m: (
                sum(getattr(m, kind) is not None for kind in METRIC_KINDS.values()) == 1
            ),
        ),
    )

    @property
    def counted(self) -> bool:
        """Whether it is judged on the router's counts, which takes traffic split by weight."""
        return self.error_rate is not None or self.latency is not None

    @property
    def has_objective(self) -> bool:
        """Whether the router's counts are judged without stable, too."""
        return any(m is not None and m.max is not None for m in (self.error_rate, self.latency))


class AnalysisSpec(ApiModel):
    """What a candidate is judged by. A change here starts no rollout, and begins the evidence of a
    running one anew.
    """

    alpha: Alpha = 0.05
    """The chance of ever rolling back a good candidate, between 0 and 0.5. All metrics but those of
    prometheus get even parts of it."""
    metrics: Annotated[
        tuple[AnalysisMetric, ...],
        Field(max_length=MAX_METRICS),
        ListMap(("name",)),
    ]
    """What to judge by. One that fails rolls back; all must pass before the promotion."""

    rules = (
        Rule(
            cel="self.metrics.size() > 0",
            message="metrics is empty: give at least one, or remove analysis",
            check=lambda a: len(a.metrics) > 0,
            field=".metrics",
        ),
    )

    @property
    def counted(self) -> bool:
        """Whether any metric is judged on the router's counts."""
        return any(metric.counted for metric in self.metrics)

    @property
    def has_objective(self) -> bool:
        """Whether any of them can be judged without stable's traffic."""
        return any(metric.has_objective for metric in self.metrics)
