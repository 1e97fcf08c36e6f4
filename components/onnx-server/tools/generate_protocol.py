"""Generates the gRPC messages of the Open Inference Protocol from `proto/open_inference.proto`.

    python tools/generate_protocol.py            write them
    python tools/generate_protocol.py --check    say whether they are what would be written

Needs the package grpcio-tools. The messages are checked in, so that neither an image nor an
installation needs a compiler: once for the server, and once for `mooring probe`, which is
installed without the server. Only messages are generated: the service is a table of six methods
(`grpc_service.py`).
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
PROTO = COMPONENT / "proto" / "open_inference.proto"
FOLDERS = (
    COMPONENT / "mooring_onnx_server",
    COMPONENT.parent.parent / "operator" / "mooring" / "cli",
)


def generate() -> Mapping[str, str]:
    """File name to content of what is to be checked in.

    Raises:
        click.ClickException: the compiler refused the file; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            f"--proto_path={PROTO.parent}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            PROTO.name,
        ]
        if protoc.main(arguments) != 0:
            raise click.ClickException(f"{PROTO.name} was not taken")
        return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if something would change.")
def main(check: bool) -> None:
    """Write the generated messages to where they are imported from."""
    stale = []
    for name, content in generate().items():
        for folder in FOLDERS:
            path = folder / name
            if path.exists() and path.read_text() == content:
                continue
            stale.append(path)
            if not check:
                path.write_text(content)
    for path in stale:
        click.echo(f"{path.name} in {path.parent.name} {'is stale' if check else 'is written'}")
    if check and stale:
        click.echo("Mend it with: python components/onnx-server/tools/generate_protocol.py")
        sys.exit(1)


if __name__ == "__main__":
    main()
