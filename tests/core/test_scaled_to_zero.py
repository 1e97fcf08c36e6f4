"""Scaling to 0 amid a rollout, and back: it leaves out no step, and keeps no broken stable."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.test_steps import V3, in_step, run, start
from tests.core.world import World

PAUSE: list[dict[str, Any]] = [{"weight": 25, "duration": "10m"}, {"pause": {}}]


def at_zero(steps: list[dict[str, Any]]) -> tuple[World, str, str]:
    """A world behind routers that was scaled to 0 in its first step."""
    world, stable, candidate = in_step(steps)
    world.edit(replicas=0)
    run(world)
    return world, stable, candidate


def without_router(steps: list[dict[str, Any]]) -> tuple[World, str, str]:
    rollout = {"progressDeadline": "10m", "steps": steps}
    world = World.with_spec(replicas=4, traffic={"router": "replicas"}, rollout=rollout)
    stable = world.serve()
    candidate = start(world)
    run_pods(world)
    return world, stable, candidate


def run_pods(world: World) -> None:
    for _ in range(6):
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle(40)


def stable_of(world: World) -> str:
    stable = world.history.stable
    assert stable is not None
    return stable.hash


def test_at_zero_a_rollout_keeps_its_step_and_says_that_it_waits_for_pods() -> None:
    world, stable, candidate = at_zero([{"weight": 25, "duration": "10m"}])
    writes = len(world.writes)
    world.wait(hours=5)
    world.settle()
    assert len(world.writes) == writes
    assert world.counts() == {stable: 0, candidate: 0}
    assert world.status["rollout"]["step"] == 1
    assert world.status["rollout"]["stage"] == "ScaledToZero"
    assert world.status["rollout"]["waitingFor"] == "pods to be asked for again"
    reconciling = world.condition("Reconciling")
    assert (reconciling["status"], reconciling["reason"]) == ("False", "ScaledToZero")
    assert world.reason("Ready") == ""


def test_without_a_router_no_step_is_done_by_no_pods() -> None:
    steps = [{"weight": 10, "duration": "10m"}, {"weight": 75, "duration": "10m"}]
    world, stable, candidate = without_router(steps)
    world.edit(replicas=0)
    for _ in range(10):
        run_pods(world)
        world.wait(minutes=5)
    assert stable_of(world) == stable
    assert world.status["candidate"]["revision"] == candidate
    assert world.status["rollout"]["step"] == 1


@pytest.mark.parametrize("hurried", [False, True], ids=["all pods gone", "pods still ending"])
@pytest.mark.parametrize("steps", [PAUSE, [{"weight": 25, "duration": "24h"}]], ids=str)
def test_back_from_zero_the_candidate_gets_no_pod_before_stable_has_one(
    steps: list[dict[str, Any]], hurried: bool
) -> None:
    world, stable, candidate = in_step(steps)
    world.edit(replicas=0)
    world.settle(40)
    if not hurried:
        run(world)
    world.edit(replicas=4)
    world.run_pods(stable, ready=0)
    world.settle(40)
    assert world.counts() == {stable: 4, candidate: 0}
    assert world.status["rollout"]["waitingFor"] == "stable's first pod"
    assert world.condition("Reconciling")["reason"] == "RollingOut"
    world.wait(minutes=9)
    world.settle()
    assert world.counts() == {stable: 4, candidate: 0}
    world.run_pods(stable, ready=1)
    world.settle(40)
    assert world.counts() == {stable: 4, candidate: 2}
    run(world)
    assert world.route() == {stable: 75, candidate: 25}
    assert world.status["rollout"]["step"] == 1
    assert stable_of(world) == stable


def test_back_from_zero_a_paused_rollout_waits_for_stable_too() -> None:
    world, stable, candidate = in_step(PAUSE)
    world.act(f"pause/{candidate}/1")
    world.edit(replicas=0)
    run(world)
    world.edit(replicas=4)
    world.settle(40)
    assert world.counts() == {stable: 4, candidate: 0}
    run(world)
    assert world.counts() == {stable: 4, candidate: 2}
    assert world.status["phase"] == "Paused"


def test_back_from_zero_a_lost_status_lets_the_candidate_not_overtake() -> None:
    world, stable, candidate = at_zero(PAUSE)
    world.edit(replicas=4)
    world.lose_status()
    world.settle(40)
    assert world.counts() == {stable: 4, candidate: 0}
    assert stable_of(world) == stable


def test_a_stable_that_does_not_come_back_from_zero_blocks_no_fix() -> None:
    """The candidate gets its pods after a progress deadline, and a new one at once."""
    world, stable, candidate = at_zero(PAUSE)
    world.edit(replicas=4)
    world.settle(40)
    world.fail_pods(stable, "ServerFailed", "no such driver")
    plan = world.settle(40)
    assert plan.look_again is not None
    world.wait(minutes=9, seconds=50)
    world.settle(40)
    assert world.counts()[candidate] == 0
    world.wait(seconds=20)
    world.round()
    world.settle(40)
    assert world.counts()[candidate] == 2
    assert "deadline" in world.status["rollout"], "now its own time runs"
    world.run_pods(candidate, ready=1)
    world.settle(40)
    assert stable_of(world) == candidate
    assert any("stable does not serve" in told for told in world.told)


def test_a_new_candidate_beside_a_stable_that_does_not_come_back_starts_at_once() -> None:
    world, stable, _ = at_zero([{"mirror": 50, "duration": "1h"}])
    world.edit(replicas=4)
    world.settle(40)
    world.fail_pods(stable, "ServerFailed", "no such driver")
    third = start(world, V3)
    assert world.counts()[third] == 1, "one until it has fixed the digest"


def test_an_operator_that_dies_as_it_lets_the_candidate_go_does_not_wait_again() -> None:
    world, stable, candidate = at_zero(PAUSE)
    world.edit(replicas=4)
    world.settle(40)
    world.fail_pods(stable, "ServerFailed", "no such driver")
    world.settle(40)
    world.wait(minutes=11)
    world.round(kill_after=1)
    assert world.counts()[candidate] == 0
    world.settle(40)
    assert world.counts()[candidate] == 2


def test_at_zero_a_persons_word_still_counts() -> None:
    world, stable, candidate = at_zero(PAUSE)
    world.act(f"abort/{candidate}/1")
    run(world)
    assert stable_of(world) == stable
    assert world.status["rejectedRevisions"][0]["reason"] == "Aborted"
    world, _, candidate = at_zero(PAUSE)
    world.act(f"promote-full/{candidate}/1")
    run(world)
    assert stable_of(world) == candidate


def test_time_at_zero_is_no_time_of_the_step() -> None:
    world, stable, candidate = in_step([{"weight": 25, "duration": "30m"}])
    world.wait(minutes=20)
    run(world)
    world.edit(replicas=0)
    run(world)
    world.wait(hours=2)
    world.edit(replicas=4)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}
    world.wait(minutes=8)
    run(world)
    assert stable_of(world) == stable
    world.wait(minutes=3)
    run(world)
    assert stable_of(world) == candidate
