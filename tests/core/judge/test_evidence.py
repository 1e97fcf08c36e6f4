"""The formulas: each is compared with a direct computation, and is an e-value where it must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc, comb, gammaln

from mooring.core.judge.evidence import (
    FAIL_ALTERNATIVES,
    LATE_ODDS,
    PASS_ALTERNATIVES,
    RATIO_GRID,
    late_increment,
    log_above,
    log_below,
    mixture_value,
    ratio_increment,
    start_mixture,
)
from mooring.core.judge.intervals import distribution_band, rate_interval, ratio_interval
from mooring.core.judge.latency import tilt_increment
from mooring.core.judge.split import log_bayes_factor, log_wrong_split


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


# --- published figures ------------------------------------------------------------------------


def test_the_multinomial_test_gives_the_published_p_value() -> None:
    # Lindon & Malek, 156 and 212 visitors of a split that should be half and half.
    half = np.array([[0.5, 0.5]])
    log_bf = log_bayes_factor(np.array([[156.0, 212.0]]), half, half)
    assert round(float(np.minimum(1.0, np.exp(-log_bf))[0]), 4) == 0.0749


def test_the_band_of_a_distribution_gives_the_published_figure() -> None:
    # Howard & Ramdas' reference implementation: t = 1000, α = 0.05, t_min = 100. Its solver stops
    # at a tolerance; solved to the end the figure is 0.08204779.
    found = float(distribution_band(one(1000), 0.05, least=100.0)[0])
    assert found == pytest.approx(0.08204769, abs=2e-7)


@pytest.mark.parametrize("samples", [1, 10, 1000, 10**9])
def test_the_band_is_never_wider_than_the_papers_closed_form(samples: int) -> None:
    closed = 0.85 * math.sqrt(
        (math.log(math.log(math.e * samples)) + 0.8 * math.log(1612 / 0.05)) / samples
    )
    assert float(distribution_band(one(samples), 0.05)[0]) <= closed


# --- 1.2: errors against stable -----------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("null", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("m", [1, 7, 40])
def test_a_windows_evidence_has_expectation_one_at_the_tolerated_ratio_and_less_below(
    share: float, null: float, m: int
) -> None:
    counts = np.arange(m + 1.0)
    ratios = np.tile(null * FAIL_ALTERNATIVES, (m + 1, 1))
    gain = np.exp(
        ratio_increment(
            counts, np.full(m + 1, float(m)), np.full(m + 1, share), np.full(m + 1, null), ratios
        )
    )
    for ratio in (null, 0.9 * null, 0.2 * null):
        theta = share * ratio / (1 - share + share * ratio)
        chance = comb(m, counts) * theta**counts * (1 - theta) ** (m - counts)
        expectation = chance @ gain
        if ratio == null:
            assert expectation == pytest.approx(np.ones_like(expectation), rel=1e-9)
        else:
            assert (expectation < 1).all()


def test_the_pass_direction_has_expectation_at_most_one_at_and_above_its_null() -> None:
    m, share, r0, r1 = 20, 0.2, 1.5, 3.0
    counts = np.arange(m + 1.0)
    same = np.ones(m + 1)
    gain = np.exp(
        ratio_increment(
            counts, m * same, share * same, r1 * same, np.tile(r0 * PASS_ALTERNATIVES, (m + 1, 1))
        )
    )
    for ratio in (r1, 1.2 * r1, 5 * r1):
        theta = share * ratio / (1 - share + share * ratio)
        chance = comb(m, counts) * theta**counts * (1 - theta) ** (m - counts)
        assert (chance @ gain <= 1 + 1e-9).all()


def test_without_a_second_side_no_errors_are_evidence() -> None:
    ratios = FAIL_ALTERNATIVES[None, :]
    for share, errors in ((1.0, 50.0), (0.0, 0.0)):
        found = ratio_increment(one(errors), one(errors), one(share), one(1.0), ratios)
        assert found == pytest.approx(np.zeros_like(found), abs=1e-9)


@given(
    parts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6),
    pi=st.floats(0.01, 0.99),
    r0=st.floats(0.1, 10),
)
def test_windows_of_the_same_share_are_worth_as_much_apart_as_together(
    parts: list[tuple[int, int]], pi: float, r0: float
) -> None:
    c = np.array([float(a) for a, _ in parts])
    m = c + np.array([float(b) for _, b in parts])
    same = np.ones(len(parts))
    ratios = np.tile(r0 * FAIL_ALTERNATIVES, (len(parts), 1))
    apart = ratio_increment(c, m, pi * same, r0 * same, ratios).sum(axis=0)
    together = ratio_increment(one(c.sum()), one(m.sum()), one(pi), one(r0), ratios[:1])[0]
    assert apart == pytest.approx(together, rel=1e-9, abs=1e-9)


def test_the_start_mixture_is_the_mean_over_all_starting_times() -> None:
    random = np.random.default_rng(1)
    steps = random.normal(0, 1, (30, 1, 2))
    log_s = np.full((1, 2), -np.inf)
    for t, step in enumerate(steps, start=1):
        log_s = start_mixture(log_s, one(t), step)
        direct = 1.0 / (t + 1)
        for begin in range(1, t + 1):
            direct = direct + np.exp(steps[begin - 1 : t].sum(axis=0)) / (begin * (begin + 1))
        expected = float(np.log(np.mean(direct)))
        assert float(mixture_value(log_s, one(t))[0]) == pytest.approx(expected, rel=1e-9)


def test_before_the_first_window_the_mixture_is_one() -> None:
    assert float(mixture_value(np.full((1, 6), -np.inf), one(0))[0]) == pytest.approx(0.0)


# --- 1.3: the objective -------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "n", "p0"), [(0, 50, 0.02), (7, 100, 0.02), (3, 4, 0.5)])
def test_the_objectives_process_is_the_integral_over_all_worse_rates(
    c: int, n: int, p0: float
) -> None:
    def prior(p: float) -> float:
        return 1 / math.sqrt(p * (1 - p))

    def ratio(p: float) -> float:
        return math.exp(
            c * math.log(p / p0) + (n - c) * (math.log1p(-p) - math.log1p(-p0))
        ) * prior(p)

    top = 1 - 1e-12
    expected = quad(ratio, p0, top, limit=400)[0] / quad(prior, p0, top, limit=400)[0]
    assert float(np.exp(log_above(one(c), one(n), one(p0)))[0]) == pytest.approx(expected, rel=1e-4)


def test_the_floors_process_is_the_same_reversed_with_the_prior_of_the_table() -> None:
    c, n, floor, a, b = 2, 400, 0.02, 0.5, 49.5

    def log_prior(p: float) -> float:
        return (a - 1) * math.log(p) + (b - 1) * math.log1p(-p)

    def ratio(p: float) -> float:
        gain = c * math.log(p / floor) + (n - c) * (math.log1p(-p) - math.log1p(-floor))
        return math.exp(gain + log_prior(p))

    norm = math.exp(gammaln(a) + gammaln(b) - gammaln(a + b)) * betainc(a, b, floor)
    expected = quad(ratio, 0, floor, limit=400)[0] / norm
    assert float(np.exp(log_below(one(c), one(n), one(floor)))[0]) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("p0", [0.001, 0.05, 0.5, 0.9])
def test_an_objective_that_is_just_met_is_no_evidence_on_average(p0: float) -> None:
    n = 60
    counts = np.arange(n + 1.0)
    same = np.ones(n + 1)
    for p in (p0, 0.7 * p0):
        chance = comb(n, counts) * p**counts * (1 - p) ** (n - counts)
        assert chance @ np.exp(log_above(counts, n * same, p0 * same)) <= 1 + 1e-9
        late = np.exp(late_increment(counts, n * same, p0 * same))
        assert late.shape == (n + 1, LATE_ODDS.size)
        assert (chance @ late <= 1 + 1e-9).all()
    for p in (p0, 1 - 0.7 * (1 - p0)):
        chance = comb(n, counts) * p**counts * (1 - p) ** (n - counts)
        assert chance @ np.exp(log_below(counts, n * same, p0 * same)) <= 1 + 1e-9


@given(
    c=st.floats(0, 1e9),
    extra=st.floats(0, 1e9),
    p0=st.floats(1e-6, 1 - 1e-6),
    pi=st.floats(0, 1),
    r0=st.floats(0.01, 100),
)
def test_no_count_however_large_gives_anything_but_a_number(
    c: float, extra: float, p0: float, pi: float, r0: float
) -> None:
    n = c + extra
    values = [
        log_above(one(c), one(n), one(p0)),
        log_below(one(c), one(n), one(min(p0, 0.9))),
        late_increment(one(c), one(n), one(p0)),
        ratio_increment(one(c), one(n), one(pi), one(r0), r0 * FAIL_ALTERNATIVES[None, :]),
    ]
    for value in values:
        assert not np.isnan(value).any()
        assert (value < np.inf).all()


# --- 1.5: the split -----------------------------------------------------------------------------


def test_a_split_within_its_tolerance_is_not_wrong_however_many_requests_show_it() -> None:
    n = 1e8
    weight = np.array([0.05, 0.05, 0.5, 0.95])
    share = np.array([0.041, 0.059, 0.59, 0.959])
    assert (log_wrong_split(share * n, (1 - share) * n, weight) <= 0).all()


def test_a_split_outside_its_tolerance_shows() -> None:
    n = 20_000.0
    weight = np.array([0.05, 0.05, 0.5])
    share = np.array([0.02, 0.10, 0.7])
    assert (log_wrong_split(share * n, (1 - share) * n, weight) > math.log(100)).all()


def test_nothing_to_split_is_not_wrong() -> None:
    found = log_wrong_split(np.array([0.0, 500.0]), np.array([500.0, 0.0]), np.array([0.0, 1.0]))
    assert found.tolist() == [0.0, 0.0]


# --- intervals ----------------------------------------------------------------------------------


def test_the_interval_of_a_rate_holds_at_every_look() -> None:
    random = np.random.default_rng(4)
    runs, p = 400, 0.03
    c, n = np.zeros(runs), np.zeros(runs)
    missed = np.zeros(runs, dtype=bool)
    for _ in range(60):
        n += 50
        c += random.binomial(50, p, runs)
        low, high = rate_interval(c, n, np.full(runs, 0.05))
        assert (low <= c / n).all()
        assert (high >= c / n).all()
        missed |= (p < low) | (p > high)
    assert missed.mean() <= 0.05


def test_the_interval_of_a_ratio_holds_while_rates_and_weights_change() -> None:
    random = np.random.default_rng(5)
    runs, ratio = 400, 3.0
    grid = np.zeros((runs, RATIO_GRID.size))
    tried = np.broadcast_to(RATIO_GRID, grid.shape)
    missed = np.zeros(runs, dtype=bool)
    for look in range(40):
        weight = 0.05 if look < 20 else 0.5
        p = random.uniform(0.001, 0.02, runs)
        c = random.poisson(600 * weight * p * ratio)
        s = random.poisson(600 * (1 - weight) * p)
        both = (c + s).astype(float)
        same = np.ones(runs)
        grid += ratio_increment(c.astype(float), both, weight * same, same, tried)
        estimate, low, high = ratio_interval(grid, 0.05 * same)
        missed |= (ratio < low) | (ratio > high)
    assert missed.mean() <= 0.05
    assert float(np.median(estimate)) == pytest.approx(ratio, rel=0.1)


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=8, max_size=8),
    past=st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
    tilt=st.sampled_from([0.1, 0.2, 0.4, 0.8, -0.1, -0.8]),
)
def test_histograms_never_give_anything_but_a_number(
    counts: list[int], past: list[int], tilt: float
) -> None:
    candidate, stable = np.array(counts[:4], float)[None], np.array(counts[4:], float)[None]
    found = tilt_increment(candidate, stable, np.array(past, float)[None], np.array([tilt]))
    assert np.isfinite(found).all()
    if sum(counts[:4]) == 0 or sum(counts[4:]) == 0:
        assert (found == 0).all()
