"""Requests that arrive whole are answered at once, and as all others are: asked both ways."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.onnx_server import graphs
from tests.onnx_server.conftest import App
from uvicorn.server import ServerState

from mooring_onnx_server.state import Phase
from mooring_onnx_server.whole import MAX_BYTES, protocol_for

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
GOOD = json.dumps({"id": "7", "inputs": [X]}).encode()
PATH = "/v2/models/m/infer"


def request(
    body: bytes = GOOD, *headers: str, path: str = PATH, line: str = "POST {} HTTP/1.1"
) -> bytes:
    head = [line.format(path), "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Wire(asyncio.Transport):
    """A connection's other end."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    @property
    def said(self) -> bytes:
        return b"".join(self.writes)

    @property
    def answers(self) -> int:
        return self.said.count(b"HTTP/1.1 ") - self.said.count(b"HTTP/1.1 100")


class Connection:
    """One connection to an application: with the short way, or as uvicorn has it."""

    def __init__(self, app: App, *, short: bool = True) -> None:
        config = uvicorn.Config(
            app.application,
            http=protocol_for(app.application) if short else "httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
        )
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        self.wire = Wire()
        self.protocol: Any = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=state, app_state={}
        )
        self.protocol.connection_made(self.wire)

    async def ask(self, *parts: bytes, answers: int = 1) -> bytes:
        """All that is said after these bytes, each part read by itself."""
        for part in parts:
            if not self.wire.closed:
                self.protocol.data_received(part)
        async with asyncio.timeout(20):
            while self.wire.answers < answers:
                await asyncio.sleep(0)
        return self.wire.said


@pytest.fixture
def ready(app: Callable[[Callable[[Path], Path]], App]) -> App:
    """An application whose model is known to be quick."""
    made = app(graphs.linear)
    made.service.loaded().engine._typical_seconds = 0.0  # type: ignore[attr-defined]
    return made


ASKED = {
    "a prediction": request(),
    "with the version": request(path="/v2/models/m/versions/1/infer"),
    "outputs as bytes": request(
        json.dumps({"inputs": [X], "parameters": {"binary_data_output": True}}).encode()
    ),
    "not JSON": request(b"{"),
    "nothing": request(b""),
    "another type": request(json.dumps({"inputs": [{**X, "datatype": "INT8"}]}).encode()),
    "another model": request(path="/v2/models/other/infer"),
    "a query": request(path=f"{PATH}?x=1"),
    "another method": request(b"", line="GET {} HTTP/1.1"),
    "metadata": request(b"", path="/v2/models/m", line="GET {} HTTP/1.1"),
    "compressed": request(GOOD, "Content-Encoding: gzip"),
    "with a length of JSON": request(GOOD, f"Inference-Header-Content-Length: {len(GOOD)}"),
    "a wrong length of JSON": request(GOOD, "Inference-Header-Content-Length: x"),
    "large": request(GOOD + b" " * MAX_BYTES),
    "the last": request(GOOD, "Connection: close"),
    "of old": request(line="POST {} HTTP/1.0"),
    "in chunks": b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
    b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
    "too large": b"POST " + PATH.encode() + b" HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
async def test_an_answer_is_the_same_whichever_way_it_is_made(ready: App, asked: bytes) -> None:
    usual, short, split = (Connection(ready, short=short) for short in (False, True, True))
    expected = await usual.ask(asked)
    assert await short.ask(asked) == expected
    middle = len(asked) - 1
    assert await split.ask(asked[:middle], asked[middle:]) == expected
    assert short.wire.closed == split.wire.closed == usual.wire.closed


async def test_a_prediction_that_came_whole_is_answered_before_anything_else_happens(
    ready: App,
) -> None:
    connection = Connection(ready)
    connection.protocol.data_received(request())
    assert connection.wire.answers == 1
    assert len(connection.wire.writes) == 1
    assert ready.state.in_flight == 0


async def test_one_that_comes_in_parts_counts_as_in_flight_from_its_headers_on(ready: App) -> None:
    connection = Connection(ready)
    connection.protocol.data_received(request()[:-1])
    await asyncio.sleep(0)
    assert ready.state.in_flight == 1
    await connection.ask(request()[-1:])
    assert ready.state.in_flight == 0


async def test_a_client_that_goes_away_in_the_middle_is_counted(ready: App) -> None:
    connection = Connection(ready)
    connection.protocol.data_received(request()[:-1])
    connection.protocol.connection_lost(None)
    async with asyncio.timeout(20):
        while b'code="499"' not in ready.metrics.render("")[0]:
            await asyncio.sleep(0)
    assert ready.state.in_flight == 0
    assert connection.wire.writes == [], "nobody is there to be answered"


async def test_requests_in_a_row_are_answered_in_their_order(ready: App) -> None:
    def numbered(number: int, *headers: str) -> bytes:
        body = json.dumps({"id": str(number), "inputs": [X]}).encode()
        return request(body, *headers)

    # The third cannot be answered at once, so those behind it wait for it.
    third = numbered(3, "Expect: nothing")
    sent = b"".join((numbered(1), numbered(2), third, numbered(4), numbered(5)))
    for cut in (len(sent), 10, 300, 555):
        said = await Connection(ready).ask(sent[:cut], sent[cut:], answers=5)
        assert re.findall(rb'"id":"(\d)"', said) == [b"1", b"2", b"3", b"4", b"5"]


async def test_who_waits_to_be_told_to_go_on_is_told(ready: App) -> None:
    asked = request(GOOD, "Expect: 100-continue")
    head = asked.index(b"\r\n\r\n") + 4
    connection = Connection(ready)
    connection.protocol.data_received(asked[:head])
    async with asyncio.timeout(20):
        while b"100 Continue" not in connection.wire.said:
            await asyncio.sleep(0)
    assert b"HTTP/1.1 200" in await connection.ask(asked[head:])


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.DRAINING])
async def test_while_the_server_is_not_ready_everything_goes_the_usual_way(
    ready: App, phase: Phase
) -> None:
    ready.state.phase = phase
    connection = Connection(ready)
    connection.protocol.data_received(request())
    assert connection.wire.writes == []
    said = await connection.ask()
    assert (b"connection: close" in said) is (phase is Phase.DRAINING)


