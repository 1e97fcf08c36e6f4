"""Requests that arrive whole, answered in the same breath.

Of a prediction by a model of microseconds, most of the time went into carrying it: a task, an event
and four messages for a request whose every byte was there from the beginning, and an answer that
needs no waiting. Such a request is answered here, between two callbacks of the parser. All that
makes HTTP hard (bodies in parts, pipelines, clients that read slowly, connections that end) goes
the usual way, through uvicorn's cycle and the application.

uvicorn's protocol class is a documented parameter, its attributes are not: the lock pins its
version, and the tests ask the same of both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from mooring_onnx_server.app import Application, Headers

MAX_BYTES = 32_768
"""Of a body. JSON of that length has at most half as many elements, which the engine runs on the
event loop."""

_SPECIAL = frozenset(
    {b"content-encoding", b"expect", b"inference-header-content-length", b"transfer-encoding"}
)


def protocol_for(application: Application) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with the short way to `application`."""
    return type("BoundProtocol", (_Protocol,), {"application": application})


class _Protocol(HttpToolsProtocol):
    """One connection."""

    application: Application
    _held: list[bytes] | None = None
    """The body so far of a request that may be answered at once."""
    _default: Sequence[tuple[bytes, bytes]] | None = None
    _heads: dict[tuple[int, Headers], bytes]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None and self.parser is not None:
            # It did not come whole: from here on it is a request like any other.
            held, self._held = self._held, None
            if not self.transport.is_closing():
                super().on_headers_complete()
                for part in held:
                    super().on_body(part)

    def on_headers_complete(self) -> None:
        if self._may_be_whole():
            self._held = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._held is None:
            super().on_message_complete()
            return
        held, self._held = self._held, None
        body = held[0] if len(held) == 1 else b"".join(held)
        status, answer, headers = self.application.infer_now(body)
        head = self._head(status, headers)
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer), answer))
        self.on_response_complete()

    def _may_be_whole(self) -> bool:
        """Whether this is a prediction that can be answered at once, if all of it is here."""
        if not self.application.answers_now(self.url):
            return False
        # None before a connection's first cycle, whatever its type says.
        cycle: RequestResponseCycle | None = self.cycle
        if (cycle is not None and not cycle.response_complete) or self.flow.write_paused:
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        if not parser.should_keep_alive() or parser.should_upgrade():
            return False
        length = 0
        for name, value in self.headers:
            if name in _SPECIAL:
                return False
            if name == b"content-length":
                length = int(value) if value.isdigit() else MAX_BYTES + 1
        return length <= MAX_BYTES

    def _head(self, status: int, headers: Headers) -> bytes:
        """Status and headers, which stay the same for as long as the date does."""
        default = self.server_state.default_headers
        if default is not self._default:
            self._default, self._heads = default, {}
        head = self._heads.get((status, headers))
        if head is None:
            lines = [b"%b: %b\r\n" % header for header in (*default, *headers)]
            head = b"".join((STATUS_LINE[status], *lines))
            self._heads[status, headers] = head
        return head
