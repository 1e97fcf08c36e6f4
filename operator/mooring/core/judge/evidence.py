"""The e-processes by which a candidate is judged, as formulas on counts and nothing else.

An e-process is a non-negative process that starts at 1 and whose expectation is at most 1 at any
stopping time while the null hypothesis holds. By Ville's inequality it exceeds 1/α with
probability at most α, however often one looks. All values here are natural logarithms, since the
processes themselves overflow; arrays have one row per metric under judgement, and every function
works on any number of rows at once.

Sources: Ville, Étude critique de la notion de collectif (1939); Lindon & Malek, Anytime-valid
inference for multinomial count data (arXiv 2011.03567); Turner, Ly & Grünwald, Generic e-variables
for exact sequential k-sample tests (2106.02693).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, betaln

Array = NDArray[np.float64]

#: Rate ratios, as multiples of the tolerated one, for which the Fail process is sensitive.
FAIL_ALTERNATIVES: Final[Array] = np.array([1.5, 2.0, 3.0, 5.0, 10.0, 30.0])
#: Rate ratios, as multiples of the tolerated one, for which the Pass process is sensitive.
PASS_ALTERNATIVES: Final[Array] = np.array([1.0, 0.8, 0.5])
#: Odds, as multiples of those of the objective, at which a miss that begins late is looked for.
LATE_ODDS: Final[Array] = np.array([1.5, 3.0, 10.0, 40.0])
#: Rate ratios at which the likelihood is kept, for the estimate and its interval: 1/8 to 64.
RATIO_GRID: Final[Array] = 2.0 ** (np.arange(-6, 13) / 2)

#: Stands for the logarithm of zero where a finite number is needed.
LOG_ZERO: Final = -np.inf


def log_mean_exp(values: Array) -> Array:
    """log of the mean of exp(values) over the last axis; -inf where all are -inf."""
    peak = np.max(values, axis=-1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(values - peak), axis=-1))
    return np.asarray(total + peak[..., 0] - np.log(values.shape[-1]))


def ratio_increment(
    candidate: Array, both: Array, share: Array, null: Array, ratios: Array
) -> Array:
    """ℓ(r) of one window: how much better the rate ratio r explains its errors than ``null`` does.

    ``candidate`` errors out of ``both`` sides' m = c + s, when ``share`` π = n_c/(n_c+n_s) of the
    requests went to the candidate. Given m, c is binomial with probability πr/(1−π+πr), whatever
    the common error rate is, so

        ℓ(r) = c·ln(r/r0) − m·ln[(1+π(r−1)) / (1+π(r0−1))]

    and exp ℓ has expectation at most 1 at every true ratio on the null's side of r0. Shapes: (n,)
    for the counts and ``null``, (n, k) for ``ratios`` and the result.
    """
    r0 = null[:, None]
    pi = share[:, None]
    better = np.log1p(pi * (ratios - 1.0)) - np.log1p(pi * (r0 - 1.0))
    return np.asarray(candidate[:, None] * np.log(ratios / r0) - both[:, None] * better)


def start_mixture(log_s: Array, windows: Array, increment: Array) -> Array:
    """One window of S_t = (S_{t−1} + 1/(t(t+1)))·exp ℓ_t, the mixture over starting times.

    Plain accumulation hides a failure that begins late: after a quiet day, five times the errors
    take 90 minutes to show. ``windows`` is t, counted from 1, shape (n,); the others are (n, k).
    """
    t = np.maximum(windows, 1.0)
    begin = -(np.log(t) + np.log1p(t))
    return np.asarray(np.logaddexp(log_s, begin[:, None]) + increment)


def mixture_value(log_s: Array, windows: Array) -> Array:
    """log E_t with E_t = Σ_k w_k·(S_t(k) + 1/(t+1)): the weight that has not begun yet stays 1."""
    rest = -np.log1p(np.maximum(windows, 0.0))
    return log_mean_exp(np.logaddexp(log_s, rest[:, None]))


def late_increment(errors: Array, requests: Array, objective: Array) -> Array:
    """ℓ of one window for a share of errors above the objective, at the odds of LATE_ODDS.

    Shapes: (n,) and (n, k). A window may have more errors than requests when slow answers of an
    earlier one come in; they are then all that there is.
    """
    odds = LATE_ODDS * (objective / (1.0 - objective))[:, None]
    p = odds / (1.0 + odds)
    p0 = objective[:, None]
    good = np.maximum(requests - errors, 0.0)[:, None]
    value = errors[:, None] * np.log(p / p0) + good * (np.log1p(-p) - np.log1p(-p0))
    return np.asarray(value)


def log_above(errors: Array, requests: Array, objective: Array) -> Array:
    """log E against p ≤ p0, by a Beta(½,½) mixture truncated to p > p0:

        E = p0^−c (1−p0)^−(n−c) · B(a+c, b+n−c)(1−I_{p0}(a+c, b+n−c)) / [B(a,b)(1−I_{p0}(a,b))]

    Shapes (n,). Where the truncated part underflows, E is 0: that is the safe side, and it is
    computed from the counts anew each time.
    """
    c, n = np.minimum(errors, requests), requests
    half = np.full_like(c, 0.5)
    return _log_truncated(c, n, objective, half, half, above=True)


def log_below(errors: Array, requests: Array, floor: Array) -> Array:
    """log E against p ≥ p_f: the process of :func:`log_above` reversed, with a prior of mean p_f/2.

    For p_f = 0.02 the prior is Beta(½, 49½). Shapes (n,).
    """
    c, n = np.minimum(errors, requests), requests
    return _log_truncated(c, n, floor, np.full_like(c, 0.5), 1.0 / floor - 0.5, above=False)


def _log_truncated(c: Array, n: Array, p0: Array, a: Array, b: Array, *, above: bool) -> Array:
    tail = betaincc if above else betainc
    with np.errstate(divide="ignore"):
        posterior = betaln(a + c, b + n - c) + np.log(tail(a + c, b + n - c, p0))
        prior = betaln(a, b) + np.log(tail(a, b, p0))
    value = posterior - prior - c * np.log(p0) - (n - c) * np.log1p(-p0)
    return np.asarray(np.where(np.isnan(value), LOG_ZERO, value))


def sum_rows(values: Array, rows: NDArray[np.intp], count: int) -> Array:
    """Adds up what belongs to the same row: (w, …) with a row number each, to (count, …)."""
    total = np.zeros((count, *values.shape[1:]))
    np.add.at(total, rows, values)
    return total
