"""The command line: `mooring-collector`."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import click

from mooring_collector import __version__
from mooring_collector.errors import ConfigurationError
from mooring_collector.process import Places, run
from mooring_collector.settings import Bounds

EXIT_CANNOT_COLLECT = 1
_USUAL = Bounds()
_PORT = click.IntRange(0, 65535)
_POSITIVE = click.IntRange(min=1)


@click.command(
    context_settings={"auto_envvar_prefix": "MOORING_COLLECTOR", "show_default": True},
    epilog="Every flag can be set by the environment: MOORING_COLLECTOR_ and its name. Exit codes: "
    "0 stopped by a signal, 1 the configuration cannot be used (the last line of stderr says why), "
    "2 wrong flags.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), default=Path("/etc/mooring/collector.json")
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    default=Path("/etc/mooring/reference/reference.json"),
)
@click.option("--host", default="", help="Address to listen on; empty for all.")
@click.option("--grpc-port", type=_PORT, default=9001, help="For the routers' copies.")
@click.option("--http-port", type=_PORT, default=8080, help="For metrics and feedback.")
@click.option("--max-body-bytes", type=_POSITIVE, default=_USUAL.body_bytes)
@click.option("--max-held-bytes", type=_POSITIVE, default=_USUAL.held_bytes)
@click.option("--max-exchanges", type=_POSITIVE, default=_USUAL.exchanges)
@click.version_option(__version__)
def main(
    config: Path,
    reference: Path,
    host: str,
    grpc_port: int,
    http_port: int,
    **bounds: int,
) -> None:
    """Count what a model is asked and what it answers, from a router's copies."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    stated = {name.removeprefix("max_"): value for name, value in bounds.items()}
    try:
        run(Places(config, reference, host, grpc_port, http_port), replace(_USUAL, **stated))
    except ConfigurationError as error:
        click.echo(f"the collector cannot start: {error}", err=True)
        sys.exit(EXIT_CANNOT_COLLECT)
