"""Seasonal references: the same hour of the last weeks, and what must not be part of them.

With a diurnal swing of half a standard deviation a reference of a whole week alarms in nearly
every hour; the same hour of earlier weeks does not. Four weeks of one hour are only four times a
window, so the neighbouring hours are pooled with it: a swing cancels over both sides.

A reference that moves along never sees a drift slower than its own pace (.058 standard deviations
a week become 3 a year), so beside it one *anchor* is kept that is never re-based.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mooring.core.drift.arrays import FloatArray

#: A reference should hold this many times a window.
ENOUGH = 30.0


@dataclass(frozen=True, slots=True)
class PastWindow:
    """The counts of a window that is over.

    Attributes:
        start, end: seconds since 1970.
        counts: fine counts of all features, as ``Layout.pad`` gives them.
        usable: neither alarmed nor unhealthy.
    """

    start: float
    end: float
    counts: FloatArray
    usable: bool = True


@dataclass(frozen=True, slots=True)
class SeasonalReference:
    """Counts to compare with.

    Attributes:
        counts: the pooled fine counts; None when no window is usable.
        windows: how many were pooled.
        left_out: how many matched but were alarmed or unhealthy.
        same: the windows of the very same hour alone, without neighbours, shape (…, F, cells).
    """

    counts: FloatArray | None
    windows: int
    left_out: int
    same: FloatArray | None = None


def wanted_starts(
    start: float, window: float, *, offset: float, weeks: int, neighbours: int = 1
) -> tuple[float, ...]:
    """The starts of the windows that a seasonal reference for the window at ``start`` is made of.

    ``offset`` (seconds) is the length of the season, ``weeks`` how many of them to go back,
    ``neighbours`` how many windows on either side are pooled. None of them may reach the window
    that is judged.
    """
    wanted = {
        start - back * offset + beside * window
        for back in range(1, weeks + 1)
        for beside in range(-neighbours, neighbours + 1)
    }
    return tuple(sorted(one for one in wanted if one + window <= start))


def seasonal_reference(
    past: Iterable[PastWindow],
    start: float,
    window: float,
    *,
    offset: float,
    weeks: int,
    neighbours: int = 1,
) -> SeasonalReference:
    """Pools the same hours of earlier seasons, without windows that alarmed or were unhealthy.

    A window that began within half a window of a wanted start matches (scrapes are never exact).
    """
    wanted = wanted_starts(start, window, offset=offset, weeks=weeks, neighbours=neighbours)
    total: FloatArray | None = None
    used = left_out = 0
    same = []
    for one in past:
        if one.end > start or not any(abs(one.start - at) < window / 2 for at in wanted):
            continue
        if not one.usable:
            left_out += 1
            continue
        total = one.counts.copy() if total is None else total + one.counts
        used += 1
        away = (start - one.start) % offset
        if min(away, offset - away) < window / 2:
            same.append(one.counts)
    return SeasonalReference(total, used, left_out, np.stack(same) if same else None)


def seasons_over(
    end: float, length: float, *, judged: float | None, taken: float | None
) -> tuple[tuple[float, float], ...]:
    """The whole seasons (start, end) to be judged with the window that ends at ``end``.

    The one in which the last window was ``judged`` (its end), once that season is over: its own
    last window may have had no traffic or no scrape. And the one that this window itself ends.
    Between the two nothing could be judged, so there is nothing to miss. A season whose end is not
    after that of the last one that was ``taken`` had its turn. Windows end at a season's end within
    a second. All in seconds since 1970.
    """
    last = end if judged is None else judged
    ends = {math.ceil((one - 1) / length) * length for one in (last, end)}
    return tuple(
        (one - length, one)
        for one in sorted(ends)
        if one < end + 1 and (taken is None or one >= taken + 1)
    )


def is_short(reference_rows: FloatArray, window_rows: FloatArray) -> FloatArray:
    """1 where a reference holds less than 30 times the window, shape (F,)."""
    return np.asarray(reference_rows < ENOUGH * window_rows, dtype=np.float64)
