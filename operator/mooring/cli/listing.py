"""``mooring list``: every ModelDeployment in a line of a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mooring.cli.options import cluster_options, no_color_option, output_option
from mooring.core import kinds

if TYPE_CHECKING:
    from rich.table import Table

    from mooring.cli.cluster import Json, Target

_MODEL_COLUMNS = 48


@click.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
@output_option()
@no_color_option
@cluster_options
def list_(all_namespaces: bool, output: str, no_color: bool, target: Target) -> None:
    """List ModelDeployments: is it serving, what is rolling out, how far is it.

    With -o json or yaml: the objects as a List, as kubectl prints them.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.output import console, data

    cluster = connect(target)
    found, _ = cluster.objects(kinds.MODEL_DEPLOYMENT, everywhere=all_namespaces)
    if output != "text":
        named = {"apiVersion": kinds.MODEL_DEPLOYMENT.api_version, "kind": "ModelDeployment"}
        items = [{**named, **obj} for obj in found]
        click.echo(data({"apiVersion": "v1", "kind": "List", "items": items}, output), nl=False)
        return
    if not found:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
        click.echo(f"There is no ModelDeployment in {where}.", err=True)
        return
    console(no_color).print(table(found, datetime.now(UTC), all_namespaces))


def table(found: list[Json], now: datetime, all_namespaces: bool) -> Table:
    """The table; a column that is empty everywhere is left out."""
    from rich.table import Table
    from rich.text import Text

    from mooring.cli.view import PHASES
    from mooring.cli.words import age, plain, short_uri

    rows = []
    for obj in found:
        meta, status = obj["metadata"], obj.get("status") or {}
        stable, candidate = status.get("stable") or {}, status.get("candidate") or {}
        phase = plain(status.get("phase")) or "-"
        rows.append(
            {
                "NAMESPACE": Text(meta["namespace"]) if all_namespaces else Text(),
                "NAME": Text(meta["name"], "bold"),
                "PHASE": Text(phase, PHASES.get(phase, "")),
                "READY": Text(_ready(stable or candidate)),
                "STABLE": Text(plain(stable.get("revision"))),
                "CANDIDATE": Text(plain(candidate.get("revision"))),
                "STEP": Text(_step(status.get("rollout") or {})),
                "WEIGHT": Text(f"{candidate['weight']}%" if "weight" in candidate else ""),
                "MODEL": Text(short_uri(obj["spec"]["model"]["uri"], _MODEL_COLUMNS)),
                "AGE": Text(age(meta.get("creationTimestamp"), now)),
            }
        )
    shown = [name for name in rows[0] if any(row[name].plain for row in rows)]
    made = Table(*shown, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in made.columns:
        # What is typed again must be whole; the place of the model gives way first.
        column.no_wrap = True
        column.overflow = "ellipsis"
        column.min_width = 8 if column.header == "MODEL" else None
    for row in rows:
        made.add_row(*(row[name] if row[name].plain else Text("-") for name in shown))
    return made


def _ready(record: Json) -> str:
    replicas = record.get("replicas")
    return f"{replicas.get('ready', 0)}/{replicas.get('desired', 0)}" if replicas else ""


def _step(rollout: Json) -> str:
    if rollout.get("step") is None:
        return ""
    return f"{rollout['step']}/{rollout['steps']}" if rollout.get("steps") else str(rollout["step"])
