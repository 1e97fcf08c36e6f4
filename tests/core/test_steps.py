"""Rollouts by steps behind routers: who gets which share, when, and what nobody ever loses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.core.played import played
from tests.core.world import World

from mooring.core import kinds

V1, V2, V3 = (f"s3://models/fraud/v{i}" for i in (1, 2, 3))
CANARY: list[dict[str, Any]] = [
    {"weight": w, "duration": d} for w, d in ((5, "10m"), (25, "20m"), (50, "30m"))
]


def behind_routers(
    steps: list[dict[str, Any]] | None = None, replicas: int = 4, **rollout: Any
) -> tuple[World, str]:
    """A world in which a first revision serves behind two routers."""
    wanted = {"progressDeadline": "10m", "revisionHistoryLimit": 10, **rollout}
    if steps is not None:
        wanted["steps"] = steps
    world = World.with_spec(replicas=replicas, traffic={"router": "envoy"}, rollout=wanted)
    stable = world.serve()
    assert world.route() == {stable: 100}
    assert world.reason("Ready") == ""
    return world, stable


@played
def start(world: World, uri: str = V2) -> str:
    before = set(world.revisions())
    world.model(uri)
    world.settle()
    (candidate,) = set(world.revisions()) - before
    return candidate


@played
def run(world: World) -> None:
    """Lets every pod that is asked for be ready, until nothing moves."""
    for _ in range(30):
        before = len(world.writes)
        for revision in world.revisions():
            world.run_pods(revision)
        world.run_routers()
        world.settle(40)
        world.wait(seconds=1)
        if len(world.writes) == before:
            return
    raise AssertionError("does not come to rest")


def in_step(steps: list[dict[str, Any]] | None = None, **more: Any) -> tuple[World, str, str]:
    """A world whose candidate has taken the traffic of its first step."""
    world, stable = behind_routers(CANARY if steps is None else steps, **more)
    candidate = start(world)
    run(world)
    return world, stable, candidate


# steps ----------------------------------------------------------------------------------------


def test_traffic_moves_step_by_step_and_each_lasts_its_time() -> None:
    world, stable, candidate = in_step()
    for weight, minutes in ((5, 10), (25, 20), (50, 30)):
        assert world.route() == {stable: 100 - weight, candidate: weight}
        assert world.status["phase"] == "RollingOut"
        assert world.status["rollout"]["doing"] == f"weight {weight} for {minutes}m"
        assert world.status["candidate"]["weight"] == weight
        world.wait(minutes=minutes - 1)
        run(world)
        assert world.route() == {stable: 100 - weight, candidate: weight}, "not before its time"
        world.wait(minutes=1)
        run(world)
    assert world.route() == {candidate: 100}
    assert world.status["stable"]["revision"] == candidate
    assert world.reason("Ready") == ""
    assert "rollout" not in world.status
    world.wait(minutes=1)
    world.settle()
    assert world.revisions() == [candidate]


def test_each_step_is_told_once() -> None:
    world, _, candidate = in_step()
    for minutes in (10, 20, 30):
        world.wait(minutes=minutes)
        run(world)
    begun = [line for line in world.told if "StepBegan" in line]
    assert begun == [
        f"Normal StepBegan: revision {candidate}: step {n} of 3: weight {w} for {m}m"
        for n, w, m in ((1, 5, 10), (2, 25, 20), (3, 50, 30))
    ]


def test_waiting_in_a_step_is_not_reconciling_so_that_flux_does_not_time_out() -> None:
    world, _, _ = in_step()
    found = world.condition("Reconciling")
    assert (found["status"], found["reason"]) == ("False", "WaitingInStep")
    assert "step 1 of 3, weight 5 for 10m" in found["message"]
    assert world.reason("Ready") == ""
    assert world.reason("Stalled") == ""


def test_candidate_pods_are_as_many_as_make_the_load_per_pod_comparable() -> None:
    world, stable, candidate = in_step(replicas=10)
    seen = [world.counts()]
    for minutes in (10, 20):
        world.wait(minutes=minutes)
        run(world)
        seen.append(world.counts())
    assert [counts[candidate] for counts in seen] == [1, 4, 10]
    assert {counts[stable] for counts in seen} == {10}


def test_a_step_begins_only_when_its_pods_are_ready() -> None:
    world, stable, candidate = in_step(replicas=10)
    world.wait(minutes=10)
    world.settle(20)
    assert world.counts()[candidate] == 4
    world.run_pods(candidate, ready=3)
    world.settle(20)
    assert world.route() == {stable: 95, candidate: 5}
    assert world.status["rollout"]["stage"] == "Scaling"
    world.run_pods(candidate)
    world.settle(20)
    assert world.route() == {stable: 75, candidate: 25}


def test_a_step_lasts_from_when_every_router_has_taken_it() -> None:
    world, stable, candidate = in_step()
    world.routers_follow = False
    world.wait(minutes=10)
    for _ in range(5):
        world.run_pods(candidate)
        world.settle(20)
    assert world.route() == {stable: 75, candidate: 25}
    assert world.status["rollout"]["stage"] == "Routing"
    world.wait(minutes=40)
    world.settle(20)
    assert world.route() == {stable: 75, candidate: 25}, "an untaken step's time does not run"
    assert world.reason("Stalled") == "RouterNotTaking"
    assert world.reason("Ready") == "", "stable serves on"
    world.routers_follow = True
    world.settle(20)
    assert world.status["rollout"]["stage"] == "Waiting"
    world.wait(minutes=19)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}
    world.wait(minutes=1)
    run(world)
    assert world.route() == {stable: 50, candidate: 50}


def test_a_router_that_does_not_know_the_pods_yet_gets_no_weight_for_them() -> None:
    world, stable = behind_routers(CANARY)
    candidate = start(world)
    world._endpoints = lambda: {stable: 4, candidate: 0}  # type: ignore[method-assign]
    run(world)
    assert world.route() == {stable: 100}
    again = world.round().look_again
    assert again is not None, "nobody else tells when a router knows them"
    assert again - world.now <= timedelta(seconds=5)
    world._endpoints = lambda: {stable: 4, candidate: 1}  # type: ignore[method-assign]
    run(world)
    assert world.route() == {stable: 95, candidate: 5}


def test_a_pause_waits_for_promote_for_as_long_as_it_takes() -> None:
    world, stable, candidate = in_step([{"weight": 10}, {"pause": {}}, {"weight": 50}])
    assert world.route() == {stable: 90, candidate: 10}
    world.wait(hours=100)
    run(world)
    assert world.route() == {stable: 90, candidate: 10}
    assert world.status["rollout"]["waitingFor"] == "somebody to say promote"
    assert world.reason("Stalled") == ""
    world.act(f"promote/{candidate}/1")
    run(world)
    assert world.status["stable"]["revision"] == candidate


def test_mirror_and_match_hold_during_their_step_only() -> None:
    world, stable, candidate = in_step(
        [
            {"mirror": 40, "duration": "10m"},
            {"match": [{"header": "X-Tester", "exact": "yes"}], "duration": "10m"},
            {"weight": 20, "duration": "10m"},
        ]
    )
    assert table(world)["mirrors"] == {candidate: 40}
    assert table(world)["weights"] == {stable: 100}
    assert world.counts()[candidate] == 2, "copies need pods as well: 40 % of 4, rounded up"
    world.wait(minutes=10)
    run(world)
    assert "mirrors" not in table(world)
    assert table(world)["matches"] == [{"revision": candidate, "headers": [["x-tester", "yes"]]}]
    world.wait(minutes=10)
    run(world)
    assert table(world) == {"weights": {stable: 80, candidate: 20}}


def table(world: World) -> dict[str, Any]:
    from mooring.core.render.router.table import read_table

    found = read_table(world.children[kinds.Ref("ConfigMap", "fraud-router")])
    assert found is not None
    return found[0].route.to_data()


def test_blue_green_is_a_step_of_pods_and_a_pause() -> None:
    world, stable, candidate = in_step([{"replicas": 4}, {"pause": {}}])
    assert world.counts() == {stable: 4, candidate: 4}
    assert world.route() == {stable: 100}
    world.act(f"promote/{candidate}/1")
    world.settle(20)
    assert world.route() == {candidate: 100}


# the rules that others have learnt ----------------------------------------------------------------


def test_a_new_revision_begins_at_the_first_step_and_is_compared_with_the_same_stable() -> None:
    world, stable, first = in_step()
    world.wait(minutes=10)
    run(world)
    assert world.route()[first] == 25
    world.model(V3)
    world.settle(20)
    assert world.route() == {stable: 100}, "the old candidate gets nothing at once"
    run(world)
    (second,) = set(world.route()) - {stable}
    assert second != first
    assert world.route() == {stable: 95, second: 5}
    assert world.status["rollout"]["step"] == 1
    world.wait(minutes=1)
    run(world)
    assert first not in world.revisions()


def test_the_stable_spec_again_drops_the_candidate_at_once() -> None:
    world, stable, candidate = in_step()
    world.model(V1)
    world.settle(20)
    assert world.route() == {stable: 100}
    world.wait(minutes=1)
    run(world)
    assert world.revisions() == [stable]
    assert "rollout" not in world.status
    assert candidate not in [r["revision"] for r in world.status.get("rejectedRevisions", [])]


def test_a_rollout_keeps_the_steps_that_it_began_with() -> None:
    world, stable, candidate = in_step()
    world.edit(rollout={"steps": [{"weight": 90}], "progressDeadline": "10m"})
    run(world)
    assert world.route() == {stable: 95, candidate: 5}
    world.wait(minutes=10)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_abort_at_any_step_takes_all_traffic_back_and_the_spec_again_does_nothing(
    step: int,
) -> None:
    world, stable, candidate = in_step()
    for minutes in (10, 20, 30)[:step]:
        world.wait(minutes=minutes)
        run(world)
    world.act(f"abort/{candidate}/1")
    world.settle(20)
    assert world.route() == {stable: 100}
    world.wait(minutes=1)
    run(world)
    assert world.revisions() == [stable]
    assert world.reason("RolledBack") == "Aborted"
    assert world.reason("Stalled") == "RevisionRejected"
    assert world.reason("Ready") == "", "stable serves"
    world.edit(model={"uri": V2})
    run(world)
    assert world.revisions() == [stable]
    world.act(f"retry/{candidate}/2")
    run(world)
    assert world.route() == {stable: 95, candidate: 5}, "a retry begins at the first step"


def test_a_crash_loop_ends_at_the_deadline() -> None:
    world, stable, candidate = in_step(replicas=10)
    world.wait(minutes=10)
    world.settle(20)
    for minute in range(11):
        world.run_pods(candidate, ready=1 + minute % 2)
        world.settle(20)
        world.wait(minutes=1)
    world.settle(20)
    assert world.reason("RolledBack") == "ProgressDeadlineExceeded"
    assert world.route() == {stable: 100}


def test_pods_that_are_lost_in_a_step_take_their_traffic_with_them() -> None:
    world, stable, candidate = in_step()
    world.run_pods(candidate, ready=0)
    world.settle(20)
    assert world.route() == {stable: 100}
    assert world.status["rollout"]["stage"] == "Scaling"
    run(world)
    assert world.route() == {stable: 95, candidate: 5}


def test_while_traffic_still_moves_after_a_promotion_status_says_so() -> None:
    world, stable = behind_routers()
    candidate = start(world)
    world.routers_follow = False
    for _ in range(4):
        world.run_pods(candidate)
        world.settle(20)
    assert world.status["stable"]["revision"] == candidate
    assert world.route() == {stable: 100}
    assert (world.status["phase"], world.reason("Reconciling")) == ("RollingOut", "RollingOut")
    world.routers_follow = True
    run(world)
    assert world.route() == {candidate: 100}
    assert world.reason("Reconciling") == ""


def test_routes_move_before_pods_go_and_pods_stay_until_they_are_drained() -> None:
    world, stable, candidate = in_step([{"weight": 50}])
    assert world.status["stable"]["revision"] == candidate
    assert world.route() == {candidate: 100}
    world.wait(seconds=5)
    world.settle(20)
    assert stable in world.revisions()
    world.wait(seconds=20)
    world.settle(20)
    assert stable not in world.revisions()


def test_a_stable_that_does_not_serve_does_not_block_its_repair() -> None:
    world, stable, candidate = in_step()
    world.fail_pods(stable, "ServerFailed", "segmentation fault")
    world.settle(20)
    assert world.route() == {candidate: 100}
    assert world.status["stable"]["revision"] == candidate


def test_after_a_promotion_the_previous_revision_is_kept_with_a_share_for_the_bake() -> None:
    world, stable, candidate = in_step([{"weight": 50}], bake={"duration": "30m"})
    assert world.route() == {candidate: 95, stable: 5}
    assert world.status["phase"] == "Baking"
    assert world.status["previous"]["revision"] == stable
    assert world.counts() == {stable: 4, candidate: 4}
    world.wait(minutes=29)
    run(world)
    assert stable in world.revisions()
    world.wait(minutes=2)
    run(world)
    assert world.route() == {candidate: 100}
    world.wait(minutes=1)
    run(world)
    assert world.revisions() == [candidate]
    assert world.status["phase"] == "Serving"


def test_undo_during_the_bake_is_instant() -> None:
    world, stable, candidate = in_step([{"weight": 50}], bake={"duration": "30m"})
    world.act(f"undo/{candidate}/1")
    world.settle(20)
    assert world.route() == {stable: 100}
    assert world.status["stable"]["revision"] == stable
    assert world.reason("RolledBack") == "Undone"
    world.wait(minutes=1)
    run(world)
    assert world.revisions() == [stable]


def test_undo_without_a_warm_revision_starts_it_first_and_moves_then() -> None:
    world, stable, candidate = in_step([{"weight": 50}])
    world.wait(minutes=1)
    run(world)
    assert world.revisions() == [candidate]
    world.act(f"undo/{candidate}/1")
    world.settle(20)
    assert world.route() == {candidate: 100}
    assert world.status["phase"] == "RollingBack"
    run(world)
    assert world.route() == {stable: 100}
    assert world.status["stable"]["revision"] == stable


def test_without_room_for_one_more_pod_they_move_over_one_by_one() -> None:
    world, stable = behind_routers(replicas=3, maxSurge=0)
    candidate = start(world)
    seen = []
    for _ in range(60):
        counts = world.counts()
        seen.append((counts.get(stable, 0), counts.get(candidate, 0)))
        assert sum(seen[-1]) <= 3
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle(40)
        if world.status["stable"]["revision"] == candidate and len(world.revisions()) == 1:
            break
        world.wait(seconds=5)
    assert world.route() == {candidate: 100}
    assert (2, 1) in seen
    assert min(sum(pair) for pair in seen) >= 2


def test_promote_ends_a_step_early_and_promote_full_all_of_them() -> None:
    world, stable, candidate = in_step()
    world.act(f"promote/{candidate}/1")
    run(world)
    assert world.route() == {stable: 75, candidate: 25}
    world.act(f"promote-full/{candidate}/2")
    run(world)
    assert world.route() == {candidate: 100}


def test_time_in_which_nobody_could_look_ends_no_step_by_itself() -> None:
    world, stable, candidate = in_step()
    world.wait(minutes=30)
    world.connected_since = world.now
    run(world)
    assert world.route() == {stable: 95, candidate: 5}
    world.wait(minutes=1)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}


def test_a_lost_status_changes_no_weight() -> None:
    world, stable, candidate = in_step()
    world.wait(minutes=10)
    run(world)
    world.lose_status()
    run(world)
    assert world.route() == {stable: 75, candidate: 25}
    assert world.status["rollout"]["step"] == 2


# routers ------------------------------------------------------------------------------------------


def test_a_deployment_that_gets_routers_goes_through_them_only_when_they_answer() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(traffic={"router": "envoy"})
    world.settle()
    assert world.routed() == stable
    world.run_routers()
    world.settle()
    assert selector(world) == {"mooring.dev/router": "fraud"}


def test_a_deployment_that_gives_up_its_routers_keeps_them_until_nobody_uses_them() -> None:
    world, stable = behind_routers()
    world.edit(traffic={"router": "replicas"})
    world.settle()
    assert world.routed() == stable
    assert kinds.Ref("Deployment", "fraud-router") in world.children
    world.wait(seconds=20)
    world.settle()
    assert kinds.Ref("Deployment", "fraud-router") not in world.children


def selector(world: World) -> dict[str, str]:
    return dict(world.children[kinds.Ref("Service", "fraud")]["spec"]["selector"])


def test_with_router_replicas_the_ratio_of_pods_is_the_weight() -> None:
    world = World.with_spec(
        replicas=10,
        rollout={"steps": [{"weight": 10, "duration": "10m"}, {"weight": 75, "duration": "10m"}]},
    )
    stable = world.serve()
    candidate = start(world)
    for _ in range(6):
        for revision in world.revisions():
            world.run_pods(revision)
        world.settle()
    assert world.counts() == {stable: 10, candidate: 2}
    assert selector(world) == {"mooring.dev/deployment": "fraud"}
    assert world.status["candidate"]["weight"] == 17, "what the ratio gives, not what was asked"
    world.wait(minutes=10)
    for _ in range(6):
        world.settle()
        for revision in world.revisions():
            world.run_pods(revision)
    assert world.counts() == {stable: 4, candidate: 10}
    world.wait(minutes=10)
    for _ in range(6):
        world.settle()
        for revision in world.revisions():
            world.run_pods(revision)
    assert world.routed() == candidate
