"""Values that are taken away by ``null``: what goes without them is rendered, the rest is refused.

An absent value must never open a policy, switch a guard off, or stop the operator when it starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helm.conftest import CHART, Render

from mooring.settings import load

pytestmark = pytest.mark.helm

Helm = Callable[..., subprocess.CompletedProcess[str]]


def settings(manifests: list[dict[str, Any]], tmp_path: Path) -> Any:
    (text,) = (m["data"]["config.yaml"] for m in manifests if m["kind"] == "ConfigMap")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    "value",
    [
        "config.lease", "config.lease.duration", "config.registry", "config.registry.interval",
        "config.sinks", "config.modelStores", "config.prometheus.podLabels",
        "config.prometheus.interval", "config.prometheus.labels", "config.prometheus.tls",
        "config.prometheus.basicAuth", "namespaces", "resources", "resources.limits",
        "networkPolicy.prometheusPorts", "networkPolicy.extraEgress", "images.registry",
        "prometheus.secretName", "nodeCache.volume",
    ],
)  # fmt: skip
def test_without_a_value_that_has_a_default_the_operator_starts_as_without_changing_it(
    render: Render, tmp_path: Path, value: str
) -> None:
    plain = settings(render(), tmp_path)
    found = settings(render("--set", f"{value}=null"), tmp_path)
    if value == "images.registry":
        assert found.images.fetcher == "fetcher:0.1.0"
        return
    assert found == plain


@pytest.mark.parametrize(
    "value",
    [
        # A policy would be open, or not there.
        "config.prometheus.namespaceLabels", "networkPolicy.apiServer.cidrs",
        "networkPolicy.apiServer.ports", "networkPolicy.apiServer", "networkPolicy.enabled",
        "networkPolicy", "admissionPolicy.enabled", "admissionPolicy",
        # There would be no image of that name, or pods of user 0.
        "images.operator", "images.fetcher", "images.operator.repository", "images",
        "security.runAsUser", "security.setRunAsUser",
        # The operator would not start.
        "config.drain", "config.clusterDomain", "config.preStopSeconds", "config.workers",
        "config.resync", "config.requireDigest", "config.maxModelGibibytes", "config.prometheus",
        "config",
        # A template would break.
        "nodeCache", "nodeCache.port", "metrics.podMonitor", "crds", "runtimes.onnx", "replicas",
    ],
)  # fmt: skip
def test_a_value_that_nothing_can_do_without_is_refused_by_its_name(helm: Helm, value: str) -> None:
    done = helm(
        "template", "x", str(CHART), "--kube-version", "1.30.0", "--set", f"{value}=null",
        "--set", "nodeCache.enabled=true" if value != "nodeCache" else "replicas=1",
    )  # fmt: skip
    assert done.returncode != 0
    *parents, name = value.split(".")
    place = "".join(f"/{parent}" for parent in parents)
    assert f"at '{place}': missing property '{name}'" in done.stderr


@pytest.mark.parametrize("domain", ["1", "true", "null", "1.5", "cluster.example"])
def test_the_clusters_domain_is_a_text_whatever_it_looks_like(
    render: Render, tmp_path: Path, domain: str
) -> None:
    manifests = render("--set-string", f"config.clusterDomain={domain}")
    assert settings(manifests, tmp_path).cluster_domain == domain
