"""Pods that took traffic stay until the Service has left them, and for the drain time after."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.core.world import World

from mooring.core.kinds import Ref

SERVICE = Ref("Service", "fraud")


def promoted() -> tuple[World, str, str]:
    """The very decision that promotes has been carried out."""
    world = World.with_spec()
    old = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (new,) = set(world.revisions()) - {old}
    world.run_pods(new, ready=0)
    world.settle()
    world.run_pods(new)
    world.round()
    assert world.history.stable is not None
    assert world.history.stable.hash == new
    return world, old, new


def test_the_old_pods_stay_for_the_drain_time_and_go_after_it() -> None:
    world, old, new = promoted()
    drain = world.settings.drain
    plan = world.settle()
    assert world.routed() == new
    assert world.counts() == {old: 2, new: 2}
    assert plan.look_again == world.now + drain
    world.now += drain - timedelta(seconds=1)
    world.settle()
    assert old in world.revisions()
    world.now += timedelta(seconds=1)
    plan = world.settle()
    assert world.revisions() == [new]
    assert plan.look_again is None


def test_everything_of_the_old_revision_goes_but_its_record() -> None:
    world, old, _ = promoted()
    world.wait(minutes=1)
    world.settle()
    assert [r.kind for r in world.children if r.name == f"fraud-{old}"] == ["ControllerRevision"]


def test_a_route_that_cannot_be_written_keeps_the_old_pods_however_long() -> None:
    world = World.with_spec()
    old = world.serve()
    world.refuses[SERVICE] = "denied by a webhook"
    world.model("s3://models/fraud/v2")
    for _ in range(4):
        world.round()
        for name in world.revisions():
            world.run_pods(name)
    world.wait(hours=1)
    for _ in range(4):
        world.round()
    assert world.routed() == old
    assert world.counts()[old] == 2
    assert world.reason("Stalled") == "WriteRefused"
    assert "denied by a webhook" in world.status["message"]


def test_the_drain_time_runs_from_when_the_route_was_really_written() -> None:
    world = World.with_spec()
    old = world.serve()
    world.refuses[SERVICE] = "denied by a webhook"
    world.model("s3://models/fraud/v2")
    for _ in range(4):
        world.round()
        for name in world.revisions():
            world.run_pods(name)
    world.wait(hours=1)
    world.refuses.clear()
    world.settle()
    assert world.routed() != old
    assert old in world.revisions(), "clients have only now been sent elsewhere"
    world.now += world.settings.drain
    world.settle()
    assert old not in world.revisions()


def test_a_mark_of_the_route_that_is_lost_or_odd_only_costs_time() -> None:
    for mark in (None, "soon", ""):
        world, old, new = promoted()
        annotations = world.children[SERVICE]["metadata"]["annotations"]
        annotations["mooring.dev/routed-since"] = mark
        world.settle()
        assert world.revisions() == sorted([old, new])
        world.now += world.settings.drain
        world.settle()
        assert world.revisions() == [new]


def test_a_revision_that_comes_back_while_it_drains_keeps_its_pods() -> None:
    world, old, new = promoted()
    world.model("s3://models/fraud/v1")
    world.settle()
    assert world.counts() == {old: 2, new: 2}
    world.settle()
    assert world.routed() == old, "its pods were there already"


def test_scaling_does_not_touch_pods_that_drain() -> None:
    world, old, new = promoted()
    world.edit(replicas=5)
    world.settle()
    assert world.counts() == {old: 2, new: 5}


def test_a_candidate_that_never_took_traffic_needs_no_drain() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    world.model("s3://models/fraud/v1")
    world.round()
    assert world.revisions() == [stable]


@pytest.mark.parametrize("kill_after", range(8))
def test_killed_at_any_write_of_a_promotion_it_ends_the_same(kill_after: int) -> None:
    world = World.with_spec()
    old = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (new,) = set(world.revisions()) - {old}
    world.run_pods(new, ready=0)
    world.settle()
    world.run_pods(new)
    world.round(kill_after=kill_after)
    assert set(world.revisions()) == {old, new}
    world.settle()
    assert world.routed() == new
    assert world.history.stable is not None
    assert world.history.stable.promotion == 2
    world.wait(minutes=1)
    world.settle()
    assert world.revisions() == [new]
