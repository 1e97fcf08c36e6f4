"""Write files so that readers never see half of one, nor a change where there is none."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, *, mode: int = 0o600) -> Path:
    """Make ``path`` hold ``data`` by one rename, and leave it alone when it does already.

    Some programs end when a file that they watch is written, even with the same content.
    """
    if path.exists() and path.read_bytes() == data:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".part")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    staging.rename(path)
    return path


def write_text(path: Path, text: str) -> Path:
    """As ``write``, for text."""
    return write(path, text.encode())
