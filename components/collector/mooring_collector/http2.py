"""As much of HTTP/2 and gRPC as one kind of client needs: a router that streams its copies here.

A general gRPC server spends several times more on a stream than counting it costs (measured, see
the collector's design note), since each message passes through threads, tasks and callbacks. Here
all frames that have come together are read in one go, in plain calls. What is left out: this side
sends no data, no pushes and no pings, compresses nothing, and has one method. Whoever breaks the
protocol loses the connection.

Flow control: the windows are wide open. What is too much is not waited for but dropped (see
``service``), and each stream ends long before its window does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol as Interface
from typing import cast

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_MOST_FRAME = 1 << 14
_LONGEST_HEADERS = 1 << 16
_MOST_CACHED = 256
_STREAM_WINDOW = (1 << 31) - 1
_CONNECTION_WINDOW = (1 << 31) - 1
_FIRST_WINDOW = 65535
_REFILL = 1 << 24
_REST_SECONDS = 0.01
_LARGE = 1 << 16
_SETTING_STREAMS, _SETTING_WINDOW = 3, 4

Headers = tuple[tuple[str, str], ...]


class BrokenProtocol(Exception):
    """The other side does not speak HTTP/2, or not as a router does."""


class Sink(Interface):
    """Takes the gRPC messages of one stream."""

    def take(self, message: bytes) -> bool:
        """Takes a message; True when no further one is wanted."""

    def end(self, *, lost: bool) -> None:
        """No message will follow; ``lost`` when the connection broke."""


Opener = Callable[[Headers], "Sink | int"]
"""Begins a stream by its headers; or says with which gRPC status it ends at once."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBL", kind, flags, stream) + payload


def _setting(name: int, value: int) -> bytes:
    return struct.pack("!HL", name, value)


def _greeting(streams: int) -> bytes:
    settings = _setting(_SETTING_STREAMS, streams) + _setting(_SETTING_WINDOW, _STREAM_WINDOW)
    return _frame(_SETTINGS, 0, 0, settings) + _frame(
        _WINDOW_UPDATE, 0, 0, struct.pack("!L", _CONNECTION_WINDOW - _FIRST_WINDOW)
    )


def _closing(status: int) -> bytes:
    """The header block of an answer that is nothing but its status, uncompressed."""
    kind, name, value = b"application/grpc", b"grpc-status", str(status).encode()
    return (
        b"\x88"  # :status 200
         b"\x0f\x10" + bytes([len(kind)]) + kind
        + b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    )  # fmt: skip


_OK, _UNIMPLEMENTED = 0, 12
_CLOSINGS = {status: _closing(status) for status in (_OK, _UNIMPLEMENTED)}
_NO_ERROR = bytes(4)


