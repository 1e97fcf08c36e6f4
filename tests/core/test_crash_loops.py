"""A candidate that is ready for moments only is given up; one that lost a pod for once is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.test_steps import behind_routers, in_step, run, start
from tests.core.world import World

HOUR: list[dict[str, Any]] = [{"weight": 25, "duration": "1h"}]


def given_up(world: World) -> list[tuple[str, str]]:
    return [(r["revision"], r["reason"]) for r in world.status.get("rejectedRevisions", [])]


def lose(world: World, candidate: str, ready: int = 0) -> None:
    """Some or all of the candidate's pods end."""
    world.run_pods(candidate, ready=ready)
    world.settle(40)


def crash(world: World, candidate: str, *, up: float, down: float) -> None:
    """Ready for ``up`` seconds, then gone for ``down``."""
    for _ in range(3):
        if candidate not in world.revisions():
            return
        world.run_pods(candidate)
        world.run_routers()
        world.settle(40)
        world.wait(seconds=up / 3)
    world.settle(40)
    if candidate in world.revisions():
        lose(world, candidate)
    for _ in range(5):
        world.wait(seconds=down / 5)
        world.settle(40)


@pytest.mark.parametrize(
    "steps",
    [HOUR, [{"weight": 25, "duration": "3h"}, {"pause": {}}], [{"pause": {}}],
     [{"weight": 5}, {"mirror": 50, "duration": "1h"}]],
    ids=str,
)  # fmt: skip
def test_moments_of_readiness_do_not_put_the_progress_deadline_off(
    steps: list[dict[str, Any]],
) -> None:
    world, stable = behind_routers(steps)
    candidate = start(world)
    for _ in range(6):
        crash(world, candidate, up=12, down=300)
    assert given_up(world) == [(candidate, "ProgressDeadlineExceeded")]
    assert world.route() == {stable: 100}


def test_the_time_without_a_pod_is_no_time_of_the_step() -> None:
    world, stable, candidate = in_step([{"weight": 25, "duration": "20m"}])
    world.wait(minutes=15)
    run(world)
    lose(world, candidate)
    world.wait(minutes=8)
    run(world)
    world.wait(minutes=4)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}, "19 of its 20 minutes"
    world.wait(minutes=1)
    run(world)
    assert world.history.stable is not None
    assert world.history.stable.hash == candidate


def test_with_one_pod_left_a_step_lasts_no_longer() -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "20m"}])
    world.wait(minutes=15)
    run(world)
    lose(world, candidate, ready=1)
    world.wait(minutes=6)
    run(world)
    assert world.history.stable is not None
    assert world.history.stable.hash == candidate


def test_the_time_of_a_step_stands_still_over_a_lost_status_and_a_clock_set_back() -> None:
    world, stable, candidate = in_step([{"weight": 25, "duration": "20m"}])
    world.wait(minutes=15)
    run(world)
    lose(world, candidate)
    world.lose_status()
    world.wait(minutes=-3)
    world.settle(40)
    world.wait(minutes=9)
    run(world)
    world.wait(minutes=3)
    run(world)
    assert world.history.stable is not None
    assert world.history.stable.hash == stable


@pytest.mark.parametrize("minutes", [1, 5, 9.9, 11, 300])
def test_a_pod_that_is_lost_for_some_minutes_rejects_no_healthy_candidate(minutes: float) -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "24h"}])
    world.wait(minutes=minutes)
    run(world)
    lose(world, candidate, ready=1)
    world.wait(minutes=9)
    world.settle(40)
    run(world)
    assert given_up(world) == []
    assert world.status["rollout"]["stage"] == "Waiting"


def test_a_candidate_that_was_whole_for_a_deadline_has_all_of_it_again() -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "24h"}])
    for _ in range(4):
        world.wait(minutes=10)
        run(world)
        lose(world, candidate)
        world.wait(minutes=8)
        world.settle(40)
        run(world)
    assert given_up(world) == []


def test_a_candidate_that_is_whole_for_less_uses_its_deadline_up() -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "24h"}])
    for minutes in (6, 3.5):
        world.wait(minutes=9)
        run(world)
        lose(world, candidate)
        world.wait(minutes=minutes)
        world.settle(40)
        run(world)
    assert given_up(world) == []
    lose(world, candidate)
    world.wait(minutes=1)
    world.settle(40)
    assert given_up(world) == [(candidate, "ProgressDeadlineExceeded")]


def scaled_up(world: World, candidate: str) -> None:
    world.edit(replicas=8)


def next_step(world: World, candidate: str) -> None:
    world.act(f"promote/{candidate}/1")


def held(world: World, candidate: str) -> None:
    lose(world, candidate)
    world.act(f"pause/{candidate}/1")
    world.wait(hours=1)
    world.settle(40)
    world.act(f"resume/{candidate}/2")


@pytest.mark.parametrize("person", [scaled_up, next_step, held])
def test_what_a_person_asks_for_has_its_whole_deadline(
    person: Callable[[World, str], None],
) -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "24h"}, {"weight": 50}])
    world.wait(minutes=9)
    run(world)
    person(world, candidate)
    world.settle(40)
    world.wait(minutes=9, seconds=50)
    world.settle(40)
    assert given_up(world) == []
    world.wait(minutes=2)
    world.settle(40)
    assert given_up(world) == [(candidate, "ProgressDeadlineExceeded")]


def test_a_status_of_an_older_version_gives_a_whole_deadline() -> None:
    world, _, candidate = in_step([{"weight": 25, "duration": "24h"}])
    world.wait(minutes=9)
    del world.resource["status"]["rollout"]["staffedSince"]
    lose(world, candidate)
    world.wait(minutes=9)
    world.settle(40)
    assert given_up(world) == []


def test_waiting_whole_writes_nothing() -> None:
    world, _, _ = in_step([{"weight": 25, "duration": "24h"}])
    writes = len(world.writes)
    world.wait(hours=2)
    world.settle(40)
    assert len(world.writes) == writes
