"""Measures the ONNX server beside its peers, in one run on one machine.

    python -m bench.serving

Each server runs in an environment of its own, on one core (`taskset`), the load generator on the
other: wrk where it is installed, else the client of the ONNX server's own tools. All servers
answer the same request for the same model, and are measured in turns, so that a busy minute of the
machine falls on all of them. Two models: a tiny one of 30 features, where the server is what costs,
and one of about 5 ms, where the server should not be noticed; its bar is a bare loop around
onnxruntime on the same core. An answer that is not the model's ends the run.

Servers listen on loopback only, and everything is bounded in time and ends with the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.serving_models import EXPECTED, REQUEST, write_slow, write_tiny
from mooring_dev.paths import cache_root

ROOT = Path(__file__).resolve().parent.parent
COMPONENT = ROOT / "components" / "onnx-server"
PEERS = Path(__file__).resolve().parent / "peers"
RESULTS = Path(__file__).resolve().parent / "results" / "serving.json"
SERVER_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = 16
START_SECONDS = 90.0
# A core and a thread each: none of the libraries may take more.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_LIBRARIES = ["onnxruntime==1.31.1", "numpy", "orjson==3.13.0"]

console = Console()


@dataclass(frozen=True)
class Server:
    """How one server is started."""

    name: str
    requirements: tuple[str, ...]
    """Its own environment; empty for this one."""
    command: tuple[str, ...]
    environment: Mapping[str, str]


_OURS = (
    "-m", "mooring_onnx_server", "--model-name", "m", "--host", "127.0.0.1", "--port", "{port}",
    "--grpc-port", "0", "--intra-op-threads", "1", "--model-dir", "{folder}",
)  # fmt: skip
SERVERS = (
    Server("mooring-onnx-server", (), _OURS, {"PYTHONPATH": str(COMPONENT)}),
    Server(
        "the same, batching",
        (),
        (*_OURS, "--batch-max-rows", "16"),
        {"PYTHONPATH": str(COMPONENT)},
    ),
    Server(
        "MLServer 1.7.1",
        ("mlserver==1.7.1", "uvloop<0.22", *_LIBRARIES),
        ("-c", "from mlserver.cli import main; main()", "start", "{settings}"),
        {"PYTHONPATH": str(PEERS)},
    ),
    Server(
        "KServe 0.21.0",
        ("kserve==0.21.0", *_LIBRARIES),
        (str(PEERS / "kserve_server.py"),),
        {},
    ),
    Server(
        "starlette, bare",
        ("starlette==1.10.0", "uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.23.0", *_LIBRARIES),
        (str(PEERS / "starlette_app.py"),),
        {},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Round:
    """What one turn of load found."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of the server, for one request."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    pid: int
    url: str

    def cpu_seconds(self) -> float:
        """CPU time so far, of the process alone (none of the servers forks)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def python_of(server: Server) -> Path:
    """The interpreter of a server's own environment in the cache; made where it is missing.

    Raises:
        click.ClickException: it cannot be installed.
    """
    if not server.requirements:
        return Path(sys.executable)
    key = hashlib.sha256("\n".join(server.requirements).encode()).hexdigest()[:12]
    home = cache_root() / "peers" / key
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        console.print(f"installing {server.name} into the cache", style="dim")
        uv = str(Path(sys.executable).parent / "uv")
        shutil.rmtree(home, ignore_errors=True)
        for command in (
            [uv, "venv", "-q", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "-q", "--python", str(python), *server.requirements],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode != 0:
                raise click.ClickException(f"{server.name} cannot be installed: {done.stderr}")
        (home / ".ready").touch()
    return python


@contextmanager
def running(server: Server, folder: Path, logs: Path) -> Iterator[Running]:
    """Starts a server on its core and waits until it predicts what the model predicts.

    Raises:
        click.ClickException: it does not answer in time, or wrongly.
    """
    port = free_port()
    settings = _mlserver_settings(logs / f"{folder.name}-{port}", port)
    places = {"port": str(port), "folder": str(folder), "settings": str(settings)}
    command = [part.format(**places) for part in server.command]
    environment = {
        **os.environ, **_ONE_THREAD, **server.environment,
        "BENCH_MODEL": str(folder / "model.onnx"), "BENCH_PORT": str(port),
    }  # fmt: skip
    log = logs / f"{port}-{folder.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, str(python_of(server)), *command],
            env=environment, stdout=output, stderr=output, cwd=settings,
        )  # fmt: skip
        try:
            found = Running(server, process.pid, f"http://127.0.0.1:{port}/v2/models/m/infer")
            _wait(found, process, log)
            yield found
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _mlserver_settings(folder: Path, port: int) -> Path:
    """MLServer is set by files; this is its best configuration for one core."""
    folder.mkdir(parents=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "m",
        "implementation": "mlserver_model.OnnxModel",
        "platform": "onnx",
        "versions": ["1"],
        "parameters": {"version": "1"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 30]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


def _wait(server: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answer = ask(server.url)
            break
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                last = log.read_text(errors="replace")[-2000:]
                raise click.ClickException(
                    f"{server.server.name} does not answer:\n{last}"
                ) from None
            time.sleep(0.2)
    found = next(o["data"] for o in answer["outputs"] if o["name"] == "probabilities")
    if any(abs(a - b) > 1e-4 for a, b in zip(found, EXPECTED, strict=True)):
        raise click.ClickException(f"{server.server.name} answers {found}, not {EXPECTED}")


def ask(url: str) -> Any:
    """One prediction; OSError where it is not to be had."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, REQUEST, headers)  # noqa: S310  on loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  on loopback
        return json.load(answer)


