"""Applies many ModelDeployments to a bare API server and measures what they cost.

    python -m bench.apply --count 200

There is no kubelet and no controller manager: Deployments stay without pods, which is said in the
output. Measured are the time until every child of every object is present, the API requests per
object by verb, the writes while nothing happens, and the operator's CPU and memory. With
``--kill`` the operator is killed half-way and started again, and the end state is compared with
that of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from bench.machine import describe
from mooring_dev.control_plane import ControlPlane
from mooring_dev.processes import running_pid

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = (
    "controllerrevisions.apps", "configmaps", "serviceaccounts", "networkpolicies",
    "poddisruptionbudgets", "services", "deployments",
)  # fmt: skip
CHILDREN_PER_OBJECT = 8  # two Services
_SELECTOR = "app.kubernetes.io/managed-by=mooring"
_READS = ("get", "list", "watch", "discover")
#: A time, and a hash over it: they differ from run to run.
_GIVEN = ("mooring.dev/routed-since", "mooring.dev/fingerprint")
_METRIC = re.compile(r"^mooring_api_requests_total\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)

console = Console()


@dataclass(frozen=True)
class Operator:
    """A running operator process and how to ask it."""

    process: subprocess.Popen[bytes]
    port: int

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def requests(self) -> Counter[tuple[str, str]]:
        """Requests so far, by verb and kind."""
        found: Counter[tuple[str, str]] = Counter()
        for match in _METRIC.finditer(self.metrics()):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            found[labels["verb"], labels["kind"]] += int(float(match["value"]))
        return found

    def created(self) -> int:
        """Objects that its applies have brought into being."""
        return sum(
            int(float(match["value"]))
            for match in _METRIC.finditer(self.metrics())
            if 'verb="apply"' in match["labels"] and 'code="201"' in match["labels"]
        )

    def number(self, name: str) -> float:
        """A metric, all its labels together."""
        line = re.compile(rf"^{name}(\{{.*\}})? (\S+)$", re.MULTILINE)
        return sum(float(match[2]) for match in line.finditer(self.metrics()))

    def memory(self) -> tuple[float, float]:
        """Resident memory now and at its highest, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return tuple(  # type: ignore[return-value]
            int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
            for name in ("VmRSS", "VmHWM")
        )

    def cpu(self) -> float:
        """CPU seconds so far, user and system."""
        return _cpu(self.process.pid)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_cpu(control_plane: ControlPlane) -> float:
    """CPU seconds of the API server and etcd so far: the part that nobody can optimise here."""
    pids = (running_pid(control_plane.directory / "pids" / n) for n in ("kube-apiserver", "etcd"))
    return sum(_cpu(pid) for pid in pids if pid is not None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def operator(control_plane: ControlPlane, log: Path, patience: float = 25.0) -> Iterator[Operator]:
    """Runs the operator as a process of its own, with its Lease, for ``patience`` seconds at most
    until it leads.
    """
    port = _free_port()
    config = log.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"port": port}))
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mooring", "run", "--config", str(config),
             "--kubeconfig", str(control_plane.kubeconfig)],
            stdout=out, stderr=out, cwd=ROOT / "operator",
        )  # fmt: skip
    running = Operator(process, port)
    try:
        until(
            lambda: _leads(running, log),
            patience,
            lambda: "the operator does not lead: " + log.read_text()[-3000:],
        )
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _leads(running: Operator, log: Path) -> bool:
    if running.process.poll() is not None:
        last = "\n".join(log.read_text().splitlines()[-15:])
        raise click.ClickException(f"the operator has ended; its log:\n{last}")
    try:
        return "mooring_leader 1.0" in running.metrics()
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float, message: str | Callable[[], str]) -> float:
    """Waits for the condition and returns for how long; raises ClickException with the message."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if condition():
            return time.monotonic() - started
        time.sleep(0.2)
    raise click.ClickException(message if isinstance(message, str) else message())


def manifests(count: int) -> str:
    """``count`` ModelDeployments and the runtime that they name."""
    runtime = yaml.safe_load((ROOT / "bench" / "runtime.yaml").read_text())
    objects = [runtime]
    objects += [
        {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": f"model-{i:04d}", "namespace": "default"},
            "spec": {
                "model": {"uri": f"s3://models/{i}/v1", "format": {"name": "onnx"}},
                "runtime": {"name": "bench", "resources": {"requests": {"cpu": "500m"}}},
                "traffic": {"router": "replicas"},
                "replicas": 1,
            },
        }
        for i in range(count)
    ]
    return str(yaml.dump_all(objects, Dumper=yaml.CSafeDumper))


def present(control_plane: ControlPlane) -> int:
    """Children present, all kinds together."""
    return sum(
        len(control_plane.kubectl("get", kind, "-l", _SELECTOR, "-o", "name", "-A").split())
        for kind in CHILDREN
    )


def end_state(control_plane: ControlPlane) -> dict[str, Any]:
    """Every child without what differs from run to run (uids, versions, times)."""
    found = {}
    for kind in CHILDREN:
        listed = json.loads(control_plane.kubectl("get", kind, "-l", _SELECTOR, "-A", "-o", "json"))
        for item in listed["items"]:
            meta = item["metadata"]
            spec = item.get("spec", {})
            for assigned in ("clusterIP", "clusterIPs"):
                if spec.get(assigned) not in ("None", ["None"]):
                    spec.pop(assigned, None)
            found[f"{kind}/{meta['name']}"] = {
                "labels": meta.get("labels"),
                "annotations": {k: v for k, v in meta.get("annotations", {}).items()
                                if k not in _GIVEN},
                "spec": spec,
                "data": item.get("data"),
            }  # fmt: skip
    return found


@dataclass(frozen=True)
class Result:
    """What one run cost. Seconds, CPU seconds, MiB, requests; ``load`` is that of one minute."""

    count: int
    killed: bool
    seconds: float
    start_cpu_seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    load: float
    rss_mib: float
    peak_rss_mib: float
    writes_per_object: float
    reads_per_object: float
    events_per_object: float
    idle_seconds: int
    idle_writes: int
    idle_writes_to: str


def run(count: int, idle: int, *, kill: bool) -> tuple[Result, dict[str, Any]]:
    """One run on a control plane of its own."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as folder:
        where = Path(folder)
        log = where / "operator.log"
        with ControlPlane.start(where / "cp") as control_plane:
            control_plane.kubectl("apply", "-f", str(ROOT / "crds"))
            control_plane.kubectl(
                "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"
            )
            text = manifests(count)
            return _measure(control_plane, text, log, count, idle, kill=kill)


