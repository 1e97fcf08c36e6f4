"""The connection to a router: what HTTP/2 and gRPC ask of it, and what they must not do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.references import answer, infer, telemetry

from mooring_collector import external_processing_pb2 as pb
from mooring_collector.http2 import PREFACE, Connection, _frame
from mooring_collector.service import FILTER, PATH, Service
from mooring_collector.settings import Bounds
from mooring_collector.telemetry import Telemetry

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _CONTINUATION = 0, 1, 3, 4, 6, 9
HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "c"),
           ("te", "trailers"), ("content-type", "application/grpc"),
           ("x-mooring-revision", "aa"), ("x-mooring-traffic", "live")]  # fmt: skip


class Wire(asyncio.Transport):
    """What the connection has written, and whether it is still there."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Router:
    """A router's end of a connection, frame by frame."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds()
        self.telemetry = telemetry(bounds=bounds)
        self.service = Service(self.telemetry, bounds)
        self.wire = Wire()
        self.connection: Connection = self.service.connection()
        self.encoder = hpack.Encoder()
        self.connection.connection_made(self.wire)
        self.send(PREFACE + _frame(_SETTINGS, 0, 0))
        self.wire.written = b""

    def send(self, data: bytes) -> None:
        if not self.wire.closed:
            self.connection.data_received(data)
        if self.wire.closed:
            self.connection.connection_lost(None)

    def headers(self) -> bytes:
        return bytes(self.encoder.encode(HEADERS))

    def begin(self, stream: int) -> None:
        self.send(_frame(_HEADERS, 4, stream, self.headers()))

    def data(self, stream: int, *messages: pb.ProcessingRequest) -> None:
        for message in messages:
            self.send(_frame(_DATA, 0, stream, enveloped(message)))

    def frames(self) -> list[tuple[int, int, int]]:
        found, at = [], 0
        while at < len(self.wire.written):
            length = int.from_bytes(self.wire.written[at : at + 3], "big")
            kind, flags = self.wire.written[at + 3 : at + 5]
            found.append((kind, flags, int.from_bytes(self.wire.written[at + 5 : at + 9], "big")))
            at += 9 + length
        return found

    def requests(self) -> dict[tuple[str, str], int]:
        if not self.telemetry.revisions:
            return {}
        return dict(self.telemetry.revision("aa").requests.items())


def enveloped(message: pb.ProcessingRequest) -> bytes:
    content = message.SerializeToString()
    return b"\0" + len(content).to_bytes(4, "big") + content


def request(body: bytes, *, last: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=last))


def reply(body: bytes, status: int = 200, *, last: bool = True) -> pb.ProcessingRequest:
    found = pb.ProcessingRequest(response_body=pb.HttpBody(body=body, end_of_stream=last))
    found.attributes[FILTER].fields["response.code"].number_value = status
    return found


@pytest.fixture
async def router() -> Router:
    return Router()


async def test_a_stream_is_ended_as_soon_as_the_answer_is_complete(router: Router) -> None:
    router.begin(1)
    router.data(1, request(infer([1, 2, 3])), request(b"", last=True))
    assert router.frames() == []
    router.data(1, reply(answer(0.5)))
    assert router.frames() == [(_HEADERS, 5, 1), (_RST, 0, 1)]
    assert router.requests() == {("live", "answered"): 1}
    assert (router.service.held, router.service.exchanges) == (0, 0)


async def test_what_still_comes_for_a_stream_that_is_ended_changes_nothing(router: Router) -> None:
    router.begin(1)
    router.data(1, request(infer([1, 2, 3])), reply(answer(0.5)), reply(answer(0.5)))
    router.send(_frame(_RST, 0, 1, bytes(4)))
    assert router.requests() == {("live", "answered"): 1}


async def test_bytes_may_come_in_any_pieces() -> None:
    whole = Router()
    stream = PREFACE + _frame(_SETTINGS, 0, 0)
    for number in (1, 3, 5):
        block = whole.headers()
        stream += _frame(_HEADERS, 0, number, block[:3])
        stream += _frame(_CONTINUATION, 4, number, block[3:])
        content = enveloped(request(infer([1, 2, 3]))) + enveloped(reply(answer(0.5)))
        stream += b"".join(
            _frame(_DATA, 8, number, b"\2" + content[at : at + 100] + b"\0\0")
            for at in range(0, len(content), 100)
        )
    for size in (1, 7, 1000):
        router = Router()
        router.connection = router.service.connection()
        router.connection.connection_made(router.wire)
        for at in range(0, len(stream), size):
            router.send(stream[at : at + size])
        assert router.requests() == {("live", "answered"): 3}, size


async def test_headers_are_read_alike_whether_the_table_knows_them_or_not(router: Router) -> None:
    for number in range(1, 41, 2):
        if number == 21:  # another revision changes the table between two equal blocks
            other = [*HEADERS[:-2], ("x-mooring-revision", "bb"), HEADERS[-1]]
            router.send(_frame(_HEADERS, 4, number, bytes(router.encoder.encode(other))))
        else:
            router.begin(number)
        router.data(number, request(infer([1, 2, 3])), reply(answer(0.5)))
    assert router.requests() == {("live", "answered"): 19}
    assert dict(router.telemetry.revision("bb").requests) == {("live", "answered"): 1}


async def test_pings_and_settings_are_acknowledged(router: Router) -> None:
    router.send(_frame(_PING, 0, 0, b"12345678") + _frame(_SETTINGS, 0, 0))
    assert router.frames() == [(_PING, 1, 0), (_SETTINGS, 1, 0)]


async def test_a_reset_without_an_answer_is_a_failure_and_a_lost_connection_a_drop() -> None:
    router = Router()
    for stream in (1, 3):
        router.begin(stream)
        router.data(stream, request(infer([1, 2, 3])))
    router.send(_frame(_RST, 0, 1, bytes(4)))
    router.connection.connection_lost(None)
    assert router.requests() == {("live", "failed"): 1, ("live", "dropped"): 1}
    assert (router.service.held, router.service.exchanges) == (0, 0)


async def test_another_method_is_not_implemented(router: Router) -> None:
    block = bytes(router.encoder.encode([(":path", "/other"), *HEADERS]))
    router.send(_frame(_HEADERS, 4, 1, block))
    block = bytes(router.encoder.encode([*HEADERS[:2], (":path", "/other"), *HEADERS[3:]]))
    router.send(_frame(_HEADERS, 4, 3, block))
    assert (_HEADERS, 5, 3) in router.frames()
    assert b"grpc-status\x0212" in router.wire.written


# --- too much ---------------------------------------------------------------------------------


async def test_a_body_that_is_too_large_is_dropped_at_once_and_ends_its_stream() -> None:
    router = Router(Bounds(body_bytes=1000))
    router.begin(1)
    router.data(1, request(b"x" * 600), request(b"x" * 600))
    assert router.frames() == [(_HEADERS, 5, 1), (_RST, 0, 1)]
    assert router.requests() == {("live", "dropped"): 1}
    assert router.service.held == 0


async def test_all_bodies_together_hold_no_more_than_they_may() -> None:
    router = Router(Bounds(held_bytes=1000))
    for stream in range(1, 21, 2):
        router.begin(stream)
        router.data(stream, request(b"x" * 300))
    assert router.service.held == 900
    assert router.requests() == {("live", "dropped"): 7}


async def test_exchanges_beyond_those_that_may_go_on_are_let_pass() -> None:
    router = Router(Bounds(exchanges=3))
    for stream in range(1, 11, 2):
        router.begin(stream)
    assert router.service.exchanges == 3
    assert router.requests() == {("live", "dropped"): 2}


async def test_a_collector_that_is_behind_lets_new_exchanges_pass(router: Router) -> None:
    router.service.lag = 1.0
    router.begin(1)
    assert router.frames() == [(_HEADERS, 5, 1), (_RST, 0, 1)]
    assert router.requests() == {("live", "dropped"): 1}


async def test_an_exchange_that_never_ends_is_ended(router: Router) -> None:
    router.begin(1)
    router.data(1, request(b"x"))
    router.service._end_old(router.service._open.popitem()[0].started + 1)
    assert router.requests() == {}
    router.begin(3)
    (incoming,) = router.service._open
    router.service._end_old(incoming.started + 1)
    assert router.requests() == {("live", "dropped"): 1}
    assert router.service.exchanges == 0


async def test_garbage_in_messages_is_dropped_and_the_connection_stays(router: Router) -> None:
    router.begin(1)
    router.send(_frame(_DATA, 0, 1, b"\0\0\0\0\x03\xff\xff\xff"))
    router.begin(3)
    router.data(3, request(infer([1, 2, 3])), reply(answer(0.5)))
    assert router.requests() == {("live", "dropped"): 1, ("live", "answered"): 1}


@pytest.mark.parametrize(
    "data",
    [
        _frame(_DATA, 0, 1, b"\1\0\0\0\3abc"),
        _frame(_DATA, 0, 1, b"\0\xff\xff\xff\xff"),
        _frame(_DATA, 8, 1, b"\x09abc"),
        _frame(_DATA, 8, 1, b""),
        _frame(_HEADERS, 4, 3, b"\xff\xff\xff\xff\xff\xff"),
        _frame(_HEADERS, 0, 3, b"\x82") + _frame(_DATA, 0, 1, b""),
        _frame(_HEADERS, 0, 3, b"\x82") + _frame(_CONTINUATION, 0, 5, b""),
        _frame(_CONTINUATION, 4, 3, b"\x82"),
        _frame(_HEADERS, 0, 3, b"") + _frame(_CONTINUATION, 0, 3, b"\x82" * 16_000) * 5,
        _frame(_PING, 0, 0, b"123"),
        b"\xff\xff\xff\0\0\0\0\0\0",
    ],
)
async def test_whoever_breaks_the_protocol_loses_the_connection(
    router: Router, data: bytes
) -> None:
    router.begin(1)
    router.send(data)
    assert router.wire.closed
    assert (router.service.held, router.service.exchanges) == (0, 0)


PIECES = st.one_of(
    st.builds(
        _frame, st.integers(0, 12), st.sampled_from([0, 1, 4, 5, 8, 12, 32, 255]),
        st.integers(0, 9), st.binary(max_size=40),
    ),
    st.just("begin"), st.just("request"), st.just("reply"), st.binary(max_size=20),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=12))
async def test_no_frames_at_all_raise_or_leave_anything_behind(pieces: list[Any]) -> None:
    router = Router()
    for number, piece in enumerate(pieces):
        stream = 2 * number + 1
        if piece == "begin":
            router.begin(stream)
        elif piece == "request":
            router.data(max(1, stream - 2), request(b"abc"))
        elif piece == "reply":
            router.data(max(1, stream - 4), reply(b"abc"))
        else:
            router.send(piece)
    if not router.wire.closed:
        router.connection.connection_lost(None)
    assert (router.service.held, router.service.exchanges) == (0, 0)


async def test_a_flush_that_fails_ends_old_exchanges_none_the_less(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = "Mrs Miller"

    def fails(_: Telemetry) -> None:
        raise ValueError(body)

    router = Router(Bounds(exchange_seconds=0.0))
    router.begin(1)
    monkeypatch.setattr(Telemetry, "flush", fails)
    router.service._tidy(time.monotonic() + 1)
    assert router.service.exchanges == 0
    assert router.requests() == {("live", "dropped"): 1}
    assert "what waits could not be counted: ValueError" in caplog.text
    assert "Miller" not in caplog.text, "an error's words may quote a body"


# --- beside another implementation ------------------------------------------------------------


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []

    def connected() -> Connection:
        connections.append(service.connection())
        return connections[-1]

    server = await loop.create_server(connected, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for connection in connections:
        connection.close()
    await asyncio.sleep(0)


@pytest.mark.process
async def test_grpcs_own_client_is_understood_and_understands() -> None:
    service = Service(telemetry(), Bounds())
    async with listening(service) as address, grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.stream_stream(
            PATH, request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )  # fmt: skip
        metadata = (("x-mooring-revision", "aa"), ("x-mooring-traffic", "live"))

        async def one(number: int) -> grpc.StatusCode:
            call = method(metadata=metadata)
            await call.write(request(infer(*[[number, 2, 3]] * 2000), last=True))
            await call.write(reply(answer(*[0.5] * 2000)))
            code: grpc.StatusCode = await call.code()
            return code

        codes = await asyncio.gather(*(one(number) for number in range(50)))
        other: Any = channel.unary_unary("/other/Method")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await other(b"")
    assert set(codes) == {grpc.StatusCode.OK}
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert dict(service.telemetry.revision("aa").requests) == {("live", "answered"): 50}