def load(server: Running, seconds: float, files: Path) -> Round:
    """One turn of load.

    Raises:
        click.ClickException: not every request was answered by 200.
    """
    before = server.cpu_seconds()
    rate, p50, p99, count = (
        _wrk(server.url, seconds, files)
        if shutil.which("wrk")
        else _own(server.url, seconds, files)
    )
    cpu = server.cpu_seconds() - before
    return Round(round(rate, 1), p50, p99, round(cpu / count * 1e6, 1))


def _wrk(url: str, seconds: float, files: Path) -> tuple[float, float, float, float]:
    body = REQUEST.decode()
    script = files / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [[{body}]]\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    options = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "20s", "--latency")
    said = _run("wrk", *options, "-s", str(script), url)
    if re.search(r"Non-2xx|Socket errors| 0 requests in", said):
        raise click.ClickException(f"{url}: {said}")
    rate = float(re.findall(r"Requests/sec:\s+(\S+)", said)[0])
    count = float(re.findall(r"(\d+) requests in", said)[0])
    p50, p99 = (
        # At the line's beginning: the table above has percentages of its own.
        _milliseconds(re.findall(rf"^ +{q}% +(\S+) *$", said, re.MULTILINE)[0])
        for q in (50, 99)
    )
    return rate, p50, p99, count


def _own(url: str, seconds: float, files: Path) -> tuple[float, float, float, float]:
    body = files / "request.json"
    body.write_bytes(REQUEST)
    said = _run(
        sys.executable, str(COMPONENT / "tools" / "bench.py"), url, "--body", str(body),
        "--connections", str(CONNECTIONS), "--seconds", str(seconds),
    )  # fmt: skip
    found = re.match(r"(\S+) requests/s, (\d+) errors, p50 (\S+) ms, p99 (\S+) ms", said)
    if not found or found[2] != "0":
        raise click.ClickException(f"{url}: {said}")
    rate = float(found[1])
    return rate, float(found[3]), float(found[4]), rate * seconds


def _run(*command: str) -> str:
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, *command],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return round(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], 3)


_LOOP = """
import json, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = {"x": np.array(json.loads(sys.argv[2])["inputs"][0]["data"], np.float32).reshape(1, -1)}
until = time.perf_counter() + 0.5
while time.perf_counter() < until:
    session.run(None, x)
count, began = 0, time.perf_counter()
while (elapsed := time.perf_counter() - began) < float(sys.argv[3]):
    session.run(None, x)
    count += 1
print(count / elapsed)
"""


