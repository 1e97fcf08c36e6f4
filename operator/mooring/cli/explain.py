"""``mooring explain``: why is it not Ready, and what is to be done."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mooring.cli.options import cluster_options, name_argument, no_color_option, output_option
from mooring.core import kinds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mooring.cli.cluster import Cluster, Json, Target
    from mooring.cli.diagnosis import Diagnosis
    from mooring.cli.snapshot import Snapshot

#: A shorter cause is no trouble to read twice.
_LONG = 24
#: Pods whose events are read, one request each: beyond the first few they say the same.
_PODS_ASKED = 3


@click.command()
@name_argument
@output_option()
@no_color_option
@cluster_options
def explain(name: str, output: str, no_color: bool, target: Target) -> None:
    """Say why a ModelDeployment is not Ready, and what to do next.

    Reads the conditions, what the pods said last, and the events about both.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.diagnosis import diagnose
    from mooring.cli.output import console, data
    from mooring.cli.snapshot import read

    cluster = connect(target)
    snapshot = read(cluster, name)
    found = diagnose(snapshot, _events(cluster, snapshot), datetime.now(UTC))
    if output != "text":
        value = {"name": snapshot.name, "namespace": snapshot.namespace, **asdict(found)}
        for part in ("findings", "events", "next"):
            value[part] = list(value[part])
        click.echo(data(value, output), nl=False)
        return
    show(found, console(no_color))


def _events(cluster: Cluster, snapshot: Snapshot) -> list[Json]:
    from mooring.cli.diagnosis import unready
    from mooring.cli.failure import Failure

    about = [(kinds.MODEL_DEPLOYMENT.name, snapshot.name)]
    about += [("Pod", str(pod["metadata"]["name"])) for pod in unready(snapshot)[:_PODS_ASKED]]
    found: list[Json] = []
    for kind, name in about:
        fields = f"involvedObject.kind={kind},involvedObject.name={name}"
        try:
            found += cluster.objects(kinds.EVENT, fields=fields)[0]
        except Failure:  # who may not read events is helped by the rest all the same
            return found
    return found


def show(found: Diagnosis, out: Console) -> None:
    """The diagnosis for people."""
    from rich.text import Text

    def line(text: Text) -> None:
        for number, row in enumerate(text.wrap(out, max(20, out.width - 4))):
            row.rstrip()
            out.print(Text("    " if number else "  ") + row)

    said = [found.headline]

    def once(text: str) -> str:
        said.append(text)
        return without_repetition(text, said[:-1])

    out.print(Text(found.headline, "green" if found.ready else "red"))
    if found.findings:
        out.print(Text("\nWhat stands in the way" if not found.ready else "\nWorth knowing"))
    for finding in found.findings:
        what = f"{finding.reason}: {once(finding.message)}"
        line(Text.assemble((finding.about, "bold"), f"  {what}"))
    if found.events:
        out.print(Text("\nWarnings"))
    for event in found.events:
        line(Text(once(event), "dim"))
    if found.next:
        out.print(Text("\nWhat to do"))
    for number, step in enumerate(found.next, 1):
        line(Text(f"{number}. {step}"))
    if found.ready and not found.findings:
        out.print(Text("Nothing is to be done."))


def without_repetition(text: str, said: Sequence[str]) -> str:
    """A message without its cause, the words after a colon, where those were said before.

    A condition, another one and the Event about both give the same long cause.
    """
    at = text.find(": ")
    while at >= 0:
        cause = text[at + 2 :]
        # Up to its end: "at 10" is not "at 100".
        told = re.compile(rf"{re.escape(cause)}(?!\w)")
        if len(cause) >= _LONG and any(map(told.search, said)):
            return f"{text[:at]} (see above)"
        at = text.find(": ", at + 2)
    return text
