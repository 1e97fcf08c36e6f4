"""Adds the windows of one tick to the evidence of all metrics under judgement, at once.

One row is one metric of one rollout. What the rows differ in stands in :class:`Terms`; a part of a
metric that the settings do not ask for is masked, never branched on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring.core.judge.evidence import (
    FAIL_ALTERNATIVES,
    PASS_ALTERNATIVES,
    RATIO_GRID,
    Array,
    late_increment,
    log_above,
    log_below,
    log_mean_exp,
    mixture_value,
    ratio_increment,
    start_mixture,
    sum_rows,
)
from mooring.core.judge.latency import TILTS, shift, tilt_increment
from mooring.core.judge.memory import Rows
from mooring.core.judge.windows import Windows

#: While stable's CUSUM against the objective is above, stable misses it too.
_ALARM: Final = float(np.log(3.0))
#: It goes no higher, so that it falls soon after stable has recovered.
_ALARM_CAP: Final = 5.0
#: The first process against the objective has this weight; those after a shared outage the rest.
_FIRST: Final = 0.75
#: Stable must have had the requests for so many bad ones at the candidate's rate ...
_TELLING: Final = 3.0
#: ... or so many windows must have passed, before a miss is the candidate's own.
_PATIENCE: Final = 6.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What each row is judged by; shape (rows,) each, NaN where a part is not asked for.

    ``owner``: place of the rollout; ``channel``: which bad requests; ``is_latency``. ``ratio``,
    ``passing_ratio``, ``objective``, ``floor``: r0, r1, p0, p_f. ``phi``: over-dispersion.
    ``alpha``: the metric's part of alpha; ``total_alpha``: all of it, which Pass goes by.
    ``comparable``: the load per pod is alike on both sides, so that latencies can be compared.
    ``alone``: the candidate has all the traffic, so stable cannot tell whose fault a miss is.
    ``edges``: of the rollout's latency grid.
    """

    owner: NDArray[np.intp]
    channel: NDArray[np.intp]
    is_latency: NDArray[np.bool_]
    ratio: Array
    passing_ratio: Array
    objective: Array
    floor: Array
    phi: Array
    alpha: Array
    total_alpha: Array
    comparable: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    edges: Sequence[tuple[float, ...]]

    @property
    def relative(self) -> NDArray[np.bool_]:
        """Rows whose bad requests are compared with stable's."""
        return np.asarray(~self.is_latency & ~np.isnan(self.ratio))

    @property
    def tilted(self) -> NDArray[np.bool_]:
        """Rows whose histograms are compared."""
        return np.asarray(self.is_latency & ~np.isnan(self.ratio))

    @property
    def absolute(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.objective))

    @property
    def bound(self) -> Array:
        """log of what a part of a metric must reach to fail: its parts share the metric's alpha."""
        parts = self.relative.astype(float) + self.tilted + self.absolute
        return np.asarray(np.log(np.maximum(parts, 1.0) / self.alpha))


