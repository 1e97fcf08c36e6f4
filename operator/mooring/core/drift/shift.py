"""Has the distribution shifted? p-values for one window, for all features at once.

The default is the test of a minimum effect. A test of "no shift at all" rejects for any feature
once a window is large enough, however harmless the shift; this one asks whether the shift is
larger than PSI₀, and so does not alarm below that at any sample size.

PSI's null distribution is v·χ²(k−1) (Yurdakul 2018), and under a shift of size PSI₀ it is the
noncentral one with λ = PSI₀/v. The distribution function is used, never its inverse, which takes
ten times as long.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtrc, chndtr, fdtrc, ndtr, ndtri

from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.distances import Pair, hellinger_squared, jensen_shannon, psi

#: Beyond this noncentrality the exact series is slow and the normal form agrees to 1e-4 in z.
_LARGE = 2000.0
#: |z| is cut here everywhere: p-values underflow, and one window must not decide for a hundred.
Z_LIMIT = 8.0


def noncentral_tail(x: FloatArray, df: FloatArray, nc: FloatArray) -> FloatArray:
    """P(X ≥ x) of the noncentral χ² with ``df`` degrees of freedom; 1 where x or df is not above 0.

    scipy's ``chndtr``, and for λ > 2000 Sankaran's cube-root-like power transformation
    (Biometrika 1963), which is as exact there as the tables need and does not slow down with λ.
    """
    x, df, nc = np.broadcast_arrays(x, df, nc)
    found = np.ones(x.shape)
    useful = (df > 0) & (x > 0) & np.isfinite(x) & np.isfinite(nc)
    central = useful & (nc <= 0)
    found[central] = chdtrc(df[central], x[central])
    exact = useful & (nc > 0) & (nc <= _LARGE)
    found[exact] = 1 - chndtr(x[exact], df[exact], nc[exact])
    large = useful & (nc > _LARGE)
    found[large] = _sankaran(x[large], df[large], nc[large])
    return np.clip(found, 0.0, 1.0)


def _sankaran(x: FloatArray, df: FloatArray, nc: FloatArray) -> FloatArray:
    mean, second = df + nc, df + 2 * nc
    power = 1 - 2 * mean * (df + 3 * nc) / (3 * second**2)
    p = second / mean**2
    m = (power - 1) * (1 - 3 * power)
    centre = 1 + power * p * (power - 1 - 0.5 * (2 - power) * m * p)
    spread = power * np.sqrt(2 * p) * (1 + 0.5 * m * p)
    return np.asarray(ndtr(-((x / mean) ** power - centre) / spread), dtype=np.float64)


def minimum_effect(
    pair: Pair,
    min_effect_psi: FloatArray | float,
    dispersion: FloatArray | float = 1.0,
    *,
    distance: FloatArray | None = None,
) -> FloatArray:
    """p-value of "the shift is at most PSI₀", shape (F,): P(χ²(k−1, PSI₀/v) ≥ PSI/v).

    Autocorrelated traffic carries less than its rows say: v is multiplied by ``dispersion``. Any
    distance on PSI's scale may be given in place of PSI.
    """
    found = psi(pair) if distance is None else distance
    scale = pair.v * dispersion
    return noncentral_tail(found / scale, pair.bins - 1, np.asarray(min_effect_psi / scale))


def on_psi_scale(pair: Pair, method: str) -> FloatArray:
    """The distance of a method, multiplied so that small shifts have the same size as in PSI."""
    if method == "jensenShannon":
        return 8 * jensen_shannon(pair)
    if method == "hellinger":
        return 8 * hellinger_squared(pair)
    return psi(pair)


def chi_square(
    pair: Pair, *, least_expected: float = 5.0, dispersion: FloatArray | float = 1.0,
    dispersion_df: FloatArray | float = np.inf,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Two-sample χ² test of homogeneity: statistic, degrees of freedom and p-value, shape (F,).

    X² = Σ(√(m/n)·R − √(n/m)·C)²/(R+C) (Porter 2008), adjacent bins pooled until the smaller side's
    pooled expectation is at least ``least_expected``. Both sides are samples: the one-sample test
    against the sampled reference alarms in half of all windows without any drift.

    With an estimated ``dispersion`` δ̂, X²/(df·δ̂) is judged against F(df, ``dispersion_df``).
    """
    reference, current, kept = pooled(pair, least_expected)
    n, m = np.maximum(pair.n, 1e-300)[:, None], np.maximum(pair.m, 1e-300)[:, None]
    both = reference + current
    gap = np.sqrt(m / n) * reference - np.sqrt(n / m) * current
    statistic = np.where(both > 0, gap**2 / np.where(both > 0, both, 1.0), 0.0).sum(axis=1)
    df = np.maximum(kept.sum(axis=1) - 1.0, 0.0)
    testable = (df > 0) & (pair.n > 0) & (pair.m > 0)
    safe = np.where(testable, df, 1.0)
    spread = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), df.shape)
    spread_df = np.broadcast_to(np.asarray(dispersion_df, dtype=np.float64), df.shape)
    by_f = np.isfinite(spread_df)
    p = np.where(
        by_f,
        fdtrc(safe, np.where(by_f, spread_df, 1.0), statistic / (safe * spread)),
        chdtrc(safe, statistic / spread),
    )
    return statistic, df, np.where(testable, p, 1.0)


