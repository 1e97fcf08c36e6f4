"""Traffic that goes back to stable: at once where stable was left whole, else as its pods come."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.test_steps import V3, behind_routers, in_step, run, start
from tests.core.world import World

HALF: list[dict[str, Any]] = [{"weight": 50, "duration": "30m"}]


def short(world: World, stable: str, ready: int, rounds: int = 1) -> None:
    """Time goes by in which stable has so few pods, and everybody else all."""
    for _ in range(rounds):
        for revision in world.revisions():
            world.run_pods(revision, ready if revision == stable else None)
        world.run_routers()
        world.settle(40)
        world.wait(seconds=20)


@pytest.mark.parametrize("replicas", [2, 4])
def test_an_abort_does_not_wait_for_a_pod_that_stable_has_lost(replicas: int) -> None:
    world, stable, candidate = in_step(HALF, replicas=replicas)
    short(world, stable, replicas - 1)
    world.act(f"abort/{candidate}/1")
    world.settle(40)
    assert world.route() == {stable: 100}
    short(world, stable, replicas - 1, rounds=4)
    assert world.revisions() == [stable]


def test_the_next_revision_does_not_wait_for_a_pod_that_stable_has_lost() -> None:
    world, stable, first = in_step(HALF)
    short(world, stable, 3)
    world.model(V3)
    short(world, stable, 3, rounds=5)
    (second,) = set(world.revisions()) - {stable, first}
    assert world.route() == {stable: 50, second: 50}
    assert first not in world.revisions()


def test_while_no_pod_of_stable_answers_what_was_aborted_keeps_its_traffic() -> None:
    world, stable, candidate = in_step(HALF)
    world.act(f"pause/{candidate}/1")
    world.settle(40)
    world.run_pods(stable, ready=0)
    world.act(f"abort/{candidate}/2")
    world.settle(40)
    assert candidate in world.route()
    world.run_pods(stable, ready=1)
    world.settle(40)
    assert world.route() == {stable: 100}


def test_while_no_pod_of_stable_answers_its_repair_gets_pods_and_takes_over() -> None:
    world, stable, first = in_step(HALF)
    world.act(f"pause/{first}/1")
    world.settle(40)
    world.run_pods(stable, ready=0)
    world.model(V3)
    world.settle(40)
    assert world.route() == {first: 100}, "nobody else answers"
    (second,) = set(world.revisions()) - {stable, first}
    assert world.counts()[second] > 0
    short(world, stable, 0, rounds=4)
    assert world.status["stable"]["revision"] == second
    assert world.route() == {second: 100}


def moved_over() -> tuple[World, str, str]:
    """A promotion with room for one more pod has moved some of the four."""
    world, stable = behind_routers(maxSurge=1)
    candidate = start(world)
    for _ in range(3):
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle(40)
    assert world.counts()[stable] < 4
    return world, stable, candidate


def test_where_pods_have_moved_over_the_traffic_goes_back_as_they_come() -> None:
    world, stable, candidate = moved_over()
    ready = world.counts()[stable]
    world.act(f"abort/{candidate}/1")
    for _ in range(6):
        before = world.route().get(candidate, 0)
        short(world, stable, ready)
        assert world.route().get(stable, 0) <= 100 * ready // 4
        assert 0 < world.route()[candidate] <= before
    run(world)
    assert world.route() == {stable: 100}


def test_no_deadline_runs_for_a_revision_that_gets_no_pods_before_stable_has_its_own() -> None:
    world, stable, _ = moved_over()
    ready = world.counts()[stable]
    world.model(V3)
    for _ in range(10):
        short(world, stable, ready)
        world.wait(minutes=5)
    second = world.status["candidate"]["revision"]
    assert world.counts()[second] == 0
    assert "deadline" not in world.status["rollout"]
    assert world.reason("RolledBack") == ""
    assert "until the one before it has made room" in world.condition("Reconciling")["message"]
    run(world)
    assert world.status["stable"]["revision"] == second


def test_who_is_taken_back_never_gets_more_pods() -> None:
    world, stable, candidate = in_step([{"weight": 10, "duration": "30m"}], replicas=8, maxSurge=4)
    assert world.counts() == {stable: 8, candidate: 1}
    world.run_pods(stable, ready=7)
    world.settle(40)
    world.act(f"abort/{candidate}/1")
    world.settle(40)
    assert world.counts() == {stable: 8, candidate: 1}


@pytest.mark.parametrize("router", ["envoy", "replicas"])
@pytest.mark.parametrize("surge", [0, "25%", "100%"])
def test_the_repair_of_a_stable_that_does_not_answer_gets_what_there_is_room_for(
    surge: int | str, router: str
) -> None:
    world = World.with_spec(
        replicas=4,
        traffic={"router": router},
        rollout={"progressDeadline": "10m", "maxSurge": surge, "steps": HALF},
    )
    stable = world.serve()
    first = start(world)
    run_all(world)
    world.act(f"abort/{first}/1")
    world.settle(40)
    world.model(V3)
    world.settle(40)
    for _ in range(10):
        run_all(world, dead=stable)
        world.wait(minutes=10)
    (repair,) = world.revisions()
    assert repair not in (stable, first)
    assert world.counts() == {repair: 4}


def run_all(world: World, dead: str = "") -> None:
    """All pods that are asked for get ready, but those of one revision."""
    for _ in range(8):
        for revision in world.revisions():
            world.run_pods(revision, 0 if revision == dead else None)
        if world.resource["spec"]["traffic"]["router"] == "envoy":
            world.run_routers()
        world.settle(40)
