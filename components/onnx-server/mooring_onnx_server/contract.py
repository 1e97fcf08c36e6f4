"""What a request must be, in whatever encoding it comes: the model's side of every check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mooring_onnx_server.errors import InvalidRequestError
from mooring_onnx_server.tensors import describe, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mooring_onnx_server.signature import Signature, TensorSpec
    from mooring_onnx_server.tensors import Array


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What the model is asked: the same whichever protocol it came by."""

    id: str | None
    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    """Names of the outputs to give, in the order to give them."""
    binary: frozenset[str] = frozenset()
    """Those of the outputs that are to be given as bytes."""


class Contract:
    """One model's inputs and outputs, as they bind a request."""

    def __init__(self, signature: Signature) -> None:
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in signature.inputs}
        self.outputs = tuple(output.tensor.name for output in signature.outputs)
        self.takes = "; ".join(map(str, signature.inputs)) or "no inputs"
        self._symbols = _shared_symbols(signature)

    def input(self, name: str, feeds: Mapping[str, Array]) -> TensorSpec:
        """The input called `name`, which is not among the `feeds` yet.

        Raises:
            InvalidRequestError: the model has no such input, or it is given twice.
        """
        spec = self.inputs.get(name)
        if spec is None:
            raise InvalidRequestError(
                f"input '{shorten(name)}' is not one of this model's: it takes {self.takes}"
            )
        if name in feeds:
            raise InvalidRequestError(f"input '{name}' is given twice")
        return spec

    def check_output(self, name: str, before: Sequence[str]) -> None:
        """Checks a name among the outputs that are asked for.

        Raises:
            InvalidRequestError: the model has no such output, or it is asked for twice.
        """
        if name not in self.outputs:
            known = ", ".join(f"'{o}'" for o in self.outputs)
            raise InvalidRequestError(
                f"output '{shorten(name)}' is not one of this model's: it gives {known}"
            )
        if name in before:
            raise InvalidRequestError(f"output '{name}' is asked for twice")

    def check_whole(self, feeds: Mapping[str, Array]) -> None:
        """Checks what no input shows by itself.

        Raises:
            InvalidRequestError: an input is missing, or lengths that must agree do not.
        """
        if len(feeds) < len(self.inputs):
            spec = next(s for s in self.inputs.values() if s.name not in feeds)
            raise InvalidRequestError(
                f"input '{spec.name}' is missing: the model takes {self.takes}"
            )
        if self._symbols:
            self._check_symbols(feeds)

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


def check_datatype(spec: TensorSpec, datatype: object) -> None:
    """Checks a tensor's datatype against the graph's.

    Raises:
        InvalidRequestError: it is absent or another one; nothing is converted.
    """
    if datatype != spec.datatype.name:
        found = describe(datatype) if datatype else "missing"
        raise InvalidRequestError(
            f"input '{spec.name}': 'datatype' is {found}, the model takes {spec.datatype.name}"
        )


def _shared_symbols(signature: Signature) -> dict[str, list[tuple[str, int]]]:
    places: dict[str, list[tuple[str, int]]] = {}
    for spec in signature.inputs:
        for axis, dimension in enumerate(spec.shape or ()):
            if isinstance(dimension, str):
                places.setdefault(dimension, []).append((spec.name, axis))
    return {symbol: found for symbol, found in places.items() if len(found) > 1}
