from __future__ import annotations

from pathlib import Path

import pytest

from mooring_dev.errors import DevError
from mooring_dev.paths import cache_root, state_root, valid_name


@pytest.mark.parametrize("name", ["a", "default", "ci-3", "a" * 30])
def test_a_lower_case_dns_label_names_a_cluster(name: str) -> None:
    assert valid_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "3a", "a-", "-a", "a_b", "a/b", "..", "a b", "a" * 31, "a\n"]
)
def test_what_could_leave_the_state_folder_or_break_a_host_name_is_refused(name: str) -> None:
    with pytest.raises(DevError, match="cannot name a cluster"):
        valid_name(name)


def test_the_cache_can_be_moved_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path))
    assert cache_root() == tmp_path / "mooring"
    monkeypatch.delenv("MOORING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/mooring")


def test_state_can_be_moved_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_STATE", str(tmp_path))
    assert state_root() == tmp_path