def pooled(pair: Pair, least_expected: float) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Counts with adjacent bins joined until each expects enough, and which bins then remain.

    A bin's sum stands at the last bin that it was joined from; what is left at the end goes to
    the last complete one. One pass over the bins, all features at once.
    """
    total = np.maximum(pair.n + pair.m, 1e-300)
    fewer = np.minimum(pair.n, pair.m) / total
    features, bins = pair.mask.shape
    reference, current = np.zeros((features, bins)), np.zeros((features, bins))
    kept = np.zeros((features, bins), dtype=np.bool_)
    held_r, held_c = np.zeros(features), np.zeros(features)
    last = np.full(features, -1)
    for place in range(bins):
        held_r, held_c = held_r + pair.reference[:, place], held_c + pair.current[:, place]
        full = pair.mask[:, place] & ((held_r + held_c) * fewer >= least_expected)
        reference[full, place], current[full, place] = held_r[full], held_c[full]
        kept[full, place] = True
        last[full] = place
        held_r, held_c = np.where(full, 0.0, held_r), np.where(full, 0.0, held_c)
    rows = np.flatnonzero(last >= 0)
    reference[rows, last[rows]] += held_r[rows]
    current[rows, last[rows]] += held_c[rows]
    return reference, current, kept


def z_scores(p: FloatArray) -> FloatArray:
    """Φ⁻¹(1−p), cut at ±8."""
    tiny = float(ndtr(-Z_LIMIT))
    z = np.clip(-ndtri(np.clip(p, tiny, 1 - 1e-16)), -Z_LIMIT, Z_LIMIT)
    return np.asarray(z, dtype=np.float64)


def samples_needed(
    pair: Pair, *, least_expected: float = 5.0, ratio: FloatArray | float = 1.0
) -> FloatArray:
    """How many rows a window must have for a test of these bins to be exact enough, shape (F,).

    Every bin of the reference must expect ``least_expected`` rows; clustered rows count less, by
    ``ratio`` (the dispersion).
    """
    least = np.where(pair.mask, pair.p, 1.0).min(axis=1, initial=1.0)
    return np.asarray(np.ceil(least_expected * ratio / np.maximum(least, 1e-12)), dtype=np.float64)


def samples_to_see(
    bins: float, n: float, min_effect_psi: float, true_psi: float, *, alpha: float, power: float
) -> float:
    """The window size m at which a shift of ``true_psi`` is found in one window with ``power``.

    Infinite when the reference (n rows) is too small for any window to do it. Solved by bisection,
    over m and within it over the test's critical value.
    """

    def reached(m: float) -> bool:
        v, df = 1 / n + 1 / m, bins - 1
        low, high = 0.0, df + min_effect_psi / v + 20 * float(np.sqrt(df + min_effect_psi / v)) + 40
        for _ in range(40):
            middle = (low + high) / 2
            over = _tail(middle, df, min_effect_psi / v) > alpha
            low, high = (middle, high) if over else (low, middle)
        return _tail(high, df, true_psi / v) >= power

    low, high = 1.0, 1e12
    if true_psi <= min_effect_psi or not reached(high):
        return float("inf")
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if reached(middle) else (middle, high)
    return float(np.ceil(high))


def _tail(x: float, df: float, nc: float) -> float:
    return float(noncentral_tail(np.array([x]), np.array([df]), np.array([nc]))[0])
