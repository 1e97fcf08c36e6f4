"""Things that go wrong in the middle of a rollout (docs/reliability.md counts them)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.core.test_steps import V1, V2, V3, behind_routers, in_step, run, start
from tests.core.world import World


def _settle_down(world: World) -> None:
    """Until pods that are drained have gone."""
    run(world)
    world.wait(minutes=1)
    run(world)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_new_revision_at_any_step_begins_at_the_first(step: int) -> None:
    world, stable, first = in_step()
    for minutes in (10, 20)[:step]:
        world.wait(minutes=minutes)
        run(world)
    second = start(world, V3)
    assert world.route() == {stable: 100}, "the second takes nothing over from the first"
    _settle_down(world)
    assert world.route() == {stable: 95, second: 5}
    assert world.revisions() == sorted([stable, second])
    assert first not in [r["revision"] for r in world.status.get("rejectedRevisions", [])]


def test_pods_that_are_lost_while_promoting_are_waited_for() -> None:
    """All steps are done, and a pod dies before the last one is ready."""
    world, stable = behind_routers()
    candidate = start(world)
    world.run_pods(candidate, ready=1)
    world.settle(20)
    world.run_pods(candidate, ready=3)
    world.settle(20)
    world.run_pods(candidate, ready=0)
    world.settle(20)
    assert world.route() == {stable: 100}
    assert world.counts()[stable] == 4
    assert world.status["stable"]["revision"] == stable
    _settle_down(world)
    assert world.route() == {candidate: 100}
    assert world.revisions() == [candidate]


def test_pods_that_are_lost_as_the_traffic_moves_are_waited_for() -> None:
    """It is promoted, the routers have not taken it yet, and its pods die."""
    world, stable = behind_routers()
    candidate = start(world)
    world.routers_follow = False
    for _ in range(4):
        world.run_pods(candidate)
        world.settle(20)
    assert world.status["stable"]["revision"] == candidate
    assert world.route() == {stable: 100}
    world.run_pods(candidate, ready=0)
    world.routers_follow = True
    world.settle(20)
    assert world.route() == {stable: 100}, "nobody is sent to pods that are not there"
    assert world.counts()[stable] == 4
    _settle_down(world)
    assert world.route() == {candidate: 100}


def test_scaling_after_an_abort_gives_the_aborted_revision_nothing() -> None:
    world, stable, candidate = in_step()
    world.act(f"abort/{candidate}/1")
    world.settle(20)
    most = world.counts().get(candidate, 0)
    for count in (6, 2, 5):
        world.edit(replicas=count)
        for _ in range(5):
            world.settle(20)
            counts = world.counts()
            assert counts.get(candidate, 0) <= most
            assert world.route() == {stable: 100}
            most = counts.get(candidate, 0)
            for revision in world.revisions():
                world.run_pods(revision)
            world.run_routers()
            world.wait(seconds=3)
        assert world.counts()[stable] == count
    _settle_down(world)
    assert world.counts() == {stable: 5}
    assert world.reason("Ready") == ""


def test_a_stable_that_fails_after_its_promotion_is_said_to_and_can_be_taken_back() -> None:
    """Nothing is rolled back by itself: nobody knows whether the one before would do better."""
    world, first = behind_routers()
    second = start(world)
    _settle_down(world)
    assert world.route() == {second: 100}
    world.fail_pods(second, "ServerFailed", "segmentation fault")
    world.settle(20)
    assert world.reason("Ready") == "ServerFailed"
    assert "segmentation fault" in world.condition("Ready")["message"]
    assert world.status["stable"]["revision"] == second
    assert world.revisions() == [second]
    world.act(f"undo/{second}/1")
    world.settle(20)
    world.run_pods(first)
    world.run_routers()
    world.settle(40)
    assert world.route() == {first: 100}
    assert world.status["stable"]["revision"] == first
    assert world.reason("Ready") == ""


@pytest.mark.parametrize("jump", [timedelta(minutes=10), timedelta(minutes=-10)])
def test_a_clock_that_jumps_changes_no_weight_of_a_paused_rollout(jump: timedelta) -> None:
    world, stable, candidate = in_step([{"weight": 20}, {"pause": {}}, {"weight": 50}])
    for _ in range(3):
        world.now += jump
        run(world)
        assert world.route() == {stable: 80, candidate: 20}
        assert world.reason("Ready") == ""
        assert world.reason("Stalled") == ""


def test_a_clock_that_is_set_back_amid_a_step_ends_it_no_sooner() -> None:
    world, stable, candidate = in_step()
    world.wait(minutes=5)
    run(world)
    world.now -= timedelta(minutes=10)
    run(world)
    assert world.route() == {stable: 95, candidate: 5}
    world.wait(minutes=30)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}, "and it goes on"


@pytest.mark.parametrize("kill_after", range(1, 8))
def test_what_is_removed_after_a_promotion_is_not_made_again(kill_after: int) -> None:
    """Routers took longer over the route than pods are drained, and a round ends half-way."""
    world, stable = behind_routers()
    candidate = start(world)
    for _ in range(40):
        world.run_pods(candidate)
        world.round()
        if world.route() == {candidate: 100}:
            break
    world.routers_follow = False
    world.settle()
    world.wait(minutes=5)
    world.routers_follow = True
    before = len(world.writes)
    world.round(kill_after=kill_after)
    for _ in range(6):
        world.settle(20)
        world.wait(seconds=15)
    made = [line for line in world.writes[before:] if line.startswith("create") and stable in line]
    assert made == []
    assert world.revisions() == [candidate]


def test_the_model_of_before_after_a_rejection_is_served_without_a_rollout() -> None:
    world, stable, candidate = in_step()
    world.act(f"abort/{candidate}/1")
    _settle_down(world)
    world.model(V1)
    _settle_down(world)
    assert world.route() == {stable: 100}
    assert world.reason("Stalled") == ""
    world.model(V2)
    _settle_down(world)
    assert world.route() == {stable: 100}, "what was aborted stays so"


def test_a_clock_that_is_set_back_amid_a_bake_puts_its_end_off_and_writes_once() -> None:
    world, stable, candidate = in_step([{"weight": 50}], bake={"duration": "30m"})
    assert world.status["phase"] == "Baking"
    world.now -= timedelta(minutes=10)
    run(world)
    assert world.route() == {candidate: 95, stable: 5}
    world.wait(minutes=31)
    _settle_down(world)
    assert world.revisions() == [candidate]
