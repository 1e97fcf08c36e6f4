"""Check, offline, that every lock file answers to what it was made from.

A lock must pin each requirement of its ``.in`` file to a version that the requirement allows, give
at least one hash for every pin, and name no index: the machine that installs knows its own. The
operator's requirements must be those of ``pyproject.toml``, so that the image holds what the
package asks for.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*])?==(?P<version>[^\s;\\]+)")


def requirements_of(source: Path) -> Iterator[Requirement]:
    """Every requirement of a ``.in`` file, and of the files that it includes."""
    for raw in source.read_text().splitlines():
        line = raw.split(" #")[0].strip()
        if line.startswith("-r "):
            yield from requirements_of((source.parent / line[3:].strip()).resolve())
        elif line and not line.startswith(("#", "-")):
            yield Requirement(line)


def pins_of(lock: Path) -> dict[str, set[Version]]:
    """Each pinned project with its versions (several where markers tell Pythons apart)."""
    pins: dict[str, set[Version]] = {}
    for line in lock.read_text().splitlines():
        if found := PIN.match(line):
            name = canonicalize_name(found["name"])
            pins.setdefault(name, set()).add(Version(found["version"]))
    return pins


def faults_of(source: Path, lock: Path) -> Iterator[str]:
    """What is wrong with one lock, each as a sentence."""
    text = lock.read_text()
    if "://" in text:
        yield "names an address; make it with --no-emit-index-url"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    for entry in entries:
        if (found := PIN.match(entry)) and "--hash=sha256:" not in entry:
            yield f"has no hash for {found['name']}"
    pins = pins_of(lock)
    for requirement in requirements_of(source):
        versions = pins.get(canonicalize_name(requirement.name), set())
        if not versions:
            yield f"lacks {requirement}"
        for version in sorted(versions):
            if version not in requirement.specifier:
                yield f"pins {requirement.name}=={version}, which {source.name} does not allow"


def package_faults(project: Path, requirements: Path) -> Iterator[str]:
    """Where pyproject.toml and the operator's requirements differ."""
    declared = {
        str(Requirement(r)) for r in tomllib.loads(project.read_text())["project"]["dependencies"]
    }
    listed = {str(r) for r in requirements_of(requirements)}
    for requirement in sorted(declared ^ listed):
        where = "pyproject.toml" if requirement in declared else "operator/requirements.in"
        yield f"{requirement} stands only in {where}"


def locks() -> Iterable[tuple[Path, Path]]:
    """Each ``.in`` file with its lock, wherever one lies beside it."""
    trainer = "examples/retrain-with-job"
    for folder in ("requirements", "operator", "components/*", "dev/*", trainer):
        for source in sorted(ROOT.glob(f"{folder}/*.in")):
            yield source, source.with_suffix(".txt")


def main() -> int:
    """Print each fault; return the exit code."""
    faults = list(package_faults(ROOT / "pyproject.toml", ROOT / "operator/requirements.in"))
    for source, lock in locks():
        name = lock.relative_to(ROOT)
        if lock.exists():
            faults += [f"{name} {fault}" for fault in faults_of(source, lock)]
        else:
            faults.append(f"{name} is missing")
    for fault in faults:
        print(f"{fault}. Mend it with: make lock", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
