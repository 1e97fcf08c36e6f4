"""Status holds nothing that is needed: it can be lost, and the cluster wiped and restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.given import copied
from tests.core.world import World

from mooring.core.kinds import Ref


def story(world: World, step: int) -> None:
    """A life with everything in it: rollouts, verbs, a failure, scaling."""

    def other() -> str:
        stable = world.status.get("stable", {}).get("revision")
        return next(r for r in world.revisions() if r != stable)

    def pause() -> None:
        world.act(f"pause/{other()}/1")

    def resume() -> None:
        world.act(f"resume/{other()}/2")

    def fail() -> None:
        world.fail_pods(other(), "ServerFailed", "no")

    def restart() -> None:
        world.act(f"restart/{world.status['stable']['revision']}/3")

    steps: list[Callable[[], Any]] = [
        world.serve,
        lambda: world.model("s3://models/fraud/v2"),
        pause,
        world.serve,
        resume,
        world.serve,
        lambda: world.edit(replicas=4),
        world.serve,
        lambda: world.model("s3://models/fraud/v3"),
        fail,
        lambda: world.wait(minutes=20),
        world.settle,
        lambda: world.wait(minutes=20),
        world.settle,
        restart,
        world.serve,
    ]
    steps[step]()
    world.settle()


STEPS = 16


def told_once(world: World) -> list[str]:
    """What must never happen twice."""
    return sorted(
        t for t in world.told if any(w in t for w in ("Promoted", "RevisionCreated", "ActionTaken"))
    )


def moments() -> list[World]:
    """The undisturbed story: the world before it, and after each of its steps."""
    found = [World.with_spec()]
    for step in range(STEPS):
        world = copied(found[-1])
        story(world, step)
        found.append(world)
    return found


def end_state(world: World) -> dict[str, Any]:
    records = {
        r.hash: (r.sequence, r.promotion, r.rejected and r.rejected.reason, r.paused, r.digest)
        for r in world.history.revisions
    }
    return {
        "counts": world.counts(),
        "routed": world.routed(),
        "records": records,
        "children": sorted(map(str, world.children)),
        "ready": world.reason("Ready"),
        "stalled": world.reason("Stalled"),
    }


MOMENTS = moments()
EXPECTED = MOMENTS[-1]


@pytest.mark.parametrize("lost", range(STEPS))
def test_status_lost_at_any_moment_changes_neither_the_end_nor_the_way(lost: int) -> None:
    world: World = copied(MOMENTS[lost])
    world.lose_status()
    world.settle()
    for step in range(lost, STEPS):
        story(world, step)
    assert end_state(world) == end_state(EXPECTED)
    assert told_once(world) == told_once(EXPECTED)
    created = [w for w in EXPECTED.writes if w.startswith(("create", "delete"))]
    assert [w for w in world.writes if w.startswith(("create", "delete"))] == created


def test_nothing_is_promoted_made_or_acted_on_twice() -> None:
    told = told_once(EXPECTED)
    assert len(told) == len(set(told))


def restored(world: World, *, settle: bool = True) -> World:
    """The cluster wiped, and what ``mooring export`` wrote applied to an empty one."""
    after = World.with_spec()
    after.now = world.now
    resource = copied(world.resource)
    resource.pop("status", None)
    annotations = resource["metadata"].get("annotations", {})
    resource["metadata"] = {
        "name": "fraud", "namespace": "shop", "uid": "uid-2", "generation": 1,
        "resourceVersion": "1", "annotations": annotations,
    }  # fmt: skip
    after.resource = resource
    for ref, child in world.children.items():
        if ref.kind != "ControllerRevision":
            continue
        record = copied(child)
        for field in ("uid", "resourceVersion", "ownerReferences", "generation"):
            record["metadata"].pop(field, None)
        record["metadata"] |= {"uid": f"new-{ref.name}", "resourceVersion": "7", "generation": 1}
        after.children[ref] = record
    if settle:
        after.settle()
    return after


@pytest.mark.parametrize("step", range(STEPS))
def test_restored_without_status_the_same_revision_serves_the_same_pods(step: int) -> None:
    world = MOMENTS[step + 1]
    after = restored(world)
    before = world.history.stable
    assert before is not None
    assert after.history.stable is not None
    assert after.history.stable.hash == before.hash
    assert after.routed() == before.hash
    template = world.deployment(before.hash)["spec"]["template"]
    assert after.deployment(before.hash)["spec"]["template"] == template
    found = {r.hash: (r.promotion, r.rejected, r.paused) for r in after.history.revisions}
    assert found == {r.hash: (r.promotion, r.rejected, r.paused) for r in world.history.revisions}
    assert not [t for t in after.told if "Action" in t or "RevisionCreated" in t]


def test_restored_records_are_adopted_by_the_new_owner() -> None:
    world = World.with_spec()
    stable = world.serve()
    after = restored(world)
    record = after.children[Ref("ControllerRevision", f"fraud-{stable}")]
    (owner,) = record["metadata"]["ownerReferences"]
    assert owner["uid"] == "uid-2"
    assert record["data"] == world.children[Ref("ControllerRevision", f"fraud-{stable}")]["data"]
    after.serve()
    assert after.reason("Ready") == ""
    writes = len(after.writes)
    after.settle()
    assert len(after.writes) == writes


def test_a_restored_revision_still_asks_for_the_same_bytes() -> None:
    world = World.with_spec()
    stable = world.serve()
    after = restored(world)
    data = after.children[Ref("ConfigMap", f"fraud-{stable}")]["data"]
    assert data == {"digest": "sha256:d1"}
    assert after.counts() == {stable: 2}, "its digest is known: all pods may start"


def test_records_of_a_namesake_that_still_has_its_owner_are_left_alone() -> None:
    world = World.with_spec()
    world.serve()
    after = restored(world, settle=False)
    for record in after.children.values():
        record["metadata"]["ownerReferences"] = [{"uid": "uid-1", "kind": "ModelDeployment"}]
    after.foreign = dict.fromkeys(after.children, "ModelDeployment fraud (uid uid-1)")
    untouched = copied(after.children)
    for _ in range(4):
        after.round()
    assert after.children == untouched
    assert after.reason("Stalled") == "NameTaken"


def test_a_resource_on_its_way_out_is_left_to_its_owner_references() -> None:
    world = World.with_spec()
    world.serve()
    world.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = world.round()
    assert plan == type(plan)()
