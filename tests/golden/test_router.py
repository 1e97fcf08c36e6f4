"""A table -> exactly these router objects, Envoy's configuration laid out for a reader.

Written anew by ``pytest tests/golden --update-golden``, as the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.test_golden import dump

from mooring.api.traffic_spec import TrafficSpec
from mooring.core import kinds
from mooring.core.observed import RenderSettings
from mooring.core.render.router.objects import (
    router_config_map,
    router_deployment,
    router_network_policy,
    router_pdb,
    router_template,
)
from mooring.core.traffic import Backend, BackendPort, Match, Route, Table

EXPECTED = Path(__file__).parent / "router" / "expected.yaml"
OWNER: dict[str, Any] = {"deployment": "fraud", "namespace": "shop", "uid": "uid-1"}
PORTS = (BackendPort("http", 8080), BackendPort("grpc", 9000, http2=True))


def objects() -> list[dict[str, Any]]:
    traffic = TrafficSpec.model_validate({"sessionAffinity": {"cookie": {"name": "session"}}})
    table = Table(
        Route(
            {"0a1b2c": 95, "9f8e7d": 5}, {"9f8e7d": 20}, (Match("9f8e7d", (("x-tester", "yes"),)),)
        ),
        (
            Backend("0a1b2c", "fraud-0a1b2c.shop.svc.cluster.local", PORTS, halved=True),
            Backend("9f8e7d", "fraud-9f8e7d.shop.svc.cluster.local", PORTS),
        ),
    )
    settings = RenderSettings()
    template = router_template(PORTS, traffic, settings, deployment="fraud")
    return [
        router_config_map(table, traffic, ports=PORTS, **OWNER),
        router_network_policy(PORTS, settings, **OWNER),
        router_pdb(**OWNER),
        router_deployment(template, 2, **OWNER),
    ]


def readable(manifest: dict[str, Any]) -> dict[str, Any]:
    """With the JSON inside laid out; one cluster of each kind stands for its likes."""
    shown: dict[str, Any] = json.loads(json.dumps(manifest))
    if shown["kind"] == "ConfigMap":
        data = {name: json.loads(content) for name, content in shown["data"].items()}
        clusters = data["cds.json"]["resources"]
        first = {name: next(c for c in clusters if c["name"] == name) for name in SHOWN}
        data["cds.json"]["resources"] = [first.get(c["name"], c["name"]) for c in clusters]
        shown["data"] = data
        annotations = shown["metadata"]["annotations"]
        annotations[kinds.ANNOTATION_TABLE] = json.loads(annotations[kinds.ANNOTATION_TABLE])
    if shown["kind"] == "Deployment":
        (container,) = shown["spec"]["template"]["spec"]["containers"]
        container["args"] = [json.loads(a) if a.startswith("{") else a for a in container["args"]]
    return shown


#: A half of stable's REST traffic, and the candidate's gRPC copies.
SHOWN = ("0a1b2c-a", "9f8e7d-shadow_grpc")


def test_golden_router(request: pytest.FixtureRequest) -> None:
    found = dump([readable(manifest) for manifest in objects()])
    if request.config.getoption("--update-golden", default=False):
        EXPECTED.write_text(found)
    assert found == EXPECTED.read_text()
