"""From counters to windows (what counts, what does not), told by the samples a metric has seen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.core.judge.rollouts import BOTH, ERRORS, OBJECTIVE, Rollout, grown

from mooring.core.judge import (
    Analysis,
    Counters,
    ErrorRate,
    Metric,
    Pods,
    Scrape,
    State,
    Tick,
    Verdict,
    Weights,
    judge_one,
)


def test_the_first_sample_of_a_router_pod_is_only_what_the_next_is_compared_with() -> None:
    rollout = Rollout(candidate=Counters(1000, 900), stable=Counters(9000, 10))
    rollout.go()
    assert rollout.samples() == (0, 0)
    rollout.go()
    assert rollout.samples() == (10, 90)


def test_a_pod_born_under_the_weights_in_force_counts_from_its_birth() -> None:
    rollout = Rollout()
    rollout.now = 100.0
    scrape = Scrape(100.0, Counters(7, 0), (Counters(60, 0),), born=50.0)
    rollout.look(scrapes={"router-1": scrape}, weights=Weights(10, 40.0))
    assert rollout.samples() == (7, 60)


def test_a_pod_born_before_the_weights_in_force_does_not() -> None:
    rollout = Rollout()
    rollout.now = 100.0
    scrape = Scrape(100.0, Counters(7, 0), (Counters(60, 0),), born=30.0)
    rollout.look(scrapes={"router-1": scrape}, weights=Weights(10, 40.0))
    assert rollout.samples() == (0, 0)


def test_a_class_of_counter_that_is_absent_is_zero_and_its_first_increments_count() -> None:
    rollout = Rollout()
    rollout.look(scrapes={"router-0": Scrape(0.0)})  # no cluster of either side exists yet
    rollout.go(requests=(5, 45), errors=(5, 0))
    assert rollout.samples() == (5, 45)
    assert rollout.last is not None
    assert rollout.last.metrics[0].estimate is not None
    assert rollout.last.metrics[0].estimate.value == 1.0


def test_both_halves_of_stable_are_one_side() -> None:
    rollout = Rollout()
    rollout.go()
    halves = (Counters(50, 1), Counters(40, 0))
    rollout.now += 5
    rollout.look(scrapes={"router-0": Scrape(rollout.now, Counters(20, 0), halves)})
    rollout.now += 5
    halves = (Counters(150, 1), Counters(130, 0))
    rollout.look(scrapes={"router-0": Scrape(rollout.now, Counters(40, 0), halves)})
    assert rollout.samples() == (10 + 20, 190)


def restarted(born: float | None) -> tuple[int, int]:
    rollout = Rollout()
    rollout.go(requests=(100, 900))
    rollout.go()
    rollout.candidate, rollout.stable = Counters(3, 0), Counters(27, 0)
    rollout.now += 5
    rollout.look(scrapes={"router-0": replace(rollout.scrape(), born=born)})
    before = rollout.samples()
    rollout.go()
    assert rollout.samples() == (before[0] + 10, before[1] + 90)
    return before


def test_a_restart_of_the_router_pod_counts_from_zero() -> None:
    assert restarted(born=12.0) == (13, 117)


@pytest.mark.parametrize("born", [None, 3.0])
def test_counters_that_fell_without_a_restart_cost_one_window_and_count_nothing_twice(
    born: float | None,
) -> None:
    assert restarted(born) == (10, 90)


def test_a_cluster_that_began_anew_alone_costs_one_window_and_no_more() -> None:
    rollout = Rollout()
    rollout.go(requests=(100, 900))
    rollout.go()
    rollout.candidate = Counters(2, 0)
    rollout.stable = grown(rollout.stable, 90)
    rollout.now += 5
    rollout.look()
    assert rollout.samples() == (10, 90)
    rollout.go()
    assert rollout.samples() == (20, 180)


def test_an_answer_with_a_part_missing_is_refused_and_counts_nothing_twice() -> None:
    rollout = Rollout(BOTH)
    rollout.go()
    rollout.go(requests=(1000, 9000))
    whole = rollout.scrape()
    rollout.now += 5
    partial = Scrape(
        rollout.now,
        replace(whole.candidate, latency=()),
        tuple(replace(half, latency=()) for half in whole.stable),
    )
    judged = rollout.look(scrapes={"router-0": partial})
    assert any("no sense" in note for note in judged.notes)
    rollout.go()
    assert rollout.samples() == (1010, 9090)
    assert rollout.state is not None
    assert sum(rollout.state.histograms[1][0]) == 1010


def test_errors_that_fall_by_a_few_are_no_contradiction_and_count_once() -> None:
    rollout = Rollout()
    rollout.go((100, 900))
    rollout.go((100, 900), errors=(5, 0))
    rollout.candidate = replace(rollout.candidate, errors=3)
    rollout.go((100, 900))
    judged = rollout.go((100, 900), errors=(2, 0))
    assert not any("no sense" in note for note in judged.notes)
    assert rollout.samples() == (300, 2700)
    assert judged.metrics[0].estimate is not None
    assert judged.metrics[0].estimate.value == pytest.approx(5 / 300)


@pytest.mark.parametrize("since", [6.0, 9.9, 10.0])
def test_a_window_that_straddles_a_change_of_weight_is_left_out(since: float) -> None:
    rollout = Rollout()
    rollout.go()  # at 5 s
    rollout.weights = Weights(25, since)
    rollout.go(errors=(10, 0))  # 5 to 10 s
    assert rollout.samples() == (0, 0)
    rollout.go(requests=(25, 75))
    assert rollout.samples() == (25, 75)


def test_a_router_pod_that_misses_scrapes_contributes_all_of_it_later() -> None:
    state = State.begin(ERRORS)
    one, two = Counters(), Counters()
    for look in range(1, 9):
        one, two = grown(one, 10, 1), grown(two, 90)
        scrapes = {"router-0": Scrape(look * 5.0, one, (two,))}
        if look in (1, 8):
            scrapes["router-1"] = Scrape(look * 5.0, one, (two,))
        judged = judge_one(ERRORS, state, Tick(look * 5.0, Weights(10, 0.0), scrapes))
        state = judged.state
    assert judged.metrics[0].samples == 2 * 70
    assert judged.metrics[0].baseline_samples == 2 * 630


def test_the_same_sample_again_counts_once() -> None:
    rollout = Rollout()
    rollout.go()
    rollout.go()
    for _ in range(3):
        rollout.look()
    assert rollout.samples() == (10, 90)


def test_an_older_sample_of_another_replica_of_prometheus_counts_nothing() -> None:
    rollout = Rollout()
    rollout.go()
    earlier = rollout.scrape()
    rollout.go()
    rollout.look(scrapes={"router-0": earlier})
    rollout.go()
    assert rollout.samples() == (20, 180)


def test_a_clock_that_was_set_back_costs_one_window_and_no_more() -> None:
    rollout = Rollout()
    rollout.now = 10_000
    rollout.go()
    rollout.go()
    rollout.now -= 3600
    rollout.go()
    rollout.go()
    assert rollout.samples() == (20, 180)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("field", ["attempts", "errors", "unfinished"])
def test_a_scrape_with_a_number_that_makes_no_sense_is_as_good_as_missing(
    bad: float, field: str
) -> None:
    rollout = Rollout()
    rollout.go()
    rollout.go()
    rollout.now += 5
    broken = replace(rollout.candidate, **{field: bad})  # type: ignore[arg-type]
    judged = rollout.look(scrapes={"router-0": Scrape(rollout.now, broken, (rollout.stable,))})
    assert any("no sense" in note for note in judged.notes)
    rollout.go()
    assert rollout.samples() == (20, 180)


def test_only_traffic_that_is_split_by_chance_is_evidence() -> None:
    rollout = Rollout(weights=Weights(10, 0.0, random=False))
    for _ in range(8):
        judged = rollout.go(errors=(10, 0))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert rollout.samples() == (0, 0)


# --- requests without an answer -----------------------------------------------------------------

HANGING = replace(ERRORS, unfinished_after=0.3)


def test_a_candidate_that_hangs_fails_though_no_answer_ever_comes() -> None:
    rollout = Rollout(HANGING)
    rollout.go()
    for look in range(1, 20):
        rollout.candidate = replace(rollout.candidate, unfinished=3.0 * look)
        if rollout.go().verdict is Verdict.FAIL:
            break
    assert rollout.now <= 25, "a few ticks must do"


def test_a_request_that_was_overdue_is_no_second_error_when_it_times_out() -> None:
    rollout = Rollout(HANGING)
    rollout.go((100, 900))
    rollout.candidate = replace(rollout.candidate, unfinished=30)
    rollout.go((100, 900))
    before = rollout.go((100, 900)).metrics[0]
    rollout.candidate = replace(rollout.candidate, unfinished=0)
    after = rollout.go((100, 900), errors=(15, 0)).metrics[0]
    assert before.estimate is not None
    assert after.estimate is not None
    errors = before.estimate.value * before.samples
    assert errors > 10
    assert after.estimate.value * after.samples == pytest.approx(errors)


def test_requests_in_flight_that_may_be_young_are_no_errors() -> None:
    rollout = Rollout(replace(ERRORS, unfinished_after=30.0))
    rollout.candidate = Counters(unfinished=20)
    rollout.stable = Counters(unfinished=180)
    for _ in range(16):  # ten seconds of requests are in flight at any time
        judged = rollout.go()
    assert judged.metrics[0].estimate is not None
    assert judged.metrics[0].estimate.value == 0.0


def test_with_a_long_limit_what_hangs_longer_than_it_shows() -> None:
    rollout = Rollout(replace(ERRORS, unfinished_after=30.0))
    for look in range(40):
        rollout.candidate = replace(rollout.candidate, unfinished=3.0 * look)
        if rollout.go().verdict is Verdict.FAIL:
            break
    assert rollout.now <= 150


def test_a_hanging_request_misses_the_latency_objective() -> None:
    rollout = Rollout(BOTH)
    assert BOTH.unfinished_after == OBJECTIVE
    rollout.go()
    for look in range(1, 12):
        rollout.candidate = replace(rollout.candidate, unfinished=5.0 * look)
        judged = rollout.go()
    assert judged.metrics[1].verdict is Verdict.FAIL


# --- freshness ----------------------------------------------------------------------------------


def test_no_fresh_sample_for_more_than_three_ticks_is_no_data_and_a_fresh_one_ends_it() -> None:
    rollout = Rollout()
    rollout.go()
    rollout.go()
    verdicts = []
    for _ in range(5):
        rollout.now += 5
        verdicts.append(rollout.look(scrapes={}).verdict)
    assert verdicts == [Verdict.INCONCLUSIVE] * 3 + [Verdict.NO_DATA] * 2
    assert not rollout.last.fresh  # type: ignore[union-attr]
    assert rollout.go().verdict is Verdict.INCONCLUSIVE


def test_one_router_pod_that_answers_is_enough_to_be_fresh() -> None:
    rollout = Rollout()
    for _ in range(10):
        assert rollout.go().fresh


def test_before_the_first_sample_nothing_is_fresh() -> None:
    judged = Rollout().look(scrapes={})
    assert judged.verdict is Verdict.NO_DATA
    assert not judged.fresh


def test_freshness_does_not_ask_whether_the_two_clocks_agree() -> None:
    rollout = Rollout()
    for _ in range(10):
        judged = rollout.go(now=rollout.now + 605.0)
        assert judged.fresh
    assert rollout.samples() == (90, 810)


# --- latency ------------------------------------------------------------------------------------


def test_latency_leaves_out_the_warm_up_of_a_new_endpoint_and_errors_do_not() -> None:
    rollout = Rollout(BOTH, pods=Pods(1, 9, newest=12.0))
    for _ in range(12):
        rollout.go()
    assert rollout.samples(0) == (110, 990)
    # Endpoint at 12 s, warm at 42 s: windows that begin at 45, 50 and 55 s.
    assert rollout.samples(1) == (30, 270)


def test_many_router_pods_are_remembered_up_to_a_bound_and_forgotten_when_gone() -> None:
    rollout = Rollout()
    rollout.go()
    many = {f"router-{n:03}": rollout.scrape() for n in range(100)}
    assert len(rollout.look(scrapes=many).state.sources) == 8
    rollout.now += 4000
    assert list(rollout.go().state.sources) == ["router-0"]


def test_two_grids_in_one_batch_do_not_disturb_each_other() -> None:
    from mooring.core.judge import Subject, judge

    small = Analysis((Metric("errors", ErrorRate(max_ratio=1.5)),))
    rollouts = [Rollout(BOTH), Rollout(small), Rollout(BOTH)]
    alone = [Rollout(BOTH), Rollout(small), Rollout(BOTH)]
    states = [State.begin(r.analysis) for r in rollouts]
    for look in range(6):
        for one, other in zip(rollouts, alone, strict=True):
            errors = (look % 3, look % 2)
            one.now += 5
            one.candidate = grown(one.candidate, 10, errors[0])
            one.stable = grown(one.stable, 90, errors[1])
            other.go(errors=errors)
        subjects = []
        for rollout, state in zip(rollouts, states, strict=True):
            scrape = rollout.scrape()
            if not rollout.analysis.edges:
                scrape = Scrape(
                    scrape.time,
                    replace(scrape.candidate, latency=()),
                    tuple(replace(half, latency=()) for half in scrape.stable),
                )
            tick = Tick(rollout.now, Weights(10, 0.0), {"router-0": scrape}, rollout.pods)
            subjects.append(Subject(rollout.analysis, state, tick))
        judged = judge(subjects)
        states = [one.state for one in judged]
    assert states[0] == alone[0].state
    assert states[2] == alone[2].state
    assert states[1].rows[0][: len(states[1].rows[0])] != ()
    assert judged[1].metrics[0].samples == 50
