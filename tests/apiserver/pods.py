"""What the rest of a cluster would do, played beside a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Self

from tests.apiserver.cluster import Api, Json, Refused

from mooring.core import kinds


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancels what was played beside a test, and waits until it has ended."""
    assert task is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass
class Pods:
    """Plays Deployment controller and kubelet in one namespace: writes what they would write.

    ``broken`` holds revisions whose pods never become ready.
    """

    api: Api
    namespace: str
    broken: set[str] = field(default_factory=set)
    digest: str = "sha256:" + "2" * 64
    every: float = 0.05
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        while True:
            for found in await self.api.list(
                kinds.DEPLOYMENT, self.namespace, kinds.LABEL_REVISION
            ):
                with contextlib.suppress(Refused):
                    await self._look_at(found)
            await asyncio.sleep(self.every)

    async def _look_at(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        revision = meta["labels"][kinds.LABEL_REVISION]
        count = 0 if revision in self.broken else spec["replicas"]
        wanted = {
            "observedGeneration": meta["generation"],
            "replicas": spec["replicas"],
            "readyReplicas": count,
            "availableReplicas": count,
        }
        now = deployment.get("status") or {}
        if all(now.get(key, 0) == value for key, value in wanted.items()):
            return
        if spec["template"]["spec"].get("initContainers"):
            await self._pods(meta, spec)
        await self.api.patch(
            kinds.DEPLOYMENT, self.namespace, meta["name"], {"status": wanted}, "status"
        )

    async def _pods(self, meta: Json, spec: Json) -> None:
        """One Pod is enough: it tells the digest that its fetcher has found."""
        revision = meta["labels"][kinds.LABEL_REVISION]
        name = f"{meta['name']}-pod"
        if await self.api.get(kinds.POD, self.namespace, name) is None:
            body = {
                "metadata": {
                    "name": name,
                    "labels": spec["template"]["metadata"]["labels"],
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"],
                         "uid": meta["uid"]}
                    ],
                },
                "spec": {"containers": [{"name": "server", "image": "i"}],
                         "automountServiceAccountToken": False},
            }  # fmt: skip
            await self.api.create(kinds.POD, self.namespace, body)
        ended = {
            "exitCode": 0,
            "message": json.dumps({"digest": self.digest, "bytes": 1, "files": 1, "seconds": 1}),
        }
        status = {
            "initContainerStatuses": [
                {"name": "fetch", "ready": True, "restartCount": 0, "image": "i", "imageID": "i",
                 "state": {"terminated": ended}}
            ],
            "conditions": [{"type": "Ready",
                            "status": "False" if revision in self.broken else "True"}],
        }  # fmt: skip
        await self.api.patch(kinds.POD, self.namespace, name, {"status": status}, "status")
