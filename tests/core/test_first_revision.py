"""The first revision: nothing else serves, so it takes what it can get and is never given up."""

from __future__ import annotations

from tests.core.world import World

V2 = "s3://models/fraud/v2"


def given_up(world: World) -> list[str]:
    return [r["revision"] for r in world.status.get("rejectedRevisions", [])]


def test_the_first_revision_serves_as_soon_as_one_pod_does() -> None:
    world = World.with_spec(replicas=3)
    world.settle()
    (first,) = world.revisions()
    assert world.routed() == first
    assert "stable" not in world.status
    world.run_pods(first)
    world.settle()
    assert world.history.stable is not None
    assert world.reason("Ready") == "Starting"
    assert "1 of 3 pods" in world.condition("Ready")["message"]
    world.run_pods(first)
    world.settle()
    assert world.reason("Ready") == ""


def test_a_first_revision_is_never_given_up_for_there_is_nothing_else() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first, ready=0)
    world.wait(hours=5)
    world.settle()
    assert world.revisions() == [first]
    assert given_up(world) == []
    assert world.reason("Stalled") == "ProgressDeadlineExceeded"
    world.serve()
    assert world.reason("Stalled") == ""
    assert world.reason("Ready") == ""


def test_a_better_first_revision_replaces_one_that_never_served() -> None:
    world = World.with_spec()
    world.settle()
    (broken,) = world.revisions()
    world.model(V2)
    world.settle()
    (second,) = world.revisions()
    assert second != broken
    assert world.routed() == second


def test_a_first_revision_that_serves_is_stable_though_the_spec_went_on_meanwhile() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first)  # while the operator was away
    world.model(V2)
    world.settle()
    assert world.status["stable"]["revision"] == first
    assert world.status["candidate"]["modelUri"] == V2
    assert world.routed() == first
    (promoted,) = [t for t in world.told if "Promoted" in t]
    assert promoted.endswith("it serves already, and nothing else does")
    assert world.serve() != first


def test_also_when_the_spec_has_become_impossible() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first)
    world.edit(model={"uri": V2}, runtime={"name": "unknown"})
    world.settle()
    assert world.routed() == first
    assert world.reason("Stalled") == "RuntimeNotFound"
    assert f"revision {first} serves on" in world.condition("Stalled")["message"]


def test_a_first_revision_that_is_aborted_is_not_made_stable_by_its_pods() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first)
    world.act(f"abort/{first}/1")
    world.settle()
    assert "stable" not in world.status
    world.model(V2)
    world.settle()
    assert first not in world.revisions()


def test_nor_when_the_operator_dies_before_they_are_gone() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first)
    world.act(f"abort/{first}/1")
    world.round(kill_after=2)  # status, and the record that rejects
    assert given_up(world) == [first]
    world.model(V2)
    world.settle()
    assert "stable" not in world.status
    assert first not in world.revisions()
