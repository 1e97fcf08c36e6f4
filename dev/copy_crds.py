"""Copy crds/ to where installers look for them: the chart's own folder, and manifests/crds.

Usage: ``copy_crds.py [--check]``; with ``--check`` nothing is written, and the exit code is 1 when
a copy is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "mooring" / "crds"
MANIFESTS = ROOT / "manifests" / "crds"


def copies() -> dict[Path, str]:
    """Each copy with what it should hold: in the chart file by file, for kustomize in one."""
    sources = sorted((ROOT / "crds").glob("mooring.dev_*.yaml"))
    wanted = {CHART / source.name: source.read_text() for source in sources}
    wanted[MANIFESTS / "crds.yaml"] = "---\n".join(source.read_text() for source in sources)
    return wanted


def main(arguments: list[str]) -> int:
    """Copy or check; return the exit code."""
    wanted = copies()
    gone = [path for path in CHART.glob("*.yaml") if path not in wanted]
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in (*gone, *stale):
            print(f"{path.relative_to(ROOT)} is stale: run make crds", file=sys.stderr)
        return 1 if gone or stale else 0
    for path in gone:
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
