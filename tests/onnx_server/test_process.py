"""The server as Kubernetes sees it: a process with flags, signals, last words and an exit code."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.onnx_server import graphs
from tests.onnx_server.servers import Server, server

pytestmark = pytest.mark.process

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
QUICK = ("--quiet-seconds", "0.2")


def laborious(steps: int) -> dict[str, Any]:
    return {"inputs": [{"name": "steps", "shape": [1], "datatype": "INT64", "data": [steps]}]}


# --- starting -------------------------------------------------------------------------------


def test_a_started_server_answers_predictions(linear_server: Server) -> None:
    answer = linear_server.infer("m", id="7", inputs=[X])
    assert answer.status_code == 200
    assert answer.json()["id"] == "7"
    assert answer.json()["outputs"][0]["data"] == pytest.approx([4.1, -4.1])


def test_flags_can_be_given_by_the_environment(tmp_path: Path) -> None:
    graphs.linear(tmp_path / "model.onnx")
    env = {"MOORING_ONNX_INTRA_OP_THREADS": "3", "MOORING_ONNX_WARMUP_RUNS": "0"}
    with server(tmp_path, env=env) as running:
        settings = running.said(r"intra_op_threads=(\d+)\b.* warmup_runs=(\d+)\b")
    assert settings.groups() == ("3", "0")


def unwritable(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"not a model")
    return folder


def sparse_weights(folder: Path) -> Path:
    length = 2**31 - 4096
    graphs.with_external_data(folder / "model.onnx", "weights.bin", b"", length=length)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(length)
    return folder


FAILURES: list[tuple[str, Callable[[Path], Path], tuple[str, ...], str]] = [
    ("no folder", lambda f: f / "absent", (), "the model folder .* cannot be read"),
    ("corrupt", unwritable, (), "is not an ONNX model, or it is cut short"),
    (
        "out of memory",
        sparse_weights,
        ("prlimit", f"--as={2**31}"),
        r"out of memory while loading model\.onnx",
    ),
]


@pytest.mark.parametrize(
    ("make", "prefix", "said"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_a_model_that_cannot_be_served_ends_the_process_with_the_reason_last(
    tmp_path: Path, make: Callable[[Path], Path], prefix: tuple[str, ...], said: str
) -> None:
    with server(make(tmp_path), prefix=prefix, model="fraud") as running:
        assert running.end() == 1
    assert running.said(f"^model 'fraud' cannot be served: .*{said}")[0] in running.lines[-1]
    assert not any("Traceback" in line for line in running.lines)


def test_with_debug_the_traceback_is_shown_before_the_reason(tmp_path: Path) -> None:
    with server(tmp_path, "--debug") as running:
        assert running.end() == 1
    assert any("Traceback" in line for line in running.lines)
    assert running.lines[-1].startswith("model 'm' cannot be served: no .onnx file")


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with server(tmp_path, "--port", port) as running:
            assert running.end() == 1
    assert running.said(f"cannot listen on port {port} .*Address already in use")[0]
    assert running.lines[-1].endswith("give another --port or --host")


def test_a_wrong_flag_is_exit_code_2(tmp_path: Path) -> None:
    with server(tmp_path, "--intra-op-threads", "0") as running:
        assert running.end() == 2
    assert "--intra-op-threads" in running.lines[-1]


def test_nothing_is_written_to_any_file(tmp_path: Path) -> None:
    # A file size limit of 0 kills a process at its first byte into a file: a read-only root
    # filesystem without the filesystem.
    graphs.scikit_classifier(tmp_path / "model.onnx")
    env = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    with server(tmp_path, *QUICK, env=env, prefix=("prlimit", "--fsize=0")) as running:
        assert running.ready().infer("m", inputs=[X]).status_code == 200
        running.terminate()
        assert running.end() == 0


# --- over the wire --------------------------------------------------------------------------


def test_a_body_over_the_limit_is_answered_413_before_it_is_all_sent(
    linear_server: Server,
) -> None:
    with httpx.Client(base_url=linear_server.url, verify=False) as client:
        announced = client.post("/v2/models/m/infer", content=b"x" * 5_000_000)
        unannounced = client.post("/v2/models/m/infer", content=iter([b"x" * 90_000] * 3))
    assert (announced.status_code, unannounced.status_code) == (413, 413)
    assert announced.headers["connection"] == "close"


def test_a_body_in_pieces_is_one_body(linear_server: Server) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    pieces = iter([body[:10], body[10:40], body[40:]])
    answer = httpx.post(f"{linear_server.url}/v2/models/m/infer", content=pieces, verify=False)
    assert answer.status_code == 200


def test_a_client_that_goes_away_in_mid_body_is_counted_as_499(linear_server: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(linear_server.url.rpartition(":")[2]))) as s:
        s.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    wanted = 'mooring_onnx_request_duration_seconds_count{code="499",model="m"} 1.0'
    deadline = time.monotonic() + 20
    with httpx.Client(base_url=linear_server.url, verify=False) as client:
        while wanted not in client.get("/metrics").text:
            assert time.monotonic() < deadline
    assert linear_server.infer("m", inputs=[X]).status_code == 200


def test_what_is_not_http_is_400_and_the_server_lives(linear_server: Server) -> None:
    with socket.create_connection(("127.0.0.1", int(linear_server.url.rpartition(":")[2]))) as s:
        s.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 400")
    assert linear_server.infer("m", inputs=[X]).status_code == 200


# --- stopping -------------------------------------------------------------------------------


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_health_answers_while_a_slow_prediction_runs_and_the_stop_waits_for_it(
    tmp_path: Path,
) -> None:
    graphs.laborious(tmp_path / "model.onnx")
    with server(tmp_path, *QUICK, "--parallel-runs", "1") as running:
        running.ready()
        async with httpx.AsyncClient(base_url=running.url, timeout=30, verify=False) as client:
            slow = asyncio.create_task(client.post("/v2/models/m/infer", json=laborious(60_000)))

            async def in_flight() -> bool:
                text = (await client.get("/metrics")).text
                return 'mooring_onnx_requests_in_flight{model="m"} 1.0' in text

            await until(in_flight)
            assert (await client.get("/v2/health/live")).status_code == 200
            running.terminate()

            async def unready() -> bool:
                return (await client.get("/v2/health/ready")).status_code == 503

            await until(unready)
            assert not slow.done()
            assert (await client.get("/v2/health/live")).status_code == 200
            answer = await slow
        assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [64])
        assert answer.headers["connection"] == "close"
        assert await asyncio.to_thread(running.end) == 0


async def test_what_is_in_flight_after_the_grace_period_is_cut_and_the_exit_is_prompt(
    tmp_path: Path,
) -> None:
    graphs.laborious(tmp_path / "model.onnx")
    with server(tmp_path, "--grace-seconds", "0.3") as running:
        running.ready()
        async with httpx.AsyncClient(base_url=running.url, timeout=30, verify=False) as client:
            endless = asyncio.create_task(client.post("/v2/models/m/infer", json=laborious(10**12)))

            async def in_flight() -> bool:
                text = (await client.get("/metrics")).text
                return 'mooring_onnx_requests_in_flight{model="m"} 1.0' in text

            await until(in_flight)
            running.terminate()
            began = time.monotonic()
            assert await asyncio.to_thread(running.end) == 0
            assert time.monotonic() - began < 10
            answer = await endless
    assert answer.status_code == 503
    assert "the server stopped before this request was done" in answer.json()["error"]
    assert "cutting 1 requests in flight" in "\n".join(running.lines)


async def test_a_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    """Two pods behind a Service; one is stopped and leaves the Service once it is unready.

    Clients keep their connections, as clients do, and open new ones to any endpoint. The old
    pod waits longer than any of them may hesitate between choosing it and sending.
    """
    graphs.linear(tmp_path / "model.onnx")
    patient = ("--quiet-seconds", "2.5")
    with server(tmp_path, *patient) as old, server(tmp_path, *patient) as new:
        endpoints = [old.ready().url, new.ready().url]
        answers: list[int] = []
        stop = asyncio.Event()

        async def client(number: int) -> None:
            async with httpx.AsyncClient(timeout=30, verify=False) as http:
                turn = number
                while not stop.is_set():
                    turn += 1
                    url = endpoints[turn % len(endpoints)]
                    answer = await http.post(f"{url}/v2/models/m/infer", json={"inputs": [X]})
                    answers.append(answer.status_code)

        clients = [asyncio.create_task(client(n)) for n in range(6)]

        async def enough() -> bool:
            return len(answers) > 100

        await until(enough)
        old.terminate()
        async with httpx.AsyncClient(timeout=30, verify=False) as kubelet:

            async def unready() -> bool:
                return (await kubelet.get(f"{old.url}/v2/models/m/ready")).status_code == 503

            await until(unready)
            during = len(answers)

            async def still_served() -> bool:
                return len(answers) > during + 30

            await until(still_served)
        del endpoints[0]
        assert await asyncio.to_thread(old.end) == 0
        after = len(answers)

        async def served_on() -> bool:
            return len(answers) > after + 50

        await until(served_on)
        stop.set()
        await asyncio.gather(*clients)
        assert set(answers) == {200}
