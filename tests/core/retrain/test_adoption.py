"""A retrained model rolls out like any other, with spec untouched; a new model in Git wins."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.retrain.setting import (
    DIGEST,
    V8,
    condition,
    drift,
    entries,
    only_request,
    request_status,
    retraining,
    serving,
    steady,
)
from tests.core.world import World

from mooring.core.kinds import Ref

V9: dict[str, Any] = {"uri": "s3://models/fraud/v9", "digest": "sha256:" + "b" * 64}


def fulfilled(result: dict[str, Any] = V8, **changes: Any) -> tuple[World, str]:
    """A drift has asked, and here is the model."""
    world = serving(retraining(cooldown="0s", **changes))
    drift(world)
    world.settle()
    name = only_request(world)
    world.patch_request(name, result=result)
    return world, name


def adopted() -> tuple[World, str]:
    world, name = fulfilled()
    world.serve()
    return world, name


def uri(world: World) -> str:
    return str(world.status["stable"]["modelUri"])


def test_of_two_results_at_once_that_of_the_newer_request_stays() -> None:
    world = serving(retraining())
    for name in ("b-older", "a-newer"):
        world.request(name, {"deploymentRef": {"name": "fraud"}})
        world.settle()
        world.wait(minutes=1)
    world.patch_request("b-older", result=V8)
    world.patch_request("a-newer", result=V9)
    world.settle()
    assert world.status["candidate"]["modelUri"] == V9["uri"]


def test_it_becomes_a_candidate_and_then_stable_and_spec_is_not_written() -> None:
    world, name = fulfilled()
    before = dict(world.resource["spec"])
    world.settle()
    candidate = world.status["candidate"]
    assert (candidate["modelUri"], candidate["modelDigest"]) == (V8["uri"], DIGEST)
    assert request_status(world, name)["revision"] == candidate["revision"]
    assert condition(world, name, "Adopted") == ("True", "Adopted")
    assert world.status["adoptedModel"] == {
        "request": name, "revision": candidate["revision"], "uri": V8["uri"],
    }  # fmt: skip
    world.serve()
    assert uri(world) == V8["uri"]
    assert world.resource["spec"] == before
    assert world.reason("Stalled") == ""


@pytest.mark.parametrize("writes", range(8))
def test_killed_after_any_write_it_is_adopted_once(writes: int) -> None:
    world, _ = fulfilled()
    for _ in range(6):
        world.round(kill_after=writes)
        world.lose_status()
    world.serve()
    assert uri(world) == V8["uri"]
    assert len(world.history.revisions) == 2
    assert [e.outcome for e in entries(world)] == ["Adopted"]


def test_deleting_the_request_changes_nothing() -> None:
    world, _ = adopted()
    world.requests.clear()
    world.lose_status()
    world.serve()
    assert uri(world) == V8["uri"]


def test_a_new_model_in_git_wins_and_the_old_one_does_not_bring_the_adopted_back() -> None:
    world, _ = adopted()
    world.edit(model={"uri": "s3://models/fraud/v7b"})
    world.serve()
    assert uri(world) == "s3://models/fraud/v7b"
    assert "adoptedModel" not in world.status
    world.edit(model={"uri": "s3://models/fraud/v1"})
    world.serve()
    assert uri(world) == "s3://models/fraud/v1"


def test_a_model_that_git_has_overtaken_is_not_adopted() -> None:
    world = serving(retraining())
    drift(world)
    world.settle()
    name = only_request(world)
    world.edit(model={"uri": "s3://models/fraud/v7b"})
    world.serve()
    world.patch_request(name, result=V8)
    world.serve()
    assert uri(world) == "s3://models/fraud/v7b"
    assert condition(world, name, "Adopted") == ("False", "Superseded")


def test_a_changed_runtime_keeps_the_adopted_model() -> None:
    world, _ = adopted()
    world.edit(runtime={"name": "onnx", "args": ["--threads", "2"]})
    world.serve()
    assert uri(world) == V8["uri"]
    assert world.status["adoptedModel"]["uri"] == V8["uri"]
    assert [e.outcome for e in entries(world)] == ["Adopted"]


def test_a_restart_keeps_the_adopted_model() -> None:
    world, _ = adopted()
    world.act(f"restart/{world.status['stable']['revision']}/1")
    world.serve()
    assert uri(world) == V8["uri"]
    assert len(world.history.revisions) == 3


def test_the_adopted_model_written_into_git_starts_no_rollout() -> None:
    world, _ = adopted()
    stable = world.status["stable"]["revision"]
    world.edit(model=dict(V8))
    world.settle()
    assert world.status["stable"]["revision"] == stable
    assert "candidate" not in world.status


def test_a_model_that_fails_its_canary_is_not_asked_for_again_and_counts() -> None:
    world, name = fulfilled()
    world.settle()
    stable = world.status["stable"]["revision"]
    candidate = world.status["candidate"]["revision"]
    world.act(f"abort/{candidate}/1")
    world.serve()
    assert world.status["stable"]["revision"] == stable
    assert "adoptedModel" not in world.status
    assert world.status["retraining"]["ineffective"] == 1
    assert world.reason("Stalled") == ""
    world.lose_status()
    world.serve()
    assert world.revisions() == [stable]
    assert request_status(world, name)["revision"] == candidate


def test_onsuccess_none_leaves_it_to_people() -> None:
    world, name = fulfilled(onSuccess="None")
    world.settle()
    assert condition(world, name, "Adopted") == ("False", "LeftToPeople")
    assert "candidate" not in world.status
    assert [e.outcome for e in entries(world)] == ["LeftToPeople"]


def test_the_same_drift_after_the_promotion_is_not_asked_for_again() -> None:
    world, _ = adopted()
    for _ in range(3):
        world.wait(hours=30)
        world.settle()
    assert len(world.requests) == 1


def test_drift_that_comes_back_soon_shows_that_it_did_not_help() -> None:
    world, name = adopted()
    steady(world)
    world.settle()
    assert world.status["retraining"]["ineffective"] == 0
    world.wait(hours=5)
    drift(world)
    world.settle()
    assert world.status["retraining"]["ineffective"] == 1
    assert len(world.requests) == 2
    second = next(n for n in world.requests if n != name)
    world.patch_request(second, result=V9)
    world.serve()
    assert uri(world) == V9["uri"]
    assert world.status["adoptedModel"]["request"] == second


def test_drift_that_comes_back_late_is_a_new_world() -> None:
    world, _ = adopted()
    steady(world)
    world.settle()
    world.wait(days=8)
    drift(world)
    world.settle()
    assert world.status["retraining"]["ineffective"] == 0
    assert len(world.requests) == 2


def test_the_ledger_outlives_the_records_that_it_was_written_to() -> None:
    limit = {"progressDeadline": "10m", "revisionHistoryLimit": 0}
    world = serving(retraining(cooldown="0s"), rollout=limit)
    drift(world)
    world.settle()
    name = only_request(world)
    world.patch_request(name, result=V8)
    world.serve()
    world.wait(hours=1)
    world.serve()
    assert len(world.history.revisions) == 1
    assert [e.request for e in entries(world)] == [name]
    assert world.status["retraining"]["thisMonth"] == 1


def test_a_result_that_is_the_stable_model_rolls_nothing_out() -> None:
    world = serving(retraining(cooldown="0s"), model=dict(V8))
    drift(world)
    world.settle()
    name = only_request(world)
    world.patch_request(name, result=V8)
    world.settle()
    assert len(world.history.revisions) == 1
    assert "candidate" not in world.status
    assert condition(world, name, "Adopted")[0] == "True"


def test_a_broken_ledger_touches_nothing() -> None:
    world, _ = adopted()
    stable = world.status["stable"]["revision"]
    record = world.children[Ref("ControllerRevision", f"fraud-{stable}")]
    record["metadata"]["annotations"]["mooring.dev/retraining"] = "{"
    writes = len(world.writes)
    world.round()
    assert world.reason("Stalled") == "RecordUnreadable"
    assert len(world.writes) == writes + 1
