"""Numbers and sentences about each metric, from its evidence: what status and Events show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring.core.judge.edges import snap
from mooring.core.judge.evidence import PASS_ALTERNATIVES, Array, log_mean_exp
from mooring.core.judge.intervals import (
    distribution_band,
    rate_interval,
    ratio_interval,
    samples_to_pass,
)
from mooring.core.judge.latency import quantile_of
from mooring.core.judge.memory import Rows
from mooring.core.judge.settings import Analysis, ErrorRate, Latency, Metric
from mooring.core.judge.verdicts import Estimate, MetricJudgement, Verdict
from mooring.core.judge.weigh import Terms, Weighed

#: Envoy records latency in whole milliseconds.
_COARSE: Final = 0.002
_UNTIMED: Final = (
    "the routers' latencies are not scraped: let Prometheus keep "
    "envoy_cluster_canary_upstream_rq_time_bucket"
)


@dataclass(frozen=True, slots=True)
class Line:
    """What is to be said of one row; plain numbers, since many rows are read one by one."""

    candidate: list[float]
    stable: list[float]
    ratio: list[float]
    needed: float
    evidence: float
    log_evidence: float
    p_value: float
    totals: list[float]
    passed: bool
    failed: list[bool]
    suspended: bool
    incomparable: bool


def lines(weighed: Weighed, terms: Terms, quantiles: Array) -> list[Line]:
    """All estimates of a tick. ``quantiles``: the quantile of latency rows, else NaN."""
    rows = weighed.rows
    candidate, stable, ratio = _of_rates(rows, terms)
    of = np.flatnonzero(terms.is_latency)
    if of.size:
        alpha = terms.total_alpha[of]
        seconds = _of_quantiles(weighed.histograms[of], quantiles[of], alpha, terms, of)
        candidate[of], stable[of], ratio[of] = seconds
    parts = np.stack([weighed.relative, weighed.absolute, weighed.tilt], axis=1)
    asked = np.stack([terms.relative, terms.absolute, terms.tilted], axis=1).sum(axis=1)
    with np.errstate(over="ignore"):
        p_value = np.minimum(1.0, np.maximum(asked, 1) * np.exp(-rows.peaks.max(axis=1)))
    columns = (
        candidate,
        stable,
        ratio,
        _needed(weighed, terms),
        np.maximum(parts.max(axis=1) / terms.bound, 0.0),
        parts.max(axis=1),
        p_value,
        rows.totals,
        weighed.passing >= -np.log(terms.total_alpha),
        weighed.failed,
        weighed.suspended,
        terms.tilted & ~terms.comparable,
    )
    return [Line(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]


def _of_rates(rows: Rows, terms: Terms) -> tuple[Array, Array, Array]:
    alpha = terms.total_alpha
    sides = [np.full((len(alpha), 3), np.nan), np.full((len(alpha), 3), np.nan)]
    ratio = np.full((len(alpha), 3), np.nan)
    rates = np.flatnonzero(~terms.is_latency)
    # Both sides in one go, the candidate's rows first.
    bad = np.concatenate([rows.totals[rates, 0], rows.totals[rates, 2]])
    all_ = np.concatenate([rows.totals[rates, 1], rows.totals[rates, 3]])
    low, high = rate_interval(bad, all_, np.tile(alpha[rates], 2))
    value = np.where(all_ > 0, np.minimum(bad / np.maximum(all_, 1.0), 1.0), np.nan)
    found = np.stack([value, low, high], axis=1)
    sides[0][rates], sides[1][rates] = found[: len(rates)], found[len(rates) :]
    relative = np.flatnonzero(terms.relative)
    ratio[relative] = np.stack(ratio_interval(rows.grid[relative], alpha[relative]), axis=1)
    return sides[0], sides[1], ratio


def _of_quantiles(
    histograms: Array, quantiles: Array, alpha: Array, terms: Terms, of: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Quantiles of both sides and their ratio; rows of the same grid are done together."""
    sides = np.full((2, len(of), 3), np.nan)
    edges = [terms.edges[row] for row in of.tolist()]
    for grid in sorted(set(edges)):
        same = np.array([one == grid for one in edges])
        width = len(grid) + 1
        # Both sides in one go, and of each the quantile and the two ends of its band.
        counts = np.concatenate([histograms[same, 0, :width], histograms[same, 1, :width]])
        q, level = np.tile(quantiles[same], 2), np.tile(alpha[same], 2)
        band = np.zeros(len(counts))
        for each in np.unique(level):
            at = level == each
            band[at] = distribution_band(counts[at].sum(axis=1), float(each) / 2)
        shares = np.concatenate([q, q - band, q + band])
        value, low, high = quantile_of(np.tile(counts, (3, 1)), grid, shares).reshape(3, -1)
        low = np.where(q - band > 0, low, 0.0)
        high = np.where(q + band < 1, high, np.inf)
        found = np.stack([value, low, high], axis=1)
        sides[:, same] = found.reshape(2, -1, 3)
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
    found = np.full(len(target), np.nan)
    open_ = np.flatnonzero(weighed.passing < -np.log(terms.total_alpha))
    missing = np.maximum(target - compared, 0.0)
    found[open_] = samples_to_pass(
        rows.totals[open_], terms.floor[open_], terms.phi[open_], target[open_], growth[open_],
        missing[open_],
    )  # fmt: skip
    return found


