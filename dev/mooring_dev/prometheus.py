"""Put a Prometheus into a cluster that scrapes pods which ask for it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import click
import yaml

from mooring_dev import oci
from mooring_dev.binaries import PROMETHEUS_VERSION, ensure
from mooring_dev.cluster import Cluster
from mooring_dev.paths import cluster_directory
from mooring_dev.steps import note, step

IMAGE = f"mooring.dev/prometheus:{PROMETHEUS_VERSION}"
NODE_PORT = 30090
IN_CLUSTER_URL = "http://prometheus.monitoring.svc:9090"

INTERVAL = "5s"
"""Between two scrapes, unless somebody is in a hurry."""

_INTERVALS = re.compile(r"(scrape_interval|scrape_timeout|evaluation_interval): \w+")
_MANIFESTS = Path(__file__).resolve().parent.parent / "prometheus"


def install(cluster: Cluster, *, interval: str = INTERVAL) -> str:
    """Install Prometheus into ``cluster``, wait until it is ready, and return its URL from here.

    Raises:
        DevError: its image cannot be built, or it does not become ready.
    """
    begin(cluster, interval=interval)
    wait(cluster)
    return url(cluster)


def begin(cluster: Cluster, *, interval: str = INTERVAL) -> None:
    """Hand it to ``cluster``, to scrape once in ``interval``, without waiting until it is ready."""
    if cluster.provider != "local" or IMAGE not in cluster.images():
        _load_image(cluster)
    text = yaml.safe_dump_all(manifests(interval))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


def wait(cluster: Cluster) -> None:
    """Return when it is ready; raises DevError when it does not become so."""
    rollout = ("rollout", "status", "deployment/prometheus", "--timeout=120s")
    with step("Waiting for Prometheus"):
        cluster.kubectl("-n", "monitoring", *rollout)


def manifests(interval: str) -> list[dict[str, Any]]:
    """The objects, with pods that start anew when the configuration is another one."""
    names = yaml.safe_load((_MANIFESTS / "kustomization.yaml").read_text())["resources"]
    found = [one for name in names for one in yaml.safe_load_all((_MANIFESTS / name).read_text())]
    of_kind = {one["kind"]: one for one in found}
    data = of_kind["ConfigMap"]["data"]
    text, changed = _INTERVALS.subn(rf"\1: {interval}", data["prometheus.yml"])
    assert changed == 3, "config.yaml has no such line any more"
    data["prometheus.yml"] = text
    template = of_kind["Deployment"]["spec"]["template"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    template["metadata"]["annotations"] = {"mooring.dev/configuration": digest[:16]}
    return found


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
