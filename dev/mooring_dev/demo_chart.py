"""Install Mooring into a development cluster as a user would: by its Helm chart."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.errors import DevError
from mooring_dev.images import Built
from mooring_dev.images_catalog import REPOSITORY, TAG
from mooring_dev.paths import cluster_directory
from mooring_dev.steps import run_logged

RELEASE = "mooring"
NAMESPACE = "mooring-system"
CHART = REPOSITORY / "helm" / "mooring"
VALUES = CHART / "ci" / "dev-values.yaml"
_KEYS = {
    "operator": "operator",
    "fetcher": "fetcher",
    "router": "router",
    "collector": "collector",
    "onnx-server": "onnxServer",
    "torchserve": "torchserve",
    "tfserving-standin": "tfserving",
}
_TIMEOUT = "180s"


def install(cluster: Cluster, built: Sequence[Built], settings: Sequence[str] = ()) -> None:
    """Install or upgrade the chart with the images ``built``, and wait until its pods are ready.

    The images are named by their content, so a changed operator is rolled out like any release.
    ``settings`` are further ``--set`` values.

    Raises:
        DevError: helm failed, or the operator did not become ready: with what its pods say.
    """
    chosen = [
        f"images.{_KEYS[one.image.name]}.tag={TAG}-{one.key}"
        for one in built
        if one.image.name in _KEYS
    ]
    command = [str(ensure("helm")), "upgrade", "--install", RELEASE, str(CHART)]
    command += ["--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE]
    command += ["--create-namespace", "--values", str(VALUES), "--wait", "--timeout", _TIMEOUT]
    command += [word for setting in (*chosen, *settings) for word in ("--set", setting)]
    log = cluster_directory(cluster.name) / "logs" / "helm.log"
    try:
        run_logged("Installing the chart", command, log, env=_environment(cluster))
    except DevError as error:
        raise DevError(f"{error}\n--- the operator's pods ---\n{_pods(cluster)}") from None


def uninstall(cluster: Cluster) -> None:
    """Remove the release; CRDs and what is served stay."""
    command = [str(ensure("helm")), "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]
    command += ["--kubeconfig", str(cluster.kubeconfig), "--ignore-not-found"]
    log = cluster_directory(cluster.name) / "logs" / "helm.log"
    run_logged("Removing the chart", command, log, env=_environment(cluster))


def _environment(cluster: Cluster) -> dict[str, str]:
    # helm's own cache and configuration would land in the home folder.
    folder = Path(cluster_directory(cluster.name)) / "helm"
    places = {name: str(folder / name.lower()) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME")}
    return {**os.environ, **places, "HELM_DATA_HOME": str(folder / "data")}


def _pods(cluster: Cluster) -> str:
    base = [str(ensure("kubectl")), f"--kubeconfig={cluster.kubeconfig}", "-n", NAMESPACE]
    selector = "app.kubernetes.io/name=mooring-operator"
    shown = []
    for words in (
        ["get", "pods", "-o", "wide"],
        ["get", "events", "--field-selector", "type=Warning", "--sort-by=.lastTimestamp"],
        ["logs", "-l", selector, "--tail=15", "--all-containers", "--prefix"],
    ):
        done = subprocess.run([*base, *words], capture_output=True, text=True, check=False)
        shown.append((done.stdout or done.stderr).strip())
    return "\n".join(shown)
