"""An inference request over REST: parsed, checked against the graph, ready for the session.

The body is JSON, or JSON with tensors as bytes after it (the binary tensor extension): then the
header `Inference-Header-Content-Length` says how long the JSON is, and the parameter
`binary_data_size` of an input how many of the bytes are its own, in the inputs' order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from mooring_onnx_server.contract import Contract, InferRequest, check_datatype
from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.raw import decode_raw
from mooring_onnx_server.tensors import check_shape, decode_data, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mooring_onnx_server.signature import Signature, TensorSpec
    from mooring_onnx_server.tensors import Array

_LARGE = 1 << 20
"""Bytes of JSON from which on its lists and objects are counted before it is parsed."""
_MAX_BRACKETS = 1_000_000
"""Each list or object costs some 70 bytes and half a microsecond of the event loop, be it empty:
of nothing else, 32 MiB of JSON would be a gibibyte. Close to a million rows are within."""
_NON_FINITE_LITERALS = (b"NaN", b"Infinity", b"-Infinity", b"-inf", b"inf", b"nan")
_NOTHING: Mapping[str, Any] = {}


class RequestDecoder:
    """Decodes the REST requests of one model."""

    def __init__(self, signature: Signature) -> None:
        self._contract = Contract(signature)

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Parses and checks a request's body.

        Args:
            body: JSON, or JSON and the bytes of tensors.
            json_length: bytes of the JSON; None where it is all there is.

        Raises:
            InvalidRequestError: the message names the input at fault and what was expected.
        """
        tail = _NO_TAIL
        if json_length is not None:
            if json_length > len(body):
                raise InvalidRequestError(
                    f"Inference-Header-Content-Length is {json_length}, but the body has "
                    f"{len(body)} bytes"
                )
            body, tail = body[:json_length], _Tail(body, json_length)
        document = parse_json(body)
        if type(document) is not dict:
            raise InvalidRequestError(
                f"the body must be an object with 'inputs', not {describe(document)}"
            )
        request_id = document.get("id")
        if request_id is not None and type(request_id) is not str:
            raise InvalidRequestError(f"'id' must be a string, not {describe(request_id)}")
        feeds = self._feeds(document.get("inputs"), tail)
        all_binary = False
        if "parameters" in document:
            parameters = _parameters(document, "the request")
            all_binary = _flag(parameters, "binary_data_output", "the request")
        wanted = document.get("outputs")
        if wanted:
            outputs, binary = self._wanted(wanted, all_binary)
            return InferRequest(request_id, feeds, outputs, binary)
        outputs = self._contract.outputs
        if all_binary:
            return InferRequest(request_id, feeds, outputs, frozenset(outputs))
        return InferRequest(request_id, feeds, outputs)

    def _feeds(self, inputs: object, tail: _Tail) -> dict[str, Array]:
        contract = self._contract
        if type(inputs) is not list:
            found = "is missing" if inputs is None else f"is {describe(inputs)}"
            raise InvalidRequestError(f"'inputs' {found}: it must be a list of {contract.takes}")
        feeds: dict[str, Array] = {}
        for position, tensor in enumerate(inputs):
            if type(tensor) is not dict:
                raise InvalidRequestError(
                    f"element {position} of 'inputs' is {describe(tensor)}: it must be an object "
                    "with name, shape, datatype and data"
                )
            name = tensor.get("name")
            if type(name) is not str:
                raise InvalidRequestError(
                    f"element {position} of 'inputs' must have a string as 'name'"
                )
            feeds[name] = _decode_tensor(contract.input(name, feeds), tensor, tail)
        contract.check_whole(feeds)
        tail.check_read()
        return feeds

    def _wanted(self, outputs: object, all_binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
        if type(outputs) is not list:
            raise InvalidRequestError(f"'outputs' must be a list, not {describe(outputs)}")
        names: list[str] = []
        binary: set[str] = set()
        for position, output in enumerate(outputs):
            name = output.get("name") if type(output) is dict else None
            if type(output) is not dict or type(name) is not str:
                raise InvalidRequestError(
                    f"element {position} of 'outputs' must be an object with a string as 'name'"
                )
            self._contract.check_output(name, names)
            what = f"output '{name}'"
            if _flag(_parameters(output, what), "binary_data", what, all_binary):
                binary.add(name)
            names.append(name)
        return tuple(names), frozenset(binary)


class _Tail:
    """The bytes after the JSON, given out input by input."""

    def __init__(self, body: bytes, begin: int) -> None:
        self._body = body
        self._place = begin

    def take(self, size: int) -> bytes | None:
        """The next `size` bytes; None where fewer are left."""
        end = self._place + size
        if end > len(self._body):
            return None
        taken = self._body[self._place : end]
        self._place = end
        return taken

    def check_read(self) -> None:
        """Raises InvalidRequestError where bytes belong to no input."""
        if left := len(self._body) - self._place:
            raise InvalidRequestError(
                f"{left} bytes after the JSON belong to no input: the 'binary_data_size' of the "
                "inputs must add up to what follows it"
            )


_NO_TAIL = _Tail(b"", 0)


def parse_json(body: bytes) -> Any:
    """Parses JSON.

    Raises:
        InvalidRequestError: with line and column of the first character that is wrong; or there
            are too many lists and objects.
    """
    if len(body) > _LARGE and body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
        raise InvalidRequestError(
            f"the body has more than {_MAX_BRACKETS} brackets '[' and '{{': send 'data' flat, or "
            "as bytes after the JSON (with 'binary_data_size')"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        hint = ""
        if body[error.pos :].startswith(_NON_FINITE_LITERALS):
            hint = (
                '; JSON has no such number: in a tensor of FP16, FP32 or FP64 write "NaN", '
                '"Infinity" or "-Infinity" as a string'
            )
        raise InvalidRequestError(f"the body is not JSON: {error.msg} at {where}{hint}") from None


def _decode_tensor(spec: TensorSpec, tensor: dict[str, Any], tail: _Tail) -> Array:
    check_datatype(spec, tensor.get("datatype"))
    parameters = _NOTHING
    if "parameters" in tensor:
        parameters = _parameters(tensor, f"input '{spec.name}'")
    shape = check_shape(spec, tensor.get("shape"))
    if "binary_data_size" in parameters:
        return _decode_binary(spec, shape, tensor, parameters["binary_data_size"], tail)
    if "data" not in tensor:
        raise InvalidRequestError(
            f"input '{spec.name}': 'data' is missing: send the elements as JSON in 'data', or as "
            "bytes after the JSON (with 'binary_data_size')"
        )
    return decode_data(spec, shape, tensor["data"])


def _decode_binary(
    spec: TensorSpec, shape: list[int], tensor: dict[str, Any], size: object, tail: _Tail
) -> Array:
    if "data" in tensor:
        raise InvalidRequestError(
            f"input '{spec.name}' has both 'data' and 'binary_data_size': send one of them"
        )
    if type(size) is not int or size < 0:
        raise InvalidRequestError(
            f"'binary_data_size' of input '{spec.name}' must be a number of bytes, "
            f"not {describe(size)}"
        )
    raw = tail.take(size)
    if raw is None:
        hint = "; the header Inference-Header-Content-Length is missing" if tail is _NO_TAIL else ""
        raise InvalidRequestError(
            f"input '{spec.name}': 'binary_data_size' is {size}, but fewer bytes follow the "
            f"JSON{hint}"
        )
    return decode_raw(spec, shape, raw)


def _parameters(holder: dict[str, Any], what: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return _NOTHING
    if type(parameters) is not dict:
        raise InvalidRequestError(
            f"'parameters' of {what} must be an object, not {describe(parameters)}"
        )
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, what: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidRequestError(
            f"'{name}' in the parameters of {what} must be true or false, not {describe(value)}"
        )
    return value
