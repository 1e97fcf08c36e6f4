"""A verb answers what status has told, and status is written before the records.

An operator that dies between the two leaves a status that is ahead: what it tells of comes first,
and then the verb.
"""

from __future__ import annotations

from tests.core.test_steps import CANARY, V2, V3, behind_routers, in_step, run, start
from tests.core.world import World

STATUS_ONLY = 1
STOPS: list[dict[str, object]] = [{"weight": 5, "duration": "10m"}, {"pause": {}}, {"weight": 50}]


def act(world: World, verb: str, revision: str) -> tuple[str, str]:
    world.act(f"{verb}/{revision}/1")
    run(world)
    last = world.status["lastAction"]
    assert (last["verb"], last["revision"]) == (verb, revision)
    return last["result"], last["message"]


def steps_told(world: World) -> list[int]:
    """The steps whose beginning was told."""
    told = [line for line in world.told if "StepBegan" in line]
    return [int(line.split(": step ")[1].split(" of ")[0]) for line in told]


def test_a_promotion_past_a_pause_that_only_status_tells_of_goes_past_that_pause() -> None:
    world, _, candidate = in_step(STOPS)
    world.wait(minutes=10)
    world.round(kill_after=STATUS_ONLY)
    assert world.status["rollout"]["step"] == 2
    record = world.history.by_hash(candidate)
    assert record is not None
    assert record.rollout is not None
    assert record.rollout.index == 0
    assert act(world, "promote", candidate)[0] == "Accepted"
    assert world.history.stable is not None
    assert world.history.stable.hash == candidate


def test_a_promotion_that_only_status_tells_of_can_be_undone() -> None:
    world, stable, candidate = in_step([{"weight": 50, "duration": "1m"}], bake={"duration": "1h"})
    world.wait(minutes=1)
    for _ in range(20):
        world.round(kill_after=STATUS_ONLY)
        if world.status["stable"]["revision"] == candidate:
            break
        run_once(world)
    assert world.history.stable is not None
    assert world.history.stable.hash == stable
    assert act(world, "undo", candidate)[0] == "Accepted"
    assert world.history.stable.hash == stable
    assert world.route() == {stable: 100}


def run_once(world: World) -> None:
    for revision in world.revisions():
        world.run_pods(revision)
    world.run_routers()
    world.round()


def test_a_revision_that_only_status_tells_of_can_be_paused() -> None:
    world, stable = behind_routers(CANARY)
    world.model(V2)
    world.round(kill_after=STATUS_ONLY)
    candidate = world.status["candidate"]["revision"]
    assert world.history.by_hash(candidate) is None
    assert act(world, "pause", candidate) == ("Accepted", f"revision {candidate} waits for resume")
    assert world.status["phase"] == "Paused"
    world.wait(minutes=60)
    run(world)
    assert world.route() == {stable: 95, candidate: 5}, "it goes no further than its step"


def test_a_rejection_that_only_status_told_of_has_not_happened_and_needs_no_retry() -> None:
    world, _ = behind_routers(CANARY)
    candidate = start(world)
    world.wait(minutes=11)
    world.round(kill_after=STATUS_ONLY)
    assert world.status["rejectedRevisions"][0]["revision"] == candidate
    assert act(world, "retry", candidate) == ("Refused", f"revision {candidate} is not rejected")
    assert world.status["candidate"]["revision"] == candidate
    assert "rejectedRevisions" not in world.status


def test_a_verb_whose_own_effect_status_has_told_is_taken_at_once_and_once() -> None:
    world, _, candidate = in_step()
    world.act(f"promote/{candidate}/1")
    world.round(kill_after=STATUS_ONLY)
    assert world.status["rollout"]["step"] == 2
    run(world)
    record = world.history.by_hash(candidate)
    assert record is not None
    assert record.rollout is not None
    assert record.rollout.index == 1
    assert steps_told(world) == [1, 2]


def test_a_verb_comes_before_what_nobody_was_told_of() -> None:
    world, stable, candidate = in_step([{"weight": 50, "duration": "10m"}])
    world.wait(minutes=10)  # nobody looked
    assert act(world, "abort", candidate)[0] == "Accepted"
    assert world.route() == {stable: 100}


def test_a_verb_for_a_revision_that_the_spec_has_left_meanwhile_is_refused_and_not_kept() -> None:
    world, stable = behind_routers(CANARY)
    world.model(V2)
    world.round(kill_after=STATUS_ONLY)
    gone = world.status["candidate"]["revision"]
    world.model(V3)
    result, message = act(world, "pause", gone)
    assert (result, message) == ("Refused", f"there is no revision {gone} (any more)")
    assert world.route()[stable] < 100
