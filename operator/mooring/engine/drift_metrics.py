"""The operator's metrics about data: ``mooring_drift_*``, a few series per deployment."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mooring.core.monitoring import Report

_STATES = ("Drifted", "Unhealthy", "InsufficientData", "Steady")
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class DriftMetrics:
    """Labels are namespace and deployment; those of one that is gone go with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._windows = Counter(
            "mooring_drift_windows",
            "Windows of monitored data by result: judged, no-data, or unread (asked for again).",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "mooring_drift_judge_duration_seconds",
            "Duration of judging one window of one deployment.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._behind = Gauge(
            "mooring_drift_behind_seconds",
            "How long the window has been over that waits longest for being judged.",
            registry=registry,
        )
        labels = ["namespace", "deployment"]
        self._features = Gauge(
            "mooring_drift_features",
            "Features by state in the last window.",
            [*labels, "state"],
            registry=registry,
        )
        self._alarm = Gauge(
            "mooring_drift_alarm", "1 while an alarm lasts.", labels, registry=registry
        )
        self._healthy = Gauge(
            "mooring_drift_data_healthy",
            "1 when the last window was read and held no broken data.",
            labels,
            registry=registry,
        )
        self._evidence = Gauge(
            "mooring_drift_evidence_ratio",
            "Evidence of the worst feature over the threshold: above 1 an alarm begins.",
            labels,
            registry=registry,
        )
        self._concept = Gauge(
            "mooring_drift_concept_evidence_ratio",
            "Evidence of labels over the threshold: at 1 an alarm begins. Absent without any.",
            labels,
            registry=registry,
        )
        self._end = Gauge(
            "mooring_drift_window_end_timestamp_seconds",
            "End of the last window that was taken.",
            labels,
            registry=registry,
        )
        self._known: set[tuple[str, str]] = set()

    def window(self, result: str) -> None:
        """Counts one window."""
        self._windows.labels(result).inc()

    def judged(self, seconds: float) -> None:
        """Times one window."""
        self._seconds.observe(seconds)

    def behind(self, seconds: float) -> None:
        """Sets how far judging is behind."""
        self._behind.set(seconds)

    def report(self, namespace: str, deployment: str, end: float, report: Report) -> None:
        """Shows what the last window of a deployment came to."""
        key = (namespace, deployment)
        self._known.add(key)
        counts = report.drift.get("counts") or {}
        for state in _STATES:
            self._features.labels(*key, state).set(counts.get(state, 0))
        facts = report.facts
        self._alarm.labels(*key).set(bool(facts and facts.drifted))
        self._healthy.labels(*key).set(bool(facts and facts.healthy))
        ratios = [
            one["score"] / one["threshold"]
            for one in report.drift.get("features") or ()
            if one.get("threshold") and "score" in one
        ]
        self._evidence.labels(*key).set(max(ratios, default=0.0))
        concept = report.drift.get("concept") or {}
        if concept.get("threshold") and "score" in concept:
            self._concept.labels(*key).set(concept["score"] / concept["threshold"])
        else:
            self._without_labels(key)
        self._end.labels(*key).set(end)

    def _without_labels(self, key: tuple[str, str]) -> None:
        with suppress(KeyError):
            self._concept.remove(*key)

    def knows(self, namespace: str, deployment: str) -> bool:
        """Whether anything is shown of this deployment."""
        return (namespace, deployment) in self._known

    def keep(self, keys: set[tuple[str, str]]) -> None:
        """Forgets all other deployments."""
        for key in self._known - keys:
            for state in _STATES:
                self._features.remove(*key, state)
            for gauge in (self._alarm, self._healthy, self._evidence, self._end):
                gauge.remove(*key)
            self._without_labels(key)
        self._known &= keys
