"""Copy crds/ into the chart, byte by byte: Helm installs what lies in the chart's own folder.

Usage: ``generate_chart_crds.py [--check]``; with ``--check`` nothing is written, and the exit code
is 1 when the copies are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
TARGET = ROOT / "helm" / "mooring" / "crds"


def differing() -> list[str]:
    """Names of files that lie in one folder only, or are not the same in both."""
    names = {path.name for folder in (SOURCE, TARGET) for path in folder.glob("mooring.dev_*.yaml")}
    return sorted(name for name in names if _text(SOURCE / name) != _text(TARGET / name))


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main(arguments: list[str]) -> int:
    """Copy or check; return the exit code."""
    stale = differing()
    if "--check" in arguments:
        for name in stale:
            print(f"helm/mooring/crds/{name} is stale: run make chart-crds", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    for name in stale:
        if (text := _text(SOURCE / name)) is None:
            (TARGET / name).unlink()
        else:
            (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
