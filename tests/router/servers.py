"""Model servers and a DNS server on loopback, as small and quick as they can be.

A server answers by the path: ``/status/500``, ``/sleep/0.5`` (seconds before the answer),
``/reset`` (breaks the connection without one), anything else 200. Every answer names the server and
how many bytes of a body it got.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

#: What was given out before: the kernel may well offer the same port twice in a row.
_GIVEN: set[int] = set()


def free_port(host: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody listens on, and that was not given out before."""
    while True:
        with closing(socket.socket(socket.AF_INET, kind)) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


class Server:
    """Counts what it was asked. ``failing`` answers 500 to all; ``answer`` is what it says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paths: Counter[str] = Counter()
        self.clients: Counter[str] = Counter()
        self.seen: list[dict[str, str]] = []
        self.failing = False
        self.answer: bytes | None = None
        self.in_flight = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def requests(self) -> int:
        return sum(self.paths.values())

    async def start(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._connections):
                connection.drop()
            await self._server.wait_closed()
            self._server = None


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.head = b""
        self.left = -1
        self.size = 0
        self.request: tuple[str, dict[str, str]] = ("", {})
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server._connections.discard(self)

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        while data or self.left == 0:
            if self.left < 0:
                self.head += data
                head, blank, data = self.head.partition(b"\r\n\r\n")
                if not blank:
                    return
                self._begin(head.decode("latin-1"))
                self.head = b""
            taken = min(self.left, len(data))
            self.left -= taken
            data = data[taken:]
            if self.left:
                return
            self.left = -1
            self._answer()

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self.request = (first.split(" ")[1], headers)
        assert "transfer-encoding" not in headers
        self.left = self.size = int(headers.get("content-length", "0"))

    def _answer(self) -> None:
        path, headers = self.request
        server = self.server
        server.paths[path] += 1
        server.clients[headers.get("x-user", "")] += 1
        if len(server.seen) < 1000:
            server.seen.append(headers)
        if path == "/reset":
            self.drop()
            return
        status = 500 if server.failing else 200
        if path.startswith("/status/"):
            status = int(path.removeprefix("/status/"))
        body = server.answer or json.dumps({"server": server.name, "bytes": self.size}).encode()
        lines = (
            f"HTTP/1.1 {status} X",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-server: {server.name}",
        )
        answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        server.in_flight += 1
        if path.startswith("/sleep/"):
            delay = float(path.removeprefix("/sleep/"))
            asyncio.get_running_loop().call_later(delay, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        self.server.in_flight -= 1
        if self.transport is not None:
            self.transport.write(answer)


class Names(asyncio.DatagramProtocol):
    """A DNS server: the addresses of names that have some, and that there is no other name."""

    def __init__(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self.addresses = dict(addresses)
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        name = ".".join(labels)
        self.asked[name] += 1
        found = self.addresses.get(name, ())
        answers = [
            b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
            for address in (found if kind == 1 else ())
        ]
        flags = 0x8580 if found else 0x8583
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
        assert self._transport is not None
        self._transport.sendto(header + question + b"".join(answers), addr)
