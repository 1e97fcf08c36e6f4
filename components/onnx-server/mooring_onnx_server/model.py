"""A model on onnxruntime: found, loaded, warmed up, run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from mooring_onnx_server.errors import ModelLoadError, ModelRunError
from mooring_onnx_server.load_errors import explain, one_line
from mooring_onnx_server.signature import Signature, TensorSpec, read_signature
from mooring_onnx_server.tensors import Array

if TYPE_CHECKING:
    from pathlib import Path

    from mooring_onnx_server.settings import SessionSettings

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_OPTIMIZATION: Mapping[str, Any] = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_EXECUTION: Mapping[str, Any] = {
    "sequential": ort.ExecutionMode.ORT_SEQUENTIAL,
    "parallel": ort.ExecutionMode.ORT_PARALLEL,
}
_LOG_FATAL = 4

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Any]]
"""Output names and feeds in; the outputs' values out, in the names' order."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model."""

    path: Path
    signature: Signature
    load_seconds: float
    run: Run
    """Raises ModelRunError. Safe to call from several threads; releases the GIL."""


def find_model_file(directory: Path) -> Path:
    """The model's file: `model.onnx`, or the only `*.onnx` in the folder.

    Raises:
        ModelLoadError: the folder is absent or unreadable, or holds none or several.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir() if not _hidden(entry))
    except OSError as error:
        raise ModelLoadError(
            f"the model folder {directory} cannot be read ({error.strerror}): mount the model "
            "there, or point --model-dir to it"
        ) from error
    candidates = [name for name in names if name.endswith(".onnx")]
    if "model.onnx" in candidates:
        return directory / "model.onnx"
    if len(candidates) == 1:
        return directory / candidates[0]
    if candidates:
        raise ModelLoadError(
            f"the model folder {directory} holds {len(candidates)} models "
            f"({_some(candidates)}): name one of them model.onnx, or keep only one"
        )
    found = f"it holds {_some(names)}" if names else "it is empty"
    raise ModelLoadError(
        f"no .onnx file in the model folder {directory} ({found}): the model's URI must lead "
        "to an ONNX model, or to a folder with model.onnx in it"
    )


def load_model(path: Path, settings: SessionSettings) -> Model:
    """Loads a model; takes as long as onnxruntime takes.

    Raises:
        ModelLoadError: one sentence on what is wrong with the model and what to do.
    """
    # Its messages come back as exceptions; written to stderr as well, they would bury the
    # one sentence that is meant to be read.
    ort.set_default_logger_severity(_LOG_FATAL)
    options = _session_options(settings)
    started = time.perf_counter()
    if not path.is_file():
        raise ModelLoadError(f"{path} is not a file: it must be an ONNX model")
    try:
        # The resolved path: external data is looked for beside the real file, and a mount
        # swapped by links (a ConfigMap's way) would else look like an escape.
        session = ort.InferenceSession(
            str(path.resolve()), options, providers=_providers(settings.provider)
        )
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(explain(error, path)) from error
    _check_provider(settings.provider, session.get_providers())
    # A provider that fails in a run is an error, not a reason to go on elsewhere and slowly.
    session.disable_fallback()
    signature = read_signature(session.get_inputs(), session.get_outputs())
    seconds = time.perf_counter() - started
    return Model(path, signature, seconds, _runner(session))


def _providers(provider: str) -> list[str]:
    """onnxruntime's names for a provider, and for the CPU where an operator is left to it.

    Raises:
        ModelLoadError: this onnxruntime was built without it.
    """
    wanted, cpu = PROVIDERS[provider], PROVIDERS["cpu"]
    available = ort.get_available_providers()
    if wanted not in available:
        known = ", ".join(name for name, long in PROVIDERS.items() if long in available)
        raise ModelLoadError(
            f"the provider '{provider}' is not in this image, whose onnxruntime has {known}: use "
            "an image with onnxruntime-gpu, or --provider cpu"
        )
    return [wanted] if wanted == cpu else [wanted, cpu]


def _check_provider(provider: str, taken: Sequence[str]) -> None:
    """onnxruntime serves from the CPU where its GPU cannot be used, and says so to nobody.

    Raises:
        ModelLoadError: the session does not use the provider that was asked for.
    """
    if PROVIDERS[provider] not in taken:
        raise ModelLoadError(
            f"the provider '{provider}' cannot be used here: no GPU, or no driver and libraries "
            "that fit, in this container: ask for one by resources.limits (nvidia.com/gpu: 1), see "
            "that the CUDA and cuDNN libraries are in the image, or use --provider cpu"
        )


def _session_options(settings: SessionSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.execution_mode = _EXECUTION[settings.execution_mode]
    options.graph_optimization_level = _OPTIMIZATION[settings.graph_optimization]
    options.log_severity_level = _LOG_FATAL
    spinning = "1" if settings.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    return options


def _runner(session: ort.InferenceSession) -> Run:
    session_run = session.run

    def run(outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Any]:
        try:
            return list(session_run(outputs, feeds))
        except Exception as error:
            raise _run_failed(error) from error

    return run


def _run_failed(error: Exception) -> ModelRunError:
    text = "std::bad_alloc" if isinstance(error, MemoryError) else str(error)
    if "bad_alloc" in text or "ailed to allocate memory" in text:
        return ModelRunError(
            "the model ran out of memory on this request: send a smaller batch, or raise the "
            "container's memory limit"
        )
    return ModelRunError(f"the model failed on this request: {one_line(text)}")


def warm_up(model: Model, runs: int) -> str | None:
    """Runs the model on zeros, every length that may vary set to 1.

    The first runs allocate arenas and choose kernels, and would else be a user's slow
    requests. A synthetic input can be one that the model has every right to refuse (a length
    that must be a multiple of eight, say), so that a failure here does not fail the start.

    Returns:
        None, or why the warm-up was given up.
    """
    feeds = {spec.name: zeros(spec) for spec in model.signature.inputs}
    outputs = [output.tensor.name for output in model.signature.outputs]
    for _ in range(runs):
        try:
            model.run(outputs, feeds)
        except ModelRunError as error:
            return error.message
    return None


def zeros(spec: TensorSpec) -> Array:
    """An input of zeros (or empty strings), every length that may vary set to 1."""
    shape = [d if isinstance(d, int) else 1 for d in spec.shape or ()]
    if spec.datatype.name == "BYTES":
        return np.full(shape, "", dtype=np.object_)
    return np.zeros(shape, spec.datatype.dtype)


def _hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
