"""Measures a running server: requests a second and latency at a number of connections.

    python tools/bench.py http://127.0.0.1:8080/v2/models/fraud/infer --body request.json

Sends to loopback only. Pin server and client to different cores (`taskset -c 0`, `-c 1`), or
the client's own cost is measured as well.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import urlopen

import click
import uvloop

_END_OF_HEAD = b"\r\n\r\n"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Client(asyncio.Protocol):
    """One connection that sends the next request as soon as it has the answer."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Waits for a whole answer, notes it, sends again."""
        self._buffer += data
        head = self._buffer.find(_END_OF_HEAD)
        if head < 0:
            return
        lowered = self._buffer[:head].lower()
        start = lowered.index(b"content-length:") + 15
        length = int(lowered[start:].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        self.errors += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends this connection's part."""
        if not self.done.done():
            self.done.set_result(None)


async def _measure(
    url: str, body: bytes, connections: int, seconds: float
) -> tuple[list[float], int, float]:
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK or parts.port is None:
        raise click.UsageError("the bench sends to loopback only, with a port in the URL")
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    started = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Client(request, started + seconds, latencies), parts.hostname, parts.port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return latencies, sum(c.errors for c in clients), time.perf_counter() - started


def _server_cpu_seconds(url: str) -> float | None:
    """CPU the server has used: on a busy machine the one number that means something.

    None where the server does not tell: another than ours.
    """
    parts = urlsplit(url)
    try:
        with urlopen(f"http://{parts.netloc}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("process_cpu_seconds_total "):
                    return float(line.split()[1])
    except OSError:
        return None
    return None


@click.command()
@click.argument("url")
@click.option("--body", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--connections", default=16, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
def main(url: str, body: Path, connections: int, seconds: float) -> None:
    """Sends BODY to URL from a number of connections and prints what came of it."""
    before = _server_cpu_seconds(url)
    measured = _measure(url, body.read_bytes(), connections, seconds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies, errors, elapsed = runner.run(measured)
    after = _server_cpu_seconds(url)
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * q)] * 1000 for q in (0.5, 0.99))
    said = (
        f"{len(latencies) / elapsed:.0f} requests/s, {errors} errors, "
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    )
    if before is not None and after is not None:
        cpu = after - before
        said += (
            f"; {len(latencies) / cpu:.0f} requests per CPU second of the server "
            f"({cpu / len(latencies) * 1e6:.0f} µs each)"
        )
    click.echo(said)


if __name__ == "__main__":
    main()
