"""What is said about a window: per feature and over all, numbers with their sample sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from mooring.api.schema_types import format_time
from mooring.core.drift.course import Kind
from mooring.core.drift.health import Finding

#: Features that status shows; the counts are of all of them.
WORST = 20


class Condition(Enum):
    """How a feature, or all of them, stand."""

    DRIFTED = "Drifted"
    UNHEALTHY = "Unhealthy"
    INSUFFICIENT_DATA = "InsufficientData"
    STEADY = "Steady"


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One feature in one window.

    Attributes:
        feature: its name.
        condition: Drifted while an alarm lasts; Unhealthy when this window's data is broken;
            InsufficientData when it was too small to be tested; else Steady.
        method, statistic: the test, and its own statistic of this window.
        psi: shown whatever the test is; NaN without data.
        n, m: rows of reference and window that were compared.
        needed: rows that a window must have to be tested.
        p, q: of this window alone, q over all features; NaN when not tested.
        score, threshold: S and h; an alarm begins at S > h.
        by: the stream that alarms (shape, tails, anchor), or the one nearest to it.
        tail: the rare cells that p is about, where ``by`` is tails.
        alarm_since: end of the window that alarmed, in seconds.
        change_point: end of the last window with S = 0: where the drift began.
        kind: sudden, gradual, recurring or unknown.
        period: seconds between recurring episodes.
        floor: the smallest shift that alarms, in the feature's own terms.
        reference_short: the reference holds less than 30 times the window.
    """

    feature: str
    condition: Condition
    method: str
    statistic: float
    psi: float
    n: int
    m: int
    needed: int
    p: float
    q: float
    score: float
    threshold: float
    by: str
    tail: str | None = None
    alarm_since: float | None = None
    change_point: float | None = None
    kind: Kind = Kind.UNKNOWN
    period: float | None = None
    floor: str = ""
    reference_short: bool = False

    @property
    def shortage(self) -> str:
        """What there is too little of for a test."""
        if self.m < self.needed or self.n >= self.needed:
            return f"{self.m} rows are too few: {self.needed} are needed"
        return f"the {self.n} rows of the reference are too few: {self.needed} are needed"

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sorts the worst first: alarms, then the evidence gathered, then this window."""
        q = 1.0 if math.isnan(self.q) else self.q
        return (self.condition is not Condition.DRIFTED, -self.score, q)

    def to_json(self) -> dict[str, Any]:
        """As status has it: rounded, without what is unknown."""
        found = {
            "feature": self.feature,
            "condition": self.condition.value,
            "method": self.method,
            "statistic": _rounded(self.statistic),
            "psi": _rounded(self.psi),
            "referenceRows": self.n,
            "windowRows": self.m,
            "rowsNeeded": self.needed,
            "pValue": _rounded(self.p),
            "qValue": _rounded(self.q),
            "score": _rounded(self.score),
            "threshold": _rounded(self.threshold),
            "by": self.by,
            "tail": self.tail,
            "alarmSince": moment(self.alarm_since),
            "changePoint": moment(self.change_point),
            "kind": self.kind.value if self.kind is not Kind.UNKNOWN else None,
            "floor": self.floor,
            "referenceShort": self.reference_short or None,
        }
        return {key: value for key, value in found.items() if value is not None}

    def sentence(self) -> str:
        """What to tell a person about a feature that drifted."""
        kind = "" if self.kind is Kind.UNKNOWN else f"{self.kind.value.lower()}, "
        since = moment(self.change_point)
        what = f"more in {self.tail}" if self.by == "tails" and self.tail else f"PSI {self.psi:.2g}"
        against = ", against the anchor" if self.by == "anchor" else ""
        again = f", every {self.period / 3600:.3g} h" if self.period else ""
        return f"{self.feature} ({kind}{what}{against}{again}, since {since})"


@dataclass(frozen=True, slots=True)
class WindowReport:
    """All features in one window.

    Attributes:
        condition: Drifted while any feature is; Unhealthy when the data is broken and nothing
            drifts; InsufficientData when no feature could be tested; else Steady.
        message: one sentence.
        start, end: of the window, in seconds.
        features: all reports, the worst first.
        findings: data health.
        blocked: why nothing should be retrained now, or None.
        episode: when the present episode began to alarm, in seconds: its key.
        change_point: the earliest change point of the features that drifted: where a training
            window starts.
        unhealthy: spans that a training window leaves out.
    """

    condition: Condition
    message: str
    start: float
    end: float
    features: tuple[DriftReport, ...]
    findings: tuple[Finding, ...] = ()
    blocked: str | None = None
    episode: float | None = None
    change_point: float | None = None
    unhealthy: tuple[tuple[float, float], ...] = ()

    @property
    def worst(self) -> tuple[DriftReport, ...]:
        """The 20 that status shows."""
        return self.features[:WORST]

    @property
    def counts(self) -> dict[str, int]:
        """How many features stand in each condition."""
        found = Counter(report.condition.value for report in self.features)
        return {condition.value: found.get(condition.value, 0) for condition in Condition}

    def to_json(self) -> dict[str, Any]:
        return {
            "condition": self.condition.value,
            "message": self.message,
            "window": {"start": moment(self.start), "end": moment(self.end)},
            "features": [report.to_json() for report in self.worst],
            "counts": self.counts,
            "findings": [finding.to_json() for finding in self.findings[:WORST]],
            **({"blocked": self.blocked} if self.blocked else {}),
            **({"episode": moment(self.episode)} if self.episode is not None else {}),
            **({"changePoint": moment(self.change_point)} if self.change_point else {}),
        }


def summary(features: Sequence[DriftReport], findings: Sequence[Finding]) -> tuple[Condition, str]:
    """The condition over all features, and the sentence that explains it."""
    drifted = [report for report in features if report.condition is Condition.DRIFTED]
    if drifted:
        named = "; ".join(report.sentence() for report in drifted[:3])
        more = f"; and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        text = f"{len(drifted)} of {len(features)} features drifted: {named}{more}"
        return Condition.DRIFTED, text
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return Condition.UNHEALTHY, findings[0].message + more
    small = [report for report in features if report.condition is Condition.INSUFFICIENT_DATA]
    if features and len(small) == len(features):
        if all(report.m >= report.needed for report in small):
            return Condition.INSUFFICIENT_DATA, small[0].shortage
        needed, found = max(r.needed for r in small), max(r.m for r in small)
        text = f"the window has {found} rows; at least {needed} are needed to test every feature"
        return Condition.INSUFFICIENT_DATA, text
    tested = len(features) - len(small)
    rest = f"; {len(small)} had too little data" if small else ""
    return Condition.STEADY, f"none of {tested} features drifted{rest}"


def moment(seconds: float | None) -> str | None:
    """RFC 3339, or None."""
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))


def _rounded(value: float) -> float | None:
    return None if not math.isfinite(value) else float(f"{value:.4g}")
