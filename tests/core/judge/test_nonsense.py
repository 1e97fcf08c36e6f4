"""Whatever is measured, nothing raises, and nothing but good evidence ever passes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.judge.rollouts import BOTH, EDGES, ERRORS, Rollout

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
    judge_one,
)

NUMBER = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 1e9, 1e15, 1e300, math.nan, math.inf, -math.inf, -1.0]),
    st.integers(0, 10**12).map(float),
)
COUNTERS = st.builds(
    Counters,
    NUMBER,
    NUMBER,
    NUMBER,
    st.one_of(
        st.just(()),
        st.tuples(NUMBER, NUMBER, st.integers(19, 22)).map(
            lambda drawn: (drawn[0], 0.0, 7.0, *(drawn[1],) * drawn[2])
        ),
    ),
)
SCRAPE = st.builds(
    Scrape,
    NUMBER,
    COUNTERS,
    st.lists(COUNTERS, max_size=2).map(tuple),
    st.none() | NUMBER,
    st.integers(-1, 3),
)
WEIGHTS = st.builds(Weights, NUMBER, NUMBER, st.booleans(), st.booleans())
PODS = st.builds(
    Pods,
    st.integers(-1, 5),
    st.integers(-1, 5),
    st.integers(-1, 5),
    st.integers(-1, 5),
    st.integers(0, 2),
    st.none() | NUMBER,
)
TICK = st.builds(
    Tick,
    NUMBER,
    WEIGHTS,
    st.dictionaries(st.sampled_from(["a", "b"]), SCRAPE, max_size=2),
    PODS,
)


@settings(max_examples=15)
@given(st.lists(TICK, min_size=1, max_size=4))
def test_no_measurement_raises_and_every_state_can_be_written_and_read(ticks: list[Tick]) -> None:
    state = State.begin(BOTH)
    for tick in ticks:
        judged = judge_one(BOTH, state, tick)
        state = judged.state
        read, why = State.load(state.dump(), BOTH)
        assert why is None
        assert read == state


def plausible(random: np.random.Generator) -> Tick:
    """Counters that could be real but hold no good evidence: hardly any candidate requests."""
    n = int(random.integers(0, 3))
    side = Counters(n, int(random.integers(0, n + 1)))
    stable = Counters(float(random.integers(0, 10**6)), 0)
    now = float(random.integers(0, 10**4))
    return Tick(now, Weights(10, 0.0), {"r": Scrape(now, side, (stable,), born=0.0)})


def test_without_requests_on_the_candidate_nothing_ever_passes() -> None:
    random = np.random.default_rng(1)
    for _ in range(6):
        state = State.begin(ERRORS)
        for _ in range(5):
            judged = judge_one(ERRORS, state, plausible(random))
            state = judged.state
            assert judged.verdict is not Verdict.PASS


@given(before=st.integers(0, 12), errors=st.integers(0, 3), empty=st.integers(1, 6))
@settings(max_examples=6)
def test_no_data_never_makes_a_verdict_better(before: int, errors: int, empty: int) -> None:
    rollout = Rollout(ERRORS)
    judged = rollout.go()
    for _ in range(before):
        judged = rollout.go((200, 1800), errors=(errors, 1))
    last = judged.verdict
    for _ in range(empty):
        rollout.now += 5
        found = rollout.look(scrapes={}).verdict
        if last is not Verdict.PASS:
            assert found is not Verdict.PASS
        assert (found is Verdict.FAIL) == (last is Verdict.FAIL)


def test_traffic_that_stops_holds_and_never_passes() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(20):
        judged = rollout.go(requests=(0, 0))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.reason == "errors: the candidate has had no requests yet"
    assert judged.fresh


def test_a_candidate_without_traffic_beside_a_busy_stable_never_passes() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(20):
        judged = rollout.go(requests=(0, 1000))
    assert judged.verdict is Verdict.INCONCLUSIVE


def test_swapped_labels_show_as_a_wrong_split_and_block_pass() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        judged = rollout.go(requests=(900, 100))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "90.0 % of the attempts go to the candidate instead of 10 %" in judged.reason
    assert not judged.split.ok


def test_a_wrong_split_does_not_protect_a_candidate_that_fails() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        judged = rollout.go(requests=(400, 600), errors=(100, 1))
    assert judged.verdict is Verdict.FAIL


def test_the_split_is_not_checked_where_it_is_not_meant_to_be_exact() -> None:
    rollout = Rollout(ERRORS, weights=Weights(10, 0.0, exact=False))
    for _ in range(12):
        judged = rollout.go(requests=(900, 100))
    assert judged.split.ok
    assert judged.verdict is Verdict.PASS


@pytest.mark.parametrize("weight", [0.0, 100.0, -1.0, 101.0, math.nan, math.inf])
def test_with_nothing_split_nothing_is_compared(weight: float) -> None:
    rollout = Rollout(ERRORS, weights=Weights(weight, 0.0))
    for _ in range(8):
        judged = rollout.go(requests=(0, 100), errors=(0, 10))
    assert judged.verdict is Verdict.INCONCLUSIVE


def test_counts_of_billions_are_judged_like_any() -> None:
    for ratio, verdict in ((1.0, Verdict.PASS), (10.0, Verdict.FAIL)):
        rollout = Rollout(ERRORS)
        for _ in range(8):
            judged = rollout.go((1e9, 9e9), errors=(1e6 * ratio, 9e6))
        assert judged.verdict is verdict


def test_errors_that_come_in_after_their_requests_are_no_evidence_of_their_own() -> None:
    # 120 requests a minute at 5 %, half of them answered by a time-out 30 s later, on both sides.
    random = np.random.default_rng(2)
    runs, ticks, lag = 30, 46, 6
    analysis = Analysis((Metric("e", ErrorRate(max_ratio=1.0)),))
    states = [State.begin(analysis)] * runs
    requests = random.poisson([0.5, 9.5], (ticks, runs, 2)).cumsum(axis=0)
    errors = random.binomial(np.diff(requests, axis=0, prepend=0), 0.05).cumsum(axis=0)
    for t in range(lag, ticks):
        now = t * 5.0
        subjects = []
        for run in range(runs):
            sides = [
                Counters(float(requests[t, run, s]), float(errors[t - lag, run, s])) for s in (0, 1)
            ]
            scrapes = {"r": Scrape(now, sides[0], (sides[1],))}
            tick = Tick(now, Weights(5, 0.0), scrapes)
            subjects.append(Subject(analysis, states[run], tick))
        states = [one.state for one in judge(subjects)]
    failed = sum(state.failure is not None for state in states)
    assert failed / runs <= 0.05


def test_a_clock_of_the_operator_that_jumps_only_holds() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        judged = rollout.go((200, 1800))
    assert judged.verdict is Verdict.PASS
    held = rollout.look(now=rollout.now + 600)
    assert held.verdict is Verdict.NO_DATA
    back = rollout.look(now=rollout.now - 600)
    assert back.verdict in (Verdict.PASS, Verdict.NO_DATA)
    assert rollout.go((40, 360)).verdict is Verdict.PASS


def test_settings_with_a_problem_hold_and_say_so_beside_others_that_are_judged() -> None:
    broken = replace(BOTH, alpha=math.nan)
    tick = Tick(5.0, Weights(10, 0.0), {"r": Scrape(5.0)})
    found = judge(
        [
            Subject(broken, State.begin(broken), tick),
            Subject(ERRORS, State.begin(ERRORS), tick),
        ]
    )
    assert found[0].verdict is Verdict.INCONCLUSIVE
    assert "alpha" in found[0].reason
    assert found[1].state.ticks == 1


def test_a_histogram_over_another_grid_is_refused() -> None:
    rollout = Rollout(BOTH)
    rollout.go()
    rollout.now += 5
    strange = replace(rollout.candidate, latency=(1.0,) * 3)
    judged = rollout.look(scrapes={"r": Scrape(rollout.now, strange, (rollout.stable,))})
    assert any("no sense" in note for note in judged.notes)


def test_latencies_are_ignored_where_no_metric_asks_for_them() -> None:
    rollout = Rollout(replace(ERRORS, edges=EDGES))
    for _ in range(5):
        judged = rollout.go()
    assert judged.metrics[0].samples == 40
    assert judged.state.histograms == (((0.0,), (0.0,)),)


def test_nobody_to_judge_is_no_work() -> None:
    assert judge([]) == []
