"""Envoy's copies of requests and answers, one stream for each exchange.

A stream is ended here as soon as the answer is complete: Envoy would hold it for a while more. What
is too much is dropped at once and counted. Nothing waits in a queue of ours, so memory is bounded
and whatever is counted is recent.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import get_args

from google.protobuf.message import DecodeError

from mooring_collector import external_processing_pb2 as pb
from mooring_collector.http2 import Connection, Headers
from mooring_collector.settings import Bounds
from mooring_collector.telemetry import OTHER, Exchange, Telemetry, Traffic

PATH = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
REVISION_KEY = "x-mooring-revision"
TRAFFIC_KEY = "x-mooring-traffic"
#: The attributes that the router sends with the first part of each direction.
FILTER = "envoy.filters.http.ext_proc"
REQUEST_ID = "request.headers['x-request-id']"
HEADER_LENGTH = "request.headers['inference-header-content-length']"
STATUS = "response.code"

_OK, _UNIMPLEMENTED = 0, 12
_TICK = 0.1
_LONGEST_NAME = 128
_TRAFFIC: tuple[Traffic, ...] = get_args(Traffic)
_log = logging.getLogger(__name__)


class Service:
    """Takes exchanges and counts them."""

    def __init__(self, telemetry: Telemetry, bounds: Bounds) -> None:
        self.telemetry = telemetry
        self.bounds = bounds
        self.held = 0
        self.lag = 0.0
        self._open: dict[Incoming, None] = {}

    @property
    def exchanges(self) -> int:
        """How many go on now."""
        return len(self._open)

    def connection(self) -> Connection:
        """For a router that has connected."""
        bounds = self.bounds
        connection = Connection(
            lambda headers: self._begin(headers, connection),
            # What is refused is counted, so it has to get here.
            streams=2 * bounds.exchanges,
            message_bytes=2 * bounds.body_bytes,
        )
        return connection

    def _begin(self, headers: Headers, connection: Connection) -> Incoming | int:
        """The exchange of a new stream; or, when it is let pass, the status to answer with."""
        values = dict(headers)
        if values.get(":path") != PATH:
            return _UNIMPLEMENTED
        # The router's own words, as metadata of the stream.
        name = values.get(REVISION_KEY, "")[:_LONGEST_NAME] or OTHER
        said = values.get(TRAFFIC_KEY, "live")
        traffic: Traffic = next((one for one in _TRAFFIC if one == said), "match")
        if self.exchanges >= self.bounds.exchanges or self.lag > self.bounds.lag_seconds:
            self.telemetry.pass_over(name, traffic, "dropped")
            return _OK
        if not self.telemetry.sampled():
            self.telemetry.pass_over(name, traffic, "sampled_out")
            return _OK
        incoming = Incoming(self, name, traffic, connection)
        self._open[incoming] = None
        return incoming

    def finish(self, incoming: Incoming, *, lost: bool) -> None:
        """Counts an exchange that has ended."""
        self._open.pop(incoming, None)
        name, traffic, exchange = incoming.name, incoming.traffic, incoming.exchange()
        try:
            if exchange.broken or (lost and not exchange.status):
                self.telemetry.pass_over(name, traffic, "dropped")
            else:
                self.telemetry.count(name, traffic, exchange, time.monotonic())
        except Exception as error:  # noqa: BLE001  a fault of ours must not cost the connection
            _log_fault("an exchange could not be counted", error)
            self.telemetry.pass_over(name, traffic, "dropped")
        finally:
            incoming.release()

    async def watch(self) -> None:
        """Measures how far behind the loop is, and ends exchanges that never end. Never returns."""
        beats = 0
        while True:
            before = time.monotonic()
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            self.lag = now - before - _TICK
            beats += 1
            if beats % 10 == 0:
                self._tidy(now)

    def _tidy(self, now: float) -> None:
        try:
            self.telemetry.flush()
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the watch
            _log_fault("what waits could not be counted", error)
        self._end_old(now - self.bounds.exchange_seconds)

    def _end_old(self, before: float) -> None:
        # They stand in the order of their beginnings.
        old = [one for one in self._open if one.started < before]
        for incoming in old:
            incoming.connection.end(incoming)


class Incoming:
    """What has come of one exchange: the sink of its stream."""

    __slots__ = (
        "_answer", "_found", "_held", "_request", "_service", "connection", "name", "started",
        "traffic",
    )  # fmt: skip

    def __init__(
        self, service: Service, name: str, traffic: Traffic, connection: Connection
    ) -> None:
        self._service = service
        self.name = name
        self.traffic: Traffic = traffic
        self.connection = connection
        self.started = time.monotonic()
        self._request: list[bytes] = []
        self._answer: list[bytes] = []
        self._held = 0
        self._found = Exchange()

    def take(self, message: bytes) -> bool:
        """Takes one message; True when the exchange is complete, or not worth going on with."""
        try:
            part = pb.ProcessingRequest.FromString(message)
        except DecodeError:
            return self._break()
        if part.attributes:
            self._note(part)
        which = part.WhichOneof("request")
        if which == "request_body":
            body = part.request_body.body
            self._found.request_bytes += len(body)
            return self._keep(self._request, body, self._found.request_bytes)
        if which == "response_body":
            body = part.response_body.body
            self._found.answer_bytes += len(body)
            broken = self._keep(self._answer, body, self._found.answer_bytes)
            return broken or part.response_body.end_of_stream
        return False

    def end(self, *, lost: bool) -> None:
        """The stream is at its end."""
        self._service.finish(self, lost=lost)

    def _keep(self, parts: list[bytes], part: bytes, size: int) -> bool:
        if not part:
            return False
        service = self._service
        bounds = service.bounds
        if size > bounds.body_bytes or service.held + len(part) > bounds.held_bytes:
            return self._break()
        parts.append(part)
        self._held += len(part)
        service.held += len(part)
        return False

    def _note(self, part: pb.ProcessingRequest) -> None:
        fields = part.attributes[FILTER].fields
        if STATUS in fields:
            number = fields[STATUS].number_value
            self._found.status = int(number) if 100 <= number < 1000 else 0
        if REQUEST_ID in fields:
            self._found.request_id = fields[REQUEST_ID].string_value[:_LONGEST_NAME]
        if HEADER_LENGTH in fields:
            text = fields[HEADER_LENGTH].string_value
            if text.isascii() and text.isdigit() and len(text) < 10:
                self._found.header_bytes = int(text)

    def _break(self) -> bool:
        self._found.broken = True
        self.release()
        return True

    def release(self) -> None:
        """Lets go of what is held."""
        self._request, self._answer = [], []
        self._service.held -= self._held
        self._held = 0

    def exchange(self) -> Exchange:
        """All of it."""
        self._found.request = b"".join(self._request)
        self._found.answer = b"".join(self._answer)
        return self._found


def _log_fault(what: str, error: Exception) -> None:
    """The error's words may quote a value of a body: where it happened is enough to find it."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s: %s\n%s", what, type(error).__name__, where)
