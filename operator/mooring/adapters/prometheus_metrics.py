"""The operator's own metrics about asking Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from mooring.adapters.prometheus import Asked

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PrometheusMetrics:
    """Counts what :class:`~mooring.adapters.prometheus.Prometheus` asks; hand it ``on_asked``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queries = Counter(
            "mooring_prometheus_queries",
            "Queries sent to Prometheus by outcome: success, or why there was no answer.",
            ["outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "mooring_prometheus_query_duration_seconds",
            "Duration of queries to Prometheus, reading the answer included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.received = Counter(
            "mooring_prometheus_response_bytes",
            "Bytes of Prometheus' answers, as far as they were read.",
            registry=registry,
        )

    def on_asked(self, asked: Asked) -> None:
        """Counts one question."""
        self.queries.labels(asked.outcome).inc()
        self.seconds.observe(asked.seconds)
        self.received.inc(asked.received)
