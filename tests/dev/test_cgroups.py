"""What a cluster's control groups hold while their processes end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mooring_dev import cgroups
from mooring_dev.cgroups import Hierarchies


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A group with two below it, one of which has one of its own."""
    found = tmp_path / "mooring-x"
    (found / "a" / "b").mkdir(parents=True)
    (found / "c").mkdir()
    for number, folder in enumerate((found, found / "a", found / "a" / "b", found / "c")):
        (folder / "cgroup.procs").write_text(f"{number + 10}\n")
    hierarchies = Hierarchies(unified=None, legacy=(tmp_path,))
    monkeypatch.setattr(Hierarchies, "find", staticmethod(lambda: hierarchies))
    return found


def test_every_process_of_a_group_and_below_is_found(group: Path) -> None:
    assert cgroups.pids("mooring-x") == [10, 11, 12, 13]


def test_a_group_that_goes_away_meanwhile_holds_nothing(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def read(path: Path) -> str:
        if path.parent == group:
            shutil.rmtree(group / "a")
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert cgroups.pids("mooring-x") == [10, 13]


def test_a_group_is_removed_with_those_below_it_and_needs_not_be_there(group: Path) -> None:
    for file in group.glob("**/cgroup.procs"):
        file.unlink()  # no file of a control group keeps its folder
    cgroups.remove("mooring-x")
    assert not group.exists()
    cgroups.remove("mooring-x")
