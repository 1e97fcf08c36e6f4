"""The points of the Open Inference Protocol v2 over REST."""

from __future__ import annotations

import errno
import json
import math
import socket
import struct
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from mooring.cli.probe_points import (
    BINARY_EXTENSION,
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

_MAX_BYTES = 64 * 2**20
_JSON_LENGTH = "Inference-Header-Content-Length"
_ID = "mooring-probe-1"
_UNKNOWN = "mooring-probe-no-such-model"
_REFUSAL = '4xx with {"error": "…"}'


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises Differs where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Differs(f"{self.status} without JSON: {self.shown}") from None

    @property
    def shown(self) -> str:
        """The body in a few words, or where a redirect leads, which is not followed."""
        if 300 <= self.status < 400 and "Location" in self.headers:
            return f"redirects to {shorten(self.headers['Location'])}"
        return shorten(self.body.decode(errors="replace")) or "(empty)"


class RestProbe:
    """Asks one server about one model."""

    def __init__(self, url: str, model: str | None, timeout: float, request: Any) -> None:
        """Asks nothing yet.

        Args:
            url: where the paths of the protocol begin (without /v2).
            model: its name; None leaves out what needs one.
            timeout: seconds for each answer.
            request: an inference request to use; None makes one of zeros from the metadata.
        """
        self._base = url.rstrip("/").removesuffix("/v2")
        self._model = model
        self._timeout = timeout
        self._given = request
        self._session = requests.Session()
        self._extensions: list[str] = []
        self._metadata: ModelMetadata | None = None
        self._works = False

    def points(self) -> Iterator[Point]:
        """All points, in an order in which each stands on those before it."""
        yield Point("server live", "GET v2/health/live: 200", self._get_200("v2/health/live"))
        yield Point("server ready", "GET v2/health/ready: 200", self._get_200("v2/health/ready"))
        yield Point("server metadata", "GET v2: name, version, extensions", self._server_metadata)
        yield Point("model ready", "GET v2/models/M/ready: 200", self._model_ready)
        yield Point(
            "model metadata",
            "GET v2/models/M: name, platform, inputs and outputs with name, datatype, shape",
            self._model_metadata,
        )
        yield Point(
            "model ready, version",
            "GET v2/models/M/versions/V/ready: 200",
            lambda: self._model_ready(self._version()),
        )
        yield Point(
            "model metadata, version",
            "GET v2/models/M/versions/V: as without version",
            self._metadata_of_version,
        )
        yield from self._inference()
        yield from self._refusals()
        yield from self._binary()

    def _inference(self) -> Iterator[Point]:
        yield Point("infer", "POST v2/models/M/infer: 200, outputs as in the metadata", self._infer)
        yield Point(
            "infer, version",
            "POST v2/models/M/versions/V/infer: as without version",
            lambda: self._infer(version=self._version()),
        )
        yield Point("infer, id", "the answer has the request's id", self._infer_id)
        yield Point("infer, outputs", "only the outputs that are asked for", self._infer_outputs)

    def _refusals(self) -> Iterator[Point]:
        for name, change in (
            ("wrong input name", _rename),
            ("wrong shape", _reshape),
            ("wrong datatype", _retype),
            ("missing input", _drop),
        ):
            yield Point(name, _REFUSAL, lambda change=change: self._refused(change))  # type: ignore[misc]
        yield Point("not JSON", _REFUSAL, lambda: self._refusal("POST", self._path("infer"), b"{"))
        yield Point(
            "unknown model, metadata",
            _REFUSAL,
            lambda: self._refusal("GET", f"v2/models/{_UNKNOWN}"),
        )
        yield Point(
            "unknown model, infer",
            _REFUSAL,
            lambda: self._refusal(
                "POST", f"v2/models/{_UNKNOWN}/infer", json.dumps(self._request()).encode()
            ),
        )

    def _binary(self) -> Iterator[Point]:
        yield Point(
            "binary input",
            f"with {_JSON_LENGTH} and 'binary_data_size', bytes follow the JSON",
            self._binary_input,
        )
        yield Point(
            "binary output",
            f"'binary_data' of an output: bytes after the JSON, {_JSON_LENGTH} says where",
            self._binary_output,
        )

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> Answer:
        try:
            try:
                return self._send(method, path, body, headers)
            except requests.ConnectionError as error:
                # A kept connection may have been closed while this was on its way.
                if isinstance(error, requests.Timeout) or _absent(error):
                    raise
                return self._send(method, path, body, headers)
        except requests.ReadTimeout:
            raise Differs(f"no answer within {self._timeout:g} s") from None
        except (requests.ConnectTimeout, requests.exceptions.InvalidURL) as error:
            raise Unreachable(_reason(error)) from error
        except requests.ConnectionError as error:
            if _absent(error):
                raise Unreachable(_reason(error)) from error
            raise Differs(f"the connection ended without an answer: {_reason(error)}") from None
        except requests.RequestException as error:
            raise Differs(f"no HTTP answer: {_reason(error)}") from None

    def _send(self, method: str, path: str, body: bytes | None, headers: Any) -> Answer:
        shown = {"Content-Type": "application/json"} if body is not None else {}
        with self._session.request(
            method, f"{self._base}/{path}", data=body, headers={**shown, **(headers or {})},
            timeout=self._timeout, allow_redirects=False, stream=True,
        ) as answer:  # fmt: skip
            content = bytearray()
            for chunk in answer.iter_content(65_536):
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise Differs(f"an answer of more than {_MAX_BYTES} bytes")
            return Answer(answer.status_code, answer.headers, bytes(content))

    def _ok(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Answer:
        answer = self._call(method, path, body, headers)
        if answer.status != 200:
            raise Differs(f"{answer.status}: {answer.shown}")
        return answer

    def _get_200(self, path: str) -> Any:
        return lambda: str(self._ok("GET", path).status)

    def _server_metadata(self) -> str:
        about = self._ok("GET", "v2").json()
        if not isinstance(about, dict):
            raise Differs(f"not an object: {shorten(about)}")
        for key in ("name", "version"):
            if not isinstance(about.get(key), str):
                raise Differs(f"no text as '{key}': {shorten(about)}")
        listed = about.get("extensions")
        if not isinstance(listed, list):
            raise Differs(f"'extensions' is no list: {shorten(about)}")
        self._extensions = [str(extension) for extension in listed]
        extensions = ", ".join(self._extensions) or "none"
        return f"{about['name']} {about['version']}, extensions: {extensions}"

    def _path(self, rest: str = "", version: str | None = None) -> str:
        if self._model is None:
            raise CannotTell("no model is named: give --model")
        parts = ["v2/models", quote(self._model, safe="")]
        if version is not None:
            parts += ["versions", quote(version, safe="")]
        return "/".join([*parts, rest] if rest else parts)

    def _model_ready(self, version: str | None = None) -> str:
        return str(self._ok("GET", self._path("ready", version)).status)

    def _model_metadata(self) -> str:
        metadata = read_metadata(self._ok("GET", self._path()).json())
        if metadata.name != self._model:
            raise Differs(f"'name' is {metadata.name}")
        self._metadata = metadata
        return f"{said(metadata.inputs)} → {said(metadata.outputs)}"

    def _known(self) -> ModelMetadata:
        self._path()
        if self._metadata is None:
            raise CannotTell("the model's metadata is needed for it")
        return self._metadata

    def _expected(self) -> ModelMetadata:
        """What answers are compared with: nothing but the name where a request of the user's own
        does without metadata.
        """
        if self._given is None or self._metadata is not None:
            return self._known()
        self._path()
        return ModelMetadata(self._model or "", (), (), ())

    def _version(self) -> str:
        metadata = self._known()
        if not metadata.versions:
            raise CannotTell("the model's metadata names no versions")
        return metadata.versions[0]

    def _metadata_of_version(self) -> str:
        version = self._version()
        found = read_metadata(self._ok("GET", self._path(version=version)).json())
        known = self._known()
        if (found.inputs, found.outputs) != (known.inputs, known.outputs):
            raise Differs(f"another signature: {said(found.inputs)} → {said(found.outputs)}")
        return f"version {version}: the same"

    def _request(self) -> dict[str, Any]:
        """The request that is to succeed."""
        if self._given is not None:
            given: dict[str, Any] = deepcopy(self._given)
            return given
        return {"inputs": [_zeros(tensor) for tensor in self._known().inputs]}

    def _infer(self, version: str | None = None) -> str:
        outputs = self._outputs(self._post(self._request(), version))
        self._works = True
        return said(outputs.values())

    def _post(self, document: Any, version: str | None = None) -> Any:
        path = self._path("infer", version)
        answer = self._call("POST", path, json.dumps(document).encode())
        if answer.status != 200:
            hint = "" if self._given is not None else " (made-up zeros: try --input FILE)"
            raise Differs(f"{answer.status}: {answer.shown}{hint}")
        return answer.json()

    def _outputs(self, document: Any) -> dict[str, Tensor]:
        outputs = read_outputs(document, self._expected())
        for entry in document["outputs"]:
            data = entry.get("data")
            if not isinstance(data, list):
                raise Differs(f"output '{entry['name']}' has no list as 'data'")
            check_count(outputs[entry["name"]], _elements(data))
        return outputs

    def _working(self) -> dict[str, Any]:
        self._expected()
        if not self._works:
            raise CannotTell("no inference worked")
        return self._request()

    def _infer_id(self) -> str:
        found = self._post({**self._working(), "id": _ID}).get("id")
        if found != _ID:
            raise Differs(f"sent {_ID}, got {shorten(found)}")
        return f"id {found}"

    def _infer_outputs(self) -> str:
        request = self._working()
        outputs = self._known().outputs
        if len(outputs) < 2:
            raise CannotTell("the model has one output")
        found = self._outputs(self._post({**request, "outputs": [{"name": outputs[-1].name}]}))
        if list(found) != [outputs[-1].name]:
            raise Differs(f"asked for {outputs[-1].name}, got {', '.join(found)}")
        return f"only {outputs[-1].name}"

    def _refused(self, change: Any) -> str:
        request = self._working()
        if not request.get("inputs"):
            raise CannotTell("the model has no inputs")
        change(request)
        return self._refusal("POST", self._path("infer"), json.dumps(request).encode())

    def _refusal(self, method: str, path: str, body: bytes | None = None) -> str:
        answer = self._call(method, path, body)
        if not 400 <= answer.status < 500:
            raise Differs(f"{answer.status}: {answer.shown}")
        document = answer.json()
        error = document.get("error") if isinstance(document, dict) else None
        if not isinstance(error, str) or not error:
            raise Differs(f"{answer.status} without 'error': {answer.shown}")
        return f"{answer.status}: {shorten(error)}"

    def _announced(self) -> dict[str, Any]:
        if BINARY_EXTENSION not in self._extensions:
            raise CannotTell(f"the server does not announce {BINARY_EXTENSION}")
        return self._working()

    def _binary_input(self) -> str:
        self._announced()
        tensors = self._known().inputs
        entries, tail = [], b""
        for tensor in tensors:
            raw = _raw_zeros(tensor)
            entry = _zeros(tensor)
            del entry["data"]
            entries.append({**entry, "parameters": {"binary_data_size": len(raw)}})
            tail += raw
        if self._given is not None:
            raise CannotTell("with --input the request is sent as it is")
        head = json.dumps({"inputs": entries}).encode()
        headers = {_JSON_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
        answer = self._ok("POST", self._path("infer"), head + tail, headers)
        return f"{len(tail)} bytes sent: {said(self._outputs(answer.json()).values())}"

    def _binary_output(self) -> str:
        request = self._announced()
        wanted = self._known().outputs[-1]
        request["outputs"] = [{"name": wanted.name, "parameters": {"binary_data": True}}]
        answer = self._ok("POST", self._path("infer"), json.dumps(request).encode())
        length = answer.headers.get(_JSON_LENGTH, "")
        if not length.isdigit() or int(length) > len(answer.body):
            raise Differs(f"{_JSON_LENGTH} is {length or 'missing'}")
        document = Answer(200, {}, answer.body[: int(length)]).json()
        tensor = read_outputs(document, self._known()).get(wanted.name)
        size = (document["outputs"][0].get("parameters") or {}).get("binary_data_size")
        tail = len(answer.body) - int(length)
        if tensor is None or size != tail:
            raise Differs(f"'binary_data_size' is {size}, {tail} bytes follow the JSON")
        if width := DATATYPES[tensor.datatype].bytes:
            check_count(tensor, tail // width)
        return f"{tail} bytes: {said([tensor])}"


def _zeros(tensor: Tensor) -> dict[str, Any]:
    shape = tensor.smallest
    nothing = DATATYPES[tensor.datatype].nothing
    data = [nothing] * math.prod(shape)
    return {
        "name": tensor.name, "shape": list(shape), "datatype": tensor.datatype, "data": data
    }  # fmt: skip


def _raw_zeros(tensor: Tensor) -> bytes:
    count = math.prod(tensor.smallest)
    width = DATATYPES[tensor.datatype].bytes
    # An empty string is its length of 0 in four bytes.
    return bytes(count * width) if width else struct.pack("<I", 0) * count


def _rename(request: dict[str, Any]) -> None:
    request["inputs"][0]["name"] = "mooring-probe-no-such-input"


def _reshape(request: dict[str, Any]) -> None:
    # Two dimensions more than the model has, and the data still fits the shape.
    request["inputs"][0]["shape"] = [1, 1, *request["inputs"][0]["shape"]]


def _retype(request: dict[str, Any]) -> None:
    tensor = request["inputs"][0]
    tensor["datatype"] = other_datatype(tensor["datatype"])


def _drop(request: dict[str, Any]) -> None:
    del request["inputs"][0]


def _elements(data: list[Any]) -> int:
    """Elements of `data`, which may be nested as the shape says."""
    if data and isinstance(data[0], list):
        return sum(_elements(row) for row in data)
    return len(data)


def _absent(error: Exception) -> bool:
    """Whether there was no one to connect to, rather than one who hung up."""
    inner = _innermost(error)
    if isinstance(inner, (ConnectionRefusedError, socket.gaierror)):
        return True
    unreachable = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)
    return isinstance(inner, OSError) and inner.errno in unreachable


def _innermost(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _reason(error: Exception) -> str:
    """The innermost reason of what failed: the operating system's own words."""
    return shorten(str(_innermost(error)) or str(error))
