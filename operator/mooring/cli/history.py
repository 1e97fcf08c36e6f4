"""``mooring history``: the revisions of a ModelDeployment and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mooring.cli.options import cluster_options, name_argument, no_color_option, output_option

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mooring.cli.cluster import Json, Target
    from mooring.cli.records import Record

_LEAST_MODEL = 20
_LEAST_WHY = 20


@click.command()
@name_argument
@output_option()
@no_color_option
@cluster_options
def history(name: str, output: str, no_color: bool, target: Target) -> None:
    """List the revisions of a ModelDeployment, the newest first, and what became of each.

    They stand in ControllerRevisions: this is what is kept, whatever happens to the status.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.output import console, data
    from mooring.cli.records import read_records

    records = read_records(connect(target), name)
    if output != "text":
        click.echo(data(rows(records), output), nl=False)
    elif records:
        out = console(no_color)
        out.print(table(records, datetime.now(UTC), out.width))
    else:
        click.echo(f"{name} has no revision yet.", err=True)


def rows(records: Sequence[Record]) -> list[Json]:
    """What ``-o json`` prints."""
    return [
        {
            "sequence": record.sequence,
            "revision": record.revision,
            "state": state(record, records),
            "modelUri": record.model_uri or None,
            "modelDigest": record.digest or None,
            "runtime": record.runtime or None,
            "created": record.created or None,
            "promotion": record.promotion,
            "promotedAt": record.promoted_at or None,
            "rejected": record.rejected or None,
            "restart": record.inputs.get("restart"),
        }
        for record in records
    ]


def state(record: Record, records: Sequence[Record]) -> str:
    """One word: stable, rejected, paused, promoted (once), or new (never promoted)."""
    from mooring.cli.records import stable_of

    stable = stable_of(records)
    if stable is not None and record.revision == stable.revision:
        return "stable"
    if record.rejected:
        return "rejected"
    if record.paused:
        return "paused"
    return "promoted" if record.promotion is not None else "new"


def table(records: Sequence[Record], now: datetime, width: int) -> Table:
    """The same for people, as wide as the terminal allows."""
    from rich.text import Text

    from mooring.cli.columns import Column, fit
    from mooring.cli.words import age, plain, short_digest, short_uri

    colours = {"stable": "green", "rejected": "red", "paused": "yellow", "new": "cyan"}
    words = [state(record, records) for record in records]
    promoted = [age(record.promoted_at, now) for record in records]
    return fit(
        [
            Column("NO", [Text(str(record.sequence)) for record in records]),
            Column("REVISION", [Text(plain(record.revision), "bold") for record in records]),
            Column("STATE", [Text(word, colours.get(word, "")) for word in words]),
            Column("PROMOTED", [Text(f"{text} ago" if text else "") for text in promoted]),
            Column("AGE", [Text(age(record.created, now)) for record in records], drop=2),
            Column("MODEL", [Text(plain(r.model_uri)) for r in records], _LEAST_MODEL, short_uri),
            Column("DIGEST", [Text(short_digest(record.digest)) for record in records], drop=3),
            Column("WHY", [_why(record) for record in records], _LEAST_WHY),
        ],
        width,
    )


def _why(record: Record) -> Text:
    from rich.text import Text

    from mooring.cli.words import plain

    if record.rejected:
        words = f"{record.rejected.get('reason')}: {record.rejected.get('message')}"
        return Text(plain(words))
    if record.inputs.get("restart"):
        return Text("restart of the same inputs")
    return Text()
