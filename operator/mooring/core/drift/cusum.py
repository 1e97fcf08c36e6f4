"""Windows in a row: when to alarm, with false alarms stated per quarter.

Testing every window at .05 gives 108 false alarms a quarter with Benjamini–Hochberg over hourly
windows. Instead z_t = Φ⁻¹(1−p_t) is summed as S = max(0, S + z − ½) (Page 1954), and S > h alarms:
small shifts that last add up, and one odd window does not count for much.

The mean time between false alarms is Siegmund's (1985) approximation, b = h + 1.166:

    ARL ≈ (e^b − b − 1)/½

which gives 336, 1000 and 2000 windows for h = 3.99, 5.06 and 5.75. As p is for "a shift of at most
PSI₀", it is a bound for every such shift. After S = 0 nothing of the past is left, so the last
window with S = 0 is where an episode starts: the change point.
"""

from __future__ import annotations

import math

import numpy as np

from mooring.core.drift.arrays import FloatArray, IntArray

#: The slack per window: half of the smallest mean of z that is to be found.
ALLOWANCE = 0.5
#: Mean overshoot of a normal random walk over both of its barriers, times two (Siegmund).
_OVERSHOOT = 1.166
SECONDS_PER_QUARTER = 7_889_400.0
"""A quarter of 365.25 days."""


def average_run_length(threshold: float) -> float:
    """Windows between false alarms at threshold h, for standard normal z."""
    b = threshold + _OVERSHOOT
    return (math.exp(b) - b - 1) / ALLOWANCE


def threshold(run_length: float) -> float:
    """The h whose average run length is ``run_length`` windows; at least 0."""
    low, high = 0.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if average_run_length(middle) < run_length else (low, middle)
    return high


def run_length(streams: int, window: float, false_alarms_per_quarter: float) -> float:
    """The run length that each of ``streams`` needs for so many false alarms a quarter in all.

    ``window`` is in seconds.
    """
    return max(streams, 1) * (SECONDS_PER_QUARTER / window) / false_alarms_per_quarter


def step(score: FloatArray, z: FloatArray) -> FloatArray:
    """S after one more window; a NaN in z (not tested) leaves S as it is."""
    advanced = np.maximum(0.0, score + np.nan_to_num(z) - ALLOWANCE)
    return np.asarray(np.where(np.isfinite(z), advanced, score), dtype=np.float64)


def scores(z: FloatArray) -> FloatArray:
    """S after every window of a series z, shape (…, windows), from S = 0."""
    found = np.empty_like(z)
    at = np.zeros(z.shape[:-1])
    for place in range(z.shape[-1]):
        at = step(at, z[..., place])
        found[..., place] = at
    return found


def calibrated_threshold(
    z: FloatArray,
    target: float,
    *,
    block: int,
    paths: int = 64,
    length: int = 2000,
    seed: int = 1,
) -> float:
    """h from the reference's own windows, for windows that depend on one another.

    ``z`` (windows,) are the reference's z, each window against the rest. Paths of ``length`` are
    drawn from it in blocks of ``block`` windows (a day or a week), so the dependence within a
    block is kept; run lengths are counted at several thresholds and carried on to ``target``
    windows by the exponential growth that every CUSUM has. Never below Siegmund's h.
    Raises ValueError with fewer than two blocks: nothing can be learnt from those.
    """
    if z.size < 2 * block:
        raise ValueError(f"{z.size} windows are fewer than two blocks of {block}")
    generator = np.random.default_rng(seed)
    blocks = -(-length // block)
    starts = generator.integers(0, z.size - block + 1, size=(paths, blocks))
    series = z[(starts[:, :, None] + np.arange(block)).reshape(paths, -1)]
    lowest = threshold(target)
    every = np.linspace(1.0, 30.0, 59)
    alarms = _alarms(series, every)
    known = alarms >= 10
    levels, lengths = every[known], np.log(series.size / alarms[known])
    if len(levels) < 3:
        return lowest
    slope, start = np.polyfit(levels[-12:], lengths[-12:], 1)
    if slope <= 0:
        return max(lowest, float(levels[-1]))
    return max(lowest, float((math.log(target) - start) / slope))


def _alarms(series: FloatArray, levels: FloatArray) -> IntArray:
    """How often S passes each level in all paths, starting anew from 0 after each time."""
    at = np.zeros((levels.size, series.shape[0]))
    found = np.zeros(levels.size, dtype=np.int64)
    for place in range(series.shape[1]):
        at = np.maximum(0.0, at + series[:, place] - ALLOWANCE)
        over = at > levels[:, None]
        found += over.sum(axis=1)
        at[over] = 0.0
    return found
