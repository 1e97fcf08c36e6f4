"""The operator's metrics about how well models do: ``mooring_performance*``."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from mooring.core.retrain.facts import PerformanceFacts
from mooring.engine.queue import Key

_LABELS = ("namespace", "deployment", "metric")


class PerformanceMetrics:
    """A figure of each metric that can be told, while somebody has a trigger on one of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._value = Gauge(
            "mooring_performance",
            "How well the stable revision does by labels of the last windows, or as estimated.",
            _LABELS,
            registry=registry,
        )
        self._lower = Gauge(
            "mooring_performance_lower",
            "The lower end of its 99.9 % interval.",
            _LABELS,
            registry=registry,
        )
        self._upper = Gauge(
            "mooring_performance_upper",
            "The upper end of its 99.9 % interval.",
            _LABELS,
            registry=registry,
        )
        self._samples = Gauge(
            "mooring_performance_labels",
            "How many labels it comes from; 0 where it is estimated without.",
            _LABELS,
            registry=registry,
        )
        self._shown: dict[Key, frozenset[str]] = {}

    def show(self, key: Key, metrics: Mapping[str, PerformanceFacts]) -> None:
        """Shows these of a deployment, and no others any more."""
        for name, facts in metrics.items():
            labels = (key.namespace, key.name, name)
            self._value.labels(*labels).set(facts.value)
            self._lower.labels(*labels).set(facts.lower)
            self._upper.labels(*labels).set(facts.upper)
            self._samples.labels(*labels).set(facts.samples)
        for name in self._shown.pop(key, frozenset()) - set(metrics):
            for gauge in (self._value, self._lower, self._upper, self._samples):
                gauge.remove(key.namespace, key.name, name)
        if metrics:
            self._shown[key] = frozenset(metrics)
