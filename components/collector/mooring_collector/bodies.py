"""The protocols: what a body says, as tensors.

Nothing here may raise anything but UnreadableBody, whatever the bytes are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sized
from typing import Any, TypeVar

import numpy as np
import orjson

from mooring_collector.errors import UnreadableBody
from mooring_collector.settings import Protocol
from mooring_collector.tensors import (
    MOST_TENSORS,
    MOST_VALUES,
    UNNAMED,
    Matrix,
    bounded,
    matrix,
    read_json,
    row_tensors,
    shaped,
)

_NUMBERS: Mapping[str, str] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_LONGEST_HEADER = 1 << 20
_LENGTH = struct.Struct("<I")
_Found = TypeVar("_Found")
Body = tuple[dict[str, Matrix], str]
"""Tensors by name, and the id that the body itself gives; empty without one."""


def read_request(protocol: Protocol, body: bytes, header_bytes: int = 0) -> Body:
    """A request; ``header_bytes`` is its ``Inference-Header-Content-Length``, 0 without one.

    Raises:
        UnreadableBody: it is not of the protocol.
    """
    return _guarded(_REQUESTS[protocol], body, header_bytes)


def read_answer(protocol: Protocol, body: bytes, rows: int) -> dict[str, Matrix]:
    """An answer to a request of ``rows`` rows.

    Raises:
        UnreadableBody: it is not of the protocol.
    """
    return _guarded(_ANSWERS[protocol], body, rows)


def _guarded(read: Callable[[bytes, int], _Found], body: bytes, argument: int) -> _Found:
    try:
        return read(body, argument)
    except UnreadableBody:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableBody("the body is not of the protocol") from error
    except (RecursionError, MemoryError) as error:
        raise UnreadableBody("the body is too large or too deep") from error


# --- Open Inference Protocol v2 -----------------------------------------------------------------


def _open_inference(body: bytes, header_bytes: int, key: str) -> Body:
    raw, rest = _split(body, header_bytes)
    if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
        raise UnreadableBody(f"the body has no {key}")
    _countable(raw[key])
    tensors: dict[str, Matrix] = {}
    at = 0
    for one in raw[key]:
        size = (one.get("parameters") or {}).get("binary_data_size")
        rows = _rows(one.get("shape"))
        if size is None:
            tensors[str(one["name"])] = matrix(one["data"], rows)
            continue
        size = int(size)
        part = rest[at : at + size]
        if size < 0 or len(part) != size:
            raise UnreadableBody("the body is shorter than its tensors")
        at += size
        if one["datatype"] == "BYTES":
            bounded(rows)
        tensors[str(one["name"])] = shaped(_binary(str(one["datatype"]), part), rows)
    found = raw.get("id")
    return tensors, found if isinstance(found, str) else ""


def _countable(tensors: Sized) -> None:
    if len(tensors) > MOST_TENSORS:
        raise UnreadableBody("the body has too many tensors")


def _rows(shape: Any) -> int:
    if not isinstance(shape, list) or not all(type(length) is int for length in shape):
        raise UnreadableBody("a tensor has no shape")
    return shape[0] if shape else 1


def _split(body: bytes, header_bytes: int) -> tuple[Any, memoryview]:
    """The JSON, and the bytes of tensors after it."""
    whole = memoryview(body)
    if 0 < header_bytes <= len(body):
        return read_json(body[:header_bytes]), whole[header_bytes:]
    try:
        return orjson.loads(body), whole[len(body) :]
    except ValueError:
        if b"binary_data_size" not in body[:_LONGEST_HEADER]:
            return read_json(body), whole[len(body) :]
    # The answer's header that says how long the JSON is does not come with the copy: find its end.
    # As Latin-1 each byte is one character.
    _, end = json.JSONDecoder().raw_decode(body[:_LONGEST_HEADER].decode("latin-1"))
    return read_json(body[:end]), whole[end:]


def _binary(datatype: str, part: memoryview) -> Matrix:
    if datatype == "BYTES":
        return _texts(part)
    code = _NUMBERS[datatype]
    return np.frombuffer(part, dtype=code).astype(np.float64)


def _texts(part: memoryview) -> Matrix:
    raw = bytes(part)
    texts: list[str] = []
    at, end = 0, len(raw)
    while at < end:
        try:
            (size,) = _LENGTH.unpack_from(raw, at)
        except struct.error as error:
            raise UnreadableBody("the body is shorter than its tensors") from error
        at += 4
        if at + size > end or len(texts) >= MOST_VALUES:
            raise UnreadableBody("the body is shorter than its tensors")
        texts.append(raw[at : at + size].decode("utf-8", "replace"))
        at += size
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


# --- TensorFlow Serving -------------------------------------------------------------------------


def _tf_tensors(raw: Any, by_row: str, by_column: str) -> dict[str, Matrix]:
    if not isinstance(raw, dict):
        raise UnreadableBody("the body is not an object")
    rows = raw.get(by_row)
    if isinstance(rows, list):
        return row_tensors(rows)
    columns = raw.get(by_column)
    if isinstance(columns, dict):
        _countable(columns)
        return {str(name): matrix(values) for name, values in columns.items()}
    if isinstance(columns, list):
        return {UNNAMED: matrix(columns)}
    raise UnreadableBody(f"the body has neither {by_row} nor {by_column}")


def _tf_request(body: bytes, _: int) -> Body:
    return _tf_tensors(read_json(body), "instances", "inputs"), ""


def _tf_answer(body: bytes, _: int) -> dict[str, Matrix]:
    return _tf_tensors(read_json(body), "predictions", "outputs")


# --- TorchServe ---------------------------------------------------------------------------------


def _torchserve_request(body: bytes, _: int) -> Body:
    """What the handler takes is the model's own: rows under a usual key, a row, or a list of it."""
    raw = read_json(body)
    if isinstance(raw, dict):
        inputs = raw.get("inputs")
        if isinstance(inputs, list) and inputs and _is_tensor(inputs[0]):
            return _open_inference(body, 0, "inputs")
        for key in ("instances", "inputs", "data"):
            if isinstance(raw.get(key), list | dict):
                inner = raw[key]
                return row_tensors([inner] if isinstance(inner, dict) else _as_rows(inner)), ""
        return row_tensors([raw]), ""
    if isinstance(raw, list):
        return row_tensors(_as_rows(raw)), ""
    raise UnreadableBody("the body is neither a row nor a list of rows")


