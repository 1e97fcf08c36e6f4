"""``mooring diff``: what differs between two revisions, as asked for and as pinned."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.failure import DONE, FAILED, NOT_FOUND, Failure
from mooring.cli.options import (
    cluster_options,
    complete_revision,
    name_argument,
    no_color_option,
    output_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from mooring.cli.cluster import Json, Target
    from mooring.cli.records import Record

#: The parts of a record in the order shown: the cause first, then what was rendered from it.
_PARTS = {
    "inputs": "inputs",
    "template": "pod template",
    "config": "configuration files",
    "ports": "ports",
}
#: What stands for a revision's own name, which would differ on every line that holds it.
_OWN_NAME = "<revision>"


@click.command()
@name_argument
@click.argument("revision", metavar="REV1", shell_complete=complete_revision)
@click.argument("other", metavar="[REV2]", default="", shell_complete=complete_revision)
@click.option("--exit-code", is_flag=True, help="End with 1 when they differ.")
@output_option()
@no_color_option
@cluster_options
def diff(
    name: str,
    revision: str,
    other: str,
    exit_code: bool,
    output: str,
    no_color: bool,
    target: Target,
) -> None:
    """Show what differs between two revisions: the inputs, the pinned pod template and its files.

    REV1 and REV2 are hashes or the beginning of one, numbers of `mooring history`, or the words
    stable, previous and newest. Without REV2: from the stable revision to REV1, and from the
    previous to the stable one when REV1 is stable itself. A revision's own name is written as
    <revision>.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.output import console, data
    from mooring.cli.records import choose, read_records

    records = read_records(connect(target), name)
    first = choose(records, revision, name)
    old, new = (first, choose(records, other, name)) if other else (_base(first, records), first)
    if output != "text":
        found = changes(old, new)
        value = {"from": old.revision, "to": new.revision, "changes": found}
        click.echo(data(value, output), nl=False)
        differ = bool(found)
    else:
        out = console(no_color)
        lines = list(unified(old, new))
        for line in lines:
            out.print(_coloured(line), soft_wrap=True)
        if not lines:
            click.echo(f"{old.revision} and {new.revision} do not differ.", err=True)
        differ = bool(lines)
    sys.exit(FAILED if exit_code and differ else DONE)


def _base(record: Record, records: Sequence[Record]) -> Record:
    """What a revision is compared with when nothing else is asked for."""
    from mooring.cli.records import previous_of, stable_of

    stable = stable_of(records)
    base = previous_of(records) if stable is None or stable is record else stable
    if base is None:
        raise Failure("there is no earlier stable revision to compare with: name one", NOT_FOUND)
    return base


def unified(old: Record, new: Record) -> Iterator[str]:
    """The lines of a unified diff, part by part; none where nothing differs."""
    for part, title in _PARTS.items():
        before, after = _text(old, part), _text(new, part)
        yield from difflib.unified_diff(
            before,
            after,
            fromfile=f"{old.revision} ({old.sequence})  {title}",
            tofile=f"{new.revision} ({new.sequence})  {title}",
            lineterm="",
        )


def changes(old: Record, new: Record) -> list[Json]:
    """Every leaf that differs: its path from the record's data, and both values (null: absent)."""
    found: list[Json] = []
    for part in _PARTS:
        before = _leaves(_own(old.data.get(part), old.revision), part)
        after = _leaves(_own(new.data.get(part), new.revision), part)
        found += [
            {"path": path, "from": before.get(path), "to": after.get(path)}
            for path in sorted({*before, *after})
            if before.get(path) != after.get(path)
        ]
    return found


def _text(record: Record, part: str) -> list[str]:
    import yaml

    value = _own(record.data.get(part), record.revision)
    if not value:
        return []
    if part == "config":
        return [line for key in sorted(value) for line in (f"{key}:", *value[key].splitlines())]
    return yaml.safe_dump(value, allow_unicode=True, width=10_000).splitlines()


def _own(value: Any, revision: str) -> Any:
    """The value with the revision's own name replaced wherever it stands."""
    if isinstance(value, dict):
        return {_own(k, revision): _own(v, revision) for k, v in value.items()}
    if isinstance(value, list):
        return [_own(item, revision) for item in value]
    return value.replace(revision, _OWN_NAME) if isinstance(value, str) else value


def _leaves(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_leaves(item, f"{path}.{key}") for key, item in value.items()]
    elif isinstance(value, list) and value:
        parts = [_leaves(item, f"{path}[{index}]") for index, item in enumerate(value)]
    else:
        return {} if value is None else {path: value}
    return {key: leaf for part in parts for key, leaf in part.items()}


def _coloured(line: str) -> Text:
    from rich.text import Text

    from mooring.cli.words import visible

    styles = {"---": "bold", "+++": "bold", "@@ ": "cyan"}
    style = styles.get(line[:3]) or {"-": "red", "+": "green"}.get(line[:1], "")
    # Others wrote these lines: none of them may move the cursor.
    return Text("\t".join(visible(part) for part in line.split("\t")), style)