@dataclass(frozen=True, slots=True)
class Weighed:
    """Evidence after a tick: log E of each part (-inf where there is none) and what follows.

    ``suspended``: the candidate misses the objective, and so does stable, or stable has not had the
    requests to show it. ``failed``: against stable, against the objective, histograms; (rows, 3).
    """

    rows: Rows
    histograms: Array
    relative: Array
    absolute: Array
    tilt: Array
    passing: Array
    suspended: NDArray[np.bool_]
    failed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One entry per window and row of its rollout."""

    row: NDArray[np.intp]
    window: NDArray[np.intp]
    bad: Array
    requests: Array


def weigh(rows: Rows, histograms: Array, windows: Windows, terms: Terms) -> Weighed:
    """One tick. ``histograms``: all latencies so far, (rows, 2, buckets)."""
    pairs = _pair(windows, terms)
    rows = _against_stable(rows, pairs, terms)
    rows, histograms = _compare_histograms(rows, histograms, windows, pairs, terms)
    rows, suspended, missed = _against_objective(rows, pairs, terms)
    relative = _only(terms.relative, mixture_value(rows.fail, rows.windows[:, 0]))
    tilt = _only(terms.tilted, mixture_value(rows.tilt, rows.tilt_windows[:, 0]))
    absolute = _only(terms.absolute, _absolute_value(rows, terms))
    peaks = np.maximum(rows.peaks, np.stack([relative, absolute, tilt], axis=1))
    rows = replace(rows, peaks=peaks)
    bound = terms.bound
    failed = np.stack([relative >= bound, missed, tilt >= bound], axis=1)
    passing = _passing(rows, terms)
    return Weighed(
        rows, histograms, relative, absolute, tilt, passing, suspended, np.asarray(failed)
    )


def _only(mask: NDArray[np.bool_], values: Array) -> Array:
    return np.where(mask, values, -np.inf)


def _pair(windows: Windows, terms: Terms) -> _Pairs:
    """Every window with every row of its rollout; rows of one rollout stand together."""
    rollouts = int(terms.owner[-1]) + 1 if terms.owner.size else 0
    counts = np.bincount(terms.owner, minlength=rollouts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    known = windows.owner < rollouts
    places = np.flatnonzero(known)
    repeat = counts[windows.owner[known]]
    window = np.repeat(places, repeat)
    ends = np.cumsum(repeat)
    within = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - repeat, repeat)
    row = starts[windows.owner[window]] + within
    use = windows.warm[window] | ~terms.is_latency[row]
    row, window = row[use].astype(np.intp), window[use].astype(np.intp)
    bad = windows.bad[window, :, terms.channel[row]]
    return _Pairs(row, window, bad, windows.requests[window])


def _against_stable(rows: Rows, pairs: _Pairs, terms: Terms) -> Rows:
    """Errors relative to stable's: Fail, Pass and the likelihood over the ratio; and the totals."""
    size = len(rows.windows)
    # A bad request may have been started in an earlier window: it needs a request to belong to.
    n = np.maximum(pairs.requests, pairs.bad)
    both = n.sum(axis=1)
    share = np.where(both > 0, n[:, 0] / np.maximum(both, 1.0), 0.0)
    c, m = pairs.bad[:, 0], pairs.bad.sum(axis=1)
    ratio = np.where(np.isnan(terms.ratio), 1.0, terms.ratio)[pairs.row]
    passing = np.where(np.isnan(terms.passing_ratio), 2.0, terms.passing_ratio)[pairs.row]
    used = (terms.relative[pairs.row] & (n > 0).all(axis=1))[:, None]
    phi = terms.phi[pairs.row][:, None]
    fail = ratio_increment(c, m, share, ratio, ratio[:, None] * FAIL_ALTERNATIVES)
    good = ratio_increment(c, m, share, passing, ratio[:, None] * PASS_ALTERNATIVES)
    one = np.ones_like(ratio)
    grid = ratio_increment(
        c, m, share, one, np.broadcast_to(RATIO_GRID, (len(one), RATIO_GRID.size))
    )
    step = sum_rows(np.where(used, fail / phi, 0.0), pairs.row, size)
    seen = sum_rows(used.astype(float), pairs.row, size)[:, 0] > 0
    windows = rows.windows + seen[:, None]
    mixed = start_mixture(rows.fail, windows[:, 0], step)
    totals = np.stack([pairs.bad, pairs.requests], axis=2).reshape(len(pairs.row), 4)
    return replace(
        rows,
        windows=windows,
        fail=np.where(seen[:, None], mixed, rows.fail),
        passing=rows.passing + sum_rows(np.where(used, good / phi, 0.0), pairs.row, size),
        grid=rows.grid + sum_rows(np.where(used, grid / phi, 0.0), pairs.row, size),
        totals=rows.totals + sum_rows(totals, pairs.row, size),
    )


def _against_objective(
    rows: Rows, pairs: _Pairs, terms: Terms
) -> tuple[Rows, NDArray[np.bool_], NDArray[np.bool_]]:
    """The share of bad requests against the objective; with rows, what is suspended and missed.

    A shared outage is not the candidate's fault. While stable misses the objective as well the
    Fail is suspended, and what the candidate showed meanwhile is dropped when stable has recovered:
    its process begins anew, each further beginning with less weight, so that all of them together
    spend no more than their alpha. Once the candidate has all the traffic stable's CUSUM is over:
    it would stay as it was for ever, and suspend whatever the candidate does.
    """
    size = len(rows.windows)
    if not terms.absolute.any():
        return rows, np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    sums = sum_rows(np.concatenate([pairs.bad, pairs.requests], axis=1), pairs.row, size)
    c, s, n_c, n_s = (sums[:, place] for place in range(4))
    used = terms.absolute
    p0 = np.where(used, terms.objective, 0.5)
    phi = terms.phi
    n_c, n_s = np.maximum(n_c, c), np.maximum(n_s, s)
    seen = used & (n_c > 0)
    windows = rows.late_windows + seen[:, None]
    step = late_increment(c, n_c, p0) / phi[:, None]
    late = np.where(seen[:, None], start_mixture(rows.late, windows[:, 0], step), rows.late)
    since = rows.since + np.where(used[:, None], np.stack([c, n_c], axis=1), 0.0)
    stable_step = late_increment(s, n_s, p0) / phi[:, None]
    alarm = np.clip(rows.alarm + np.where(used[:, None], stable_step, 0.0), 0.0, _ALARM_CAP)
    alarm = np.where(terms.alone[:, None], 0.0, alarm)
    moved = replace(rows, late_windows=windows, late=late, since=since, alarm=alarm)
    crossed = used & (_absolute_value(moved, terms) >= terms.bound)
    wait = np.where(crossed[:, None], rows.wait + np.stack([n_s, np.ones(size)], axis=1), 0.0)
    rate = since[:, 0] / np.maximum(since[:, 1], 1.0)
    telling = (wait[:, 0] * rate >= _TELLING) | (wait[:, 1] >= _PATIENCE) | terms.alone
    stable_misses = alarm.max(axis=1) >= _ALARM
    suspended = crossed & (stable_misses | ~telling)
    tainted = (rows.tainted[:, 0] > 0) | (crossed & stable_misses)
    over = tainted & ~stable_misses
    missed = crossed & ~suspended & ~tainted
    keep = ~over[:, None]
    return (
        replace(
            moved,
            late_windows=np.where(keep, windows, 0.0),
            late=np.where(keep, late, -np.inf),
            since=np.where(keep, since, 0.0),
            wait=np.where(keep, wait, 0.0),
            tainted=(tainted & ~over).astype(float)[:, None],
            restarts=rows.restarts + over[:, None],
        ),
        suspended & ~over,
        missed,
    )


