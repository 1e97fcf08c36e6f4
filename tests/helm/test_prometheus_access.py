"""How the chart gives the operator its way to Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helm.conftest import Render

from mooring.settings import load

pytestmark = pytest.mark.helm

URL = ("--set", "config.prometheus.url=https://prometheus.monitoring.svc:9090/prom")
FILES = ("--set", "prometheus.secretName=creds,prometheus.caConfigMapName=ca")


def named(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == "mooring")


def test_the_address_and_the_files_reach_the_client(render: Render, tmp_path: Path) -> None:
    token = ("--set", "config.prometheus.bearerTokenFile=/etc/mooring-prometheus/token")
    manifests = render(*URL, *FILES, *token, "--set", "config.prometheus.headers.X-Scope-OrgID=a")
    path = tmp_path / "config.yaml"
    path.write_text(named(manifests, "ConfigMap")["data"]["config.yaml"])
    access = load(path).prometheus.access()
    assert access is not None
    assert access.url == "https://prometheus.monitoring.svc:9090/prom"
    assert access.bearer_token_file == Path("/etc/mooring-prometheus/token")
    assert access.headers == {"X-Scope-OrgID": "a"}
    pod = named(manifests, "Deployment")["spec"]["template"]["spec"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "prometheus"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "creds"}}, {"configMap": {"name": "ca"}},
    ]  # fmt: skip
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "prometheus"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/mooring-prometheus", True)


def test_without_files_nothing_is_mounted(render: Render) -> None:
    pod = named(render(*URL), "Deployment")["spec"]["template"]["spec"]
    assert "prometheus" not in {volume["name"] for volume in pod["volumes"]}


def test_the_way_to_prometheus_is_open_when_there_is_an_address(render: Render) -> None:
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    way = {"to": [there], "ports": [{"port": 9090, "protocol": "TCP"}]}
    assert way in named(render(*URL), "NetworkPolicy")["spec"]["egress"]
    assert way not in named(render(), "NetworkPolicy")["spec"]["egress"]


@pytest.mark.parametrize(
    "wrong",
    [
        "config.prometheus.url=prometheus:9090",
        "config.prometheus.url=http://me:word@prometheus",
        "config.prometheus.bearerTokenFile=token",
        "config.prometheus.concurrency=0",
        "config.prometheus.urls=http://prometheus",
        "prometheus.secret=a",
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_installed(helm: Any, wrong: str) -> None:
    chart = Path(__file__).parents[2] / "helm" / "mooring"
    done = helm("template", "x", str(chart), "--kube-version", "1.34.0", "--set", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0].rpartition(".")[2] in done.stderr
