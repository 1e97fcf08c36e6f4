"""The points of the Open Inference Protocol v2 over gRPC.

gRPC and its messages are imported here and nowhere else: they come with ``mooring-operator[cli]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import StatusCode

from mooring.cli import open_inference_pb2 as pb
from mooring.cli.probe_points import (
    DATATYPES,
    CannotTell,
    Differs,
    ModelMetadata,
    Point,
    Tensor,
    Unreachable,
    check_count,
    other_datatype,
    read_metadata,
    read_outputs,
    said,
    shorten,
)

_SERVICE = "inference.GRPCInferenceService"
_ID = "mooring-probe-1"
_UNKNOWN = "mooring-probe-no-such-model"
_REFUSED = (StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND)
_REFUSAL = "INVALID_ARGUMENT with a message"


class GrpcProbe:
    """Asks one server about one model."""

    def __init__(self, address: str, model: str | None, timeout: float) -> None:
        """Connects when the first point is tried.

        Args:
            address: host and port, without TLS.
            model: its name; None leaves out what needs one.
            timeout: seconds for each answer.
        """
        self._address = address
        self._model = model
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address)
        self._metadata: ModelMetadata | None = None
        self._works = False

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def points(self) -> Iterator[Point]:
        """All points, in an order in which each stands on those before it."""
        yield Point("gRPC server live", "ServerLive: live", self._server_live)
        yield Point("gRPC server ready", "ServerReady: ready", self._server_ready)
        yield Point("gRPC server metadata", "ServerMetadata: name, version", self._server_metadata)
        yield Point("gRPC model ready", "ModelReady: ready", self._model_ready)
        yield Point(
            "gRPC model metadata",
            "ModelMetadata: name, platform, inputs and outputs",
            self._model_metadata,
        )
        yield Point(
            "gRPC model ready, version",
            "ModelReady with version: ready",
            lambda: self._model_ready(self._version()),
        )
        yield Point("gRPC infer", "ModelInfer with typed contents", self._infer)
        yield Point(
            "gRPC infer, raw", "ModelInfer with raw_input_contents: the same", self._infer_raw
        )
        yield Point("gRPC infer, id", "the answer has the request's id", self._infer_id)
        for name, change in (
            ("wrong input name", _rename),
            ("wrong shape", _reshape),
            ("wrong datatype", _retype),
            ("missing input", _drop),
        ):
            yield Point(
                f"gRPC {name}",
                _REFUSAL,
                lambda change=change: self._refused(change),  # type: ignore[misc]
            )
        yield Point("gRPC unknown model", "NOT_FOUND or INVALID_ARGUMENT", self._unknown_model)

    def _call(self, method: str, request: Message, answer: type[Message]) -> Any:
        stub: Callable[..., Any] = self._channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return stub(request, timeout=self._timeout)
        except grpc.RpcError as error:
            failed: Any = error  # what a call raises is a call, too, which no type says
            code, details = failed.code(), failed.details() or ""
            if code is StatusCode.UNAVAILABLE and "connect" in details.lower():
                raise Unreachable(shorten(details)) from error
            raise _Refused(code, details) from error

    def _server_live(self) -> str:
        found = self._call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
        return _true(found.live, "live")

    def _server_ready(self) -> str:
        found = self._call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        return _true(found.ready, "ready")

    def _server_metadata(self) -> str:
        found = self._call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
        if not found.name:
            raise Differs("no name")
        return f"{found.name} {found.version}"

    def _named(self) -> str:
        if self._model is None:
            raise CannotTell("no model is named: give --model")
        return self._model

    def _model_ready(self, version: str = "") -> str:
        request = pb.ModelReadyRequest(name=self._named(), version=version)
        return _true(self._call("ModelReady", request, pb.ModelReadyResponse).ready, "ready")

    def _model_metadata(self) -> str:
        request = pb.ModelMetadataRequest(name=self._named())
        found = self._call("ModelMetadata", request, pb.ModelMetadataResponse)
        self._metadata = read_metadata(
            {
                "name": found.name,
                "platform": found.platform,
                "versions": list(found.versions),
                "inputs": [_entry(tensor) for tensor in found.inputs],
                "outputs": [_entry(tensor) for tensor in found.outputs],
            }
        )
        return f"{said(self._metadata.inputs)} → {said(self._metadata.outputs)}"

    def _known(self) -> ModelMetadata:
        self._named()
        if self._metadata is None:
            raise CannotTell("the model's metadata is needed for it")
        return self._metadata

    def _version(self) -> str:
        versions = self._known().versions
        if not versions:
            raise CannotTell("the model's metadata names no versions")
        return versions[0]

    def _request(self, *, raw: bool = False) -> pb.ModelInferRequest:
        """The request that is to succeed: zeros, every open length 1."""
        request = pb.ModelInferRequest(model_name=self._known().name)
        for tensor in self._known().inputs:
            shape, datatype = tensor.smallest, DATATYPES[tensor.datatype]
            given = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
            count = math.prod(shape)
            if raw:
                # An empty text is its length in four bytes.
                request.raw_input_contents.append(bytes(count * (datatype.bytes or 4)))
            elif not datatype.typed_field:
                raise CannotTell(f"{tensor.datatype} has no typed contents")
            else:
                nothing = b"" if tensor.datatype == "BYTES" else datatype.nothing
                getattr(given.contents, datatype.typed_field).extend([nothing] * count)
        return request

    def _predict(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        found: pb.ModelInferResponse = self._call("ModelInfer", request, pb.ModelInferResponse)
        return found

    def _infer(self) -> str:
        outputs = self._outputs(self._predict(self._request()))
        self._works = True
        return said(outputs)

    def _infer_raw(self) -> str:
        outputs = self._outputs(self._predict(self._request(raw=True)))
        self._works = True
        return said(outputs)

    def _outputs(self, answer: pb.ModelInferResponse) -> list[Tensor]:
        entries = [_entry(tensor) for tensor in answer.outputs]
        document = {"model_name": answer.model_name, "outputs": entries}
        outputs = read_outputs(document, self._known())
        raw = answer.raw_output_contents
        if raw and len(raw) != len(answer.outputs):
            raise Differs(f"{len(raw)} raw outputs for {len(answer.outputs)} outputs")
        for index, tensor in enumerate(outputs.values()):
            datatype = DATATYPES[tensor.datatype]
            if raw and datatype.bytes:
                check_count(tensor, len(raw[index]) // datatype.bytes)
            elif not raw:
                contents = answer.outputs[index].contents
                check_count(
                    tensor, len(getattr(contents, datatype.typed_field or "bytes_contents"))
                )
        return list(outputs.values())

    def _working(self) -> pb.ModelInferRequest:
        self._known()
        if not self._works:
            raise CannotTell("no inference worked")
        return self._request(raw=True)

    def _infer_id(self) -> str:
        request = self._working()
        request.id = _ID
        found = self._predict(request).id
        if found != _ID:
            raise Differs(f"sent {_ID}, got {found or 'none'}")
        return f"id {found}"

    def _refused(self, change: Callable[[pb.ModelInferRequest], None]) -> str:
        request = self._working()
        if not request.inputs:
            raise CannotTell("the model has no inputs")
        change(request)
        return self._refusal("ModelInfer", request, pb.ModelInferResponse)

    def _unknown_model(self) -> str:
        request = pb.ModelMetadataRequest(name=_UNKNOWN)
        return self._refusal("ModelMetadata", request, pb.ModelMetadataResponse)

    def _refusal(self, method: str, request: Message, answer: type[Message]) -> str:
        try:
            self._call(method, request, answer)
        except _Refused as refused:
            if refused.code not in _REFUSED or not refused.details:
                raise
            return str(refused)
        raise Differs("it was taken")


class _Refused(Differs):
    """A status that is not OK."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {shorten(details)}")
        self.code = code
        self.details = details


def _true(value: bool, what: str) -> str:
    if not value:
        raise Differs(f"not {what}")
    return what


def _entry(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _rename(request: pb.ModelInferRequest) -> None:
    request.inputs[0].name = "mooring-probe-no-such-input"


def _reshape(request: pb.ModelInferRequest) -> None:
    shape = [1, 1, *request.inputs[0].shape]
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend(shape)


def _retype(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = other_datatype(request.inputs[0].datatype)


def _drop(request: pb.ModelInferRequest) -> None:
    del request.inputs[0]
    del request.raw_input_contents[0]
