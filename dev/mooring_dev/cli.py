"""Command line: ``python -m mooring_dev``.

Exit codes: 0 done; 1 something failed, with a message that says what to do; 2 wrong usage; 3 (only
``status``) it does not run.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import click
from rich.table import Table

from mooring_dev import binaries as binaries_
from mooring_dev import control_plane as control_plane_
from mooring_dev.errors import DevError
from mooring_dev.paths import state_root, valid_name
from mooring_dev.steps import console, no_colour, note

_LATER = {
    "cluster": "mooring_dev.cluster_cli:cluster",
    "prometheus": "mooring_dev.prometheus:prometheus",
    "images": "mooring_dev.images:images",
    "demo": "mooring_dev.demo:demo",
    "story": "mooring_dev.story:story",
}
"""Commands that are imported when they are used: each may need more than the others do."""


class _Commands(click.Group):
    """A group that imports the commands of ``_LATER`` on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _LATER.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            return None
        command = getattr(module, attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too).")
def cli(no_color: bool) -> None:
    """Local clusters, test control planes and everything they are made of.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 (status only) not running.
    """
    if no_color:
        no_colour()


@cli.command()
@click.argument("groups", nargs=-1, type=click.Choice([*binaries_.GROUPS]))
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def binaries(groups: tuple[str, ...], output: str) -> None:
    """Build what is missing of GROUPS (default: kubernetes) and print where it is."""
    found = {name: str(binaries_.ensure_group(name)) for name in groups or ("kubernetes",)}
    if output == "json":
        click.echo(json.dumps(found))
        return
    for name, directory in found.items():
        click.echo(f"{name}\t{directory}")


@cli.group("control-plane")
def control_plane() -> None:
    """An API server without nodes, for tests and experiments."""


def _directory(name: str) -> Path:
    return state_root() / "control-planes" / valid_name(name)


_name = click.option("--name", default="default", show_default=True, help="Which one.")


@control_plane.command("up")
@_name
@click.option("--controllers/--no-controllers", default=False, help="Garbage collector and such.")
def control_plane_up(name: str, controllers: bool) -> None:
    """Start it, unless it runs, and print the path of its kubeconfig."""
    directory = _directory(name)
    running = control_plane_.ControlPlane.attach(directory)
    plane = running or control_plane_.ControlPlane.start(
        directory, controller_manager=controllers, with_owner=False
    )
    note(f"Control plane {name} at {plane.server}. Use it by KUBECONFIG:")
    click.echo(plane.kubeconfig)


@control_plane.command("down")
@_name
def control_plane_down(name: str) -> None:
    """Stop it and remove its data."""
    control_plane_.down(_directory(name))
    note(f"Control plane {name} is gone.")


@control_plane.command("status")
@_name
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def control_plane_status(name: str, output: str) -> None:
    """Tell whether it runs, and where."""
    plane = control_plane_.ControlPlane.attach(_directory(name))
    facts = {
        "name": name,
        "running": plane is not None,
        "server": plane.server if plane else None,
        "kubeconfig": str(plane.kubeconfig) if plane else None,
    }
    if output == "json":
        click.echo(json.dumps(facts))
    else:
        table = Table(show_header=False, box=None)
        for key, value in facts.items():
            table.add_row(key, str(value))
        console().print(table)
    if plane is None:
        sys.exit(3)


def main() -> None:
    """Run the command line and turn a DevError into a message and exit code 1."""
    try:
        code = cli(prog_name="python -m mooring_dev", standalone_mode=False)
        if isinstance(code, int):
            sys.exit(code)
    except DevError as error:
        console().print(f"Error: {error}", style="red", markup=False)
        sys.exit(1)
    except click.Abort:
        note("Interrupted. The same command goes on from here.")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        note("Interrupted. The same command goes on from here.")
        sys.exit(130)
