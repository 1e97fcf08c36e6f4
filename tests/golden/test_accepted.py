"""A real API server takes every golden object, strictly, and gives it back as it was written.

The second half matters as much as the first: where the server stores a field in another form than
ours, "nothing to change" could not be seen, and we would write for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.golden.test_golden import CASES, plan_of

from mooring.core.fingerprint import is_applied
from mooring_dev.control_plane import ControlPlane
from mooring_dev.definitions import gateway_api_definitions

pytestmark = pytest.mark.apiserver

PREPARED: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "shop",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "fraud-reader", "namespace": "shop"},
    },
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "serving"},
        "value": 1000,
    },
]


def apply(plane: ControlPlane, documents: list[dict[str, Any]], *flags: str) -> list[Any]:
    """Server-side apply, strictly; returns the objects as the server has them."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    done = plane.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=mooring",
        "--validate=strict", "--output=json", "--filename=-", *flags, input=text,
    )  # fmt: skip
    answer = json.loads(done)
    return list(answer["items"]) if answer["kind"] == "List" else [answer]


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    apply(control_plane, PREPARED)
    routes = gateway_api_definitions() / "gateway.networking.k8s.io_httproutes.yaml"
    control_plane.kubectl("apply", "--server-side", "-f", str(routes))
    yield control_plane
    control_plane.kubectl("delete", "namespace", "shop", "--wait=false")


@pytest.mark.parametrize("case", CASES)
def test_the_server_takes_it_and_gives_it_back_as_it_was(plane: ControlPlane, case: str) -> None:
    manifests = [dict(m, metadata=dict(m["metadata"])) for m in plan_of(case).apply]
    for manifest in manifests:
        manifest["metadata"].pop("resourceVersion", None)
    stored = {(o["kind"], o["metadata"]["name"]): o for o in apply(plane, manifests)}
    changed = [
        f"{m['kind']} {m['metadata']['name']}"
        for m in manifests
        if not is_applied(m, stored[m["kind"], m["metadata"]["name"]])
    ]
    plane.kubectl("delete", "deployment,service,controllerrevision,hpa", "--all", "-n", "shop")
    assert changed == []


@pytest.mark.parametrize("case", CASES)
def test_pod_security_restricted_admits_its_pods(plane: ControlPlane, case: str) -> None:
    manifests = plan_of(case).apply
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    if accounts:
        apply(plane, accounts)
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            template = manifest["spec"]["template"]
            meta = {**template["metadata"], "name": "probe", "namespace": "shop"}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
            (admitted,) = apply(plane, [pod], "--dry-run=server")
            assert admitted["kind"] == "Pod"


def test_and_would_not_admit_a_pod_that_is_less(plane: ControlPlane) -> None:
    manifests = plan_of("minimal").apply
    apply(plane, [m for m in manifests if m["kind"] == "ServiceAccount"])
    deployment, *_ = (m for m in manifests if m["kind"] == "Deployment")
    spec = {**deployment["spec"]["template"]["spec"], "securityContext": {}}
    meta = {"name": "probe", "namespace": "shop"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    with pytest.raises(Exception, match="restricted"):
        apply(plane, [pod], "--dry-run=server")
