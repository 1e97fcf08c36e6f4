"""Advisory file locks: they end with their owner, so a killed process never leaves one behind."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mooring_dev.steps import step


@contextmanager
def exclusive(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold ``path`` alone; while another process holds it, show that ``waiting_for`` is awaited."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"Waiting for another process: {waiting_for}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
