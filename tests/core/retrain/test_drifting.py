"""What monitoring writes down is what asks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.core.retrain.setting import only_request, retraining, serving
from tests.core.world import World

from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.monitoring import DriftFacts, Report
from mooring.core.render.metadata import manifest


def watching() -> World:
    monitoring = {"reference": {"configMap": "fraud-reference"}}
    return serving(retraining({"drift": {"for": "1h"}}), monitoring=monitoring)


def tell(
    world: World,
    state: str,
    *,
    drifted: bool,
    healthy: bool = True,
    name: str = "amount",
    **more: dict[str, Any],
) -> None:
    """The ConfigMap as the judging of a window leaves it."""
    began = world.now - timedelta(hours=2)
    features: list[dict[str, Any]] = [
        {"feature": name, "state": "Drifted", "psi": 0.31, "windowRows": 900,
         "referenceRows": 9000},
        {"feature": "age", "state": "Steady", "psi": 0.001},
    ]  # fmt: skip
    facts = DriftFacts(
        drifted=drifted, since=began, change_point=began - timedelta(hours=1),
        features=("amount",), healthy=healthy, episode=7, message="amount has drifted",
        unhealthy_windows=((datetime(2025, 12, 31, tzinfo=UTC),
                            datetime(2025, 12, 31, 1, tzinfo=UTC)),),
    )  # fmt: skip
    report = Report({"state": state, "features": features, **more}, {}, facts)
    child = manifest(
        kinds.CONFIG_MAP, "fraud-drift", namespace="shop", deployment="fraud", uid="uid-1",
        data={"report.json": report.to_text()},
    )  # fmt: skip
    child["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    world.children[Ref("ConfigMap", "fraud-drift")] = child


def test_drift_that_monitoring_found_is_stated_with_its_evidence() -> None:
    world = watching()
    tell(world, "Drifted", drifted=True)
    world.settle()
    spec = world.requests[only_request(world)]["spec"]
    assert spec["trigger"]["message"] == "amount has drifted"
    assert spec["evidence"] == [
        {"feature": "amount", "statistic": "psi", "value": "0.31", "samples": 900,
         "referenceSamples": 9000}
    ]  # fmt: skip
    assert len(spec["dataWindow"]["exclude"]) == 1
    json.dumps(spec)


def test_a_feature_without_a_name_has_no_name_in_the_evidence() -> None:
    """The API server refuses an empty one, and with it the request."""
    world = watching()
    tell(world, "Drifted", drifted=True, name="")
    world.settle()
    (evidence,) = world.requests[only_request(world)]["spec"]["evidence"]
    assert "feature" not in evidence


def test_a_score_that_means_something_else_asks_once_and_states_what_labels_say() -> None:
    world = watching()
    tell(world, "Drifted", drifted=True, concept={
        "state": "Drifted", "output": "score", "labels": 2310, "pValue": 1e-05,
    })  # fmt: skip
    world.settle()
    world.settle()
    first, *_ = world.requests[only_request(world)]["spec"]["evidence"]
    assert first == {
        "feature": "score", "statistic": "conceptPValue", "value": "1e-05", "samples": 2310,
    }  # fmt: skip


def test_broken_data_asks_for_nothing() -> None:
    world = watching()
    tell(world, "Drifted", drifted=True, healthy=False)
    world.settle()
    assert world.requests == {}
    assert world.condition("RetrainingRequested")["reason"] == "DataUnhealthy"


def test_only_a_steady_window_ends_an_episode() -> None:
    for state, asked in (("InsufficientData", 1), ("Steady", 2)):
        world = watching()
        world.edit(retraining=retraining({"drift": {"for": "1h"}}, cooldown="0s"))
        tell(world, "Drifted", drifted=True)
        world.settle()
        world.patch_request(only_request(world), phase="Failed")
        world.settle()
        tell(world, state, drifted=False)
        world.settle()
        tell(world, "Drifted", drifted=True)
        world.settle()
        assert len(world.requests) == asked, state
