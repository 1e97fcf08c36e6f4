"""The existing provider: a cluster that somebody else made, by KUBECONFIG."""

from __future__ import annotations

import os
from pathlib import Path

from mooring_dev import kubectl
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError


def up(kubeconfig: Path) -> None:
    """Copy the current context of KUBECONFIG to ``kubeconfig`` and check that it answers.

    Raises:
        DevError: there is no kubeconfig, or the cluster does not answer.
    """
    source = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    files = [Path(part) for part in source.split(os.pathsep) if part]
    if not any(file.exists() for file in files):
        raise DevError(f"No kubeconfig at {source}: set KUBECONFIG to that of your cluster.")
    binary = ensure("kubectl")
    chosen = next(file for file in files if file.exists())
    flat = kubectl.run(binary, chosen, ("config", "view", "--minify", "--flatten", "--raw"))
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(kubeconfig, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(flat)
    kubectl.run(binary, kubeconfig, ("get", "--raw", "/readyz", "--request-timeout=10s"))
