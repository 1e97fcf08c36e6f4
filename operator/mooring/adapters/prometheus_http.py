"""One question to Prometheus over HTTP, within bounds that hold whatever the other side does.

``prometheus-api-client`` builds the question; the session under it is ours. The library would
follow redirects, wait for ever, read any amount of bytes, put the query into the address, and hand
on ``data.result`` alone. A :class:`Line` is one such session. It belongs to one thread at a time
and keeps its connection open between questions.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mooring.adapters.prometheus_access import Access
from mooring.core.answers import NoAnswer, Reason, parse_body, query_error

_CHUNK: Final = 256 * 1024
#: Of an answer that is not 200 only Prometheus' explanation is of interest, and that is short.
_ERROR_BODY_LIMIT: Final = 64 * 1024
_HERE = threading.local()
T = TypeVar("T")


class Failed(Exception):
    """Ends a question with the reason that it carries."""

    def __init__(self, why: NoAnswer) -> None:
        self.why = why
        super().__init__(why.message)


@dataclass(eq=False, slots=True)
class Call:
    """One question under way: when it must end, and the sockets it opened."""

    deadline: float
    received: int = 0
    opened: int = 0
    cut: bool = False

    def remaining(self) -> float:
        """Seconds that are left; raises Failed when none is."""
        left = self.deadline - time.monotonic()
        if self.cut or left <= 0:
            raise Failed(_TOO_LATE)
        return left


_TOO_LATE: Final = NoAnswer(
    Reason.TIMEOUT, "Prometheus did not answer in full by the deadline (prometheus.timeout)."
)
_BROKEN: Final = NoAnswer(Reason.REFUSED, "The connection to Prometheus broke.")


class _Plain(HTTPConnection):
    """A connection that tells its line about itself, so that the line can end it from outside."""

    def connect(self) -> None:
        super().connect()
        _HERE.line.opened(self)


class _Secure(HTTPSConnection):
    """As :class:`_Plain`, with TLS."""

    def connect(self) -> None:
        super().connect()
        _HERE.line.opened(self)


class _PlainPool(HTTPConnectionPool):
    """urllib3 takes the kind of connection from its pool's class."""

    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    """As :class:`_PlainPool`, with TLS."""

    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    """requests' way of saying which pools to use. It retries nothing."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


class _Whole:
    """What the library is given back. It looks at no more than this; the line has the body."""

    status_code = 200

    def json(self) -> Any:
        return {"data": {"result": []}}


class _Session(requests.Session):
    """The session that the library asks through. Every question passes :meth:`request`."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self.trust_env = False  # no proxies, netrc or certificate bundles of the environment
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.access = access
        self.body = b""
        self.kind = ""

    def request(  # type: ignore[override]
        self,
        method: str | bytes,
        url: str | bytes,
        params: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Any:
        """Asks and reads within the bounds. Raises Failed for all but a whole answer.

        What else the library passes on (headers, timeout, verify) is set by the access instead.
        """
        call: Call = _HERE.line.call
        headers = self.access.request_headers()
        if isinstance(headers, NoAnswer):
            raise Failed(headers)
        certificate = self.access.client_certificate
        response = super().request(
            method,
            url,
            # In the body: the library puts them into the address, which servers and their logs cut.
            data=params,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(min(self.access.connect, call.remaining()), self._pause(call)),
            verify=(str(self.access.ca_file) if self.access.ca_file else True)
            if self.access.verify
            else False,
            cert=(str(certificate[0]), str(certificate[1])) if certificate else None,
        )
        try:
            self.body = self._read(response, call)
        except BaseException:
            # An answer that was not read to its end leaves its connection unusable.
            response.close()
            raise
        return _Whole()

    def _pause(self, call: Call) -> float:
        return min(self.access.pause, call.remaining())

    def _read(self, response: requests.Response, call: Call) -> bytes:
        call.remaining()  # a connection that was cut among the headers looks as if they ended
        status = response.status_code
        if 300 <= status < 400:
            raise Failed(
                NoAnswer(
                    Reason.REDIRECTED,
                    f"Prometheus answers with a redirect ({status}), which is not followed: set "
                    "prometheus.url to the address behind it.",
                )
            )
        if status != 200:
            _raise_for(status, self._explanation(response, call))
        self.kind = response.headers.get("Content-Type", "")
        return self._bytes(response, call, self.access.body_limit)

    def _bytes(self, response: requests.Response, call: Call, limit: int) -> bytes:
        declared = response.headers.get("Content-Length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise Failed(_too_large(limit))
        parts: list[bytes] = []
        size = 0
        # read1 returns what one packet brought. read would wait for a whole chunk, so that a byte
        # a second could hold it past any deadline.
        while part := response.raw.read1(_CHUNK, decode_content=True):
            size += len(part)
            call.received += len(part)
            if size > limit:
                raise Failed(_too_large(limit))
            parts.append(part)
            call.remaining()
        call.remaining()
        response.raw.release_conn()
        return b"".join(parts)

    def _explanation(self, response: requests.Response, call: Call) -> object:
        try:
            return parse_body(self._bytes(response, call, _ERROR_BODY_LIMIT))
        except (Failed, ValueError, RecursionError):
            return None


def _raise_for(status: int, explanation: object) -> NoReturn:
    if status in (401, 403):
        raise Failed(
            NoAnswer(Reason.DENIED, f"Prometheus refuses the operator's credentials ({status}).")
        )
    if isinstance(explanation, dict) and explanation.get("status") == "error":
        raise Failed(query_error(explanation))
    hint = {
        404: ": is prometheus.url its address, with the path that its API lies under?",
        405: ": it does not take POST, so it is not Prometheus' API.",
        429: ": it, or the proxy before it, is asked too often.",
    }.get(status, ".")
    raise Failed(NoAnswer(Reason.HTTP, f"Prometheus answers with HTTP status {status}{hint}"))


def _not_json(content_type: str) -> NoAnswer:
    kind = "HTML" if "html" in content_type.lower() else "no whole JSON"
    return NoAnswer(
        Reason.NOT_JSON,
        f"What answers at prometheus.url sends {kind}: is it Prometheus, or a login page in "
        "front of it?",
    )


def _too_large(limit: int) -> NoAnswer:
    return NoAnswer(
        Reason.TOO_LARGE,
        f"Prometheus' answer exceeds {limit // 1024} KiB (prometheus.maxResponseMebibytes).",
    )


@dataclass(slots=True)
class Line:
    """A session for one thread at a time. ``cut`` may be called from any."""

    access: Access
    call: Call = field(default_factory=lambda: Call(0.0))
    _session: _Session | None = None
    _client: PrometheusConnect | None = None
    _connections: list[HTTPConnection] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self,
        call: Call,
        query: str,
        parameters: Mapping[str, str],
        reader: Callable[[bytes, float], T | NoAnswer],
    ) -> T | NoAnswer:
        """Blocks until there is an answer, or the reason why there is none.

        ``reader`` makes of the body, and of when it was asked for, what the caller wants, in this
        thread; ValueError and RecursionError say that it is no JSON.
        """
        _HERE.line = self
        with self._lock:
            self.call = call
        asked_at = time.time()
        try:
            body, kind = self._ask(call, query, parameters)
        except Failed as failed:
            return failed.why
        try:
            return reader(body, asked_at)
        except (ValueError, RecursionError):
            return _not_json(kind)

    def _ask(self, call: Call, query: str, parameters: Mapping[str, str]) -> tuple[bytes, str]:
        try:
            return self._once(call, query, parameters)
        except requests.ConnectionError as error:
            # A connection kept from before may have been closed in the meantime. A question has
            # no effects, so it is asked once more, over a new one.
            if call.opened or isinstance(error, requests.Timeout) or call.cut:
                raise Failed(_reason(error, call)) from None
        except _ERRORS as error:
            raise Failed(_reason(error, call)) from None
        try:
            return self._once(call, query, parameters)
        except _ERRORS as error:
            raise Failed(_reason(error, call)) from None

    def _once(self, call: Call, query: str, parameters: Mapping[str, str]) -> tuple[bytes, str]:
        call.remaining()
        if self._session is None or self._client is None:
            self._session = _Session(self.access)
            self._client = PrometheusConnect(
                url=self.access.url, session=self._session, method="POST"
            )
            # Over the one that the library has mounted, which retries.
            self._session.mount(self.access.url, _Adapter(max_retries=0, pool_maxsize=1))
        self._client.custom_query(query, params=dict(parameters))
        body, self._session.body = self._session.body, b""  # not kept until the next question
        return body, self._session.kind

    def opened(self, connection: HTTPConnection) -> None:
        """Called by a new connection, in the line's thread."""
        with self._lock:
            self.call.opened += 1
            self._connections = [c for c in self._connections if c.sock is not None]
            self._connections.append(connection)
            late = self.call.cut
        if late:
            _shut(connection)

    def cut(self, call: Call) -> None:
        """Ends this call, if it is still under way: its thread wakes up from any read."""
        with self._lock:
            call.cut = True
            found = list(self._connections) if self.call is call else []
        for connection in found:
            _shut(connection)

    def close(self) -> None:
        """Ends what is under way and lets go of the connection."""
        self.cut(self.call)
        if self._session is not None:
            self._session.close()


def _shut(connection: HTTPConnection) -> None:
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)