def _absolute_value(rows: Rows, terms: Terms) -> Array:
    """log E against the objective: half the Beta mixture, half the mixture over starting times."""
    if not terms.absolute.any():
        return np.full(len(terms.owner), -np.inf)
    p0 = np.where(terms.absolute, terms.objective, 0.5)
    tempered = rows.since / terms.phi[:, None]
    whole = log_above(tempered[:, 0], tempered[:, 1], p0)
    late = mixture_value(rows.late, rows.late_windows[:, 0])
    k = np.maximum(rows.restarts[:, 0], 1.0)
    weight = np.where(rows.restarts[:, 0] == 0, _FIRST, (1 - _FIRST) / (k * (k + 1)))
    return log_mean_exp(np.stack([whole, late], axis=1)) + np.log(weight)


def _compare_histograms(
    rows: Rows, histograms: Array, windows: Windows, pairs: _Pairs, terms: Terms
) -> tuple[Rows, Array]:
    """Latencies against stable's, the candidate's first divided by what is tolerated."""
    size = len(rows.windows)
    if not terms.is_latency.any():
        return rows, histograms
    both = windows.latency[pairs.window] * terms.is_latency[pairs.row][:, None, None]
    used = terms.tilted & terms.comparable
    chosen = used[pairs.row] & (both.sum(axis=2) > 0).all(axis=1)
    seen = np.zeros(size, dtype=bool)
    tilt_step, pass_step = np.zeros((size, TILTS.size)), np.zeros((size, TILTS.size))
    if chosen.any():
        row = pairs.row[chosen]
        phi = terms.phi[row][:, None]
        seen[row] = True
        for step, ratio, sign, low in (
            (tilt_step, terms.ratio, 1.0, True),
            (pass_step, terms.passing_ratio, -1.0, False),
        ):
            moved = _shifted(both[chosen][:, 0], row, terms, ratio, low=low)
            past = _shifted(histograms[row, 0], row, terms, ratio, low=low) + histograms[row, 1]
            gained = tilt_increment(moved, both[chosen][:, 1], past, sign * TILTS)
            np.add(step, sum_rows(gained / phi, row, size), out=step)
    counted = rows.tilt_windows + seen[:, None]
    mixed = start_mixture(rows.tilt, counted[:, 0], tilt_step)
    rows = replace(
        rows,
        tilt_windows=counted,
        tilt=np.where(seen[:, None], mixed, rows.tilt),
        tilt_passing=rows.tilt_passing + pass_step,
    )
    return rows, histograms + sum_rows(both, pairs.row, size)


def _shifted(
    counts: Array, row: NDArray[np.intp], terms: Terms, ratios: Array, *, low: bool
) -> Array:
    """Histograms of latencies divided by each row's ratio; few ratios and grids are in use."""
    keys = [(terms.edges[r], float(ratios[r])) for r in row.tolist()]
    result = np.zeros_like(counts)
    for edges, ratio in sorted(set(keys)):
        same = np.array([key == (edges, ratio) for key in keys])
        matrix = shift(edges, ratio, overflow_low=low)
        # The batch may be padded to a finer grid of another rollout.
        moved = np.zeros((int(same.sum()), counts.shape[1]))
        moved[:, : len(matrix)] = counts[same][:, : len(matrix)] @ matrix
        result[same] = moved
    return result


def _passing(rows: Rows, terms: Terms) -> Array:
    """log E of Pass: the mean of the relative and of the absolute part, or the one there is.

    Its null is that the candidate is worse than both bounds, so each part alone is an e-process
    under it, and their mean too.
    """
    floor_used = ~np.isnan(terms.floor)
    floor = np.where(floor_used, terms.floor, 0.5)
    tempered = rows.totals / terms.phi[:, None]
    below = log_below(tempered[:, 0], tempered[:, 1], floor)
    compared = np.where(
        terms.is_latency, log_mean_exp(rows.tilt_passing), log_mean_exp(rows.passing)
    )
    ratio_used = ~np.isnan(terms.ratio)
    compared = np.where(ratio_used, compared, -np.inf)
    below = np.where(floor_used, below, -np.inf)
    parts = ratio_used.astype(float) + floor_used
    return np.asarray(np.logaddexp(compared, below) - np.log(np.maximum(parts, 1.0)))
