"""Definitions (CRDs) of other projects, as their Go modules carry them: pinned like the programs.

They are not copied into this repository: each folder in ``dev/tools`` whose module brings some
pins its version and hash, and they are read from Go's own module cache.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.golang import find_go, required_go
from mooring_dev.paths import tools_root

GATEWAY_API = "sigs.k8s.io/gateway-api"


def gateway_api_definitions() -> Path:
    """The folder with the standard definitions, downloaded first when it is not there.

    Raises:
        DevError: there is no Go, or the module cannot be had or is not the pinned one.
    """
    return _module("gateway-api", GATEWAY_API) / "config" / "crd" / "standard"


def _module(group: str, path: str) -> Path:
    source = tools_root() / group
    go = find_go(required_go(source))
    done = subprocess.run(
        [go, "mod", "download", "-json", path],
        cwd=source,
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {}
    if done.returncode != 0 or "Dir" not in found:
        raise DevError(f"Cannot download {path}: {found.get('Error') or done.stderr.strip()}")
    return Path(found["Dir"])
