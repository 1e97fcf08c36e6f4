"""Kubernetes Events about ModelDeployments, aggregated: the same again only counts up.

Events are for people and may be lost; writing them never delays a decision.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mooring.adapters.kube import ApiError, KubeClient
from mooring.core import kinds
from mooring.core.clock import format_time
from mooring.core.events import Event
from mooring.engine.lease import LeaseLost

log = logging.getLogger(__name__)

_REMEMBERED = 2_000
_QUEUED = 1_000
_MESSAGE_LIMIT = 1_000


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    first: str


class Recorder:
    """Writes Events from a bounded queue in a task of its own (:meth:`run`)."""

    def __init__(self, client: KubeClient, now: Callable[[], datetime], instance: str) -> None:
        self._client = client
        self._now = now
        self._instance = instance
        self._queue: asyncio.Queue[tuple[dict[str, Any], Event]] = asyncio.Queue(_QUEUED)
        self._series: OrderedDict[tuple[str, Event], _Series] = OrderedDict()

    def record(self, resource: dict[str, Any], event: Event) -> None:
        """Queues an Event about this ModelDeployment; far too many go to the log alone."""
        meta = resource["metadata"]
        try:
            self._queue.put_nowait((meta, event))
        except asyncio.QueueFull:
            log.warning(
                "too many events wait to be written; %s/%s: %s: %s",
                meta["namespace"], meta["name"], event.reason, event.message,
            )  # fmt: skip

    async def run(self) -> None:
        """Writes events until cancelled."""
        while True:
            meta, event = await self._queue.get()
            try:
                await self._write(meta, event)
            except ApiError as error:
                log.warning("event %s of %s was not written: %s", event.reason, meta["name"], error)
            except LeaseLost:
                raise
            except Exception:  # a defect here must not end the work that events are about
                log.exception("event %s of %s was not written", event.reason, meta["name"])

    async def _write(self, meta: dict[str, Any], event: Event) -> None:
        moment = format_time(self._now())
        key = (meta["uid"], event)
        series = self._series.get(key)
        if series is not None:
            self._series.move_to_end(key)
            series.count += 1
            try:
                await self._client.patch(
                    kinds.EVENT,
                    meta["namespace"],
                    series.name,
                    {"count": series.count, "lastTimestamp": moment},
                )
                return
            except ApiError as error:
                if error.status != 404:  # the API server forgets events after an hour
                    raise
        series = _Series(self._name(meta, event, moment), 1, moment)
        await self._client.create(kinds.EVENT, meta["namespace"], self._body(meta, event, series))
        self._series[key] = series
        while len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)

    def _name(self, meta: dict[str, Any], event: Event, moment: str) -> str:
        text = f"{meta['uid']}{event}{moment}{self._instance}"
        return f"{meta['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _body(self, meta: dict[str, Any], event: Event, series: _Series) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": kinds.MODEL_DEPLOYMENT.api_version,
                "kind": kinds.MODEL_DEPLOYMENT.name,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE_LIMIT],
            "count": series.count,
            "firstTimestamp": series.first,
            "lastTimestamp": series.first,
            "source": {"component": "mooring"},
            "reportingComponent": "mooring.dev/operator",
            "reportingInstance": self._instance,
        }
