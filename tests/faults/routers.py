"""Fake routers: pods that say they route by their ConfigMap, without an Envoy that does.

They are asked as real ones are, over HTTP at a loopback address of their own; only the answer is
made up. What real Envoys do is shown in tests/router and tests/e2e.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web
from tests.apiserver.cluster import Api, Json, Refused
from tests.apiserver.pods import ended

from mooring.core import kinds
from mooring.core.render.router.bootstrap import VERSION_NUMBER
from mooring.core.render.router.objects import LABEL_ROUTER, router_name
from mooring.core.render.router.table import read_table

_addresses = itertools.count(1)
_PODS = 2
_EVERY = 0.15


def _next_address() -> str:
    """One of 127.0.0.0/8 that no other process on this machine is likely to use."""
    number = next(_addresses)
    return f"127.{64 + os.getpid() % 128}.{number // 250 % 250}.{number % 250 + 1}"


@dataclass
class FakeRouters:
    """The router pods of the ModelDeployment ``fraud`` in one namespace, while it is entered.

    ``breaches``: each time at which requests would have gone to a revision without a pod.
    """

    api: Api
    namespace: str
    breaches: list[str] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)
    weights: dict[str, dict[str, int]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    gone: bool = False
    served: bool = False
    _addresses: dict[str, str] = field(default_factory=dict)
    _runners: list[web.ServerRunner] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._task)
        for runner in self._runners:
            await runner.cleanup()

    async def _run(self) -> None:
        while True:
            deployment = await self.api.get(kinds.DEPLOYMENT, self.namespace, router_name("fraud"))
            if deployment is None:
                self.taken, self.weights = {}, {}
                self.gone = self.served = False
            elif not self.gone:
                with contextlib.suppress(Refused):
                    await self._play(deployment)
            await asyncio.sleep(_EVERY)

    async def _play(self, deployment: Json) -> None:
        config_map = await self.api.get(kinds.CONFIG_MAP, self.namespace, router_name("fraud"))
        table = read_table(config_map) if config_map else None
        pods = await self.api.list(kinds.POD, self.namespace, f"{LABEL_ROUTER}=fraud")
        names = {pod["metadata"]["name"] for pod in pods}
        for number in range(_PODS):
            if f"fraud-router-{number}" not in names:
                await self._start(deployment, f"fraud-router-{number}")
        self.known = {
            found["metadata"]["labels"][kinds.LABEL_REVISION]: int(
                (found.get("status") or {}).get("availableReplicas", 0)
            )
            for found in await self.api.list(kinds.DEPLOYMENT, self.namespace, kinds.LABEL_REVISION)
        }
        self.served |= any(self.known.values())
        for pod in pods:
            self._take(pod, table[0].route.weights if table else {}, table[1] if table else "")
        await self._count(deployment)

    def _take(self, pod: Json, weights: object, version: str) -> None:
        """A pod takes what it was told of, as the kubelet brings it; a new one what is there."""
        name = pod["metadata"]["name"]
        told = (pod["metadata"].get("annotations") or {}).get(kinds.ANNOTATION_VERSION)
        if version and (told == version or name not in self.taken):
            assert isinstance(weights, dict)
            self.taken[name], self.weights[name] = version, dict(weights)
        for revision, weight in self.weights.get(name, {}).items():
            if weight and not self.known.get(revision) and not self.gone and self.served:
                self.breaches.append(
                    f"I3: {name} sends {weight} % to {revision}, which has no available pod"
                )

    async def _start(self, deployment: Json, name: str) -> None:
        meta = deployment["metadata"]
        body = {
            "metadata": {
                "name": name,
                "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"],
                     "uid": meta["uid"]}
                ],
            },
            "spec": {"containers": [{"name": "router", "image": "i"}],
                     "automountServiceAccountToken": False},
        }  # fmt: skip
        await self.api.create(kinds.POD, self.namespace, body)
        address = self._addresses.get(name) or await self._serve(name)
        self.taken.pop(name, None)
        status = {
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await self.api.patch(kinds.POD, self.namespace, name, {"status": status}, "status")

    async def _serve(self, name: str) -> str:
        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response(text=self.says(name))

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        while True:
            address = _next_address()
            with contextlib.suppress(OSError):
                await web.TCPSite(runner, address, VERSION_NUMBER).start()
                self._addresses[name] = address
                return address

    def sends(self, revision: str) -> bool:
        """Whether any requests go to this revision."""
        return any(weights.get(revision) for weights in self.weights.values())

    def says(self, name: str) -> str:
        """The answer to GET /version, in Envoy's own form."""
        version = self.taken.get(name, "")
        lines = [
            f'cluster_manager.cds.version_text: "{version}"',
            f'http.public.rds.http.version_text: "{version}"',
            "cluster_manager.warming_clusters: 0",
            *(f"cluster.{rev}.membership_total: {count}" for rev, count in self.known.items()),
        ]
        return "\n".join(lines)

    async def _count(self, deployment: Json) -> None:
        meta, count = deployment["metadata"], deployment["spec"].get("replicas", 1)
        wanted = {
            "observedGeneration": meta["generation"],
            "replicas": count,
            "readyReplicas": count,
            "availableReplicas": count,
        }
        now = deployment.get("status") or {}
        if any(now.get(key, 0) != value for key, value in wanted.items()):
            await self.api.patch(
                kinds.DEPLOYMENT, self.namespace, meta["name"], {"status": wanted}, "status"
            )
