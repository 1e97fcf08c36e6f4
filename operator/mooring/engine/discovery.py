"""Which of the kinds that not every cluster has this one knows, and when that changes.

A kind is watched, listed and written only while it is known. Its definition may be installed or
removed at any time; rights on definitions are not asked for, so this is looked up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mooring.adapters.kube import ApiError, KubeClient
from mooring.core.kinds import OPTIONAL_KINDS, Kind
from mooring.engine.queue import KeyedQueue
from mooring.engine.store import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Discovery:
    """Looks every ``interval`` seconds; ``changed`` is set when the answer is another one.

    ``take_in`` lists a kind that has come to be known into the store.
    """

    client: KubeClient
    store: Store
    queue: KeyedQueue
    interval: float
    take_in: Callable[[Kind], Awaitable[None]]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _known: tuple[Kind, ...] = ()

    @property
    def known(self) -> tuple[Kind, ...]:
        """The optional kinds that the cluster knows, as last seen."""
        return self._known

    def unserved(self) -> frozenset[str]:
        """The names of those that it does not."""
        return frozenset(kind.name for kind in OPTIONAL_KINDS if kind not in self._known)

    async def look(self) -> None:
        """Looks once. Raises ApiError; then the answer stays what it was."""
        found = tuple([kind for kind in OPTIONAL_KINDS if await self._usable(kind)])
        if found == self._known:
            return
        for kind in found:
            if kind not in self._known:
                log.info("the cluster knows %s", kind.name)
        for kind in self._known:
            if kind not in found:
                self._forget(kind)
                log.warning("the cluster does not know %s any more", kind.name)
        self._known = found
        self.changed.set()
        for key in self.store.all_keys():
            self.queue.add(key)

    async def _usable(self, kind: Kind) -> bool:
        """Whether the cluster knows the kind and lets us list it; one that is new is taken in."""
        if not await self.client.serves(kind):
            return False
        if kind in self._known:
            return True
        try:
            await self.take_in(kind)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            log.warning("%s cannot be used: %s", kind.name, error)
            return False
        return True

    def _forget(self, kind: Kind) -> None:
        """Objects go with their definition, and no watch is there to say so."""
        for key in self.store.versions(kind):
            obj = self.store.get(kind, *key)
            if obj is not None:
                self.store.remove(kind, obj, gone=True)

    async def run(self) -> None:
        """Looks for ever; what cannot be looked up now is looked up the next time."""
        while True:
            await asyncio.sleep(self.interval)
            try:
                await self.look()
            except ApiError as error:
                log.warning("cannot look up which kinds the cluster knows: %s", error)
