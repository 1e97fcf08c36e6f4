"""The base image of a machine that pulls no public images.

It holds Debian 12 with Python, and what this machine needs to reach its package registries:
its certificates and pip's settings. So the Dockerfiles know nothing of either, and stay the ones
that anybody builds upon python:3.12-slim-bookworm.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from mooring_dev.images_catalog import REPOSITORY
from mooring_dev.steps import run_logged

REFERENCE = "mooring.dev/base:dev"
FOLDER = REPOSITORY / "dev" / "base-image"

_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Of pip's settings only those that say how to reach a registry: paths such as find-links mean
# nothing inside an image.
_PIP_KEYS = frozenset({"index-url", "extra-index-url", "trusted-host", "proxy", "timeout"})


def ca_bundle() -> Path:
    """The certificates that this machine trusts: ``$SSL_CERT_FILE`` or Debian's bundle."""
    chosen = os.environ.get("SSL_CERT_FILE")
    if chosen and Path(chosen).is_file():
        return Path(chosen)
    return _SYSTEM_BUNDLE


def pip_settings() -> str:
    """Text of a pip.conf that reaches the registries this machine's pip reaches."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    return pip_conf(listed)


def pip_conf(listed: str) -> str:
    """Turn the output of ``pip config list`` into the pip.conf of the image."""
    chosen: dict[str, str] = {}
    for line in listed.splitlines():
        name, separator, quoted = line.partition("=")
        key = name.rpartition(".")[2].strip()
        if separator and key in _PIP_KEYS:
            # pip prints the repr of a string in which line breaks part several values.
            value = quoted.strip().strip("'\"").replace("\\n", "\n").strip()
            chosen[key] = value.replace("\n", "\n    ")
    chosen["cert"] = str(_SYSTEM_BUNDLE)
    chosen["disable-pip-version-check"] = "true"
    lines = [f"{key} = {value}" for key, value in sorted(chosen.items())]
    return "\n".join(["[global]", *lines, ""])


def base_key() -> str:
    """Twelve hex digits that name the content of the base image."""
    digest = hashlib.sha256()
    for path in sorted(path for path in FOLDER.iterdir() if path.suffix != ".md"):
        digest.update(path.name.encode() + b"\n" + path.read_bytes())
    digest.update(ca_bundle().read_bytes() if ca_bundle().is_file() else b"")
    digest.update(pip_settings().encode())
    return digest.hexdigest()[:12]


def make_rootfs(output: Path, log: Path) -> None:
    """Write the root file system as a tar to ``output``, whole or not at all.

    Raises:
        DevError: mmdebstrap failed; the message names ``log``.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial.tar")
    settings = output.with_suffix(".pip.conf")
    settings.write_text(pip_settings())
    command = ["bash", str(FOLDER / "make-rootfs.sh"), str(partial), str(ca_bundle())]
    run_logged(
        "Making the base image's file system (about a minute)",
        [*command, str(settings)],
        log,
        hint="It needs Debian's package mirror: see that apt-get update works.",
    )
    settings.unlink()
    partial.rename(output)
