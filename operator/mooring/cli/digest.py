"""``mooring digest``: the digest to write into spec.model.digest.

The algorithm is not here. It lives in the fetcher's package (``mooring_fetcher.digest``), which
verifies it in every pod, and this command imports that: were it written twice, the two would one
day disagree, and were it written here, the fetcher's image would have to carry the operator. The
fetcher is installed with ``mooring-operator[cli]`` and is imported only when the command runs, so
the operator's image does without it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from mooring_fetcher.digest import ModelDigest

#: Somebody sits before it: a pod waits two minutes for a store that is away.
_PATIENCE_SECONDS = 15.0


@click.command()
@click.argument("subject", metavar="PATH|URI")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--credentials-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with one file per key, as the Secret of a ModelDeployment has them.",
)
@click.option("--allow-http", is_flag=True, help="Allow plain http:// URIs.")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR is respected, too).")
def digest(
    subject: str, output: str, credentials_dir: Path | None, allow_http: bool, no_color: bool
) -> None:
    """Print the digest of a model, as the fetcher verifies it.

    A file has the sha256 of its bytes; so has an archive, before unpacking. A folder or prefix has
    the sha256 over its sorted (path, size, sha256). PATH is a local file or folder; URI is what
    spec.model.uri takes (not pvc or file), read as a stream and not stored; of oci:// it is the
    manifest's digest, and nothing else is read. For s3 the credentials are those of
    --credentials-dir, or else of the environment and profile, as the aws command has them.

    Exit codes: 0 printed; 1 could not be read for now; 3 there is no such model, or it may not be
    read.
    """
    console = Console(stderr=True, no_color=no_color or None, highlight=False)
    try:
        from mooring_fetcher.failure import EXIT_PERMANENT
    except ModuleNotFoundError:
        console.print(
            "mooring digest needs the fetcher: install it beside Mooring (docs/install.md)."
        )
        sys.exit(1)
    from mooring_fetcher.failure import EXIT_TRANSIENT, PermanentFailure, TransientFailure, sentence

    try:
        found = _digest(subject, credentials_dir, allow_http, console)
    except (PermanentFailure, TransientFailure) as failure:
        console.print(sentence(str(failure)), style="red", markup=False, soft_wrap=True)
        sys.exit(EXIT_PERMANENT if isinstance(failure, PermanentFailure) else EXIT_TRANSIENT)
    if output == "json":
        click.echo(json.dumps({"digest": found.digest, "bytes": found.size, "files": found.files}))
    else:
        click.echo(found.digest)


def _digest(
    subject: str, credentials_dir: Path | None, allow_http: bool, console: Console
) -> ModelDigest:
    from mooring_fetcher.credentials import read_credentials
    from mooring_fetcher.digest import digest_path
    from mooring_fetcher.failure import PermanentFailure, sentence
    from mooring_fetcher.fetch import Run, digest_uri
    from mooring_fetcher.patience import Patience, RetryPolicy

    if subject.startswith("http://") and not allow_http:
        raise PermanentFailure(
            f"{subject} is plain http, which anyone on the way can change, and which no "
            "ModelDeployment loads from: use https, or --allow-http to read it all the same."
        )
    if subject.startswith("file://"):
        subject = subject.removeprefix("file://")
    if "://" not in subject:
        return digest_path(Path(subject))
    credentials = read_credentials(credentials_dir)

    def say(line: str) -> None:
        # Progress is for whoever watches; a pipe gets the digest alone.
        if console.is_terminal:
            console.print(sentence(line, credentials.secrets), style="dim", markup=False)

    policy = RetryPolicy(without_progress=_PATIENCE_SECONDS)
    patience = Patience(policy, say=say, after="")
    run = Run(patience=patience, credentials=credentials, say=say)
    return digest_uri(subject, run, allow_http=allow_http)
