"""Drift through a whole operator and a real API server: one child, and status from it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from tests.apiserver.cluster import Api, Operator, deploy, settings, simple_spec, until
from tests.apiserver.pods import Pods
from tests.core.drift.collected import raw_spec, reference_map, traffic
from tests.engine.drift_case import body_of

from mooring.core import kinds
from mooring.core.telemetry import Counted
from mooring.settings import Prometheus
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

Json = dict[str, Any]
WINDOW = 10.0


class Windows:
    """A Prometheus that has a scrape in every window; ``of`` says what was counted in one."""

    def __init__(self, namespace: str, of: Callable[[int], Counted]) -> None:
        self.namespace = namespace
        self.of = of

    async def answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        (moment, *_) = re.findall(r"@ ([0-9.]+)", str(form.get("query")))
        number = round(float(moment) / WINDOW)
        body = body_of(self.of(number), self.namespace)
        return web.Response(body=body, content_type="application/json")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/api/v1/query", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_windows_are_judged_once_each_whoever_is_there_and_told_in_status(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async def status() -> Json:
        return (await api.resource(namespace, "fraud")).get("status") or {}

    async def state() -> str:
        return str(((await status()).get("drift") or {}).get("state"))

    async def child() -> Json | None:
        return await api.get(kinds.CONFIG_MAP, namespace, "fraud-drift")

    reference = reference_map()
    await api.create(
        kinds.CONFIG_MAP,
        namespace,
        {**reference, "metadata": {**reference["metadata"], "namespace": namespace}},
    )
    shift = [0.0]
    windows = Windows(namespace, lambda number: traffic(number, shift=shift[0]))
    async with windows.running() as url, Pods(api, namespace):
        wanted = settings(namespace, prometheus=Prometheus(url=url))
        spec = simple_spec(monitoring=raw_spec(window="10s"))
        async with Operator.run(cluster.kubeconfig, wanted):
            await deploy(api, namespace, spec=spec)
            await until(child, "the ConfigMap")
            assert await state() in ("NoData", "None")

            async def steady() -> bool:
                return await state() == "Steady"

            await until(steady, "Steady")
        first = (await status())["drift"]["windowEnd"]
        shift[0] = 0.8
        async with Operator.run(cluster.kubeconfig, wanted):

            async def drifted() -> bool:
                return await state() == "Drifted"

            await until(drifted, "Drifted")
            found = await status()
            (condition,) = [one for one in found["conditions"] if one["type"] == "Drifted"]
            assert condition["status"] == "True"
            assert "amount" in condition["message"]
            assert found["drift"]["windowEnd"] > first

            async def told() -> bool:
                events = await api.list(kinds.EVENT, namespace)
                return "Drifted" in [event["reason"] for event in events]

            await until(told, "the Event")
            bare = {key: value for key, value in spec.items() if key != "monitoring"}
            await deploy(api, namespace, spec=bare)

            async def gone() -> bool:
                return await child() is None and "drift" not in await status()

            await until(gone, "the ConfigMap is gone")
