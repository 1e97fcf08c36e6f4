"""``mooring export``: everything that must survive the loss of a cluster, as one YAML stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.failure import NOT_ALLOWED, Failure
from mooring.cli.options import cluster_options
from mooring.core import kinds
from mooring.core.kinds import Kind

if TYPE_CHECKING:
    from mooring.cli.cluster import Cluster, Target

#: What is exported, and by which label. Records before the resources that they belong to: an
#: operator that sees the resource first would begin a history of its own.
_EXPORTED: tuple[tuple[Kind, str], ...] = (
    (kinds.CLUSTER_MODEL_RUNTIME, ""),
    (kinds.MODEL_RUNTIME, ""),
    (kinds.CONTROLLER_REVISION, f"{kinds.LABEL_MANAGED_BY}={kinds.MANAGED_BY}"),
    (kinds.MODEL_DEPLOYMENT, ""),
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KEPT_METADATA = ("name", "namespace", "labels", "annotations")


@click.command()
@partial(cluster_options, namespace="One namespace; by default all of them.")
def export(target: Target) -> None:
    """Print ModelDeployments, runtimes and the records of revisions, fit for `kubectl apply -f -`.

    Owner references, uids and status are left out: a restored owner has a new uid, and the
    operator adopts the records by their labels. Apply the whole stream while the operator is
    stopped or before it is installed; the same model is then served by the same revision.

    What was found is counted on standard error. With -n, ClusterModelRuntimes are left out where
    you may not list them. Nothing is printed unless all of the rest could be read.

    Exit codes: 0 printed; 2 wrong usage. 4 to 8: the cluster could not be asked, see mooring
    --help.
    """
    import yaml

    from mooring.cli.cluster import connect

    found = list(_read(connect(target), everywhere=not target.namespace))
    objects = [portable(obj) for _, listed in found for obj in listed]
    click.echo(yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True), nl=False)
    counts = ", ".join(f"{len(listed)} {kind.plural}" for kind, listed in found)
    where = f"namespace {target.namespace}" if target.namespace else "all namespaces"
    click.echo(f"exported of {where}: {counts}", err=True)


def _read(cluster: Cluster, *, everywhere: bool) -> Iterator[tuple[Kind, list[dict[str, Any]]]]:
    for kind, labels in _EXPORTED:
        try:
            listed, _ = cluster.objects(kind, everywhere=everywhere, labels=labels)
        except Failure as failure:
            if everywhere or kind.namespaced or failure.code != NOT_ALLOWED:
                raise
            # Who keeps one namespace need not see those; they are their administrator's to keep.
            click.echo(f"left out: {failure.message}", err=True)
        else:
            # The items of a list of built-in objects do not say what they are.
            head = {"apiVersion": kind.api_version, "kind": kind.name}
            yield kind, [{**head, **obj} for obj in listed]


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
