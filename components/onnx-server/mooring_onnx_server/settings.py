"""Everything an administrator can set, with the defaults in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

ExecutionMode = Literal["sequential", "parallel"]
GraphOptimization = Literal["disable", "basic", "extended", "all"]
Provider = Literal["cpu", "cuda"]

DEFAULT_MAX_BODY_BYTES = 32 * 1024 * 1024
DEFAULT_GRACE_SECONDS = 25.0
"""Below Kubernetes' default of 30 s, which also has to hold any preStop sleep."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What onnxruntime is told."""

    intra_op_threads: int
    """Threads within one operator; the caller of the session is one of them."""
    inter_op_threads: int = 1
    """Operators side by side; matters in parallel mode only."""
    execution_mode: ExecutionMode = "sequential"
    graph_optimization: GraphOptimization = "all"
    allow_spinning: bool = False
    """Idle threads busy-wait for work. Saves microseconds, burns a container's CPU quota."""
    provider: Provider = "cpu"


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """When requests are put into one run."""

    max_rows: int = 0
    """Rows of a batch; below 2 nothing is batched."""
    max_delay_seconds: float = 0.005
    """How long a request may wait for others while the model is at work."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server process: one model, a port for REST and one for gRPC."""

    model_dir: Path
    model_name: str
    model_version: str
    host: str
    """Empty for every address, IPv4 and IPv6."""
    port: int
    session: SessionSettings
    parallel_runs: int
    """Runs at the same time, for models too slow to run between two requests' parsing."""
    grpc_port: int | None = None
    """None for no gRPC."""
    batch: BatchSettings = BatchSettings()
    warmup_runs: int = 3
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    """From SIGTERM until what is still in flight is cut."""
    quiet_seconds: float = 1.0
    """After SIGTERM, how long no request may have come before the server exits."""
    keep_alive_seconds: int = 650
    """Idle connections are kept longer than any usual proxy keeps them, so that it is never
    this side that closes one in the moment a request is sent on it."""
