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

_COLUMNS = (
    "NAMESPACE", "NAME", "PHASE", "READY", "STABLE", "CANDIDATE", "STEP", "WEIGHT", "VERDICT",
    "AGE", "MODEL",
)  # fmt: skip
_LEAST_MODEL = 14


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
    out = console(no_color)
    out.print(table(found, datetime.now(UTC), all_namespaces, out.width))


def table(found: list[Json], now: datetime, all_namespaces: bool, width: int) -> Table:
    """The table; the place of the model is the first to give way to a narrow terminal."""
    from rich.text import Text

    from mooring.cli.analysis_view import VERDICTS
    from mooring.cli.columns import Column, fit
    from mooring.cli.estimates import ongoing
    from mooring.cli.view import PHASES
    from mooring.cli.words import age, plain, short_uri

    cells: dict[str, list[Text]] = {name: [] for name in _COLUMNS}
    for obj in found:
        meta, status = obj["metadata"], obj.get("status") or {}
        stable, candidate = status.get("stable") or {}, status.get("candidate") or {}
        phase = plain(status.get("phase"))
        cells["NAMESPACE"].append(Text(meta["namespace"] if all_namespaces else ""))
        cells["NAME"].append(Text(meta["name"], "bold"))
        cells["PHASE"].append(Text(phase, PHASES.get(phase, "")))
        cells["READY"].append(Text(_ready(stable or candidate)))
        cells["STABLE"].append(Text(plain(stable.get("revision"))))
        cells["CANDIDATE"].append(Text(plain(candidate.get("revision"))))
        cells["STEP"].append(Text(_step(status.get("rollout") or {})))
        cells["WEIGHT"].append(Text(f"{candidate['weight']}%" if "weight" in candidate else ""))
        verdict = plain(status["analysis"].get("verdict")) if ongoing(status) else ""
        cells["VERDICT"].append(Text(verdict, VERDICTS.get(verdict, "")))
        cells["MODEL"].append(Text(plain(obj["spec"]["model"]["uri"])))
        cells["AGE"].append(Text(age(meta.get("creationTimestamp"), now)))
    drop = {"AGE": 4, "MODEL": 3, "VERDICT": 2, "STABLE": 1}
    return fit(
        [
            Column(name, cells[name], drop=drop.get(name, 0))
            if name != "MODEL"
            else Column(name, cells[name], _LEAST_MODEL, short_uri, drop["MODEL"])
            for name in _COLUMNS
        ],
        width,
    )


def _ready(record: Json) -> str:
    replicas = record.get("replicas")
    return f"{replicas.get('ready', 0)}/{replicas.get('desired', 0)}" if replicas else ""


def _step(rollout: Json) -> str:
    if rollout.get("step") is None:
        return ""
    return f"{rollout['step']}/{rollout['steps']}" if rollout.get("steps") else str(rollout["step"])