#: What requests, urllib3 and http.client raise for a network or a server that misbehaves.
_ERRORS: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    AttributeError,  # of a socket that was shut while it was read
)


def _reason(error: BaseException, call: Call) -> NoAnswer:
    """The sentence for an exception, whose own text is not used: it may hold what is secret."""
    if call.cut:
        return _TOO_LATE
    found = _chain(error)

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in found)

    if among(urllib3.exceptions.NameResolutionError):
        return NoAnswer(
            Reason.REFUSED, "The host name in prometheus.url does not resolve to an address."
        )
    if among(ConnectionRefusedError):
        return NoAnswer(Reason.REFUSED, "Nobody listens at prometheus.url: connection refused.")
    if among(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        return NoAnswer(
            Reason.TLS,
            "The TLS handshake with Prometheus failed: check its certificate, "
            "prometheus.tls.caFile and the scheme of prometheus.url.",
        )
    if among(TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError):
        return _TOO_LATE
    if among(urllib3.exceptions.NewConnectionError):
        return NoAnswer(Reason.REFUSED, "The host in prometheus.url cannot be reached.")
    return _BROKEN


def _chain(error: BaseException | None) -> list[BaseException]:
    """The exception and all that it was made of; urllib3 keeps some in ``reason``."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or one in found or len(found) > 20:
            continue
        found.append(one)
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found