def metric_judgement(
    metric: Metric, analysis: Analysis, line: Line, *, fresh: bool, timed: bool = True
) -> MetricJudgement:
    """The verdict of one counted metric, with a sentence and its numbers.

    ``timed``: the router's histograms are read.
    """
    samples, others = int(line.totals[1]), int(line.totals[3])
    candidate, stable = _estimate(line.candidate), _estimate(line.stable)
    more = None if line.passed or not math.isfinite(line.needed) else int(line.needed)
    if any(line.failed):
        verdict, reason = Verdict.FAIL, _why_failed(metric, line.failed, candidate, stable, samples)
    elif not fresh:
        verdict, reason = Verdict.NO_DATA, "no router pod gave a fresh sample"
    elif isinstance(metric.rule, Latency) and not timed:
        verdict, reason = Verdict.NO_DATA, _UNTIMED
    elif line.passed:
        verdict, reason = Verdict.PASS, _describe(metric, candidate, stable, samples)
    else:
        verdict, reason = Verdict.INCONCLUSIVE, _why_open(metric, analysis, line, more)
    return MetricJudgement(
        metric.name, verdict, reason, True, line.evidence, line.p_value,
        candidate, stable, _estimate(line.ratio), samples, others, more,
        line.log_evidence if math.isfinite(line.log_evidence) else None,
    )  # fmt: skip


def _estimate(values: list[float]) -> Estimate | None:
    return None if any(map(math.isnan, values)) else Estimate(*values)


def _why_failed(
    metric: Metric,
    failed: list[bool],
    candidate: Estimate | None,
    stable: Estimate | None,
    samples: int,
) -> str:
    told = _describe(metric, candidate, stable, samples)
    rule = metric.rule
    shown = math.nan if candidate is None else candidate.value
    if failed[1] and isinstance(rule, ErrorRate) and rule.max is not None:
        return f"{told}: {_late(shown <= rule.max)}more than the objective of {rule.max:.2%}"
    if failed[1] and isinstance(rule, Latency) and rule.max is not None:
        words = f"slower than the objective of {time_text(rule.max)}"
        return f"{told}: {_late(shown <= rule.max)}{words}"
    limit = rule.max_ratio if isinstance(rule, ErrorRate | Latency) else None
    if limit is None:
        return told
    tolerated = math.nan if stable is None else limit * stable.value
    return f"{told}: {_late(shown <= tolerated)}more than {limit:g} times stable"


def _late(fine_in_all: bool) -> str:
    """What began late shows little in an estimate over the whole time, and fails all the same."""
    return "of late " if fine_in_all else ""


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


def _why_open(metric: Metric, analysis: Analysis, line: Line, more: int | None) -> str:
    rule = metric.rule
    if line.suspended:
        return "it misses the objective, but stable does too or has had too few requests"
    if line.totals[1] == 0:
        return "the candidate has had no requests yet"
    compared = isinstance(rule, ErrorRate | Latency) and rule.max_ratio is not None
    if compared and line.totals[3] == 0:
        return "stable has had no requests to compare with"
    notes = []
    if line.incomparable:
        notes.append("the load per pod differs, so latency is not compared with stable")
    if isinstance(rule, Latency) and rule.max is not None:
        edge = snap(analysis.edges, rule.max)
        if edge is not None and not math.isclose(analysis.edges[edge], rule.max):
            notes.append(f"the objective is taken as {time_text(analysis.edges[edge])}")
        if rule.max < _COARSE:
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