def _is_tensor(one: Any) -> bool:
    return isinstance(one, dict) and "shape" in one and "datatype" in one


def _as_rows(found: list[Any]) -> list[Any]:
    """A list of bare values is one row."""
    return found if any(isinstance(one, list | dict) for one in found) else [found]


def _torchserve_answer(body: bytes, rows: int) -> dict[str, Matrix]:
    raw = read_json(body)
    if isinstance(raw, dict):
        outputs = raw.get("outputs")
        if isinstance(outputs, list) and outputs and _is_tensor(outputs[0]):
            return _open_inference(body, 0, "outputs")[0]
        for key in ("predictions", "outputs"):
            if isinstance(raw.get(key), list):
                return row_tensors(raw[key])
        return row_tensors([raw])
    if isinstance(raw, list):
        # One value per row, or the values of the only row.
        return row_tensors(raw if len(raw) == rows else _as_rows(raw))
    return row_tensors([raw])


_REQUESTS: Mapping[Protocol, Callable[[bytes, int], Body]] = {
    "open-inference": lambda body, header: _open_inference(body, header, "inputs"),
    "tensorflow-serving": _tf_request,
    "torchserve": _torchserve_request,
}
_ANSWERS: Mapping[Protocol, Callable[[bytes, int], dict[str, Matrix]]] = {
    "open-inference": lambda body, _: _open_inference(body, 0, "outputs")[0],
    "tensorflow-serving": _tf_answer,
    "torchserve": _torchserve_answer,
}
