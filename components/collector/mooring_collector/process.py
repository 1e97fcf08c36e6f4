"""One collector from its first line to its end.

It ends at SIGTERM at once: nobody waits for it, and its routers go on without it. The counts go
with it; Prometheus has them up to its last scrape.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from mooring_collector.app import Application
from mooring_collector.errors import ConfigurationError
from mooring_collector.grid import Reference, read_reference
from mooring_collector.service import Service
from mooring_collector.settings import Bounds, Settings, read_settings
from mooring_collector.telemetry import Telemetry

_log = logging.getLogger(__name__)
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Where it reads from and listens. Port 0 picks a free one; the log says which."""

    config: Path
    reference: Path
    host: str = ""
    grpc_port: int = 9001
    http_port: int = 8080


def load(places: Places) -> Settings:
    """Reads both files; without a reference nothing is binned, but sizes and rules are counted.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    try:
        text = places.config.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{places.config}: {error.strerror}") from error
    reference = Reference()
    try:
        reference = read_reference(places.reference.read_bytes())
    except FileNotFoundError:
        _log.warning("there is no reference at %s: nothing is binned", places.reference)
    except OSError as error:
        raise ConfigurationError(f"{places.reference}: {error.strerror}") from error
    return read_settings(text, reference)


def run(places: Places, bounds: Bounds) -> None:
    """Collects until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the files or the ports cannot be used.
    """
    settings = load(places)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(places, settings, bounds))


async def _run(places: Places, settings: Settings, bounds: Bounds) -> None:
    service = Service(Telemetry(settings, bounds), bounds)
    loop = asyncio.get_running_loop()
    copies = await loop.create_server(service.connection, sock=_listen(places, places.grpc_port))
    config = uvicorn.Config(
        Application(service),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    http = uvicorn.Server(config)
    listener = _listen(places, places.http_port)
    stop = _stopper(http)
    http.handle_exit = stop  # type: ignore[method-assign,assignment]
    # uvicorn sets its own handlers only once it serves, and a pod may be told to end before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    watching = asyncio.create_task(service.watch())
    _log.info("listening for copies on port %d", copies.sockets[0].getsockname()[1])
    _log.info("listening on port %d", listener.getsockname()[1])
    _log.info(
        "counting %d features and %d outputs on grid %s",
        len(settings.features),
        len(settings.outputs),
        settings.grid or "(none)",
    )
    try:
        await http.serve(sockets=[listener])
    finally:
        watching.cancel()
        copies.close()


def _listen(places: Places, port: int) -> socket.socket:
    """Opens a port, for IPv4 and IPv6 alike where no host is named."""
    host = places.host
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on port {port} of {host or 'any address'} ({error.strerror})"
        ) from error


def _stopper(http: uvicorn.Server) -> Callable[[int, FrameType | None], None]:
    """uvicorn's own handler raises the signal again, which would look like a crash."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        http.should_exit = True

    return stop
