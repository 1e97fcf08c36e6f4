"""Model stores for tests that are neither S3 nor a web server: registries, Google's, Azure's.

Each runs on loopback for as long as its owner, keeps what it holds in memory or a folder, and is
pinned like every other tool: fake-gcs-server and the registry by a go.mod, Azurite by a
package-lock.json. MLflow has a module of its own.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring_dev import processes
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until
from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root, tools_root
from mooring_dev.ports import claim
from mooring_dev.processes import Program
from mooring_dev.steps import run_logged

AZURE_ACCOUNT = "mooringdev"
_READY_SECONDS = 30.0
_AZURITE = "node_modules/azurite/dist/src/blob/main.js"


@dataclass(frozen=True)
class GcsServer:
    """A running fake-gcs-server. It asks for no credentials: it has no notion of them."""

    endpoint: str


@dataclass(frozen=True)
class AzureServer:
    """A running Azurite with one account. ``endpoint`` holds the account, as Azurite has it."""

    endpoint: str
    account: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """Keys of a Secret by which the account is reached with its key."""
        return {
            "AZURE_STORAGE_ACCOUNT": self.account,
            "AZURE_STORAGE_KEY": self.key,
            "AZURE_STORAGE_BLOB_ENDPOINT": self.endpoint,
        }


@dataclass(frozen=True)
class Registry:
    """A running registry of the distribution project. ``data`` is where its blobs lie."""

    host: str
    data: Path

    def blob(self, digest: str) -> Path:
        """The file that holds a blob, for tests that damage it."""
        hexadecimal = digest.removeprefix("sha256:")
        folder = self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal
        return folder / "data"


@contextmanager
def registry_server(directory: Path, auth: str = "") -> Iterator[Registry]:
    """Run a registry that keeps everything in ``directory``.

    Args:
        directory: made if missing.
        auth: lines of its configuration below ``auth:``, indented by two; empty lets everybody in.

    Raises:
        DevError: it cannot be built or does not start; the message names its log.
    """
    binary = str(ensure("registry"))
    data = directory.absolute() / "data"
    data.mkdir(parents=True, exist_ok=True)
    configuration = data.parent / "config.yml"

    def command(port: int) -> tuple[str, ...]:
        text = (
            "version: 0.1\n"
            "log: {level: warn}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: mooring-dev}}\n"
            "storage:\n"
            f"  filesystem: {{rootdirectory: '{data}'}}\n"
            "  delete: {enabled: true}\n"
        )
        configuration.write_text(text + (f"auth:\n{auth}\n" if auth else ""))
        return (binary, "serve", str(configuration))

    with running("registry", command, directory, (("OTEL_TRACES_EXPORTER", "none"),)) as endpoint:
        yield Registry(endpoint.removeprefix("http://"), data)


@contextmanager
def gcs_server(directory: Path) -> Iterator[GcsServer]:
    """Run fake-gcs-server with its log in ``directory``, its objects in memory.

    Raises:
        DevError: it cannot be built or does not start; the message names its log.
    """
    binary = str(ensure("fake-gcs-server"))
    with running(
        "fake-gcs-server",
        lambda port: (
            binary,
            "-scheme=http",
            "-host=127.0.0.1",
            f"-port={port}",
            "-backend=memory",
            f"-public-host=127.0.0.1:{port}",
        ),
        directory,
    ) as endpoint:
        yield GcsServer(endpoint)


@contextmanager
def azure_server(directory: Path) -> Iterator[AzureServer]:
    """Run Azurite with its log in ``directory`` and an account with a key of its own.

    Raises:
        DevError: Node.js is missing, or it cannot be installed, or does not start.
    """
    node = shutil.which("node")
    if node is None:
        raise DevError("Azurite needs Node.js 18 or later, and there is no `node` on PATH.")
    program = str(_azurite())
    key = base64.b64encode(secrets.token_bytes(48)).decode()
    with running(
        "azurite",
        lambda port: (
            node,
            program,
            "--blobHost=127.0.0.1",
            f"--blobPort={port}",
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--silent",
        ),
        directory,
        (("AZURITE_ACCOUNTS", f"{AZURE_ACCOUNT}:{key}"),),
    ) as endpoint:
        yield AzureServer(f"{endpoint}/{AZURE_ACCOUNT}", AZURE_ACCOUNT, key)


def _azurite() -> Path:
    """Azurite's program, installed first when it is not in the cache."""
    source = tools_root() / "azurite"
    lock = source / "package-lock.json"
    target = cache_root() / "npm" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    with exclusive(target.with_name(f"{target.name}.lock"), "installing azurite"):
        if not (target / _AZURITE).exists():
            npm = shutil.which("npm")
            if npm is None:
                raise DevError("Azurite is installed by npm, and there is none on PATH.")
            staging = target.with_name(f"{target.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(source, staging)
            run_logged(
                "Installing Azurite",
                [npm, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"],
                cache_root() / "logs" / "azurite.log",
                cwd=staging,
                env={**os.environ, "npm_config_update_notifier": "false"},
            )
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
    return target / _AZURITE


@contextmanager
def running(
    name: str,
    command: Callable[[int], tuple[str, ...]],
    directory: Path,
    environment: tuple[tuple[str, str], ...] = (),
    seconds: float = _READY_SECONDS,
) -> Iterator[str]:
    """Run a server on a free port until the block ends; gives its address, once it answers."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    held = claim(1)
    port = held.ports[0]
    program = Program(name, command(port), directory, with_owner=True, environment=environment)
    try:
        processes.start(program)
        wait_until(
            f"{name} answers (log: {program.log})",
            lambda: _answers(port),
            timeout=seconds,
            check=lambda: processes.require_alive(program),
        )
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop(program.pid_file, grace=1.0)
        held.release()


def _answers(port: int) -> bool:
    """Whether it speaks HTTP, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
