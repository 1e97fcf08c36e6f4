"""What a candidate is judged by: the metrics and the risk, as plain values.

They are the resource's ``spec.analysis`` with every default filled in, and what the judge must
know of the router beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

from mooring.core.judge.edges import snap

_DEFAULT_FLOOR = 0.02
#: Without a ratio of its own, Pass is for a candidate at most this much slower than tolerated.
_LATENCY_PASS: Final = 1.5


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Errors per attempt: against stable (``max_ratio``), against an objective (``max``), or both.

    Pass says that the candidate is not worse than the larger of ``pass_ratio`` times stable
    (default twice ``max_ratio``) and ``pass_floor`` (default ``max``, else 0.02).
    """

    max_ratio: float | None = None
    max: float | None = None
    pass_ratio: float | None = None
    pass_floor: float | None = None

    @property
    def objective(self) -> float | None:
        return self.max

    @property
    def passing_ratio(self) -> float | None:
        if self.max_ratio is None:
            return None
        return self.pass_ratio if self.pass_ratio is not None else 2 * self.max_ratio

    @property
    def floor(self) -> float | None:
        if self.pass_floor is not None:
            return self.pass_floor
        return self.max if self.max is not None else _DEFAULT_FLOOR


@dataclass(frozen=True, slots=True)
class Latency:
    """A quantile of the latency in seconds: at most ``max``, at most ``max_ratio`` times stable's.

    Pass says that the candidate is slower than stable by less than ``pass_ratio`` (default 1.5
    times ``max_ratio``), or that less than twice the tolerated share of requests exceeds ``max``.
    """

    quantile: float = 0.95
    max: float | None = None
    max_ratio: float | None = None
    pass_ratio: float | None = None

    @property
    def objective(self) -> float | None:
        """The share of requests that may be slower than ``max``."""
        return None if self.max is None else 1 - self.quantile

    @property
    def passing_ratio(self) -> float | None:
        if self.max_ratio is None:
            return None
        return self.pass_ratio if self.pass_ratio is not None else _LATENCY_PASS * self.max_ratio

    @property
    def floor(self) -> float | None:
        return None if self.max is None else min(2 * (1 - self.quantile), (2 - self.quantile) / 2)


@dataclass(frozen=True, slots=True)
class PredictionShift:
    """Predictions of the candidate against stable's: judged by the drift tests, joined here."""

    max_psi: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value that somebody else computes, between ``min`` and ``max``. No guarantee goes with it.

    It fails when it lies outside ``consecutive`` times in a row, and passes when it lies inside as
    often.
    """

    min: float | None = None
    max: float | None = None
    consecutive: int = 3


Rule = ErrorRate | Latency | PredictionShift | Threshold


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing to judge by, under the name that the resource gives it."""

    name: str
    rule: Rule

    @property
    def guaranteed(self) -> bool:
        """Whether its Fail is within alpha."""
        return not isinstance(self.rule, Threshold)

    @property
    def counted(self) -> bool:
        """Whether it is judged here on the router's counts."""
        return isinstance(self.rule, ErrorRate | Latency)


@dataclass(frozen=True, slots=True)
class Analysis:
    """All of them, and the chance ``alpha`` of ever failing a good candidate.

    ``edges``: upper ends of the router's latency buckets in seconds, rising. ``tick``: seconds
    between two looks. ``warm_up``: seconds after a new endpoint that latency leaves out.
    ``unfinished_after``: seconds after which a request without an answer is an error: the
    smallest latency objective, or else the request timeout.
    """

    metrics: tuple[Metric, ...]
    alpha: float = 0.05
    edges: tuple[float, ...] = ()
    tick: float = 5.0
    warm_up: float = 30.0
    unfinished_after: float | None = None

    @property
    def counted(self) -> tuple[Metric, ...]:
        """The metrics that are judged here on the router's counts."""
        return _counted(self.metrics)

    @property
    def grid(self) -> tuple[float, ...]:
        """The edges where a metric needs them, else none: latencies are then left out."""
        return self.edges if any(isinstance(m.rule, Latency) for m in self.counted) else ()

    def share_of(self, metric: Metric) -> float:
        """The part of alpha that a metric may spend: even parts for all with a guarantee."""
        guaranteed = sum(other.guaranteed for other in self.metrics)
        return self.alpha / max(guaranteed, 1) if metric.guaranteed else 0.0

    def digest(self) -> str:
        """Changes when evidence gathered under other settings no longer means the same."""
        kinds = [type(metric.rule).__name__ for metric in self.metrics]
        text = json.dumps([asdict(self), kinds], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=4096)
