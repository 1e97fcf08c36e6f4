"""Many rollouts at once on a bare API server: created and Ready, then all at a 50 % candidate.

    python -m bench.scale --count 500

No kubelet and no controller manager run: the readiness of pods is faked by this program
(bench/cluster_fakes.py), and the weight is the ratio of pods (`router: replicas`), so no router has
to answer. Both are said in the output. Measured are the time until the last object is there, the
operator's CPU seconds and memory, its API requests per object by verb and kind, and what its probe
of liveness says meanwhile.

Beside it stand the figures of Argo Rollouts 1.9.0 (a controller in Go, without a traffic router) on
two cores, for the same two moves.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import yaml

from bench.apply import ROOT, Operator, operator, until, writes
from bench.cluster_fakes import DEPLOYMENTS, MODELS, Api, Json, Readiness, Statuses
from bench.machine import describe, show
from mooring_dev.control_plane import ControlPlane

#: Seconds and CPU seconds of both moves, requests per object, MiB: Argo Rollouts 1.9.0.
PEER: dict[int, tuple[float, float, float, float, float, float]] = {
    500: (17, 7.3, 35, 12.2, 39, 134),
    2000: (79, 33.6, 174, 62.6, 35, 286),
}
RESULTS = ROOT / "bench" / "results" / "scale.json"
_PATIENCE = 1800.0
_PROBE_SECONDS = 1.0
#: Seconds for what the last deletions are told by.
_EVENTS_FOLLOW = 10.0


@dataclass(frozen=True)
class Row:
    """What it cost: seconds, CPU seconds of the operator, MiB, requests.

    ``requests`` are those of both moves per object, by verb and kind. The probe of liveness was
    asked every second until all was aborted: how often it failed, and its slowest answer.
    ``again``: an operator that begins anew. ``again_ready_seconds`` is when its process leads with
    everything read, ``again_seconds`` when it has decided on each object.
    """

    count: int
    ready_seconds: float
    ready_cpu: float
    half_seconds: float
    half_cpu: float
    back_seconds: float
    back_cpu: float
    requests_per_object: float
    rss_mib: float
    idle_seconds: int
    idle_writes: int
    idle_cpu_share: float
    failed_probes: int
    slowest_probe_seconds: float
    load: float
    requests: dict[str, float] = field(default_factory=dict)
    again_ready_seconds: float = 0.0
    again_seconds: float = 0.0
    again_cpu: float = 0.0
    again_writes: int = 0
    again_rss_mib: float = 0.0


def resource(index: int, version: int) -> Json:
    """One ModelDeployment whose new revisions stop at half of the traffic."""
    digest = f"{index:08d}{version:056d}"
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": f"model-{index:05d}", "namespace": "default"},
        "spec": {
            "model": {"uri": f"s3://models/{index}/v{version}", "digest": f"sha256:{digest}"},
            "runtime": {"name": "bench", "resources": {"requests": {"cpu": "500m"}}},
            "replicas": 1,
            "traffic": {"router": "replicas"},
            "rollout": {"steps": [{"weight": 50}, {"pause": {}}]},
        },
    }


def is_ready(obj: Json) -> bool:
    """Whether the ModelDeployment says that it serves."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def at_half(obj: Json) -> bool:
    """Whether its candidate has half of the traffic, and waits."""
    rollout = (obj.get("status") or {}).get("rollout") or {}
    return bool(rollout.get("step") == 2 and rollout.get("stage") == "Waiting")


