"""The HTTP application: Open Inference Protocol v2 over REST, health and metrics.

A bare ASGI application. The hot path is one comparison of the path, one parse, one run, one
write; a framework's routing would cost as much as the model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from mooring_onnx_server import __version__
from mooring_onnx_server.body import BodyTooLargeError, ClientGoneError, discard_rest, read_body
from mooring_onnx_server.errors import RequestRefusedError
from mooring_onnx_server.state import Phase, ServerState
from mooring_onnx_server.tensors import shorten

if TYPE_CHECKING:
    from mooring_onnx_server.asgi import Receive, Scope, Send
    from mooring_onnx_server.engine import Engine
    from mooring_onnx_server.metrics import Metrics
    from mooring_onnx_server.request import RequestDecoder
    from mooring_onnx_server.response import ResponseEncoder
    from mooring_onnx_server.signature import Signature

_log = logging.getLogger(__name__)

_JSON = b"application/json"
_CLIENT_GONE = 499
_SERVER = {"name": "mooring-onnx-server", "version": __version__, "extensions": []}
_COMPLAINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model with everything that answers for it."""

    signature: Signature
    decoder: RequestDecoder
    engine: Engine
    encoder: ResponseEncoder


class Application:
    """Answers HTTP requests for one model, also before it is loaded and while draining."""

    def __init__(
        self,
        model_name: str,
        model_version: str,
        state: ServerState,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self._name = model_name
        self._version = model_version
        self._state = state
        self._metrics = metrics
        self._limit = max_body_bytes
        self._served: Served | None = None
        self._infer_paths = frozenset(
            {
                f"/v2/models/{model_name}/infer",
                f"/v2/models/{model_name}/versions/{model_version}/infer",
            }
        )
        self._complained = float("-inf")
        self._suppressed = 0

    def serve(self, served: Served) -> None:
        """Begins to answer for a loaded and warmed-up model."""
        self._served = served
        self._state.phase = Phase.READY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; everything but HTTP is refused by the server in front."""
        if scope["path"] in self._infer_paths and scope["method"] == "POST":
            await self._infer(scope, receive, send)
            return
        started = time.perf_counter()
        content_type = _JSON
        extra: tuple[tuple[bytes, bytes], ...] = ()
        try:
            if scope["path"] == "/metrics":
                status = 200
                body, shown = self._metrics.render(_header(scope, b"accept"))
                content_type = shown.encode()
            else:
                status, answer = self._route(scope["method"], scope["path"])
                body = orjson.dumps(answer)
        except RequestRefusedError as refusal:
            status, body = refusal.status, _error(refusal.message)
            if status == 405:
                extra = ((b"allow", b"POST" if scope["path"].endswith("/infer") else b"GET"),)
            elif status == 404 and scope["path"].endswith("/infer"):
                self._metrics.observe_unknown_model(time.perf_counter() - started)
        await self._send(send, status, body, content_type, extra)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        state = self._state
        state.in_flight += 1
        state.last_request = started
        status = 500
        body = answer = b""
        linger: Receive | None = None
        try:
            try:
                body = await read_body(scope, receive, self._limit)
                served = self._loaded()
                request = served.decoder.decode(body)
                values = await served.engine.infer(request)
                answer = served.encoder.encode(request, values)
                status = 200
            except RequestRefusedError as refusal:
                status, answer = refusal.status, _error(refusal.message)
                if status == 500:
                    self._complain(refusal.message)
                linger = receive if isinstance(refusal, BodyTooLargeError) else None
            except asyncio.CancelledError:
                # The grace period is over and the run goes on in its thread, unheard.
                status = 503
                answer = _error("the server stopped before this request was done: send it again")
            except ClientGoneError:
                status = _CLIENT_GONE
                return
            except Exception:  # noqa: BLE001  a fault of ours is an answer too
                _log.exception("a request failed inside the server")
                answer = _error("the server failed on this request: its log says where")
            await self._send(send, status, answer, linger=linger)
        finally:
            state.in_flight -= 1
            seconds = time.perf_counter() - started
            self._metrics.observe_request(status, seconds, len(body), len(answer))

    def _loaded(self) -> Served:
        if self._served is None:
            raise RequestRefusedError(
                503, f"model '{self._name}' is still loading: try again later"
            )
        return self._served

    def _route(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """Answers everything but inference and metrics.

        Raises:
            RequestRefusedError: no such path, model or version, or a method that it has not.
        """
        found: tuple[int, dict[str, Any]] | None = None
        match path.rstrip("/").split("/"):
            case ["", "v2"]:
                found = 200, _SERVER
            case ["", "v2", "health", "live"]:
                found = 200, {"live": True}
            case ["", "v2", "health", "ready"]:
                found = self._readiness(), {"ready": self._state.ready}
            case ["", "v2", "models", name, "versions", version, *rest]:
                found = self._model(name, version, rest)
            case ["", "v2", "models", name, *rest]:
                found = self._model(name, self._version, rest)
        if found is None:
            shown = shorten(path, 100)
            raise RequestRefusedError(404, f"no such path: {shown}; the protocol's begin with /v2")
        if method not in ("GET", "HEAD"):
            raise RequestRefusedError(405, f"{path} takes GET")
        return found

    def _model(self, name: str, version: str, rest: list[str]) -> tuple[int, dict[str, Any]] | None:
        if name != self._name:
            raise RequestRefusedError(
                404, f"no model '{shorten(name)}' here: this server has '{self._name}'"
            )
        if version != self._version:
            raise RequestRefusedError(
                404, f"model '{name}' has no version '{shorten(version)}': it has '{self._version}'"
            )
        match rest:
            case []:
                return 200, self._metadata()
            case ["ready"]:
                return self._readiness(), {"name": self._name, "ready": self._state.ready}
            case ["infer"]:
                raise RequestRefusedError(405, "inference takes POST")
        return None

    def _readiness(self) -> int:
        return 200 if self._state.ready else 503

    def _metadata(self) -> dict[str, Any]:
        signature = self._loaded().signature
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": "onnx_onnxv1",
            "inputs": [spec.metadata for spec in signature.inputs],
            "outputs": [output.tensor.metadata for output in signature.outputs],
        }

    async def _send(
        self,
        send: Send,
        status: int,
        body: bytes,
        content_type: bytes = _JSON,
        extra: tuple[tuple[bytes, bytes], ...] = (),
        linger: Receive | None = None,
    ) -> None:
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            *extra,
        ]
        if linger is not None or self._state.draining:
            # While draining, each client is told with its answer to go elsewhere for the
            # next request; its connection is never closed under it.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if linger is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await discard_rest(linger, self._limit)
            body = b""
        await send({"type": "http.response.body", "body": body})

    def _complain(self, message: str) -> None:
        """Logs a model's failure, at most one a second: a broken model fails every request."""
        now = time.perf_counter()
        if now - self._complained < _COMPLAINT_SECONDS:
            self._suppressed += 1
            return
        more = f" (and {self._suppressed} more like it)" if self._suppressed else ""
        _log.error("%s%s", message, more)
        self._complained, self._suppressed = now, 0


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message})


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return ""
