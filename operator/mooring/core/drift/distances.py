"""Distances between two histograms, for all features at once.

Counts come as two arrays of features × bins, ``reference`` R (total n) and ``current`` C (total m),
with a mask of the bins that a feature has. Shares are p = (R+½)/(n+k/2) and q = (C+½)/(m+k/2), so
that an empty bin is a small share and never a division by zero.

For small shifts all of them lie on one scale: Σ(p−q)²/p̄ ≈ PSI ≈ 8·JSD ≈ 8·H², in nats. A PSI of
.1 is a shift of the mean by about .33 standard deviations, .24 about half a one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mooring.core.drift.arrays import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets of counts on the same bins, and the shares that follow from them.

    Attributes:
        reference, current: counts, shape (F, K), 0 where masked.
        mask: which bins a feature has, shape (F, K).
        n, m: totals, shape (F,).
        p, q: smoothed shares, shape (F, K), 0 where masked.
        bins: the number of bins k, shape (F,).
    """

    reference: FloatArray
    current: FloatArray
    mask: BoolArray
    n: FloatArray
    m: FloatArray
    p: FloatArray
    q: FloatArray
    bins: FloatArray

    @staticmethod
    def of(reference: FloatArray, current: FloatArray, mask: BoolArray | None = None) -> Pair:
        """The pair of two count arrays (F, K); without a mask every bin counts."""
        if mask is None:
            mask = np.ones(reference.shape, dtype=np.bool_)
        inside = mask.astype(np.float64)
        reference, current = reference * inside, current * inside
        bins = inside.sum(axis=1)
        n, m = reference.sum(axis=1), current.sum(axis=1)
        half = inside * 0.5
        # Without bins there is nothing to divide; 1 keeps the shares at 0.
        p = (reference + half) / np.maximum(n + bins / 2, 0.5)[:, None]
        q = (current + half) / np.maximum(m + bins / 2, 0.5)[:, None]
        return Pair(reference, current, mask, n, m, p, q, bins)

    @property
    def v(self) -> FloatArray:
        """1/n + 1/m, the scale of every statistic under no drift; infinite without data."""
        with np.errstate(divide="ignore"):
            return 1 / self.n + 1 / self.m


def psi(pair: Pair) -> FloatArray:
    """Population stability index Σ(q−p)·ln(q/p), shape (F,); symmetric in the two sides."""
    ratio = np.log(np.where(pair.mask, pair.q, 1.0) / np.where(pair.mask, pair.p, 1.0))
    return np.asarray(((pair.q - pair.p) * ratio).sum(axis=1), dtype=np.float64)


def jensen_shannon(pair: Pair) -> FloatArray:
    """Jensen–Shannon divergence in nats (0 to ln 2), shape (F,)."""
    middle = np.where(pair.mask, (pair.p + pair.q) / 2, 1.0)

    def to_middle(share: FloatArray) -> FloatArray:
        safe = np.where(pair.mask, share, 1.0)
        return np.asarray(
            (np.where(pair.mask, share, 0.0) * np.log(safe / middle)).sum(axis=1), dtype=np.float64
        )

    return np.maximum(0.0, (to_middle(pair.p) + to_middle(pair.q)) / 2)


def hellinger_squared(pair: Pair) -> FloatArray:
    """Squared Hellinger distance ½Σ(√p−√q)² (0 to 1), shape (F,)."""
    return np.asarray(((np.sqrt(pair.p) - np.sqrt(pair.q)) ** 2).sum(axis=1) / 2, dtype=np.float64)


def total_variation(pair: Pair) -> FloatArray:
    """½Σ|p−q|: the share of rows that would have to be others, shape (F,)."""
    return np.asarray(np.abs(pair.p - pair.q).sum(axis=1) / 2, dtype=np.float64)


def cumulative(counts: FloatArray) -> FloatArray:
    """Distribution function at the upper bound of every bin, shape (F, K); 0 without data."""
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.cumsum(counts, axis=1) / np.maximum(total, 1e-300), dtype=np.float64)


def kolmogorov_smirnov(pair: Pair) -> FloatArray:
    """max|F−G| over the bins' bounds, without smoothing, shape (F,)."""
    gap = np.abs(cumulative(pair.reference) - cumulative(pair.current))
    return np.asarray(gap.max(axis=1, initial=0.0), dtype=np.float64)


def steps(centres: FloatArray, mask: BoolArray) -> FloatArray:
    """The way from each bin's centre to the next one's, shape (F, K); 0 at the last and unordered.

    ``centres`` is NaN in bins without a place (missing, categories): no mass travels to them.
    """
    placed = mask & np.isfinite(centres)
    filled = np.where(placed, centres, 0.0)
    ways = np.zeros_like(filled)
    both = placed[:, 1:] & placed[:, :-1]
    ways[:, :-1] = np.where(both, filled[:, 1:] - filled[:, :-1], 0.0)
    return ways


def wasserstein(pair: Pair, centres: FloatArray) -> FloatArray:
    """Wasserstein-1 distance Σ|F−G|·width in the feature's own units, shape (F,).

    Mass is taken to sit at the bins' centres; what lies beyond the range of the reference counts
    as lying at its end, so this is a lower bound there.
    """
    placed = pair.mask & np.isfinite(centres)
    reference = np.where(placed, pair.reference, 0.0)
    current = np.where(placed, pair.current, 0.0)
    gap = np.abs(cumulative(reference) - cumulative(current))
    both = (reference.sum(axis=1) > 0) & (current.sum(axis=1) > 0)
    way = (gap * steps(centres, pair.mask)).sum(axis=1)
    return np.asarray(np.where(both, way, 0.0), dtype=np.float64)


def anderson_darling(pair: Pair) -> FloatArray:
    """Two-sample Anderson–Darling statistic on bins, shape (F,).

    nm/N · Σ h_j (F−G)²/(H(1−H)) over the bins with 0 < H < 1, H the pooled distribution function
    and h_j the pooled share of bin j (Scholz & Stephens 1987, the form for tied data).
    """
    pooled = pair.reference + pair.current
    total = np.maximum(pair.n + pair.m, 1e-300)
    share = pooled / total[:, None]
    at = cumulative(pooled)
    spread = at * (1 - at)
    inside = spread > 1e-12
    gap = cumulative(pair.reference) - cumulative(pair.current)
    terms = np.where(inside, share * gap**2 / np.where(inside, spread, 1.0), 0.0)
    return np.asarray(pair.n * pair.m / total * terms.sum(axis=1), dtype=np.float64)
