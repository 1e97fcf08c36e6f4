"""Estimates with intervals that hold at every look, and how many samples are still needed.

Sources: Howard & Ramdas, Sequential estimation of quantiles with applications to A/B testing and
best-arm identification (arXiv 1906.09712); Lindon, Sanden & Shirikian, Rapid regression detection
in software deployments through sequential testing (2205.14762).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import betaln

from mooring.core.judge.evidence import RATIO_GRID, Array, log_below, log_mean_exp

_A: Final = 0.85
_BISECTIONS: Final = 28
#: Logits beyond this are taken as 0 and 1.
_FAR: Final = 32.0
#: Points between two of the grid at which the likelihood over the ratio is read off.
_FINENESS: Final = 16


def rate_interval(bad: Array, requests: Array, alpha: Array) -> tuple[Array, Array]:
    """A confidence sequence for a share: the p that a Beta(½,½) mixture does not refute.

    {p : B(½+c, ½+n−c)/B(½,½) < p^c (1−p)^{n−c} / α}; shapes (n,). Found by bisection on the
    logit.
    """
    c, n = np.minimum(bad, requests), requests
    ceiling = betaln(0.5 + c, 0.5 + n - c) - betaln(0.5, 0.5) + np.log(alpha)
    middle = (c + 0.5) / (n + 1.0)
    # Both ends at once: the first row looks downwards, the second upwards.
    inner = np.tile(np.log(middle) - np.log1p(-middle), (2, 1))
    outer = np.stack([np.full_like(middle, -_FAR), np.full_like(middle, _FAR)])
    for _ in range(_BISECTIONS):
        between = (inner + outer) / 2
        # ln p = −ln(1+e^−x) and ln(1−p) = ln p − x of the logit x.
        log_p = -np.logaddexp(0.0, -between)
        good = n * log_p - (n - c) * between > ceiling
        inner = np.where(good, between, inner)
        outer = np.where(good, outer, between)
    low, high = 1.0 / (1.0 + np.exp(-outer))
    low = np.where(c > 0, low, 0.0)
    high = np.where(c < n, high, 1.0)
    return np.minimum(low, middle), np.maximum(high, middle)


def ratio_interval(grid: Array, alpha: Array) -> tuple[Array, Array, Array]:
    """Estimate and confidence sequence of the rate ratio, from its log-likelihood on RATIO_GRID.

    The likelihood conditions on each window's errors, so rates and weights may change. A ratio is
    refuted when the mean likelihood over the grid exceeds its own 1/α times. Shape (n, RATIO_GRID)
    to three of (n,): estimate (NaN without errors), low (0 below the grid), high (infinity above).
    """
    known = np.ptp(grid, axis=1) > 0
    steps = np.log(RATIO_GRID)
    fine = np.linspace(steps[0], steps[-1], _FINENESS * (len(steps) - 1) + 1)
    curves = _interpolate(grid, steps, fine)
    mean = log_mean_exp(grid)[:, None]
    inside = curves > mean + np.log(alpha)[:, None]
    best = np.argmax(curves, axis=1)
    inside[np.arange(len(grid)), best] = True
    first = np.argmax(inside, axis=1)
    last = inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)
    # Without errors on the candidate the likelihood falls all along: the estimate is none at all.
    estimate = np.where(known, np.where(best > 0, np.exp(fine[best]), 0.0), np.nan)
    low = np.where(known & (first > 0), np.exp(fine[first]), 0.0)
    high = np.where(known & (last < len(fine) - 1), np.exp(fine[last]), np.inf)
    return estimate, low, high


def _interpolate(grid: Array, steps: Array, fine: Array) -> Array:
    """Quadratic between grid points (the likelihood is smooth and near its top a parabola)."""
    width = steps[1] - steps[0]
    place = np.clip(np.rint((fine - steps[0]) / width).astype(int), 1, len(steps) - 2)
    t = (fine - steps[place]) / width
    before, at, after = grid[:, place - 1], grid[:, place], grid[:, place + 1]
    return np.asarray(at + t * (after - before) / 2 + t * t * (after - 2 * at + before) / 2)


@lru_cache(maxsize=64)
def _lil_constant(alpha: float) -> float:
    """C for which the empirical process bound of slope 0.85 has error α (Theorem 2 there).

    α(C) = inf over η of 4·e^{−γ²C}·(1 + 1/((γ²−1)·ln η)), γ² = (2/η)(0.85 − √(2(η−1)/C))².
    """
    etas = 1.0 + np.geomspace(1e-5, 2 * _A * _A - 1, 4000)

    def error(constant: float) -> float:
        root = np.maximum(_A - np.sqrt(2 * (etas - 1) / constant), 0.0)
        gamma = 2 / etas * root**2
        usable = gamma > 1
        if not usable.any():
            return math.inf
        g, eta = gamma[usable], etas[usable]
        return float(np.min(4 * np.exp(-g * constant) * (1 + 1 / ((g - 1) * np.log(eta)))))

    low, high = 1.0, 200.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > alpha else (low, middle)
    return high


def distribution_band(samples: Array, alpha: float, least: float = 1.0) -> Array:
    """How far an empirical distribution function is from the true one, at every number of samples.

    ‖F̂_t − F‖∞ ≤ 0.85·√((ln(1 + ln(t/m)) + C)/t) for all t ≥ m with probability 1 − α; with m = 1
    that is the 0.85·√((ln ln(e·t) + 0.8·ln(1612/α))/t) of the paper, C solved instead of bounded.
    Infinity below ``least`` = m.
    """
    t = np.maximum(samples, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inner = np.log1p(np.log(np.maximum(t / least, 1.0)))
    bound = _A * np.sqrt((inner + _lil_constant(alpha)) / t)
    return np.asarray(np.where(samples >= least, bound, np.inf))


def samples_to_pass(
    totals: Array, floor: Array, phi: Array, share_of_bound: Array, growth: Array, missing: Array
) -> Array:
    """About how many more candidate requests Pass takes, if all goes on as it did.

    The absolute part alone reaches the bound when n requests at the candidate's rate do, found by
    doubling and bisection; the relative part grows by ``growth`` nats a request and lacks
    ``missing``. The sooner of the two; NaN when neither gets there. ``share_of_bound``: what the
    absolute part must reach by itself (nats). Shapes (n,), totals (n, 4).
    """
    c, n = totals[:, 0], totals[:, 1]
    used = ~np.isnan(floor)
    p_f = np.where(used, floor, 0.5)
    rate = c / np.maximum(n, 1.0)

    def short(extra: Array) -> Array:
        value = log_below((c + rate * extra) / phi, (n + extra) / phi, p_f)
        return np.asarray(value < share_of_bound)

    low, high = np.zeros_like(n), np.full_like(n, 2.0**40)
    never = short(high) | ~used
    for _ in range(12):
        # On a logarithmic scale of 40 doublings: within a percent after 12 steps.
        middle = np.sqrt((low + 1.0) * (high + 1.0)) - 1.0
        lacking = short(middle)
        low = np.where(lacking, middle, low)
        high = np.where(lacking, high, middle)
    absolute = np.where(never, np.inf, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(growth > 0, missing / np.where(growth > 0, growth, 1.0), np.inf)
    sooner = np.ceil(np.maximum(np.minimum(absolute, relative), 1.0))
    return np.asarray(np.where(np.isfinite(sooner), sooner, np.nan))
