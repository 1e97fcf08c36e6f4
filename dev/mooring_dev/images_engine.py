"""Two ways to build a Dockerfile: a Docker engine where one answers, else buildah.

buildah needs no daemon, no cgroup and no privileged container (``--isolation chroot``), so it
works as root on a plain Debian machine. Both write the same thing: a docker archive, which every
container runtime imports.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mooring_dev.errors import DevError
from mooring_dev.packages import install
from mooring_dev.steps import run_logged

_NAMING = frozenset({"manifest.json", "repositories"})


class Engine(Protocol):
    """Builds Dockerfiles into archives."""

    @property
    def needs_base(self) -> bool:
        """Whether BASE_IMAGE has to be made here, since nothing can be pulled."""

    def prepare(self, logs: Path) -> None:
        """Install what building needs, and mend what an interrupted build left behind."""

    def forget(self, log: Path) -> None:
        """Remove all layers: they stand upon a base image that is no longer used."""

    def build(
        self, title: str, context: Path, tag: str, log: Path, arguments: Sequence[str] = ()
    ) -> None:
        """Build ``context`` as ``tag``; ``arguments`` are NAME=VALUE build arguments."""

    def save(self, title: str, tags: Sequence[str], archive: Path, log: Path) -> None:
        """Write the image to ``archive`` under all its ``tags``, whole or not at all.

        It was built as the first of them.
        """


@dataclass(frozen=True)
class Docker:
    """The engine that the docker command line reaches; BASE_IMAGE is pulled."""

    needs_base: bool = False

    def prepare(self, logs: Path) -> None:
        """Docker is there, and cleans up after itself."""

    def forget(self, log: Path) -> None:
        """The layers in Docker's store are its owner's."""

    def build(
        self, title: str, context: Path, tag: str, log: Path, arguments: Sequence[str] = ()
    ) -> None:
        options = [word for argument in arguments for word in ("--build-arg", argument)]
        command = ["docker", "build", "--tag", tag, *options, str(context)]
        run_logged(title, command, log, hint="Is the base image within reach (docker pull)?")

    def save(self, title: str, tags: Sequence[str], archive: Path, log: Path) -> None:
        partial = archive.with_suffix(".partial")
        for tag in tags[1:]:
            run_logged(f"Naming {tag}", ["docker", "tag", tags[0], tag], log)
        run_logged(title, ["docker", "save", "--output", str(partial), *tags], log)
        partial.rename(archive)


@dataclass(frozen=True)
class Buildah:
    """buildah with a store of its own, so that nothing else on the machine is touched."""

    store: Path
    needs_base: bool = True

    def _command(self, *words: str) -> list[str]:
        places = ["--root", str(self.store / "root"), "--runroot", str(self.store / "run")]
        return ["buildah", *places, *words]

    def prepare(self, logs: Path) -> None:
        install(_missing, otherwise="run a Docker engine: images are built by it where it answers")
        # Working containers of a build that was killed would pile up, one file system each.
        if self.store.exists():
            run_logged(
                "Clearing unfinished builds", self._command("rm", "--all"), logs / "prepare.log"
            )

    def forget(self, log: Path) -> None:
        run_logged("Removing old layers", self._command("rmi", "--all", "--force"), log)

    def build(
        self, title: str, context: Path, tag: str, log: Path, arguments: Sequence[str] = ()
    ) -> None:
        options = [word for argument in arguments for word in ("--build-arg", argument)]
        command = self._command(
            "build",
            *("--isolation", "chroot", "--network", "host", "--layers", "--pull=never"),
            *("--format", "docker", "--tag", tag, *options, str(context)),
        )
        run_logged(title, command, log)

    def save(self, title: str, tags: Sequence[str], archive: Path, log: Path) -> None:
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        target = f"docker-archive:{partial}:{tags[0]}"
        run_logged(title, self._command("push", tags[0], target), log)
        name_archive(partial, tags)
        partial.rename(archive)


def name_archive(archive: Path, tags: Sequence[str]) -> None:
    """Give the one image in a docker archive the names ``tags``, in place.

    buildah writes one name per archive. The names stand in manifest.json, after the layers, so the
    archive is cut there and ended anew instead of copying hundreds of megabytes.

    Raises:
        DevError: the archive is laid out differently.
    """
    with tarfile.open(archive) as reading:
        members = reading.getmembers()
        names = [member.name for member in members]
        if "manifest.json" not in names or set(names[names.index("manifest.json") :]) - _NAMING:
            raise DevError(f"{archive} is not laid out as buildah does: {', '.join(names[-4:])}.")
        cut = members[names.index("manifest.json")]
        content = reading.extractfile(cut)
        assert content is not None
        manifest = json.load(content)
    manifest[0]["RepoTags"] = list(tags)
    data = json.dumps(manifest).encode()
    with archive.open("r+b") as stream:
        stream.truncate(cut.offset)
        stream.seek(cut.offset)
        with tarfile.open(fileobj=stream, mode="w") as writing:
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(data)
            writing.addfile(entry, io.BytesIO(data))


def choose_engine(store: Path) -> Engine:
    """The engine named by ``$MOORING_IMAGE_ENGINE``, or the best that works here.

    Raises:
        DevError: the variable names what there is not.
    """
    wanted = os.environ.get("MOORING_IMAGE_ENGINE", "")
    if wanted not in {"", "docker", "buildah"}:
        raise DevError(f"MOORING_IMAGE_ENGINE is {wanted!r}; it can be docker or buildah.")
    if wanted != "buildah" and _docker_answers():
        return Docker()
    if wanted == "docker":
        raise DevError("MOORING_IMAGE_ENGINE is docker, but `docker info` reaches no engine.")
    return Buildah(store)


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        command = ["docker", "info", "--format", "{{.ServerVersion}}"]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _missing() -> list[str]:
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    # buildah's alternatives to a full runtime: it insists on one being there, and uses none.
    return [*missing, "runc"] if missing else []
