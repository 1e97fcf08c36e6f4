"""How many pods: from the spec, or from an autoscaler; and who owns the number."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.given import spec
from tests.core.world import World

from mooring.core.kinds import Ref

HPA = Ref("HorizontalPodAutoscaler", "fraud")
AUTO: dict[str, Any] = {"minReplicas": 2, "maxReplicas": 6}


def autoscaled(**changes: Any) -> World:
    wanted = spec(autoscaling=AUTO, **changes)
    del wanted["replicas"]
    return World.with_spec(wanted)


def without_replicas() -> World:
    wanted = spec()
    del wanted["replicas"]
    return World.with_spec(wanted)


def test_replicas_unset_means_one() -> None:
    world = without_replicas()
    stable = world.serve()
    assert world.counts() == {stable: 1}
    assert world.status["stable"]["replicas"] == {"desired": 1, "ready": 1}


def test_zero_replicas_is_ready_and_says_that_nothing_is_served() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(replicas=0)
    world.settle()
    world.run_pods(stable)
    world.settle()
    assert world.counts() == {stable: 0}
    assert world.status["phase"] == "ScaledToZero"
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("True", "ScaledToZero")


def test_back_from_zero_it_is_ready_only_with_its_pods() -> None:
    world = World.with_spec(replicas=0)
    stable = world.serve()
    world.edit(replicas=2)
    world.settle()
    assert world.reason("Ready") == "Starting"
    assert world.serve() == stable
    assert world.counts() == {stable: 2}
    assert world.reason("Ready") == ""


def test_scaling_starts_no_rollout() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(replicas=7)
    world.settle()
    assert world.counts() == {stable: 7}
    assert "candidate" not in world.status
    assert "2 of 7 pods" in world.condition("Ready")["message"]


def test_a_count_changed_by_hand_on_the_deployment_is_changed_back() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.autoscale(stable, 9)
    world.settle()
    assert world.counts() == {stable: 2}


def test_the_count_is_no_part_of_what_is_applied_to_a_deployment() -> None:
    world = World.with_spec()
    world.serve()
    plan = world.round()
    deployments = [m for m in plan.apply if m["kind"] == "Deployment"]
    assert deployments
    assert all("replicas" not in m["spec"] for m in deployments)


def test_scale_shows_the_pods_that_there_are_and_selects_those_that_serve() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(replicas=5)
    world.settle()
    assert world.status["replicas"] == 2
    assert f"mooring.dev/revision={stable}" in world.status["selector"].split(",")
    world.run_pods(stable)
    world.settle()
    assert world.status["replicas"] == 5


# autoscaling ----------------------------------------------------------------------------------


def test_an_autoscaler_owns_the_count_of_stable() -> None:
    world = autoscaled()
    stable = world.serve()
    assert world.counts() == {stable: 2}
    assert world.children[HPA]["spec"]["scaleTargetRef"]["name"] == f"fraud-{stable}"
    world.autoscale(stable, 5)
    world.settle()
    assert world.counts() == {stable: 5}
    assert Ref("Deployment", f"fraud-{stable}") not in dict(world.round().scale)


def test_there_is_no_autoscaler_before_something_serves() -> None:
    world = autoscaled()
    world.settle()
    assert HPA not in world.children
    (first,) = world.revisions()
    assert world.counts() == {first: 1}, "its digest is not fixed"


def test_nor_before_every_further_pod_knows_its_digest() -> None:
    world = autoscaled()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first, digest=None)
    world.settle()
    assert world.status["stable"]["revision"] == first
    assert HPA not in world.children
    assert world.counts() == {first: 1}
    world.run_pods(first)
    world.settle()
    assert HPA in world.children


def test_a_candidate_grows_to_the_count_of_stable_before_it_takes_the_autoscaler_over() -> None:
    world = autoscaled()
    stable = world.serve()
    world.autoscale(stable, 5)
    world.run_pods(stable)
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.run_pods(candidate)
    world.settle()
    assert world.counts() == {stable: 5, candidate: 5}
    assert world.children[HPA]["spec"]["scaleTargetRef"]["name"] == f"fraud-{stable}"
    world.run_pods(candidate)
    world.settle()
    assert world.children[HPA]["spec"]["scaleTargetRef"]["name"] == f"fraud-{candidate}"
    assert world.counts() == {stable: 5, candidate: 5}


def test_a_candidate_follows_the_autoscaler_while_it_waits() -> None:
    world = autoscaled()
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.run_pods(candidate, ready=0)
    world.settle()
    world.autoscale(stable, 4)
    world.settle()
    assert world.counts() == {stable: 4, candidate: 4}


@pytest.mark.parametrize(("found", "expected"), [(1, 2), (3, 3), (9, 6)])
def test_the_count_of_a_candidate_stays_within_the_bounds(found: int, expected: int) -> None:
    world = autoscaled()
    stable = world.serve()
    world.autoscale(stable, found)
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.run_pods(candidate, ready=0)
    world.settle()
    assert world.counts()[candidate] == expected


def test_what_an_autoscaler_adds_is_on_its_way_and_does_not_make_the_rest_unready() -> None:
    world = autoscaled()
    stable = world.serve()
    world.run_pods(stable)
    world.settle()
    assert world.reason("Ready") == ""
    world.autoscale(stable, 5)
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert "2 of 5 pods" in world.condition("Ready")["message"]
    assert world.condition("Reconciling")["reason"] == "Scaling"
    world.run_pods(stable, ready=1)
    world.settle()
    assert world.condition("Ready")["status"] == "False", "fewer than its least"


def test_handing_over_to_an_autoscaler_changes_no_count() -> None:
    world = World.with_spec(replicas=4)
    stable = world.serve()
    world.resource["spec"].pop("replicas")
    world.edit(autoscaling=AUTO)
    world.settle()
    assert HPA in world.children
    assert world.counts() == {stable: 4}


def test_an_autoscaler_that_would_leave_zero_pods_alone_is_given_its_least() -> None:
    world = World.with_spec(replicas=0)
    stable = world.serve()
    world.resource["spec"].pop("replicas")
    world.edit(autoscaling=AUTO)
    world.settle()
    assert world.counts() == {stable: 1}, "one pod fixes the digest, as ever"
    world.run_pods(stable)
    world.settle()
    assert world.counts() == {stable: 2}


def test_above_its_range_the_autoscaler_is_left_to_bring_the_pods_down() -> None:
    world = autoscaled()
    stable = world.serve()
    world.autoscale(stable, 9)
    world.settle()
    assert world.counts() == {stable: 9}


def test_taking_it_back_sets_the_count_that_the_spec_names() -> None:
    world = autoscaled()
    stable = world.serve()
    world.autoscale(stable, 5)
    world.resource["spec"].pop("autoscaling")
    world.edit(replicas=3)
    world.settle()
    assert HPA not in world.children
    assert world.counts() == {stable: 3}


def test_a_config_map_deleted_by_hand_keeps_the_autoscaler() -> None:
    world = autoscaled()
    stable = world.serve()
    before = world.children[HPA]["metadata"]["uid"]
    world.autoscale(stable, 5)
    world.remove(Ref("ConfigMap", f"fraud-{stable}"))
    world.settle()
    assert world.children[HPA]["metadata"]["uid"] == before
    assert world.counts() == {stable: 5}
