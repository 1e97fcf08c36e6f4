"""How much errors come in bursts, measured on stable's two halves before a rollout.

The tests of :mod:`mooring.core.judge.evidence` take errors to fall on the two sides one by one.
One bad client that holds a connection brings them in bursts, and the tests would be too sure. The
router sends stable's traffic to two clusters of the same pods, half and half: between those two
there is no difference but chance, so they show how large chance is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

#: Below this many windows with errors, nothing is known about bursts.
LEAST_WINDOWS = 10
_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Dispersion:
    """φ: log-evidence is divided by it. ``windows`` had errors; without enough, it is not known."""

    phi: float = 1.0
    windows: int = 0

    @property
    def calibrated(self) -> bool:
        return self.windows >= LEAST_WINDOWS


def dispersion_of(
    windows: float, both: float, both_squared: float, difference_squared: float
) -> Dispersion:
    """φ from sums over the windows with errors: how many, Σm, Σm² and Σ(a−b)², m = a + b.

    φ is the upper 90 % bound of Σ(a−m/2)² / Σ(m/4), and at least 1. The bound takes the statistic
    as φ·χ²/ν with ν = (Σm)²/Σm² degrees of freedom (Satterthwaite), so that a few large windows
    count as the few that they are.
    """
    if not windows >= LEAST_WINDOWS or not both > 0 or not both_squared > 0:
        return Dispersion(1.0, int(windows) if math.isfinite(windows) else 0)
    ratio = max(difference_squared, 0.0) / both
    freedom = both**2 / both_squared
    bound = ratio * freedom / (2 * float(gammaincinv(freedom / 2, 1 - _CONFIDENCE)))
    return Dispersion(max(1.0, bound) if math.isfinite(bound) else 1.0, int(windows))


def over_dispersion(half_a: Sequence[float], half_b: Sequence[float]) -> Dispersion:
    """φ from the errors of stable's halves a and b, one entry per window of the last 12 to 24 h.

    See :func:`dispersion_of`. Windows that are not finite or not counts are left out.
    """
    a = np.asarray(half_a, dtype=float)
    b = np.asarray(half_b, dtype=float)
    size = min(a.size, b.size)
    a, b = a[:size], b[:size]
    usable = np.isfinite(a) & np.isfinite(b) & (a >= 0) & (b >= 0) & (a + b > 0)
    a, b = a[usable], b[usable]
    m = a + b
    return dispersion_of(m.size, float(np.sum(m)), float(np.sum(m**2)), float(np.sum((a - b) ** 2)))
