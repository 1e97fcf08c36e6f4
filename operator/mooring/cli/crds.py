"""``mooring crds``: the CRDs that this version was built with, printed or applied.

Helm installs a chart's CRDs once and never upgrades them; the chart runs this before an upgrade.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import yaml

from mooring.cli.options import cluster_options
from mooring.core.kinds import Kind

if TYPE_CHECKING:
    from mooring.cli.cluster import Cluster, Target

_CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
_MANAGER = "mooring-crds"
_PAUSE_SECONDS = 0.5


@click.command()
@click.option("--apply", is_flag=True, help="Apply them and wait until they are established.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds to wait for each of them.",
)
@cluster_options
def crds(apply: bool, timeout: float, target: Target) -> None:
    """Print the CRDs as YAML, fit for `kubectl apply --server-side -f -`, or apply them.

    Applying takes the right to get, create and patch the four CRDs, and nothing else.

    Exit codes: 0 printed, or all established; 2 wrong usage; 3 not established in time. 4 to 6: the
    cluster could not be asked, see mooring --help.
    """
    from mooring.api.crd import rendered_files

    files = rendered_files()
    if not apply:
        click.echo("---\n".join(files.values()), nl=False)
        return
    from mooring.cli.cluster import connect

    cluster = connect(target)
    for text in files.values():
        _apply(cluster, yaml.safe_load(text), timeout)


def _apply(cluster: Cluster, definition: dict[str, Any], patience: float) -> None:
    from mooring.cli.failure import TIMEOUT, Failure

    name = definition["metadata"]["name"]
    cluster.apply(_CRD, definition, _MANAGER)
    end = time.monotonic() + patience
    while not _established(cluster.get(_CRD, name)):
        if time.monotonic() > end:
            raise Failure(
                f"the CRD {name} was not established in {patience:g} s: "
                f"see kubectl get crd {name} -o yaml",
                TIMEOUT,
            )
        time.sleep(_PAUSE_SECONDS)
    click.echo(f"{name} is established")


def _established(definition: dict[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
