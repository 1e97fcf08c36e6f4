"""Which span of data to train on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from mooring.core.clock import format_time
from mooring.core.retrain.facts import Span

_MOST_SPANS = 50


def data_window(
    now: datetime,
    change_point: datetime | None,
    least: timedelta,
    unhealthy: Iterable[Span] = (),
) -> dict[str, Any]:
    """From where the data changed until now, in the API's form.

    It holds ``least`` (a season) without the spans of broken data: it begins as much earlier as
    these take away.
    """
    end = now.replace(microsecond=0)
    broken = _merged((a, min(b, end)) for a, b in unhealthy if a < end)
    start = min(change_point or end, _back(end, max(least, timedelta(seconds=1)), broken))
    start = start.replace(microsecond=0)
    inside = [(max(a, start), b) for a, b in broken if b > start]
    found: dict[str, Any] = {"start": format_time(start), "end": format_time(end)}
    if inside:
        found["exclude"] = [
            {"start": format_time(a), "end": format_time(b)}
            for a, b in inside[-_MOST_SPANS:]
            if format_time(a) < format_time(b)
        ]
    return found


def _back(end: datetime, length: timedelta, broken: list[Span]) -> datetime:
    """Where a stretch of so much good data begins that ends at ``end``."""
    at = end
    for first, last in reversed(broken):
        good = at - last
        if good >= length:
            break
        length -= good
        at = first
    return at - length


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Disjoint and in order."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
