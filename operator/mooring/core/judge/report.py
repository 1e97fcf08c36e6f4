"""Numbers and sentences about each metric, from its evidence: what status and Events show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring.core.judge.evidence import PASS_ALTERNATIVES, Array, log_mean_exp
from mooring.core.judge.intervals import (
    distribution_band,
    rate_interval,
    ratio_interval,
    samples_to_pass,
)
from mooring.core.judge.latency import quantile_of, snap
from mooring.core.judge.memory import Rows
from mooring.core.judge.settings import Analysis, ErrorRate, Latency, Metric
from mooring.core.judge.verdicts import Estimate, MetricJudgement, Verdict
from mooring.core.judge.weigh import Terms, Weighed

#: Envoy records latency in whole milliseconds.
_COARSE: Final = 0.002


@dataclass(frozen=True, slots=True)
class Figures:
    """Estimates of all rows: (rows,) each, value, low and high in the last axis where there are."""

    candidate: Array
    stable: Array
    ratio: Array
    needed: Array
    progress: Array
    p_value: Array


def figures(weighed: Weighed, terms: Terms, quantiles: Array) -> Figures:
    """All estimates of a tick. ``quantiles``: the quantile of latency rows, else NaN."""
    rows = weighed.rows
    alpha = terms.total_alpha
    candidate, stable, ratio = _of_rates(rows, alpha)
    latency = terms.is_latency
    if latency.any():
        of = np.flatnonzero(latency)
        seconds = _of_quantiles(weighed.histograms[of], quantiles[of], alpha[of], terms, of)
        candidate[of], stable[of], ratio[of] = seconds
    parts = np.stack([weighed.relative, weighed.absolute, weighed.tilt], axis=1)
    progress = np.maximum(parts.max(axis=1) / terms.bound, 0.0)
    asked = np.stack([terms.relative, terms.absolute, terms.tilted], axis=1).sum(axis=1)
    with np.errstate(over="ignore"):
        p_value = np.minimum(1.0, np.maximum(asked, 1) * np.exp(-rows.peaks.max(axis=1)))
    return Figures(candidate, stable, ratio, _needed(weighed, terms), progress, p_value)


def _of_rates(rows: Rows, alpha: Array) -> tuple[Array, Array, Array]:
    sides = []
    for at in (0, 2):
        bad, all_ = rows.totals[:, at], rows.totals[:, at + 1]
        low, high = rate_interval(bad, all_, alpha)
        value = np.where(all_ > 0, np.minimum(bad / np.maximum(all_, 1.0), 1.0), np.nan)
        sides.append(np.stack([value, low, high], axis=1))
    return sides[0], sides[1], np.stack(ratio_interval(rows.grid, alpha), axis=1)


def _of_quantiles(
    histograms: Array, quantiles: Array, alpha: Array, terms: Terms, of: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Quantiles of both sides and their ratio; rows of the same grid are done together."""
    sides = np.full((2, len(of), 3), np.nan)
    edges = [terms.edges[row] for row in of.tolist()]
    for grid in sorted(set(edges)):
        same = np.array([one == grid for one in edges])
        width = len(grid) + 1
        for side in (0, 1):
            counts = histograms[same, side, :width]
            band = np.zeros(len(counts))
            for level in np.unique(alpha[same]):
                at = alpha[same] == level
                band[at] = distribution_band(counts[at].sum(axis=1), float(level) / 2)
            q = quantiles[same]
            value = quantile_of(counts, grid, q)
            low = np.where(q - band > 0, quantile_of(counts, grid, q - band), 0.0)
            high = np.where(q + band < 1, quantile_of(counts, grid, q + band), np.inf)
            sides[side, same] = np.stack([value, low, high], axis=1)
    candidate, stable = sides
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.stack(
            [
                candidate[:, 0] / stable[:, 0],
                candidate[:, 1] / stable[:, 2],
                candidate[:, 2] / stable[:, 1],
            ],
            axis=1,
        )
    return candidate, stable, ratio


def _needed(weighed: Weighed, terms: Terms) -> Array:
    """Candidate requests until Pass, if rates stay as they were; NaN when it cannot be said."""
    rows = weighed.rows
    n_c, n_s = np.maximum(rows.totals[:, 1], 1.0), np.maximum(rows.totals[:, 3], 1.0)
    c, s = rows.totals[:, 0] / n_c, rows.totals[:, 2] / n_s
    share = (n_c / (n_c + n_s))[:, None]
    null = np.where(np.isnan(terms.passing_ratio), 2.0, terms.passing_ratio)[:, None]
    tried = np.where(np.isnan(terms.ratio), 1.0, terms.ratio)[:, None] * PASS_ALTERNATIVES
    gain = c[:, None] * np.log(tried / null)
    both = (c + s * n_s / n_c)[:, None]
    gain = gain - both * (np.log1p(share * (tried - 1)) - np.log1p(share * (null - 1)))
    growth = gain.max(axis=1) / terms.phi
    growth = np.where(terms.is_latency, rows.tilt_passing.max(axis=1) / n_c, growth)
    growth = np.where(np.isnan(terms.ratio), 0.0, growth)
    parts = (~np.isnan(terms.ratio)).astype(float) + ~np.isnan(terms.floor)
    target = np.log(np.maximum(parts, 1.0) / terms.total_alpha)
    compared = np.where(
        terms.is_latency, log_mean_exp(rows.tilt_passing), log_mean_exp(rows.passing)
    )
    return samples_to_pass(
        rows.totals, terms.floor, terms.phi, target, growth, np.maximum(target - compared, 0.0)
    )


