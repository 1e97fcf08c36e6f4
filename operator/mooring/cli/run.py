"""``mooring run``: the operator process, as the chart starts it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import click

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file; without one the defaults hold.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False),
    help="Where the cluster is; by default the pod's service account or the user's own file.",
)
@click.option(
    "--elect/--no-elect",
    default=True,
    show_default=True,
    help="Work only while holding the Lease, so that a standby can take over.",
)
@click.option("--verbose", is_flag=True, help="Log every round, and what kopf does.")
def run(config: Path | None, kubeconfig: str | None, *, elect: bool, verbose: bool) -> None:
    """Run the operator until it is told to stop.

    Exit codes: 0 stopped by a signal, 1 the lease was lost or a part of it failed, 2 wrong
    settings.
    """
    # Imported here, so that the other commands start without the operator's own dependencies.
    from mooring.engine.lease import LeaseLost
    from mooring.process import run as run_process
    from mooring.settings import SettingsError, load

    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=_FORMAT)
    for noisy in ("kopf", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        settings = load(config)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--config") from error
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run_process(settings, kubeconfig, elect=elect))
    except LeaseLost as error:  # only here, where the loop has closed: see Process._lead
        raise SystemExit(str(error)) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: the same behaviour for less CPU."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
