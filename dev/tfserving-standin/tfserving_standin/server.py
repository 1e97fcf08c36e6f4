"""REST and gRPC of TensorFlow Serving, as far as Mooring's tests use them."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfserving_standin.metrics import Metrics
from tfserving_standin.model import Model, Refused
from tfserving_standin.options import CannotStart, Options, parse

_HTTP = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "INTERNAL": 500}
_PATH = re.compile(
    r"^/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]+))?(?P<what>|:predict|/metadata)$"
)


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """The gRPC service that clients ask."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """One prediction of tensors."""
        begin = time.perf_counter()
        try:
            _check(self._model, request.model_spec.name, request.model_spec.version.value)
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            found = self._model.run(request.model_spec.signature_name, inputs)
        except Refused as error:
            self._metrics.count(error.status)
            context.abort(grpc.StatusCode[error.status], str(error))
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name = self._model.name
        answer.model_spec.version.value = self._model.version
        answer.model_spec.signature_name = request.model_spec.signature_name or "serving_default"
        for key, value in found.items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        self._metrics.count("OK")
        self._metrics.time("Predict", "GRPC", time.perf_counter() - begin)
        return answer


class Status(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """The gRPC service that says which version is there."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The one version, available."""
        if request.model_spec.name != self._model.name:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of {request.model_spec}"
            )
        answer = get_model_status_pb2.GetModelStatusResponse()
        one = answer.model_version_status.add()
        one.version, one.state = self._model.version, one.AVAILABLE
        return answer


def _check(model: Model, name: str, version: int) -> None:
    if name != model.name or version not in (0, model.version):
        raise Refused("NOT_FOUND", f"Servable not found for request: Specific({name}, {version})")


def _found(model: Model, method: str, path: str, body: bytes) -> dict[str, Any]:
    """The answer to a REST request; raises Refused."""
    match = _PATH.match(path)
    if not match or (match["what"] == ":predict") is not (method == "POST"):
        raise Refused("INVALID_ARGUMENT", f"Malformed request: {method} {path}")
    _check(model, match["name"], int(match["version"] or 0))
    if match["what"] == ":predict":
        try:
            asked = json.loads(body)
        except ValueError as error:
            raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
        if not isinstance(asked, dict):
            raise Refused("INVALID_ARGUMENT", "the body must be a JSON object")
        return model.predict_json(asked)
    if match["what"] == "/metadata":
        return {
            "model_spec": {"name": model.name, "version": str(model.version)},
            "metadata": {"signature_def": {"signature_def": sorted(model.signatures)}},
        }
    status = {"error_code": "OK", "error_message": ""}
    one = {"version": str(model.version), "state": "AVAILABLE", "status": status}
    return {"model_version_status": [one]}


def rest_handler(model: Model, metrics: Metrics, path: str) -> type[BaseHTTPRequestHandler]:
    """The REST API of this model, with its metrics at `path`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if path and self.path == path:
                self._send(200, metrics.text().encode(), "text/plain")
                return
            self._answer("GET", b"")

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            self._answer("POST", self.rfile.read(size))

        def _answer(self, method: str, body: bytes) -> None:
            begin = time.perf_counter()
            try:
                found = _found(model, method, self.path, body)
            except Refused as error:
                metrics.count(error.status)
                content = json.dumps({"error": str(error)}).encode()
                self._send(_HTTP[error.status], content, "application/json")
                return
            metrics.count("OK")
            if method == "POST":
                metrics.time("predict", "REST", time.perf_counter() - begin)
            self._send(200, json.dumps(found).encode(), "application/json")

        def _send(self, code: int, content: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Requests are counted, not logged."""

    return Handler


def serve(options: Options, model: Model) -> None:
    """Serve until SIGTERM; REST opens last, since that means ready."""
    metrics = Metrics(model.name)
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(model, metrics), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(model), server)
    server.add_insecure_port(f"0.0.0.0:{options.port}")
    server.start()
    rest = ThreadingHTTPServer(
        ("0.0.0.0", options.rest_port), rest_handler(model, metrics, options.metrics_path)
    )
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=rest.shutdown).start())
    print(f"A stand-in for TensorFlow Serving serves {model.name} version {model.version}.")
    rest.serve_forever()
    server.stop(grace=10).wait()


def main(arguments: list[str]) -> int:
    """Exit code: 0 after SIGTERM, 255 when there is nothing to serve."""
    try:
        options = parse(arguments)
        model = Model(options.name, options.folder, options.version)
    except CannotStart as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr, flush=True)
        return 255
    serve(options, model)
    return 0
