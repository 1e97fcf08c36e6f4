"""What is told of a judged window: status.drift and its conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.api.monitoring_status import NAME_LENGTH, WORST
from mooring.core.conditions import Finding
from mooring.core.drift.concept import Told
from mooring.core.drift.floor import floor_said
from mooring.core.drift.health import Finding as Broken
from mooring.core.drift.health import Rule
from mooring.core.drift.rebase import Base
from mooring.core.drift.report import Condition, DriftReport, WindowReport
from mooring.core.drift.state import ANCHOR, DriftState, Stream
from mooring.core.monitoring import DriftFacts, shown
from mooring.core.sentences import bounded

#: Of a reference whose features are absent from the traffic in this share, it is another model's.
_FOREIGN = 0.5

#: Features, and outputs with the revision whose answers they are; the worst first.
Reports = Sequence[tuple[str | None, DriftReport]]


@dataclass(frozen=True, slots=True)
class Telling:
    """One window. ``config_map`` and ``reference``: what was compared with, by name and by hash;
    ``watched``: the features; ``base``: what was compared with in place of the reference's counts;
    ``labels``: what labels say, where they can be judged.
    """

    config_map: str
    reference: str
    watched: tuple[str, ...]
    rows: float
    end: float
    condition: Condition
    message: str
    broken: tuple[Broken, ...]
    base: Base | None = None
    labels: Told | None = None

    def status(
        self,
        facts: DriftFacts,
        reports: Reports,
        everything: Reports,
    ) -> dict[str, Any]:
        """status.drift."""
        counts: dict[str, int] = {}
        for _, one in reports:
            counts[one.condition.value] = counts.get(one.condition.value, 0) + 1
        about = {finding.feature: finding.message for finding in reversed(self.broken)}
        found = {
            "state": self.condition.value,
            "since": shown(facts.since.timestamp()) if facts.since else None,
            "changePoint": shown(facts.change_point.timestamp()) if facts.change_point else None,
            "episode": facts.episode or None,
            "windowEnd": shown(self.end),
            "reference": self.reference,
            "rows": int(self.rows),
            "counts": counts,
            "features": [
                feature_status(revision, one, about) for revision, one in everything[:WORST]
            ],
            "concept": dict(self.labels.status) if self.labels is not None else None,
            "message": bounded(self.message),
        }
        return {key: value for key, value in found.items() if value is not None}

    def conditions(self, reports: Reports) -> dict[str, Finding]:
        """DataHealthy and Drifted."""
        rows = f"{self.rows:.0f} rows in the window to {shown(self.end)}"
        short = next((one for _, one in reports if one.reference_short), None)
        note = f"; the reference holds {short.n} rows, less than 30 times a window" if short else ""
        if self.base is not None:
            what = (
                f"the traffic that revision {self.base.revision} was retrained on"
                if self.base.revision
                else "the first traffic"
            )
            note += f"; compared with {what}, to {shown(self.base.end)}"
        if self.condition is Condition.DRIFTED:
            drifted = Finding("Drifted", f"{self.message}; {rows}{note}")
            if self.labels is not None and self.labels.message:
                drifted = Finding("ConceptDrifted", drifted.message)
        elif self.condition is Condition.INSUFFICIENT_DATA:
            drifted = Finding("InsufficientData", f"{self.message}; {rows}", "False")
        elif self.condition is Condition.UNHEALTHY:
            drifted = Finding("Unhealthy", f"no alarm, but the data is broken; {rows}", "False")
        else:
            drifted = Finding("Steady", f"{self.message}; {rows}{note}", "False")
        found = {DATA_HEALTHY: self._health(rows), DRIFTED: drifted}
        return {kind: replace(one, message=bounded(one.message)) for kind, one in found.items()}

    def _health(self, rows: str) -> Finding:
        if not self.broken:
            return Finding("AsExpected", f"no expectation is broken; {rows}")
        gone = (Rule.SCHEMA, Rule.MISSING)
        absent = {one.feature for one in self.broken if one.rule in gone and one.share >= 1}
        lost = absent & set(self.watched)
        if len(lost) > _FOREIGN * len(self.watched):
            return Finding(
                "ReferenceOfAnotherModel",
                f"{len(lost)} of {len(self.watched)} features of ConfigMap "
                f"{self.config_map} appear in none of {rows}: it is the "
                "reference of another model, or spec.monitoring.features names other tensors",
                "False",
            )
        more = f" (and {len(self.broken) - 1} more)" if len(self.broken) > 1 else ""
        worst = max(self.broken, key=lambda one: one.share)
        reason = worst.rule.value[0].upper() + worst.rule.value[1:]
        return Finding(reason, f"{worst.message}{more}; nothing is retrained on this", "False")


def anchored(report: WindowReport, anchor: DriftState) -> WindowReport:
    """The report with what has drifted over whole seasons, which single hours may not show."""
    features = []
    for one in report.features:
        state = anchor.features.get(one.feature)
        by = state.alarming if state is not None else None
        if state is None or by is None or one.condition is Condition.DRIFTED:
            features.append(one)
            continue
        stream = state.streams.get(by, Stream())
        features.append(
            replace(
                one, condition=Condition.DRIFTED, by=ANCHOR, score=stream.score,
                alarm_since=stream.alarm_at, change_point=stream.zero_at,
            )
        )  # fmt: skip
    if all(one.by != ANCHOR for one in features):
        return report
    changes = [
        one.change_point
        for one in features
        if one.condition is Condition.DRIFTED and one.change_point is not None
    ]
    return replace(report, features=tuple(features), change_point=min(changes, default=None))


def feature_status(
    revision: str | None, one: DriftReport, about: Mapping[str, str]
) -> dict[str, Any]:
    """One entry of status.drift.features; ``about``: what is broken, by feature."""
    if one.condition is Condition.DRIFTED:
        message = one.sentence()
    elif one.feature in about:
        message = about[one.feature]
    elif one.condition is Condition.INSUFFICIENT_DATA:
        message = one.shortage
    else:
        message = floor_said(one.floor)
    found = {
        "feature": bounded(one.feature, NAME_LENGTH),
        "revision": revision,
        "state": one.condition.value,
        "psi": digits(one.psi),
        "referenceRows": one.n,
        "windowRows": one.m,
        "qValue": digits(one.q),
        "score": digits(one.score),
        "threshold": digits(one.threshold),
        "message": bounded(message) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def digits(value: float) -> float | None:
    """Four digits; None for what is no number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
