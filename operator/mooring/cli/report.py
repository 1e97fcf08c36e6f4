"""``mooring report``: how the data stands, as one page that needs nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mooring.cli.options import cluster_options, name_argument

if TYPE_CHECKING:
    from mooring.cli.cluster import Target


@click.command()
@name_argument
@click.option(
    "-f",
    "--file",
    default="",
    metavar="FILE",
    help="Where to write it; - is standard output. By default NAME-report.html.",
)
@cluster_options
def report(name: str, file: str, target: Target) -> None:
    """Write how a ModelDeployment's data stands as one HTML page.

    The page holds its plots and styles, loads nothing and runs no script, so it can be mailed and
    kept. It names features and categories, and holds no row.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.drift_page import page
    from mooring.cli.drift_picture import picture
    from mooring.cli.failure import Failure

    text = page(picture(connect(target), name), datetime.now(UTC))
    if file == "-":
        click.echo(text, nl=False)
        return
    path = Path(file or f"{name}-report.html")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error
    click.echo(str(path))
