"""What the policies of models and routers let through, and that they change alone."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.world import World
from tests.helm.network_policy import Pod, lets_out

from mooring.core.kinds import Ref
from mooring.core.render import networkpolicy
from mooring.core.render.router import objects


def policies(world: World) -> dict[str, dict[str, Any]]:
    return {
        live["metadata"]["name"]: live
        for live in world.seen().values()
        if live["kind"] == "NetworkPolicy"
    }


@pytest.mark.parametrize("name", ["fraud", "fraud.router"])
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_models_and_routers_reach_dns_where_its_pods_listen(name: str, protocol: str) -> None:
    """OVN-Kubernetes sees the pod behind the Service: in OpenShift that listens on 5353."""
    world = World.with_spec(traffic={"router": "envoy"})
    world.serve()
    policy = policies(world)[name]
    assert lets_out(policy, Pod("kube-system", {"k8s-app": "kube-dns"}), 53, protocol)
    assert lets_out(policy, Pod("openshift-dns", {"dns": "default"}), 5353, protocol)


def test_policies_that_another_version_writes_otherwise_change_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World.with_spec(traffic={"router": "envoy"})
    world.serve()
    world.writes.clear()
    for module in (networkpolicy, objects):
        monkeypatch.setattr(module, "dns_egress", lambda: [{"ports": [{"port": 53}]}])
    world.wait(minutes=1)
    world.settle()
    both = ("fraud", "fraud.router")
    assert set(world.writes) - {"status"} == {f"update {Ref('NetworkPolicy', n)}" for n in both}