def _counted(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    return tuple(metric for metric in metrics if metric.counted)


def _number(value: float | None, low: float, high: float) -> bool:
    return value is None or (math.isfinite(value) and low < value < high)


def problems(analysis: Analysis, *, relative_in_bake: bool = True) -> tuple[str, ...]:
    """What is wrong with the settings, as sentences that say what to do; empty when nothing is.

    ``relative_in_bake``: in the bake phase the previous revision keeps some traffic. Without it
    nothing can be compared there, so an absolute objective is required.
    """
    found = []
    if not 0 < analysis.alpha < 0.5:
        found.append("alpha must lie between 0 and 0.5: it is the chance to fail a good candidate")
    names = [metric.name for metric in analysis.metrics]
    if len(set(names)) < len(names):
        found.append("two metrics have the same name: give each its own")
    edges = analysis.edges
    if any(not _number(edge, 0, math.inf) for edge in edges) or list(edges) != sorted(set(edges)):
        found.append("the router's latency buckets must be positive and rise")
    for metric in analysis.metrics:
        found += [f"metric {metric.name}: {text}" for text in _rule_problems(metric.rule, edges)]
    objective = any(
        isinstance(m.rule, ErrorRate | Latency) and m.rule.max for m in analysis.counted
    )
    if analysis.counted and not relative_in_bake and not objective:
        found.append(
            "bake needs previousWeight or an absolute objective (max): with all traffic on the "
            "candidate there is nothing to compare it with"
        )
    return tuple(found)


def _rule_problems(rule: Rule, edges: tuple[float, ...]) -> list[str]:
    match rule:
        case ErrorRate():
            return _ratio_problems(rule) + _error_rate_problems(rule)
        case Latency():
            return _ratio_problems(rule) + _latency_problems(rule, edges)
        case PredictionShift():
            good = _number(rule.max_psi, 0, math.inf)
            return [] if good else ["maxPSI must be positive"]
        case Threshold():
            return _threshold_problems(rule)


def _ratio_problems(rule: ErrorRate | Latency) -> list[str]:
    if rule.max is None and rule.max_ratio is None:
        return ["give max, maxRatio or both"]
    if not _number(rule.max_ratio, 0, 1e6):
        return ["maxRatio must be positive"]
    passing = rule.passing_ratio
    if rule.max_ratio is not None and not (passing is not None and passing > rule.max_ratio):
        return ["passRatio must exceed maxRatio, or a good candidate could never pass"]
    return []


def _error_rate_problems(rule: ErrorRate) -> list[str]:
    found = []
    if not _number(rule.max, 0, 1):
        found.append("max must lie between 0 and 1: it is a share of the requests")
    if not _number(rule.pass_floor, 0, 1):
        found.append("passFloor must lie between 0 and 1: it is a share of the requests")
    return found


def _latency_problems(rule: Latency, edges: tuple[float, ...]) -> list[str]:
    found = []
    if not (math.isfinite(rule.quantile) and 0 < rule.quantile < 1):
        found.append("quantile must lie between 0 and 1, such as 0.95")
    if not _number(rule.max, 0, math.inf):
        found.append("max must be a positive time")
    elif not edges:
        found.append("nobody measures latency here: it takes the router's histogram")
    elif rule.max is not None and snap(edges, rule.max) is None:
        found.append(f"max exceeds the router's largest bucket of {edges[-1]:g} s: lower it")
    return found


def _threshold_problems(rule: Threshold) -> list[str]:
    found = []
    if rule.min is None and rule.max is None:
        found.append("give min, max or both")
    if not _number(rule.min, -math.inf, math.inf) or not _number(rule.max, -math.inf, math.inf):
        found.append("min and max must be finite numbers")
    elif rule.min is not None and rule.max is not None and rule.min > rule.max:
        found.append("min exceeds max, so no value can be right")
    if rule.consecutive < 1:
        found.append("consecutive must be at least 1")
    return found