def rolled_back(obj: Json) -> bool:
    """Whether the candidate was taken back and stable has everything."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    back = any(c["type"] == "RolledBack" and c["status"] == "True" for c in conditions)
    return back and "rollout" not in obj["status"]


async def everywhere(api: Api, changes: list[tuple[str, str, Json, str]]) -> None:
    """Sends requests, sixteen at a time."""
    gate = asyncio.Semaphore(16)

    async def one(method: str, path: str, body: Json, content_type: str) -> None:
        async with gate:
            await api.send(method, path, body, content_type)

    async with asyncio.TaskGroup() as group:
        for change in changes:
            group.create_task(one(*change))


def patches(count: int, body: Any) -> list[tuple[str, str, Json, str]]:
    """A merge patch for every object; ``body`` makes it from the index."""
    path = MODELS.replace("modeldeployments", "namespaces/default/modeldeployments")
    return [
        ("PATCH", f"{path}/model-{i:05d}", body(i), "application/merge-patch+json")
        for i in range(count)
    ]


async def measure(api: Api, running: Operator, count: int, idle: int) -> Row:
    """All moves, one after the other."""
    statuses, readiness = Statuses(api), Readiness(api)
    path = MODELS.replace("modeldeployments", "namespaces/default/modeldeployments")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(statuses.run()), group.create_task(readiness.run())]
        with probed(running) as probe:
            before = await asyncio.to_thread(running.requests)
            created = [("POST", path, resource(i, 1), "application/json") for i in range(count)]
            ready = await _move(api, running, statuses, created, count, is_ready)
            model = [resource(i, 2)["spec"]["model"] for i in range(count)]
            changed = patches(count, lambda i: {"spec": {"model": model[i]}})
            half = await _move(api, running, statuses, changed, count, at_half)
            requests = await asyncio.to_thread(running.requests) - before
            rss = running.memory()[0]
            verbs = patches(count, lambda i: _abort(statuses.found[f"model-{i:05d}"]))
            back = await _move(api, running, statuses, verbs, count, rolled_back)
            load = os.getloadavg()[0]
        needless, share = await _idle(api, running, count, idle)
        for task in tasks:
            task.cancel()
    return Row(
        count, *ready, *half, *back, round(requests.total() / count, 1), round(rss, 1),
        idle, needless, share, probe.failed, round(probe.slowest, 2), round(load, 1),
        {f"{verb} {kind}": round(n / count, 2) for (verb, kind), n in sorted(requests.items())},
    )  # fmt: skip


@dataclass
class Probe:
    """What the operator's probe of liveness has answered."""

    failed: int = 0
    slowest: float = 0.0

    def ask(self, port: int) -> None:
        """Once, with patience."""
        started = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=120) as answer:
                answer.read()
        except OSError as error:
            self.failed += 1
            why = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
            click.echo(f"the probe of liveness failed: {why}", err=True)
        self.slowest = max(self.slowest, time.monotonic() - started)


@contextmanager
def probed(running: Operator) -> Iterator[Probe]:
    """The probe of liveness is asked every second meanwhile, as a kubelet does more seldom."""
    probe, over = Probe(), threading.Event()

    def ask() -> None:
        while not over.wait(_PROBE_SECONDS):
            probe.ask(running.port)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield probe
    finally:
        over.set()
        asking.join()


def _abort(obj: Json) -> Json:
    revision = obj["status"]["candidate"]["revision"]
    return {"metadata": {"annotations": {"mooring.dev/action": f"abort/{revision}/1"}}}


async def _move(
    api: Api, running: Operator, statuses: Statuses, changes: list[Any], count: int, holds: Any
) -> tuple[float, float]:
    started, cpu = time.monotonic(), running.cpu()
    await everywhere(api, changes)
    await statuses.all(count, holds, _PATIENCE)
    found = round(time.monotonic() - started, 1), round(running.cpu() - cpu, 2)
    click.echo(f"{holds.__name__}: {count} after {found[0]} s, {found[1]} s of CPU", err=True)
    return found


async def _idle(api: Api, running: Operator, count: int, seconds: int) -> tuple[int, float]:
    """Writes and the share of a core while nothing happens, after things have settled."""
    async with asyncio.timeout(_PATIENCE):
        while await api.count(DEPLOYMENTS) > count:  # pods that drain go later
            await asyncio.sleep(1)
    await asyncio.sleep(_EVENTS_FOLLOW)
    before, cpu = await asyncio.to_thread(running.requests), running.cpu()
    await asyncio.sleep(seconds)
    later: Counter[tuple[str, str]] = await asyncio.to_thread(running.requests) - before
    return writes(later), round((running.cpu() - cpu) / max(seconds, 1), 4)


