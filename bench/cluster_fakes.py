"""What a bare API server lacks for a rollout: pods that become ready, and somebody who counts.

Said to be a fake wherever its numbers are shown: every Deployment is given the status that its
controller and a kubelet would give it, at once. It takes CPU of the same machine.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
import yaml

Json = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/deployments"
MODELS = "/apis/mooring.dev/v1alpha1/modeldeployments"
_AT_ONCE = 16


@dataclass
class Api:
    """The API server, by raw requests."""

    server: str
    context: ssl.SSLContext
    session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, kubeconfig: Path) -> Self:
        """From a kubeconfig with its certificates in it."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]) + b"\n")
            pair.flush()
            context.load_cert_chain(pair.name)
        return cls(cluster["server"], context)

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.context, limit=0), read_bufsize=2**21
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.session is not None
        await self.session.close()

    async def send(self, method: str, path: str, body: Json, content_type: str) -> Json:
        """One request; raises RuntimeError unless it is answered by 2xx, 404 or 409."""
        assert self.session is not None
        async with self.session.request(
            method, self.server + path, data=orjson.dumps(body),
            headers={"Content-Type": content_type},
        ) as answer:  # fmt: skip
            text = await answer.read()
            if answer.status >= 300 and answer.status not in (404, 409):
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
            found: Json = orjson.loads(text)
            return found

    async def count(self, path: str) -> int:
        """How many objects a collection has."""
        page = await self.send("GET", path + "?limit=1", {}, "application/json")
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    async def watch(self, path: str) -> AsyncIterator[tuple[str, Json]]:
        """Events of a collection, from what there is now, until cancelled.

        An API server ends a watch that does not follow as fast as things happen; the next one
        begins with what there is by then.
        """
        assert self.session is not None
        query = "?watch=1&allowWatchBookmarks=false"
        while True:
            async with self.session.get(
                self.server + path + query, timeout=aiohttp.ClientTimeout(total=None)
            ) as answer:
                async for line in answer.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        break
                    yield event["type"], event["object"]
            await asyncio.sleep(0.5)


@dataclass
class Readiness:
    """Gives every Deployment the status of pods that are ready."""

    api: Api
    writes: int = 0
    _at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for kind, obj in self.api.watch(DEPLOYMENTS):
                if kind in ("ADDED", "MODIFIED") and not _is_ready(obj):
                    group.create_task(self._make_ready(obj))

    async def _make_ready(self, obj: Json) -> None:
        meta, count = obj["metadata"], obj["spec"].get("replicas", 1)
        body = {
            "status": {
                "observedGeneration": meta["generation"], "replicas": count,
                "updatedReplicas": count, "readyReplicas": count, "availableReplicas": count,
            }
        }  # fmt: skip
        path = f"/apis/apps/v1/namespaces/{meta['namespace']}/deployments/{meta['name']}/status"
        async with self._at_once:
            await self.api.send("PATCH", path, body, "application/merge-patch+json")
        self.writes += 1


def _is_ready(obj: Json) -> bool:
    status, count = obj.get("status") or {}, obj["spec"].get("replicas", 1)
    seen = status.get("observedGeneration") == obj["metadata"]["generation"]
    return bool(seen and status.get("availableReplicas", 0) == count)


@dataclass
class Statuses:
    """The statuses of all ModelDeployments, as a watch tells them."""

    api: Api
    found: dict[str, Json] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until cancelled."""
        async for kind, obj in self.api.watch(MODELS):
            name = obj["metadata"]["name"]
            if kind == "DELETED":
                self.found.pop(name, None)
            else:
                self.found[name] = obj
            self.changed.set()

    async def all(self, count: int, holds: Callable[[Json], bool], seconds: float) -> None:
        """Returns when ``count`` objects are there and it holds of each; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                good = sum(holds(obj) for obj in self.found.values())
                if len(self.found) == count == good:
                    return
                self.changed.clear()
                await self.changed.wait()
                await asyncio.sleep(0.2)  # many come together; counting each costs more
