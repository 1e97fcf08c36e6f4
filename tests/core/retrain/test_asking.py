"""When a new model is asked for: once per episode, within budgets, and never from broken data."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.core.retrain.setting import (
    V8,
    drift,
    entries,
    only_request,
    request_status,
    retraining,
    serving,
    steady,
    unknown,
)
from tests.core.world import World

from mooring.core.retrain.facts import PerformanceFacts, RowsFacts


def requested(world: World) -> tuple[str, str]:
    found = world.condition("RetrainingRequested")
    return found["status"], found["reason"]


def fail(world: World) -> None:
    """Whoever trains gives up on everything that is in flight."""
    for name in list(world.requests):
        if request_status(world, name).get("phase") not in ("Failed", "Succeeded"):
            world.patch_request(name, phase="Failed", message="no luck")
    world.settle()


def test_drift_that_lasts_asks_once() -> None:
    world = serving()
    drift(world, timedelta(hours=2))
    world.settle()
    assert world.requests == {}
    assert requested(world) == ("False", "Waiting")
    world.wait(hours=1)
    world.settle()
    request = world.requests[only_request(world)]
    stable = world.status["stable"]["revision"]
    assert request["spec"]["revision"] == stable
    assert request["spec"]["trigger"]["type"] == "Drift"
    assert request["spec"]["dataWindow"]["end"] == "2026-01-01T01:01:00Z"
    assert request["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert requested(world) == ("True", "Drift")
    for _ in range(5):
        world.wait(hours=30)
        world.settle()
    assert len(world.requests) == 1


def test_it_is_looked_at_again_when_drift_will_have_lasted() -> None:
    world = serving()
    drift(world, timedelta(hours=2))
    assert world.settle().look_again == world.now + timedelta(hours=1)


def test_an_episode_ends_when_steady_data_is_seen_and_not_when_nothing_is() -> None:
    world = serving(retraining(cooldown="0s"))
    drift(world)
    world.settle()
    fail(world)
    unknown(world)
    world.settle()
    drift(world)
    world.settle()
    assert len(world.requests) == 1
    assert "`mooring retrain` asks again" in world.condition("RetrainingRequested")["message"]
    steady(world)
    world.settle()
    drift(world)
    world.settle()
    assert len(world.requests) == 2
    assert len({r["spec"]["idempotencyKey"] for r in world.requests.values()}) == 2


def test_the_episode_stands_in_the_record_before_the_request_is_made() -> None:
    world = serving()
    drift(world)
    world.round(kill_after=2)  # status and record
    assert world.requests == {}
    (entry,) = entries(world)
    assert not entry.made
    assert world.settle() is not None
    assert only_request(world) == entry.request
    (entry,) = entries(world)
    assert entry.made
    assert entry.order is None


@pytest.mark.parametrize("writes", range(9))
def test_killed_after_any_write_it_asks_once(writes: int) -> None:
    world = serving()
    drift(world)
    for _ in range(4):
        world.round(kill_after=writes % 4)
        world.round(kill_after=writes)
    world.lose_status()
    world.settle()
    assert len(world.requests) == 1


def test_a_deleted_request_is_not_made_again() -> None:
    world = serving()
    drift(world)
    world.settle()
    world.requests.clear()
    world.made.clear()
    world.settle()
    world.lose_status()
    world.settle()
    assert world.requests == {}
    assert [e.outcome for e in entries(world)] == ["Deleted"]


def test_a_request_that_the_api_server_refuses_is_told_of_and_tried_again() -> None:
    world = serving()
    drift(world)
    for _ in range(10):
        plan = world.round()
        if plan.create:
            break
    world.requests.clear()  # it was refused
    (manifest,) = plan.create
    name = manifest["metadata"]["name"]
    world.retraining = replace(world.retraining, refused={name: "exceeded quota: rr=10"})
    plan = world.round()
    assert [one["metadata"]["name"] for one in plan.create] == [name]
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(seconds=30)
    said = {c["type"]: c["message"] for c in world.status["conditions"]}
    assert said["RetrainingRequested"] == (
        f"RetrainingRequest {name}: the API server refused it: exceeded quota: rr=10"
    )


def test_broken_data_blocks_triggers_and_the_verb() -> None:
    world = serving()
    drift(world, healthy=False)
    world.settle()
    assert world.requests == {}
    assert requested(world) == ("False", "DataUnhealthy")
    world.act(f"retrain/{world.status['stable']['revision']}/1")
    world.settle()
    assert world.status["lastAction"]["result"] == "Refused"
    assert "broken" in world.status["lastAction"]["message"]
    drift(world)
    world.settle()
    assert len(world.requests) == 1


def test_broken_spans_are_left_out_of_the_data() -> None:
    world = serving()
    spans = ((world.now - timedelta(hours=9), world.now - timedelta(hours=8)),)
    drift(world, unhealthy_windows=spans)
    world.settle()
    window = world.requests[only_request(world)]["spec"]["dataWindow"]
    assert window["exclude"] == [{"start": "2025-12-31T15:01:00Z", "end": "2025-12-31T16:01:00Z"}]


def ask_again(world: World) -> None:
    steady(world)
    world.settle()
    drift(world)
    world.settle()


def test_the_cooldown_lies_between_two_requests() -> None:
    world = serving(retraining(cooldown="24h"))
    drift(world)
    world.settle()
    fail(world)
    ask_again(world)
    assert len(world.requests) == 1
    assert requested(world) == ("False", "Cooldown")
    assert world.settle().look_again == world.now + timedelta(hours=24)
    world.wait(hours=24)
    world.settle()
    assert len(world.requests) == 2


def test_the_budget_is_of_a_calendar_month() -> None:
    budget = {"perMonth": 2, "maxIneffective": 9}
    world = serving(retraining(cooldown="0s", budget=budget))
    for _ in range(3):
        drift(world)
        world.settle()
        fail(world)
        steady(world)
        world.settle()
    drift(world)
    world.settle()
    assert len(world.requests) == 2
    assert requested(world) == ("False", "BudgetSpent")
    assert world.status["retraining"]["thisMonth"] == 2
    assert world.settle().look_again is not None
    world.wait(days=31)
    drift(world)
    world.settle()
    assert len(world.requests) == 3


def test_only_so_many_are_in_flight() -> None:
    triggers: tuple[dict[str, Any], ...] = ({"drift": {}}, {"schedule": "0 * * * *"})
    world = serving(retraining(*triggers, cooldown="0s"))
    drift(world)
    world.wait(hours=2)
    world.settle()
    assert len(world.requests) == 1
    fail(world)
    assert len(world.requests) == 2


def test_after_so_many_without_effect_triggers_ask_no_more() -> None:
    world = serving(retraining(cooldown="0s", budget={"perMonth": 50, "maxIneffective": 2}))
    for _ in range(4):
        ask_again(world)
        fail(world)
    assert len(world.requests) == 2
    ineffective = world.condition("RetrainIneffective")
    assert ineffective["status"] == "True"
    assert "2 retrainings in a row" in ineffective["message"]
    assert requested(world)[0] == "False"
    world.act(f"retrain/{world.status['stable']['revision']}/1")
    world.settle()
    assert len(world.requests) == 3  # a person may
    world.model("s3://models/fraud/v9")
    world.serve()
    ask_again(world)
    assert world.condition("RetrainIneffective")["status"] == "False"


@pytest.mark.parametrize(("upper", "asks"), [(0.89, True), (0.9, False), (0.95, False)])
def test_performance_asks_when_it_is_below_with_certainty(upper: float, asks: bool) -> None:
    trigger: dict[str, Any] = {"performance": {"metric": "accuracy", "below": 0.9}}
    world = serving(retraining(trigger))
    world.retraining = replace(
        world.retraining, performance={"accuracy": PerformanceFacts(0.85, 0.8, upper, 500)}
    )
    world.settle()
    assert bool(world.requests) == asks
    if asks:
        evidence = world.requests[only_request(world)]["spec"]["evidence"]
        assert evidence[0]["feature"] == "accuracy"
        assert evidence[0]["samples"] == 500


@pytest.mark.parametrize(("lower", "asks"), [(12.1, True), (12.0, False), (8.0, False)])
def test_errors_ask_when_they_are_above_with_certainty(lower: float, asks: bool) -> None:
    world = serving(retraining({"performance": {"metric": "mae", "above": 12}}))
    world.retraining = replace(
        world.retraining, performance={"mae": PerformanceFacts(13.5, lower, 15, 500)}
    )
    world.settle()
    assert bool(world.requests) == asks
    if asks:
        trigger = world.requests[only_request(world)]["spec"]["trigger"]
        assert trigger["message"] == ("mae is 13.5 (between 12.1 and 15, 500 samples), above 12")


def test_errors_ask_again_after_they_were_seen_to_be_small() -> None:
    world = serving(retraining({"performance": {"metric": "rmse", "above": 12}}, cooldown="0s"))
    for value, count in ((14.0, 1), (14.5, 1), (12.5, 1), (11.9, 1), (14.0, 2)):
        world.wait(minutes=5)
        found = PerformanceFacts(value, value - 0.6, value + 0.6, 900)
        world.retraining = replace(world.retraining, performance={"rmse": found})
        world.settle()
        fail(world)
        assert len(world.requests) == count, value


def test_new_data_asks_when_there_is_enough_and_again_when_there_was_less() -> None:
    trigger: dict[str, Any] = {"newData": {"query": "q", "atLeast": 100}}
    world = serving(retraining(trigger, cooldown="0s"))
    for rows, count in ((99.0, 0), (100.0, 1), (250.0, 1), (3.0, 1), (100.0, 2)):
        world.wait(minutes=1)
        world.retraining = replace(world.retraining, new_data={"q": RowsFacts(rows, world.now)})
        world.settle()
        fail(world)
        assert len(world.requests) == count


@pytest.mark.parametrize("query", ["sum(increase(rows_total[{{ window }}]))", "sum(r[{{window}}])"])
def test_new_data_asks_again_for_other_rows_though_nobody_looked_while_there_were_few(
    query: str,
) -> None:
    trigger: dict[str, Any] = {"newData": {"query": query, "atLeast": 100}}
    world = serving(retraining(trigger, cooldown="0s"))
    asked = world.now
    for rows in (100.0, 250.0):
        world.wait(minutes=1)
        world.retraining = replace(world.retraining, new_data={query: RowsFacts(rows, asked)})
        world.settle()
        fail(world)
        assert len(world.requests) == 1, rows
    world.wait(hours=20)  # the operator was away meanwhile
    since = entries(world)[-1].at
    world.retraining = replace(world.retraining, new_data={query: RowsFacts(450.0, since)})
    for _ in range(3):
        world.settle()
        fail(world)
        world.wait(minutes=1)
        assert len(world.requests) == 2  # and for the same rows only once


def test_rows_that_were_counted_for_an_earlier_request_do_not_ask() -> None:
    trigger: dict[str, Any] = {"newData": {"query": "q", "atLeast": 100}}
    world = serving(retraining(trigger, cooldown="0s"))
    before = world.now
    world.model("s3://models/fraud/v2")
    world.wait(minutes=1)
    world.serve()
    world.retraining = replace(world.retraining, new_data={"q": RowsFacts(500.0, before)})
    world.settle()
    assert world.requests == {}


def test_what_is_new_is_counted_since_the_promotion_or_the_last_request() -> None:
    query = "sum(increase(rows_total[{{ window }}]))"
    world = serving(retraining({"newData": {"query": query, "atLeast": 100}}, cooldown="0s"))
    world.wait(hours=3)
    plan = world.settle()
    (question,) = plan.count
    assert 'rows_total{namespace="shop"}[10860s]' in question.text
    assert plan.look_again == world.now + timedelta(minutes=5)
    world.retraining = replace(world.retraining, new_data={query: RowsFacts(150.0, question.since)})
    world.settle()
    assert len(world.requests) == 1
    (question,) = world.round().count
    assert question.since == world.now


def test_new_data_is_counted_over_weeks_though_a_range_of_ones_own_is_a_day_at_most() -> None:
    query = "sum(increase(rows_total[{{ window }}]))"
    world = serving(retraining({"newData": {"query": query, "atLeast": 100}}, cooldown="0s"))
    world.wait(days=20)
    (question,) = world.settle().count
    assert f"[{20 * 86400 + 60}s]" in question.text
    own = serving(retraining({"newData": {"query": "sum(increase(r[2d]))", "atLeast": 100}}))
    assert "a range is longer than" in own.status["retraining"]["message"]


def test_a_query_that_cannot_be_asked_says_why_where_its_author_looks() -> None:
    world = serving(retraining({"newData": {"query": "sum(", "atLeast": 1}}))
    assert "the query of newData cannot be asked" in world.status["retraining"]["message"]


def test_a_schedule_asks_once_for_all_the_times_that_were_missed() -> None:
    world = serving(retraining({"schedule": "0 3 * * *"}, cooldown="0s"))
    assert world.requests == {}  # not for times before it was known
    assert world.settle().look_again == world.now.replace(hour=3, minute=0)
    world.wait(days=10)
    world.settle()
    fail(world)
    (request,) = world.requests.values()
    assert request["spec"]["trigger"]["episode"] == "2026-01-10T03:00:00Z"
    world.wait(days=1)
    world.settle()
    assert len(world.requests) == 2


def test_a_schedule_that_names_no_time_says_so_where_its_author_looks() -> None:
    world = serving(retraining({"schedule": "75 3 * * *"}))
    assert requested(world) == ("False", "InvalidSchedule")
    assert "'75' is no minute" in world.status["retraining"]["message"]


def test_nothing_is_asked_for_while_another_model_is_on_its_way() -> None:
    world = serving()
    world.model("s3://models/fraud/v9")
    world.settle()
    drift(world)
    world.settle()
    assert world.requests == {}
    assert requested(world) == ("False", "RollingOut")


# a person -------------------------------------------------------------------------------------


def test_the_verb_asks_once_per_token() -> None:
    world = serving()
    stable = world.status["stable"]["revision"]
    for token, count in (("1", 1), ("1", 1)):
        world.act(f"retrain/{stable}/{token}")
        world.settle()
        assert len(world.requests) == count
    request = world.requests[only_request(world)]
    assert request["spec"]["trigger"]["type"] == "Manual"
    assert only_request(world) in world.status["lastAction"]["message"]
    world.act(f"retrain/{stable}/2")
    world.settle()
    assert world.status["lastAction"]["result"] == "Refused"
    assert "is not finished" in world.status["lastAction"]["message"]
    fail(world)
    world.act(f"retrain/{stable}/3")
    world.settle()
    assert len(world.requests) == 2


def test_the_verb_needs_somebody_who_trains() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.act(f"retrain/{stable}/1")
    world.settle()
    assert world.status["lastAction"]["result"] == "Refused"
    assert "spec.retraining is not set" in world.status["lastAction"]["message"]


def test_the_verb_names_stable() -> None:
    world = serving()
    world.model("s3://models/fraud/v9")
    world.settle()
    candidate = world.status["candidate"]["revision"]
    world.act(f"retrain/{candidate}/1")
    world.settle()
    assert world.status["lastAction"]["result"] == "Refused"


def test_a_request_made_by_hand_is_attended_to_without_any_spec() -> None:
    world = World.with_spec()
    world.serve()
    world.request("by-hand", {"deploymentRef": {"name": "fraud"}})
    world.settle()
    assert request_status(world, "by-hand")["phase"] == "Pending"
    world.patch_request("by-hand", result=V8)
    world.settle()
    assert request_status(world, "by-hand")["phase"] == "Succeeded"
    assert world.status["candidate"]["modelUri"] == V8["uri"]


def test_what_never_asked_leaves_no_trace() -> None:
    world = World.with_spec()
    world.serve()
    assert "retraining" not in world.status
    assert "RetrainingRequested" not in {c["type"] for c in world.status["conditions"]}
    assert not any(r.ledger for r in world.history.revisions)
