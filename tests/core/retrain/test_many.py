"""Requests without number: what is forgotten stays over, and what is too much waits."""

from __future__ import annotations

import pytest
from tests.core.retrain.setting import (
    condition,
    entries,
    request_status,
    retraining,
    serving,
)
from tests.core.world import World

from mooring.core import kinds

BY_HAND = {"deploymentRef": {"name": "fraud"}}


def failed(world: World, many: int) -> None:
    """So many more requests by hand, of which nothing came."""
    for number in range(many):
        world.request(f"in-vain-{number}", BY_HAND)
        world.patch_request(f"in-vain-{number}", phase="Failed")
    world.wait(minutes=1)
    world.settle(40)


@pytest.mark.parametrize("on_success", ["Rollout", "None"])
def test_a_result_of_long_ago_is_not_adopted_once_its_request_is_forgotten(on_success: str) -> None:
    """What people have made is never deleted, and the ledger keeps the last 120 alone."""
    world = serving(retraining(onSuccess=on_success), rollout={"revisionHistoryLimit": 1})
    for number in range(3):
        world.request(f"by-hand-{number}", BY_HAND)
        world.settle()
        digest = "sha256:" + f"{number}" * 64
        result = {"uri": f"s3://models/fraud/v{number}", "digest": digest}
        world.patch_request(f"by-hand-{number}", result=result)
        world.serve()
        world.wait(hours=2)
        world.settle(40)
    before = world.status["stable"]["revision"]
    was = request_status(world, "by-hand-0")
    failed(world, 125)
    spec = {**world.resource["spec"]["retraining"], "onSuccess": "Rollout"}
    world.resource["spec"]["retraining"] = spec  # and asked to roll out from now on
    world.settle(40)

    assert "candidate" not in world.status
    assert world.status["stable"]["revision"] == before
    assert request_status(world, "by-hand-0") == was


def test_more_requests_than_a_record_can_name_wait_for_their_turn() -> None:
    """A record's annotations hold 256 KiB; beyond that none could be written, nor a rollout."""
    world = serving(retraining(action={"none": {}}))
    for number in range(1_500):
        world.request(f"{number:04}-{'n' * 47}", BY_HAND)
    world.settle()

    last = f"1499-{'n' * 47}"
    assert condition(world, last, "Dispatched") == ("False", "TooMany")
    assert "100 others" in request_status(world, last)["message"]
    (record,) = (c for ref, c in world.children.items() if ref.kind == "ControllerRevision")
    assert len(record["metadata"]["annotations"][kinds.ANNOTATION_RETRAINING]) < 100_000
    first = f"0000-{'n' * 47}"
    assert request_status(world, first)["phase"] == "Pending"
    world.patch_request(first, phase="Failed")
    world.settle()
    assert sum(entry.open for entry in entries(world)) == 100
    assert condition(world, f"0100-{'n' * 47}", "Dispatched") == ("True", "LeftToPipeline")
