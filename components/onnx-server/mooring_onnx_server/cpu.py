"""How many CPUs this process may use: the cgroup's quota, not the machine's cores.

onnxruntime sizes its thread pool by the machine. In a container with a quota of one CPU on
a node of 64 that means 64 threads sharing one CPU's time, most of it spent throttled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


def usable_cpus(root: Path = _ROOT, membership: Path = _SELF) -> int:
    """CPUs to plan threads for: the smaller of affinity and quota, whole, at least 1.

    A quota of 2.5 gives 2: a third thread would only be throttled.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup_quota(root, membership)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def cgroup_quota(root: Path = _ROOT, membership: Path = _SELF) -> float | None:
    """The tightest CPU quota over this process's cgroups (v1 and v2), in CPUs; None if none."""
    quotas = [
        quota
        for directory in _directories(root, membership)
        for quota in (_v2(directory), _v1(directory))
        if quota is not None
    ]
    return min(quotas, default=None)


def _directories(root: Path, membership: Path) -> Iterator[Path]:
    """Every directory that may hold a limit: the process's own, its parents, and the mount.

    With a cgroup namespace the mount's top is the container itself; without one the path in
    /proc/self/cgroup names it.
    """
    yield root
    mounts = {"": root, "cpu": root / "cpu", "cpu,cpuacct": root / "cpu,cpuacct"}
    yield from (path for name, path in mounts.items() if name)
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = mounts.get(controllers, root / controllers)
        parts = [part for part in path.split("/") if part and part != ".."]
        yield from (mount.joinpath(*parts[:n]) for n in range(1, len(parts) + 1))


def _v2(directory: Path) -> float | None:
    quota, _, period = _read(directory / "cpu.max").strip().partition(" ")
    return _ratio(quota, period or "100000")


def _v1(directory: Path) -> float | None:
    return _ratio(
        _read(directory / "cpu.cfs_quota_us").strip(),
        _read(directory / "cpu.cfs_period_us").strip(),
    )


def _ratio(quota: str, period: str) -> float | None:
    # "max" (v2) and -1 (v1) mean no quota; an absent file reads as "".
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
