"""The operator's own metrics, under ``mooring_``."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter that nobody asks for

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics of one process, in a registry of their own so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.reconciles = Counter(
            "mooring_reconcile",
            "Rounds of observe, decide, apply by result: success, conflict or error.",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "mooring_reconcile_duration_seconds",
            "Duration of a round, its API requests included.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "mooring_reconcile_errors",
            "Rounds that failed, by cause: api, decide or internal.",
            ["cause"],
            registry=self.registry,
        )
        self.requests = Counter(
            "mooring_api_requests",
            "Requests to the API server, by verb, kind and code (0: no answer).",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "mooring_api_request_duration_seconds",
            "Duration of requests to the API server, by verb.",
            ["verb"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.writes_avoided = Counter(
            "mooring_applies_avoided",
            "Applies that were not sent, since they would have changed nothing.",
            registry=self.registry,
        )
        self.resyncs = Counter(
            "mooring_resync",
            "Comparisons of the store with the API server by result: success or error.",
            ["result"],
            registry=self.registry,
        )
        self.resync_findings = Counter(
            "mooring_resync_findings",
            "Objects that the watches had missed: added, changed or deleted.",
            ["kind", "finding"],
            registry=self.registry,
        )
        self.events_seen = Counter(
            "mooring_watch_events",
            "Watch events taken in, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "mooring_queue_depth", "Keys that wait for a worker.", registry=self.registry
        )
        self.queue_oldest = Gauge(
            "mooring_queue_oldest_seconds",
            "How long the oldest key has waited or been worked on.",
            registry=self.registry,
        )
        self.loop_lag = Gauge(
            "mooring_loop_lag_seconds",
            "How late the event loop last woke up.",
            registry=self.registry,
        )
        self.retraining_requests = Counter(
            "mooring_retraining_requests",
            "RetrainingRequests made, by trigger.",
            ["trigger"],
            registry=self.registry,
        )
        self.retraining_outcomes = Counter(
            "mooring_retraining_outcomes",
            "RetrainingRequests that came to an end, by how.",
            ["outcome"],
            registry=self.registry,
        )
        self.sink_deliveries = Counter(
            "mooring_retraining_deliveries",
            "Attempts to tell a sink of a request, by result: ok or failed.",
            ["sink", "result"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "mooring_leader", "1 while this process holds the lease.", registry=self.registry
        )
        self.deployments = Gauge(
            "mooring_model_deployments", "ModelDeployments seen.", registry=self.registry
        )

        self.analysis_ticks = Counter(
            "mooring_analysis_ticks",
            "Looks at all rollouts under judgement by result: success or error.",
            ["result"],
            registry=self.registry,
        )
        self.analysis_seconds = Histogram(
            "mooring_analysis_duration_seconds",
            "How long a look took, from the first query to the last verdict.",
            registry=self.registry,
        )
        self.analysis_rollouts = Gauge(
            "mooring_analysis_rollouts", "Revisions under judgement.", registry=self.registry
        )
        self.analysis_verdicts = Gauge(
            "mooring_analysis_verdicts",
            "Revisions under judgement by their present verdict.",
            ["verdict"],
            registry=self.registry,
        )
        self.analysis_evidence = Gauge(
            "mooring_analysis_evidence",
            "How far the evidence of a metric has come towards Fail, which is at 1.",
            ["namespace", "deployment", "metric"],
            registry=self.registry,
        )

        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def on_request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Counts one request; handed to the client."""
        # Finding a labelled metric costs more than changing it.
        found = self._of_requests.get((verb, kind, code))
        if found is None:
            found = (
                self.requests.labels(verb, kind, str(code)),
                self.request_seconds.labels(verb),
            )
            self._of_requests[verb, kind, code] = found
        found[0].inc()
        found[1].observe(seconds)
