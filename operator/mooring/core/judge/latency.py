"""Comparing two latency histograms: is the candidate slower than stable by more than tolerated?

Source of the test: Turner, Ly & Grünwald, Generic e-variables for exact sequential k-sample tests
that allow for optional stopping (arXiv 2106.02693).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from mooring.core.judge.evidence import Array

#: By how much per bucket the alternatives tilt stable's histogram towards the slow end.
TILTS: Final[Array] = np.array([0.1, 0.2, 0.4, 0.8])
#: Dirichlet prior per bucket.
PRIOR: Final = 0.5


@lru_cache(maxsize=256)
def shift(edges: tuple[float, ...], ratio: float, *, overflow_low: bool) -> Array:
    """The matrix that turns a histogram into that of latencies divided by ``ratio``.

    Row i says over which buckets the counts of bucket i are spread, in proportion to the overlap on
    a logarithmic scale. Nobody knows how far the last bucket reaches; ``overflow_low`` takes its
    counts as just above its edge, which is what a Fail must do, and else they stay where they are.
    Shape (buckets, buckets), buckets = edges + 1.
    """
    size = len(edges) + 1
    matrix = np.zeros((size, size))
    inner = [math.log(edge) for edge in edges]
    by = math.log(ratio)
    # Of the two open buckets only one end is known: the first stays, the last is decided above.
    matrix[0, 0] = 1.0
    lowest = int(np.searchsorted(inner, inner[-1] - by + 1e-12, side="right"))
    matrix[-1, lowest if overflow_low else size - 1] = 1.0
    for i in range(1, size - 1):
        low, high = inner[i - 1] - by, inner[i] - by
        for j in range(size):
            left = inner[j - 1] if j else -math.inf
            right = inner[j] if j < size - 1 else math.inf
            overlap = min(high, right) - max(low, left)
            if overlap > 0:
                matrix[i, j] = overlap / (high - low)
    matrix /= matrix.sum(axis=1, keepdims=True)
    matrix.setflags(write=False)
    return matrix


def tilt_increment(candidate: Array, stable: Array, past: Array, tilts: Array) -> Array:
    """log of Π (q_c/q̄)^{y_c} · Π (q_s/q̄)^{y_s} over one window, for each tilt.

    ``candidate`` and ``stable`` are the window's histograms y, ``past`` all that both sides showed
    before it. q_s is the posterior mean of the past (Dirichlet ½ each), q_c ∝ q_s·exp(η·j), and
    q̄ = (n_c·q_c + n_s·q_s)/n. Whatever the true histogram is, when both sides have the same the
    expectation is at most 1 (by the inequality of the means), and with it when the candidate is
    faster, since q_c/q̄ rises with j. Counts that a shift has spread over two buckets are no
    exception, by the same inequality. Shapes (n, j), and (n, k) for the result.
    """
    n_c = candidate.sum(axis=1)
    n_s = stable.sum(axis=1)
    part = n_c / np.maximum(n_c + n_s, 1e-300)
    pool = past + PRIOR
    # In terms of ρ = q_c/q_s = exp(η·j)/Σ q_s·exp(η·j): q̄/q_s = π·ρ + (1 − π).
    lean = tilts[:, None] * np.arange(candidate.shape[1], dtype=float)
    norm = (pool / pool.sum(axis=1, keepdims=True)) @ np.exp(lean).T
    log_rho = lean[None, :, :] - np.log(norm)[:, :, None]
    mixed = np.log(part[:, None, None] * np.exp(log_rho) + (1.0 - part)[:, None, None])
    value = np.einsum("nkj,nj->nk", log_rho, candidate)
    value -= np.einsum("nkj,nj->nk", mixed, candidate + stable)
    # With one side empty, nothing can be compared.
    return np.where(((n_c == 0) | (n_s == 0))[:, None], 0.0, value)


def quantile_of(histogram: Array, edges: Sequence[float], share: Array) -> Array:
    """The latency below which ``share`` of each histogram lies; shapes (n, j) and (n,).

    Interpolated within a bucket on a logarithmic scale (the first from zero, linearly); infinity
    when it lies in the last bucket, NaN for an empty histogram.
    """
    total = histogram.sum(axis=1)
    upto = np.cumsum(histogram, axis=1)
    wanted = np.clip(share, 0.0, 1.0) * total
    place = np.minimum((upto < wanted[:, None] - 1e-9).sum(axis=1), histogram.shape[1] - 1)
    rows = np.arange(len(histogram))
    inside = histogram[rows, place]
    below = upto[rows, place] - inside
    part = np.where(inside > 0, (wanted - below) / np.where(inside > 0, inside, 1.0), 1.0)
    part = np.clip(part, 0.0, 1.0)
    known = np.asarray(edges, dtype=float)
    upper = np.append(known, np.inf)[place]
    lower = np.append(0.0, known)[place]
    safe = np.where((lower > 0) & np.isfinite(upper), lower, 1.0)
    top = np.where(np.isfinite(upper), upper, 1.0)
    value = np.where(lower > 0, safe * (top / safe) ** part, upper * np.where(place == 0, part, 1))
    return np.asarray(np.where(total > 0, np.where(np.isfinite(upper), value, np.inf), np.nan))
