"""The kind provider: thin, for machines on which a container engine runs privileged containers.

An engine alone is not enough: kind's nodes are privileged, and a machine that is itself confined
refuses them. So that is tried first, and said in one sentence.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mooring_dev import oci
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError
from mooring_dev.packages import ensure_program
from mooring_dev.paths import cache_root
from mooring_dev.steps import run_logged

_PROBE_IMAGE = "mooring.dev/probe:dev"
_WAY_OUT = "Use `--provider local` (Linux, root), or `--provider existing` with KUBECONFIG."


def probe() -> None:
    """Run a privileged container, and raise a DevError that says why if that does not work."""
    docker = shutil.which("docker")
    if docker is None:
        raise DevError(
            f"Provider kind needs a container engine; there is no `docker` command. {_WAY_OUT}"
        )
    answer = _run(docker, "info", "--format", "{{.ServerVersion}}")
    if answer.returncode != 0:
        raise DevError(
            f"Provider kind needs a running container engine: {_last_line(answer)} {_WAY_OUT}"
        )
    archive = cache_root() / "probe.tar"
    busybox = ensure_program("busybox", "busybox-static")
    files = {"/bin/true": oci.File(Path(busybox).read_bytes(), 0o755)}
    oci.write_image(archive, _PROBE_IMAGE, files, entrypoint=("/bin/true",), user="0:0")
    loaded = _run(docker, "load", "--input", str(archive))
    if loaded.returncode != 0:
        raise DevError(f"The engine does not load an OCI image: {_last_line(loaded)} {_WAY_OUT}")
    done = _run(docker, "run", "--rm", "--privileged", "--network=none", _PROBE_IMAGE)
    if done.returncode != 0:
        raise DevError(
            "This machine does not run privileged containers, which kind's nodes are: "
            f"{_last_line(done)} {_WAY_OUT}"
        )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return (lines[-1].strip().rstrip(".?") if lines else f"exit code {done.returncode}") + "."


def up(name: str, kubeconfig: Path) -> None:
    """Make kind cluster ``name``, unless it is there, and write its kubeconfig.

    Raises:
        DevError: no privileged container runs here, or kind failed; the message names its log.
    """
    kind = str(ensure("kind"))
    if name not in _run(kind, "get", "clusters").stdout.split():
        probe()
        command = [kind, "create", "cluster", "--name", name, "--wait", "180s"]
        run_logged(
            f"Creating kind cluster {name}",
            [*command, "--kubeconfig", str(kubeconfig)],
            cache_root() / "logs" / f"kind-{name}.log",
        )
    elif not kubeconfig.exists():
        command = [kind, "export", "kubeconfig", "--name", name, "--kubeconfig", str(kubeconfig)]
        run_logged(f"Reading the kubeconfig of {name}", command, cache_root() / "logs" / "kind.log")


def import_image(name: str, archive: Path) -> None:
    """Load the images of a tar into the node of kind cluster ``name``."""
    command = [str(ensure("kind")), "load", "image-archive", str(archive), "--name", name]
    run_logged(f"Loading {archive.name}", command, cache_root() / "logs" / f"kind-{name}.log")


def down(name: str, kubeconfig: Path) -> None:
    """Delete kind cluster ``name``, if there is one."""
    kind = ensure("kind")
    if name in _run(str(kind), "get", "clusters").stdout.split():
        command = [str(kind), "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)]
        run_logged(
            f"Deleting kind cluster {name}", command, cache_root() / "logs" / f"kind-{name}.log"
        )
