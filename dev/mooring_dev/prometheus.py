"""Put a Prometheus into a cluster that scrapes pods which ask for it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mooring_dev import oci
from mooring_dev.binaries import PROMETHEUS_VERSION, ensure
from mooring_dev.cluster import Cluster
from mooring_dev.paths import cluster_directory
from mooring_dev.steps import note, step

IMAGE = f"mooring.dev/prometheus:{PROMETHEUS_VERSION}"
NODE_PORT = 30090
IN_CLUSTER_URL = "http://prometheus.monitoring.svc:9090"

_MANIFESTS = Path(__file__).resolve().parent.parent / "prometheus"


def install(cluster: Cluster) -> str:
    """Install Prometheus into ``cluster``, wait until it is ready, and return its URL from here.

    Raises:
        DevError: its image cannot be built, or it does not become ready.
    """
    if cluster.provider != "local" or IMAGE not in cluster.images():
        _load_image(cluster)
    with step("Installing Prometheus"):
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(_MANIFESTS))
        _restart_for_configuration(cluster)
        rollout = ("rollout", "status", "deployment/prometheus", "--timeout=120s")
        cluster.kubectl("-n", "monitoring", *rollout)
    return url(cluster)


def _load_image(cluster: Cluster) -> None:
    """Import an image of the Prometheus that is built here: Debian's cannot discover pods."""
    binary = ensure("prometheus")
    archive = cluster_directory(cluster.name) / "prometheus.tar"
    files = {"/bin/prometheus": oci.File(binary.read_bytes(), 0o755)}
    oci.write_image(archive, IMAGE, files, entrypoint=("/bin/prometheus",))
    try:
        cluster.import_image(archive)
    finally:
        archive.unlink()


def url(cluster: Cluster) -> str:
    """Where this machine reaches the cluster's Prometheus."""
    if cluster.provider == "local":
        return f"http://{cluster.node_port_address}:{NODE_PORT}"
    # On other providers nothing says that this machine reaches the node: port-forward to it.
    return "http://127.0.0.1:9090"


def _restart_for_configuration(cluster: Cluster) -> None:
    """Start new pods when the configuration is another one than they were started with."""
    text = cluster.kubectl("-n", "monitoring", "get", "configmap", "prometheus", "-o", "json")
    version = json.loads(text)["metadata"]["resourceVersion"]
    annotation = {"mooring.dev/configuration": version}
    patch = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    target = ("patch", "deployment", "prometheus", "--patch", json.dumps(patch))
    cluster.kubectl("-n", "monitoring", *target)


@click.group()
def prometheus() -> None:
    """Prometheus inside a cluster."""


@prometheus.command("install")
@click.option("--name", default="default", show_default=True, help="Which cluster.")
def install_command(name: str) -> None:
    """Install it, wait until it is ready, and print its URL."""
    cluster = Cluster.find(name)
    address = install(cluster)
    if cluster.provider != "local":
        note("Reach it by: kubectl -n monitoring port-forward svc/prometheus 9090")
    click.echo(address)
