"""A model's outputs as REST answers of the Open Inference Protocol v2: JSON, or JSON and bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from mooring_onnx_server.errors import ModelRunError
from mooring_onnx_server.raw import encode_raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mooring_onnx_server.contract import InferRequest
    from mooring_onnx_server.signature import OutputSpec, Signature
    from mooring_onnx_server.tensors import Array


def arrays_from(output: OutputSpec, value: Any) -> Array:
    """One output of the session as an array.

    A ZipMap's rows `{label: probability}` become a matrix whose columns are in ascending
    order of the labels, which is the order that onnxruntime gives them in.

    Raises:
        ModelRunError: rows with different labels, or no value at all.
    """
    if isinstance(value, np.ndarray):
        return value
    name = output.tensor.name
    if not output.maps or not isinstance(value, list):
        raise ModelRunError(f"the model gave no tensor for its output '{name}'")
    if any(row.keys() != value[0].keys() for row in value):
        raise ModelRunError(f"the rows of the model's output '{name}' have different labels")
    rows = [list(row.values()) for row in value]
    return np.array(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else 0)


class ResponseEncoder:
    """Encodes the REST responses of one model."""

    def __init__(self, model_name: str, model_version: str, signature: Signature) -> None:
        self._model_name = model_name
        self._model_version = model_version
        self._outputs: Mapping[str, OutputSpec] = {o.tensor.name: o for o in signature.outputs}

    def encode(self, request: InferRequest, values: Sequence[Any]) -> bytes:
        """The response's body, all JSON.

        Args:
            request: what was asked; its `outputs` name the values.
            values: what the session gave, in the same order.

        Raises:
            ModelRunError: a value that cannot be written.
        """
        tensors = []
        for name, value in zip(request.outputs, values, strict=True):
            output = self._outputs[name]
            array = arrays_from(output, value)
            tensors.append(
                {
                    "name": name,
                    "shape": array.shape,
                    "datatype": output.tensor.datatype.name,
                    "data": array.ravel(),
                }
            )
        return _dump(self._response(request, tensors))

    def encode_binary(self, request: InferRequest, values: Sequence[Any]) -> tuple[bytes, int]:
        """The response's body, `request.binary` as bytes after the JSON; and the JSON's length.

        Raises:
            ModelRunError: a value that cannot be written.
        """
        tensors = []
        tail = []
        for name, value in zip(request.outputs, values, strict=True):
            output = self._outputs[name]
            datatype = output.tensor.datatype
            array = arrays_from(output, value)
            tensor: dict[str, Any] = {
                "name": name,
                "shape": array.shape,
                "datatype": datatype.name,
            }
            if name in request.binary:
                raw = encode_raw(array, datatype)
                tail.append(raw)
                tensor["parameters"] = {"binary_data_size": len(raw)}
            else:
                tensor["data"] = array.ravel()
            tensors.append(tensor)
        head = _dump(self._response(request, tensors))
        return b"".join((head, *tail)), len(head)

    def _response(self, request: InferRequest, tensors: list[dict[str, Any]]) -> dict[str, Any]:
        response: dict[str, Any] = {
            "model_name": self._model_name,
            "model_version": self._model_version,
        }
        if request.id is not None:
            response["id"] = request.id
        response["outputs"] = tensors
        return response


def _dump(response: dict[str, Any]) -> bytes:
    body = orjson.dumps(response, default=_strings, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in body:
        # A NaN or infinity became null, or the word stands in a string: look.
        body = _with_non_finite(response)
    return body


def _strings(value: Any) -> Any:
    # orjson writes every numeric array itself, and hands over arrays of strings.
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__}")


def _with_non_finite(response: dict[str, Any]) -> bytes:
    for tensor in response["outputs"]:
        array = tensor.get("data")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            # Elements stay numpy's, so that orjson writes FP32 as short as in the other path.
            tensor["data"] = [v if math.isfinite(v) else _word(v) for v in array]
    return orjson.dumps(response, default=_strings, option=orjson.OPT_SERIALIZE_NUMPY)


def _word(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
