"""Latency objectives and the edges of the router's buckets. Without numpy: settings are read by
processes that never judge.
"""

from __future__ import annotations

from collections.abc import Sequence


def snap(edges: Sequence[float], objective: float) -> int | None:
    """The place of the first bucket edge at or above the objective; None when all are below it."""
    for place, edge in enumerate(edges):
        if edge >= objective * (1 - 1e-9):
            return place
    return None
