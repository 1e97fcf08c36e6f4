"""Commands of ``python -m mooring_dev cluster``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click
from rich.table import Table

from mooring_dev.cluster import Cluster, Provider, known_clusters
from mooring_dev.errors import DevError
from mooring_dev.node import COMPONENTS
from mooring_dev.paths import cluster_directory
from mooring_dev.steps import console, note, tail


@click.group()
def cluster() -> None:
    """Clusters with nodes: made on this machine, by kind, or somebody's own."""


_name = click.option("--name", default="default", show_default=True, help="Which cluster.")


@cluster.command("up")
@_name
@click.option(
    "--port-offset",
    type=int,
    default=None,
    help="0 to 99: sets the addresses of local clusters apart. [default: the first that is free]",
)
@click.option(
    "--provider",
    type=click.Choice(["local", "kind", "existing"]),
    default="local",
    show_default=True,
    help="local: on this machine, as root; kind: in an engine; existing: that of KUBECONFIG.",
)
def up(name: str, port_offset: int | None, provider: Provider) -> None:
    """Make the cluster, or what is missing of it, and print the path of its kubeconfig."""
    begin = time.monotonic()
    made = Cluster.up(name, port_offset, provider)
    note(f"Cluster {name} is ready ({time.monotonic() - begin:.1f} s).")
    if provider == "local":
        note(
            f"NodePorts: {made.node_port_address}. Pods reach this machine at {made.host_address}."
        )
    note("Use it by KUBECONFIG:")
    click.echo(made.kubeconfig)


@cluster.command("down")
@_name
def down(name: str) -> None:
    """Remove the cluster and everything that was started for it."""
    Cluster.find(name).down()
    note(f"Cluster {name} is gone.")


@cluster.command("status")
@_name
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def status(name: str, output: str) -> None:
    """Tell what of the cluster runs. Exits with 3 when it is not ready."""
    found = Cluster.find(name)
    components = found.components()
    ready = found.ready()
    if output == "json":
        facts = {
            "name": name,
            "provider": found.provider,
            "ready": ready,
            "kubeconfig": str(found.kubeconfig),
            "components": components,
        }
        click.echo(json.dumps(facts))
    else:
        table = Table(box=None)
        for heading in ("component", "pid"):
            table.add_column(heading)
        for component, pid in components.items():
            table.add_row(component, str(pid) if pid else "[red]not running[/red]")
        console().print(table)
        verdict = "ready" if ready else f"not ready; `cluster up --name {name}` repairs it"
        note(f"Cluster {name} ({found.provider}) is {verdict}.")
    if not ready:
        sys.exit(3)


@cluster.command("list")
def list_() -> None:
    """List the clusters that there is a record of."""
    for found in known_clusters():
        click.echo(f"{found.name}\t{found.provider}\t{found.offset}")


@cluster.command("kubeconfig")
@_name
def kubeconfig(name: str) -> None:
    """Print the path of the cluster's kubeconfig."""
    click.echo(Cluster.find(name).kubeconfig)


@cluster.command("kubectl", context_settings={"ignore_unknown_options": True})
@_name
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run the pinned kubectl against the cluster; put -- before its options."""
    from mooring_dev.binaries import ensure

    found = Cluster.find(name)
    binary = str(ensure("kubectl"))
    environment = {**os.environ, "KUBECONFIG": str(found.kubeconfig)}
    os.execve(binary, [binary, *arguments], environment)  # noqa: S606 - no shell is wanted


@cluster.command("import")
@_name
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def import_(name: str, archives: tuple[Path, ...]) -> None:
    """Make the images in ARCHIVES (OCI or Docker tars) usable by Pods."""
    for archive in archives:
        Cluster.find(name).import_image(archive)


@cluster.command("logs")
@_name
@click.argument("component", type=click.Choice(COMPONENTS))
@click.option("-n", "--lines", default=50, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
def logs(name: str, component: str, lines: int, follow: bool) -> None:
    """Show the end of the log of COMPONENT."""
    log = cluster_directory(name) / "logs" / f"{component}.log"
    if not log.exists():
        raise DevError(f"{component} of cluster {name} has no log at {log}.")
    if follow:
        os.execvp("tail", ["tail", "-n", str(lines), "-F", str(log)])  # noqa: S606 - no shell is wanted
    click.echo(tail(log, lines))
