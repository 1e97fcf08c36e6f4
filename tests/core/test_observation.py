"""Monitoring brings a collector, and routers copy to it once every one of them is prepared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.collector.references import reference
from tests.core.world import World

from mooring.api.monitoring_spec import MonitoringSpec
from mooring.core.kinds import Ref
from mooring.core.observed import RenderSettings
from mooring.core.render.collector import collector_config, collector_objects
from mooring.core.render.router.observation import is_prepared
from mooring_collector.grid import read_reference
from mooring_collector.settings import read_settings

MONITORING: dict[str, Any] = {"reference": {"configMap": "fraud-reference"}}
ENVOY: dict[str, Any] = {"router": "envoy"}
OURS = {
    Ref("ConfigMap", "fraud-collector"),
    Ref("Deployment", "fraud-collector"),
    Ref("NetworkPolicy", "fraud.collector"),
    Ref("Service", "fraud-collector"),
}
ROUTER = Ref("Deployment", "fraud-router")


def serving(**changes: Any) -> World:
    world = World.with_spec(**changes)
    world.settle()
    return world


def roll(world: World, *, updated: int = 2, replicas: int = 2, ending: int = 0) -> None:
    live = world.children[ROUTER]
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": updated,
        "availableReplicas": replicas,
        "readyReplicas": replicas,
        "terminatingReplicas": ending,
    }


def copies(world: World) -> bool:
    clusters = world.children[Ref("ConfigMap", "fraud-router")]["data"]["cds.json"]
    return "fraud-collector.shop.svc.cluster.local." in clusters


def prepared(world: World) -> bool:
    return is_prepared(world.children[ROUTER]["spec"]["template"])


def test_without_monitoring_there_is_neither_collector_nor_preparation() -> None:
    world = serving(traffic=ENVOY)
    roll(world)
    world.settle()
    assert OURS.isdisjoint(world.children)
    assert not copies(world)
    assert not prepared(world)


def test_routers_that_are_not_there_yet_begin_without_copies() -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING)
    assert world.children.keys() >= OURS
    assert prepared(world)
    assert not copies(world)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"updated": 2}, True),
        ({"updated": 1}, False),
        ({"updated": 2, "replicas": 3}, False),
        ({"updated": 2, "ending": 1}, False),
        ({"updated": 0, "replicas": 0}, False),
    ],
)
def test_copies_begin_when_no_unprepared_router_is_left(
    state: dict[str, int], expected: bool
) -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING)
    roll(world, **state)
    world.settle()
    assert copies(world) is expected


def test_copies_go_on_while_later_routers_replace_prepared_ones() -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING)
    roll(world)
    world.settle()
    roll(world, updated=1, replicas=3)
    world.settle()
    assert copies(world)


def test_monitoring_prepares_routers_that_were_pinned_before_it() -> None:
    world = serving(traffic=ENVOY)
    roll(world)
    world.settle()
    before = world.children[ROUTER]["spec"]["template"]["spec"]["containers"][0]["args"]
    world.edit(monitoring=MONITORING)
    world.settle()
    assert prepared(world)
    assert not copies(world)
    after = world.children[ROUTER]["spec"]["template"]["spec"]["containers"][0]["args"]
    changed = json.loads(after[1])
    del changed["layered_runtime"]
    assert changed == json.loads(before[1])
    roll(world)
    world.settle()
    assert copies(world)


def test_switched_off_the_collector_goes_and_routers_stay_as_they_are() -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING)
    roll(world)
    world.settle()
    template = world.children[ROUTER]["spec"]["template"]
    spec = dict(world.resource["spec"])
    del spec["monitoring"]
    world.resource["spec"] = spec
    world.resource["metadata"]["generation"] += 1
    world.settle()
    assert OURS.isdisjoint(world.children)
    assert not copies(world)
    assert world.children[ROUTER]["spec"]["template"] == template


def test_without_envoy_nothing_could_copy_so_there_is_no_collector() -> None:
    world = serving(traffic={"router": "replicas"}, monitoring=MONITORING)
    assert OURS.isdisjoint(world.children)


def test_routers_may_reach_the_collector_and_nobody_else_its_copies() -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING)
    egress = world.children[Ref("NetworkPolicy", "fraud.router")]["spec"]["egress"]
    selector = {"matchLabels": {"mooring.dev/collector": "fraud"}}
    assert {
        "to": [{"podSelector": selector}],
        "ports": [{"port": 9001, "protocol": "TCP"}],
    } in egress
    policy = world.children[Ref("NetworkPolicy", "fraud.collector")]["spec"]
    assert policy["podSelector"] == selector
    assert policy["egress"] == []
    (copying,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == 9001]
    routers = {"podSelector": {"matchLabels": {"mooring.dev/router": "fraud"}}}
    assert copying["from"] == [routers]
    (asking,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == 8080]
    prometheus, neighbours = asking["from"]
    assert "namespaceSelector" in prometheus
    assert neighbours == {"podSelector": {}}


# --- what is rendered -------------------------------------------------------------------------

FULL = MonitoringSpec.model_validate(
    MONITORING
    | {
        "features": [
            {"name": "x[0]", "input": "q[3]", "range": {"min": 0, "max": 1}},
            {"name": "x[1]", "exclude": True},
            {
                "name": "city",
                "type": "string",
                "domain": ["rome"],
                "pattern": "[a-z]+",
                "hash": True,
            },
        ],
        "outputs": [{"name": "score", "output": "p[1]"}],
        "sample": 0.25,
        "groundTruth": {"maturity": "24h"},
    }
)


def test_the_collector_reads_what_the_operator_writes() -> None:
    text = json.dumps(collector_config(FULL, ("open-inference-v2",))).encode()
    found = read_settings(text, read_reference(reference(texts=True).to_text().encode()))
    assert found.protocol == "open-inference"
    assert (found.sample, found.maturity) == (0.25, 86400)
    first, second, city = found.features
    assert (first.tensor, first.index, first.least, first.greatest) == ("q", 3, 0, 1)
    assert second.excluded
    assert (city.hashed, city.numeric, city.domain) == (True, False, frozenset({"rome"}))
    assert city.grid is not None
    (score,) = found.outputs
    assert (score.tensor, score.index) == ("p", 1)


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        (("open-inference-v2",), "open-inference"),
        (("tfserving",), "tensorflow-serving"),
        (("open-inference-v2", "torchserve"), "torchserve"),
        (("custom",), "open-inference"),
        ((), "open-inference"),
    ],
)
def test_the_protocol_is_the_runtimes(protocols: tuple[str, ...], expected: str) -> None:
    spec = MonitoringSpec.model_validate(MONITORING)
    assert collector_config(spec, protocols) == {"protocol": expected, "sample": 1}


def test_what_says_nothing_of_a_sample_store_is_rendered_as_before_there_was_one() -> None:
    """Another text would replace the pod of every collector when the operator is upgraded."""
    config = collector_config(FULL, ("open-inference-v2",))
    assert config.keys() == {"protocol", "sample", "features", "outputs", "feedback"}


@pytest.mark.parametrize(("store", "rows"), [({}, 500), ({"rows": 20}, 20)])
def test_the_collector_keeps_as_many_rows_as_are_asked_for(
    store: dict[str, int], rows: int
) -> None:
    spec = MonitoringSpec.model_validate(MONITORING | {"sampleStore": store})
    text = json.dumps(collector_config(spec, ())).encode()
    assert read_settings(text, read_reference(reference().to_text().encode())).reservoir == rows


@pytest.mark.parametrize("change", [{"sampleStore": {"rows": 20}}, {"sampleStore": None}])
def test_a_sample_store_that_is_switched_on_changed_or_off_replaces_the_collector_alone(
    change: dict[str, Any],
) -> None:
    world = serving(traffic=ENVOY, monitoring=MONITORING | {"sampleStore": {"rows": 500}})
    roll(world)
    world.settle()
    before = {ref: _said(child) for ref, child in world.children.items()}
    world.edit(monitoring=MONITORING | change)
    world.settle()
    after = {ref: _said(child) for ref, child in world.children.items()}
    assert before.keys() == after.keys()
    assert {ref for ref in after if before[ref] != after[ref]} == {
        Ref("ConfigMap", "fraud-collector"),
        Ref("Deployment", "fraud-collector"),
    }


def _said(child: dict[str, Any]) -> Any:
    return child.get("spec", child.get("data"))


def rendered(spec: MonitoringSpec) -> dict[str, dict[str, Any]]:
    objects = collector_objects(
        spec, (), RenderSettings(), deployment="fraud", namespace="shop", uid="uid-1"
    )
    return {one["kind"]: one for one in objects}


def test_the_pod_is_restricted_holds_no_token_and_has_bounded_memory() -> None:
    template = rendered(FULL)["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert template["spec"]["automountServiceAccountToken"] is False
    assert template["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert container["resources"]["limits"] == {"memory": "512Mi"}
    assert {volume["configMap"]["name"] for volume in template["spec"]["volumes"]} == {
        "fraud-collector",
        "fraud-reference",
    }


def test_another_configuration_makes_another_pod_and_the_same_one_does_not() -> None:
    other = FULL.model_copy(update={"sample": 0.5})
    assert rendered(FULL) == rendered(FULL)
    template = rendered(FULL)["Deployment"]["spec"]["template"]
    assert template != rendered(other)["Deployment"]["spec"]["template"]


def test_the_services_ports_are_the_pods() -> None:
    objects = rendered(FULL)
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in objects["Service"]["spec"]["ports"]} == names
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()
    # No selector of model or router pods takes it for one.
    assert {"mooring.dev/deployment", "mooring.dev/router"}.isdisjoint(labels)
