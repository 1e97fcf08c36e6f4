"""A control group of its own for the Pods of one cluster.

Two kubelets in one group would each remove the Pods of the other as strangers; and at the end
every process left in the group is known to be the cluster's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Hierarchies:
    """Where control groups are mounted: one folder in version 2, one per controller in version 1.

    Attributes:
        unified: the version 2 folder, when it has the controllers.
        legacy: the version 1 folders.
        idle: a version 2 folder beside version 1: it has no controllers, but a kubelet makes its
            groups there all the same.
    """

    unified: Path | None
    legacy: tuple[Path, ...]
    idle: Path | None = None

    @staticmethod
    def find() -> Hierarchies:
        """Read them from the mount table."""
        unified, legacy = None, []
        for line in _MOUNTS.read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, folder = right.split()[0], Path(left.split()[4])
            if kind == "cgroup":
                legacy.append(folder)
            elif kind == "cgroup2":
                unified = folder
        if legacy:
            return Hierarchies(None, tuple(legacy), unified)
        return Hierarchies(unified, ())

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that decide what a Pod may use."""
        return self.legacy if self.unified is None else (self.unified,)

    @property
    def all_folders(self) -> tuple[Path, ...]:
        """Every folder in which groups may have been made."""
        return (*self.folders, *((self.idle,) if self.idle else ()))


def ensure(name: str) -> str:
    """Make the group ``name`` in every hierarchy and return it as the kubelet wants it named."""
    found = Hierarchies.find()
    for folder in found.folders:
        group = folder / name
        group.mkdir(exist_ok=True)
        for key in ("cpuset.cpus", "cpuset.mems"):
            # A new version 1 group has no processors, and takes no process until it has.
            if (group / key).exists() and not (group / key).read_text().strip():
                (group / key).write_text((folder / key).read_text())
    if found.unified is not None:
        _delegate(found.unified)
        _delegate(found.unified / name)
    return f"/{name}"


def _delegate(group: Path) -> None:
    wanted = (group / "cgroup.controllers").read_text().split()
    for controller in wanted:
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            # Some controllers cannot be handed on; the kubelet names those that it misses.
            continue


def pids(name: str) -> list[int]:
    """Every process in the group ``name`` and below."""
    found: set[int] = set()
    for folder in Hierarchies.find().all_folders:
        # Groups go away with their last process while we look; a glob would fail at that.
        for path, _, files in os.walk(folder / name):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    text = (Path(path) / "cgroup.procs").read_text()
                    found.update(int(line) for line in text.split())
    return sorted(found - {0})


def remove(name: str) -> None:
    """Remove the group ``name``, which must be without processes."""
    for folder in Hierarchies.find().all_folders:
        for group, _, _ in os.walk(folder / name, topdown=False):
            # Version 1 frees a group a moment after its last process; an empty one is no harm.
            with contextlib.suppress(OSError):
                Path(group).rmdir()
