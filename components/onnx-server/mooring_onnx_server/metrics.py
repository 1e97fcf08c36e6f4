"""Prometheus metrics. The names are final: dashboards and rollout judgements stand on them."""

from __future__ import annotations

import platform
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import onnxruntime as ort  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mooring_onnx_server import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mooring_onnx_server.state import ServerState

LATENCY_BUCKETS: tuple[float, ...] = tuple(
    float(f"{1e-4 * 2 ** (step / 2):.3g}") for step in range(41)
)
"""Seconds, 0.1 ms to 105 s, each √2 times the one before (to three digits).

Geometric, so that "slower by a factor" is a shift by whole buckets, and fixed, so that two
revisions can always be compared."""

BATCH_BUCKETS: tuple[float, ...] = tuple(2.0**step for step in range(11))
"""Rows, 1 to 1,024."""

UNKNOWN_MODEL = "unknown"
"""The label for a model that is not served here: names from outside would be unbounded."""


class Series:
    """One series of a histogram.

    The client library's own takes locks and counts with floats, several times the cost, twice
    a request; here everything happens on the event loop's thread.
    """

    __slots__ = ("_counts", "_edges", "_sum")

    def __init__(self, edges: Sequence[float] = LATENCY_BUCKETS) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value; a bucket holds its own upper edge."""
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Writes the series into a scrape."""
        edges = [*map(floatToGoString, self._edges), "+Inf"]
        buckets = list(zip(edges, accumulate(self._counts), strict=True))
        family.add_metric(labels, buckets, self._sum)


class _Traffic(Collector):
    """What is counted for each request: plain numbers, made into metrics at a scrape."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.requests: dict[tuple[str, str], Series] = {}
        self.runs = Series()
        self.batches = Series(BATCH_BUCKETS)
        self.request_bytes = 0
        self.response_bytes = 0

    def collect(self) -> Iterator[Metric]:
        """The client library's interface: called at every scrape."""
        requests = HistogramMetricFamily(
            "mooring_onnx_request_duration_seconds",
            "Inference requests from their headers to the end of their response, by HTTP "
            "status code, or the one that the gRPC status stands for (499: the client went away "
            "first).",
            labels=("model", "code"),
        )
        for labels, series in self.requests.items():
            series.add_to(requests, labels)
        yield requests
        runs = HistogramMetricFamily(
            "mooring_onnx_run_duration_seconds",
            "The model's own part of inference requests that it answered.",
            labels=("model",),
        )
        self.runs.add_to(runs, (self._model,))
        yield runs
        batches = HistogramMetricFamily(
            "mooring_onnx_batch_rows",
            "Rows of the runs that adaptive batching made of one request or several.",
            labels=("model",),
        )
        self.batches.add_to(batches, (self._model,))
        yield batches
        yield self._counter(
            "mooring_onnx_request_bytes",
            "Bytes of the inference request bodies that were read.",
            self.request_bytes,
        )
        yield self._counter(
            "mooring_onnx_response_bytes",
            "Bytes of the bodies that answered inference requests, errors too.",
            self.response_bytes,
        )

    def _counter(self, name: str, description: str, value: int) -> CounterMetricFamily:
        family = CounterMetricFamily(name, description, labels=("model",))
        family.add_metric((self._model,), value)
        return family


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self, model: str, provider: str, state: ServerState) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._traffic = _Traffic(model)
        self.registry.register(self._traffic)
        ProcessCollector(registry=self.registry)
        self._by_code: dict[int, Series] = {}
        self.observe_run = self._traffic.runs.observe
        self.observe_batch = self._traffic.batches.observe
        self.load_seconds = self._gauge(
            "mooring_onnx_model_load_seconds", "Time from opening the model to a session."
        )
        self.warmup_seconds = self._gauge(
            "mooring_onnx_model_warmup_seconds", "Time of all warm-up runs."
        )
        self._gauge(
            "mooring_onnx_requests_in_flight", "Inference requests being read or answered."
        ).set_function(lambda: state.in_flight)
        self._gauge(
            "mooring_onnx_model_ready", "1 while the model accepts new traffic."
        ).set_function(lambda: state.ready)
        Gauge(
            "mooring_onnx_build_info",
            "Always 1; the labels say what is running.",
            ("version", "onnxruntime", "python", "provider"),
            registry=self.registry,
        ).labels(__version__, ort.__version__, platform.python_version(), provider).set(1)
        # The series of success exists from the start, so that a rate over it is 0, not absent.
        self._of_code(200)

    def observe_request(
        self, code: int, seconds: float, request_bytes: int, response_bytes: int
    ) -> None:
        """Counts one inference request of the served model."""
        (self._by_code.get(code) or self._of_code(code)).observe(seconds)
        self._traffic.request_bytes += request_bytes
        self._traffic.response_bytes += response_bytes

    def observe_unknown_model(self, seconds: float) -> None:
        """Counts one inference request for a model that is not served here (404)."""
        labels = (UNKNOWN_MODEL, "404")
        self._traffic.requests.setdefault(labels, Series()).observe(seconds)

    def _of_code(self, code: int) -> Series:
        labels = (self._model, str(code))
        series = self._by_code[code] = self._traffic.requests.setdefault(labels, Series())
        return series

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that `accept` prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, ("model",), registry=self.registry).labels(self._model)
