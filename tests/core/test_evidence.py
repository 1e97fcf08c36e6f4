"""Rollouts by evidence: what is measured decides, and what is not measured holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.core.test_steps import V3, run, start
from tests.core.traffic import Traffic
from tests.core.world import World

from mooring.core.answers import NoAnswer, Reason
from mooring.core.observed import RenderSettings
from mooring.core.revision import read_history

STEPS: list[dict[str, Any]] = [
    {"weight": 10, "duration": "1m"},
    {"weight": 50, "duration": "1m"},
]
ERRORS = {"name": "errors", "errorRate": {"maxRatio": 1.5, "max": 0.05}}
MEASURING = RenderSettings(prometheus=True)


def judged(
    metrics: list[dict[str, Any]] | None = None,
    steps: list[dict[str, Any]] | None = None,
    settings: RenderSettings = MEASURING,
    **rollout: Any,
) -> tuple[World, str, str, Traffic]:
    """A candidate in its first step, under judgement by ``metrics``."""
    world = World.with_spec(
        replicas=4,
        traffic={"router": "envoy"},
        rollout={"progressDeadline": "10m", "revisionHistoryLimit": 10,
                 "steps": STEPS if steps is None else steps, **rollout},
        analysis={"metrics": metrics or [ERRORS]},
    )  # fmt: skip
    world.settings = settings
    stable = world.serve()
    candidate = start(world)
    run(world)
    return world, stable, candidate, Traffic(world)


def passes(world: World, traffic: Traffic, ticks: int = 200) -> None:
    """Ticks until the rollout is over; pods follow."""
    for _ in range(ticks):
        traffic.flow(10.0)
        traffic.look(settle=False)
        for revision in world.revisions():
            world.run_pods(revision)
        if "candidate" not in world.status:
            world.settle(40)
            return
    raise AssertionError(f"not over: {world.status['message']}")


# what decides -----------------------------------------------------------------------------------


def test_a_failing_candidate_is_rolled_back_at_once_and_its_evidence_recorded() -> None:
    world, stable, candidate, traffic = judged()
    traffic.tick(3)
    assert world.route() == {stable: 90, candidate: 10}
    traffic.errors[candidate] = 0.3
    began = world.now
    while candidate in world.route():
        traffic.tick()
    assert world.now - began <= timedelta(seconds=60)
    assert world.route() == {stable: 100}
    found = world.condition("RolledBack")
    assert (found["status"], found["reason"]) == ("True", "AnalysisFailed")
    assert "of the attempts fail against" in found["message"]
    assert any(f"RevisionRejected: revision {candidate}: AnalysisFailed" in t for t in world.told)
    assert world.status["stable"]["revision"] == stable


def test_what_was_found_stays_in_status_after_a_rollback_until_the_next_rollout() -> None:
    world, _, candidate, traffic = judged()
    traffic.errors[candidate] = 0.5
    traffic.tick(12)
    kept = world.status["analysis"]
    assert (kept["revision"], kept["verdict"]) == (candidate, "Fail")
    assert "state" not in kept
    (errors,) = kept["metrics"]
    assert errors["verdict"] == "Fail"
    assert errors["evidence"] >= 1
    assert errors["candidate"]["low"] < errors["candidate"]["value"] < errors["candidate"]["high"]
    assert "decidedAt" in errors
    newest = start(world, V3)
    run(world)
    traffic.tick()
    assert world.status["analysis"]["revision"] == newest


def test_a_good_candidate_is_promoted_through_every_step_and_its_bake() -> None:
    world, _, candidate, traffic = judged(bake={"duration": "3m", "previousWeight": 5})
    passes(world, traffic)
    assert world.status["stable"]["revision"] == candidate
    assert world.status["analysis"]["phase"] == "Rollout"
    traffic.tick()
    assert (world.status["phase"], world.status["analysis"]["phase"]) == ("Baking", "Bake")
    traffic.tick(20)
    run(world)
    assert world.status["phase"] == "Serving"
    assert world.revisions() == [candidate]
    assert sum("AnalysisPassed" in line for line in world.told) == 1


def test_evidence_in_the_bake_takes_the_promotion_back_at_once() -> None:
    world, stable, candidate, traffic = judged(bake={"duration": "1h", "previousWeight": 5})
    passes(world, traffic)
    traffic.tick(3)
    assert world.route() == {candidate: 95, stable: 5}
    traffic.errors[candidate] = 0.3
    for _ in range(12):
        traffic.tick()
        if stable == world.status["stable"]["revision"]:
            break
    run(world)
    assert world.route() == {stable: 100}
    assert world.status["stable"]["revision"] == stable
    assert world.reason("RolledBack") == "AnalysisFailed"


def test_only_promotion_needs_pass_steps_go_on_without_a_fail() -> None:
    world, stable, candidate, traffic = judged()
    traffic.rate = 0.2  # too few requests to pass in any step
    traffic.tick(8)
    run(world)
    assert world.route() == {stable: 50, candidate: 50}
    traffic.tick(14)
    assert world.route() == {stable: 50, candidate: 50}, "its time is over, and it has not passed"
    found = world.condition("Reconciling")
    assert (found["status"], found["reason"]) == ("False", "AwaitingEvidence")
    assert "more requests" in found["message"]
    assert world.reason("Stalled") == ""


@pytest.mark.parametrize(
    ("policy", "outcome"), [("Promote", "promoted"), ("Rollback", "Inconclusive")]
)
def test_on_inconclusive_says_what_happens_at_the_end_of_the_last_step(
    policy: str, outcome: str
) -> None:
    world, _, candidate, traffic = judged(onInconclusive=policy)
    traffic.rate = 0.2
    passes(world, traffic)
    if outcome == "promoted":
        assert world.status["stable"]["revision"] == candidate
    else:
        assert world.reason("RolledBack") == outcome


def test_with_on_pass_a_step_ends_as_soon_as_its_own_traffic_lets_the_evidence_pass() -> None:
    world, _, candidate, traffic = judged(
        steps=[{"weight": 10, "duration": "10h"}, {"weight": 50, "duration": "10h"}],
        advance="OnPass",
    )
    traffic.rate = 100
    passes(world, traffic)
    assert world.status["stable"]["revision"] == candidate
    begun = [line for line in world.told if "StepBegan" in line]
    assert len(begun) == 2, "no step is left out"


def test_a_failing_candidate_is_taken_back_while_it_is_paused_too() -> None:
    world, stable, candidate, traffic = judged()
    world.act(f"pause/{candidate}/1")
    world.settle()
    traffic.errors[candidate] = 0.5
    traffic.tick(8)
    assert world.route() == {stable: 100}


def test_evidence_does_not_take_a_candidate_back_onto_a_stable_that_does_not_serve() -> None:
    world, stable, candidate, traffic = judged()
    traffic.errors[candidate] = 0.5
    traffic.tick(1)
    world.run_pods(stable, ready=0)
    for _ in range(6):
        traffic.tick()
        world.run_pods(candidate)
    assert world.status["stable"]["revision"] == candidate


# people and measurements ------------------------------------------------------------------------


def test_promote_goes_on_without_evidence() -> None:
    world, _, candidate, traffic = judged()
    traffic.rate = 0.2
    traffic.tick(8)
    run(world)
    traffic.tick(10)
    assert world.reason("Reconciling") == ""
    assert world.condition("Reconciling")["reason"] == "AwaitingEvidence"
    world.act(f"promote/{candidate}/1")
    run(world)
    assert world.status["stable"]["revision"] == candidate


def test_a_measurement_from_before_a_verb_or_an_edit_decides_nothing() -> None:
    world, _, candidate, traffic = judged()
    traffic.tick()
    traffic.errors[candidate] = 0.9
    traffic.flow(60.0)
    world.act(f"pause/{candidate}/1")
    stale = traffic.weighed()
    assert stale.judgement.verdict == "Fail"
    world.evidence = stale
    world.settle()
    assert world.condition("RolledBack")["status"] == "False"
    traffic.look()
    assert world.reason("RolledBack") == "AnalysisFailed", "measured again, it does"


def test_a_retry_begins_with_no_evidence_and_a_new_risk() -> None:
    world, stable, candidate, traffic = judged()
    traffic.errors[candidate] = 0.5
    traffic.tick(8)
    assert world.route() == {stable: 100}
    traffic.errors.clear()
    world.act(f"retry/{candidate}/1")
    run(world)
    traffic.tick(2)
    plan = next(r for r in read_history(world.children).revisions if r.hash == candidate).rollout
    assert plan is not None
    assert plan.attempt == 1
    assert world.status["analysis"]["verdict"] == "Inconclusive"
    passes(world, traffic)
    assert world.status["stable"]["revision"] == candidate


def test_an_edit_of_the_analysis_restarts_no_rollout() -> None:
    world, stable, candidate, traffic = judged()
    traffic.tick(2)
    world.edit(analysis={"metrics": [{"name": "errors", "errorRate": {"max": 0.1}}]})
    traffic.tick(2)
    assert world.route() == {stable: 90, candidate: 10}
    assert world.status["rollout"]["step"] == 1


# what is missing --------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["answers", "scraped"])
def test_without_measurements_nothing_moves_and_status_says_which_is_missing(gone: str) -> None:
    world, stable, candidate, traffic = judged()
    traffic.tick(6)
    setattr(traffic, gone, False)
    traffic.tick(14)
    assert world.route() == {stable: 90, candidate: 10}
    found = world.condition("Stalled")
    assert (found["status"], found["reason"]) == ("True", "NoData")
    words = "Nobody listens" if gone == "answers" else "no samples of the router pods"
    assert words in found["message"]
    assert world.status["analysis"]["verdict"] == "NoData"
    assert world.reason("Ready") == ""
    setattr(traffic, gone, True)
    traffic.tick(2)
    assert world.reason("Stalled") == ""
    passes(world, traffic)
    assert world.status["stable"]["revision"] == candidate


def test_evidence_goes_on_exactly_from_status_after_a_restart() -> None:
    world, _, candidate, traffic = judged()
    traffic.errors[candidate] = 0.03
    traffic.tick(5)
    before = world.status["analysis"]["metrics"]
    world.evidence, world.examination, traffic.remembered = None, None, None
    world.settle()
    assert world.status["analysis"]["metrics"] == before, "kept until there is news"
    traffic.look()
    after = world.status["analysis"]["metrics"]
    assert [m["samples"] for m in after] == [m["samples"] for m in before]
    assert [m["evidence"] for m in after] == [m["evidence"] for m in before]


def test_a_state_that_somebody_has_damaged_begins_anew_and_breaks_nothing() -> None:
    world, _, candidate, traffic = judged()
    traffic.tick(4)
    for nonsense in ("", "AAAA", "not base64!", "eJwDAAAAAAE="):
        world.resource["status"]["analysis"]["state"] = nonsense
        world.evidence, traffic.remembered = None, None
        world.settle()
        traffic.tick()
        assert world.status["analysis"]["revision"] == candidate


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"settings": RenderSettings()}, "PrometheusNotConfigured", "set prometheus.url"),
        (
            {"metrics": [{"name": "p", "predictionShift": {"maxPSI": 0.2}}]},
            "NotMeasured",
            "metric p: nobody counts the predictions of both revisions",
        ),
        (
            {"metrics": [{"name": "b", "prometheus": {"query": "sum(rate(x[1m])", "max": 1}}]},
            "InvalidQuery",
            "metric b:",
        ),
        (
            {"metrics": [{"name": "l", "latency": {"max": "5000s"}}]},
            "InvalidAnalysis",
            "largest bucket",
        ),
    ],
)
def test_what_nobody_can_measure_stalls_the_rollout_and_names_what_could(
    change: dict[str, Any], reason: str, words: str
) -> None:
    world, stable, candidate, traffic = judged(**change)
    traffic.tick(10)
    found = world.condition("Stalled")
    assert (found["status"], found["reason"]) == ("True", reason)
    assert words in found["message"]
    assert world.route() == {stable: 90, candidate: 10}, "nothing moves by guesses"


def test_router_metrics_need_a_router() -> None:
    world = World.with_spec(analysis={"metrics": [ERRORS]}, rollout={"steps": STEPS})
    world.settings = MEASURING
    world.serve()
    found = world.condition("Stalled")
    assert found["reason"] == "NotMeasured"
    assert "spec.signals has no requests and errors; use router envoy" in found["message"]
    assert world.reason("Ready") == ""


# free queries -----------------------------------------------------------------------------------


def free(**more: Any) -> list[dict[str, Any]]:
    query = "sum(rate(revenue_total{{{ selector }}}[{{ window }}]))"
    return [{"name": "revenue", "prometheus": {"query": query, "min": 10, **more}}]


def test_a_free_value_outside_its_limits_so_often_in_a_row_rolls_back() -> None:
    world, stable, _, traffic = judged(free())
    traffic.values["revenue"] = 9.0
    traffic.tick(2)
    assert len(world.route()) == 2, "twice is not three times"
    traffic.tick(1)
    assert world.route() == {stable: 100}
    assert "no guarantee" in world.condition("RolledBack")["message"]


def test_a_free_query_without_an_answer_holds_or_is_passed_over_as_the_spec_says() -> None:
    world, _, candidate, traffic = judged(free())
    traffic.values["revenue"] = float("nan")
    traffic.tick(14)
    assert world.condition("Reconciling")["reason"] == "NoData"
    world, _, candidate, traffic = judged([*free(onNoData="Ignore"), ERRORS])
    traffic.values["revenue"] = float("nan")
    passes(world, traffic)
    assert world.status["stable"]["revision"] == candidate


COPY = NoAnswer(Reason.STALE, "The answer is not newer than the last one: a cache answers.")


def test_a_copy_of_a_free_value_is_no_news_and_holds_as_it_was() -> None:
    world, stable, _, traffic = judged(free())
    for value in (9.0, COPY, 9.0, COPY, COPY):
        assert len(world.route()) == 2, "two values are not three"
        traffic.values["revenue"] = value
        traffic.tick()
        assert world.status["analysis"]["verdict"] == "Inconclusive"
        assert world.reason("Stalled") == ""
    traffic.values["revenue"] = 9.0
    traffic.tick()
    assert world.route() == {stable: 100}


@pytest.mark.parametrize("more", [{}, {"onNoData": "Ignore"}])
def test_what_a_free_value_has_passed_a_copy_does_not_take_back_nor_give(
    more: dict[str, Any],
) -> None:
    world, _, _, traffic = judged(free(**more))
    shown = []
    for value in (20.0, COPY, 20.0, 20.0, COPY):
        traffic.values["revenue"] = value
        traffic.tick()
        (metric,) = world.status["analysis"]["metrics"]
        shown.append(metric["verdict"])
    assert shown == [*["Inconclusive"] * 3, "Pass", "Pass"]


def test_copies_of_a_free_value_for_longer_than_three_looks_are_no_data() -> None:
    world, _, _, traffic = judged(free())
    traffic.values["revenue"] = 20.0
    traffic.tick(2)
    traffic.values["revenue"] = COPY
    traffic.tick(3)
    assert world.status["analysis"]["verdict"] == "Inconclusive"
    traffic.tick()
    assert world.status["analysis"]["verdict"] == "NoData"
    assert "a cache answers" in world.status["analysis"]["message"]


def test_a_cache_that_answers_anew_once_a_minute_is_not_held_against_a_rollout() -> None:
    world, _, _, traffic = judged(free())
    verdicts = []
    for look in range(24):
        traffic.values["revenue"] = 20.0 if look % 6 == 0 else COPY
        traffic.tick()
        verdicts.append(world.status["analysis"]["verdict"])
    assert "NoData" not in verdicts[6:], "since the second value it is known how often they come"
    assert world.reason("Stalled") == ""


def test_queries_are_confined_to_their_namespace_and_shown_in_status() -> None:
    world, _, candidate, traffic = judged(free())
    traffic.values["revenue"] = 20.0
    traffic.tick()
    (metric,) = world.status["analysis"]["metrics"]
    assert 'namespace="shop"' in metric["query"]
    assert candidate in metric["query"]
    assert metric["guaranteed"] is False


def test_a_first_revision_and_a_rollout_back_are_not_judged() -> None:
    world = World.with_spec(
        traffic={"router": "envoy"}, analysis={"metrics": [ERRORS]}, rollout={"steps": STEPS}
    )
    world.settings = MEASURING
    world.serve()
    assert world.examination is None
    assert "analysis" not in world.status
