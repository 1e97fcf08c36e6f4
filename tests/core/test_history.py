"""The records: which revision is stable, what is kept, and what happens when one is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.given import copied
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.objects import owned

Record = dict[str, Any]


def record(world: World, name: str) -> Record:
    return world.children[Ref("ControllerRevision", f"fraud-{name}")]


def records(world: World) -> list[str]:
    return [r.hash for r in sorted(world.history.revisions, key=lambda r: r.sequence)]


def serve_models(world: World, *versions: int) -> list[str]:
    found = []
    for version in versions:
        world.model(f"s3://models/fraud/v{version}")
        found.append(world.serve())
    return found


def test_the_last_one_promoted_is_stable() -> None:
    world = World.with_spec()
    first, second = world.serve(), serve_models(world, 2)[0]
    assert world.history.stable is not None
    assert world.history.stable.hash == second
    record(world, first)["metadata"]["annotations"]["mooring.dev/promotion"] = "3"
    assert world.history.stable.hash == first


def test_the_spec_of_an_old_revision_brings_back_its_record() -> None:
    world = World.with_spec()
    first = world.serve()
    serve_models(world, 2)
    assert serve_models(world, 1) == [first]
    assert len(world.history.revisions) == 2
    assert world.history.stable is not None
    assert world.history.stable.promotion == 3


def test_beyond_the_limit_the_oldest_records_go() -> None:
    world = World.with_spec(rollout={"progressDeadline": "10m", "revisionHistoryLimit": 2})
    names = [world.serve(), *serve_models(world, 2, 3, 4, 5)]
    assert records(world) == names[-3:]


def test_a_limit_of_zero_keeps_what_is_live_and_nothing_else() -> None:
    world = World.with_spec(rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0})
    first = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    assert records(world)[0] == first
    assert len(records(world)) == 2
    second = world.serve()
    assert records(world) == [second]


def test_the_limit_never_takes_the_stable_revision_however_old() -> None:
    world = World.with_spec(rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0})
    stable = world.serve()
    for version in range(2, 6):
        world.model(f"s3://models/fraud/v{version}")
        world.settle()
    assert stable in records(world)
    assert len(records(world)) == 2


def test_nor_the_rejected_revision_that_the_spec_asks_for() -> None:
    world = World.with_spec(rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0})
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.act(f"abort/{candidate}/1")
    world.settle()
    assert records(world) == [stable, candidate]
    assert world.revisions() == [stable]
    assert world.status["rejectedRevisions"][0]["revision"] == candidate


def test_while_the_spec_cannot_be_made_a_revision_nothing_is_forgotten() -> None:
    world = World.with_spec()
    names = [world.serve(), *serve_models(world, 2, 3)]
    world.edit(
        runtime={"name": "unknown"}, rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0}
    )
    world.settle()
    assert records(world) == names


def drop(*path: str) -> Callable[[Record], None]:
    def damage(record: Record) -> None:
        *parents, last = path
        for part in parents:
            record = record[part]
        del record[last]

    return damage


def put(value: Any, *path: str) -> Callable[[Record], None]:
    def damage(record: Record) -> None:
        *parents, last = path
        for part in parents:
            record = record[part]
        record[last] = value

    return damage


BROKEN = {
    "no data": drop("data"),
    "null data": put(None, "data"),
    "no inputs": drop("data", "inputs"),
    "no model": drop("data", "inputs", "model"),
    "a uri that is a number": put(7, "data", "inputs", "model", "uri"),
    "a runtime that is text": put("onnx", "data", "inputs", "runtime"),
    "resources that are a list": put(["cpu"], "data", "inputs", "runtime", "resources"),
    "no template": drop("data", "template"),
    "a template that is text": put("pod", "data", "template"),
    "a template without a spec": drop("data", "template", "spec"),
    "ports that are text": put("http", "data", "ports"),
    "a port without a number": put([{"name": "http"}], "data", "ports"),
    "config that is a list": put(["a"], "data", "config"),
    "no label": drop("metadata", "labels"),
    "the label of another": put("other", "metadata", "labels", "mooring.dev/revision"),
    "a promotion that is no number": put(
        "first", "metadata", "annotations", "mooring.dev/promotion"
    ),
    "a promotion at no time": put(
        "yesterday", "metadata", "annotations", "mooring.dev/promoted-at"
    ),
    "a rejection that is no JSON": put("{", "metadata", "annotations", "mooring.dev/rejected"),
    "a rejection without a reason": put("{}", "metadata", "annotations", "mooring.dev/rejected"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_record_that_cannot_be_read_stops_everything_and_touches_nothing(
    damage: Callable[[Record], None],
) -> None:
    world = World.with_spec()
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    damage(record(world, stable))
    before = copied(world.children)
    world.edit(replicas=9)
    plan = world.settle()
    assert (plan.apply, plan.scale, plan.delete) == ((), (), ())
    assert world.children == before
    assert world.reason("Stalled") == "RecordUnreadable"
    assert f"fraud-{stable}" in world.condition("Stalled")["message"]
    assert world.condition("Ready")["status"] == "Unknown"


def test_a_record_that_is_mended_lets_it_go_on() -> None:
    world = World.with_spec()
    stable = world.serve()
    whole = copied(record(world, stable))
    record(world, stable)["data"] = None
    world.settle()
    world.children[Ref("ControllerRevision", f"fraud-{stable}")] = whole
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.reason("Stalled") == ""


@pytest.mark.parametrize(
    ("owners", "labels", "ours"),
    [
        ([{"uid": "uid-1"}], {}, True),
        ([{"uid": "other"}, {"uid": "uid-1"}], {}, True),
        ([{"uid": "other"}], {"app.kubernetes.io/managed-by": "mooring"}, False),
        ([], {"app.kubernetes.io/managed-by": "mooring"}, True),
        (None, {"app.kubernetes.io/managed-by": "mooring"}, True),
        ([], {}, False),
        ([], None, False),
        ([], {"app.kubernetes.io/managed-by": "Helm"}, False),
    ],
)
def test_ours_is_what_names_us_as_owner_or_an_orphan_with_our_labels(
    owners: Any, labels: Any, ours: bool
) -> None:
    child = {"metadata": {"ownerReferences": owners, "labels": labels}}
    assert owned(child, "uid-1") is ours


def test_what_a_person_labels_like_ours_is_not_deleted() -> None:
    world = World.with_spec()
    notes = Ref("ConfigMap", "notes")
    world.children[notes] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "notes",
            "uid": "theirs",
            "resourceVersion": "1",
            "labels": {"mooring.dev/deployment": "fraud"},
        },
    }
    world.serve()
    assert notes in world.children


def test_what_is_on_its_way_out_is_not_deleted_again() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.deployment(candidate)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.model("s3://models/fraud/v1")
    plan = world.round()
    assert Ref("ConfigMap", f"fraud-{candidate}") in {d.ref for d in plan.delete}
    assert Ref("Deployment", f"fraud-{candidate}") not in {d.ref for d in plan.delete}
