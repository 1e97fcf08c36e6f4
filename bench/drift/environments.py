"""An environment per peer, made once per lock under the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent / "peers"
PEERS = ("evidently", "nannyml", "alibi-detect")


class NotInstalled(Exception):
    """A peer that could not be installed, with pip's last words."""


def cache() -> Path:
    """Where environments are kept; MOORING_CACHE or the user's cache folder."""
    given = os.environ.get("MOORING_CACHE")
    if given:
        return Path(given) / "bench"
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "mooring" / "bench"


def ensure(peer: str, timeout: float = 900.0) -> Path:
    """The interpreter of a peer's environment, made if need be. Raises NotInstalled."""
    lock = LOCKS / f"{peer}.txt"
    folder = cache() / f"{peer}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    # The lock is complete; without --no-deps older pips trip over extras among hashed pins.
    install = [
        str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(lock),
    ]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
        raise NotInstalled(f"{peer} could not be installed: {lines[-1]}")
    ready.touch()
    return python
