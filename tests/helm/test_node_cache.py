"""The cache of models on each node, as the chart installs it: off unless asked for, with no rights,
reached from its own node alone, and found where the operator tells fetchers that it is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring.settings import load

pytestmark = pytest.mark.helm

CHART = Path(__file__).resolve().parents[2] / "helm" / "mooring"
ON = ("--set", "nodeCache.enabled=true")
Render = Callable[..., list[dict[str, Any]]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def parts(render: Render, *values: str) -> dict[str, dict[str, Any]]:
    """The cache's objects by kind."""
    return {
        one["kind"]: one
        for one in render(*values)
        if one["metadata"]["name"] == "mooring-node-cache"
    }


def pod(render: Render, *values: str) -> dict[str, Any]:
    found: dict[str, Any] = parts(render, *ON, *values)["DaemonSet"]["spec"]["template"]["spec"]
    return found


def test_there_is_none_unless_it_is_asked_for(render: Render) -> None:
    assert parts(render) == {}


def test_it_holds_no_rights_and_satisfies_pod_security_restricted(render: Render) -> None:
    spec = pod(render)
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])
    assert [set(volume) - {"name"} for volume in spec["volumes"]] == [{"emptyDir"}]


def test_its_bound_lies_below_that_of_its_volume(render: Render) -> None:
    spec = pod(render, "--set", "nodeCache.sizeGibibytes=100")
    assert f"--max-bytes={100 << 30}" in spec["containers"][0]["args"]
    assert spec["volumes"][0]["emptyDir"] == {"sizeLimit": "111Gi"}


def test_an_administrator_may_choose_the_volume(render: Render) -> None:
    spec = pod(render, "--set", "nodeCache.volume.hostPath.path=/var/cache/mooring")
    assert spec["volumes"] == [{"name": "models", "hostPath": {"path": "/var/cache/mooring"}}]


def test_only_its_own_node_reaches_it_and_it_reaches_nothing(render: Render) -> None:
    found = parts(render, *ON)
    labels = found["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["internalTrafficPolicy"] == "Local"
    policy = found["NetworkPolicy"]["spec"]
    for selector in (found["Service"]["spec"]["selector"], policy["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []


def test_nothing_of_the_operator_takes_its_pods_for_the_operators_own(render: Render) -> None:
    labels = parts(render, *ON)["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    (operator,) = (one for one in render(*ON) if one["kind"] == "Deployment")
    assert not operator["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_fetchers_are_told_where_it_is(render: Render, tmp_path: Path) -> None:
    values = ("--set", "nodeCache.port=9123")
    service = parts(render, *ON, *values)["Service"]
    (config,) = (
        one["data"]["config.yaml"]
        for one in render(*ON, *values)
        if one["kind"] == "ConfigMap" and "config.yaml" in one["data"]
    )
    assert yaml.safe_load(config)["nodeCache"] == {
        "service": service["metadata"]["name"],
        "port": service["spec"]["ports"][0]["port"],
    }
    file = tmp_path / "config.yaml"
    file.write_text(config)
    cache = load(file).rendering().node_cache
    assert cache is not None
    assert cache.url.startswith("http://mooring-node-cache.")
    assert cache.url.endswith(":9123")
    policy = parts(render, *ON, *values)["NetworkPolicy"]["spec"]
    assert policy["ingress"][0]["ports"] == [{"port": cache.port, "protocol": "TCP"}]


@pytest.mark.parametrize(
    "values",
    [
        ("--set", "nodeCache.sizeGibibytes=0"),
        ("--set", "nodeCache.sizeGibibytes=1.5"),
        ("--set", "nodeCache.port=80"),
        ("--set", "nodeCache.size=50Gi"),
        ("--set", "nodeCache.volume.emptyDir.a=b,nodeCache.volume.hostPath.path=/x"),
    ],
)
def test_values_that_cannot_work_are_refused(helm: Helm, values: tuple[str, ...]) -> None:
    assert helm("template", "mooring", str(CHART), *ON, *values).returncode != 0
