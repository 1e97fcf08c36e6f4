"""What a whole tick costs: many rollouts judged at once, from the query to the verdicts.

    PYTHONPATH=.:dev:operator .venv/bin/python -m bench.tick --rollouts 1000

As bench.prometheus, but through the operator's Examiner: a real Prometheus is asked for the
counters of two routers for each rollout, and the judge weighs them with what it remembers. The
counters rise between two ticks. Counted are the questions, the processor seconds of this process
and of the event loop's own thread, and for how long the event loop stood.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.machine import describe, show
from bench.prometheus import _wait_for_series, _watch, exported, exporting, prometheus, targets
from mooring.adapters.prometheus import Asked, Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.core.examination import Examination, Phase
from mooring.core.judge import Analysis, ErrorRate, Latency, Metric, Pods, Weights
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.router_counters import Target
from mooring.engine.evidence import Examiner
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.process import collect_rarely
from mooring_dev.binaries import PROMETHEUS_VERSION

_SCRAPES = 15.0


@dataclass(frozen=True)
class Result:
    """The median of several ticks. Seconds, bytes."""

    rollouts: int
    metrics: int
    series: int
    queries: int
    received: int
    cpu: float
    cpu_of_the_loop: float
    elapsed: float
    longest_stop_of_the_loop: float
    judged: int


def examination(target: Target, *, latency: bool) -> Examination:
    """A rollout at 10 %, judged by errors and, with ``latency``, by how long answers take."""
    metrics: tuple[Metric, ...] = (Metric("errors", ErrorRate(max_ratio=1.5, max=0.5)),)
    if latency:
        metrics += (Metric("slow", Latency(max=1.0, max_ratio=1.3)),)
    edges = tuple(edge / 1000 for edge in LATENCY_EDGES_MS)
    candidate, *stable = target.clusters
    return Examination(
        attempt=f"{candidate}/0",
        asked="1:",
        phase=Phase.ROLLOUT,
        revision=candidate,
        against=stable[0].removesuffix("-a"),
        analysis=Analysis(metrics, edges=edges, tick=10.0),
        weights=Weights(10.0, time.time() - 3600),
        pods=Pods(1, 2),
        target=target,
        candidate=(candidate,),
        stable=tuple(stable),
    )


async def measure(
    url: str, pages: list[bytes], wanted: list[Target], ticks: int, series: int, *, latency: bool
) -> Result:
    """``ticks`` ticks after two that warm up: the first asks what stable's halves showed before."""
    asked: list[Asked] = []
    asking = Prometheus(Access(url, deadline=30.0, pause=30.0), asked.append)
    examiner = Examiner(asking, KeyedQueue(), Metrics(), lambda: datetime.now(UTC), interval=10.0)
    for target in wanted:
        examiner.want(Key(*target.key), examination(target, latency=latency))
    rows = []
    stops: list[float] = []
    watching = asyncio.create_task(_watch(stops))
    size = len(wanted) // len(pages)
    for tick in range(ticks + 2):
        pages[:] = [
            exported(wanted[at * size : (at + 1) * size], latency=latency, times=tick + 2)
            for at in range(len(pages))
        ]
        await asyncio.sleep(_SCRAPES + 2)
        asked.clear()
        stops.clear()
        elapsed, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
        await examiner.tick()
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
        own = time.thread_time() - own
        if tick > 1:
            received = sum(one.received for one in asked)
            rows.append((len(asked), received, cpu, own, elapsed, max(stops, default=0.0)))
    watching.cancel()
    await asking.close()
    queries, received, cpu, own, elapsed, stop = map(statistics.median, zip(*rows, strict=True))
    found = [examiner.found(Key(*target.key)) for target in wanted]
    judged = sum(one is not None and one.judgement.metrics[0].samples > 0 for one in found)
    return Result(
        len(wanted), 1 + latency, series, int(queries), int(received), round(cpu, 3),
        round(own, 3), round(elapsed, 3), round(stop, 4), judged,
    )  # fmt: skip


@click.command()
@click.option("--rollouts", default=1000, show_default=True, help="Judged at once.")
@click.option("--ticks", default=3, show_default=True, help="Ticks to take the median of.")
@click.option("--latency/--no-latency", default=False, show_default=True, help="Judge it, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(rollouts: int, ticks: int, *, latency: bool, as_json: bool) -> None:
    """Measure what a whole tick of judging costs."""
    collect_rarely()  # as the operator's process does
    edges = tuple(map(float, LATENCY_EDGES_MS)) if latency else ()
    wanted = [replace(target, edges=edges) for target in targets(rollouts, latency=False)]
    size = max(1, rollouts // 10)
    parts = [wanted[i : i + size] for i in range(0, rollouts, size)]
    pages = [exported(part, latency=latency) for part in parts]
    count = sum(page.count(b"\n") for page in pages)
    with (
        tempfile.TemporaryDirectory(prefix="mooring-bench-") as folder,
        exporting(pages) as (address, *paths),
        prometheus(Path(folder), address, paths) as (url, _),
    ):
        series = _wait_for_series(url, count)
        result = asyncio.run(measure(url, pages, wanted, ticks, series, latency=latency))
    if as_json:
        click.echo(json.dumps({"machine": describe(), "run": asdict(result)}, indent=2))
        return
    title = f"One tick of the examiner, Prometheus {PROMETHEUS_VERSION}"
    show(title, {"median": asdict(result)})


if __name__ == "__main__":
    main()
