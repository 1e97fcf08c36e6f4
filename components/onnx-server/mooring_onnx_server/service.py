"""The one model of this server, as both protocols serve it."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mooring_onnx_server import __version__
from mooring_onnx_server.errors import RequestRefusedError
from mooring_onnx_server.state import Phase, ServerState
from mooring_onnx_server.tensors import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mooring_onnx_server.contract import InferRequest
    from mooring_onnx_server.metrics import Metrics
    from mooring_onnx_server.request import RequestDecoder
    from mooring_onnx_server.response import ResponseEncoder
    from mooring_onnx_server.signature import Signature

_log = logging.getLogger(__name__)

NAME = "mooring-onnx-server"
EXTENSIONS = ("binary_tensor_data",)
STOPPED = "the server stopped before this request was done: send it again"
OWN_FAULT = "the server failed on this request: its log says where"
CLIENT_GONE = 499
_COMPLAINT_SECONDS = 1.0


class Infers(Protocol):
    """Answers decoded requests: the engine, or the batcher in front of it."""

    async def infer(self, request: InferRequest) -> Sequence[Any]:
        """The outputs' values, in the order of `request.outputs`.

        Raises:
            ModelRunError: the model raised.
        """


class InfersInline(Protocol):
    """Answers typical requests without waiting for anything, at times: the engine."""

    @property
    def inline(self) -> bool:
        """Whether it does so now."""

    def infer_inline(self, request: InferRequest) -> Sequence[Any]:
        """As :meth:`Infers.infer`, right on the event loop."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model with everything that answers for it."""

    signature: Signature
    decoder: RequestDecoder
    engine: Infers
    encoder: ResponseEncoder
    at_once: InfersInline | None = None
    """None where requests wait for others, to be batched."""


class Service:
    """A name, a version, and from some moment on a model."""

    def __init__(
        self, model_name: str, model_version: str, state: ServerState, metrics: Metrics
    ) -> None:
        self.name = model_name
        self.version = model_version
        self.state = state
        self.metrics = metrics
        self.served: Served | None = None
        self._complained = float("-inf")
        self._suppressed = 0

    def serve(self, served: Served) -> None:
        """Begins to answer for a loaded and warmed-up model."""
        self.served = served
        self.state.phase = Phase.READY

    def loaded(self) -> Served:
        """What answers.

        Raises:
            RequestRefusedError: nothing does yet (503).
        """
        if self.served is None:
            raise RequestRefusedError(503, f"model '{self.name}' is still loading: try again later")
        return self.served

    def check(self, name: str, version: str) -> None:
        """Checks which model is asked for.

        Raises:
            RequestRefusedError: it is not the one here (404).
        """
        if name != self.name:
            raise RequestRefusedError(
                404, f"no model '{shorten(name)}' here: this server has '{self.name}'"
            )
        if version != self.version:
            raise RequestRefusedError(
                404, f"model '{name}' has no version '{shorten(version)}': it has '{self.version}'"
            )

    def about_server(self) -> dict[str, Any]:
        """The server's metadata."""
        return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}

    def about_model(self) -> dict[str, Any]:
        """The model's metadata.

        Raises:
            RequestRefusedError: it is still loading (503).
        """
        signature = self.loaded().signature
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "onnx_onnxv1",
            "inputs": [spec.metadata for spec in signature.inputs],
            "outputs": [output.tensor.metadata for output in signature.outputs],
        }

    def own_fault(self, error: Exception) -> str:
        """Logs a fault of this server; what the client is told.

        The log has the place and not the error's words: those may quote a value of the request.
        """
        where = "".join(traceback.format_tb(error.__traceback__))
        self.complain(f"a request failed inside the server: {type(error).__name__}\n{where}")
        return OWN_FAULT

    def complain(self, message: str) -> None:
        """Logs a failure, at most one a second: a broken model fails every request."""
        now = time.perf_counter()
        if now - self._complained < _COMPLAINT_SECONDS:
            self._suppressed += 1
            return
        more = f" (and {self._suppressed} more like it)" if self._suppressed else ""
        _log.error("%s%s", message, more)
        self._complained, self._suppressed = now, 0
