"""Namespaces that go, objects at their limits, and very many of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.apiserver.cluster import (
    NAMESPACE,
    Api,
    Operator,
    deploy,
    install,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.pods import Pods
from tests.faults.proxy import Point, Proxy

from mooring.core import kinds
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

#: What the API server lets an object's annotations have in all (bytes).
_MOST_ANNOTATIONS = 256 << 10
#: The schema's bounds: docs/reference has them.
_MANY = 50


async def test_a_namespace_that_is_deleted_goes_and_takes_nobody_with_it(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """Nothing of ours holds it up, and nothing is made in it any more."""
    other = await api.namespace("stays")
    await install(api, other)
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace, other)) as operator,
        Pods(api, other),
    ):
        async with Pods(api, namespace):
            await deploy(api, namespace)
            await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await api.delete(NAMESPACE, None, namespace)

        async def gone() -> bool:
            return await api.get(NAMESPACE, None, namespace) is None

        await until(gone, "the namespace is gone")
        await deploy(api, other)
        await until(lambda: api.ready(other, "fraud"), "what is elsewhere is served")
        assert not operator.task.done()
        await operator.settled()
        before = operator.writes
        for _ in range(3):
            await operator.round()
        assert operator.writes == before
        assert operator.metric("mooring_reconcile_errors_total", cause="internal") == 0


async def test_what_was_to_be_behind_a_gateway_is_deleted_where_there_is_no_gateway_api(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """The route cannot be asked for, and holds up neither the rest of it nor anybody else."""
    gateway = {"parentRefs": [{"name": "public"}], "hostnames": ["fraud.example.com"]}
    spec = simple_spec(traffic={"router": "gateway", "gateway": gateway})
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await deploy(api, namespace, "other")
        await deploy(api, namespace, spec=spec)

        async def told() -> bool:
            return await api.stalled(namespace, "fraud") == "GatewayApiMissing"

        async def gone() -> bool:
            there = await api.get(kinds.MODEL_DEPLOYMENT, namespace, "fraud")
            return there is None and not await api.children(namespace, "fraud")

        await until(told, "that the kind is missing is told")
        await until(lambda: api.children(namespace, "fraud"), "it has children")
        await until(lambda: api.ready(namespace, "other"), "the other is Ready")
        await api.delete(kinds.MODEL_DEPLOYMENT, namespace, "fraud")
        await until(gone, "it is gone with all that was made for it")
        await operator.settled()
        before = await api.versions(namespace)
        assert await operator.resync() == 0
        await operator.round()
        assert await api.versions(namespace) == before
        assert await gone()
        assert await api.ready(namespace, "other")
        assert operator.metric("mooring_reconcile_errors_total", cause="internal") == 0


async def test_an_object_at_its_limits_is_served_like_any_other(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """As large as the API server and the schema let it be."""
    env = [{"name": f"V{i:03d}", "value": "x" * 1000} for i in range(_MANY)]
    spec = simple_spec(
        runtime={
            "name": "onnx",
            "env": env,
            "args": ["--" + "a" * 500] * 20,
            "podAnnotations": {f"example.com/a{i}": "y" * 1000 for i in range(32)},
        },
        rollout={"progressDeadline": "8760h", "revisionHistoryLimit": 100},
    )
    body: dict[str, Any] = {"metadata": {"name": "fraud", "namespace": namespace}, "spec": spec}
    body["metadata"]["annotations"] = {"example.com/large": "z" * (_MOST_ANNOTATIONS - 200)}
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await api.apply(kinds.MODEL_DEPLOYMENT, namespace, body)
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await operator.settled()
        before = operator.writes
        for _ in range(3):
            await operator.round()
        assert operator.writes == before
        assert not await api.stalled(namespace, "fraud")


async def test_a_bad_object_delays_no_other_by_five_seconds(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """I8. Each of its writes takes a second and fails, and it is changed all the time."""
    proxy = Proxy(api.session, api.server)

    def rule(point: Point) -> str | None:
        bad = point.target.endswith(" bad") and point.verb != "watch"
        return ("delay" if point.occurrence % 2 else "error") if bad else None

    proxy.rule = rule
    async with (
        proxy.run(tmp_path) as kubeconfig,
        Operator.run(kubeconfig, settings(namespace, workers=2)),
        Pods(api, namespace),
    ):

        async def disturb() -> None:
            for number in range(1000):
                await deploy(api, namespace, "bad", simple_spec(f"s3://models/bad/v{number}"))
                await asyncio.sleep(0.1)

        async def made_ready(name: str) -> float:
            started = time.monotonic()
            await deploy(api, namespace, name)
            await until(lambda: api.ready(namespace, name), "Ready")
            return time.monotonic() - started

        alone = await made_ready("good")
        disturbing = asyncio.create_task(disturb())
        try:
            await until(lambda: proxy.struck, "the bad one is in trouble")
            for number in range(3):
                assert await made_ready(f"good-{number}") < alone + 5
            assert not disturbing.done(), "it was in trouble all the time"
        finally:
            disturbing.cancel()


async def test_requests_grow_with_what_changes_and_not_with_what_is_there(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """Forty of two hundred change: the others cost nothing."""
    names = [f"m{number:03d}" for number in range(200)]
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace, every=0.3),
    ):
        for name in names:
            await deploy(api, namespace, name)
        for name in names:
            await until(lambda name=name: api.ready(namespace, name), name, 120, 0.2)
        await operator.settled()
        quiet = operator.requests(
            "apply", "create", "patch", "patch_status", "delete", "get", "list"
        )
        await operator.round()
        seen = operator.requests(
            "apply", "create", "patch", "patch_status", "delete", "get", "list"
        )
        assert seen == quiet, "nothing that is at rest is asked or told anything"
        touched = await _churn(api, namespace, names[:40])
        await operator.settled()
        after = operator.requests(
            "apply", "create", "patch", "patch_status", "delete", "get", "list"
        )
        assert after - seen <= 12 * touched


async def _churn(api: Api, namespace: str, names: list[str]) -> int:
    """A pod of each goes and comes back; returns how many changes that were."""
    changes = 0
    for name in names:
        selector = f"{kinds.LABEL_DEPLOYMENT}={name},{kinds.LABEL_REVISION}"
        for found in await api.list(kinds.DEPLOYMENT, namespace, selector):
            body = {"status": {**found["status"], "readyReplicas": 1, "availableReplicas": 1}}
            await api.patch(kinds.DEPLOYMENT, namespace, found["metadata"]["name"], body, "status")
            changes += 2  # it goes, and those who play the kubelet bring it back
    await asyncio.sleep(1)
    return changes
