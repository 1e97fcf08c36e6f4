"""The one table of datatypes: protocol name, graph type, numpy type and the JSON it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype of the Open Inference Protocol v2 that this server can carry."""

    name: str
    """The protocol's name, such as `FP32`."""
    graph_type: str
    """onnxruntime's name for the element type, such as `float`."""
    dtype: np.dtype[Any]
    """The numpy type handed to onnxruntime."""
    json_types: frozenset[type]
    """The Python types that a JSON element may parse to; nothing is converted silently."""
    wants: str
    """What to tell a client that sent something else."""
    pack_code: str = ""
    """The type's code in Python's `struct`, which turns 30 numbers into bytes in a quarter of
    the time that numpy takes and refuses what is out of range; empty where it has no code."""

    @property
    def is_float(self) -> bool:
        """Whether the type has NaN and infinities, which JSON numbers have not."""
        return self.dtype.kind == "f"


_NUMBERS = frozenset({float, int})
_INTEGERS = frozenset({int})


def _integer(name: str, graph_type: str, pack_code: str) -> Datatype:
    info = np.iinfo(graph_type)
    wants = f"integers from {info.min} to {info.max}, written without fraction or exponent"
    return Datatype(name, graph_type, np.dtype(graph_type), _INTEGERS, wants, pack_code)


def _float(name: str, graph_type: str, numpy_name: str, pack_code: str) -> Datatype:
    limit = float(np.finfo(numpy_name).max)
    wants = f'numbers from {-limit:.5g} to {limit:.5g}, or "NaN", "Infinity", "-Infinity"'
    return Datatype(name, graph_type, np.dtype(numpy_name), _NUMBERS, wants, pack_code)


DATATYPES: tuple[Datatype, ...] = (
    Datatype("BOOL", "bool", np.dtype(np.bool_), frozenset({bool}), "true or false", "?"),
    _integer("UINT8", "uint8", "B"),
    _integer("UINT16", "uint16", "H"),
    _integer("UINT32", "uint32", "I"),
    _integer("UINT64", "uint64", "Q"),
    _integer("INT8", "int8", "b"),
    _integer("INT16", "int16", "h"),
    _integer("INT32", "int32", "i"),
    _integer("INT64", "int64", "q"),
    _float("FP16", "float16", "float16", "e"),
    _float("FP32", "float", "float32", "f"),
    _float("FP64", "double", "float64", "d"),
    Datatype("BYTES", "string", np.dtype(np.object_), frozenset({str}), "strings"),
)

BY_NAME: Mapping[str, Datatype] = MappingProxyType({d.name: d for d in DATATYPES})
BY_GRAPH_TYPE: Mapping[str, Datatype] = MappingProxyType(
    {f"tensor({d.graph_type})": d for d in DATATYPES}
)

NON_FINITE: Mapping[str, float] = MappingProxyType(
    {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
)
"""How a float that JSON has no number for is written, both ways (protobuf's JSON mapping)."""
