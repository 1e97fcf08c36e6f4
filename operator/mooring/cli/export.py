"""``mooring export``: everything that must survive the loss of a cluster, as one YAML stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import click
import yaml

from mooring.core import kinds
from mooring.core.kinds import Kind

#: Records before the resources that they belong to: an operator that sees the resource first
#: would begin a history of its own.
_EXPORTED: tuple[Kind, ...] = (
    kinds.CLUSTER_MODEL_RUNTIME,
    kinds.MODEL_RUNTIME,
    kinds.CONTROLLER_REVISION,
    kinds.MODEL_DEPLOYMENT,
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KEPT_METADATA = ("name", "namespace", "labels", "annotations")


@click.command()
@click.option("--namespace", "-n", help="One namespace; by default all of them.")
@click.option(
    "--kubeconfig", type=click.Path(exists=True, dir_okay=False), help="Where the cluster is."
)
def export(namespace: str | None, kubeconfig: str | None) -> None:
    """Print ModelDeployments, runtimes and the records of revisions, fit for `kubectl apply -f -`.

    Owner references, uids and status are left out: a restored owner has a new uid, and the
    operator adopts the records by their labels. Apply the whole stream while the operator is
    stopped or before it is installed; the same model is then served by the same revision.
    """
    objects = asyncio.run(_read(namespace, kubeconfig))
    click.echo(yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True), nl=False)


async def _read(namespace: str | None, kubeconfig: str | None) -> list[dict[str, Any]]:
    from mooring.adapters.kube import ApiError, KubeClient, load_configuration
    from mooring.engine.lease import Fence
    from mooring.engine.resync import selector_of

    client = KubeClient(await load_configuration(kubeconfig), Fence())
    found: list[dict[str, Any]] = []
    try:
        for kind in _EXPORTED:
            where = namespace if kind.namespaced else None
            try:
                async for chunk in client.list(kind, where, label_selector=selector_of(kind)):
                    found += [portable(obj) for obj in chunk]
            except ApiError as error:
                raise click.ClickException(f"cannot list {kind.plural}: {error}") from error
    finally:
        await client.close()
    return found


def portable(obj: dict[str, Any]) -> dict[str, Any]:
    """The object without everything that belongs to the cluster it came from."""
    meta = {key: value for key, value in obj["metadata"].items() if key in _KEPT_METADATA}
    annotations = _without(meta.pop("annotations", {}), (_LAST_APPLIED,))
    if annotations:
        meta["annotations"] = annotations
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    head = {key: rest.pop(key) for key in ("apiVersion", "kind")}
    return {**head, "metadata": meta, **rest}


def _without(mapping: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}
