"""``mooring``, and the same as ``kubectl mooring``: the command line."""

from __future__ import annotations

import click

from mooring import __version__
from mooring.cli.crds import crds
from mooring.cli.digest import digest
from mooring.cli.export import export
from mooring.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mooring")
def main() -> None:
    """Keeps machine-learning models from drifting: serve, roll out, watch, retrain.

    Most of it is done by kubectl alone; these commands add what kubectl cannot show.
    """


main.add_command(run)
main.add_command(export)
main.add_command(crds)
main.add_command(digest)
