"""The command line: `mooring-onnx-server`."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

import click

from mooring_onnx_server import __version__, settings
from mooring_onnx_server.cpu import usable_cpus
from mooring_onnx_server.errors import ModelLoadError
from mooring_onnx_server.process import leave, run_server

ENV_PREFIX = "MOORING_ONNX"
EXIT_CANNOT_SERVE = 1

_POSITIVE = click.IntRange(min=1)


def _model_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value or "/" in value:
        raise click.BadParameter("it is part of a path: not empty, and without '/'")
    return value


@click.command(
    context_settings={"auto_envvar_prefix": ENV_PREFIX, "show_default": True},
    epilog="Every flag can be set by the environment: MOORING_ONNX_ and its name, such as "
    "MOORING_ONNX_INTRA_OP_THREADS. Exit codes: 0 stopped by a signal, 1 the model cannot be "
    "served (the last line of stderr says why), 2 wrong flags.",
)
@click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    default=Path("/mnt/models"),
    help="Folder with model.onnx, or with exactly one *.onnx.",
)
@click.option(
    "--model-name", required=True, callback=_model_name, help="The model's name in paths."
)
@click.option("--model-version", default="1", callback=_model_name, help="The one version it has.")
@click.option("--host", default="", help="Address to listen on; empty for all, IPv4 and IPv6.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="0 picks a free one.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), default=9000, help="For gRPC; 0 picks a free one."
)
@click.option("--grpc/--no-grpc", default=True, help="Whether to serve gRPC at all.")
@click.option(
    "--intra-op-threads",
    type=_POSITIVE,
    help="Threads within an operator. Default: the CPUs of the cgroup's quota.",
)
@click.option(
    "--inter-op-threads", type=_POSITIVE, default=1, help="Threads for parallel execution mode."
)
@click.option(
    "--execution-mode", type=click.Choice(["sequential", "parallel"]), default="sequential"
)
@click.option(
    "--graph-optimization",
    type=click.Choice(["disable", "basic", "extended", "all"]),
    default="all",
)
@click.option(
    "--allow-spinning/--no-allow-spinning",
    default=False,
    help="Idle threads busy-wait: saves microseconds, burns the CPU quota.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    help="Where to compute; cuda needs an image with onnxruntime-gpu, and a GPU.",
)
@click.option(
    "--batch-max-rows",
    type=click.IntRange(min=0),
    default=0,
    help="Puts requests that come together into runs of so many rows; below 2: off.",
)
@click.option(
    "--batch-max-delay-ms",
    type=click.FloatRange(min=0, max=10_000),
    default=5.0,
    help="How long a request may wait for others while the model is at work.",
)
@click.option(
    "--parallel-runs",
    type=_POSITIVE,
    help="Runs at the same time, for models over 1 ms. Default: the CPUs of the quota.",
)
@click.option(
    "--warmup-runs", type=click.IntRange(min=0), default=3, help="Runs on zeros before ready."
)
@click.option(
    "--max-body-bytes",
    type=_POSITIVE,
    default=settings.DEFAULT_MAX_BODY_BYTES,
    help="Larger request bodies are answered 413.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(min=0),
    default=settings.DEFAULT_GRACE_SECONDS,
    help="After SIGTERM, requests still in flight then are cut.",
)
@click.option(
    "--quiet-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    help="After SIGTERM, exit once no request has come for so long.",
)
@click.option(
    "--keep-alive-seconds",
    type=_POSITIVE,
    default=650,
    help="Idle connections are closed after so long; longer than the proxy in front does.",
)
@click.option("--debug", is_flag=True, help="Log more, and tracebacks of start-up failures.")
@click.version_option(__version__, prog_name="mooring-onnx-server")
def main(
    *,  # one parameter per flag: click's way
    model_dir: Path,
    model_name: str,
    model_version: str,
    host: str,
    port: int,
    grpc_port: int,
    grpc: bool,
    intra_op_threads: int | None,
    inter_op_threads: int,
    execution_mode: settings.ExecutionMode,
    graph_optimization: settings.GraphOptimization,
    allow_spinning: bool,
    provider: settings.Provider,
    batch_max_rows: int,
    batch_max_delay_ms: float,
    parallel_runs: int | None,
    warmup_runs: int,
    max_body_bytes: int,
    grace_seconds: float,
    quiet_seconds: float,
    keep_alive_seconds: int,
    debug: bool,
) -> None:
    """Serves one ONNX model by the Open Inference Protocol v2 over REST and gRPC."""
    _configure_logging(debug=debug)
    cpus = usable_cpus()
    session = settings.SessionSettings(
        intra_op_threads=intra_op_threads or cpus,
        inter_op_threads=inter_op_threads,
        execution_mode=execution_mode,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        provider=provider,
    )
    server = settings.ServerSettings(
        model_dir=model_dir,
        model_name=model_name,
        model_version=model_version,
        host=host,
        port=port,
        session=session,
        parallel_runs=parallel_runs or cpus,
        grpc_port=grpc_port if grpc else None,
        batch=settings.BatchSettings(batch_max_rows, batch_max_delay_ms / 1000),
        warmup_runs=warmup_runs,
        max_body_bytes=max_body_bytes,
        grace_seconds=grace_seconds,
        quiet_seconds=quiet_seconds,
        keep_alive_seconds=keep_alive_seconds,
    )
    logging.getLogger(__name__).info("%s", server)
    leave(_serve(server, debug=debug))


def _serve(server: settings.ServerSettings, *, debug: bool) -> int:
    """Runs the server; its failure, if any, is the last line on stderr."""
    try:
        run_server(server)
    except Exception as error:  # noqa: BLE001  whatever it is, the last line must say it
        known = isinstance(error, ModelLoadError)
        if debug or not known:
            traceback.print_exception(error)
        said = str(error) if known else f"unexpected failure: {error!r}"
        sentence = f"model '{server.model_name}' cannot be served: {said}"
        print(" ".join(sentence.split()), file=sys.stderr, flush=True)
        return EXIT_CANNOT_SERVE
    return 0


def _configure_logging(*, debug: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # uvicorn tells of each start and stop in its own words; ours say it already.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
