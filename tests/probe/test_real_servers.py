"""`mooring probe` against other people's servers: what they are known to do otherwise, it finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.serving import SERVERS, free_port, running
from bench.serving_models import write_tiny
from tests.probe.test_probe import found, with_result

from mooring_dev.paths import cache_root

pytestmark = pytest.mark.slow

_DEBIAN_PYTHON = "/usr/bin/python3"
_START_SECONDS = 120.0


def test_mlserver_answers_wrong_requests_by_500_and_gives_every_output(tmp_path: Path) -> None:
    mlserver = next(server for server in SERVERS if server.name.startswith("MLServer"))
    with running(mlserver, write_tiny(tmp_path / "tiny"), tmp_path) as server:
        url = server.url.partition("/v2")[0]
        code, points = found(url, "--model", "m")
    assert code == 1
    assert with_result(points, "failed") == {
        "infer, outputs",
        "wrong input name",
        "wrong shape",
        "wrong datatype",
        "missing input",
        "not JSON",
    }
    assert with_result(points, "skipped") == {"binary input", "binary output"}


_HANDLER = """
def handle(data, context):
    if data is None:
        return None
    answers = []
    for row in data:
        request = row.get("body", row)
        total = sum(request["inputs"][0]["data"])
        output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [total]}
        answers.append(
            {"model_name": "m", "model_version": "1.0", "id": request.get("id"),
             "outputs": [output]}
        )
    return answers
"""


def torchserve_environment() -> Path:
    """TorchServe from its package upon Debian's PyTorch, in the cache."""
    if shutil.which("java") is None:
        pytest.skip("TorchServe needs Java: apt-get install openjdk-17-jre-headless")
    asked = [_DEBIAN_PYTHON, "-c", "import torch"]
    if subprocess.run(asked, check=False, capture_output=True).returncode != 0:
        pytest.skip("TorchServe's workers need PyTorch: apt-get install python3-torch")
    home = cache_root() / "peers" / "torchserve-0.12.0"
    if not (home / ".ready").exists():
        uv = Path(sys.executable).parent / "uv"
        shutil.rmtree(home, ignore_errors=True)
        packages = ["torchserve==0.12.0", "torch-model-archiver==0.12.0", "pyyaml", "setuptools<80"]
        for command in (
            [uv, "venv", "-q", "--system-site-packages", "--python", _DEBIAN_PYTHON, home],
            [uv, "pip", "install", "-q", "--python", home / "bin/python", *packages],
        ):
            subprocess.run(list(map(str, command)), check=True, timeout=600)
        (home / ".ready").touch()
    return home


@contextmanager
def torchserve(folder: Path) -> Iterator[str]:
    """TorchServe with one model in its own Open Inference Protocol mode; its URL."""
    home = torchserve_environment()
    (folder / "handler.py").write_text(_HANDLER)
    environment = {
        **os.environ,
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
        "TEMP": str(folder),
        "TS_OPEN_INFERENCE_PROTOCOL": "oip",
    }
    archive = ["torch-model-archiver", "--model-name", "m", "--version", "1.0"]
    archive += ["--handler", "handler.py", "--export-path", "."]
    subprocess.run(
        [str(home / "bin" / archive[0]), *archive[1:]], cwd=folder, env=environment, check=True
    )
    ports = [free_port() for _ in range(5)]
    names = ("inference_address", "management_address", "metrics_address")
    lines = [f"{n}=http://127.0.0.1:{p}" for n, p in zip(names, ports, strict=False)]
    lines += [f"grpc_inference_port={ports[3]}", f"grpc_management_port={ports[4]}"]
    lines += ["disable_token_authorization=true", "default_workers_per_model=1"]
    lines += ["disable_system_metrics=true"]
    (folder / "config.properties").write_text("\n".join(lines))
    command = ["torchserve", "--start", "--foreground", "--ncs", "--model-store=."]
    command += ["--models", "m=m.mar", "--ts-config=config.properties"]
    with (folder / "torchserve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(home / "bin" / command[0]), *command[1:]],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for_worker(f"http://127.0.0.1:{ports[1]}/models/m", process)
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def wait_for_worker(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer)[0]["workers"][0]["status"] == "READY":
                    return
        except (OSError, LookupError):
            pass
        time.sleep(0.2)
    raise AssertionError("TorchServe has no worker that is ready")


def test_torchserve_is_live_predicts_and_lacks_the_rest(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.5, 2]}
    request.write_text(json.dumps({"inputs": [tensor]}))
    with torchserve(tmp_path) as url:
        code, points = found(url, "--model", "m", "--input", str(request))
    assert code == 1
    assert {"server live", "server ready", "infer", "infer, id"} <= with_result(points, "ok")
    # It writes "extenstion", has no metadata without version, and answers in a form of its own.
    assert {
        "server metadata",
        "model metadata",
        "unknown model, metadata",
        "not JSON",
    } <= with_result(points, "failed")
