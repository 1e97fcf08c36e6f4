"""I1: converges to the end state, and stays: rounds that change nothing write nothing."""

from __future__ import annotations

import pytest
from tests.apiserver.cluster import Api, Operator, deploy, settings, until
from tests.apiserver.pods import Pods

from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver


async def test_exactly_the_expected_children_are_made(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with Operator.run(cluster.kubeconfig, settings(namespace)), Pods(api, namespace):
        await deploy(api, namespace)
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        resource = await api.resource(namespace, "fraud")
        revision = resource["status"]["stable"]["revision"]
        children = await api.children(namespace)
        assert sorted(map(str, children)) == [
            f"ConfigMap fraud-{revision}",
            f"ControllerRevision fraud-{revision}",
            f"Deployment fraud-{revision}",
            "NetworkPolicy fraud",
            "PodDisruptionBudget fraud",
            "Service fraud",
            f"Service fraud-{revision}",
            "ServiceAccount fraud",
        ]
        for ref, child in children.items():
            owner = child["metadata"]["ownerReferences"]
            assert [o["uid"] for o in owner] == [resource["metadata"]["uid"]], ref
