"""``mooring probe``: does a running server speak the Open Inference Protocol v2?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mooring.cli.probe_points import Finding, Unreachable, tried

EXIT_DIFFERS = 1
EXIT_UNREACHABLE = 2
_STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


def _url(_: click.Context, __: click.Parameter, value: str) -> str:
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter("it must be like http://HOST:PORT")
    return parts.geturl()


def _input(_: click.Context, __: click.Parameter, value: Path | None) -> Any:
    if value is None:
        return None
    try:
        request = json.loads(value.read_bytes())
    except ValueError as error:
        raise click.BadParameter(f"{value} is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise click.BadParameter(f"{value} must be an object with a list 'inputs'")
    return request


@click.command()
@click.argument("url", callback=_url)
@click.option("--model", help="The model's name; without it only the server is asked.")
@click.option("--grpc", "address", metavar="HOST:PORT", help="Ask the same by gRPC as well.")
@click.option(
    "--input",
    "request",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_input,
    help="An inference request (JSON) to use over REST, where zeros are nothing for the model.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds for each answer.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR is respected, too).")
def probe(
    url: str,
    model: str | None,
    address: str | None,
    request: Any,
    timeout: float,
    output: str,
    no_color: bool,
) -> None:
    """Check a running server against the Open Inference Protocol v2, point by point.

    URL is where its REST paths begin, such as http://localhost:8080 (what kubectl port-forward
    gives). Asked are health, metadata and inference, with and without a version, with made-up data
    of the shapes that the metadata names; and that what is wrong is refused by a 4xx that says why.
    The server's state is not changed.

    Exit codes: 0 every point that was tried is as the protocol says; 1 some point is not; 2 nobody
    answers at the address, or the command was called wrongly.
    """
    findings: list[Finding] = []
    missing: str | None = None
    try:
        findings += _rest(url, model, timeout, request)
        if address is not None:
            findings += _grpc(address, model, timeout)
    except Unreachable as unreachable:
        missing = f"Nobody answers at {address if findings else url}: {unreachable}."
    counts = Counter(finding.result for finding in findings)
    if output == "json":
        results = {name: counts[name] for name in ("ok", "failed", "skipped")}
        points = [asdict(finding) for finding in findings]
        found = {"url": url, "grpc": address, "model": model, **results, "points": points}
        click.echo(json.dumps({**found, "unreachable": missing}, indent=2, ensure_ascii=False))
    elif findings:
        console = Console(no_color=no_color or None, highlight=False)
        console.print(_table(findings))
        summary = f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped"
        console.print(summary, style="red" if counts["failed"] else "green")
    if missing is not None:
        errors = Console(stderr=True, no_color=no_color or None, highlight=False)
        advice = f"{missing} See that the server runs, and that the address is right."
        errors.print(advice, style="red", markup=False, soft_wrap=True)
        sys.exit(EXIT_UNREACHABLE)
    sys.exit(EXIT_DIFFERS if counts["failed"] else 0)


def _rest(url: str, model: str | None, timeout: float, request: Any) -> list[Finding]:
    from mooring.cli.probe_rest import RestProbe

    return tried(RestProbe(url, model, timeout, request).points())


def _grpc(address: str, model: str | None, timeout: float) -> list[Finding]:
    try:
        from mooring.cli.probe_grpc import GrpcProbe
    except ModuleNotFoundError as error:
        raise click.ClickException(
            "--grpc needs gRPC: install Mooring with the extra `cli` (docs/install.md)."
        ) from error
    asking = GrpcProbe(address, model, timeout)
    try:
        return tried(asking.points())
    finally:
        asking.close()


def _table(findings: list[Finding]) -> Table:
    table = Table(show_lines=False)
    table.add_column("point")
    table.add_column("result")
    table.add_column("seen", overflow="fold")
    table.add_column("the protocol says", overflow="fold")
    for finding in findings:
        # Text, not markup: what a server sends is shown as it is.
        table.add_row(
            Text(finding.point),
            Text(finding.result, style=_STYLES[finding.result]),
            Text(finding.seen),
            Text(finding.expects, style="dim"),
        )
    return table
