"""What is missing of the operating system is installed once, whoever needs it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mooring_dev import packages
from mooring_dev.errors import DevError

#: Fails as apt-get does where another one is at work, and "installs" what it is told to.
_APT = """#!/bin/sh
mkdir {folder}/lock || {{ echo "E: Could not get lock"; exit 100; }}
echo "$@" >>{folder}/calls
sleep 0.3
for last; do :; done
[ "$last" = -qq ] || touch {folder}/bin/$last
rmdir {folder}/lock
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of root's with nothing but an apt-get."""
    (tmp_path / "bin").mkdir()
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(_APT.format(folder=tmp_path))
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_two_that_miss_the_same_at_the_same_time_install_it_once(machine: Path) -> None:
    def missing() -> list[str]:
        return [] if (machine / "bin" / "tool").exists() else ["tool"]

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(packages.install, missing) for _ in range(4)]:
            done.result()

    update, install = (machine / "calls").read_text().splitlines()
    assert "update" in update
    assert install.endswith("--no-install-recommends tool")


def test_what_is_there_needs_no_apt_get(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "bin" / "apt-get").unlink()
    monkeypatch.setenv("PATH", str(machine / "bin"))
    packages.install(list)


def test_who_cannot_install_is_told_what_and_what_else_helps(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DevError, match=r"lacks what Debian calls tool, .* or use a container\."):
        packages.install(lambda: ["tool"], otherwise="use a container")
    assert not (machine / "calls").exists()
