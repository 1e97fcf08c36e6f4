"""A store behind the cache of its node: of ten pods that fetch the same, one asks the store.

The listing always comes from the store, with the pod's own credentials, so who may not read a model
is told so. Bytes come from the cache only where a digest is known that they will be held against;
whoever fetches them from the store brings them to the cache on the way. Whatever the cache does
wrong, the store is asked instead: a fetch never fails for the cache's sake.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from mooring_fetcher.cache_names import CacheNames
from mooring_fetcher.digest import CHUNK
from mooring_fetcher.failure import Interruption
from mooring_fetcher.store import Body, Listing, RemoteFile, Store

CONNECT_TIMEOUT = 2.0
TIMEOUT = 30.0
"""Seconds that the cache may take to bring or take something."""
MAX_BREAKS = 3
"""How often a file is asked of the cache: those who fill it may go away, each time another one."""

_BROKEN = (OSError, http.client.HTTPException, ValueError)


class CachedStore:
    """Implements :class:`mooring_fetcher.store.Store`; safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        address: str,
        names: CacheNames,
        *,
        reads: bool,
        say: Callable[[str], None],
    ) -> None:
        """`address` is the cache's URL. Without `reads` the cache is only filled."""
        parts = urlsplit(address)
        self._store = store
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._names = names
        self._reads = reads
        self._say = say
        self._lock = threading.Lock()
        self._reached: dict[str, list[int]] = {}
        """For each file, the offsets from which the cache was read."""
        self._off = False

    def list(self, max_files: int) -> Listing:
        return self._store.list(max_files)

    def open(self, file: RemoteFile, offset: int) -> Body:
        name = self._names.of_file(file)
        if name is None or file.size is None or self._off:
            return self._store.open(file, offset)
        kept = self._kept(name, file.size, offset)
        if isinstance(kept, _CachedBody):
            return kept
        try:
            body = self._store.open(file, offset)
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        return _Tee(body, kept, file.size, offset) if kept is not None else body

    def _kept(self, name: str, size: int, offset: int) -> _CachedBody | _Fill | None:
        """The bytes that the cache has, or else the right to bring them, or else nothing."""
        for _ in range(2):
            if self._may_read(name, offset) and (body := self._read(name, size, offset)):
                return body
            # Another may be quicker to bring it: then it can be read.
            fill = None if self._off else self._fill(name, size, offset)
            if fill is not None or not self._reads:
                return fill
        return None

    def forget(self) -> None:
        """Has the cache drop all that was read from it, since it is not what it should be."""
        with self._lock:
            names, self._off = list(self._reached), True
        for name in names:
            self._drop(name)

    def close(self) -> None:
        self._store.close()

    def _may_read(self, name: str, offset: int) -> bool:
        if not self._reads:
            return False
        with self._lock:
            earlier = self._reached.setdefault(name, [])
            again = bool(earlier) and offset <= earlier[0]
            allowed = not again and len(earlier) < MAX_BREAKS
            if allowed:
                earlier.append(offset)
        if again:
            # What was read is read again from its beginning: it was not what it should be.
            self._drop(name)
        return allowed

    def _read(self, name: str, size: int, offset: int) -> _CachedBody | None:
        try:
            connection = self._connection()
            connection.request("GET", f"/v1/{name}?size={size}", headers=_range(offset))
            answer = connection.getresponse()
            if answer.status == 200 and answer.headers.get("Mooring-Offset") == str(offset):
                return _CachedBody(connection, answer, offset, size)
            connection.close()
        except _BROKEN as error:
            self._gone(error)
        with self._lock:
            # Nothing came of it.
            self._reached[name].pop()
        return None

    def _fill(self, name: str, size: int, offset: int) -> _Fill | None:
        try:
            connection = self._connection()
            connection.putrequest("PUT", f"/v1/{name}?size={size}&from={offset}")
            connection.putheader("Content-Length", str(size - offset))
            connection.putheader("Expect", "100-continue")
            connection.endheaders()
            if _interim(connection) == 100:
                return _Fill(connection)
            connection.close()
        except _BROKEN as error:
            self._gone(error)
        return None

    def _drop(self, name: str) -> None:
        try:
            connection = self._connection()
            connection.request("DELETE", f"/v1/{name}")
            connection.getresponse().close()
            connection.close()
        except _BROKEN as error:
            self._gone(error)

    def _connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)
        connection.connect()
        connection.sock.settimeout(TIMEOUT)
        return connection

    def _gone(self, error: BaseException) -> None:
        with self._lock:
            known, self._off = self._off, True
        if not known:
            self._say(f"the node's cache is left out: {type(error).__name__}")


class _CachedBody:
    """Bytes out of the cache; cut short where whoever fills it goes away."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
        start: int,
        end: int,
    ) -> None:
        self.start = start
        self.end: int | None = end
        self._connection = connection
        self._answer = answer

    def read(self) -> bytes:
        try:
            return self._answer.read1(CHUNK)
        except _BROKEN:
            raise Interruption("The node's cache sent nothing for too long") from None

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


class _Fill:
    """The right to bring a file to the cache, for as long as the connection lives."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection: http.client.HTTPConnection | None = connection

    def add(self, chunk: bytes) -> None:
        """Brings more; a cache that does not take it is left alone."""
        if self._connection is None:
            return
        try:
            self._connection.sock.sendall(chunk)
        except OSError:
            self.close()

    def finish(self) -> None:
        """Waits until the cache has it all: what is fetched is then there for the next pod."""
        if self._connection is not None:
            with contextlib.suppress(*_BROKEN):
                _interim(self._connection)
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Tee:
    """A store's body that also goes to the cache."""

    def __init__(self, body: Body, fill: _Fill, size: int, offset: int) -> None:
        self.start = body.start
        self.end = body.end
        self._body = body
        self._fill = fill
        self._left = size - offset
        if body.start != offset or body.end not in (None, size):
            fill.close()

    def read(self) -> bytes:
        chunk = self._body.read()
        if chunk and len(chunk) <= self._left:
            self._fill.add(chunk)
            self._left -= len(chunk)
            if not self._left:
                self._fill.finish()
        return chunk

    def close(self) -> None:
        self._fill.close()
        self._body.close()


def _range(offset: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-"} if offset else {}


def _interim(connection: http.client.HTTPConnection) -> int:
    """The status of the next answer, of which nothing but its head is read: http.client passes
    over a 100. Raises ValueError for what is none, OSError when the connection breaks.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.sock.recv(1)
        if not byte or len(head) > 4096:
            raise ValueError("not an answer")
        head += byte
    return int(head.split(b" ", 2)[1])
