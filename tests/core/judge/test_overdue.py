"""Requests that wait too long: errors once, and no credit for the errors of others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.core.judge.rollouts import BOTH, ERRORS, OBJECTIVE, Rollout

from mooring.core.judge import Analysis, Pods, State, Verdict

HANGING = replace(ERRORS, unfinished_after=4.0)


def hang(rollout: Rollout, candidate: float, stable: float) -> None:
    """So many requests are in flight from now on."""
    rollout.candidate = replace(rollout.candidate, unfinished=candidate)
    rollout.stable = replace(rollout.stable, unfinished=stable)


def bad(rollout: Rollout) -> tuple[float, float]:
    """Bad requests that were counted so far, of the candidate and of stable."""
    assert rollout.last is not None
    (metric, *_) = rollout.last.metrics
    shares = [0.0 if part is None else part.value for part in (metric.estimate, metric.baseline)]
    return shares[0] * metric.samples, shares[1] * metric.baseline_samples


def earlier(state: State, analysis: Analysis) -> State:
    """As the version before wrote it: one sum of the errors and the credit."""
    raw = json.loads(json.dumps(state.dump()))
    for values in raw["sources"].values():
        half = (len(values) - 3) // 2
        for start in (3 + half, 3):
            credit = values.pop(start + 3)
            values[start + 3] += credit
    read, why = State.load(raw, analysis)
    assert why is None
    return read


@pytest.mark.parametrize("hung", [0, 600])
def test_a_good_candidate_stays_after_stable_hung_and_answered_well(hung: int) -> None:
    rollout = Rollout(HANGING)
    for _ in range(60):
        rollout.go()
    hang(rollout, 0, hung)
    rollout.go()
    rollout.go()
    hang(rollout, 0, 0)
    for _ in range(100):
        rollout.go()
    for _ in range(12):
        judged = rollout.go(errors=(3, 27))  # an outage of both: both are counted
        assert judged.verdict is not Verdict.FAIL


def test_errors_after_overdue_requests_were_answered_well_count_in_full() -> None:
    rollout = Rollout(HANGING, pods=Pods(5, 5), weight=50.0)
    for _ in range(3):
        rollout.go((100, 100))
    hang(rollout, 300, 300)
    rollout.go((100, 100))
    counted = bad(rollout)
    assert min(counted) > 100
    hang(rollout, 0, 0)
    rollout.go((100, 100))
    assert bad(rollout) == pytest.approx(counted), "answered late: bad once, and it stays so"
    rollout.go((100, 100), errors=(40, 20))
    ours, theirs = bad(rollout)
    assert (ours, theirs) == pytest.approx((counted[0] + 40, counted[1] + 20))


def test_overdue_requests_that_time_out_one_by_one_are_no_second_errors() -> None:
    rollout = Rollout(HANGING)
    for _ in range(10):
        rollout.go()
    hang(rollout, 0, 500)
    rollout.go()
    counted = bad(rollout)[1]
    assert counted == pytest.approx(500 - (72 + 3 * 72**0.5 + 1)), "those of the last 4 s are not"
    for left in range(400, -1, -100):
        hang(rollout, 0, left)
        rollout.go(errors=(0, 80))
        assert bad(rollout)[1] == pytest.approx(counted)


def test_an_error_counter_that_falls_by_one_and_rises_again_is_no_new_error() -> None:
    rollout = Rollout(HANGING)
    rollout.go()
    rollout.go(errors=(5, 5))
    for change in (-1, 1, -1, 1):
        rollout.go(errors=(change, change))
    assert bad(rollout) == pytest.approx((5, 5))


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 40))]
)
def test_no_request_is_ever_counted_twice_and_none_that_fails_later_is_lost(seed: int) -> None:
    random = np.random.default_rng(seed)
    rollout = Rollout(HANGING)
    rollout.go((50, 50))
    truth = errors = hanging = 0
    for _ in range(150):
        started, failed = random.choice([0, 0, 0, 200]), random.poisson(0.3)
        ended = random.binomial(hanging, random.choice([0.0, 0.1, 1.0]))
        timed_out = random.binomial(ended, random.choice([0.0, 0.5, 1.0]))
        hanging += started - ended
        truth += started + failed
        errors += timed_out + failed
        hang(rollout, 0, hanging)
        rollout.go((50, int(random.poisson(40)) + int(started)), (0, failed + timed_out))
        assert bad(rollout)[1] <= truth + 1e-6
    assert bad(rollout)[1] >= errors
    hang(rollout, 0, 0)
    rollout.go((50, 50))
    counted = bad(rollout)[1]
    rollout.go((50, 50), (0, 17))
    assert bad(rollout)[1] == pytest.approx(counted + 17)


@pytest.mark.parametrize("analysis", [HANGING, replace(BOTH, unfinished_after=OBJECTIVE)])
@pytest.mark.parametrize(("ends", "failed"), [(0, 0), (150, 150), (150, 0), (600, 80)])
def test_what_the_version_before_remembered_is_read_without_a_second_error(
    analysis: Analysis, ends: int, failed: int
) -> None:
    new = Rollout(analysis)
    for _ in range(4):
        new.go()
    hang(new, 3, 600)
    new.go()
    new.go(errors=(1, 2))
    assert new.state is not None
    old = replace(new, state=earlier(new.state, analysis))
    for rollout in (new, old):
        hang(rollout, 3, 600 - ends)
        rollout.go(errors=(0, failed))
    assert bad(old) == pytest.approx(bad(new))
    assert old.state == new.state, "from then on it is the same"
