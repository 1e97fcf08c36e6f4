"""``mooring replay``: what the judge would have done, over what a Prometheus still knows."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.failure import DONE, FAILED, TIMEOUT
from mooring.cli.options import Duration, cluster_options, no_color_option, output_option
from mooring.cli.progress import progress_bar
from mooring.cli.replay_subject import When

if TYPE_CHECKING:
    from mooring.adapters.prometheus_access import Access
    from mooring.cli.cluster import Target
    from mooring.core.router_counters import ScrapeLabels

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False)
@click.option("-f", "--filename", type=_FILE, help="A ModelDeployment in a file, for its spec.")
@click.option("--prometheus", "url", required=True, metavar="URL", help="Up to /api/v1.")
@click.option("--candidate", metavar="REVISION", help="Default: what status says.")
@click.option("--stable", metavar="REVISION", help="Default: what status says.")
@click.option(
    "--start", type=When(), metavar="TIME", help="RFC 3339, or how long ago. Default: the "
    "candidate's beginning, else 1h before the end.",
)  # fmt: skip
@click.option("--end", type=When(), metavar="TIME", help="The same. Default: now.")
@click.option(
    "--tick", type=Duration(), default="10s", show_default=True, help="Time between two looks."
)
@click.option(
    "--weights", metavar="WEIGHT=TIME,...", help="Weights in percent and how long each "
    "lasted, from the start. Default: the share of the attempts that the routers counted.",
)  # fmt: skip
@click.option("--bearer-token-file", type=_FILE, help="Holds a token for Prometheus.")
@click.option("--username", help="For Prometheus, with --password-file.")
@click.option("--password-file", type=_FILE)
@click.option("--ca-file", type=_FILE, help="The authority that signed Prometheus' certificate.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Such as X-Scope-OrgID=team-a."
)
@click.option("--namespace-label", default="namespace", show_default=True, metavar="LABEL")
@click.option("--pod-label", default="pod", show_default=True, metavar="LABEL")
@click.option("--timeout", type=Duration(), default="10s", show_default=True, help="For one query.")
@output_option()
@no_color_option
@cluster_options
def replay(
    *,
    name: str | None,
    filename: Path | None,
    candidate: str | None,
    stable: str | None,
    start: datetime | timedelta | None,
    end: datetime | timedelta | None,
    tick: timedelta,
    weights: str | None,
    namespace_label: str,
    pod_label: str,
    output: str,
    no_color: bool,
    target: Target,
    **access: Any,
) -> None:
    """Say what the judge would have done, over counters that Prometheus still has.

    Reads the routers' counters look by look, as the operator does, and judges one revision against
    another by spec.analysis: of a ModelDeployment in the cluster (NAME), or in a file (-f), so that
    other limits can be tried on the same traffic. What routers do not count is not seen: restarts
    of pods, and bursts from before.

    Exit codes: 0 it passes at the end; 1 it fails, and would have been rolled back; 2 wrong usage,
    or nothing to judge by; 3 neither; 5 Prometheus gives no answer; 7 it has no counters of these
    revisions.
    """
    from mooring.cli.output import console, data
    from mooring.cli.replay_run import play
    from mooring.cli.replay_subject import from_cluster, from_file, period, standard_of
    from mooring.cli.replay_view import as_data, show

    reached, labels = _access(access, namespace_label, pod_label)
    if filename is not None and name is None:
        asked = from_file(filename, target, candidate, stable)
    elif name is not None and filename is None:
        asked = from_cluster(target, name, candidate, stable)
    else:
        raise click.UsageError("give the NAME of a ModelDeployment or -f FILE")
    when = period(asked.since, start, end, tick, weights)
    held_to = standard_of(asked, tick, labels)
    with progress_bar("Replaying", output == "text") as progress:
        played = asyncio.run(play(asked, when, held_to, reached, labels, progress))
    if output != "text":
        click.echo(data(as_data(played), output), nl=False)
    else:
        show(played, console(no_color))
    sys.exit({"Pass": DONE, "Fail": FAILED}.get(played.verdict, TIMEOUT))


def _access(
    given: dict[str, Any], namespace_label: str, pod_label: str
) -> tuple[Access, ScrapeLabels]:
    """The same checks as of the operator's settings, whose words they are refused with."""
    from pydantic import ValidationError

    from mooring.cli.replay_run import AT_ONCE
    from mooring.settings import Prometheus as Settings

    headers = dict(text.partition("=")[::2] for text in given["headers"])
    raw: dict[str, Any] = {
        "url": given["url"],
        "timeout": given["timeout"],
        "headers": headers,
        "labels": {"namespace": namespace_label, "pod": pod_label},
        "concurrency": AT_ONCE,
    }
    if given["bearer_token_file"]:
        raw["bearerTokenFile"] = str(given["bearer_token_file"].absolute())
    if given["username"] or given["password_file"]:
        file = given["password_file"]
        raw["basicAuth"] = {
            "username": given["username"],
            "passwordFile": str(file.absolute()) if file else None,
        }
    if given["ca_file"]:
        raw["tls"] = {"caFile": str(given["ca_file"].absolute())}
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise click.UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    access = settings.access()
    if access is None:
        raise click.UsageError("--prometheus is empty")
    return access, settings.scrape_labels()
