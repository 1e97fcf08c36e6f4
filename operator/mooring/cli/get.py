"""``mooring get``: one ModelDeployment as a tree, once or for as long as somebody watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mooring.cli.failure import NOT_FOUND, Failure
from mooring.cli.options import cluster_options, name_argument, no_color_option, output_option

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from mooring.cli.cluster import Cluster, Target
    from mooring.cli.snapshot import Snapshot
    from mooring.cli.watching import Follower

_TICK_SECONDS = 1.0


@click.command()
@name_argument
@click.option("-w", "--watch", is_flag=True, help="Stay and show every change, until Ctrl-C.")
@output_option()
@no_color_option
@cluster_options
def get(name: str, watch: bool, output: str, no_color: bool, target: Target) -> None:
    """Show one ModelDeployment as a tree: revisions, their pods, the rollout and its routers.

    With -w the tree is drawn anew at every change and counts down; where the output is no terminal,
    a line is printed for every change, and with -o json one document a line.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.output import console, data
    from mooring.cli.snapshot import as_data, read

    cluster = connect(target)
    if watch:
        try:
            _watch(cluster, name, output, no_color)
        except KeyboardInterrupt:
            return  # the way in which a watch ends
    snapshot = read(cluster, name)
    if output != "text":
        click.echo(data(as_data(snapshot), output), nl=False)
        return
    out = console(no_color)
    out.print(_drawing(snapshot, out))


def _watch(cluster: Cluster, name: str, output: str, no_color: bool) -> None:
    from mooring.cli.output import console
    from mooring.cli.watching import Follower

    with Follower(cluster, name) as follower:
        # The threads list at once; a tree without its pods is not worth showing before that.
        follower.wait(_TICK_SECONDS)
        if output != "text":
            _print_data(follower, output)
        elif sys.stdout.isatty():
            _draw(follower, console(no_color))
        else:
            _print_lines(follower)
    raise Failure(f"ModelDeployment {name} was deleted", NOT_FOUND)


def _draw(follower: Follower, out: Console) -> None:
    from rich.live import Live

    last = _screen(follower, out)
    shown = out.render_lines(last)
    with Live(last, console=out, auto_refresh=False, transient=True) as live:
        try:
            live.refresh()
            while follower.resource is not None:
                last = _screen(follower, out)
                lines = out.render_lines(last)
                if lines != shown:  # what is redrawn without need flickers without need
                    shown = lines
                    live.update(last, refresh=True)
                follower.wait(_TICK_SECONDS)
        except KeyboardInterrupt:
            live.stop()
            snapshot = follower.snapshot
            if snapshot is not None:  # the last state stays, as whole as without -w
                out.print(_drawing(snapshot, out))
            raise


def _screen(follower: Follower, out: Console) -> RenderableType:
    """The tree with as many pods as there are rows for, and a note while the connection is down."""
    from rich.console import Group
    from rich.text import Text

    from mooring.cli.view import PODS_SHOWN

    snapshot = follower.snapshot
    if snapshot is None:
        return Text("it was deleted")
    lost = Text(f"connection lost, trying again: {follower.lost}", "yellow")
    note = [lost] if follower.lost else []
    for pods in PODS_SHOWN:
        found = Group(_drawing(snapshot, out, pods), *note)
        if len(out.render_lines(found)) < out.height:
            break
    return found


def _print_lines(follower: Follower) -> None:
    from mooring.cli.line import line

    shown, lost = "", ""
    for snapshot in _changes(follower):
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if follower.lost != lost:
            lost = follower.lost
            click.echo(f"{now} connection lost: {lost}" if lost else f"{now} connected again")
        text = line(snapshot)
        if text != shown:
            shown = text
            click.echo(f"{now} {text}")


def _print_data(follower: Follower, output: str) -> None:
    from mooring.cli.output import data
    from mooring.cli.snapshot import as_data

    shown = None
    for snapshot in _changes(follower):
        value = as_data(snapshot)
        if value != shown:
            shown = value
            text = data(value, "yaml") if output == "yaml" else json.dumps(value) + "\n"
            click.echo(("---\n" if output == "yaml" else "") + text, nl=False)


def _changes(follower: Follower) -> Iterator[Snapshot]:
    """The state now and after everything that happens, until the ModelDeployment is gone."""
    while (snapshot := follower.snapshot) is not None:
        yield snapshot
        while not follower.wait(_TICK_SECONDS):
            pass


def _drawing(snapshot: Snapshot, out: Console, pods: int | None = None) -> RenderableType:
    from mooring.cli.view import PODS_SHOWN, Scene, tree

    return tree(Scene(snapshot, datetime.now(UTC), out.width, pods or PODS_SHOWN[0]))