def metric_judgement(
    metric: Metric,
    analysis: Analysis,
    weighed: Weighed,
    terms: Terms,
    numbers: Figures,
    row: int,
    *,
    fresh: bool,
) -> MetricJudgement:
    """The verdict of one counted metric, with a sentence and its numbers."""
    totals = weighed.rows.totals[row]
    samples, others = int(totals[1]), int(totals[3])
    needed = numbers.needed[row]
    passed = bool(weighed.passing[row] >= -math.log(analysis.alpha))
    failed = weighed.failed[row]
    candidate, stable = _estimate(numbers.candidate[row]), _estimate(numbers.stable[row])
    ratio = _estimate(numbers.ratio[row])
    more = None if passed or not math.isfinite(needed) else int(needed)
    if failed.any():
        verdict, reason = Verdict.FAIL, _why_failed(metric, failed, candidate, stable, samples)
    elif not fresh:
        verdict, reason = Verdict.NO_DATA, "no router pod gave a fresh sample"
    elif passed:
        verdict, reason = Verdict.PASS, _describe(metric, candidate, stable, samples)
    else:
        verdict = Verdict.INCONCLUSIVE
        reason = _why_open(metric, analysis, weighed, terms, row, samples, others, more)
    return MetricJudgement(
        metric.name, verdict, reason, True, float(numbers.progress[row]),
        float(numbers.p_value[row]), candidate, stable, ratio, samples, others, more,
    )  # fmt: skip


def _estimate(values: Array) -> Estimate | None:
    value, low, high = (float(one) for one in values)
    return (
        None
        if math.isnan(value) or math.isnan(low) or math.isnan(high)
        else (Estimate(value, low, high))
    )


def _why_failed(
    metric: Metric,
    failed: NDArray[np.bool_],
    candidate: Estimate | None,
    stable: Estimate | None,
    samples: int,
) -> str:
    told = _describe(metric, candidate, stable, samples)
    rule = metric.rule
    if failed[1] and isinstance(rule, ErrorRate) and rule.max is not None:
        return f"{told}: more than the objective of {rule.max:.4g}"
    if failed[1] and isinstance(rule, Latency) and rule.max is not None:
        return f"{told}: slower than the objective of {time_text(rule.max)}"
    limit = rule.max_ratio if isinstance(rule, ErrorRate | Latency) else None
    return f"{told}: more than {limit:g} times stable" if limit is not None else told


def _describe(
    metric: Metric, candidate: Estimate | None, stable: Estimate | None, samples: int
) -> str:
    if candidate is None:
        return f"{samples:,} requests"
    if isinstance(metric.rule, Latency):
        shown = f"p{metric.rule.quantile * 100:g} is {time_text(candidate.value)}"
        against = "" if stable is None else f" against {time_text(stable.value)} of stable"
    else:
        shown = f"{candidate.value:.2%} of the attempts fail"
        against = "" if stable is None else f" against {stable.value:.2%} on stable"
    return f"{shown}{against}, over {samples:,} requests"


def _why_open(
    metric: Metric,
    analysis: Analysis,
    weighed: Weighed,
    terms: Terms,
    row: int,
    samples: int,
    others: int,
    more: int | None,
) -> str:
    if weighed.suspended[row]:
        return (
            "the candidate misses the objective, but stable misses it too or has too few requests"
        )
    if samples == 0:
        return "the candidate has had no requests yet"
    if not np.isnan(terms.ratio[row]) and others == 0:
        return "stable has had no requests to compare with"
    notes = []
    if terms.tilted[row] and not terms.comparable[row]:
        notes.append("the load per pod differs, so latency is not compared with stable")
    if isinstance(metric.rule, Latency) and metric.rule.max is not None:
        edge = snap(analysis.edges, metric.rule.max)
        if edge is not None and not math.isclose(analysis.edges[edge], metric.rule.max):
            notes.append(f"the objective is taken as {time_text(analysis.edges[edge])}")
        if metric.rule.max < _COARSE:
            notes.append("the router records whole milliseconds, too coarse for this objective")
    enough = "more requests are needed" if more is None else f"about {more:,} more requests needed"
    return "; ".join([enough, *notes])


def time_text(seconds: float) -> str:
    """A latency for people: 0.3 becomes 300 ms; infinity lies beyond the last bucket."""
    if math.isinf(seconds):
        return "more than the largest bucket"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def quantiles_of(metrics: Sequence[Metric]) -> list[float]:
    """The quantile of each latency metric, NaN for the others."""
    return [m.rule.quantile if isinstance(m.rule, Latency) else math.nan for m in metrics]
