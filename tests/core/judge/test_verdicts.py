"""The verdict of a rollout from those of its metrics, thresholds, restarts, and the settings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.core.judge.rollouts import BOTH, EDGES, ERRORS, Rollout

from mooring.core.judge import (
    Analysis,
    ErrorRate,
    Latency,
    Metric,
    MetricJudgement,
    Pods,
    PredictionShift,
    Threshold,
    Verdict,
    Weights,
    join,
    overall,
    problems,
)

P, F, H, N = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NO_DATA


def metrics(*verdicts: Verdict) -> list[MetricJudgement]:
    return [MetricJudgement(f"m{at}", verdict, "why") for at, verdict in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((P, P), P),
        ((P, H), H),
        ((P, N), N),
        ((H, N), N),
        ((N, F), F),
        ((P, F), F),
        ((H, H), H),
    ],
)
def test_any_fail_fails_any_missing_holds_and_pass_takes_all(
    verdicts: tuple[Verdict, ...], expected: Verdict
) -> None:
    assert overall(metrics(*verdicts))[0] is expected


def test_nobody_asked_for_evidence_is_pass() -> None:
    assert overall([])[0] is P


def test_what_blocks_pass_never_blocks_fail() -> None:
    assert overall(metrics(P), blocked=["split"])[0] is H
    assert overall(metrics(F), blocked=["split"])[0] is F


def test_stale_data_holds_even_what_passed_and_a_fail_stays() -> None:
    assert overall(metrics(P), fresh=False)[0] is N
    assert overall(metrics(P), failed="errors: many", fresh=False) == (F, "errors: many")


# --- through the judge --------------------------------------------------------------------------


def test_an_ejected_pod_of_the_candidate_blocks_pass() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        rollout.go((200, 1800))
    rollout.now += 5
    scrape = replace(rollout.scrape(), ejections=1)
    judged = rollout.look(scrapes={"router-0": scrape})
    assert judged.verdict is H
    assert "outlier detection" in judged.reason
    assert rollout.go((40, 360)).verdict is P


def test_one_restart_of_a_candidate_pod_blocks_pass_until_it_is_forgotten() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        rollout.go((200, 1800))
    rollout.pods = Pods(1, 9, candidate_restarts=1)
    judged = rollout.go((40, 360))
    assert judged.verdict is H
    assert "a pod of the candidate has restarted" in judged.reason
    rollout.now += 600
    for _ in range(2):
        judged = rollout.go((40, 360))
    assert judged.verdict is P


def test_a_candidate_pod_that_crashes_in_a_loop_fails_though_it_answers_nothing() -> None:
    rollout = Rollout(ERRORS)
    rollout.go((0, 100))
    verdicts = []
    for restarts in (0, 1, 1, 2, 2):
        rollout.pods = Pods(0, 9, candidate_restarts=restarts)
        verdicts.append(rollout.go((0, 100)).verdict)
    assert verdicts == [H, H, H, F, F]


def test_pods_that_restart_on_both_sides_are_the_clusters_fault() -> None:
    rollout = Rollout(ERRORS)
    rollout.go()
    for restarts in range(1, 6):
        rollout.pods = Pods(1, 3, candidate_restarts=restarts, stable_restarts=3 * restarts)
        judged = rollout.go()
    assert judged.verdict is H
    assert "both revisions" in judged.reason


def test_restarts_of_stable_before_the_rollout_do_not_excuse_the_candidate() -> None:
    rollout = Rollout(ERRORS, pods=Pods(1, 3, stable_restarts=50))
    rollout.go()
    rollout.pods = Pods(1, 3, candidate_restarts=3, stable_restarts=50)
    assert rollout.go().verdict is F


def test_a_candidate_pod_that_cannot_be_scraped_blocks_pass() -> None:
    rollout = Rollout(ERRORS, pods=Pods(2, 9, unscraped=1))
    for _ in range(12):
        judged = rollout.go((200, 1800))
    assert judged.verdict is H
    assert "cannot be scraped" in judged.reason


def test_a_good_candidate_passes_and_goes_on_being_watched() -> None:
    rollout = Rollout(ERRORS)
    for _ in range(12):
        judged = rollout.go((200, 1800))
    assert judged.verdict is P
    for _ in range(60):
        judged = rollout.go((200, 1800), errors=(60, 10))
        if judged.verdict is F:
            break
    assert judged.verdict is F


@pytest.mark.parametrize("previous", [5, 50])
def test_while_baking_the_promoted_revision_is_compared_with_the_previous_one(
    previous: int,
) -> None:
    requests = (4.0 * (100 - previous), 4.0 * previous)
    good, bad = (Rollout(ERRORS, weight=100.0 - previous) for _ in range(2))
    for look in range(24):
        small = (1.0, float(look % ((100 - previous) // previous) == 0))
        assert good.go(requests, errors=small).verdict is not F
        if bad.verdict is not F:
            bad.go(requests, errors=(0.1 * requests[0], small[1]))
    assert bad.verdict is F


def test_while_baking_without_the_previous_revision_the_objective_is_judged() -> None:
    rollout = Rollout(BOTH, weight=50.0)
    for _ in range(10):
        assert rollout.go((100, 100)).verdict is not F
    rollout.weights = Weights(100, rollout.now)
    for _ in range(3):
        judged = rollout.go((200, 0), errors=(40, 0))
    assert judged.verdict is F
    assert "objective" in judged.reason


def test_it_says_how_many_requests_pass_still_takes_and_that_is_about_right() -> None:
    rollout = Rollout(ERRORS)
    rollout.go()
    first = rollout.go((40, 360)).metrics[0]
    assert first.needed is not None
    while rollout.go((40, 360)).verdict is not P:
        assert rollout.now < 1000
    assert rollout.samples()[0] == pytest.approx(first.samples + first.needed, rel=0.3)


def test_evidence_is_told_as_a_part_of_what_fails_and_as_an_anytime_p() -> None:
    rollout = Rollout(ERRORS)
    judged = rollout.go()
    seen = []
    while judged.verdict is not F:
        judged = rollout.go(errors=(3, 0))
        one = judged.metrics[0]
        assert one.evidence is not None
        assert one.p_value is not None
        assert one.log_evidence is not None
        assert max(one.log_evidence, 0.0) == pytest.approx(one.evidence * math.log(20))
        seen.append((one.evidence, one.p_value))
    assert seen[-1][0] >= 1.0
    assert seen[-1][1] <= ERRORS.alpha
    assert [p for _, p in seen] == sorted((p for _, p in seen), reverse=True)
    assert "times stable" in judged.reason


def test_a_failure_that_began_late_is_not_told_as_what_the_estimate_contradicts() -> None:
    rollout = Rollout(Analysis((Metric("errors", ErrorRate(max=0.1)),)))
    for _ in range(40):
        rollout.go((100, 900))
    while rollout.verdict is not Verdict.FAIL:
        rollout.go((100, 900), errors=(40, 0))
    assert rollout.last is not None
    estimate = rollout.last.metrics[0].estimate
    assert estimate is not None
    assert estimate.value < 0.1
    assert rollout.last.reason.endswith("of late more than the objective of 10.00%")


def test_alpha_is_split_over_the_metrics_that_have_a_guarantee() -> None:
    free = Metric("free", Threshold(max=1.0))
    analysis = replace(BOTH, metrics=(*BOTH.metrics, free, Metric("p", PredictionShift(0.2))))
    shares = [analysis.share_of(metric) for metric in analysis.metrics]
    assert shares == pytest.approx([0.05 / 3, 0.05 / 3, 0.0, 0.05 / 3])


# --- free values --------------------------------------------------------------------------------

FREE = Analysis((Metric("business", Threshold(min=0.97, max=1.0)),))


def given_values(*values: float | None) -> list[Verdict]:
    rollout = Rollout(FREE)
    return [rollout.go(values={"business": value}).verdict for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.99, 0.99, 0.99), (H, H, P)),
        ((0.9, 0.9, 0.9), (H, H, F)),
        ((1.1, 0.9, 1.1), (H, H, F)),
        ((0.9, 0.9, 0.99, 0.9), (H, H, H, H)),
        ((0.9, None, 0.9, math.nan, 0.9), (H, N, H, N, F)),
        ((0.99, 0.99, 0.99, None), (H, H, P, N)),
        ((math.inf, -math.inf), (N, N)),
    ],
)
def test_a_value_counts_when_it_is_inside_or_outside_several_times_in_a_row(
    values: tuple[float | None, ...], expected: tuple[Verdict, ...]
) -> None:
    assert tuple(given_values(*values)) == expected


def test_a_free_value_carries_no_guarantee_and_says_so() -> None:
    judged = Rollout(FREE).go(values={"business": 0.5})
    assert not judged.metrics[0].guaranteed
    assert "no guarantee" in judged.reason


# --- the seam for what is judged elsewhere -------------------------------------------------------

SHIFT = Metric("predictions", PredictionShift(0.2))


def test_what_is_judged_elsewhere_holds_until_it_is_joined() -> None:
    rollout = Rollout(replace(ERRORS, metrics=(*ERRORS.metrics, SHIFT)))
    for _ in range(12):
        judged = rollout.go((200, 1800))
    assert judged.verdict is H
    assert judged.reason.startswith("predictions: predictions are compared from 100 rows on")
    assert join(judged, [MetricJudgement("predictions", P, "alike")], rollout.now).verdict is P
    failed = join(judged, [MetricJudgement("predictions", F, "PSI 0.4")], rollout.now)
    assert failed.verdict is F
    assert failed.state.failure is not None
    assert failed.state.failure.metric == "predictions"


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("analysis", "word"),
    [
        (replace(ERRORS, alpha=0.0), "alpha"),
        (replace(ERRORS, alpha=0.5), "alpha"),
        (replace(ERRORS, alpha=math.nan), "alpha"),
        (Analysis((Metric("e", ErrorRate()),)), "give max"),
        (Analysis((Metric("e", ErrorRate(max=1.0)),)), "between 0 and 1"),
        (Analysis((Metric("e", ErrorRate(max=math.inf)),)), "between 0 and 1"),
        (Analysis((Metric("e", ErrorRate(max_ratio=-1.0)),)), "positive"),
        (Analysis((Metric("e", ErrorRate(max_ratio=2.0, pass_ratio=2.0)),)), "passRatio"),
        (Analysis((Metric("e", ErrorRate(max_ratio=2.0, pass_floor=0.0)),)), "passFloor"),
        (Analysis((Metric("l", Latency(1.0, max_ratio=1.3)),), edges=EDGES), "quantile"),
        (Analysis((Metric("l", Latency(0.9, max_ratio=1.3)),)), "nobody measures"),
        (Analysis((Metric("l", Latency(0.9, max=60.0)),), edges=EDGES), "largest bucket"),
        (Analysis((Metric("l", Latency(0.9, max=-1.0)),), edges=EDGES), "positive time"),
        (Analysis((Metric("t", Threshold()),)), "give min"),
        (Analysis((Metric("t", Threshold(min=2.0, max=1.0)),)), "no value can be right"),
        (Analysis((Metric("t", Threshold(min=math.nan)),)), "finite"),
        (Analysis((Metric("t", Threshold(min=0.0, consecutive=0)),)), "consecutive"),
        (Analysis((Metric("p", PredictionShift(0.0)),)), "maxPSI"),
        (Analysis((ERRORS.metrics[0], ERRORS.metrics[0])), "same name"),
        (replace(BOTH, edges=(0.2, 0.1)), "rise"),
        (replace(BOTH, edges=(0.0, 0.1)), "positive"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_to_do(
    analysis: Analysis, word: str
) -> None:
    assert any(word in text for text in problems(analysis))


def test_good_settings_have_no_problem() -> None:
    assert problems(BOTH) == ()
    assert problems(ERRORS) == ()


def test_bake_without_traffic_on_the_previous_revision_takes_an_objective() -> None:
    assert problems(ERRORS, relative_in_bake=True) == ()
    assert "previousWeight" in problems(ERRORS, relative_in_bake=False)[0]
    assert problems(BOTH, relative_in_bake=False) == ()
