"""What is remembered: it goes on bit for bit after a restart, stays small, and is never believed
when it is not ours.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.judge.rollouts import BOTH, EDGES, ERRORS, Rollout, grown

from mooring.core.judge import (
    Analysis,
    Counters,
    ErrorRate,
    Latency,
    Metric,
    Pods,
    Scrape,
    State,
    Subject,
    Threshold,
    Tick,
    Verdict,
    Weights,
    judge,
    judge_one,
)

EVERYTHING = replace(BOTH, metrics=(*BOTH.metrics, Metric("business", Threshold(min=0.97))))


def story(seed: int, ticks: int, sources: int = 2) -> list[Tick]:
    """A rollout with everything: changes of weight, a missed scrape, a restart, an outage."""
    random = np.random.default_rng(seed)
    totals = {f"router-{n}": (Counters(), Counters()) for n in range(sources)}
    found = []
    for look in range(1, ticks + 1):
        now = look * 5.0
        weights = Weights(10, 0.0) if look < ticks // 2 else Weights(25, 5.0 * (ticks // 2))
        share = weights.candidate / 100
        scrapes = {}
        for name, (candidate, stable) in totals.items():
            if look == 20:
                candidate, stable = Counters(), Counters()  # noqa: PLW2901 - the pod restarted
            rate = 0.3 if 30 <= look < 34 else 0.004
            sides = []
            for before, part in ((candidate, share), (stable, 1 - share)):
                n = int(random.poisson(40 * part))
                place = int(random.integers(8, 14))
                after = grown(before, n, int(random.binomial(n, rate)), place)
                sides.append(replace(after, unfinished=float(random.integers(0, 4))))
            totals[name] = (sides[0], sides[1])
            if (look + len(name)) % 7:
                scrapes[name] = Scrape(now, sides[0], (sides[1],), born=0.0)
        pods = Pods(1, 9, candidate_restarts=int(look > 40))
        value = None if look % 5 == 0 else 0.98
        found.append(Tick(now, weights, scrapes, pods, {"business": value}))
    return found


def test_a_restart_at_every_tick_changes_nothing_at_all() -> None:
    whole = stored = State.begin(EVERYTHING, {"errors": 1.7})
    for tick in story(1, 48):
        one = judge_one(EVERYTHING, whole, tick)
        text = json.dumps(stored.dump(), allow_nan=False)
        read, why = State.load(json.loads(text), EVERYTHING)
        assert why is None
        other = judge_one(EVERYTHING, read, tick)
        assert other.state == one.state
        assert (other.verdict, other.reason) == (one.verdict, one.reason)
        whole, stored = one.state, other.state


def test_a_rollout_is_judged_alike_alone_and_among_others() -> None:
    stories = [story(seed, 25) for seed in range(3)]
    alone = [State.begin(EVERYTHING) for _ in stories]
    batch = list(alone)
    for ticks in zip(*stories, strict=True):
        alone = [
            judge_one(EVERYTHING, state, tick).state
            for state, tick in zip(alone, ticks, strict=True)
        ]
        subjects = [Subject(EVERYTHING, s, t) for s, t in zip(batch, ticks, strict=True)]
        batch = [found.state for found in judge(subjects)]
    for one, other in zip(alone, batch, strict=True):
        assert one.ticks == other.ticks
        assert one.sources == other.sources
        for ours, theirs in zip(one.rows, other.rows, strict=True):
            assert ours == pytest.approx(theirs, abs=2e-6)


def test_the_order_in_which_router_pods_are_given_does_not_matter() -> None:
    one = other = State.begin(BOTH)
    for tick in story(3, 15, sources=4):
        turned = replace(tick, scrapes=dict(reversed(list(tick.scrapes.items()))))
        one = judge_one(BOTH, one, tick).state
        other = judge_one(BOTH, other, turned).state
        assert one == other


def test_counts_do_not_depend_on_how_often_one_looked() -> None:
    often = seldom = State.begin(ERRORS)
    candidate, stable = Counters(), Counters()
    for look in range(1, 61):
        candidate, stable = grown(candidate, 10, look % 3 == 0), grown(stable, 90, look % 2)
        scrapes = {"r": Scrape(look * 5.0, candidate, (stable,), born=0.0)}
        tick = Tick(look * 5.0, Weights(10, 0.0), scrapes)
        often = judge_one(ERRORS, often, tick).state
        if look % 6 == 0:
            found = judge_one(ERRORS, seldom, tick)
            seldom = found.state
    assert often.split == seldom.split
    last = judge_one(ERRORS, often, tick)
    assert last.metrics[0].samples == found.metrics[0].samples
    assert last.metrics[0].estimate == found.metrics[0].estimate


@pytest.mark.parametrize(("sources", "bytes_"), [(2, 3072), (3, 4096), (8, 8192)])
def test_it_stays_small_however_long_it_goes_on(sources: int, bytes_: int) -> None:
    analysis, scale = BOTH, 1_000_000.0
    state = State.begin(analysis, {"errors": 1.234567, "latency": 1.5})
    random = np.random.default_rng(5)
    totals = {f"mooring-router-{n}-abcde": (Counters(), Counters()) for n in range(sources)}
    for look in range(1, 16):
        for name, (c, s) in totals.items():
            for place in range(4, 22):
                c, s = grown(c, scale / 90, 7, place), grown(s, scale / 10, 63, place)  # noqa: PLW2901
            totals[name] = (c, s)
        now = 1.79e9 + look * 5.0 + float(random.integers(0, 999)) / 1000
        scrapes = {name: Scrape(now, c, (s,)) for name, (c, s) in totals.items()}
        state = judge_one(analysis, state, Tick(now, Weights(10, 1.7e9), scrapes)).state
    assert len(json.dumps(state.dump(), separators=(",", ":"))) < bytes_


@pytest.mark.parametrize(
    "changed",
    [
        replace(BOTH, alpha=0.01),
        replace(BOTH, edges=EDGES[:-1]),
        replace(BOTH, metrics=BOTH.metrics[:1]),
        replace(BOTH, metrics=(Metric("errors", ErrorRate(max_ratio=2.0)), BOTH.metrics[1])),
        replace(BOTH, metrics=(BOTH.metrics[0], Metric("latency", Latency(0.5, max_ratio=1.3)))),
    ],
)
def test_evidence_of_other_settings_is_not_taken_over(changed: Analysis) -> None:
    rollout = Rollout(BOTH)
    for _ in range(10):
        rollout.go(errors=(5, 0))
    assert rollout.state is not None
    state, why = State.load(rollout.state.dump(), changed)
    assert why is not None
    assert "begins anew" in why
    assert state == State.begin(changed)
    # Given to the judge as it is, it begins anew as well.
    judged = judge_one(changed, rollout.state, Tick(100.0, Weights(10, 0.0)))
    assert judged.verdict is not Verdict.FAIL


def test_over_dispersion_is_frozen_at_the_start() -> None:
    state = State.begin(ERRORS, {"errors": 2.5, "unknown": 9.0})
    for tick in story(7, 10):
        state = judge_one(ERRORS, state, tick).state
    assert state.phi == {"errors": 2.5}


@pytest.mark.parametrize("phi", [math.nan, math.inf, 0.5, -1.0])
def test_over_dispersion_that_makes_no_sense_is_uncalibrated(phi: float) -> None:
    rollout = Rollout(ERRORS, state=State.begin(ERRORS, {"errors": phi}))
    assert any("uncalibrated" in note for note in rollout.go().notes)


def test_a_fail_is_remembered_for_good() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        rollout.go(errors=(8, 0))
    failed = rollout.go()
    assert failed.verdict is Verdict.FAIL
    assert failed.state.failure is not None
    raw = json.loads(json.dumps(failed.state.dump()))
    rollout.state = State.load(raw, ERRORS)[0]
    for _ in range(20):
        judged = rollout.go((1000, 9000))
    assert judged.verdict is Verdict.FAIL
    assert judged.reason == failed.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(max_examples=40)
@given(JSON)
def test_whatever_stands_in_status_it_is_read_or_begun_anew(raw: Any) -> None:
    state, why = State.load(raw, ERRORS)
    assert state == State.begin(ERRORS)
    assert (why is None) == (raw is None)


@settings(max_examples=20)
@given(st.data())
def test_a_state_with_one_thing_changed_never_raises_and_never_passes(data: st.DataObject) -> None:
    rollout = Rollout(ERRORS)
    for _ in range(3):
        rollout.go()
    assert rollout.state is not None
    raw = rollout.state.dump()
    key = data.draw(st.sampled_from(sorted(raw)))
    if data.draw(st.booleans()):
        raw[key] = data.draw(JSON)
    else:
        del raw[key]
    state, _ = State.load(raw, ERRORS)
    judged = judge_one(ERRORS, state, Tick(rollout.now + 5, Weights(10, 0.0)))
    assert judged.verdict is not Verdict.PASS
