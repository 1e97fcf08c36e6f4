"""Generates the messages of `proto/external_processing.proto`.

    python tools/generate_messages.py            write them
    python tools/generate_messages.py --check    say whether they are what would be written

Needs the package grpcio-tools. The messages are checked in, so that the image needs no compiler.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import click
from grpc_tools import protoc  # type: ignore[import-untyped]

COMPONENT = Path(__file__).resolve().parent.parent
PROTO = COMPONENT / "proto" / "external_processing.proto"
FOLDER = COMPONENT / "mooring_collector"


def generate() -> Mapping[str, str]:
    """File name to content of what is to be checked in.

    Raises:
        click.ClickException: the compiler refused the file; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = (PROTO.parent, files("grpc_tools") / "_proto")
        arguments = ["protoc", *(f"--proto_path={path}" for path in paths)]
        arguments += [f"--python_out={folder}", f"--pyi_out={folder}", PROTO.name]
        if protoc.main(arguments) != 0:
            raise click.ClickException(f"{PROTO.name} was not taken")
        return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if something would change.")
def main(check: bool) -> None:
    """Write the generated messages to where they are imported from."""
    stale = False
    for name, content in generate().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == content:
            continue
        stale = True
        if not check:
            path.write_text(content)
        click.echo(f"{name} {'is stale' if check else 'is written'}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
