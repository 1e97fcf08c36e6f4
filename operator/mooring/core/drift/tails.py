"""Rare cells, judged exactly: the tails, values out of range, new categories, missing values.

2 % of rows at ten standard deviations, a unit bug or a sentinel, hide in one tested bin of ten and
move PSI by next to nothing. So cells that are rare in the reference have a test of their own.

Of R + C rows in such a cell, C of them in the window, C is binomial with π = mρ/(n+mρ) when the
window's rate is ρ times the reference's; that is exact whatever the rate is. ρ is tolerated, so
that a shift of the whole distribution below PSI₀ does not alarm here in place of there.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, ndtr, ndtri

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.building import TAIL
from mooring.core.drift.coarse import TAILS, Tail

#: Beyond the range of the reference its own extreme value is a matter of chance.
_RANGE_FACTOR = 2.0
_LEAST_RATIO = 2.0


def tolerated_ratio(min_effect_psi: float) -> float:
    """By how much a tail's rate may grow: what a normal shift of PSI₀ does to it, and a quarter.

    A normal feature that moves by d = √PSI₀ standard deviations has Φ(d − z)/.001 times as much
    beyond z, its 99.9 % quantile.
    """
    grown = float(ndtr(np.sqrt(min_effect_psi) + ndtri(TAIL))) / TAIL
    return max(_LEAST_RATIO, 1.25 * grown)


def tail_p_values(
    reference: FloatArray,
    current: FloatArray,
    n: FloatArray,
    m: FloatArray,
    ratio: FloatArray | float,
    *,
    dispersion: FloatArray | float = 1.0,
) -> FloatArray:
    """P(at least so many) per feature and kind of tail, shape (F, tails).

    ``reference`` and ``current`` are counts (F, tails), ``n`` and ``m`` all rows (F,), ``ratio``
    the tolerated one (F,) or a number. Clustered rows are divided by ``dispersion``.
    """
    tolerated = np.broadcast_to(np.asarray(ratio, dtype=np.float64), n.shape)[:, None]
    factor = np.array([_RANGE_FACTOR if t in {Tail.BELOW, Tail.ABOVE} else 1.0 for t in TAILS])
    clusters = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), n.shape)[:, None]
    grown = m[:, None] * tolerated * factor
    share = grown / np.maximum(n[:, None] + grown, 1e-300)
    held, seen = reference / clusters, current / clusters
    some = (current > 0) & (n > 0)[:, None]
    found = np.ones(current.shape)
    found[some] = betainc(seen[some], held[some] + 1, share[some])
    return found


def combined(p: FloatArray, used: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The smallest p-value times how many were looked at, and which one it was, both (F,).

    ``used`` (F, tails) is 1 for the kinds that a feature has.
    """
    looked = np.where(used > 0, p, np.inf)
    which = looked.argmin(axis=1)
    least = np.take_along_axis(looked, which[:, None], axis=1)[:, 0]
    return np.minimum(1.0, least * np.maximum(used.sum(axis=1), 1)), which.astype(np.float64)
