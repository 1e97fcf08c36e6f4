"""Free TCP ports, picked so that two control planes started together never pick the same one.

A port is claimed by a lock file for as long as the claimer lives, then proved free by binding it.
Claims are made below the kernel's range for outgoing connections, so that no unrelated client
takes the port between the check and the server's own bind.
"""

from __future__ import annotations

import fcntl
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.paths import run_root

FIRST_PORT = 20000
LAST_PORT = 29999


@dataclass(frozen=True)
class Claim:
    """Ports that no other claimer on this machine gets until ``release``."""

    ports: tuple[int, ...]
    handles: tuple[TextIOWrapper, ...]

    def release(self) -> None:
        """Let others have the ports again."""
        for handle in self.handles:
            handle.close()


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``port`` of ``address`` right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _candidates() -> Iterator[int]:
    # A start of its own per process keeps parallel test runs from trying the same ports in turn.
    size = LAST_PORT - FIRST_PORT + 1
    start = random.SystemRandom().randrange(size)
    for index in range(size):
        yield FIRST_PORT + (start + index) % size


def _claim_one(folder: Path, port: int) -> TextIOWrapper | None:
    handle = (folder / str(port)).open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    if is_free(port):
        return handle
    handle.close()
    return None


def claim(count: int) -> Claim:
    """Claim ``count`` free ports of 127.0.0.1.

    Raises:
        DevError: there are not that many free ports between FIRST_PORT and LAST_PORT.
    """
    folder = run_root() / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[tuple[int, TextIOWrapper]] = []
    for port in _candidates():
        if len(taken) == count:
            break
        handle = _claim_one(folder, port)
        if handle is not None:
            taken.append((port, handle))
    if len(taken) < count:
        for _, handle in taken:
            handle.close()
        raise DevError(f"No {count} free TCP ports between {FIRST_PORT} and {LAST_PORT}.")
    return Claim(tuple(port for port, _ in taken), tuple(handle for _, handle in taken))