def _measure(
    control_plane: ControlPlane, text: str, log: Path, count: int, idle: int, *, kill: bool
) -> tuple[Result, dict[str, Any]]:  # fmt: skip
    wanted = count * CHILDREN_PER_OBJECT
    server = server_cpu(control_plane)
    with operator(control_plane, log) as running:
        start = running.cpu()
        started = time.monotonic()
        control_plane.kubectl("apply", "-f", "-", input=text)
        if kill:
            # By its own count: asking the API server takes so long that it would be done by then.
            until(lambda: running.created() >= wanted // 2, 120, "half-way was not reached")
            running.process.kill()
            running.process.wait()
        else:
            seconds, requests = _wait_for(control_plane, running, wanted, started, found=False)
            before = (start, server)
            return _idle(control_plane, running, seconds, before, requests, count, idle)
    with operator(control_plane, log) as running:
        before = (running.cpu(), server)
        seconds, requests = _wait_for(control_plane, running, wanted, started, found=True)
        result, state = _idle(control_plane, running, seconds, before, requests, count, idle)
        return Result(**{**asdict(result), "killed": True}), state


def _wait_for(
    control_plane: ControlPlane, running: Operator, wanted: int, started: float, *, found: bool
) -> tuple[float, Counter[tuple[str, str]]]:
    # Polling by the operator's own count costs the machine next to nothing; what is believed is
    # the API server's. An operator that found some of them made counts only its own.
    if not found:
        until(lambda: running.created() >= wanted, 120, "not every child came to be")
    until(lambda: present(control_plane) >= wanted, 120, "not every child came to be")
    seconds = time.monotonic() - started
    time_of_quiet = 0
    before = running.requests()
    while time_of_quiet < 3:  # statuses and events follow the children
        time.sleep(1)
        now = running.requests()
        time_of_quiet = time_of_quiet + 1 if writes(now) == writes(before) else 0
        before = now
    return seconds, before


def _idle(
    control_plane: ControlPlane, running: Operator, seconds: float, before: tuple[float, float],
    requests: Counter[tuple[str, str]], count: int, idle: int,
) -> tuple[Result, dict[str, Any]]:  # fmt: skip
    start, server = before
    cpu, server = running.cpu(), server_cpu(control_plane) - server
    load = os.getloadavg()[0]
    time.sleep(idle)
    after = running.requests()
    rss, peak = running.memory()
    result = Result(
        count=count,
        killed=False,
        seconds=round(seconds, 2),
        start_cpu_seconds=round(start, 2),
        cpu_seconds=round(cpu, 2),
        server_cpu_seconds=round(server, 2),
        load=round(load, 1),
        rss_mib=round(rss, 1),
        peak_rss_mib=round(peak, 1),
        writes_per_object=round(writes(requests) / count, 2),
        reads_per_object=round(
            sum(n for (verb, _), n in requests.items() if verb in _READS) / count, 2
        ),
        events_per_object=round(
            sum(n for (_, kind), n in requests.items() if kind == "Event") / count, 2
        ),
        idle_seconds=idle,
        idle_writes=writes(after - requests),
        idle_writes_to=", ".join(f"{n} {v} {kind}" for v, kind, n in _written(after - requests)),
    )
    return result, end_state(control_plane)


def writes(requests: Counter[tuple[str, str]]) -> int:
    """Writes to anything but Events; Lease renewals are not among the counted requests."""
    return sum(n for _, _, n in _written(requests))


def _written(requests: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """Those writes by verb and kind."""
    return [
        (verb, kind, n)
        for (verb, kind), n in sorted(requests.items())
        if verb not in _READS and kind != "Event"
    ]


@click.command()
@click.option("--count", default=200, show_default=True, help="ModelDeployments to apply.")
@click.option("--idle", default=60, show_default=True, help="Seconds to watch for needless writes.")
@click.option(
    "--kill/--no-kill", default=False, help="Also kill the operator half-way, and compare."
)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(count: int, idle: int, kill: bool, as_json: bool) -> None:
    """Measure the cost of many ModelDeployments on a bare API server."""
    result, undisturbed = run(count, idle, kill=False)
    results = [result]
    same = None
    if kill:
        killed, state = run(count, 5, kill=True)
        results.append(killed)
        same = state == undisturbed
    if as_json:
        click.echo(json.dumps({"machine": describe(), "runs": [asdict(r) for r in results],
                               "same_end_state": same}, indent=2))  # fmt: skip
    else:
        _show(results, same)
    if same is False:
        raise click.ClickException("the end state after a kill differs from the undisturbed one")


def _show(results: list[Result], same: bool | None) -> None:
    table = Table(title=f"{results[0].count} ModelDeployments, API server without nodes: no pods")
    table.add_column("")
    for result in results:
        table.add_column("killed half-way" if result.killed else "undisturbed", justify="right")
    rows = {
        f"all {CHILDREN_PER_OBJECT} children of each present (s)": "seconds",
        "operator's CPU until quiet (s)": "cpu_seconds",
        "  of it before the first object": "start_cpu_seconds",
        "API server's and etcd's CPU (s)": "server_cpu_seconds",
        "load of the machine at that time": "load",
        "operator's RSS (MiB)": "rss_mib",
        "operator's peak RSS (MiB)": "peak_rss_mib",
        "API writes per object, without Events and Lease": "writes_per_object",
        "API reads per object": "reads_per_object",
        "Event writes per object": "events_per_object",
        "seconds watched afterwards": "idle_seconds",
        "writes in that time": "idle_writes",
        "  to": "idle_writes_to",
    }
    for title, name in rows.items():
        table.add_row(title, *(str(getattr(result, name)) for result in results))
    console.print(table)
    if same is not None:
        console.print(f"same end state after the kill: {'yes' if same else 'NO'}")
    console.print(describe())


if __name__ == "__main__":
    main()
