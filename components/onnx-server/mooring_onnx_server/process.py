"""One server process from its first line to its exit code: load, serve, drain.

Liveness and metrics answer from the beginning, readiness once the model is warmed up. On
SIGTERM readiness fails at once, while the port stays open: whoever still has the address
(a proxy that has not yet heard, a kept-alive connection) is served and told, by
`Connection: close`, to go elsewhere. gRPC's connections never end by themselves, so its port
closes and its clients are told at once; what they have in flight is finished. The process ends
when nobody has asked for a moment, or when the grace period is over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from mooring_onnx_server.app import Application
from mooring_onnx_server.batching import Batcher, why_not
from mooring_onnx_server.engine import Engine
from mooring_onnx_server.errors import ModelLoadError
from mooring_onnx_server.metrics import Metrics
from mooring_onnx_server.model import Model, find_model_file, load_model, warm_up
from mooring_onnx_server.request import RequestDecoder
from mooring_onnx_server.response import ResponseEncoder
from mooring_onnx_server.service import Infers, Served, Service
from mooring_onnx_server.state import Phase, ServerState
from mooring_onnx_server.whole import protocol_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from mooring_onnx_server.grpc_service import GrpcServer
    from mooring_onnx_server.settings import ServerSettings

_log = logging.getLogger(__name__)

_BACKLOG = 2048
_POLL_SECONDS = 0.02


def run_server(settings: ServerSettings) -> None:
    """Serves until told to stop.

    Threads may be left inside onnxruntime, which cannot be interrupted: end the process by
    `leave`, which does not wait for them.

    Raises:
        ModelLoadError: the port cannot be opened, or the model cannot be served.
    """
    listener = _listen(settings.host, settings.port)
    _log.info("listening on port %d", listener.getsockname()[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Process(settings, listener).run())


class _Process:
    """The parts of a running server, and the order of its life."""

    def __init__(self, settings: ServerSettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._state = ServerState()
        self._metrics = Metrics(settings.model_name, settings.session.provider, self._state)
        self._service = Service(
            settings.model_name, settings.model_version, self._state, self._metrics
        )
        self._application = Application(self._service, settings.max_body_bytes)
        self._grpc: GrpcServer | None = None
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._config = self._http_config()
        self._http = uvicorn.Server(self._config)

    async def run(self) -> None:
        """Lives from the first connection to the last; raises what failed the load."""
        loop = asyncio.get_running_loop()
        await self._listen_for_grpc()

        # uvicorn's own handler stops listening at once; draining asks for the opposite.
        def handle_exit(_signal: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._on_signal)

        self._http.handle_exit = handle_exit  # type: ignore[method-assign,assignment]
        serving = asyncio.create_task(self._http.serve(sockets=[self._listener]))
        loading = _in_thread(self._load)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await self._live(serving, loading, stopping)
        finally:
            loading.cancel()
            stopping.cancel()

    async def _live(
        self,
        serving: asyncio.Task[None],
        loading: asyncio.Future[Model],
        stopping: asyncio.Task[bool],
    ) -> None:
        await _first_of(loading, stopping, serving)
        if not loading.done():
            await self._shut(serving, 0.0)
            return
        if (error := loading.exception()) is not None:
            await self._shut(serving, 0.0)
            raise error
        engine = await self._begin(loading.result())
        await _first_of(stopping, serving)
        await self._drain(serving)
        engine.close()

    def _load(self) -> Model:
        """Finds, loads and warms up the model (in a thread: it may take minutes)."""
        settings = self._settings
        path = find_model_file(settings.model_dir)
        model = load_model(path, settings.session)
        _log.info("loaded %s in %.3f s", path, model.load_seconds)
        started = time.perf_counter()
        refused = warm_up(model, settings.warmup_runs)
        seconds = time.perf_counter() - started
        if refused is not None:
            _log.warning("no warm-up, the model refused an input of zeros: %s", refused)
        self._metrics.load_seconds.set(model.load_seconds)
        self._metrics.warmup_seconds.set(seconds)
        return model

    async def _begin(self, model: Model) -> Engine:
        settings = self._settings
        engine = Engine(model.run, settings.parallel_runs, self._metrics.observe_run)
        answering = self._batching(engine, model)
        served = Served(
            model.signature,
            RequestDecoder(model.signature),
            answering,
            ResponseEncoder(settings.model_name, settings.model_version, model.signature),
            engine if answering is engine else None,
        )
        if self._grpc is not None:
            await self._grpc.begin(model.signature)
        self._service.serve(served)
        # What is loaded stays loaded: no collection need ever walk it again.
        gc.collect()
        gc.freeze()
        _log.info(
            "ready: model '%s' takes %s",
            settings.model_name,
            "; ".join(map(str, model.signature.inputs)) or "no inputs",
        )
        return engine

    def _batching(self, engine: Engine, model: Model) -> Infers:
        """The engine, with a batcher in front of it where one is asked for and possible."""
        batch = self._settings.batch
        if batch.max_rows < 2:
            return engine
        if reason := why_not(model.signature):
            _log.warning("requests are not batched, the model cannot take it: %s", reason)
            return engine
        return Batcher(engine, batch, self._settings.parallel_runs, self._metrics.observe_batch)

    async def _listen_for_grpc(self) -> None:
        settings = self._settings
        if settings.grpc_port is None:
            return
        # Without gRPC its library, a tenth of a second and 20 MB, is not loaded.
        from mooring_onnx_server.grpc_service import GrpcServer

        self._grpc = GrpcServer(self._service, settings.max_body_bytes)
        port = await self._grpc.start(settings.host, settings.grpc_port)
        _log.info("listening for gRPC on port %d", port)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def _drain(self, serving: asyncio.Task[None]) -> None:
        """Serves on until it is quiet, or the grace is over; then ends what is left."""
        settings, state = self._settings, self._state
        state.phase = Phase.DRAINING
        began = time.perf_counter()
        deadline = began + settings.grace_seconds
        _log.info("stopping: %d requests in flight", state.in_flight)
        if self._grpc is not None:
            await self._grpc.drain()
        while min(state.quiet_for(), time.perf_counter() - began) < settings.quiet_seconds:
            if time.perf_counter() >= deadline or self._stop_now.is_set():
                break
            await asyncio.sleep(_POLL_SECONDS)
        cut = state.in_flight
        if cut:
            _log.warning("grace period over: cutting %d requests in flight", cut)
        await self._shut(serving, 0.0 if cut else deadline - time.perf_counter())
        _log.info("stopped")

    async def _shut(self, serving: asyncio.Task[None], seconds: float) -> None:
        """Closes the port and every connection, waiting at most about `seconds`."""
        self._config.timeout_graceful_shutdown = max(1, math.ceil(seconds))
        self._http.should_exit = True
        if self._grpc is not None:
            await self._grpc.close()
        await serving

    def _http_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._application,
            http=protocol_for(self._application),
            loop="uvloop",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=self._settings.keep_alive_seconds,
        )


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _in_thread(work: Callable[[], Model]) -> asyncio.Future[Model]:
    """Runs `work` in a thread that does not hold up the process's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Model] = loop.create_future()

    def resolve(settle: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def body() -> None:
        try:
            model = work()
        except BaseException as error:  # noqa: BLE001  handed to the waiting task
            failure = error
            resolve(lambda: future.set_exception(failure))
        else:
            resolve(lambda: future.set_result(model))

    threading.Thread(target=body, name="load", daemon=True).start()
    return future


def _listen(host: str, port: int) -> socket.socket:
    """Opens the port, for IPv4 and IPv6 alike where no host is named."""
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=_BACKLOG)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        return socket.create_server(("", port), backlog=_BACKLOG)
    except OSError as error:
        raise ModelLoadError(
            f"cannot listen on port {port} of {host or 'any address'} ({error.strerror}): give "
            "another --port or --host"
        ) from error


def leave(code: int) -> None:
    """Ends the process without waiting for threads that cannot be interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
