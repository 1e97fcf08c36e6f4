"""``mooring crds``: the CRDs that this version was built with, printed or applied.

Helm installs a chart's CRDs once and never upgrades them; the chart runs this before an upgrade.
"""

from __future__ import annotations

import asyncio
from typing import Any

import click
import yaml

from mooring.api.crd import rendered_files
from mooring.core.kinds import Kind

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
@click.option(
    "--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Where the cluster is."
)
def crds(apply: bool, timeout: float, kubeconfig: str | None) -> None:
    """Print the CRDs as YAML, fit for `kubectl apply --server-side -f -`, or apply them.

    Applying takes the right to get, create and patch the four CRDs, and nothing else.
    """
    files = rendered_files()
    if apply:
        asyncio.run(_apply([yaml.safe_load(text) for text in files.values()], timeout, kubeconfig))
    else:
        click.echo("---\n".join(files.values()), nl=False)


async def _apply(
    definitions: list[dict[str, Any]], patience: float, kubeconfig: str | None
) -> None:
    from mooring.adapters.kube import ApiError, KubeClient, load_configuration
    from mooring.engine.lease import Fence

    fence = Fence()
    fence.open_for_ever()  # no lease is needed: applying the same twice is harmless
    client = KubeClient(await load_configuration(kubeconfig), fence)
    try:
        for definition in definitions:
            name = definition["metadata"]["name"]
            try:
                await client.apply(_CRD, definition, manager=_MANAGER)
            except ApiError as error:
                raise click.ClickException(f"cannot apply the CRD {name}: {error}") from error
            try:
                async with asyncio.timeout(patience):
                    while not _established(await client.get(_CRD, None, name)):
                        await asyncio.sleep(_PAUSE_SECONDS)
            except TimeoutError as error:
                raise click.ClickException(
                    f"the CRD {name} was not established in {patience:g} s: "
                    f"see kubectl get crd {name} -o yaml"
                ) from error
            click.echo(f"{name} is established")
    finally:
        await client.close()


def _established(definition: dict[str, Any] | None) -> bool:
    conditions = ((definition or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
