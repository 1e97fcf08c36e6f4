"""kopf's traps that only a real API server shows."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from tests.apiserver.cluster import (
    Api,
    Operator,
    Refused,
    deploy,
    install,
    settings,
    simple_spec,
    until,
)
from tests.apiserver.pods import Pods
from tests.apiserver.rights import RULES, grant
from tests.faults.proxy import Fault, Point, Proxy

from mooring.adapters import kube
from mooring.core import kinds
from mooring.core.kinds import Kind
from mooring.engine import resync as resync_module
from mooring.process import Process
from mooring.shell.streams import Streams
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

CRD = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
    namespaced=False,
)  # fmt: skip


async def settled_service(operator: Operator, api: Api, namespace: str) -> str:
    """Deploys fraud; the uid of its Service once there is nothing left to do."""
    await deploy(api, namespace)
    await until(lambda: api.get(kinds.SERVICE, namespace, "fraud"), "the Service")
    await operator.settled()
    found = await api.get(kinds.SERVICE, namespace, "fraud")
    assert found is not None
    return str(found["metadata"]["uid"])


async def replaced(api: Api, namespace: str, before: str) -> None:
    """Waits for a Service of fraud that is not the one with this uid."""

    async def another() -> bool:
        now = await api.get(kinds.SERVICE, namespace, "fraud")
        return now is not None and now["metadata"]["uid"] != before

    await until(another, "a new Service")


async def test_no_finalizers_no_annotations_and_no_patches_by_kopf(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
        async with Pods(api, namespace):
            await deploy(api, namespace)
            await until(lambda: api.ready(namespace, "fraud"), "Ready")
            await operator.settled()
        resource = await api.resource(namespace, "fraud")
        assert "finalizers" not in resource["metadata"]
        assert "annotations" not in resource["metadata"]
        managers = {
            (field["manager"], field.get("subresource"))
            for field in resource["metadata"]["managedFields"]
        }
        assert managers == {("user", None), ("mooring", "status")}
        for ref, child in (await api.children(namespace)).items():
            assert not child["metadata"].get("finalizers"), ref
            keys = child["metadata"].get("annotations") or {}
            assert not [key for key in keys if "kopf" in key], ref
        assert await api.list(kinds.EVENT, namespace), "our own events are there"
        assert not [
            e for e in await api.list(kinds.EVENT, namespace) if "kopf" in str(e.get("source"))
        ]


async def test_a_deletion_missed_during_a_410_relist_is_found_by_the_resync(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """The watch ends with 410 just before the deletion, and the list after it says nothing."""
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig:
        wanted = settings(namespace, resync=timedelta(seconds=1))
        async with Operator.run(kubeconfig, wanted) as operator:
            before = await settled_service(operator, api, namespace)
            # The deletion is the next event of this watch.
            proxy.rule = lambda p: "gone" if (p.verb, p.target) == ("watch", "Service") else None
            await api.delete(kinds.SERVICE, namespace, "fraud")
            await until(lambda: proxy.struck, "410 in the stream")
            proxy.rule = lambda point: None
            await replaced(api, namespace, before)
            found = operator.metric(
                "mooring_resync_findings_total", kind="Service", finding="deleted"
            )
            assert found >= 1


async def test_another_error_in_the_stream_restarts_the_watches_and_not_the_process(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig:
        async with Operator.run(kubeconfig, settings(namespace)) as operator:
            await deploy(api, namespace)
            await until(lambda: api.get(kinds.SERVICE, namespace, "fraud"), "the Service")
            await operator.settled()
            proxy.fault = Fault("stream-error", Point("watch", "ModelDeployment", 0))
            proxy.rule = lambda p: (
                "stream-error" if p.target == "ModelDeployment" and not proxy.struck else None
            )
            await deploy(api, namespace, "other")
            await until(lambda: proxy.struck, "an error in the stream")
            await until(lambda: api.get(kinds.SERVICE, namespace, "other"), "the other's Service")
            assert not operator.task.done()
            # and the watches that were begun anew deliver
            await deploy(api, namespace, "third")
            await until(lambda: api.get(kinds.SERVICE, namespace, "third"), "the third's Service")


async def test_a_half_open_watch_is_given_up_and_begun_where_it_was(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("mooring.shell.intake._INACTIVITY_SECONDS", 1.0)
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig:
        async with Operator.run(kubeconfig, settings(namespace)) as operator:
            await operator.settled()
            proxy.rule = lambda p: (
                "half-open" if p.target == "ModelDeployment" and not proxy.struck else None
            )
            await deploy(api, namespace)
            await until(lambda: api.get(kinds.SERVICE, namespace, "fraud"), "the Service")
            assert proxy.struck == 1


async def test_a_watch_that_ends_cleanly_in_silence_goes_on_where_it_was(
    cluster: ControlPlane, api: Api, namespace: str, tmp_path: Path
) -> None:
    """The event that was not told any more is told by the next one, long before a resync."""
    proxy = Proxy(api.session, api.server)
    async with proxy.run(tmp_path) as kubeconfig:
        async with Operator.run(kubeconfig, settings(namespace)) as operator:
            before = await settled_service(operator, api, namespace)
            proxy.rule = lambda p: (
                "close" if (p.verb, p.target) == ("watch", "Service") and not proxy.struck else None
            )
            await api.delete(kinds.SERVICE, namespace, "fraud")
            await replaced(api, namespace, before)
            assert proxy.struck == 1
            findings = operator.metric(
                "mooring_resync_findings_total", kind="Service", finding="deleted"
            )
            assert findings == 0, "the watch has told, not the resync"


async def test_sigterm_ends_the_process_though_kopf_takes_signals_over(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
        await until(lambda: operator.metric("mooring_watch_events_total", kind="ModelRuntime"))
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await asyncio.wait({operator.task})
        assert operator.task.exception() is None


async def test_nothing_of_kopf_is_left_behind_when_watching_ends(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    before = asyncio.all_tasks()
    async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
        await until(lambda: operator.metric("mooring_watch_events_total", kind="ModelRuntime"))
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left


async def test_definitions_that_come_after_the_operator_are_watched(
    cluster: ControlPlane, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf looks for the kinds once; looking too early would leave them unwatched for ever."""
    monkeypatch.setattr(resync_module, "_RETRY_SECONDS", 0.1)
    hidden = kinds.MODEL_RUNTIME
    name = f"{hidden.plural}.{hidden.group}"
    definition = await api.get(CRD, None, name)
    assert definition is not None
    await api.delete(CRD, None, name)

    async def gone() -> bool:
        return await api.get(CRD, None, name) is None

    await until(gone, "the definition is gone")
    process = _process(cluster.kubeconfig, namespace)
    running = asyncio.create_task(process.run())
    try:
        meta = {"name": name}
        await api.create(CRD, None, {"metadata": meta, "spec": definition["spec"]})

        async def installed() -> bool:
            try:
                await install(api, namespace)
            except Refused:
                return False
            return True

        await until(installed, "the runtime can be applied")
        await deploy(api, namespace)
        await until(lambda: api.get(kinds.SERVICE, namespace, "fraud"), "the Service")
        await api.delete(kinds.MODEL_RUNTIME, namespace, "onnx")
        await until(
            lambda: process.store.get(kinds.MODEL_RUNTIME, namespace, "onnx") is None,
            "the deletion of the runtime is seen by its watch",
        )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_deleted_before_a_late_first_list_is_found_once_it_is_there(
    cluster: ControlPlane, api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is filled before kopf lists; on a busy machine long before."""
    monkeypatch.setattr(resync_module, "_HURRY_SECONDS", 0.0)
    deleted, as_it_is = asyncio.Event(), Streams.__call__

    async def late(
        self: Streams, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if request.url.path.endswith("/modelruntimes"):
            await deleted.wait()
        return await as_it_is(self, request, handler)

    monkeypatch.setattr(Streams, "__call__", late)
    await install(api, namespace)
    process = _process(cluster.kubeconfig, namespace)
    running = asyncio.create_task(process.run())
    try:
        await until(
            lambda: process.metrics.registry.get_sample_value(
                "mooring_resync_total", {"result": "success"}
            ),
            "what the other lists asked for is done",
        )
        await api.delete(kinds.MODEL_RUNTIME, namespace, "onnx")
        deleted.set()
        await until(
            lambda: process.store.get(kinds.MODEL_RUNTIME, namespace, "onnx") is None,
            "the deletion is found",
            seconds=45,  # a watch without a word is begun again after 70, and finds it so
        )
        assert deleted.is_set()
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _process(kubeconfig: Path, namespace: str) -> Process:
    class Lazy(Process):
        async def run(self) -> None:
            self.configuration = await kube.load_configuration(str(kubeconfig))
            await super().run()

    return Lazy(settings(namespace), None, elect=False)  # type: ignore[arg-type]


async def test_namespaced_mode_works_without_any_right_on_the_cluster(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    user = f"operator-{namespace}"
    cluster.kubectl("apply", "-f", "-", input=grant(namespace, user, RULES))
    async with Operator.run(cluster.client(user), settings(namespace)) as operator:
        async with Pods(api, namespace):
            await deploy(api, namespace)
            await until(lambda: api.ready(namespace, "fraud"), "Ready")
            await deploy(api, namespace, spec=simple_spec(replicas=3))

            async def scaled() -> bool:
                found = await api.list(kinds.DEPLOYMENT, namespace)
                return [d["spec"]["replicas"] for d in found] == [3]

            await until(scaled, "its watches deliver")
        refused = [
            sample.labels
            for metric in operator.process.metrics.requests.collect()
            for sample in metric.samples
            if sample.labels.get("code") in ("401", "403")
        ]
        assert refused == []
