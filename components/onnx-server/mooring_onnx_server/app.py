"""The HTTP application: Open Inference Protocol v2 over REST, health and metrics.

A bare ASGI application. The hot path is one comparison of the path, one parse, one run, one
write; a framework's routing would cost as much as the model.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from mooring_onnx_server.body import BodyTooLargeError, ClientGoneError, discard_rest, read_body
from mooring_onnx_server.errors import RequestRefusedError
from mooring_onnx_server.service import CLIENT_GONE, STOPPED
from mooring_onnx_server.tensors import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mooring_onnx_server.asgi import Receive, Scope, Send
    from mooring_onnx_server.contract import InferRequest
    from mooring_onnx_server.service import Served, Service

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Headers = ((b"content-type", b"application/json"),)


class Application:
    """Answers HTTP requests for one model, also before it is loaded and while draining."""

    def __init__(self, service: Service, max_body_bytes: int) -> None:
        self._service = service
        self._state = service.state
        self._metrics = service.metrics
        self._limit = max_body_bytes
        name, version = service.name, service.version
        self._infer_paths = frozenset(
            {f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/{version}/infer"}
        )
        # As they are on the wire, where nothing in them had to be quoted.
        self._plain_infer_paths = frozenset(
            path.encode() for path in self._infer_paths if path == quote(path)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; everything but HTTP is refused by the server in front."""
        if scope["path"] in self._infer_paths and scope["method"] == "POST":
            await self._infer(scope, receive, send)
            return
        started = time.perf_counter()
        headers = _JSON
        try:
            if scope["path"] == "/metrics":
                status = 200
                body, shown = self._metrics.render(_header(scope, b"accept"))
                headers = ((b"content-type", shown.encode()),)
            else:
                status, answer = self._route(scope["method"], scope["path"])
                body = orjson.dumps(answer)
        except RequestRefusedError as refusal:
            status, body = refusal.status, _error(refusal.message)
            if status == 405:
                allowed = b"POST" if scope["path"].endswith("/infer") else b"GET"
                headers = (*_JSON, (b"allow", allowed))
            elif status == 404 and scope["path"].endswith("/infer"):
                self._metrics.observe_unknown_model(time.perf_counter() - started)
        await self._send(send, status, body, headers)

    def answers_now(self, path: bytes) -> bool:
        """Whether a typical prediction asked for at `path` would be answered without waiting, and
        its connection go on afterwards.
        """
        served = self._service.served
        if served is None or served.at_once is None or path not in self._plain_infer_paths:
            return False
        return served.at_once.inline and self._state.ready

    def infer_now(self, body: bytes) -> tuple[int, bytes, Headers]:
        """Status, body and headers of the answer to a prediction, of which all bytes are here.

        For bodies of JSON alone, while :meth:`answers_now`. Counts it like any other.
        """
        started = self._state.last_request = time.perf_counter()
        status, answer, headers = 500, b"", _JSON
        try:
            served = self._service.loaded()
            assert served.at_once is not None
            request = served.decoder.decode(body)
            values = served.at_once.infer_inline(request)
            answer, headers = _encoded(served, request, values)
            status = 200
        except RequestRefusedError as refusal:
            status, answer = self._refused(refusal)
        except Exception as error:  # noqa: BLE001  a fault of ours is an answer too
            answer = _error(self._service.own_fault(error))
        seconds = time.perf_counter() - started
        self._metrics.observe_request(status, seconds, len(body), len(answer))
        return status, answer, headers

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        state = self._state
        state.in_flight += 1
        state.last_request = started
        status = 500
        body = answer = b""
        headers = _JSON
        linger: Receive | None = None
        try:
            try:
                body, json_length = await read_body(scope, receive, self._limit)
                served = self._service.loaded()
                request = served.decoder.decode(body, json_length)
                values = await served.engine.infer(request)
                answer, headers = _encoded(served, request, values)
                status = 200
            except RequestRefusedError as refusal:
                status, answer = self._refused(refusal)
                linger = receive if isinstance(refusal, BodyTooLargeError) else None
            except asyncio.CancelledError:
                # The grace period is over and the run goes on in its thread, unheard.
                status, answer = 503, _error(STOPPED)
            except ClientGoneError:
                status = CLIENT_GONE
                return
            except Exception as error:  # noqa: BLE001  a fault of ours is an answer too
                answer = _error(self._service.own_fault(error))
            await self._send(send, status, answer, headers, linger)
        finally:
            state.in_flight -= 1
            seconds = time.perf_counter() - started
            self._metrics.observe_request(status, seconds, len(body), len(answer))

    def _refused(self, refusal: RequestRefusedError) -> tuple[int, bytes]:
        if refusal.status == 500:
            self._service.complain(refusal.message)
        return refusal.status, _error(refusal.message)

    def _route(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """Answers everything but inference and metrics.

        Raises:
            RequestRefusedError: no such path, model or version, or a method that it has not.
        """
        found: tuple[int, dict[str, Any]] | None = None
        match path.rstrip("/").split("/"):
            case ["", "v2"]:
                found = 200, self._service.about_server()
            case ["", "v2", "health", "live"]:
                found = 200, {"live": True}
            case ["", "v2", "health", "ready"]:
                found = self._readiness(), {"ready": self._state.ready}
            case ["", "v2", "models", name, "versions", version, *rest]:
                found = self._model(name, version, rest)
            case ["", "v2", "models", name, *rest]:
                found = self._model(name, self._service.version, rest)
        if found is None:
            shown = shorten(path, 100)
            raise RequestRefusedError(404, f"no such path: {shown}; the protocol's begin with /v2")
        if method not in ("GET", "HEAD"):
            raise RequestRefusedError(405, f"{path} takes GET")
        return found

    def _model(self, name: str, version: str, rest: list[str]) -> tuple[int, dict[str, Any]] | None:
        self._service.check(name, version)
        match rest:
            case []:
                return 200, self._service.about_model()
            case ["ready"]:
                return self._readiness(), {"name": name, "ready": self._state.ready}
            case ["infer"]:
                raise RequestRefusedError(405, "inference takes POST")
        return None

    def _readiness(self) -> int:
        return 200 if self._state.ready else 503

    async def _send(
        self,
        send: Send,
        status: int,
        body: bytes,
        headers: Headers,
        linger: Receive | None = None,
    ) -> None:
        shown = [*headers, (b"content-length", b"%d" % len(body))]
        if linger is not None or self._state.draining:
            # While draining, each client is told with its answer to go elsewhere for the
            # next request; its connection is never closed under it.
            shown.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": shown})
        if linger is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await discard_rest(linger, self._limit)
            body = b""
        await send({"type": "http.response.body", "body": body})


def _encoded(served: Served, request: InferRequest, values: Sequence[Any]) -> tuple[bytes, Headers]:
    if not request.binary:
        return served.encoder.encode(request, values), _JSON
    answer, json_length = served.encoder.encode_binary(request, values)
    return answer, _binary(json_length)


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message})


def _binary(json_length: int) -> Headers:
    return (
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"%d" % json_length),
    )


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return ""
