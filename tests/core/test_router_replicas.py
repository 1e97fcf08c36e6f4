"""Router replicas: the Service selects one revision's pods, or those of all while they share."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.test_steps import V3, start
from tests.core.world import EVERY_REVISION, World


def serving(replicas: int, weight: int | None = None, **rollout: Any) -> tuple[World, str, str]:
    """A rollout has begun; nothing of the candidate is ready yet."""
    steps = {"steps": [{"weight": weight, "duration": "30m"}]} if weight is not None else {}
    world = World.with_spec(
        replicas=replicas,
        traffic={"router": "replicas"},
        rollout={"progressDeadline": "10m", **steps, **rollout},
    )
    stable = world.serve()
    return world, stable, start(world)


def go_on(world: World, rounds: int = 1, **ready: int) -> None:
    """Pods get ready, all that are asked for or so many of a revision."""
    for _ in range(rounds):
        for revision in world.revisions():
            world.run_pods(revision, ready.get(revision))
        world.settle(40)
        world.wait(seconds=5)


def answering(world: World) -> int:
    """Available pods among those that the Service selects."""
    selected = world.revisions() if world.routed() == EVERY_REVISION else [world.routed()]
    return sum(
        int(world.deployment(r).get("status", {}).get("availableReplicas", 0)) for r in selected
    )


def test_a_candidate_pod_that_restarts_does_not_move_all_traffic_onto_a_stable_that_was_cut() -> (
    None
):
    world, stable, candidate = serving(10, 90)
    go_on(world, 8)
    assert world.counts() == {stable: 2, candidate: 10}
    go_on(world, **{candidate: 9})
    assert world.routed() == EVERY_REVISION
    assert world.counts() == {stable: 2, candidate: 10}, "eleven pods are enough for ten"
    go_on(world, **{candidate: 3})
    assert world.counts()[stable] == 7, "stable gets back what is missing"
    assert world.routed() == EVERY_REVISION
    go_on(world, 3)
    assert world.counts() == {stable: 2, candidate: 10}


@pytest.mark.parametrize(
    ("replicas", "weight", "surge", "left"),
    [(10, 90, "100%", {2: 8, 7: 3, 9: 1}), (8, 50, "25%", {6: 2, 7: 1})],
)
def test_an_abort_keeps_the_pods_that_stable_has_not_got_back_yet(
    replicas: int, weight: int, surge: str, left: dict[int, int]
) -> None:
    world, stable, candidate = serving(replicas, weight, maxSurge=surge)
    go_on(world, 20)
    assert world.counts()[stable] == min(left), "stable was cut"
    world.act(f"abort/{candidate}/1")
    for ready, kept in left.items():
        go_on(world, 12, **{stable: ready})
        assert world.routed() == EVERY_REVISION
        assert world.counts()[candidate] == kept
        assert answering(world) >= replicas
        assert world.status["stable"]["weight"] == round(100 * ready / replicas)
        assert world.reason("Reconciling") == "RollingBack"
    go_on(world)
    assert world.routed() == stable
    assert world.counts()[candidate] == 1, "its last pod is drained"
    go_on(world, 8)
    assert world.counts() == {stable: replicas}


def test_an_abort_is_at_once_where_stable_was_not_cut_though_it_lost_a_pod() -> None:
    world, stable, candidate = serving(4, 50)
    go_on(world, 4)
    assert world.routed() == EVERY_REVISION
    go_on(world, **{stable: 3})
    world.act(f"abort/{candidate}/1")
    world.settle(40)
    assert world.routed() == stable


def test_a_revision_that_supersedes_one_waits_until_stable_has_its_pods_back() -> None:
    world, stable, first = serving(10, 90)
    go_on(world, 8)
    world.model(V3)
    for _ in range(8):
        go_on(world, 1, **{stable: 2})
        world.wait(minutes=5)
        assert world.routed() == EVERY_REVISION
        assert answering(world) >= 10
    second = world.status["candidate"]["revision"]
    assert world.counts()[second] == 0
    assert world.reason("RolledBack") == ""
    go_on(world, 8)
    assert world.counts() == {stable: 2, second: 10}
    assert first not in world.revisions()


@pytest.mark.parametrize(("replicas", "surge", "missing"), [(8, "25%", 0), (3, 0, 1), (1, 0, 1)])
def test_pods_that_move_over_a_few_at_a_time_take_the_traffic_with_them(
    replicas: int, surge: int | str, missing: int
) -> None:
    world, _, candidate = serving(replicas, maxSurge=surge)
    for _ in range(30):
        go_on(world)
        assert answering(world) >= replicas - missing
        if world.revisions() == [candidate]:
            break
    assert world.routed() == candidate
    assert world.counts() == {candidate: replicas}


def test_at_weight_100_the_candidate_alone_is_selected_and_stable_stays_whole() -> None:
    world, stable, candidate = serving(4, 100)
    go_on(world, 4)
    assert world.routed() == candidate
    assert world.counts() == {stable: 4, candidate: 4}
    assert world.status["candidate"]["weight"] == 100
    world.act(f"abort/{candidate}/1")
    world.settle(40)
    assert world.routed() == stable


def test_a_stable_that_is_lost_in_a_pause_leaves_the_traffic_to_who_answers() -> None:
    world, stable, candidate = serving(4, 50)
    go_on(world, 4)
    world.act(f"pause/{candidate}/1")
    world.settle(40)
    go_on(world, **{stable: 0})
    assert world.routed() == candidate
    go_on(world)
    assert world.routed() == EVERY_REVISION


def test_a_revision_that_was_superseded_is_gone_before_pods_of_the_next_get_requests() -> None:
    world, stable, first = serving(4, 50)
    go_on(world, 4)
    world.model(V3)
    go_on(world)
    second = world.status["candidate"]["revision"]
    for _ in range(2):
        go_on(world)
        assert world.routed() == stable, "every revision would mean the first as well"
        assert world.counts() == {stable: 4, first: 4, second: 4}
    go_on(world, 4)
    assert world.counts() == {stable: 4, second: 4}
    assert world.routed() == EVERY_REVISION