class _Stream:
    """One open stream: its sink, and the part of a message that has come."""

    __slots__ = ("parts", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.parts = bytearray()


class Connection(asyncio.Protocol):
    """One router's connection."""

    def __init__(self, opener: Opener, *, streams: int, message_bytes: int) -> None:
        self._opener = opener
        self._most_streams = streams
        self._message_bytes = message_bytes
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._greeted = False
        self._decoder = hpack.Decoder(max_header_list_size=_LONGEST_HEADERS)
        self._cached: dict[bytes, Headers] = {}
        self._block: tuple[int, int, bytearray] | None = None
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        self._taken = 0
        self._out = bytearray()

    # --- the transport's calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._transport.write(_greeting(self._most_streams))

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams.values():
            stream.sink.end(lost=True)
        self._streams.clear()

    def pause_writing(self) -> None:
        """Who does not read its few bytes of answers is not there any more."""
        self.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._read(data)
        except (BrokenProtocol, hpack.HPACKError):
            self.close()
            return
        if self._out and self._transport is not None:
            self._transport.write(bytes(self._out))
            self._out.clear()
        if len(data) < _LARGE:
            self._rest()

    def _rest(self) -> None:
        """Lets a little come together: many frames in one go cost much less than each alone, and
        the router, which shares this machine's cores, is not disturbed at each request.
        """
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            self._loop.call_later(_REST_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Ends it; streams that are open are lost."""
        if self._transport is not None:
            self._transport.abort()

    def end(self, sink: Sink) -> None:
        """Ends the stream of a sink that waits no longer."""
        for number, stream in list(self._streams.items()):
            if stream.sink is sink:
                self._finish(number, stream, lost=True)
        if self._out and self._transport is not None:
            self._transport.write(bytes(self._out))
            self._out.clear()

    # --- frames ---------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._greeted:
            size = min(len(buffer), len(PREFACE))
            if buffer[:size] != PREFACE[:size]:
                raise BrokenProtocol("no preface")
            if size < len(PREFACE):
                return
            del buffer[:size]
            self._greeted = True
        at, end = 0, len(buffer)
        while end - at >= _HEAD:
            length = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            if length > _MOST_FRAME:
                raise BrokenProtocol("a frame is too long")
            if end - at < _HEAD + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            at += _HEAD
            payload = bytes(buffer[at : at + length])
            at += length
            self._take(kind, flags, stream, payload)
        del buffer[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise BrokenProtocol("headers are interrupted")
        if kind == _DATA:
            self._data(flags, stream, payload)
        elif kind == _HEADERS:
            block = _unpadded(flags, payload)
            self._headers(flags, stream, block[5:] if flags & _PRIORITY else block)
        elif kind == _CONTINUATION:
            self._continued(flags, stream, payload)
        elif kind == _RST_STREAM:
            reset = self._streams.pop(stream, None)
            if reset is not None:
                reset.sink.end(lost=False)
        elif kind == _SETTINGS and not flags & _ACK:
            self._out += _frame(_SETTINGS, _ACK, 0)
        elif kind == _PING and not flags & _ACK:
            if len(payload) != 8:
                raise BrokenProtocol("a ping of another length")
            self._out += _frame(_PING, _ACK, 0, payload)
        # PRIORITY, WINDOW_UPDATE, GOAWAY and unknown ones say nothing that matters here.

    # --- headers --------------------------------------------------------------------------------

    def _headers(self, flags: int, stream: int, block: bytes) -> None:
        if flags & _END_HEADERS:
            self._begin(flags, stream, block)
        else:
            self._block = (flags, stream, bytearray(block))

    def _continued(self, flags: int, stream: int, part: bytes) -> None:
        if self._block is None or self._block[1] != stream:
            raise BrokenProtocol("headers continue nothing")
        begun, _, block = self._block
        block += part
        if len(block) > _LONGEST_HEADERS:
            raise BrokenProtocol("headers are too long")
        if flags & _END_HEADERS:
            self._block = None
            self._begin(begun, stream, bytes(block))

    def _begin(self, flags: int, number: int, block: bytes) -> None:
        headers = self._decoded(block)
        known = self._streams.get(number)
        if known is not None:  # trailers
            self._finish(number, known, lost=False)
            return
        if number <= self._last or number % 2 == 0:
            return  # of a stream that has been ended here
        if len(self._streams) >= self._most_streams:
            raise BrokenProtocol("more streams than were allowed")
        self._last = number
        opened = self._opener(headers)
        if isinstance(opened, int):
            self._answer(number, opened)
        else:
            stream = self._streams[number] = _Stream(opened)
            if flags & _END_STREAM:
                self._finish(number, stream, lost=False)

    def _decoded(self, block: bytes) -> Headers:
        """The headers. A router's are the same each time, and then all of a block are indices.

        Such a block leaves the table as it is, so what it means stays the same until another one
        changes the table.
        """
        found = self._cached.get(block)
        if found is not None:
            return found
        indexed = bool(block) and min(block) >= 0x80
        decoded = self._decoder.decode(block, raw=True)
        found = tuple(
            (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
            for name, value in decoded
        )
        if not indexed:
            self._cached.clear()
        elif len(self._cached) < _MOST_CACHED:
            self._cached[block] = found
        return found

    # --- data -----------------------------------------------------------------------------------

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _REFILL:
            self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack("!L", self._taken))
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            return  # it was ended here, and the other side has not heard yet
        if self._messages(stream, _unpadded(flags, payload)) or flags & _END_STREAM:
            self._finish(number, stream, lost=False)

    def _messages(self, stream: _Stream, data: bytes) -> bool:
        """Gives whole messages to the sink; True when it wants no more."""
        parts = stream.parts
        if parts:
            parts += data
            data = bytes(parts) if _complete(parts) else b""
            if not data:
                self._check(parts)
                return False
            parts.clear()
        at, end = 0, len(data)
        while end - at >= 5:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if data[at] or size > self._message_bytes:
                raise BrokenProtocol("a message is compressed or too long")
            if end - at < 5 + size:
                break
            if stream.sink.take(data[at + 5 : at + 5 + size]):
                return True
            at += 5 + size
        parts += data[at:]
        return False

    def _check(self, parts: bytearray) -> None:
        if len(parts) > self._message_bytes + 5:
            raise BrokenProtocol("a message is too long")

    # --- ends -----------------------------------------------------------------------------------

    def _finish(self, number: int, stream: _Stream, *, lost: bool) -> None:
        del self._streams[number]
        self._answer(number, _OK)
        stream.sink.end(lost=lost)

    def _answer(self, number: int, status: int) -> None:
        """The whole answer, and that nothing more need be sent."""
        self._out += _frame(_HEADERS, _END_STREAM | _END_HEADERS, number, _CLOSINGS[status])
        self._out += _frame(_RST_STREAM, 0, number, _NO_ERROR)


def _complete(parts: bytearray) -> bool:
    return len(parts) >= 5 and len(parts) >= 5 + int.from_bytes(parts[1:5], "big")


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise BrokenProtocol("more padding than payload")
    return payload[1 : len(payload) - payload[0]]
