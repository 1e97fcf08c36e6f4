"""JSON to numpy: one tensor of a request, checked exactly against the graph.

Everything here runs before the session is touched. The common case (flat data of the right
types) costs one pass over the types and one conversion; what is wrong is looked for only
once it is known that something is.
"""

from __future__ import annotations

import math
import struct
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mooring_onnx_server.datatypes import NON_FINITE
from mooring_onnx_server.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mooring_onnx_server.signature import TensorSpec

Array = npt.NDArray[Any]

_STRINGS_TOO = frozenset({str})
_EMPTY_LIMIT = 2**24
"""What the lengths of an empty tensor may multiply to, but for those that are 0. No body has to
be sent for them, and a model that sums over the empty dimension would allocate them all."""
_MAX_RANK = 32
_OUT_OF_RANGE = (struct.error, OverflowError)


def check_shape(spec: TensorSpec, shape: object) -> list[int]:
    """Checks a request's shape against the graph's and returns it.

    Raises:
        InvalidRequestError: not a list of lengths, or another rank or length than the graph's.
    """
    if type(shape) is not list:
        raise wrong(spec, f"'shape' must be a list of lengths, not {describe(shape)}")
    for length in shape:
        if type(length) is not int or length < 0:
            raise wrong(spec, f"'shape' must hold integers of 0 or more, not {describe(length)}")
    if spec.shape is None:
        if len(shape) > _MAX_RANK:
            raise wrong(spec, f"'shape' may have {_MAX_RANK} dimensions, not {len(shape)}")
        return shape
    if len(shape) != len(spec.shape):
        raise wrong(
            spec,
            f"shape {cut(shape)} has {len(shape)} dimensions, "
            f"the model takes {spec.protocol_shape}",
        )
    for axis, (length, expected) in enumerate(zip(shape, spec.shape, strict=True)):
        if type(expected) is int and length != expected:
            raise wrong(
                spec,
                f"shape {cut(shape)} has length {length} in dimension {axis}, "
                f"the model takes {spec.protocol_shape}",
            )
    return shape


def decode_data(spec: TensorSpec, shape: Sequence[int], data: object) -> Array:
    """Turns a tensor's JSON `data`, flat or nested as `shape` says, into an array.

    Args:
        spec: the input of the graph.
        shape: lengths that `check_shape` has passed.
        data: the parsed JSON.

    Raises:
        InvalidRequestError: raggedness, a wrong count, or an element of another type or range.
    """
    if type(data) is not list:
        raise wrong(spec, f"'data' must be a list, not {describe(data)}")
    flat: list[Any] = data
    kinds = set(map(type, flat))
    if list in kinds:
        flat = _flatten(spec, shape, flat)
        kinds = set(map(type, flat))
    count = math.prod(shape)
    if len(flat) != count:
        raise wrong(
            spec,
            f"shape {cut(shape)} has {count} elements, 'data' has {len(flat)}",
        )
    check_empty(spec, shape, count)
    if not kinds <= spec.datatype.json_types:
        flat = _accept_non_finite(spec, flat, kinds)
    return _convert(spec, flat).reshape(shape)


def _flatten(spec: TensorSpec, shape: Sequence[int], data: list[Any]) -> list[Any]:
    """Flattens nested lists level by level, each level checked against its length."""
    level: list[Any] = [data]
    for axis, length in enumerate(shape):
        for row in level:
            if type(row) is not list or len(row) != length:
                found = f"a list of {len(row)}" if type(row) is list else describe(row)
                raise wrong(
                    spec,
                    f"nested 'data' must follow shape {cut(shape)}: expected a list of "
                    f"{length} in dimension {axis}, found {found}",
                )
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise wrong(
            spec,
            f"'data' is nested more deeply than shape {cut(shape)} says: "
            f"it must be flat or {len(shape)} lists deep",
        )
    return level


def _accept_non_finite(spec: TensorSpec, flat: list[Any], kinds: set[type]) -> list[Any]:
    """Replaces the strings "NaN", "Infinity", "-Infinity" where the type has such values."""
    datatype = spec.datatype
    if datatype.is_float and kinds <= datatype.json_types | _STRINGS_TOO:
        flat = [NON_FINITE.get(v, v) if type(v) is str else v for v in flat]
    for index, value in enumerate(flat):
        if type(value) not in datatype.json_types:
            raise _wrong_element(spec, index, value)
    return flat


def _convert(spec: TensorSpec, flat: list[Any]) -> Array:
    datatype = spec.datatype
    if not datatype.pack_code:
        return np.array(flat, datatype.dtype)
    try:
        # "=" is native order with struct's own, range-checked conversion of floats.
        packed = struct.pack(f"={len(flat)}{datatype.pack_code}", *flat)
    except _OUT_OF_RANGE:
        raise _first_out_of_range(spec, flat) from None
    return np.frombuffer(packed, datatype.dtype)


def _first_out_of_range(spec: TensorSpec, flat: list[Any]) -> InvalidRequestError:
    for index, value in enumerate(flat):
        try:
            struct.pack(f"={spec.datatype.pack_code}", value)
        except _OUT_OF_RANGE:
            return _wrong_element(spec, index, value)
    raise AssertionError("a list was refused of which every element is taken")


def check_empty(spec: TensorSpec, shape: Sequence[int], count: int) -> None:
    """Checks what a tensor without elements claims to be; `count` is the product of `shape`.

    Raises:
        InvalidRequestError: lengths that the model would allocate and nobody has sent.
    """
    if not count and math.prod(length or 1 for length in shape) > _EMPTY_LIMIT:
        raise wrong(spec, f"shape {cut(shape)} is too large for a tensor without elements")


def wrong(spec: TensorSpec, what: str) -> InvalidRequestError:
    """The refusal of an input, which it names."""
    return InvalidRequestError(f"input '{spec.name}': {what}")


def _wrong_element(spec: TensorSpec, index: int, value: object) -> InvalidRequestError:
    hint = ""
    if value is None and spec.datatype.is_float:
        hint = ' (send a missing value as "NaN", if the model knows missing values)'
    return wrong(
        spec,
        f"element {index} of 'data' is {describe(value)}, "
        f"{spec.datatype.name} takes {spec.datatype.wants}{hint}",
    )


def describe(value: object, limit: int = 40) -> str:
    """A JSON value in a message: short, and in JSON's words rather than Python's."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is dict:
        return "an object"
    if type(value) is list:
        return "a list"
    if type(value) is str:
        return f'the string "{shorten(value, limit)}"'
    return str(value)


def shorten(text: str, limit: int = 40) -> str:
    """A client's text in a message: as long as it needs to be recognised."""
    return text if len(text) <= limit else text[:limit] + "…"


def cut(shape: Sequence[int], limit: int = 16) -> str:
    """A shape in a message: the client chose how many lengths it has."""
    if len(shape) <= limit:
        return str(list(shape))
    return f"[{', '.join(map(str, shape[:limit]))}, … {len(shape)} lengths]"