def loop(folder: Path, seconds: float) -> float:
    """Runs a second of a bare loop on the servers' core: what a server cannot exceed."""
    arguments = [str(folder / "model.onnx"), REQUEST.decode(), str(seconds)]
    done = subprocess.run(
        ["taskset", "-c", SERVER_CORE, sys.executable, "-c", _LOOP, *arguments],
        env={**os.environ, **_ONE_THREAD}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return float(done.stdout)


def measure(folder: Path, rounds: int, seconds: float, files: Path) -> dict[str, Any]:
    """All servers with one model, in turns."""
    loops: list[float] = []
    found: dict[str, list[Round]] = {server.name: [] for server in SERVERS}
    with ExitStack() as stack:
        started = [stack.enter_context(running(server, folder, files)) for server in SERVERS]
        for server in started:
            load(server, 2.0, files)
        for _ in range(rounds):
            loops.append(loop(folder, seconds))
            for server in started:
                found[server.server.name].append(load(server, seconds, files))
    return {
        "loop_per_second": round(statistics.median(loops), 1),
        "loops": [round(value, 1) for value in loops],
        "servers": {name: _summary(turns, loops) for name, turns in found.items()},
    }


def _summary(turns: list[Round], loops: list[float]) -> dict[str, Any]:
    medians = {
        name: round(statistics.median(getattr(turn, name) for turn in turns), 3)
        for name in ("requests_per_second", "p50_ms", "p99_ms", "cpu_us")
    }
    # Turn by turn, since the machine's own speed changes between turns.
    shares = [turn.requests_per_second / bare for turn, bare in zip(turns, loops, strict=True)]
    return {
        **medians,
        "share_of_loop": round(statistics.median(shares), 3),
        "turns": [asdict(turn) for turn in turns],
    }


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Turns of each server and model.")
@click.option("--seconds", default=4.0, show_default=True, help="Load in each turn.")
@click.option("--write/--no-write", default=False, help="Write bench/results/serving.json.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def main(rounds: int, seconds: float, write: bool, output: str) -> None:
    """Measure the ONNX server and its peers with a tiny model and one of about 5 ms."""
    if (os.cpu_count() or 1) < 2:
        raise click.ClickException("two cores are needed: one for the server, one for the load")
    with tempfile.TemporaryDirectory(prefix="mooring-serving-") as name:
        files = Path(name)
        tiny, slow = write_tiny(files / "tiny"), write_slow(files / "slow")
        for server in SERVERS:
            python_of(server)
        result: dict[str, Any] = {
            "machine": _machine(),
            "load": f"{'wrk' if shutil.which('wrk') else 'own client'}, {CONNECTIONS} connections, "
            f"{rounds} turns of {seconds:g} s",
            "tiny": measure(tiny, rounds, seconds, files),
            "slow": measure(slow, rounds, seconds, files),
        }
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    if output == "json":
        click.echo(json.dumps(result, indent=2))
    else:
        _show(result)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    uname = os.uname()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model}), {memory:.0f} GiB, "
        f"{uname.sysname} {uname.release.split('-')[0]}, Python {sys.version.split()[0]}, "
        f"load average before {os.getloadavg()[0]:.1f}"
    )


def _show(result: dict[str, Any]) -> None:
    for key, title in (("tiny", "30 features"), ("slow", "about 5 ms")):
        found = result[key]
        table = Table(title=f"{title}: bare loop {found['loop_per_second']:,.0f} a second")
        table.add_column("server", no_wrap=True)
        for column in ("requests/s", "of the loop", "p50 ms", "p99 ms", "CPU µs each"):
            table.add_column(column, justify="right")
        for name, row in found["servers"].items():
            table.add_row(
                name, f"{row['requests_per_second']:,.0f}", f"{row['share_of_loop']:.0%}",
                f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['cpu_us']:,.0f}",
            )  # fmt: skip
        console.print(table)
    console.print(f"{result['load']}; {result['machine']}")


if __name__ == "__main__":
    main()
