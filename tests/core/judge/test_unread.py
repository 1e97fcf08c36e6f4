"""Requests whose latencies nobody reads are no evidence of latency, least of all good."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.core.judge.rollouts import BOTH, SLOW, Rollout

from mooring.core.judge import Scrape, State, Verdict


def untimed(rollout: Rollout) -> Scrape:
    """What Prometheus has when its configuration drops the buckets."""
    whole = rollout.scrape()
    return Scrape(
        whole.time,
        replace(whole.candidate, latency=()),
        tuple(replace(half, latency=()) for half in whole.stable),
    )


def go(rollout: Rollout, ticks: int = 1, *, timed: bool, slow: bool = False) -> None:
    """Ticks with 100 and 900 requests each; without buckets where not ``timed``."""
    for _ in range(ticks):
        rollout.go((100, 900), places=(SLOW if slow else 10, 10), scrapes={})
        scrape = rollout.scrape() if timed else untimed(rollout)
        rollout.look(scrapes={"router-0": scrape})


def verdicts(rollout: Rollout) -> dict[str, Verdict]:
    assert rollout.last is not None
    return {metric.name: metric.verdict for metric in rollout.last.metrics}


def test_without_a_histogram_errors_are_judged_and_latency_is_not() -> None:
    rollout = Rollout(BOTH)
    go(rollout, 20, timed=False)
    assert verdicts(rollout) == {"errors": Verdict.PASS, "latency": Verdict.NO_DATA}
    assert rollout.last is not None
    assert rollout.last.verdict is Verdict.NO_DATA
    assert "envoy_cluster_canary_upstream_rq_time_bucket" in rollout.last.reason
    assert rollout.samples(1) == (0, 0)


def test_a_slow_candidate_cannot_hide_behind_a_histogram_that_is_not_read() -> None:
    rollout = Rollout(BOTH)
    go(rollout, 20, timed=False, slow=True)
    go(rollout, 20, timed=True, slow=True)
    assert verdicts(rollout)["latency"] is Verdict.FAIL


def test_what_was_counted_before_the_histogram_was_read_is_not_taken_for_one_window() -> None:
    rollout = Rollout(BOTH)
    go(rollout, 10, timed=False, slow=True)
    go(rollout, 2, timed=True)
    # The first window begins without a histogram.
    assert rollout.samples(1) == (100, 900)
    assert rollout.samples(0) == (1200 - 100, 10800 - 900)


def test_a_histogram_that_comes_a_moment_after_the_first_requests_is_not_missed() -> None:
    rollout = Rollout(BOTH)
    go(rollout, 1, timed=False)
    assert verdicts(rollout)["latency"] is Verdict.INCONCLUSIVE
    go(rollout, 20, timed=True)
    assert verdicts(rollout)["latency"] is Verdict.PASS


def test_one_router_pod_that_tells_latencies_is_enough_and_the_other_adds_none() -> None:
    rollout = Rollout(BOTH)
    for _ in range(20):
        rollout.go((100, 900), scrapes={})
        rollout.look(scrapes={"router-0": rollout.scrape(), "router-1": untimed(rollout)})
    assert verdicts(rollout)["latency"] is Verdict.PASS
    assert rollout.samples(1) == (1900, 17100)
    assert rollout.samples(0) == (2 * 1900, 2 * 17100)


def test_a_histogram_that_goes_is_an_incomplete_answer_at_first_and_then_no_data() -> None:
    rollout = Rollout(BOTH)
    go(rollout, 20, timed=True)
    go(rollout, 1, timed=False)
    assert rollout.last is not None
    assert any("no sense" in note for note in rollout.last.notes)
    go(rollout, 20, timed=False)
    assert verdicts(rollout)["latency"] is Verdict.NO_DATA


def test_a_restart_goes_on_where_it_was_while_a_histogram_is_missing() -> None:
    rollout, restarted = Rollout(BOTH), Rollout(BOTH)
    for one in (rollout, restarted):
        go(one, 3, timed=False)
    assert restarted.state is not None
    restarted.state, why = State.load(json.loads(json.dumps(restarted.state.dump())), BOTH)
    assert why is None
    for one in (rollout, restarted):
        go(one, 5, timed=True)
    assert rollout.state == restarted.state
