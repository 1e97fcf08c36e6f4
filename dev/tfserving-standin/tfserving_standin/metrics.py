"""The metrics of TensorFlow Serving that Mooring reads, in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

# Microseconds, as the real server's: 10 times powers of 1.8.
EDGES = tuple(10 * 1.8**power for power in range(33))


class Metrics:
    """Counts by status, and the latency of good answers by API and entry point."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._latency: dict[tuple[str, str], tuple[list[int], list[float]]] = {}

    def count(self, status: str) -> None:
        """One more request that ended so."""
        with self._lock:
            self._requests[status] += 1

    def time(self, api: str, entrypoint: str, seconds: float) -> None:
        """How long a good answer took."""
        micros = seconds * 1e6
        with self._lock:
            counts, total = self._latency.setdefault(
                (api, entrypoint), ([0] * (len(EDGES) + 1), [0.0])
            )
            counts[bisect_left(EDGES, micros)] += 1
            total[0] += micros

    def text(self) -> str:
        """All of them."""
        name = ":tensorflow:serving:request_count"
        lines = [f"# TYPE {name} counter"]
        with self._lock:
            for status, count in sorted(self._requests.items()):
                lines.append(f'{name}{{model_name="{self._model}",status="{status}"}} {count}')
            name = ":tensorflow:serving:request_latency"
            lines.append(f"# TYPE {name} histogram")
            for (api, entrypoint), (counts, total) in sorted(self._latency.items()):
                labels = f'model_name="{self._model}",API="{api}",entrypoint="{entrypoint}"'
                seen = 0
                for edge, count in zip((*map(str, EDGES), "+Inf"), counts, strict=True):
                    seen += count
                    lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {seen}')
                lines.append(f"{name}_sum{{{labels}}} {total[0]}")
                lines.append(f"{name}_count{{{labels}}} {seen}")
        return "\n".join(lines) + "\n"
