"""An autoscaler sees stable's pods alone: while others share the traffic it may only add some."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.given import spec
from tests.core.test_steps import V2, run, start
from tests.core.world import World

from mooring.core.kinds import Ref

HPA = Ref("HorizontalPodAutoscaler", "fraud")
STEPS = [{"weight": 50, "duration": "10m"}, {"weight": 90, "duration": "10m"}]
LOAD = 10
"""Pods that all the traffic needs."""


def loaded(router: str = "envoy", **rollout: Any) -> tuple[World, str]:
    """Ten pods take the load, of the 2 to 20 that the autoscaler may choose."""
    wanted = spec(
        autoscaling={"minReplicas": 2, "maxReplicas": 20},
        traffic={"router": router},
        rollout={"progressDeadline": "10m", "steps": STEPS, **rollout},
    )
    del wanted["replicas"]
    world = World.with_spec(wanted)
    stable = world.serve()
    world.autoscale(stable, LOAD)
    world.wait(minutes=10)
    settle(world)
    return world, stable


def settle(world: World) -> None:
    if world.resource["spec"]["traffic"]["router"] == "envoy":
        run(world)
        return
    for _ in range(6):
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle(40)


def autoscaler_acts(world: World, load: int = LOAD) -> int:
    """Sets the pods that the share of its target asks for, within its bounds; returns the least."""
    hpa = world.children[HPA]["spec"]
    target = hpa["scaleTargetRef"]["name"].removeprefix("fraud-")
    if world.resource["spec"]["traffic"]["router"] == "envoy":
        share = world.route().get(target, 0)
    else:
        share = 100 if world.routed() == target else 50
    needs = -(-load * share // 100)
    world.autoscale(target, max(hpa["minReplicas"], min(needs, hpa["maxReplicas"])))
    settle(world)
    return int(hpa["minReplicas"])


@pytest.mark.parametrize("router", ["envoy", "replicas"])
def test_no_step_starves_the_side_that_carries_the_traffic(router: str) -> None:
    world, stable = loaded(router)
    candidate = start(world)
    settle(world)
    for _ in STEPS:
        assert autoscaler_acts(world) == LOAD
        assert world.counts() == {stable: LOAD, candidate: LOAD}
        world.wait(minutes=10)
        settle(world)
    assert world.status["stable"]["revision"] == candidate
    autoscaler_acts(world)
    assert world.counts()[candidate] == LOAD


def test_it_may_add_pods_in_a_step_and_the_candidate_follows() -> None:
    world, stable = loaded()
    candidate = start(world)
    run(world)
    autoscaler_acts(world, load=3 * LOAD)
    assert world.counts() == {stable: 15, candidate: 15}
    assert world.children[HPA]["spec"]["minReplicas"] == 15


def test_the_floor_never_exceeds_the_most_that_was_asked_for() -> None:
    world, _ = loaded()
    start(world)
    run(world)
    world.edit(autoscaling={"minReplicas": 2, "maxReplicas": 6})
    run(world)
    assert world.children[HPA]["spec"]["minReplicas"] == 6


@pytest.mark.parametrize("router", ["envoy", "replicas"])
@pytest.mark.parametrize("ends", ["abort", "promote-full"])
def test_the_floor_outlasts_a_rollout_until_what_was_measured_in_it_is_forgotten(
    ends: str, router: str
) -> None:
    world, _ = loaded(router)
    candidate = start(world)
    settle(world)
    world.wait(minutes=10)
    settle(world)
    world.act(f"{ends}/{candidate}/1")
    settle(world)
    assert world.status.get("candidate") is None
    assert world.children[HPA]["spec"]["minReplicas"] == LOAD, "it last saw half of the traffic"
    world.wait(minutes=4)
    settle(world)
    assert world.children[HPA]["spec"]["minReplicas"] == LOAD
    again = world.settle().look_again
    assert again is not None, "nobody else tells when its time is over"
    world.wait(minutes=1)
    settle(world)
    assert world.children[HPA]["spec"]["minReplicas"] == 2
    plan = world.settle()
    assert plan.look_again is None
    assert autoscaler_acts(world, load=3) == 2
    assert 3 in world.counts().values(), "it may take pods away again"


def test_the_floor_holds_while_routers_have_not_taken_the_end_of_a_rollout() -> None:
    world, stable = loaded()
    candidate = start(world)
    run(world)
    world.routers_follow = False
    world.act(f"abort/{candidate}/1")
    for _ in range(3):
        world.settle(40)
        world.wait(minutes=4)
    assert world.route() == {stable: 100}
    assert world.status["router"]["taken"] != world.status["router"]["version"]
    assert world.children[HPA]["spec"]["minReplicas"] == LOAD
    world.routers_follow = True
    world.wait(minutes=4)
    run(world)
    assert world.children[HPA]["spec"]["minReplicas"] == LOAD, "its time runs from now"
    world.wait(minutes=5)
    run(world)
    assert world.children[HPA]["spec"]["minReplicas"] == 2


def test_in_a_bake_it_takes_no_pods_away_since_the_previous_revision_has_a_part() -> None:
    world, stable = loaded(bake={"duration": "30m", "previousWeight": 50}, steps=None)
    candidate = start(world)
    run(world)
    assert world.route() == {stable: 50, candidate: 50}
    world.wait(minutes=20)
    run(world)
    assert autoscaler_acts(world) == LOAD
    assert world.counts() == {stable: LOAD, candidate: LOAD}
    world.wait(minutes=20)
    run(world)
    world.wait(minutes=5)
    run(world)
    assert autoscaler_acts(world) == 2
    assert world.counts() == {candidate: LOAD}, "by now it has all of the traffic"


@pytest.mark.parametrize("step", [{"pause": {}}, {"mirror": 50, "duration": "24h"}])
def test_beside_a_candidate_without_traffic_it_does_as_it_always_does(
    step: dict[str, Any],
) -> None:
    world, stable = loaded(steps=[step])
    start(world)
    settle(world)
    assert world.route() == {stable: 100}
    autoscaler_acts(world, load=18)
    assert world.counts()[stable] == 18
    world.wait(minutes=30)
    settle(world)
    assert autoscaler_acts(world, load=2) == 2
    assert world.counts()[stable] == 2


def test_a_floor_that_is_lowered_without_a_rollout_is_lowered_at_once() -> None:
    world, _ = loaded()
    world.edit(autoscaling={"minReplicas": 1, "maxReplicas": 20})
    world.settle()
    assert world.children[HPA]["spec"]["minReplicas"] == 1


def test_nothing_more_is_written_while_a_step_lasts() -> None:
    world, _ = loaded()
    start(world)
    run(world)
    autoscaler_acts(world)
    before = len(world.writes)
    for _ in range(4):
        world.wait(minutes=1)
        world.settle()
    assert world.writes[before:] == []


def test_a_spec_that_goes_back_to_stable_holds_the_floor_too() -> None:
    world, stable = loaded()
    start(world, V2)
    run(world)
    world.model("s3://models/fraud/v1")
    run(world)
    assert world.route() == {stable: 100}
    assert world.children[HPA]["spec"]["minReplicas"] == LOAD
