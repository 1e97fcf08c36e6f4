"""An inference request: parsed, checked against the graph, ready for the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.tensors import check_shape, decode_data, describe, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mooring_onnx_server.signature import Signature, TensorSpec
    from mooring_onnx_server.tensors import Array

_NON_FINITE_LITERALS = (b"NaN", b"Infinity", b"-Infinity", b"-inf", b"inf", b"nan")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What the model is asked: the same whichever protocol it came by."""

    id: str | None
    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    """Names of the outputs to give, in the order to give them."""


class RequestDecoder:
    """Decodes the JSON requests of one model."""

    def __init__(self, signature: Signature) -> None:
        self._inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in signature.inputs}
        self._outputs = tuple(output.tensor.name for output in signature.outputs)
        self._takes = "; ".join(map(str, signature.inputs)) or "no inputs"
        self._symbols = _shared_symbols(signature)

    def decode(self, body: bytes) -> InferRequest:
        """Parses and checks a request's body.

        Raises:
            InvalidRequestError: the message names the input at fault and what was expected.
        """
        document = parse_json(body)
        if type(document) is not dict:
            raise InvalidRequestError(
                f"the body must be an object with 'inputs', not {describe(document)}"
            )
        request_id = document.get("id")
        if request_id is not None and type(request_id) is not str:
            raise InvalidRequestError(f"'id' must be a string, not {describe(request_id)}")
        if "parameters" in document:
            _check_parameters(document, "the request")
        feeds = self._feeds(document.get("inputs"))
        wanted = document.get("outputs")
        outputs = self._outputs if not wanted else self._wanted(wanted)
        return InferRequest(request_id, feeds, outputs)

    def _feeds(self, inputs: object) -> dict[str, Array]:
        if type(inputs) is not list:
            found = "is missing" if inputs is None else f"is {describe(inputs)}"
            raise InvalidRequestError(f"'inputs' {found}: it must be a list of {self._takes}")
        feeds: dict[str, Array] = {}
        for position, tensor in enumerate(inputs):
            spec = self._named(position, tensor)
            if spec.name in feeds:
                raise InvalidRequestError(f"input '{spec.name}' is given twice")
            feeds[spec.name] = _decode_tensor(spec, tensor)
        if len(feeds) < len(self._inputs):
            spec = next(s for s in self._inputs.values() if s.name not in feeds)
            raise InvalidRequestError(
                f"input '{spec.name}' is missing: the model takes {self._takes}"
            )
        if self._symbols:
            self._check_symbols(feeds)
        return feeds

    def _named(self, position: int, tensor: object) -> TensorSpec:
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
        spec = self._inputs.get(name)
        if spec is None:
            raise InvalidRequestError(
                f"input '{shorten(name)}' is not one of this model's: it takes {self._takes}"
            )
        return spec

    def _wanted(self, outputs: object) -> tuple[str, ...]:
        if type(outputs) is not list:
            raise InvalidRequestError(f"'outputs' must be a list, not {describe(outputs)}")
        names: list[str] = []
        for position, output in enumerate(outputs):
            name = output.get("name") if type(output) is dict else None
            if type(output) is not dict or type(name) is not str:
                raise InvalidRequestError(
                    f"element {position} of 'outputs' must be an object with a string as 'name'"
                )
            if name not in self._outputs:
                known = ", ".join(f"'{o}'" for o in self._outputs)
                raise InvalidRequestError(
                    f"output '{shorten(name)}' is not one of this model's: it gives {known}"
                )
            if name in names:
                raise InvalidRequestError(f"output '{name}' is asked for twice")
            _check_parameters(output, f"output '{name}'")
            names.append(name)
        return tuple(names)

    def _check_symbols(self, feeds: Mapping[str, Array]) -> None:
        """A symbol that several inputs share (`batch`) means one length: onnxruntime would
        find out inside some node, and the model would be blamed.
        """
        for symbol, places in self._symbols.items():
            first, first_axis = places[0]
            expected = feeds[first].shape[first_axis]
            for name, axis in places[1:]:
                found = feeds[name].shape[axis]
                if found != expected:
                    raise InvalidRequestError(
                        f"input '{name}': dimension {axis} is {found}, but it is the model's "
                        f"'{symbol}', which is {expected} in dimension {first_axis} of "
                        f"input '{first}'"
                    )


def parse_json(body: bytes) -> Any:
    """Parses JSON.

    Raises:
        InvalidRequestError: with line and column of the first character that is wrong.
    """
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


def _decode_tensor(spec: TensorSpec, tensor: dict[str, Any]) -> Array:
    datatype = tensor.get("datatype")
    if datatype != spec.datatype.name:
        found = "missing" if datatype is None else describe(datatype)
        raise InvalidRequestError(
            f"input '{spec.name}': 'datatype' is {found}, the model takes {spec.datatype.name}"
        )
    if "parameters" in tensor:
        _check_parameters(tensor, f"input '{spec.name}'")
    shape = check_shape(spec, tensor.get("shape"))
    if "data" not in tensor:
        parameters = tensor.get("parameters") or {}
        way = "send the elements as JSON in 'data'"
        if "binary_data_size" in parameters:
            way = f"this server has no binary tensor extension, {way}"
        raise InvalidRequestError(f"input '{spec.name}': 'data' is missing: {way}")
    return decode_data(spec, shape, tensor["data"])


def _check_parameters(holder: dict[str, Any], what: str) -> None:
    parameters = holder.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise InvalidRequestError(
            f"'parameters' of {what} must be an object, not {describe(parameters)}"
        )


def _shared_symbols(signature: Signature) -> dict[str, list[tuple[str, int]]]:
    places: dict[str, list[tuple[str, int]]] = {}
    for spec in signature.inputs:
        for axis, dimension in enumerate(spec.shape or ()):
            if isinstance(dimension, str):
                places.setdefault(dimension, []).append((spec.name, axis))
    return {symbol: found for symbol, found in places.items() if len(found) > 1}
