"""Between kopf and its watch connections: objects are taken in here, and gaps are noticed.

For each event kopf builds a task, a memory that stays, and a handler call: half a millisecond and
some kilobytes, as much as our own work. Most of what a watch reports is what this process has just
written itself, and all that it has to do with the rest is to put it into the store and its key into
the queue. So objects are taken out of the stream before kopf sees them, and out of the lists that
kopf begins with. Bookmarks, deletions and errors pass.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import aiohttp
import orjson
from yarl import URL

from mooring.core.kinds import Kind
from mooring.engine.metrics import Metrics
from mooring.engine.queue import KeyedQueue
from mooring.engine.store import Store

log = logging.getLogger(__name__)


class Streams:
    """An aiohttp middleware for the session that kopf watches with.

    ``on_gap`` is called when a watch is there again after one that broke: what happened between
    was seen late, or not at all. ``on_list`` is called when kopf has a list, from which it will
    watch on: what we knew before and is not in it has been deleted, and no watch will say so.
    """

    def __init__(
        self,
        kinds: tuple[Kind, ...],
        store: Store,
        queue: KeyedQueue,
        metrics: Metrics,
        on_gap: Callable[[], None],
        on_list: Callable[[], None],
    ) -> None:
        self._kinds = {kind.path(None): kind for kind in kinds}
        self._store = store
        self._queue = queue
        self._metrics = metrics
        self._on_gap = on_gap
        self._on_list = on_list
        self._broken: set[str] = set()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Passes a request on; the answer to a list or a watch is filtered."""
        kind = self._kind(request.url)
        if kind is None:
            return await handler(request)
        if request.url.query.get("watch") != "true":
            response = await handler(request)
            if response.status == 200:
                take_in = partial(self._take_in, kind)
                listed = _Listed(response.content, take_in, self._on_list)
                response.content = cast(aiohttp.StreamReader, listed)
            return response
        path = request.url.path
        try:
            response = await handler(request)
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._broken.add(path)
            raise
        if response.status != 200:
            self._broken.add(path)
        else:
            if path in self._broken:
                self._broken.discard(path)
                self._on_gap()
            filtered = _Filtered(
                response,
                lambda line: self._absorbs_event(kind, path, line),
                lambda: self._broken.add(path),
            )
            response.content = cast(aiohttp.StreamReader, filtered)
        return response

    def _kind(self, url: URL) -> Kind | None:
        before, found, after = url.path.partition("/namespaces/")
        path = f"{before}/{after.partition('/')[2]}" if found else url.path
        return next((kind for end, kind in self._kinds.items() if path.endswith(end)), None)

    def _take_in(self, kind: Kind, obj: dict[str, Any]) -> None:
        """Puts an object into the store, and the keys that it concerns into the queue."""
        self._metrics.events_seen.labels(kind.name).inc()
        try:
            if not self._store.absorb(kind, obj):
                for key in self._store.put(kind, obj):
                    self._queue.add(key)
        except Exception:  # one object must not end the watch of all others
            log.exception("a %s could not be taken in", kind.name)

    def _absorbs_event(self, kind: Kind, path: str, line: bytes) -> bool:
        """Whether kopf need not see this line."""
        try:
            event = orjson.loads(line)
        except ValueError:
            return False
        if event["type"] in ("ADDED", "MODIFIED"):
            self._take_in(kind, event["object"])
            return True
        if event["type"] == "ERROR":
            self._broken.add(path)
        return False


class _Listed:
    """The content of an answer to a list, which kopf reads whole, without its objects."""

    def __init__(
        self,
        content: aiohttp.StreamReader,
        take_in: Callable[[dict[str, Any]], None],
        on_list: Callable[[], None],
    ) -> None:
        self._content = content
        self._take_in = take_in
        self._on_list = on_list

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def read(self, size: int = -1) -> bytes:
        """Everything; what is no list is passed on as it is."""
        text = await self._content.read(size)
        try:
            page = orjson.loads(text)
        except ValueError:
            return text
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            return text
        for item in page["items"]:
            self._take_in(item)
        self._on_list()
        return orjson.dumps({**page, "items": []})


class _Filtered:
    """The content of an answer without the lines that are absorbed.

    kopf reads it by :meth:`iter_chunked` and splits it into lines by itself; all else is the
    content's own.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        absorbs: Callable[[bytes], bool],
        on_break: Callable[[], Any],
    ) -> None:
        self._content = response.content
        self._connection = response.connection
        self._absorbs = absorbs
        self._on_break = on_break

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines that pass, as they come; at the end what is left of an unfinished one."""
        rest = b""
        try:
            async for data in self._content.iter_chunked(size):
                *lines, rest = (rest + data).split(b"\n")
                passed = [line for line in lines if line and not self._absorbs(line)]
                if passed:
                    yield b"\n".join([*passed, b""])
        except GeneratorExit:
            self._hang_up()
            raise
        except BaseException:  # a time limit of kopf's comes as a cancellation
            self._on_break()
            self._hang_up()
            raise
        if rest:
            yield rest

    def _hang_up(self) -> None:
        """Cuts a stream off that is not at its end. Taking leave by TLS, which is what closing it
        does, would outlast the session, and at the end of the process the event loop.
        """
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()
