"""mlflow://model@alias with a real API server and the operator's own process and loop of questions.

The registry is a stand-in for two of MLflow's answers; tests/fetcher asks a real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import web
from tests.apiserver.cluster import Api, Json, Operator, deploy, settings, simple_spec, until
from tests.apiserver.pods import Pods

from mooring.core import kinds
from mooring.settings_registry import Registry
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

CHAMPION = "mlflow://fraud@champion"


class Mlflow:
    """Names whatever version it is told to, or is away."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.away = False
        self.asked = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Registry]:
        app = web.Application()
        app.router.add_get("/api/2.0/mlflow/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            # Shorter than the settings allow, so that nobody waits.
            yield Registry(url=url).model_copy(update={"interval": timedelta(seconds=0.2)})
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.away:
            return web.Response(status=503)
        if request.path.endswith("get-download-uri"):
            number = request.query["version"]
            return web.json_response({"artifact_uri": f"s3://mlflow/1/m-{number}/artifacts"})
        return web.json_response(
            {"model_version": {"version": str(self.version), "status": "READY"}}
        )


async def test_a_moved_alias_rolls_out_with_spec_untouched_and_an_outage_changes_nothing(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    mlflow = Mlflow(7)

    async def serves(version: int) -> bool:
        status = (await api.resource(namespace, "fraud")).get("status") or {}
        uri = (status.get("stable") or {}).get("modelUri")
        return bool(uri == f"mlflow://fraud/{version}" and await api.ready(namespace, "fraud"))

    async def resolved(wanted: str) -> Json | None:
        status = (await api.resource(namespace, "fraud")).get("status") or {}
        found = [c for c in status.get("conditions") or () if c["type"] == "ModelResolved"]
        return found[0] if found and found[0]["status"] == wanted else None

    async with mlflow.run() as registry:
        wanted = settings(namespace, registry=registry)
        async with Operator.run(cluster.kubeconfig, wanted), Pods(api, namespace):
            await deploy(api, namespace, spec=simple_spec(CHAMPION))
            await until(lambda: serves(7), "version 7")
            before = (await api.resource(namespace, "fraud"))["spec"]
            mlflow.version = 8
            await until(lambda: serves(8), "version 8")
            mlflow.away = True
            condition = await until(lambda: resolved("False"), "away")
            assert condition["reason"] == "RegistryUnavailable"
            assert "mlflow://fraud/8" in condition["message"]
        records = await api.list(kinds.CONTROLLER_REVISION, namespace)
        mlflow.asked = 0
        async with Operator.run(cluster.kubeconfig, wanted) as operator:  # the registry still away
            await until(lambda: mlflow.asked > 0, "asked")
            await operator.settled()
            assert await serves(8)
    after = await api.resource(namespace, "fraud")
    assert after["spec"] == before
    assert len(records) == 2
    assert await api.list(kinds.CONTROLLER_REVISION, namespace) == records
