"""Finished requests go but for the last few; what anything still depends on stays."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.retrain.setting import (
    V8,
    drift,
    entries,
    only_request,
    retraining,
    serving,
    steady,
)
from tests.core.world import World

SHORT = retraining(
    cooldown="0s", historyLimit=2, budget={"perMonth": 100, "maxInFlight": 1, "maxIneffective": 100}
)


def episode(world: World) -> str:
    """Drift begins, a request is made, whoever trains gives up, and the data is steady again."""
    before = set(world.requests)
    world.wait(hours=5)
    drift(world)
    world.settle()
    (name,) = set(world.requests) - before
    world.patch_request(name, phase="Failed", message="no data")
    world.settle()
    steady(world)
    world.settle()
    return name


def test_the_last_few_finished_requests_are_kept_and_the_ledger_knows_all() -> None:
    world = serving(SHORT)
    names = [episode(world) for _ in range(5)]
    assert list(world.requests) == names[-2:]
    assert [entry.request for entry in entries(world)] == names
    assert {entry.outcome for entry in entries(world)} == {"Failed"}


def test_an_occasion_whose_request_has_gone_is_not_asked_for_again() -> None:
    wanted = {**SHORT, "historyLimit": 0}
    world = serving(wanted)
    drift(world)
    world.settle()
    name = only_request(world)
    world.patch_request(name, phase="Failed", message="no data")
    world.settle()
    assert not world.requests
    world.wait(days=2)
    world.lose_status()
    world.settle()
    assert not world.requests
    assert [entry.request for entry in entries(world)] == [name]


@pytest.mark.parametrize("writes", range(10))
def test_killed_after_any_write_nothing_is_asked_for_twice(writes: int) -> None:
    world = serving({**SHORT, "historyLimit": 0})
    drift(world)
    world.settle()
    world.patch_request(only_request(world), phase="Failed", message="no data")
    for _ in range(6):
        world.round(kill_after=writes)
        world.lose_status()
    world.settle()
    assert not world.requests
    assert len(entries(world)) == 1


def test_the_request_that_the_served_model_stems_from_is_kept() -> None:
    world = serving({**SHORT, "historyLimit": 0})
    drift(world)
    world.settle()
    name = only_request(world)
    world.patch_request(name, result=V8)
    world.serve()
    world.settle()
    assert world.status["adoptedModel"]["request"] == name
    assert list(world.requests) == [name]


def test_what_people_made_by_hand_is_theirs() -> None:
    world = serving({**SHORT, "historyLimit": 0})
    wanted: dict[str, Any] = {
        "deploymentRef": {"name": "fraud"},
        "trigger": {"type": "Manual", "message": "try it"},
    }
    world.request("by-hand", wanted)
    world.settle()
    world.patch_request("by-hand", phase="Failed", message="gave up")
    world.settle()
    assert list(world.requests) == ["by-hand"]


def test_a_request_under_way_is_kept_whatever_the_limit() -> None:
    world = serving({**SHORT, "historyLimit": 0})
    drift(world)
    world.settle()
    world.wait(hours=2)
    world.settle()
    assert len(world.requests) == 1


def test_without_a_spec_of_retraining_nothing_is_deleted() -> None:
    world = serving(SHORT)
    names = [episode(world) for _ in range(2)]
    spec = {k: v for k, v in world.resource["spec"].items() if k != "retraining"}
    world.resource["spec"] = spec
    world.settle()
    assert list(world.requests) == names


def test_a_refused_write_deletes_nothing() -> None:
    world = serving({**SHORT, "historyLimit": 0})
    drift(world)
    world.settle()
    ref = next(r for r in world.children if r.kind == "Deployment")
    world.refuses[ref] = "no"
    world.patch_request(only_request(world), phase="Failed", message="no data")
    for _ in range(4):
        world.resource["spec"] = {**world.resource["spec"], "replicas": 3}
        world.round()
    assert len(world.requests) == 1
    world.refuses = {}
    world.settle()
    assert not world.requests


def test_a_limit_that_is_lowered_prunes_at_once() -> None:
    world = serving({**SHORT, "historyLimit": 100})
    names = [episode(world) for _ in range(4)]
    assert list(world.requests) == names
    world.edit(retraining={**SHORT, "historyLimit": 1})
    world.settle()
    assert list(world.requests) == names[-1:]
