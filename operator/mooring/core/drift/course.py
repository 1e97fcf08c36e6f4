"""How the drift came: at once, by and by, or again and again.

It is said in the message only; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

#: Windows since the change point that are kept, and fewer than which nothing is said.
KEPT = 12
_LEAST = 4
#: How many closed episodes are remembered.
REMEMBERED = 4
_REGULAR = 0.25


class Kind(Enum):
    """How a drift came."""

    UNKNOWN = "Unknown"
    SUDDEN = "Sudden"
    GRADUAL = "Gradual"
    RECURRING = "Recurring"


def course(sizes: Sequence[float], starts: Sequence[float], started: float) -> Kind:
    """The kind of a drift.

    Args:
        sizes: √(PSI without its expectation under no drift) of the windows since the change
            point, at most ``KEPT``: proportional to the shift, in standard deviations.
        starts: when earlier episodes of the same feature started, rising, in seconds.
        started: when this one did.

    Recurring: at least two earlier episodes, and all starts are about equally far apart. Gradual:
    a line through the sizes rises by more than half of their mean, and by more than three times
    its own uncertainty. The first window is left out: the change may have come in its midst.
    """
    spacing = np.diff(np.array([*starts, started], dtype=np.float64))
    if len(starts) >= 2:
        usual = float(np.median(spacing))
        if usual > 0 and bool((np.abs(spacing - usual) <= _REGULAR * usual).all()):
            return Kind.RECURRING
    found = np.array(sizes[1:], dtype=np.float64)
    if found.size < _LEAST:
        return Kind.UNKNOWN
    at = np.arange(found.size, dtype=np.float64)
    at -= at.mean()
    slope = float(at @ found / (at @ at))
    residual = found - found.mean() - slope * at
    error = float(np.sqrt((residual @ residual) / (found.size - 2) / (at @ at)))
    rise = slope * (found.size - 1)
    return Kind.GRADUAL if slope > 3 * error and rise > found.mean() / 2 else Kind.SUDDEN


def period(starts: Sequence[float], started: float) -> float | None:
    """The usual time between the starts of recurring episodes, in seconds."""
    spacing = np.diff(np.array([*starts, started], dtype=np.float64))
    return float(np.median(spacing)) if spacing.size else None
