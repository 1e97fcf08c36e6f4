"""A Prometheus that misbehaves: by itself, or in front of a real one.

Each fault has a name. Without an upstream the proxy answers every query with ``answer``; with one
it passes queries on and does wrong to what comes back. It speaks HTTP by hand, since much of what
it does no server would.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_HUGE: Final = 1_000_000_000
_DRIP: Final = 0.05


class Fault(StrEnum):
    """What it does wrong."""

    RESET = "reset"  # the connection is reset once the query is read
    CLOSE_IDLE = "close-idle"  # kept-alive connections are closed after each answer
    UNAVAILABLE = "503"
    INTERNAL = "500"
    DENIED = "401"
    NOT_FOUND = "404"
    HANG = "hang"  # no answer until the client goes
    HTML = "html"  # 200, a login page
    STATUS_ERROR = "status-error"  # 200 with status: error
    BAD_DATA = "bad-data"  # 400 with Prometheus' explanation
    HUGE = "huge"  # a gigabyte, sent as fast as it is read
    HUGE_DECLARED = "huge-declared"  # a gigabyte, said to be one
    HUGE_GZIP = "huge-gzip"  # little that unpacks to much
    DRIP_BODY = "drip-body"  # a byte now and then, for ever
    DRIP_HEADERS = "drip-headers"
    TRUNCATED = "truncated"
    DEEP = "deep"  # a hundred thousand brackets
    NOT_TEXT = "not-text"
    NO_STATUS = "no-status"
    MATRIX = "matrix"
    STRING = "string"
    HISTOGRAM = "histogram"
    EMPTY = "empty"
    NAN = "nan"
    INF = "inf"
    MINUS_INF = "-inf"
    SEVERAL = "several"
    OLD = "old"  # the timestamps of an hour ago
    WARNINGS = "warnings"
    PARTIAL = "partial"
    REDIRECT = "redirect"
    COOKIE = "cookie"
    SWAPPED = "swapped"  # label values are exchanged, by ``swap``


def vector(*samples: tuple[Mapping[str, str], str], at: float | None = None) -> dict[str, Any]:
    """A good answer: labels and value of each series."""
    moment = time.time() if at is None else at
    result = [{"metric": dict(labels), "value": [moment, value]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass
class PrometheusProxy:
    """Listens on loopback while it is entered. ``fault`` may be changed at any time.

    ``seen``: the forms of the queries that came, with the request's headers under ``headers``.
    ``sent``: bytes of the last answer that the client took. ``working``: connections open.
    ``choose`` is told each query before it is answered, and may set ``fault`` and ``answer``.
    ``host``: where it listens; pods of the local cluster reach the bridge's address, not loopback.
    """

    upstream: str | None = None
    context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    fault: Fault | None = None
    answer: dict[str, Any] | None = None
    swap: Mapping[str, str] = field(default_factory=dict)
    choose: Callable[[str], None] = lambda text: None
    seen: list[dict[str, Any]] = field(default_factory=list)
    accepted: int = 0
    working: int = 0
    sent: int = 0
    redirected: int = 0
    _listener: socket.socket | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        assert self._listener is not None
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://{self.host}:{self._listener.getsockname()[1]}"

    @contextlib.contextmanager
    def run(self) -> Iterator[PrometheusProxy]:
        self._listener = socket.create_server((self.host, 0))
        self._listener.settimeout(0.01)
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._listener.close()
            for connection in list(self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            accepting.join(5)

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        self.working += 1
        connection = accepted
        try:
            # What is no HTTP (TLS where none is spoken) ends the connection.
            with contextlib.suppress(OSError, ValueError, IndexError):
                if self.context is not None:
                    connection = self.context.wrap_socket(accepted, server_side=True)
                self._open.add(connection)
                with connection.makefile("rb") as reader:
                    while self._answer(connection, reader):
                        pass
        finally:
            self._open.discard(connection)
            connection.close()
            accepted.close()
            self.working -= 1

    def _answer(self, connection: socket.socket, reader: Any) -> bool:
        """Reads one request and answers it; False when the connection shall end."""
        line = reader.readline()
        if not line:
            return False
        headers = http.client.parse_headers(reader)
        body = reader.read(int(headers.get("Content-Length", "0")))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        target = line.split()[1].decode()
        if not target.startswith("/api/"):
            self.redirected += 1
        self.seen.append({**form, "headers": dict(headers), "target": target})
        self.sent = 0
        self.choose(form.get("query", ""))
        misbehave = _BY_HAND.get(self.fault) if self.fault else None
        if misbehave is not None:
            misbehave(self, connection)
            return False
        status, kind, content, extra = self._content(form)
        self._send(connection, status, kind, content, extra)
        return self.fault is not Fault.CLOSE_IDLE

    def _content(self, form: dict[str, str]) -> tuple[int, str, bytes, str]:
        fixed: tuple[int, str, bytes, str] | None = _FIXED.get(self.fault)
        if fixed is not None:
            return fixed
        if self.upstream is None:
            body = self.answer or vector(({}, "0.5"))
            return 200, "application/json", json.dumps(self._wrong(body)).encode(), ""
        status, raw = _ask(self.upstream, form)
        if status != 200:
            return status, "application/json", raw, ""
        return 200, "application/json", json.dumps(self._wrong(json.loads(raw))).encode(), ""

    def _wrong(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer with the fault in it."""
        result = body["data"]["result"]
        text = {Fault.NAN: "NaN", Fault.INF: "+Inf", Fault.MINUS_INF: "-Inf"}.get(self.fault)  # type: ignore[arg-type]
        if text is not None:
            for series in result:
                series["value"][1] = text
        match self.fault:
            case Fault.EMPTY:
                body["data"]["result"] = []
            case Fault.SEVERAL:
                more = [{**s, "metric": {**s["metric"], "again": "yes"}} for s in result]
                body["data"]["result"] = result + more
            case Fault.OLD:
                for series in result:
                    series["value"][0] -= 3600
            case Fault.WARNINGS:
                body["warnings"] = ["a store\ndid not answer"]
            case Fault.PARTIAL:
                body["isPartial"] = True
            case Fault.SWAPPED:
                for series in result:
                    series["metric"] = {k: self._swapped(v) for k, v in series["metric"].items()}
        return body

    def _swapped(self, value: str) -> str:
        parts = value.split("|")
        return "|".join(self.swap.get(part, part) for part in parts)

    def _send(
        self, connection: socket.socket, status: int, kind: str, content: bytes, extra: str
    ) -> None:
        head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n{extra}"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)

    def _hang(self, connection: socket.socket) -> None:
        while not self._stop.is_set():
            connection.settimeout(0.05)
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    def _reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _stream(self, connection: socket.socket, head: bytes) -> None:
        """Never holds more than one piece of the gigabyte."""
        connection.sendall(head)
        piece = b'{"metric":{},"value":[1,"1"]},' * 2000
        opening = b'{"status":"success","data":{"resultType":"vector","result":['
        connection.sendall(opening)
        while self.sent < _HUGE and not self._stop.is_set():
            self.sent += connection.send(piece)

    def _drip(self, connection: socket.socket, text: bytes) -> None:
        while not self._stop.wait(_DRIP):
            connection.sendall(text)


