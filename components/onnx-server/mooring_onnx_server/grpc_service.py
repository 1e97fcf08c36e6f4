"""The gRPC side: Open Inference Protocol v2 and the standard health service.

A request over gRPC is a request over REST in another encoding: the same checks, the same engine,
the same metrics, under the HTTP code that its status stands for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode
from grpc_health.v1 import (  # type: ignore[import-untyped]
    health,
    health_pb2,
    health_pb2_grpc,
)

from mooring_onnx_server import open_inference_pb2 as pb
from mooring_onnx_server.errors import InvalidRequestError, ModelLoadError, RequestRefusedError
from mooring_onnx_server.grpc_codec import MessageCodec
from mooring_onnx_server.service import CLIENT_GONE, STOPPED

if TYPE_CHECKING:
    from mooring_onnx_server.service import Service
    from mooring_onnx_server.signature import Signature


SERVICE = "inference.GRPCInferenceService"
STATUS: Mapping[int, StatusCode] = MappingProxyType(
    {
        400: StatusCode.INVALID_ARGUMENT,
        404: StatusCode.NOT_FOUND,
        500: StatusCode.INTERNAL,
        503: StatusCode.UNAVAILABLE,
    }
)
"""The status of each code that a request can be refused with."""

Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Callable[[Any, Context], Awaitable[Any]]
_Asked = TypeVar("_Asked", bound=Message)
_UNTIL_CLOSED = 10**6
"""Seconds: `close` ends what is in flight, and does it with an answer."""
_HOLD_SECONDS = 0.05
_LAST_WORDS_SECONDS = 0.5
"""For answers on their way to clients whose requests were cut."""


class InferenceService:
    """The six methods of the protocol, for one model."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._codec: MessageCodec | None = None
        self._running: set[asyncio.Task[Any] | None] = set()
        self._gate = asyncio.Event()
        self._gate.set()
        self._closed = False
        self._cutting = False

    def prepare(self, signature: Signature) -> None:
        """Learns the model's signature; before the service begins to serve it."""
        self._codec = MessageCodec(self._service.name, self._service.version, signature)

    def handler(self) -> grpc.GenericRpcHandler:
        """The table of methods for a server."""
        asked: Mapping[str, tuple[Callable[[Any], Message], type[Message]]] = {
            "ServerLive": (self._server_live, pb.ServerLiveRequest),
            "ServerReady": (self._server_ready, pb.ServerReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
        }
        # Without (de)serializers, bytes come and go: their number is counted, and bytes that are
        # no message are the client's fault, for which gRPC itself would answer INTERNAL.
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(_answering(answer, request))
            for name, (answer, request) in asked.items()
        }
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _server_live(self, _: pb.ServerLiveRequest) -> Message:
        return pb.ServerLiveResponse(live=True)

    def _server_ready(self, _: pb.ServerReadyRequest) -> Message:
        return pb.ServerReadyResponse(ready=self._service.state.ready)

    def _server_metadata(self, _: pb.ServerMetadataRequest) -> Message:
        about = self._service.about_server()
        # The one extension is a matter of REST: gRPC's raw contents belong to the protocol.
        return pb.ServerMetadataResponse(name=about["name"], version=about["version"])

    def _model_ready(self, request: pb.ModelReadyRequest) -> Message:
        self._check(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._service.state.ready)

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> Message:
        self._check(request.name, request.version)
        about = self._service.about_model()
        tensor = pb.ModelMetadataResponse.TensorMetadata
        inputs = [tensor(**entry) for entry in about.pop("inputs")]
        outputs = [tensor(**entry) for entry in about.pop("outputs")]
        return pb.ModelMetadataResponse(inputs=inputs, outputs=outputs, **about)

    def _check(self, name: str, version: str) -> None:
        self._service.check(name, version or self._service.version)

    async def _infer(self, data: bytes, context: Context) -> bytes:
        started = time.perf_counter()
        service = self._service
        state = service.state
        state.in_flight += 1
        state.last_request = started
        code = 500
        answer = b""
        task = asyncio.current_task()
        self._running.add(task)
        try:
            answer = await self._predict(data)
            code = 200
        except RequestRefusedError as refusal:
            code = refusal.status
            if code == 500:
                service.complain(refusal.message)
            await context.abort(STATUS[code], refusal.message)
        except asyncio.CancelledError:
            if not self._cutting:
                # The client went away, or its deadline did.
                code = CLIENT_GONE
                raise
            code = 503
            await context.abort(STATUS[code], STOPPED)
        except Exception as error:  # noqa: BLE001  a fault of ours is an answer too
            await context.abort(StatusCode.INTERNAL, service.own_fault(error))
        finally:
            self._running.discard(task)
            state.in_flight -= 1
            seconds = time.perf_counter() - started
            if code == 404:
                service.metrics.observe_unknown_model(seconds)
            else:
                service.metrics.observe_request(code, seconds, len(data), len(answer))
        return answer

    async def _predict(self, data: bytes) -> bytes:
        if self._closed:
            # Its connection is being closed, and the client's next attempt goes elsewhere.
            raise RequestRefusedError(503, "the server is stopping: send it to another")
        await self._gate.wait()
        message = _parse(pb.ModelInferRequest, data)
        self._check(message.model_name, message.model_version)
        served = self._service.loaded()
        if self._codec is None:
            raise AssertionError("the model is served before its signature is known")
        request = self._codec.decode(message)
        values = await served.engine.infer(request)
        return self._codec.encode(request, values).SerializeToString()

    def hold(self) -> None:
        """Keeps requests that come from now on waiting, until `close`."""
        self._gate.clear()

    def close(self) -> None:
        """Lets them go on; who comes from now on is sent elsewhere."""
        self._closed = True
        self._gate.set()

    def cut(self) -> None:
        """Ends every request that is still in flight, with an answer."""
        self._cutting = True
        for task in self._running:
            if task is not None:
                task.cancel()


