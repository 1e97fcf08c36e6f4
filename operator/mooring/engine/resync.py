"""The periodic comparison of the store with the API server.

Watches lose things: a relist after 410 does not report what was deleted meanwhile, a half-open
connection says nothing at all. A missed event may cost time, never correctness, so everything is
compared by uid and resourceVersion, mended, counted, and its key looked at again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mooring.adapters.kube import ApiError, KubeClient
from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS, OPTIONAL_KINDS, Kind
from mooring.engine.metrics import Metrics
from mooring.engine.queue import KeyedQueue
from mooring.engine.store import ObjectKey, Store

log = logging.getLogger(__name__)

SELECTOR = f"{kinds.LABEL_MANAGED_BY}={kinds.MANAGED_BY}"
_RETRY_SECONDS = 2.0
_HURRY_SECONDS = 5.0


def watched(*, clusterwide: bool, optional: tuple[Kind, ...] = ()) -> tuple[Kind, ...]:
    """The kinds that the store holds; a namespaced installation cannot read cluster kinds.

    ``optional`` are those of ``OPTIONAL_KINDS`` that this cluster knows.
    """
    own: tuple[Kind, ...] = (
        kinds.MODEL_RUNTIME,
        *CHILD_KINDS,
        *optional,
        kinds.JOB,
        kinds.RETRAINING_REQUEST,
        kinds.MODEL_DEPLOYMENT,
    )
    return (kinds.CLUSTER_MODEL_RUNTIME, *own) if clusterwide else own


def selector_of(kind: Kind) -> str:
    """Children and Jobs are selected by our label; our own kinds are read whole."""
    return SELECTOR if kind in (*CHILD_KINDS, *OPTIONAL_KINDS, kinds.JOB) else ""


@dataclass(slots=True)
class Resync:
    """Seeds the store once (:meth:`seed`) and then compares it every ``interval`` seconds."""

    client: KubeClient
    store: Store
    queue: KeyedQueue
    metrics: Metrics
    namespaces: tuple[str, ...]
    interval: float
    on_done: Callable[[float], None] = lambda finished: None
    optional: Callable[[], tuple[Kind, ...]] = tuple
    _findings: int = field(default=0)
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)

    async def seed(self) -> None:
        """Fills the store, trying until it succeeds. Until then nothing may be decided.

        A definition that has just been made can be listed some moments before discovery shows it,
        and who watches afterwards looks there once.
        """
        while True:
            try:
                for kind in self._kinds():
                    await self.take_in(kind)
                    while kind.group == kinds.GROUP and not await self.client.serves(kind):
                        log.info("discovery does not show %s yet; looking again", kind.plural)
                        await asyncio.sleep(_RETRY_SECONDS)
            except ApiError as error:
                hint = " (are Mooring's definitions installed?)" if error.status == 404 else ""
                log.warning("cannot list %s yet: %s%s; trying again", kind.plural, error, hint)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                break
        for key in self.store.all_keys():
            self.queue.add(key)
        self.on_done(time.monotonic())

    async def run(self) -> None:
        """Compares for ever; a comparison that fails is tried again soon."""
        while True:
            await self._pause()
            try:
                await self.compare()
            except ApiError as error:
                self.metrics.resyncs.labels("error").inc()
                log.warning("resync failed: %s", error)
                self.hurry()
                continue
            self.metrics.resyncs.labels("success").inc()
            self.on_done(time.monotonic())

    async def catch_up(self) -> None:
        """Compares once, trying until it succeeds.

        For who takes the lead: a standby's watches may have stopped long ago without a word, and
        the first thing that it does must not be to undo what the leader before it has done.
        """
        while True:
            try:
                await self.compare()
            except ApiError as error:
                log.warning("cannot compare before leading: %s; trying again", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.on_done(time.monotonic())
                return

    def hurry(self) -> None:
        """Asks for a comparison in a few seconds: the watches have a gap behind them."""
        self._hurried.set()

    async def _pause(self) -> None:
        seconds = self.interval * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
                await asyncio.sleep(_HURRY_SECONDS)  # one comparison for the lists of all kinds
        except TimeoutError:
            pass
        self._hurried.clear()

    async def compare(self) -> int:
        """One comparison; returns how many objects the watches had missed."""
        self._findings = 0
        for kind in self._kinds():
            for namespace in self._where():
                await self._compare_kind(kind, namespace)
        return self._findings

    def _kinds(self) -> tuple[Kind, ...]:
        return watched(clusterwide=not self.namespaces, optional=self.optional())

    def _where(self) -> tuple[str | None, ...]:
        return self.namespaces or (None,)

    async def take_in(self, kind: Kind) -> None:
        """Lists a kind into the store. Raises ApiError."""
        for namespace in self._where():
            where = namespace if kind.namespaced else None
            async for chunk in self.client.list(kind, where, label_selector=selector_of(kind)):
                for obj in chunk:
                    self.store.put(kind, obj)

    async def _compare_kind(self, kind: Kind, namespace: str | None) -> None:
        before = self.store.versions(kind)
        seen: set[ObjectKey] = set()
        async for chunk in self.client.list(
            kind, namespace, label_selector=selector_of(kind), metadata_only=True
        ):
            for obj in chunk:
                meta = obj["metadata"]
                key = (meta.get("namespace", ""), meta["name"])
                seen.add(key)
                version = (meta.get("uid", ""), meta.get("resourceVersion", ""))
                if before.get(key) != version:
                    await self._mend(kind, key, "added" if key not in before else "changed")
        for key in before:
            if key not in seen and (namespace is None or key[0] == namespace):
                await self._mend(kind, key, "deleted")

    async def _mend(self, kind: Kind, key: ObjectKey, finding: str) -> None:
        """Reads the object itself: the watch may have been only a moment late."""
        known = self.store.get(kind, *key)
        fresh = await self.client.get(kind, key[0] or None, key[1])
        touched = set()
        if fresh is None:
            if known is not None:
                touched = self.store.remove(kind, known, gone=True)
        elif fresh["metadata"].get("uid") in _uid(known) or known is None:
            touched = self.store.put(kind, fresh)
        else:
            touched = self.store.remove(kind, known, gone=True) | self.store.put(kind, fresh)
        if not touched and (fresh is None) == (self.store.get(kind, *key) is None):
            return  # the watch was faster
        self._findings += 1
        self.metrics.resync_findings.labels(kind.name, finding).inc()
        log.warning("the watch of %s missed %s/%s (%s)", kind.name, *key, finding)
        for touched_key in touched:
            self.queue.add(touched_key)


def _uid(obj: dict[str, object] | None) -> set[object]:
    meta = (obj or {}).get("metadata")
    return {meta.get("uid")} if isinstance(meta, dict) else set()