async def test_a_model_that_takes_its_time_never_holds_up_the_loop(ready: App) -> None:
    ready.service.loaded().engine._typical_seconds = 1.0  # type: ignore[attr-defined]
    connection = Connection(ready)
    connection.protocol.data_received(request())
    assert connection.wire.writes == []
    assert b"HTTP/1.1 200" in await connection.ask()


async def test_what_is_batched_waits_for_its_turn(ready: App) -> None:
    ready.service.served = replace(ready.service.loaded(), at_once=None)
    connection = Connection(ready)
    connection.protocol.data_received(request())
    assert connection.wire.writes == []
    assert b"HTTP/1.1 200" in await connection.ask()


async def test_a_client_that_does_not_read_is_not_written_to(ready: App) -> None:
    connection = Connection(ready)
    connection.protocol.pause_writing()
    connection.protocol.data_received(request())
    assert connection.wire.writes == []
    connection.protocol.resume_writing()
    assert b"HTTP/1.1 200" in await connection.ask()


async def test_an_idle_connection_is_closed_after_its_time(ready: App) -> None:
    connection = Connection(ready)
    connection.protocol.timeout_keep_alive = 0.01
    assert b"HTTP/1.1 200" in await connection.ask(request())
    async with asyncio.timeout(20):
        while not connection.wire.closed:
            await asyncio.sleep(0.001)
    assert connection.wire.closed


async def test_both_ways_are_counted_alike(ready: App) -> None:
    bad = request(b"{")
    for connection in (Connection(ready, short=False), Connection(ready)):
        await connection.ask(request())
        await connection.ask(bad, answers=2)
    text = ready.metrics.render("")[0].decode()
    for code in ("200", "400"):
        name = "mooring_onnx_request_duration_seconds_count"
        assert f'{name}{{code="{code}",model="m"}} 2.0' in text
    assert f'mooring_onnx_request_bytes_total{{model="m"}} {float(2 * (len(GOOD) + 1))}' in text
    assert 'mooring_onnx_run_duration_seconds_count{model="m"} 2.0' in text


async def test_a_fault_of_ours_is_an_answer_too(
    ready: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(ready.service.loaded().engine), "infer_inline", fail)
    said = await Connection(ready).ask(request())
    assert said.startswith(b"HTTP/1.1 500")
    assert b"the server failed on this request" in said
