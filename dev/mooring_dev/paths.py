"""Where the tooling keeps its files, and which names may become part of a path.

Three places: a cache that can always be rebuilt, state that belongs to one cluster, and a runtime
folder for sockets, which have to be short (a Unix socket path holds 107 bytes) and must not
outlive a reboot.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mooring_dev.errors import DevError

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_MAX = 30


def valid_name(name: str) -> str:
    """Return ``name`` if it can name a cluster, so that it is safe in paths and host names.

    Raises:
        DevError: it is not a lower-case DNS label of at most 30 characters.
    """
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise DevError(
            f"{name!r} cannot name a cluster: use at most {_NAME_MAX} lower-case letters, digits "
            "and hyphens, starting with a letter and not ending with a hyphen."
        )
    return name


def tools_root() -> Path:
    """Folder with one pinned Go module per group of binaries."""
    return Path(__file__).resolve().parent.parent / "tools"


def cache_root() -> Path:
    """Folder for what can be rebuilt: ``$MOORING_CACHE``, or ``mooring`` in the user's cache."""
    chosen = os.environ.get("MOORING_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / "mooring"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mooring"


def state_root() -> Path:
    """Folder with one folder per cluster or named control plane: ``$MOORING_STATE`` moves it."""
    chosen = os.environ.get("MOORING_STATE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "mooring"


def run_root() -> Path:
    """Folder for sockets, port claims and locks; emptied by a reboot."""
    return Path("/run/mooring") if os.geteuid() == 0 else Path(f"/tmp/mooring-{os.geteuid()}")


def cluster_directory(name: str) -> Path:
    """State of the cluster called ``name``."""
    return state_root() / "clusters" / valid_name(name)
