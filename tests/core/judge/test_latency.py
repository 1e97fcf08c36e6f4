"""Latency: which shifts are found how soon, what is compared with what, and what is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from tests.core.judge.rollouts import BOTH, EDGES, FAST, OBJECTIVE, SLOW, Rollout

from mooring.core.judge import Analysis, Latency, Metric, Pods, Verdict
from mooring.core.judge.edges import snap
from mooring.core.judge.evidence import mixture_value, start_mixture
from mooring.core.judge.intervals import distribution_band
from mooring.core.judge.latency import TILTS, quantile_of, shift, tilt_increment

SIGMA = 0.5
BOUND = math.log(20)


def shares(factor: float, scale: float) -> np.ndarray:
    """A lognormal with σ = 0.5 over a geometric grid with that factor, scaled."""
    edges = np.arange(-12, 13) * math.log(factor)
    upto = ndtr((edges - math.log(scale)) / SIGMA)
    return np.diff(np.concatenate([[0.0], upto, [1.0]]))


def ticks_until_found(factor: float, scale: float, runs: int, ticks: int = 60) -> np.ndarray:
    """30 candidate and 270 stable requests a tick; the tick of the first Fail, or infinity."""
    random = np.random.default_rng(3)
    past = np.zeros((runs, 26))
    log_s = np.full((runs, TILTS.size), -np.inf)
    found = np.full(runs, np.inf)
    for t in range(1, ticks + 1):
        candidate = random.multinomial(30, shares(factor, scale), runs).astype(float)
        stable = random.multinomial(270, shares(factor, 1.0), runs).astype(float)
        windows = np.full(runs, float(t))
        gain = tilt_increment(candidate, stable, past, TILTS)
        log_s = start_mixture(log_s, windows, gain)
        past += candidate + stable
        found[(mixture_value(log_s, windows) >= BOUND) & np.isinf(found)] = t
    return found


@pytest.mark.parametrize(("scale", "median"), [(1.1, 17), (1.2, 8), (1.5, 3)])
def test_a_slower_candidate_is_found_as_soon_as_it_should(scale: float, median: int) -> None:
    found = ticks_until_found(2.0, scale, 40, 45)
    assert np.isfinite(found).mean() >= 0.98
    assert np.median(found) <= median


def test_an_equal_candidate_is_found_slower_at_most_at_alpha() -> None:
    assert np.isfinite(ticks_until_found(2.0, 1.0, 150, 30)).mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.19, 1.26, 1.41, 2.0])
def test_every_grid_keeps_alpha_and_finds_what_it_should(factor: float) -> None:
    assert np.isfinite(ticks_until_found(factor, 1.0, 2000)).mean() <= 0.05
    for scale, median in ((1.1, 17), (1.2, 8), (1.5, 3)):
        found = ticks_until_found(factor, scale, 500)
        assert np.median(found) <= median
        assert np.isfinite(found).mean() >= 0.95


@pytest.mark.parametrize("tilt", [0.1, 0.8])
def test_with_equal_histograms_a_windows_evidence_has_expectation_at_most_one(tilt: float) -> None:
    # Two candidate requests and one of stable over three buckets: all outcomes, exactly.
    truth = np.array([0.5, 0.3, 0.2])
    expectation = 0.0
    past = np.array([[4.0, 1.0, 0.0]])
    for first in range(3):
        for second in range(3):
            for other in range(3):
                candidate, stable = np.zeros((1, 3)), np.zeros((1, 3))
                candidate[0, first] += 1
                candidate[0, second] += 1
                stable[0, other] += 1
                chance = truth[first] * truth[second] * truth[other]
                gain = tilt_increment(candidate, stable, past, np.array([tilt]))
                expectation += chance * math.exp(float(gain[0, 0]))
    assert expectation <= 1 + 1e-12


# --- through the whole judge --------------------------------------------------------------------


def latencies(random: np.random.Generator, count: int, scale: float) -> tuple[float, ...]:
    values = random.lognormal(math.log(0.05 * scale), SIGMA, count)
    return tuple(np.histogram(values, bins=[0, *EDGES, 1e9])[0].astype(float).tolist())


def play(analysis: Analysis, scale: float, ticks: int, **changes: object) -> Rollout:
    """10 and 90 requests a tick, the candidate ``scale`` times as slow."""
    random = np.random.default_rng(11)
    rollout = Rollout(analysis)
    for _ in range(ticks):
        rollout.now += 5
        for side, count, factor in (("candidate", 10, scale), ("stable", 90, 1.0)):
            before = getattr(rollout, side)
            more = latencies(random, count, factor)
            total = tuple(a + b for a, b in zip(before.latency or (0.0,) * 25, more, strict=True))
            after = replace(before, attempts=before.attempts + count, latency=total)
            setattr(rollout, side, after)
        if rollout.look(**changes).verdict is Verdict.FAIL:
            break
    return rollout


RATIO_ONLY = Analysis((Metric("latency", Latency(0.95, max_ratio=1.3)),), edges=EDGES)


def test_a_candidate_twice_as_slow_fails() -> None:
    rollout = play(RATIO_ONLY, 2.0, 30)
    assert rollout.last is not None
    assert rollout.last.verdict is Verdict.FAIL
    assert "more than 1.3 times stable" in rollout.last.reason


def test_a_candidate_that_is_as_much_slower_as_tolerated_does_not_fail() -> None:
    rollout = play(RATIO_ONLY, 1.3, 50)
    assert rollout.last is not None
    assert rollout.last.verdict is not Verdict.FAIL


def test_an_equal_candidate_passes() -> None:
    rollout = play(RATIO_ONLY, 1.0, 30)
    assert rollout.last is not None
    assert rollout.last.verdict is Verdict.PASS
    assert rollout.last.metrics[0].ratio is not None
    assert rollout.last.metrics[0].ratio.low < 1.0 < rollout.last.metrics[0].ratio.high


def test_a_candidate_as_slow_as_what_pass_excludes_does_not_pass() -> None:
    lenient = Analysis((Metric("l", Latency(0.95, max_ratio=1.9, pass_ratio=2.0)),), edges=EDGES)
    rollout = play(lenient, 2.0, 30)
    assert rollout.last is not None
    assert rollout.last.verdict is not Verdict.PASS


@pytest.mark.parametrize("pods", [Pods(1, 3), Pods(2, 9), Pods(1, 20), Pods(0, 9)])
def test_latency_is_not_compared_while_the_load_per_pod_differs(pods: Pods) -> None:
    rollout = play(RATIO_ONLY, 2.0, 10, pods=pods)
    assert rollout.last is not None
    assert rollout.last.verdict is Verdict.INCONCLUSIVE
    assert "load per pod differs" in rollout.last.reason


def test_the_objective_is_judged_though_the_load_per_pod_differs() -> None:
    analysis = Analysis(
        (Metric("latency", Latency(0.95, max=OBJECTIVE, max_ratio=1.3)),), edges=EDGES
    )
    rollout = play(analysis, 8.0, 60, pods=Pods(1, 3))
    assert rollout.last is not None
    assert rollout.last.verdict is Verdict.FAIL
    assert "objective" in rollout.last.reason


def test_a_miss_of_the_latency_objective_fails_and_the_same_on_stable_suspends_it() -> None:
    analysis = Analysis((Metric("latency", Latency(0.95, max=OBJECTIVE)),), edges=EDGES)
    alone, both = Rollout(analysis), Rollout(analysis)
    for _ in range(12):
        alone.go(places=(SLOW, FAST))
        both.go(places=(SLOW, SLOW))
    assert alone.last is not None
    assert both.last is not None
    assert alone.last.verdict is Verdict.FAIL
    assert both.last.verdict is Verdict.INCONCLUSIVE
    assert "stable does too" in both.last.reason


def test_the_objective_below_two_milliseconds_is_said_to_be_coarse() -> None:
    analysis = Analysis((Metric("latency", Latency(0.95, max=EDGES[1])),), edges=EDGES)
    rollout = Rollout(analysis)
    for _ in range(3):
        judged = rollout.go(places=(0, 0))
    assert "whole milliseconds" in judged.reason


def test_an_objective_between_two_edges_is_taken_as_the_next_and_said_so() -> None:
    analysis = Analysis((Metric("latency", Latency(0.95, max=0.3)),), edges=EDGES)
    rollout = Rollout(analysis)
    for _ in range(3):
        judged = rollout.go()
    assert "the objective is taken as 362 ms" in judged.reason


# --- grids --------------------------------------------------------------------------------------


def test_snapping_takes_the_first_edge_at_or_above() -> None:
    assert snap((0.1, 0.2, 0.4), 0.2) == 1
    assert snap((0.1, 0.2, 0.4), 0.200000001) == 2
    assert snap((0.1, 0.2, 0.4), 0.5) is None


def test_a_shift_by_one_factor_of_the_grid_moves_every_bucket_by_one() -> None:
    edges = tuple(2.0**k for k in range(6))
    moved = np.arange(1.0, 8.0) @ shift(edges, 2.0, overflow_low=False)
    assert moved == pytest.approx([1 + 2, 3, 4, 5, 6, 0, 7])


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.1, 1.3, 3.7])
@pytest.mark.parametrize("low", [True, False])
def test_a_shift_loses_nothing(ratio: float, low: bool) -> None:
    matrix = shift(EDGES, ratio, overflow_low=low)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
    assert (matrix >= 0).all()


def test_quantiles_are_read_off_within_their_bucket() -> None:
    edges = (1.0, 2.0, 4.0)
    histogram = np.array([[0.0, 100.0, 0.0, 0.0], [50.0, 0.0, 0.0, 50.0], [0.0] * 4])
    found = quantile_of(histogram, edges, np.array([0.5, 0.25, 0.5]))
    assert found[:2] == pytest.approx([math.sqrt(2), 0.5])
    assert math.isnan(found[2])
    beyond = quantile_of(histogram, edges, np.array([1.0, 0.9, 0.5]))
    assert beyond[0] == pytest.approx(2.0)
    assert math.isinf(beyond[1])


def test_the_shown_quantile_lies_in_its_band_at_every_look() -> None:
    random = np.random.default_rng(12)
    runs, missed = 200, np.zeros(200, dtype=bool)
    truth = math.exp(SIGMA * 1.6448536269514722) * 0.05
    counts = np.zeros((runs, 25))
    q = np.full(runs, 0.95)
    for _ in range(20):
        values = random.lognormal(math.log(0.05), SIGMA, (runs, 100))
        place = np.searchsorted(EDGES, values)
        np.add.at(counts, (np.arange(runs)[:, None], place), 1.0)
        band = distribution_band(counts.sum(axis=1), 0.05)
        low = quantile_of(counts, EDGES, q - band)
        high = np.where(q + band < 1, quantile_of(counts, EDGES, q + band), np.inf)
        missed |= (truth < low) | (truth > high)
    assert missed.mean() <= 0.05


def test_errors_and_latency_are_judged_side_by_side() -> None:
    rollout = play(BOTH, 1.0, 20)
    assert rollout.last is not None
    assert [one.name for one in rollout.last.metrics] == ["errors", "latency"]
