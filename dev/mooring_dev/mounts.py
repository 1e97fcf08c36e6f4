"""Unmount what a cluster mounted."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mooring_dev.errors import DevError


def below(folder: Path) -> list[Path]:
    """Mount points under ``folder``, the deepest first."""
    prefix = f"{folder}/"
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point.startswith(prefix):
            points.append(point)
    return [Path(point) for point in sorted(points, key=len, reverse=True)]


def unmount_below(folder: Path) -> None:
    """Unmount everything under ``folder``, so that removing it removes nobody else's files.

    Raises:
        DevError: something stays mounted.
    """
    for point in below(folder):
        subprocess.run(["umount", str(point)], capture_output=True, check=False)
    # Lazily where something still holds it: the process that does is about to be reaped.
    for point in below(folder):
        subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)
    left = below(folder)
    if left:
        raise DevError(f"Still mounted, so {folder} is kept: {', '.join(map(str, left))}.")
