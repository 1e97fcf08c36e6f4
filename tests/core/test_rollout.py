"""Rollouts as they happen: who serves when, and who is given up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.core.world import World

from mooring.core.rollout import RULES, Move, Rule

V2, V3 = "s3://models/fraud/v2", "s3://models/fraud/v3"
DEADLINE = {"progressDeadline": "10m", "revisionHistoryLimit": 10}
STEPS = DEADLINE | {"steps": [{"weight": 5, "duration": "10m"}]}


def rolling_out(uri: str = V2, replicas: int = 2) -> tuple[World, str, str]:
    """A world with a stable revision that serves and a candidate without pods yet."""
    world = World.with_spec(replicas=replicas)
    stable = world.serve()
    world.model(uri)
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    return world, stable, candidate


def pinned(world: World, revision: str) -> None:
    """The first pod of a revision has fixed its digest, and all are asked for."""
    world.run_pods(revision, ready=0)
    world.settle()


def given_up(world: World) -> list[str]:
    return [r["revision"] for r in world.status.get("rejectedRevisions", [])]


# taking over ----------------------------------------------------------------------------------


def test_a_candidate_takes_over_only_when_all_its_pods_are_available() -> None:
    world, stable, candidate = rolling_out(replicas=3)
    pinned(world, candidate)
    for ready in range(3):
        world.run_pods(candidate, ready=ready)
        world.settle()
        assert world.routed() == stable
        assert world.counts() == {stable: 3, candidate: 3}
    world.run_pods(candidate)
    world.settle()
    assert world.routed() == candidate


def test_a_count_of_a_former_generation_does_not_make_a_candidate_complete() -> None:
    world, stable, candidate = rolling_out(replicas=2)
    pinned(world, candidate)
    world.run_pods(candidate)
    world.deployment(candidate)["metadata"]["generation"] += 1
    world.settle()
    assert world.routed() == stable


@pytest.mark.parametrize(
    "change",
    [{"replicas": 3}, {"replicas": 1}, {"rollout": DEADLINE | {"progressDeadline": "20m"}}],
    ids=str,
)
def test_scaling_is_no_outage_of_stable_and_lets_nobody_take_over(
    change: dict[str, object],
) -> None:
    world, stable, candidate = rolling_out(replicas=2)
    pinned(world, candidate)
    world.run_pods(candidate, ready=1)
    world.settle()
    # Stable's Deployment changes, and its controller has not seen that yet.
    world.edit(**change)
    world.round()
    world.round()
    assert world.history.stable is not None
    assert world.history.stable.hash == stable
    assert world.routed() == stable


def test_a_stable_that_does_not_serve_does_not_block_its_repair() -> None:
    world, stable, candidate = rolling_out(replicas=3)
    world.fail_pods(stable, "ServerFailed", "segmentation fault")
    pinned(world, candidate)
    world.settle()
    assert world.routed() == stable
    world.run_pods(candidate, ready=1)
    world.settle()
    assert world.routed() == candidate


def test_the_old_spec_again_drops_the_candidate_at_once() -> None:
    world, stable, candidate = rolling_out()
    world.run_pods(candidate)
    world.model("s3://models/fraud/v1")
    world.round()
    assert world.revisions() == [stable]
    assert world.routed() == stable
    world.settle()
    assert given_up(world) == []
    assert "candidate" not in world.status


def test_a_new_revision_replaces_the_candidate_and_stable_stays_the_same() -> None:
    world, stable, candidate = rolling_out()
    world.model(V3)
    world.settle()
    assert candidate not in world.revisions()
    assert stable in world.revisions()
    assert len(world.revisions()) == 2
    assert world.status["stable"]["revision"] == stable
    assert world.status["candidate"]["modelUri"] == V3


def test_going_back_to_a_former_revision_is_a_rollout_like_any_other() -> None:
    world = World.with_spec()
    first = world.serve()
    world.model(V2)
    second = world.serve()
    world.model("s3://models/fraud/v1")
    world.settle()
    assert world.routed() == second
    assert world.status["candidate"]["revision"] == first
    assert "since" not in world.status["candidate"]
    assert world.serve() == first


def test_a_candidate_of_no_pods_is_stable_at_once() -> None:
    world = World.with_spec(replicas=0)
    first = world.serve()
    world.model(V2)
    second = world.serve()
    assert first != second
    assert world.counts() == {second: 0}
    assert world.condition("Ready")["reason"] == "ScaledToZero"


# the deadline ---------------------------------------------------------------------------------


def test_without_progress_in_time_the_candidate_is_rejected_and_stable_serves_on() -> None:
    world, stable, candidate = rolling_out()
    world.fail_pods(candidate, "ServerFailed", "no such operator: Foo")
    world.settle()
    world.wait(minutes=9)
    world.settle()
    assert candidate in world.revisions()
    world.wait(minutes=2)
    world.settle()
    assert world.revisions() == [stable]
    assert world.counts() == {stable: 2}
    (rejected,) = world.status["rejectedRevisions"]
    assert rejected["revision"] == candidate
    assert rejected["reason"] == "ProgressDeadlineExceeded"
    assert rejected["message"] == "no such operator: Foo"
    assert world.reason("Stalled") == "RevisionRejected"
    assert world.reason("Ready") == ""


def test_only_a_new_maximum_of_available_pods_puts_the_deadline_off() -> None:
    world, stable, candidate = rolling_out(replicas=4)
    pinned(world, candidate)
    for ready in (1, 2, 3):
        world.wait(minutes=9)
        world.run_pods(candidate, ready=ready)
        world.settle()
        assert candidate in world.revisions()
    for ready in (2, 3, 1):  # a crash loop
        world.wait(minutes=4)
        world.run_pods(candidate, ready=ready)
        world.settle()
    assert given_up(world) == [candidate]
    assert world.routed() == stable


def test_what_ran_out_while_the_operator_was_away_gets_a_minute_of_grace() -> None:
    world, _, candidate = rolling_out()
    pinned(world, candidate)
    world.wait(hours=3)
    world.connected_since = world.now
    world.settle()
    assert candidate in world.revisions()
    world.wait(seconds=59)
    world.settle()
    assert candidate in world.revisions()
    world.wait(seconds=1)
    world.settle()
    assert given_up(world) == [candidate]


def test_pods_that_are_ready_are_not_given_up_for_a_watch_that_has_stopped() -> None:
    world, _, candidate = rolling_out()
    pinned(world, candidate)
    world.wait(minutes=9)
    world.stop_watching("Deployment")
    world.run_pods(candidate)
    world.settle()
    world.wait(minutes=5)
    world.settle()
    assert given_up(world) == []
    world.resync()
    world.settle()
    assert world.routed() == candidate


def test_the_next_look_is_not_later_than_the_deadline() -> None:
    world, _, candidate = rolling_out()
    world.run_pods(candidate, ready=0)
    world.wait(minutes=9, seconds=55)
    plan = world.settle()
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(seconds=5)


def test_a_clock_set_back_does_not_put_the_deadline_off_by_as_much() -> None:
    world, _, candidate = rolling_out()
    pinned(world, candidate)
    world.wait(hours=-6)
    world.settle()
    world.wait(minutes=11)
    world.settle()
    assert given_up(world) == [candidate]


def test_a_status_that_lost_its_timers_starts_them_again() -> None:
    world, _, candidate = rolling_out()
    pinned(world, candidate)
    world.wait(minutes=9)
    world.lose_status()
    world.settle()
    world.wait(minutes=9)
    world.settle()
    assert candidate in world.revisions()
    world.wait(minutes=2)
    world.settle()
    assert given_up(world) == [candidate]


@pytest.mark.parametrize(
    "odd", [{"progressedAt": "soon"}, {"maxAvailable": None}, {"progressedAt": 7}], ids=str
)
def test_timers_that_cannot_be_read_start_again(odd: dict[str, object]) -> None:
    world, _, candidate = rolling_out()
    world.resource["status"]["rollout"] |= odd
    world.settle()
    assert candidate in world.revisions()


# rejected -------------------------------------------------------------------------------------


def rejected_world() -> tuple[World, str, str]:
    world, stable, candidate = rolling_out()
    world.run_pods(candidate, ready=0)
    world.wait(minutes=11)
    world.settle()
    assert given_up(world) == [candidate]
    return world, stable, candidate


def test_the_same_spec_again_does_not_try_a_rejected_revision_again() -> None:
    world, stable, candidate = rejected_world()
    writes = len(world.writes)
    world.settle()
    assert len(world.writes) == writes
    world.model(V2)
    world.settle()
    world.edit(rollout=DEADLINE | {"progressDeadline": "1h"}, replicas=3)
    world.serve()
    assert world.revisions() == [stable]
    assert given_up(world) == [candidate]


def test_nor_does_the_spec_that_comes_back_to_it_later() -> None:
    world, _, candidate = rejected_world()
    world.model(V3)
    third = world.serve()
    world.model(V2)
    world.serve()
    assert world.routed() == third
    assert world.reason("Stalled") == "RevisionRejected"
    assert given_up(world) == [candidate]


def test_status_names_the_way_to_try_again_and_it_works() -> None:
    world, _, candidate = rejected_world()
    assert f"retry/{candidate}/" in world.condition("Stalled")["message"]
    world.act(f"retry/{candidate}/1")
    world.settle()
    assert world.status["candidate"]["revision"] == candidate
    assert given_up(world) == []
    world.wait(minutes=9)
    world.settle()
    assert world.status["candidate"]["revision"] == candidate, "its time begins again"
    assert world.serve() == candidate


def test_new_inputs_are_tried_though_the_last_ones_were_rejected() -> None:
    world, _, _ = rejected_world()
    world.model(V3)
    world.serve()
    assert world.status["stable"]["modelUri"] == V3


# held -----------------------------------------------------------------------------------------


def test_a_paused_candidate_gets_its_pods_and_does_not_take_over() -> None:
    world, stable, candidate = rolling_out()
    world.act(f"pause/{candidate}/1")
    world.serve()
    assert world.routed() == stable
    assert world.counts() == {stable: 2, candidate: 2}
    assert world.status["phase"] == "Paused"
    assert world.condition("Reconciling")["status"] == "False"
    world.act(f"resume/{candidate}/2")
    world.settle()
    assert world.routed() == candidate


def test_no_deadline_runs_while_a_rollout_is_paused_and_a_full_one_after() -> None:
    world, _, candidate = rolling_out()
    pinned(world, candidate)
    world.act(f"pause/{candidate}/1")
    world.settle()
    assert "deadline" not in world.status["rollout"]
    writes = len(world.writes)
    world.wait(hours=20)
    world.settle()
    assert len(world.writes) == writes
    world.act(f"resume/{candidate}/2")
    world.settle()
    world.wait(minutes=9)
    world.settle()
    assert world.status["candidate"]["revision"] == candidate
    world.wait(minutes=2)
    world.settle()
    assert given_up(world) == [candidate]


def test_editing_the_rollout_starts_none_and_gives_nothing_up() -> None:
    world, stable, candidate = rolling_out()
    world.edit(rollout=STEPS)
    world.settle()
    world.edit(rollout=DEADLINE | {"progressDeadline": "1h"})
    world.settle()
    assert set(world.revisions()) == {stable, candidate}


def test_steps_do_not_keep_a_broken_stable_from_being_replaced() -> None:
    world = World.with_spec(rollout=STEPS)
    stable = world.serve()
    world.model(V2)
    world.serve()
    world.fail_pods(stable, "ServerFailed", "gone")
    world.settle()
    assert world.routed() != stable


# what stands in the way -----------------------------------------------------------------------


def test_a_spec_that_cannot_be_made_a_revision_drops_the_candidate_before_it() -> None:
    world, stable, candidate = rolling_out()
    world.edit(model={"uri": V3}, runtime={"name": "unknown"})
    world.settle()
    assert candidate not in world.revisions()
    assert world.routed() == stable
    assert world.counts() == {stable: 2}
    assert world.reason("Ready") == ""
    assert world.reason("Stalled") == "RuntimeNotFound"


def test_a_route_is_never_moved_off_pods_that_answer_onto_none() -> None:
    world, stable, candidate = rolling_out()
    pinned(world, candidate)
    world.run_pods(candidate)
    world.round(kill_after=2)  # status, and the record that promotes
    assert world.history.stable is not None
    assert world.history.stable.hash == candidate
    assert world.routed() == stable
    world.fail_pods(candidate, "ServerFailed", "gone again")
    world.settle()
    assert world.routed() == stable
    assert world.counts()[stable] == 2
    world.wait(hours=1)
    world.settle()
    assert world.counts()[stable] == 2, "kept for as long as the route needs them"
    world.run_pods(candidate, ready=1)
    world.settle()
    assert world.routed() == candidate


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_status_names_what_a_rollout_waits_for_where_it_waits_and_only_there(rule: Rule) -> None:
    waits = rule.move in (Move.WAIT, Move.DWELL, Move.HOLD)
    assert bool(rule.awaits) == waits
    # Shown after "waits for".
    assert not rule.awaits.startswith(("wait", "until"))
    assert " is " not in rule.awaits
