"""Prometheus metrics. The names are final: dashboards and rollout judgements stand on them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import onnxruntime as ort  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from mooring_onnx_server import __version__

if TYPE_CHECKING:
    from mooring_onnx_server.state import ServerState

LATENCY_BUCKETS: tuple[float, ...] = tuple(
    float(f"{1e-4 * 2 ** (step / 2):.3g}") for step in range(41)
)
"""Seconds, 0.1 ms to 105 s, each √2 times the one before (to three digits).

Geometric, so that "slower by a factor" is a shift by whole buckets, and fixed, so that two
revisions can always be compared."""

UNKNOWN_MODEL = "unknown"
"""The label for a model that is not served here: names from outside would be unbounded."""


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self, model: str, provider: str, state: ServerState) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        ProcessCollector(registry=self.registry)
        self._duration = Histogram(
            "mooring_onnx_request_duration_seconds",
            "Inference requests from their headers to the end of their response, by HTTP "
            "status code (499: the client went away first).",
            ("model", "code"),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._by_code: dict[int, Histogram] = {}
        self.run_duration = Histogram(
            "mooring_onnx_run_duration_seconds",
            "The model's own part of inference requests that it answered.",
            ("model",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        ).labels(model)
        self.request_bytes = Counter(
            "mooring_onnx_request_bytes_total",
            "Bytes of the inference request bodies that were read.",
            ("model",),
            registry=self.registry,
        ).labels(model)
        self.response_bytes = Counter(
            "mooring_onnx_response_bytes_total",
            "Bytes of the bodies that answered inference requests, errors too.",
            ("model",),
            registry=self.registry,
        ).labels(model)
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
        self.observe_request(200)

    def observe_request(self, code: int, seconds: float | None = None) -> None:
        """Counts one inference request of the served model; without seconds, only makes the
        series exist.
        """
        series = self._by_code.get(code)
        if series is None:
            series = self._by_code[code] = self._duration.labels(self._model, str(code))
        if seconds is not None:
            series.observe(seconds)

    def observe_unknown_model(self, seconds: float) -> None:
        """Counts one inference request for a model that is not served here (404)."""
        self._duration.labels(UNKNOWN_MODEL, "404").observe(seconds)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that `accept` prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, ("model",), registry=self.registry).labels(self._model)
