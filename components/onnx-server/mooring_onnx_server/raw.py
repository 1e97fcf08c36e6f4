"""Tensors as bytes: the REST protocol's binary tensors and gRPC's raw contents.

Both have one layout: the elements row by row, little-endian, without padding; a BOOL is a byte of
0 or 1, an element of BYTES has its own length in four bytes before it.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from mooring_onnx_server.tensors import check_empty, cut, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mooring_onnx_server.datatypes import Datatype
    from mooring_onnx_server.signature import TensorSpec
    from mooring_onnx_server.tensors import Array

_LENGTH = struct.Struct("<I")


def decode_raw(spec: TensorSpec, shape: Sequence[int], raw: bytes) -> Array:
    """Turns a tensor's bytes into an array.

    Args:
        spec: the input of the graph.
        shape: lengths that `check_shape` has passed.
        raw: all bytes of this tensor and nothing else.

    Raises:
        InvalidRequestError: another number of bytes than the shape has, or bytes that are no
            elements of the type.
    """
    count = math.prod(shape)
    dtype = spec.datatype.dtype
    if spec.datatype.name == "BYTES":
        strings = _strings(spec, raw)
        if len(strings) != count:
            raise wrong(
                spec, f"shape {cut(shape)} has {count} elements, the bytes have {len(strings)}"
            )
        check_empty(spec, shape, count)
        return np.array(strings, dtype).reshape(shape)
    size = count * dtype.itemsize
    if len(raw) != size:
        raise wrong(
            spec,
            f"shape {cut(shape)} of {spec.datatype.name} takes {size} bytes, {len(raw)} came",
        )
    if not count:
        check_empty(spec, shape, count)
        return np.empty(shape, dtype)
    if dtype.kind == "b":
        if max(raw) > 1:
            raise wrong(spec, f"BOOL takes bytes of 0 and 1, {max(raw)} came")
        return np.frombuffer(raw, dtype).reshape(shape)
    array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)
    # A tensor that begins at an odd place of the body is copied to where vectors may be read.
    return np.require(array, requirements="A").reshape(shape)


def encode_raw(array: Array, datatype: Datatype) -> bytes:
    """An array's bytes, as `decode_raw` reads them."""
    if datatype.name == "BYTES":
        parts: list[bytes] = []
        for value in array.ravel():
            text = value.encode() if isinstance(value, str) else bytes(value)
            parts += (_LENGTH.pack(len(text)), text)
        return b"".join(parts)
    little = datatype.dtype.newbyteorder("<")
    return array.astype(little, copy=False).tobytes()


def decode_text(spec: TensorSpec, index: int, element: bytes) -> str:
    """An element of BYTES as onnxruntime takes it.

    Raises:
        InvalidRequestError: it is not UTF-8, which is what strings in a graph are.
    """
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise wrong(
            spec, f"element {index} is not UTF-8, and the model's strings are text"
        ) from None


def _strings(spec: TensorSpec, raw: bytes) -> list[str]:
    strings: list[str] = []
    place = 0
    while place < len(raw):
        index = len(strings)
        if place + _LENGTH.size > len(raw):
            raise wrong(spec, f"the bytes end within the length of element {index}")
        (length,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size
        if place + length > len(raw):
            raise wrong(
                spec,
                f"element {index} is said to have {length} bytes, but {len(raw) - place} are left",
            )
        strings.append(decode_text(spec, index, raw[place : place + length]))
        place += length
    return strings
