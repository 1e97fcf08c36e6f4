"""Run our own kubectl against one kubeconfig."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from mooring_dev.errors import DevError


def run(
    binary: Path,
    kubeconfig: Path,
    arguments: tuple[str, ...],
    *,
    standard_input: str | None = None,
    timeout: float = 300.0,
) -> str:
    """Standard output of ``kubectl ARGUMENTS``.

    Raises:
        DevError: it failed, with what it wrote to standard error, or took longer than ``timeout``
            seconds.
    """
    command = [str(binary), f"--kubeconfig={kubeconfig}", *arguments]
    # A discovery cache per kubeconfig: ports are given out again, and a cache by address is stale.
    environment = {**os.environ, "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache")}
    try:
        done = subprocess.run(
            command,
            input=standard_input,
            stdin=subprocess.DEVNULL if standard_input is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        shown = shlex.join(("kubectl", *arguments))
        raise DevError(f"`{shown}` did not end within {timeout:.0f} s.") from error
    if done.returncode != 0:
        shown = shlex.join(("kubectl", *arguments))
        raise DevError(f"`{shown}` failed (exit code {done.returncode}): {done.stderr.strip()}")
    return done.stdout


def succeeds(binary: Path, kubeconfig: Path, arguments: tuple[str, ...]) -> bool:
    """Whether ``kubectl ARGUMENTS`` ends well."""
    try:
        run(binary, kubeconfig, arguments, timeout=10.0)
    except DevError:
        return False
    return True
