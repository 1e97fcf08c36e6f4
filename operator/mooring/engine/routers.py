"""Asking the router pods what they route by.

Before the next move every ready router has to have taken the last one. Prometheus would be too slow
for that and may be down, so the pods are asked themselves, at a port that shows nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from mooring.adapters.kube import KubeClient
from mooring.core import kinds
from mooring.core.render.router.bootstrap import VERSION_NUMBER
from mooring.core.render.router.objects import LABEL_ROUTER
from mooring.core.render.router.report import endpoints, report
from mooring.core.traffic import RouterReport

#: A router answers from memory; one that takes longer has not answered.
_SECONDS = 1.0
#: What a router may say at most (bytes); one that says more has not answered.
_MOST = 64 << 10


class Routers(Protocol):
    """Where reports of router pods come from."""

    async def ask(self, namespace: str, deployment: str) -> tuple[RouterReport, ...]:
        """Reports of all router pods of one ModelDeployment."""
        ...

    async def close(self) -> None:
        """Ends open connections."""
        ...


@dataclass(slots=True)
class RouterPods:
    """Lists the pods and asks each ready one over HTTP. Never raises for what a pod answers."""

    client: KubeClient
    _session: aiohttp.ClientSession | None = None

    async def ask(self, namespace: str, deployment: str) -> tuple[RouterReport, ...]:
        """Raises ApiError when the pods cannot be listed."""
        pods: list[dict[str, Any]] = []
        selector = f"{LABEL_ROUTER}={deployment}"
        async for chunk in self.client.list(kinds.POD, namespace, label_selector=selector):
            pods += [pod for pod in chunk if not pod["metadata"].get("deletionTimestamp")]
        return tuple(await asyncio.gather(*(self._report(pod) for pod in pods)))

    async def close(self) -> None:
        """Ends open connections."""
        if self._session is not None:
            await self._session.close()

    async def _report(self, pod: Mapping[str, Any]) -> RouterReport:
        meta, status = pod["metadata"], pod.get("status") or {}
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        )
        told = str((meta.get("annotations") or {}).get(kinds.ANNOTATION_VERSION, ""))
        said = await self._read(str(status["podIP"])) if ready and status.get("podIP") else ""
        taken, problem = report(said)
        return RouterReport(
            str(meta["name"]), str(meta["uid"]), ready, taken, told, problem, endpoints(said)
        )

    async def _read(self, address: str) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                connector=aiohttp.TCPConnector(limit=100, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{VERSION_NUMBER}/version"
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    return ""
                return (await _whole(answer.content)).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """An answer to its end; nothing of one that is longer than allowed.

    Its beginning could name fewer ports than there are, and say that all of them agree.
    """
    said = bytearray()
    async for piece in content.iter_any():
        said += piece
        if len(said) > _MOST:
            return b""
    return bytes(said)
