"""What a probe finds, and what the answers of both protocols have in common: no network here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Result = Literal["ok", "failed", "skipped"]

BINARY_EXTENSION = "binary_tensor_data"
_SHOWN = 160


class Unreachable(Exception):
    """Nobody answers at the address: nothing can be said about a server."""


class Differs(Exception):
    """The server answers something else than the protocol says; the message is what was seen."""


class CannotTell(Exception):
    """A point that is not to be tried here; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One point of the protocol and what became of it."""

    point: str
    result: Result
    seen: str
    expects: str
    """What the protocol says."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point to try: `attempt` gives what was seen, or raises Differs or CannotTell."""

    name: str
    expects: str
    attempt: Callable[[], str]


def tried(points: Iterable[Point]) -> list[Finding]:
    """Tries points in order; the later ones may stand on what the earlier ones learned.

    Raises:
        Unreachable: the server is not there, or no longer.
    """
    findings = []
    for point in points:
        result: Result = "ok"
        try:
            seen = point.attempt()
        except Differs as difference:
            result, seen = "failed", str(difference)
        except CannotTell as reason:
            result, seen = "skipped", str(reason)
        findings.append(Finding(point.name, result, seen, point.expects))
    return findings


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the protocol, with a value that every model of that type accepts."""

    bytes: int
    """Of one element in binary form; 0 for BYTES, whose elements have a length of their own."""
    nothing: Any
    typed_field: str
    """The field of gRPC's typed contents; empty where there is none."""


DATATYPES: Mapping[str, Datatype] = MappingProxyType(
    {
        "BOOL": Datatype(1, False, "bool_contents"),
        "UINT8": Datatype(1, 0, "uint_contents"),
        "UINT16": Datatype(2, 0, "uint_contents"),
        "UINT32": Datatype(4, 0, "uint_contents"),
        "UINT64": Datatype(8, 0, "uint64_contents"),
        "INT8": Datatype(1, 0, "int_contents"),
        "INT16": Datatype(2, 0, "int_contents"),
        "INT32": Datatype(4, 0, "int_contents"),
        "INT64": Datatype(8, 0, "int64_contents"),
        "FP16": Datatype(2, 0.0, ""),
        "FP32": Datatype(4, 0.0, "fp32_contents"),
        "FP64": Datatype(8, 0.0, "fp64_contents"),
        "BYTES": Datatype(0, "", "bytes_contents"),
    }
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output as the model's metadata tells of it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 for a length left open."""

    @property
    def smallest(self) -> tuple[int, ...]:
        """The shape with every open length 1."""
        return tuple(1 if length < 0 else length for length in self.shape)


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's metadata, checked."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_metadata(document: Any) -> ModelMetadata:
    """A model's metadata of either protocol.

    Raises:
        Differs: it lacks something, or has something else than the protocol says.
    """
    if not isinstance(document, Mapping):
        raise Differs(f"not an object: {shorten(document)}")
    name = _text(document, "name", "the metadata")
    if not isinstance(document.get("platform"), str):
        raise Differs(f"the metadata has no text as 'platform': {shorten(document)}")
    versions = document.get("versions") or []
    if not isinstance(versions, Sequence) or any(not isinstance(v, str) for v in versions):
        raise Differs(f"'versions' is no list of strings: {shorten(versions)}")
    return ModelMetadata(
        name, tuple(versions), _tensors(document, "inputs"), _tensors(document, "outputs")
    )


def _tensors(document: Mapping[str, Any], kind: str) -> tuple[Tensor, ...]:
    listed = document.get(kind)
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise Differs(f"'{kind}' is no list: {shorten(listed)}")
    return tuple(_tensor(entry, kind) for entry in listed)


def _tensor(entry: Any, kind: str) -> Tensor:
    if not isinstance(entry, Mapping):
        raise Differs(f"an entry of '{kind}' is no object: {shorten(entry)}")
    name = _text(entry, "name", f"an entry of '{kind}'")
    datatype = _text(entry, "datatype", f"'{name}' of '{kind}'")
    if datatype not in DATATYPES:
        raise Differs(f"'{name}' is of datatype {datatype}, which the protocol does not know")
    return Tensor(name, datatype, _shape(entry, name))


def _shape(entry: Mapping[str, Any], name: str) -> tuple[int, ...]:
    shape = entry.get("shape")
    if not isinstance(shape, Sequence) or any(type(length) is not int for length in shape):
        raise Differs(f"the shape of '{name}' is no list of integers: {shorten(shape)}")
    return tuple(shape)


def _text(document: Mapping[str, Any], key: str, what: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise Differs(f"{what} has no text as '{key}': {shorten(document)}")
    return value


def read_outputs(document: Any, metadata: ModelMetadata) -> dict[str, Tensor]:
    """The outputs of an inference's answer, by name.

    Raises:
        Differs: an output that the metadata does not have, or has otherwise.
    """
    if not isinstance(document, Mapping):
        raise Differs(f"not an object: {shorten(document)}")
    if document.get("model_name") != metadata.name:
        raise Differs(f"'model_name' is {shorten(document.get('model_name'))}")
    outputs = {tensor.name: tensor for tensor in _tensors(document, "outputs")}
    known = {tensor.name: tensor for tensor in metadata.outputs}
    if not outputs:
        raise Differs("the answer has no outputs")
    for name, tensor in outputs.items():
        if known and name not in known:
            raise Differs(f"the answer's output '{name}' is not in the metadata")
        if known and tensor.datatype != known[name].datatype:
            raise Differs(
                f"output '{name}' is {tensor.datatype}, its metadata says {known[name].datatype}"
            )
    return outputs


def check_count(tensor: Tensor, count: int) -> None:
    """Compares a tensor's number of elements with its shape.

    Raises:
        Differs: they are not the same.
    """
    if count != math.prod(tensor.shape):
        raise Differs(f"output '{tensor.name}' has {count} elements for shape {list(tensor.shape)}")


def said(outputs: Iterable[Tensor]) -> str:
    """Outputs in a few words."""
    return ", ".join(f"{o.name} {o.datatype} {list(o.shape)}" for o in outputs)


def other_datatype(datatype: str) -> str:
    """A datatype that is not this one, and into which no server converts it silently."""
    return "BYTES" if datatype != "BYTES" else "FP64"


def shorten(value: Any, limit: int = _SHOWN) -> str:
    """What a server sent, on one bounded line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"
