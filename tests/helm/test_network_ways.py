"""Every connection of the operator, held against the policies at both of its ends.

With a CNI that enforces policies, a way that is missing here is an operator that waits for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.helm.conftest import Render
from tests.helm.network_policy import Address, End, Manifest, Pod, chosen, lets_in, lets_out

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.observed import RenderSettings
from mooring.core.render.collector import HTTP_NUMBER
from mooring.core.render.router.bootstrap import METRICS_NUMBER, VERSION_NUMBER, public_number
from mooring.core.render.router.objects import router_network_policy, router_template
from mooring.core.traffic import BackendPort

pytestmark = pytest.mark.helm

OPERATOR = Path(__file__).resolve().parents[2] / "operator" / "mooring"
HOME = "mooring-system"  # where conftest's `render` installs
PORTS = (BackendPort("http", 8080), BackendPort("grpc", 9000, http2=True))
METADATA_SERVICE = Address("169.254.169.254")

NAMESPACED = ("--set", "namespaces={shop}")
PROMETHEUS = ("--set", "config.prometheus.url=http://prometheus.monitoring.svc:9090")
REGISTRY = ("--set", "config.registry.url=http://mlflow.mlflow.svc:5000")
SINK = (
    "--set",
    "config.sinks[0].name=pipelines,config.sinks[0].signingKeyFile=/etc/mooring-sinks/key",
    "--set",
    "config.sinks[0].url=https://events.pipelines.svc:8443/",
)


def egress(namespace: str, port: int) -> Manifest:
    there = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {"to": [{"namespaceSelector": there}], "ports": [{"port": port, "protocol": "TCP"}]}


#: As values.yaml says it for a registry and for sinks in the cluster.
EXTRA = (
    "--set-json",
    f"networkPolicy.extraEgress={json.dumps([egress('mlflow', 5000), egress('pipelines', 8443)])}",
)


def router_pod(namespace: str = "shop") -> Pod:
    template = router_template(PORTS, TrafficSpec(), RenderSettings(), deployment="fraud")
    return Pod(namespace, template["metadata"]["labels"])


@dataclass(frozen=True)
class Way:
    """Something that the operator connects to: where it ends, and the values that it needs."""

    there: End
    port: int
    protocol: str = "TCP"
    values: tuple[str, ...] = ()


#: Everything that the operator dials. A Service is named by what is behind it, as a CNI sees it.
WAYS: dict[str, Way] = {
    # Names of any of the following (and of the API server's Service).
    "dns by udp": Way(Pod("kube-system", {"k8s-app": "kube-dns"}), 53, "UDP"),
    "dns by tcp": Way(Pod("kube-system", {"k8s-app": "kube-dns"}), 53),
    "dns of the node": Way(Address("169.254.20.10"), 53, "UDP"),
    "dns of openshift by udp": Way(Pod("openshift-dns", {"dns": "default"}), 5353, "UDP"),
    "dns of openshift by tcp": Way(Pod("openshift-dns", {"dns": "default"}), 5353),
    "api server": Way(Address("172.18.0.2"), 6443),
    "api server of a cloud": Way(Address("10.0.0.1"), 443),
    "api server by IPv6": Way(Address("fd00::2"), 6443),
    "router": Way(router_pod(), VERSION_NUMBER),
    "router of another namespace": Way(router_pod("fraud"), VERSION_NUMBER),
    "prometheus": Way(Pod("monitoring", {"app": "prometheus"}), 9090, values=PROMETHEUS),
    "registry": Way(Pod("mlflow", {"app": "mlflow"}), 5000, values=(*REGISTRY, *EXTRA)),
    "registry outside": Way(Address("203.0.113.7"), 443),
    "sink": Way(Pod("pipelines", {"app": "events"}), 8443, values=(*SINK, *EXTRA)),
    "sink outside": Way(Address("203.0.113.8"), 443),
}
#: Modules that open connections, and the ways that each takes.
DIALLERS = {
    "adapters/kube.py": "api server",
    "adapters/mlflow.py": "registry",
    "adapters/prometheus.py": "prometheus",
    "adapters/prometheus_http.py": "prometheus",
    "adapters/sinks.py": "sink",
    "engine/lease.py": "api server",
    "engine/routers.py": "router",
    "process.py": "api server",
    "shell/intake.py": "api server",
    "shell/streams.py": "api server",
}
_CLIENT = re.compile(
    r"^\s*(?:import|from) (?:aiohttp|grpc|http\.client|httpx|kopf|kubernetes|requests|socket"
    r"|urllib3|urllib\.request)\b(?!.* import web$)|\bopen_connection\(",
    re.MULTILINE,
)


def operators_policy(render: Render, *values: str) -> Manifest:
    policies = [m for m in render(*values) if m["kind"] == "NetworkPolicy"]
    (policy,) = (m for m in policies if chosen(m, operator_pod(render, *values)))
    return policy


def operator_pod(render: Render, *values: str) -> Pod:
    (deployment,) = (m for m in render(*values) if m["kind"] == "Deployment")
    return Pod(
        deployment["metadata"]["namespace"], deployment["spec"]["template"]["metadata"]["labels"]
    )


def routers_policy(**settings: Any) -> Manifest:
    found = RenderSettings(operator_namespace=HOME, **settings)
    return router_network_policy(PORTS, found, deployment="fraud", namespace="shop", uid="uid-1")


def test_every_module_that_opens_connections_is_listed_here() -> None:
    found = {
        str(path.relative_to(OPERATOR))
        for path in OPERATOR.rglob("*.py")
        if path.relative_to(OPERATOR).parts[0] != "cli" and _CLIENT.search(path.read_text())
    }
    assert found == DIALLERS.keys()
    assert set(DIALLERS.values()) <= WAYS.keys()


@pytest.mark.parametrize("scope", [(), NAMESPACED], ids=["cluster", "namespaced"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_operator_is_let_out_to_everything_that_it_dials(
    render: Render, way: Way, scope: tuple[str, ...]
) -> None:
    policy = operators_policy(render, *scope, *way.values)
    assert lets_out(policy, way.there, way.port, way.protocol)


def test_routers_let_the_operator_in_where_it_asks_them_and_nowhere_else(render: Render) -> None:
    policy, operator = routers_policy(), operator_pod(render)
    assert chosen(policy, router_pod())
    assert lets_in(policy, operator, VERSION_NUMBER)
    assert not lets_in(policy, operator, METRICS_NUMBER)
    assert not lets_in(policy, Pod("other", operator.labels), VERSION_NUMBER)


def closed(labels: Mapping[str, str], port: int, namespace: str = "shop") -> tuple[End, int]:
    return Pod(namespace, labels), port


@pytest.mark.parametrize(
    ("there", "port"),
    [
        (METADATA_SERVICE, 80),
        (METADATA_SERVICE, 443),
        (METADATA_SERVICE, VERSION_NUMBER),
        (router_pod(), public_number(0)),
        (router_pod(), METRICS_NUMBER),
        closed({"mooring.dev/deployment": "fraud"}, 8080),
        closed({"mooring.dev/deployment": "fraud"}, VERSION_NUMBER),
        closed({"app.kubernetes.io/name": "fraud-collector"}, HTTP_NUMBER),
        closed({"app": "anything"}, 5353),
        closed({"app": "prometheus"}, 9090, "monitoring"),
        closed({"app": "mlflow"}, 5000, "mlflow"),
    ],
    ids=lambda part: str(getattr(part, "labels", part)),
)
def test_the_operator_is_let_out_to_nothing_else(render: Render, there: End, port: int) -> None:
    assert not lets_out(operators_policy(render), there, port)


def test_prometheus_is_let_in_to_the_operator_and_its_routers_by_the_same_labels(
    render: Render,
) -> None:
    scraper = Pod("monitoring", {"app": "prometheus"})
    assert lets_in(operators_policy(render), scraper, 8080)
    assert lets_in(routers_policy(), scraper, METRICS_NUMBER)
    assert not lets_in(operators_policy(render), Pod("shop", scraper.labels), 8080)