class GrpcServer:
    """The port, and its part of the server's life."""

    def __init__(self, service: Service, max_body_bytes: int) -> None:
        self._name = service.name
        self._inference = InferenceService(service)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_body_bytes),
                ("grpc.so_reuseport", 0),
            )
        )
        self._server.add_generic_rpc_handlers((self._inference.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Opens the port, for IPv4 and IPv6 alike where no host is named, and gives its number.

        Raises:
            ModelLoadError: it cannot be opened.
        """
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        shown = f"[{host}]" if ":" in host else host or "[::]"
        try:
            bound = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError as error:
            raise ModelLoadError(
                f"cannot listen on port {port} of {host or 'any address'} for gRPC (it is taken, "
                "or not ours to use): give another --grpc-port or --host, or --no-grpc"
            ) from error
        await self._server.start()
        return bound

    async def begin(self, signature: Signature) -> None:
        """The model is loaded: health says so; called before the service serves it."""
        self._inference.prepare(signature)
        await self._tell(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Takes no new requests and lets clients connect elsewhere; what is in flight goes on.

        HTTP/2 connections live as long as their clients. One that is not told to go would keep
        its client here, so the port closes and each client is told at once.

        A request that gRPC has read and not yet handed over is lost in that moment (its client
        sees CANCELLED). So what comes is held for an instant, with the event loop idle and every
        request handed over at once; what is held is answered afterwards.
        """
        await self._health.enter_graceful_shutdown()
        self._inference.hold()
        await asyncio.sleep(_HOLD_SECONDS)
        self._stopping = asyncio.create_task(self._server.stop(_UNTIL_CLOSED))
        await asyncio.sleep(_HOLD_SECONDS)
        self._inference.close()

    async def close(self) -> None:
        """Ends what is left: requests with an answer, watchers of health without."""
        self._inference.cut()
        await self._server.stop(_LAST_WORDS_SECONDS)
        if self._stopping is not None:
            await self._stopping

    async def _tell(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE, self._name):
            await self._health.set(service, status)


def _answering(answer: Callable[[Any], Message], request: type[Message]) -> _Handler:
    """A method that only tells something."""

    async def method(data: bytes, context: Context) -> bytes:
        try:
            return answer(_parse(request, data)).SerializeToString()
        except RequestRefusedError as refusal:
            await context.abort(STATUS[refusal.status], refusal.message)
            raise

    return method


def _parse(message: type[_Asked], data: bytes) -> _Asked:
    try:
        return message.FromString(data)
    except DecodeError:
        raise InvalidRequestError(
            f"the message is no {message.DESCRIPTOR.full_name}: its bytes do not parse"
        ) from None
