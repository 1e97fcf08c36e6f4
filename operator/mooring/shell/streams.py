"""Between kopf and its watch connections: echoes are left out, and gaps are noticed.

Most of what a watch reports while many objects are made is what this process has just written
itself. The store has that from the answer; kopf would still build a task, a memory and a handler
call for each of them (half a millisecond, and as much again as our own work). They are taken out
of the stream before kopf sees them; bookmarks, deletions and everything new pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import orjson
from yarl import URL

from mooring.core.kinds import Kind
from mooring.engine.metrics import Metrics
from mooring.engine.store import Store


class Streams:
    """An aiohttp middleware for the session that kopf watches with.

    ``on_gap`` is called when a watch is there again after one that broke: what happened between
    was seen late, or not at all.
    """

    def __init__(
        self,
        kinds: tuple[Kind, ...],
        store: Store,
        metrics: Metrics,
        on_gap: Callable[[], None],
    ) -> None:
        self._kinds = {kind.path(None): kind for kind in kinds}
        self._store = store
        self._metrics = metrics
        self._on_gap = on_gap
        self._broken: set[str] = set()

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Passes a request on; the answer to a watch is filtered from then on."""
        kind = self._watched(request.url)
        if kind is None:
            return await handler(request)
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
                response.content,
                lambda line: self._absorbs(kind, path, line),
                lambda: self._broken.add(path),
            )
            response.content = cast(aiohttp.StreamReader, filtered)
        return response

    def _watched(self, url: URL) -> Kind | None:
        if url.query.get("watch") != "true":
            return None
        before, found, after = url.path.partition("/namespaces/")
        path = f"{before}/{after.partition('/')[2]}" if found else url.path
        return next((kind for end, kind in self._kinds.items() if path.endswith(end)), None)

    def _absorbs(self, kind: Kind, path: str, line: bytes) -> bool:
        """Whether kopf need not see this event."""
        try:
            event = orjson.loads(line)
        except ValueError:
            return False
        if event["type"] == "ERROR":
            self._broken.add(path)
        if event["type"] not in ("ADDED", "MODIFIED"):
            return False
        if not self._store.absorb(kind, event["object"]):
            return False
        self._metrics.events_seen.labels(kind.name).inc()
        return True


class _Filtered:
    """The content of an answer without the lines that are absorbed.

    kopf reads it by :meth:`iter_chunked` and splits it into lines by itself; all else is the
    content's own.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        absorbs: Callable[[bytes], bool],
        on_break: Callable[[], Any],
    ) -> None:
        self._content = content
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
            raise
        except BaseException:  # a time limit of kopf's comes as a cancellation
            self._on_break()
            raise
        if rest:
            yield rest