_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BY_HAND: Final[Mapping[Fault, Any]] = {
    Fault.HANG: PrometheusProxy._hang,
    Fault.RESET: PrometheusProxy._reset,
    Fault.HUGE: lambda proxy, c: proxy._stream(c, _JSON + b"\r\n"),
    Fault.HUGE_DECLARED: lambda proxy, c: proxy._stream(
        c, _JSON + b"Content-Length: %d\r\n\r\n" % _HUGE
    ),
    Fault.DRIP_BODY: lambda proxy, c: (
        c.sendall(_JSON + b"Content-Length: 5000\r\n\r\n"),
        proxy._drip(c, b" "),
    ),
    Fault.DRIP_HEADERS: lambda proxy, c: (c.sendall(_JSON), proxy._drip(c, b"X: y\r\n")),
}


def _fixed(status: int, body: object, kind: str = "application/json", extra: str = "") -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, kind, content, extra


_PAGE: Final = b"<html><body>Please log in. secret-of-the-page</body></html>"
_ONE: Final = {"metric": {}, "values": [[1, "1"]]}
_FIXED: Final[Mapping[Fault | None, Any]] = {
    Fault.UNAVAILABLE: _fixed(503, b"<html>upstream secret-of-the-page</html>", "text/html"),
    Fault.INTERNAL: _fixed(500, b"panic: secret-of-the-page", "text/plain"),
    Fault.DENIED: _fixed(401, b"who are you, secret-of-the-page", "text/plain"),
    Fault.NOT_FOUND: _fixed(404, b"404 page not found", "text/plain"),
    Fault.HTML: _fixed(200, _PAGE, "text/html; charset=utf-8"),
    Fault.STATUS_ERROR: _fixed(
        200, {"status": "error", "errorType": "execution", "error": "too many\nsamples"}
    ),
    Fault.BAD_DATA: _fixed(
        400,
        {"status": "error", "errorType": "bad_data", "error": "1:5: parse error: unexpected"},
    ),
    Fault.HUGE_GZIP: _fixed(
        200, gzip.compress(b" " * 64_000_000, 9), extra="Content-Encoding: gzip\r\n"
    ),
    Fault.TRUNCATED: _fixed(200, b'{"status":"success","data":{"resultType":"vector","result":[{"'),
    Fault.DEEP: _fixed(200, b"[" * 100_000 + b"]" * 100_000),
    Fault.NOT_TEXT: _fixed(200, b"\xff\xfe\x00\x01"),
    Fault.NO_STATUS: _fixed(200, {"hello": "world"}),
    Fault.MATRIX: _fixed(
        200, {"status": "success", "data": {"resultType": "matrix", "result": [_ONE]}}
    ),
    Fault.STRING: _fixed(
        200, {"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}
    ),
    Fault.HISTOGRAM: _fixed(
        200,
        {
            "status": "success",
            "data": {
                "resultType": "vector",
                "result": [{"metric": {}, "histogram": [1, {"count": "1", "sum": "1"}]}],
            },
        },
    ),
    Fault.REDIRECT: _fixed(302, b"", extra="Location: /elsewhere/secret-of-the-page\r\n"),
    Fault.COOKIE: _fixed(
        200, vector(({}, "0.5"), at=1.0), extra="Set-Cookie: session=secret-of-the-page\r\n"
    ),
}


def _ask(upstream: str, form: dict[str, str]) -> tuple[int, bytes]:
    from urllib.parse import urlencode

    parts = urlsplit(upstream)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/api/v1/query", urlencode(form), kind)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