def run(count: int, idle: int) -> Row:
    """One run on a control plane of its own."""
    with tempfile.TemporaryDirectory(prefix="mooring-scale-") as folder:
        where = Path(folder)
        with ControlPlane.start(where / "cp") as control_plane:
            control_plane.kubectl("apply", "-f", str(ROOT / "crds"))
            wait = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            control_plane.kubectl(*wait)
            runtime = yaml.safe_load((ROOT / "bench" / "runtime.yaml").read_text())
            control_plane.kubectl("apply", "-f", "-", input=json.dumps(runtime))
            with operator(control_plane, where / "operator.log") as running:

                async def measured() -> Row:
                    async with Api.of(control_plane.kubeconfig) as api:
                        return await measure(api, running, count, idle)

                row = asyncio.run(measured())
            return begun_anew(control_plane, where / "operator.log", row)


def begun_anew(control_plane: ControlPlane, log: Path, row: Row) -> Row:
    """The same with what a new process takes to know everything, and writes."""
    started = time.monotonic()
    with operator(control_plane, log, _PATIENCE) as running:
        ready = time.monotonic() - started
        until(
            lambda: (
                running.number("mooring_reconcile_total") >= row.count
                and running.number("mooring_queue_depth") == 0
            ),
            _PATIENCE,
            "the new operator did not come to rest",
        )
        seconds, cpu = time.monotonic() - started, running.cpu()
        time.sleep(10)
        return replace(
            row,
            again_ready_seconds=round(ready, 1),
            again_seconds=round(seconds, 1),
            again_cpu=round(cpu, 2),
            again_writes=writes(running.requests()),
            again_rss_mib=round(running.memory()[0], 1),
        )


@click.command()
@click.option("--count", "counts", multiple=True, default=(500,), show_default=True, type=int)
@click.option("--idle", default=60, show_default=True, help="Seconds to watch for needless writes.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--write/--no-write", default=False, help="Put them into bench/results/scale.json.")
def main(counts: tuple[int, ...], idle: int, as_json: bool, write: bool) -> None:
    """Measure many rollouts at once on a bare API server, readiness faked."""
    rows = []
    for count in counts:
        rows.append(run(count, idle))
        if write:
            _write(rows[-1])
    if as_json:
        data = {"machine": describe(), "faked": "pod readiness", "rows": [asdict(r) for r in rows]}
        click.echo(json.dumps(data, indent=2))
        return
    for row in rows:
        _show(row)


def _write(row: Row) -> None:
    """In the place of an earlier run with as many objects."""
    known = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    runs = [one for one in known if one["count"] != row.count]
    runs.append({"machine": describe(), **asdict(row)})
    runs.sort(key=lambda one: int(one["count"]))
    found = {"faked": "pod readiness", "runs": runs}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


def _show(row: Row) -> None:
    ours = {
        "created and Ready (s)": row.ready_seconds,
        "  operator's CPU for that (s)": row.ready_cpu,
        "all at a 50 % candidate (s)": row.half_seconds,
        "  operator's CPU for this (s)": row.half_cpu,
        "API requests per object, both moves": row.requests_per_object,
        "operator's RSS (MiB)": row.rss_mib,
        "all aborted, one revision left (s)": row.back_seconds,
        "  operator's CPU to get there (s)": row.back_cpu,
        f"writes in the {row.idle_seconds} s after": row.idle_writes,
        "CPU in that time, share of a core": f"{row.idle_cpu_share:.1%}",
        "probe of liveness failed, times": row.failed_probes,
        "  its slowest answer (s)": row.slowest_probe_seconds,
        "load of the machine": row.load,
        "operator begun anew: leads, everything read (s)": row.again_ready_seconds,
        "  every object decided on (s)": row.again_seconds,
        "  its CPU until then (s)": row.again_cpu,
        "  its writes": row.again_writes,
        "  its RSS (MiB)": row.again_rss_mib,
    }
    peer = dict.fromkeys(ours, "") | dict(zip(ours, PEER.get(row.count, ()), strict=False))
    show("Requests per object, by verb and kind, both moves", {"Mooring": dict(row.requests)})
    show(
        f"{row.count} ModelDeployments, API server without nodes, pods' readiness faked",
        {"Mooring": ours, "Argo Rollouts 1.9.0": peer},
    )


if __name__ == "__main__":
    main()
