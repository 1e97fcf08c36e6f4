"""Which fetchers are told of the node's cache, and which pods may reach it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.world import World

from mooring.core.observed import NodeCache, RenderSettings

URL = "http://cache.mooring-system.svc.cluster.local:8085"
ON = RenderSettings(node_cache=NodeCache(URL, 8085))
SECRET = {"credentials": {"secretName": "store"}}


def made(settings: RenderSettings, model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    world = World.with_spec(
        {"model": model, "runtime": {"name": "onnx"}, "traffic": {"router": "replicas"}}
    )
    world.settings = settings
    return {manifest["kind"]: manifest for manifest in world.round().apply}


def arguments(objects: dict[str, dict[str, Any]]) -> list[str]:
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    return [part for one in spec.get("initContainers", []) for part in one["args"]]


@pytest.mark.parametrize(
    ("settings", "model", "told"),
    [
        (ON, {"uri": "s3://models/fraud", **SECRET}, True),
        (ON, {"uri": "https://models.example.com/m.onnx", **SECRET}, True),
        # Without credentials nothing would be shared.
        (ON, {"uri": "s3://models/fraud"}, False),
        # Nothing is fetched.
        (ON, {"uri": "pvc://models/fraud", **SECRET}, False),
        (ON, {"uri": "file:///models/fraud"}, False),
        (RenderSettings(), {"uri": "s3://models/fraud", **SECRET}, False),
    ],
)
def test_who_fetches_with_credentials_is_told_of_the_cache(
    settings: RenderSettings, model: dict[str, Any], told: bool
) -> None:
    found = arguments(made(settings, model))
    assert ("--cache" in found) is told
    if told:
        assert found[found.index("--cache") + 1] == URL


@pytest.mark.parametrize(
    ("settings", "uri", "open_to"),
    [
        (ON, "s3://models/fraud", [8085]),
        (ON, "pvc://models/fraud", []),
        (RenderSettings(), "s3://models/fraud", []),
    ],
)
def test_pods_that_fetch_may_reach_the_caches_pods(
    settings: RenderSettings, uri: str, open_to: list[int]
) -> None:
    egress = made(settings, {"uri": uri})["NetworkPolicy"]["spec"]["egress"]
    rules = [rule for rule in egress if any("podSelector" in to for to in rule.get("to", []))]
    assert [port["port"] for rule in rules for port in rule["ports"]] == open_to
    for rule in rules:
        (peer,) = rule["to"]
        namespace = peer["namespaceSelector"]["matchLabels"]
        assert namespace == {"kubernetes.io/metadata.name": settings.operator_namespace}
