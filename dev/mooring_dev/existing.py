"""The existing provider: a cluster that somebody else made, by KUBECONFIG."""

from __future__ import annotations

import os
from pathlib import Path

from mooring_dev import files, kubectl
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError


def up(kubeconfig: Path) -> None:
    """Copy the current context of KUBECONFIG to ``kubeconfig`` and check that it answers.

    Raises:
        DevError: there is no kubeconfig, or the cluster does not answer.
    """
    source = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    present = [Path(part) for part in source.split(os.pathsep) if part and Path(part).exists()]
    if not present:
        raise DevError(f"No kubeconfig at {source}: set KUBECONFIG to that of your cluster.")
    binary = ensure("kubectl")
    flat = kubectl.run(binary, present[0], ("config", "view", "--minify", "--flatten", "--raw"))
    files.write_text(kubeconfig, flat)
    kubectl.run(binary, kubeconfig, ("get", "--raw", "/readyz", "--request-timeout=10s"))
