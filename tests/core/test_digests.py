"""Every pod of a revision serves the same bytes: declared, or fixed by the first pod."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.given import spec
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.observed import revisions_to_inspect

DIGEST = "sha256:" + "ab" * 32


def starting(**changes: Any) -> tuple[World, str]:
    world = World.with_spec(spec(**{"replicas": 3} | changes))
    world.settle()
    (first,) = world.revisions()
    return world, first


def config_map(world: World, name: str) -> Ref:
    assert Ref("ConfigMap", f"fraud-{name}") in world.children
    return Ref("ConfigMap", f"fraud-{name}")


def test_without_a_declared_digest_one_pod_goes_first() -> None:
    world, first = starting()
    assert world.counts() == {first: 1}
    world.run_pods(first, ready=0, digest=None)
    world.settle()
    assert world.counts() == {first: 1}


def test_its_digest_is_recorded_then_published_and_only_then_others_start() -> None:
    world, first = starting()
    world.run_pods(first)
    world.writes.clear()
    world.round()
    record = world.children[Ref("ControllerRevision", f"fraud-{first}")]
    assert record["metadata"]["annotations"]["mooring.dev/model-digest"] == "sha256:d1"
    assert world.children[config_map(world, first)]["data"] == {"digest": "sha256:d1"}
    assert world.counts() == {first: 1}, "the cluster has not yet been seen to have it"
    order = [w for w in world.writes if "ControllerRevision" in w or "ConfigMap" in w]
    assert [w.split()[1] for w in order] == ["ControllerRevision", "ConfigMap"]
    world.round()
    assert world.counts() == {first: 3}


@pytest.mark.parametrize("kill_after", range(4))
def test_killed_on_the_way_no_pod_starts_before_the_digest_is_published(kill_after: int) -> None:
    world, first = starting()
    world.run_pods(first)
    world.round(kill_after=kill_after)
    if "digest" not in world.children[config_map(world, first)].get("data", {}):
        assert world.counts() == {first: 1}
    world.settle()
    assert world.counts() == {first: 3}


def test_the_first_digest_stays_whatever_later_pods_find() -> None:
    world, first = starting()
    world.run_pods(first, digest="d1")
    world.settle()
    world.run_pods(first, ready=1, digest="d2")
    world.settle()
    assert world.status["stable"]["modelDigest"] == "sha256:d1"
    assert world.children[config_map(world, first)]["data"] == {"digest": "sha256:d1"}


def test_a_pod_that_found_other_bytes_says_so_in_status() -> None:
    world, first = starting()
    world.run_pods(first)
    world.settle()
    words = "The model has the digest sha256:bb, but sha256:d1 is expected."
    world.run_pods(first, ready=1)
    world.pods[first] = tuple(
        pod
        if pod.ready
        else type(pod)(pod.name, False, "FetchFailed", words, permanent=True, digest=None)
        for pod in world.pods[first]
    )
    world.settle()
    assert world.reason("Ready") == "FetchFailed"
    assert words in world.condition("Ready")["message"]
    assert "1 of 3 pods" in world.condition("Ready")["message"]


def test_a_declared_digest_lets_all_pods_start_at_once() -> None:
    world, first = starting(model={"uri": "s3://models/fraud/v1", "digest": DIGEST})
    assert world.counts() == {first: 3}
    assert world.children[config_map(world, first)].get("data", {}) == {}
    template = world.deployment(first)["spec"]["template"]["spec"]
    args = template["initContainers"][0]["args"]
    assert args[args.index("--digest") + 1] == DIGEST
    world.serve()
    assert world.status["stable"]["modelDigest"] == DIGEST


def test_a_model_inside_the_image_has_none_and_all_pods_start_at_once() -> None:
    world, first = starting(model={"uri": "file:///opt/model"})
    assert world.counts() == {first: 3}
    assert "initContainers" not in world.deployment(first)["spec"]["template"]["spec"]
    world.serve()
    assert "modelDigest" not in world.status["stable"]
    assert world.reason("Ready") == ""


def test_a_claim_is_verified_like_a_store() -> None:
    world, first = starting(model={"uri": "pvc://models/fraud"})
    assert world.counts() == {first: 1}
    world.serve()
    assert world.status["stable"]["modelDigest"] == "sha256:d1"


def test_a_candidate_starts_with_one_pod_beside_all_of_stable() -> None:
    world = World.with_spec(replicas=3)
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    assert world.counts() == {stable: 3, candidate: 1}
    world.run_pods(candidate, digest=None)
    world.settle()
    assert world.routed() == stable, "one pod is not all of them"


def test_a_digest_that_nobody_reports_is_waited_for_in_words() -> None:
    world, first = starting()
    world.run_pods(first, digest=None)
    world.settle()
    assert world.counts() == {first: 1}
    assert "1 of 3 pods" in world.condition("Ready")["message"]
    assert "the digest of the model" in world.condition("Ready")["message"]


def test_a_config_map_deleted_by_hand_takes_no_pod_away() -> None:
    world = World.with_spec(replicas=3)
    stable = world.serve()
    world.remove(config_map(world, stable))
    world.writes.clear()
    world.settle()
    assert world.writes == [f"create ConfigMap fraud-{stable}"]
    assert world.counts() == {stable: 3}
    assert world.children[config_map(world, stable)]["data"] == {"digest": "sha256:d1"}


def test_while_it_is_missing_no_pod_is_added_either() -> None:
    world = World.with_spec(replicas=3)
    stable = world.serve()
    world.remove(config_map(world, stable))
    world.edit(replicas=5)
    world.round()
    assert world.counts() == {stable: 3}
    world.settle()
    assert world.counts() == {stable: 5}


def test_a_digest_that_somebody_writes_into_the_config_map_is_put_right() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.children[config_map(world, stable)]["data"]["digest"] = "sha256:evil"
    world.settle()
    assert world.children[config_map(world, stable)]["data"] == {"digest": "sha256:d1"}


def test_pods_are_only_asked_about_where_a_deployment_cannot_explain_itself() -> None:
    world, first = starting()
    assert revisions_to_inspect(world.children) == set(), "nothing has looked at it yet"
    world.run_pods(first, ready=0)
    assert revisions_to_inspect(world.children) == {first}
    stable = world.serve()
    assert revisions_to_inspect(world.children) == set()
    world.run_pods(stable, ready=2)
    assert revisions_to_inspect(world.children) == {stable}


@pytest.mark.parametrize(
    "model",
    [{"uri": "file:///opt/model"}, {"uri": "s3://models/fraud/v1", "digest": DIGEST}],
    ids=str,
)
def test_pods_with_nothing_to_fix_are_not_asked_for_a_digest(model: dict[str, str]) -> None:
    world = World.with_spec(model=model)
    world.serve()
    assert revisions_to_inspect(world.children) == set()


@pytest.mark.parametrize(
    "data", [None, "text", {}, {"inputs": None}, {"inputs": {"model": 3}}], ids=str
)
def test_asking_for_pods_survives_a_record_that_cannot_be_read(data: object) -> None:
    world, first = starting()
    world.run_pods(first)
    world.children[Ref("ControllerRevision", f"fraud-{first}")]["data"] = data
    unreadable = not isinstance(data, dict)  # the decision will say so, whatever pods tell
    assert revisions_to_inspect(world.children) == (set() if unreadable else {first})
