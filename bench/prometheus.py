"""What one tick of reading costs: many rollouts, two routers each, in a real Prometheus.

    PYTHONPATH=.:dev:operator .venv/bin/python -m bench.prometheus --rollouts 1000

An exporter shows the series of all routers (one candidate cluster with one endpoint, stable in two
halves with two endpoints each), a real Prometheus scrapes it, and the operator's own code reads
them as it does at each tick. Counted are queries, bytes, processor seconds of this process
(reading, parsing, mapping to what the judge takes) and of Prometheus, and for how long the event
loop stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import yaml

from bench.machine import describe, show
from mooring.adapters.prometheus import Asked, Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.adapters.prometheus_counters import read_counters
from mooring.core.router_counters import Target
from mooring.core.scrapes import Memory, take
from mooring_dev.binaries import PROMETHEUS_VERSION, ensure
from mooring_dev.ports import claim

EDGES = tuple(float(e) for e in (10, 16, 25, 40, 63, 100, 160, 250, 400, 630, 1000, 1600, 2500))
_KINDS = (("total", 10), ("success", 7), ("error", 2), ("active", 0))


@dataclass(frozen=True)
class Result:
    """The median of several ticks. Seconds, bytes."""

    rollouts: int
    latency: bool
    series: int
    queries: int
    received: int
    operator_cpu: float
    prometheus_cpu: float
    elapsed: float
    longest_stop_of_the_loop: float
    rollouts_read: int


def targets(count: int, *, latency: bool) -> list[Target]:
    """The rollouts, in 50 namespaces."""
    return [
        Target(
            f"team-{i % 50}", f"model-{i:04d}",
            (f"c{i:09d}", f"s{i:09d}-a", f"s{i:09d}-b"), edges=EDGES if latency else (),
            endpoints=2,
        )
        for i in range(count)
    ]  # fmt: skip


def exported(found: list[Target], *, latency: bool, times: int = 1) -> bytes:
    """The series of both routers of each, as Envoy names them; counters are ``times`` as high."""
    lines = []
    for target in found:
        for router in ("abcde", "fghij"):
            pod = f"{target.deployment}-router-5c8d9f7b9c-{router}"
            where = f'namespace="{target.namespace}",pod="{pod}"'
            lines.append(f"envoy_server_uptime{{{where}}} 100")
            for cluster in target.clusters:
                common = f'{where},envoy_cluster_name="{cluster}"'
                for place in range(1 if cluster.startswith("c") else 2):
                    address = f"10.88.{place}.7:8080"
                    labels = f'{common},envoy_endpoint_address="{address}"'
                    lines += [
                        f"envoy_cluster_endpoint_rq_{kind}{{{labels}}} {n * times}"
                        for kind, n in _KINDS
                    ]
                lines.append(f"envoy_cluster_membership_total{{{common}}} 2")
                lines.append(f"envoy_cluster_outlier_detection_ejections_active{{{common}}} 0")
                if latency:
                    lines += [
                        f'envoy_cluster_canary_upstream_rq_time_bucket{{{common},le="{e:g}"}} '
                        f"{n * times}"
                        for n, e in enumerate(target.edges)
                    ]
                    bucket = f'{common},le="+Inf"'
                    name = f"envoy_cluster_canary_upstream_rq_time_bucket{{{bucket}}}"
                    lines.append(f"{name} {99 * times}")
    return ("\n".join(lines) + "\n").encode()


@contextlib.contextmanager
def exporting(pages: list[bytes]) -> Iterator[list[str]]:
    """Serves each page at a path of its own; gives host:port and the paths."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[int(self.path.strip("/"))]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"127.0.0.1:{server.server_address[1]}", *(f"/{n}" for n in range(len(pages)))]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def prometheus(folder: Path, address: str, paths: list[str]) -> Iterator[tuple[str, int]]:
    """A real Prometheus that scrapes the exporter every 15 s; gives its address and pid."""
    jobs = [
        {
            "job_name": f"routers-{path.strip('/')}",
            "honor_labels": True,
            "metrics_path": path,
            "static_configs": [{"targets": [address]}],
        }
        for path in paths
    ]
    interval = {"scrape_interval": "15s", "scrape_timeout": "15s"}
    config = {"global": interval, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    ports = claim(1)
    url = f"http://127.0.0.1:{ports.ports[0]}"
    command = [
        str(ensure("prometheus")), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", "--log.level=error",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(60)
        ports.release()


def _wait_for_series(url: str, wanted: int) -> int:
    query = '/api/v1/query?query=count({__name__=~"envoy_.*"})'
    until = time.monotonic() + 180
    found = 0
    while found < wanted:
        if time.monotonic() > until:
            raise click.ClickException(f"Prometheus holds {found} of {wanted} series after 180 s")
        time.sleep(1)
        with (
            contextlib.suppress(OSError, LookupError),
            urllib.request.urlopen(url + query) as answer,  # noqa: S310 - http on loopback
        ):
            found = int(json.load(answer)["data"]["result"][0]["value"][1])
    return found


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def _watch(stops: list[float]) -> None:
    """Notes how late the loop comes back from a pause of 5 ms."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        stops.append(time.perf_counter() - began - 0.005)


async def measure(
    url: str, pid: int, rollouts: int, ticks: int, series: int, *, latency: bool
) -> Result:
    """Reads ``ticks`` times after one that warms up, a pause between them."""
    wanted = targets(rollouts, latency=latency)
    asked: list[Asked] = []
    asking = Prometheus(Access(url, deadline=30.0, pause=30.0), asked.append)
    rows = []
    memories = {target.key: Memory() for target in wanted}
    stops: list[float] = []
    watching = asyncio.create_task(_watch(stops))
    for tick in range(ticks + 1):
        asked.clear()
        stops.clear()
        elapsed, cpu, theirs = time.perf_counter(), time.process_time(), _cpu_of(pid)
        reading = await read_counters(asking, wanted)
        if reading.failed:
            raise click.ClickException(next(iter(reading.failed.values())).message)
        for target in wanted:
            candidate, *stable = target.clusters
            sources = reading.sources.get(target.key, ())
            _, memories[target.key] = take(sources, (candidate,), stable, memories[target.key])
            await asyncio.sleep(0)
        if tick:
            rows.append((
                time.process_time() - cpu, _cpu_of(pid) - theirs,
                time.perf_counter() - elapsed, max(stops, default=0.0),
            ))  # fmt: skip
        await asyncio.sleep(1)
    watching.cancel()
    await asking.close()
    ours, theirs, elapsed, stop = (statistics.median(column) for column in zip(*rows, strict=True))
    return Result(
        rollouts, latency, series, len(asked), sum(one.received for one in asked),
        round(ours, 3), round(theirs, 3), round(elapsed, 3), round(stop, 4), len(reading.sources),
    )  # fmt: skip


@click.command()
@click.option("--rollouts", default=1000, show_default=True, help="Judged at once.")
@click.option("--ticks", default=5, show_default=True, help="Ticks to take the median of.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(rollouts: int, ticks: int, *, as_json: bool) -> None:
    """Measure what a tick of reading the routers' counters costs."""
    wanted = targets(rollouts, latency=True)
    size = max(1, rollouts // 10)
    parts = [wanted[i : i + size] for i in range(0, rollouts, size)]
    pages = [exported(part, latency=True) for part in parts]
    count = sum(page.count(b"\n") for page in pages)
    with (
        tempfile.TemporaryDirectory(prefix="mooring-bench-") as folder,
        exporting(pages) as (address, *paths),
        prometheus(Path(folder), address, paths) as (url, pid),
    ):
        series = _wait_for_series(url, count)
        results = [
            asyncio.run(measure(url, pid, rollouts, ticks, series, latency=latency))
            for latency in (False, True)
        ]
    if as_json:
        runs = [asdict(result) for result in results]
        click.echo(json.dumps({"machine": describe(), "runs": runs}, indent=2))
        return
    show(
        f"One tick, Prometheus {PROMETHEUS_VERSION}, {len(EDGES)} latency edges",
        {"errors and latency" if one.latency else "errors": asdict(one) for one in results},
    )


if __name__ == "__main__":
    main()
