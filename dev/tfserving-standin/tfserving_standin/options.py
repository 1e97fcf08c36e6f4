"""Flags and configuration files of TensorFlow Serving, read as strictly as the real server does."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2


class CannotStart(Exception):
    """Why the server ends, in the words of the real one where it has any."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CannotStart(f"INVALID_ARGUMENT: {message}")


@dataclass(frozen=True)
class Options:
    """What is served, and where."""

    port: int
    rest_port: int
    name: str
    folder: Path
    version: int
    metrics_path: str


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", ""}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() not in {"false", "0"}


def parse(arguments: list[str]) -> Options:
    """Options of these flags; raises CannotStart for what the real server would not take."""
    parser = _Parser(prog="tensorflow_model_server", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, default=0)
    for name in (
        "--rest_api_timeout_in_ms",
        "--file_system_poll_wait_seconds",
        "--max_num_load_retries",
    ):
        parser.add_argument(name, type=int)
    for name in ("--model_config_file", "--monitoring_config_file", "--batching_parameters_file"):
        parser.add_argument(name, type=Path)
    for name in (
        "--enable_batching",
        "--enable_model_warmup",
        "--enable_grpc_healthcheck_service",
    ):
        parser.add_argument(name, type=_flag, nargs="?", const=True, default=False)
    given = parser.parse_args(arguments)
    if given.model_config_file is None:
        raise CannotStart("INVALID_ARGUMENT: the stand-in needs --model_config_file")
    if given.batching_parameters_file and not given.enable_batching:
        raise CannotStart(
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    if given.batching_parameters_file:
        check_batching(given.batching_parameters_file.read_text())
    name, folder, version = model_of(given.model_config_file.read_text())
    path = metrics_path(given.monitoring_config_file) if given.monitoring_config_file else ""
    return Options(given.port, given.rest_api_port, name, folder, version, path)


def model_of(text: str) -> tuple[str, Path, int]:
    """Name, base path and pinned version of the one model, by the real protobuf messages."""
    try:
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise CannotStart(f"INVALID_ARGUMENT: Invalid protobuf file: {error}") from None
    models = list(config.model_config_list.config)
    if len(models) != 1 or models[0].model_platform != "tensorflow":
        raise CannotStart("INVALID_ARGUMENT: the stand-in serves one tensorflow model")
    versions = list(models[0].model_version_policy.specific.versions)
    if len(versions) != 1:
        raise CannotStart("INVALID_ARGUMENT: the stand-in serves one pinned version")
    return models[0].name, Path(models[0].base_path), versions[0]


# The messages of the other two files are not in the package, so their fields stand here.
_MONITORING = re.compile(
    r'^\s*prometheus_config\s*\{\s*enable:\s*true\s*,?\s*path:\s*"(/[^"]+)"\s*\}\s*$'
)
_BATCHING = re.compile(
    r"^((max_batch_size|batch_timeout_micros|max_enqueued_batches|num_batch_threads)"
    r"\s*\{\s*value:\s*[0-9]+\s*\}\s*)+$"
)


def metrics_path(file: Path) -> str:
    """The path of the metrics in a monitoring configuration."""
    found = _MONITORING.match(file.read_text())
    if not found:
        raise CannotStart(f"INVALID_ARGUMENT: Invalid protobuf file: '{file}'")
    return found[1]


def check_batching(text: str) -> None:
    """Raises CannotStart unless these are batching parameters; the stand-in batches nothing."""
    if not _BATCHING.match(text.strip() + "\n"):
        raise CannotStart("INVALID_ARGUMENT: Invalid protobuf file of batching parameters")
