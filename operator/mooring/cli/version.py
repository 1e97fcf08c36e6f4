"""``mooring version``: what runs here and what it talks to."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

import click

from mooring import __version__
from mooring.cli.options import cluster_options, output_option
from mooring.core import kinds

if TYPE_CHECKING:
    from mooring.cli.cluster import Target


@click.command()
@click.option("--client", is_flag=True, help="Of this program only: ask no cluster.")
@output_option()
@cluster_options
def version(client: bool, output: str, target: Target) -> None:
    """Print the versions of this program and of the cluster.

    A cluster that cannot be asked is named with the reason, and is no failure.
    """
    found: dict[str, Any] = {
        "mooring": __version__,
        "apiVersion": kinds.MODEL_DEPLOYMENT.api_version,
        "python": platform.python_version(),
        "kubernetesClient": importlib.metadata.version("kubernetes"),
    }
    if not client:
        found["cluster"] = _cluster(target)
    if output != "text":
        from mooring.cli.output import data

        click.echo(data(found, output), nl=False)
        return
    click.echo(
        f"mooring {found['mooring']} for {found['apiVersion']} (Python {found['python']}, "
        f"kubernetes client {found['kubernetesClient']})"
    )
    if not client:
        cluster = found["cluster"]
        click.echo(
            f"cluster {cluster['server']}: Kubernetes {cluster['kubernetes']}, "
            f"{'knows' if cluster['installed'] else 'does not know'} {found['apiVersion']}"
            if "server" in cluster
            else f"cluster: {cluster['error']}"
        )


def _cluster(target: Target) -> dict[str, Any]:
    from mooring.cli.cluster import connect
    from mooring.cli.failure import Failure

    try:
        cluster = connect(target)
        kubernetes = cluster.version().get("gitVersion")
        installed = cluster.installed()
    except Failure as failure:
        return {"error": failure.message}
    return {"server": cluster.server, "kubernetes": kubernetes, "installed": installed}
