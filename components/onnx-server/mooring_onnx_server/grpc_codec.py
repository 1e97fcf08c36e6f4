"""gRPC's inference messages to arrays and back, by the same checks as the REST requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mooring_onnx_server import open_inference_pb2 as pb
from mooring_onnx_server.contract import Contract, InferRequest, check_datatype
from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.raw import decode_raw, decode_text, encode_raw
from mooring_onnx_server.response import arrays_from
from mooring_onnx_server.tensors import check_empty, check_shape, cut, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mooring_onnx_server.datatypes import Datatype
    from mooring_onnx_server.signature import OutputSpec, Signature, TensorSpec
    from mooring_onnx_server.tensors import Array

CONTENTS: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)
"""The typed field of each datatype; FP16 has none and travels raw."""


class MessageCodec:
    """Decodes the requests and encodes the responses of one model."""

    def __init__(self, model_name: str, model_version: str, signature: Signature) -> None:
        self._model_name = model_name
        self._model_version = model_version
        self._contract = Contract(signature)
        self._outputs: Mapping[str, OutputSpec] = {o.tensor.name: o for o in signature.outputs}

    def decode(self, message: pb.ModelInferRequest) -> InferRequest:
        """Checks a request against the graph.

        Returns:
            The request; its outputs are `binary` where the answer is to be raw, which is where
            the request was.

        Raises:
            InvalidRequestError: the message names the input at fault and what was expected.
        """
        contract = self._contract
        raw = message.raw_input_contents
        if raw and len(raw) != len(message.inputs):
            raise InvalidRequestError(
                f"'raw_input_contents' has {len(raw)} entries for {len(message.inputs)} inputs: "
                "either every input is raw, or none"
            )
        feeds: dict[str, Array] = {}
        for position, tensor in enumerate(message.inputs):
            spec = contract.input(tensor.name, feeds)
            check_datatype(spec, tensor.datatype)
            shape = check_shape(spec, list(tensor.shape))
            if raw:
                if tensor.HasField("contents"):
                    raise wrong(spec, "both 'contents' and raw contents came: send one of them")
                feeds[spec.name] = decode_raw(spec, shape, raw[position])
            else:
                feeds[spec.name] = _decode_contents(spec, shape, tensor.contents)
        contract.check_whole(feeds)
        outputs = contract.outputs
        if message.outputs:
            names: list[str] = []
            for output in message.outputs:
                contract.check_output(output.name, names)
                names.append(output.name)
            outputs = tuple(names)
        return InferRequest(message.id or None, feeds, outputs, frozenset(outputs if raw else ()))

    def encode(self, request: InferRequest, values: Sequence[Any]) -> pb.ModelInferResponse:
        """The response: raw where `request.binary` or a datatype asks for it.

        Raises:
            ModelRunError: a value that cannot be written.
        """
        response = pb.ModelInferResponse(
            model_name=self._model_name, model_version=self._model_version, id=request.id or ""
        )
        specs = [self._outputs[name] for name in request.outputs]
        raw = bool(request.binary) or any(s.tensor.datatype.name not in CONTENTS for s in specs)
        for output, value in zip(specs, values, strict=True):
            array = arrays_from(output, value)
            datatype = output.tensor.datatype
            tensor = response.outputs.add(
                name=output.tensor.name, datatype=datatype.name, shape=array.shape
            )
            if raw:
                response.raw_output_contents.append(encode_raw(array, datatype))
            else:
                field = getattr(tensor.contents, CONTENTS[datatype.name])
                field.extend(_elements(array, datatype))
        return response


def _decode_contents(
    spec: TensorSpec, shape: Sequence[int], contents: pb.InferTensorContents
) -> Array:
    datatype = spec.datatype
    expected = CONTENTS.get(datatype.name)
    if expected is None:
        raise wrong(spec, f"{datatype.name} has no typed contents: send 'raw_input_contents'")
    for field, _ in contents.ListFields():
        if field.name != expected:
            raise wrong(
                spec, f"{datatype.name} is sent in '{expected}', '{field.name}' is filled as well"
            )
    elements = getattr(contents, expected)
    count = math.prod(shape)
    if len(elements) != count:
        raise wrong(
            spec, f"shape {cut(shape)} has {count} elements, '{expected}' has {len(elements)}"
        )
    check_empty(spec, shape, count)
    return _array(spec, list(elements)).reshape(shape)


def _array(spec: TensorSpec, elements: list[Any]) -> Array:
    """The elements as an array: the message's types are wider than the small integers."""
    datatype = spec.datatype
    if datatype.name == "BYTES":
        texts = [decode_text(spec, i, element) for i, element in enumerate(elements)]
        return np.array(texts, datatype.dtype)
    if datatype.dtype.kind in "iu" and datatype.dtype.itemsize < 4:
        limits = np.iinfo(datatype.dtype)
        for index, value in enumerate(elements):
            if not limits.min <= value <= limits.max:
                raise wrong(
                    spec, f"element {index} is {value}, {datatype.name} takes {datatype.wants}"
                )
    return np.array(elements, datatype.dtype)


def _elements(array: Array, datatype: Datatype) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    if datatype.name == "BYTES":
        return [v.encode() if isinstance(v, str) else bytes(v) for v in flat]
    return flat
