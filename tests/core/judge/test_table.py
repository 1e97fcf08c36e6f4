"""How often a good candidate is rolled back and a bad one caught, through the judge's own code.

The traffic: 40 one-minute ticks, weights 5/10/25/50 % for ten each, Poisson requests, the common
error rate drawn anew each minute from 0.1 to 0.9 %; alpha 0.05, tolerated ratio 1. The small seeded
version runs always; the whole table, with the rules of others beside it, is slow.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mooring.core.judge import (
    Analysis,
    Counters,
    ErrorRate,
    Metric,
    Pods,
    Scrape,
    State,
    Subject,
    Tick,
    Verdict,
    Weights,
    judge,
)
from mooring.core.judge.evidence import FAIL_ALTERNATIVES, log_mean_exp, ratio_increment
from mooring.core.judge.memory import FIRST_ROW, Rows
from mooring.core.judge.simulation import (
    NEVER,
    Outcome,
    Scenario,
    Step,
    _traffic,
    simulate,
    terms_of,
)
from mooring.core.judge.weigh import weigh
from mooring.core.judge.windows import Windows

STEPS = tuple(Step(weight, 600) for weight in (5, 10, 25, 50))
BASE = Scenario(STEPS, tick=60.0, seed=5)
LIMIT = 0.01

#: requests a minute: the rules of others on a good candidate, then caught and median tick at 2/3/5.
TABLE = {
    60: ((0.93, 0.27, 0.11, 0.28), ((0.09, 27), (0.29, 29), (0.76, 26))),
    600: ((1.0, 0.95, 0.87, 0.38), ((0.75, 26), (1.0, 15), (1.0, 7))),
    6000: ((0.97, 0.47, 0.27, 0.45), ((1.0, 8), (1.0, 3), (1.0, 1))),
}
PASSES = {60: 0.63, 600: 0.99, 6000: 0.99}
PASSES_AT_FIVE = {60: 0.01, 600: 0.01, 6000: 0.03}


def passed(outcome: Outcome) -> float:
    return float(np.mean(outcome.passed != NEVER))


@pytest.mark.parametrize("requests", [60, 600])
def test_a_good_candidate_is_rarely_rolled_back_and_passes(requests: int) -> None:
    good = simulate(replace(BASE, requests=requests, runs=200))
    assert good.caught <= 0.03  # alpha is 0.05, and the table says 0.01
    assert passed(good) == pytest.approx(PASSES[requests], abs=0.07)


@pytest.mark.parametrize(("requests", "ratio"), [(600, 3), (6000, 2)])
def test_a_bad_candidate_is_caught_as_often_and_as_soon_as_the_table_says(
    requests: int, ratio: int
) -> None:
    part, tick = TABLE[requests][1][(2, 3, 5).index(ratio)]
    bad = simulate(replace(BASE, requests=requests, runs=150), ratio)
    assert bad.caught == pytest.approx(part, abs=0.08)
    assert (bad.median() or 0) / 60 == pytest.approx(tick, abs=3)


@pytest.mark.slow
@pytest.mark.parametrize("requests", TABLE)
def test_the_whole_table(requests: int) -> None:
    scenario = replace(BASE, requests=requests, runs=4000)
    good = simulate(scenario, limit=LIMIT)
    assert good.caught <= 0.02
    others = [float(np.mean(times != NEVER)) for times in good.others.values()]
    assert others == pytest.approx(TABLE[requests][0], abs=0.04)
    assert passed(good) == pytest.approx(PASSES[requests], abs=0.02)
    for ratio, (part, tick) in zip((2, 3, 5), TABLE[requests][1], strict=True):
        bad = simulate(scenario, ratio)
        assert bad.caught >= part - 0.03, f"ratio {ratio}"
        assert (bad.median() or 0) / 60 <= tick + 1, f"ratio {ratio}"
    assert passed(bad) <= PASSES_AT_FIVE[requests] + 0.01


def test_thirty_percent_of_failures_are_caught_within_seconds_even_at_a_quarter_of_alpha() -> None:
    # 20 requests a second, 10 % weight, ticks of 5 s: 10 to 16 s at the median, 27 s at p99.
    scenario = Scenario(
        (Step(10, 120),), 1200, (0.005, 0.005), ErrorRate(max_ratio=1.5), 0.05 / 4, runs=500
    )
    bad = simulate(scenario, 60.0)
    assert bad.caught == 1.0
    assert (bad.median() or 99) <= 16
    assert np.quantile(bad.failed, 0.99) <= 27


def test_after_a_quiet_hour_a_failure_shows_within_fifteen_minutes() -> None:
    assert _late(minutes=60, runs=15)[0] <= 15


@pytest.mark.slow
def test_after_a_quiet_day_a_failure_shows_within_fifteen_minutes_and_not_in_ninety() -> None:
    mixed, plain = _late(minutes=24 * 60, runs=40)
    assert mixed <= 15
    assert plain >= 60  # without the mixture over starting times


def _late(minutes: int, runs: int) -> tuple[float, float]:
    """Median minute of the Fail after so many good minutes, with and without the start mixture."""
    day = _Day(runs, 600, 50)
    day.go(minutes, 1.0)
    mixed, plain = day.go(min(minutes, 120), 5.0)
    assert (mixed != NEVER).all()
    return float(np.median(mixed)), float(np.median(np.where(plain == NEVER, 999, plain)))


class _Day:
    """Runs that go on, so that the rate may change in the middle."""

    def __init__(self, runs: int, requests: int, weight: float) -> None:
        self.scenario = Scenario((Step(weight, 60),), requests, tick=60, runs=runs)
        self.terms = terms_of(self.scenario)
        self.memory = np.tile(np.array(FIRST_ROW), (runs, 1))
        self.plain = np.zeros((runs, FAIL_ALTERNATIVES.size))
        self.random = np.random.default_rng(8)
        self.mean = requests * np.array([weight / 100, 1 - weight / 100])

    def go(self, minutes: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
        """The minute of the first Fail per run, from now; and that of plain accumulation."""
        runs = self.scenario.runs
        mixed, plain = np.full(runs, NEVER), np.full(runs, NEVER)
        empty, one = np.zeros((runs, 2, 1)), np.ones(runs)
        for minute in range(1, minutes + 1):
            rate = self.random.uniform(0.001, 0.009, runs)
            n = self.random.poisson(np.broadcast_to(self.mean, (runs, 2))).astype(float)
            rates = np.stack([rate * ratio, rate], axis=1)
            bad = self.random.binomial(n.astype(int), rates).astype(float)
            windows = Windows(np.arange(runs), n, bad[:, :, None], empty, one > 0)
            weighed = weigh(Rows.of(self.memory), empty, windows, self.terms)
            self.memory = weighed.rows.matrix()
            mixed[weighed.failed.any(axis=1) & (mixed == NEVER)] = minute
            share = n[:, 0] / n.sum(axis=1)
            ratios = np.tile(FAIL_ALTERNATIVES, (runs, 1))
            self.plain += ratio_increment(bad[:, 0], bad.sum(axis=1), share, one, ratios)
            plain[(log_mean_exp(self.plain) >= math.log(20)) & (plain == NEVER)] = minute
        return mixed, plain


def test_the_simulation_takes_the_same_path_as_counters_of_router_pods() -> None:
    """Each tick of the simulation, given as counters of two router pods, ends the same way."""
    rule = ErrorRate(max_ratio=1.0)
    analysis = Analysis((Metric("errors", rule),), tick=60.0)
    scenario = Scenario(STEPS[2:], 600, rule=rule, tick=60.0, runs=12, seed=9)
    outcome = simulate(scenario, 3.0)
    states = [State.begin(analysis)] * scenario.runs
    totals = np.zeros((scenario.runs, 2, 2))
    failed = np.full(scenario.runs, float(NEVER))
    weights = {0.0: 25.0, 600.0: 50.0}
    for traffic in _traffic(scenario, 3.0):
        since = max(at for at in weights if at < traffic.at)
        totals += np.stack([traffic.requests, traffic.errors], axis=2)
        subjects = []
        for run in range(scenario.runs):
            candidate, stable = (Counters(*side) for side in totals[run].tolist())
            scrape = Scrape(traffic.at, candidate, (stable,), born=0.0)
            tick = Tick(traffic.at, Weights(weights[since], since), {"r": scrape}, Pods(1, 1))
            subjects.append(Subject(analysis, states[run], tick))
        judged = judge(subjects)
        states = [one.state for one in judged]
        for run, one in enumerate(judged):
            if one.verdict is Verdict.FAIL and failed[run] == NEVER:
                failed[run] = traffic.at
    assert failed.tolist() == outcome.failed.tolist()
