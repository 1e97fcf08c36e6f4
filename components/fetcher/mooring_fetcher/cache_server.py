"""The cache of a node: one process that keeps what the fetchers on it have fetched.

It opens no store, holds no credentials and knows nobody: fetchers bring the bytes, under names that
only those can say who may read them (:mod:`mooring_fetcher.cache_names`). All of its protocol:

- ``GET /v1/NAME?size=N``, with a Range or without: the bytes, as they arrive where they are just
  being brought, and cut short where no more come; 404 where nobody brings them.
- ``PUT /v1/NAME?size=N&from=OFFSET`` with ``Expect: 100-continue``: 100 is the right to bring them,
  for as long as the connection lives; 409 where another has it or they are there.
- ``DELETE /v1/NAME``: they are not what they should be.
- ``GET /healthz`` and ``GET /metrics``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import cast
from urllib.parse import parse_qs, urlsplit

from mooring_fetcher.blobs import Blob, Keeper

IDLE_TIMEOUT = 60.0
"""Seconds that a connection may bring and take nothing."""
MAX_CONNECTIONS = 256
"""More are closed at once; their fetchers go to the store."""

_CHUNK = 1 << 20
_NAME = re.compile(r"^/v1/([0-9a-f]{64})$")
_RANGE = re.compile(r"^bytes=(\d{1,18})-$")


class CacheServer(ThreadingHTTPServer):
    """Serves one keeper; a thread for each connection, within a bound."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], keeper: Keeper) -> None:
        self.keeper = keeper
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: object, client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(cast(socket.socket, request), client_address)
        else:
            self.shutdown_request(cast(socket.socket, request))

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(cast(socket.socket, request), client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news: its blob is left as it is."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"a request failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


class _DualStack(CacheServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT
    server_version = "mooring-node-cache"
    sys_version = ""
    server: CacheServer

    def do_GET(self) -> None:
        self.close_connection = True
        path = urlsplit(self.path).path
        if path == "/healthz":
            self._say(200, "ok\n")
        elif path == "/metrics":
            self._say(200, _metrics(self.server.keeper))
        elif (name := self._name()) is None:
            self._say(404, "no such path\n")
        else:
            self._read(name)

    def do_PUT(self) -> None:
        """Reached after :meth:`handle_expect_100` has said yes, or where it was not asked."""
        self.close_connection = True
        blob, self._granted = self._granted, None
        if blob is None:
            self._say(417, "ask first, by Expect: 100-continue\n")
            return
        self._fill(blob)

    def do_DELETE(self) -> None:
        self.close_connection = True
        if name := self._name():
            self.server.keeper.forget(name)
        self._say(204, "")

    _granted: Blob | None = None
    _offset = 0

    def handle_expect_100(self) -> bool:
        self.close_connection = True
        name, size, offset = self._name(), self._number("size"), self._number("from")
        length = self.headers.get("Content-Length", "")
        if name is None or size is None or offset is None or length != str(size - offset):
            self._say(400, "size, from and Content-Length do not agree\n")
            return False
        blob = self.server.keeper.fill(name, size, offset) if self.command == "PUT" else None
        if blob is None:
            self._say(409, "not needed\n")
            return False
        self._granted, self._offset = blob, offset
        return super().handle_expect_100()

    def finish(self) -> None:
        """Gives back a right that was not used, since the connection broke before."""
        blob, self._granted = self._granted, None
        if blob is not None:
            self.server.keeper.left(blob, -1, keep=True)
        super().finish()

    def _read(self, name: str) -> None:
        keeper, size = self.server.keeper, self._number("size")
        match = _RANGE.match(self.headers.get("Range", "bytes=0-"))
        offset = int(match[1]) if match else 0
        blob = keeper.read(name, size, offset) if size is not None else None
        if blob is None:
            self._say(404, "not here\n")
            return
        try:
            # Whoever fills it may leave without a byte more: then the next one may.
            if offset < blob.size and keeper.wait_beyond(blob, offset) == offset:
                self._say(404, "not here\n")
                return
            with blob.path.open("rb") as file:
                self.send_response(200)
                self.send_header("Content-Length", str(blob.size - offset))
                self.send_header("Mooring-Offset", str(offset))
                self.send_header("Connection", "close")
                self.end_headers()
                while offset < blob.size:
                    reach = keeper.wait_beyond(blob, offset)
                    if reach == offset:
                        return
                    self.connection.sendfile(file, offset, reach - offset)
                    keeper.served(reach - offset)
                    offset = reach
        finally:
            keeper.done(blob)

    def _fill(self, blob: Blob) -> None:
        keeper, offset = self.server.keeper, self._offset
        file, keep = -1, False
        try:
            file = os.open(blob.path, os.O_CREAT | os.O_WRONLY, 0o600)
            keep = True
            while offset < blob.size:
                chunk = self.rfile.read1(min(_CHUNK, blob.size - offset))
                if not chunk:
                    break
                if not keeper.add(blob, file, offset, chunk):
                    keep = False
                    break
                offset += len(chunk)
        except OSError as error:
            # A disk that is full or broken; a filler that went away leaves what it brought.
            keep = keep and isinstance(error, (TimeoutError, ConnectionError))
        finally:
            try:
                whole = keeper.left(blob, file, keep=keep)
            finally:
                if file >= 0:
                    os.close(file)
        self._say(201 if whole else 507, "")

    def _name(self) -> str | None:
        match = _NAME.match(urlsplit(self.path).path)
        return match[1] if match else None

    def _number(self, key: str) -> int | None:
        text = parse_qs(urlsplit(self.path).query).get(key, [""])[0]
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None

    def _say(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's
        """Names of blobs are secrets, so requests are counted and not logged."""


def _metrics(keeper: Keeper) -> str:
    blobs, used = keeper.held
    counts = keeper.counts
    rows = (
        ("bytes", "gauge", "Bytes on the disk.", used),
        ("max_bytes", "gauge", "The most that there may be.", keeper.max_bytes),
        ("blobs", "gauge", "Files that are kept, or being filled.", blobs),
        ("hits_total", "counter", "Reads that were answered.", counts.hits),
        ("misses_total", "counter", "Reads of what nobody had brought.", counts.misses),
        ("fills_total", "counter", "Files that were brought whole.", counts.fills),
        ("evictions_total", "counter", "Files dropped for others.", counts.evictions),
        ("served_bytes_total", "counter", "Bytes given to fetchers.", counts.bytes_served),
    )
    return "".join(
        f"# HELP mooring_node_cache_{name} {text}\n# TYPE mooring_node_cache_{name} {kind}\n"
        f"mooring_node_cache_{name} {value}\n"
        for name, kind, text, value in rows
    )


def serve(folder: Path, max_bytes: int, port: int) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError where it cannot listen or keep."""
    keeper = Keeper(folder, max_bytes)
    try:
        server: CacheServer = _DualStack(("::", port), keeper)
    except OSError:
        # No IPv6 on this machine.
        server = CacheServer(("0.0.0.0", port), keeper)  # noqa: S104  pods of the node reach it

    def stop(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    blobs, used = keeper.held
    print(f"serving on port {server.server_port}: {blobs} files, {used} bytes kept", flush=True)
    server.serve_forever()
    server.server_close()
