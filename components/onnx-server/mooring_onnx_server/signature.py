"""What a model takes and gives, read from its graph, in the protocol's terms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mooring_onnx_server.datatypes import BY_GRAPH_TYPE, BY_NAME, Datatype
from mooring_onnx_server.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

Dimension = int | str | None
"""A fixed length, a symbol (equal symbols mean equal lengths), or any length."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor of a model."""

    name: str
    datatype: Datatype
    shape: tuple[Dimension, ...] | None
    """None where the graph declares no rank; onnxruntime reports scalars that way too."""

    @property
    def protocol_shape(self) -> list[int]:
        """The shape as the protocol writes it: -1 for every length that may vary."""
        return [d if isinstance(d, int) else -1 for d in self.shape or ()]

    @property
    def metadata(self) -> dict[str, Any]:
        """The tensor's entry in the model's metadata."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": self.protocol_shape}

    def __str__(self) -> str:
        shape = "any shape" if self.shape is None else str(self.protocol_shape)
        return f"'{self.name}' {self.datatype.name} {shape}"


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output; `maps` is true where the graph gives a sequence of maps (ZipMap)."""

    tensor: TensorSpec
    maps: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs in the graph's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]


class GraphArgument(Protocol):
    """What onnxruntime's `NodeArg` tells of an input or output."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[Any]: ...


_MAPS = re.compile(r"seq\(map\((int64|string),tensor\(float\)\)\)")


def read_signature(inputs: Sequence[GraphArgument], outputs: Sequence[GraphArgument]) -> Signature:
    """Translates a session's inputs and outputs.

    Raises:
        ModelLoadError: a type that the protocol, or numpy, cannot carry.
    """
    return Signature(
        inputs=tuple(_tensor("input", argument) for argument in inputs),
        outputs=tuple(_output(argument) for argument in outputs),
    )


def _output(argument: GraphArgument) -> OutputSpec:
    if _MAPS.fullmatch(argument.type):
        # scikit-learn converters end a classifier in ZipMap unless told not to. Its rows of
        # {label: probability} are a matrix in disguise.
        return OutputSpec(TensorSpec(argument.name, BY_NAME["FP32"], (None, None)), maps=True)
    return OutputSpec(_tensor("output", argument))


def _tensor(kind: str, argument: GraphArgument) -> TensorSpec:
    datatype = BY_GRAPH_TYPE.get(argument.type)
    if datatype is None:
        supported = ", ".join(BY_GRAPH_TYPE)
        raise ModelLoadError(
            f"{kind} '{argument.name}' is of type {argument.type}, which this server cannot "
            f"carry: export the model with one of {supported}"
        )
    shape = tuple(_dimension(d) for d in argument.shape)
    return TensorSpec(argument.name, datatype, shape or None)


def _dimension(raw: Any) -> Dimension:
    # Exporters write an unknown length as absent, empty, "?" or a negative number.
    if isinstance(raw, int):
        return raw if raw >= 0 else None
    return raw if isinstance(raw, str) and raw not in ("", "?", "None") else None
