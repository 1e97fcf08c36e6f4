"""p-values of the statistics that need the bins' order: KS, Anderson–Darling, Wasserstein-1.

On bins their distribution depends on the shares: the continuous Kolmogorov p-value is up to five
times too large. All three are functions of one process, √(nm/N)·(F−G), whose limit under no drift
is a Brownian bridge at the pooled distribution function, Cov = F_i(1−F_j) for i ≤ j. So that limit
is simulated, once for all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import kolmogorov

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.distances import (
    Pair,
    anderson_darling,
    cumulative,
    kolmogorov_smirnov,
    steps,
    wasserstein,
)

#: Simulated bridges; the smallest p-value is 1/(1+DRAWS).
DRAWS = 2000
#: Chance is an input of a pure function: the same counts give the same p-value after a restart.
SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class Ordered:
    """Statistics and p-values of the three tests, each of shape (F,)."""

    kolmogorov_smirnov: FloatArray
    kolmogorov_smirnov_p: FloatArray
    anderson_darling: FloatArray
    anderson_darling_p: FloatArray
    wasserstein: FloatArray
    wasserstein_p: FloatArray


def ordered_tests(
    pair: Pair,
    centres: FloatArray,
    *,
    dispersion: FloatArray | float = 1.0,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Ordered:
    """KS, Anderson–Darling and Wasserstein-1 with simulated p-values.

    ``centres`` (F, K) places the bins, NaN for those without an order. Costs
    F × K × ``draws`` normal numbers, so it is for the features that ask for it.
    """
    spread = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), pair.n.shape)
    total = np.maximum(pair.n + pair.m, 1e-300)
    scale = np.sqrt(pair.n * pair.m / total / spread)
    ks, ad = kolmogorov_smirnov(pair), anderson_darling(pair) / spread
    w1 = wasserstein(pair, centres)
    ways = steps(centres, pair.mask)
    observed = np.stack((ks * scale, ad, w1 * scale))
    exceeded = np.zeros_like(observed)
    generator = np.random.default_rng(seed)
    features, bins = pair.mask.shape
    noise = generator.standard_normal((draws, bins))
    pooled = (pair.reference + pair.current) / total[:, None]
    at = cumulative(pair.reference + pair.current)
    for row in range(features):
        simulated = _bridges(noise, pooled[row], at[row], ways[row])
        exceeded[:, row] = (simulated >= observed[:, row, None] - 1e-12).sum(axis=1)
    p = (1 + exceeded) / (1 + draws)
    empty = (pair.n <= 0) | (pair.m <= 0)
    # Beyond the simulation's reach the continuous limit is an upper bound, and finer.
    p[0] = np.minimum(p[0], np.maximum(kolmogorov(observed[0]), 1e-300))
    p[:, empty] = 1.0
    p[2, ways.sum(axis=1) <= 0] = 1.0
    return Ordered(ks, p[0], ad, p[1], w1, p[2])


def _bridges(noise: FloatArray, share: FloatArray, at: FloatArray, ways: FloatArray) -> FloatArray:
    """The three statistics of simulated bridges over one feature's bins, shape (3, draws)."""
    walk = np.cumsum(noise * np.sqrt(share), axis=1)
    bridge = walk - at * walk[:, -1:]
    spread = at * (1 - at)
    weights = np.where(spread > 1e-12, share / np.where(spread > 1e-12, spread, 1.0), 0.0)
    size = np.abs(bridge)
    return np.stack((size.max(axis=1), (bridge**2) @ weights, size @ ways))
