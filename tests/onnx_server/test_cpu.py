"""The number of threads follows the container's CPU quota, whichever cgroup version says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mooring_onnx_server.cpu import cgroup_quota, usable_cpus


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V1_PATH = "7:cpu,cpuacct:/kubepods/pod1/c1\n3:memory:/kubepods/pod1/c1\n"
POD = "cpu,cpuacct/kubepods/pod1"


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({}, "", None),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "nonsense\n"}, "0::/\n", None),
        ({"cpu.max": "max 100000\n", "a/b/cpu.max": "200000 100000\n"}, "0::/a/b\n", 2.0),
        ({"a/cpu.max": "100000 50000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "", None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "", 0.5),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "0\n"}, "", None),
        (
            {f"{POD}/cpu.cfs_quota_us": "300000\n", f"{POD}/cpu.cfs_period_us": "100000\n"},
            V1_PATH,
            3.0,
        ),
    ],
)
def test_the_tightest_quota_on_the_way_down_counts(
    tmp_path: Path, files: dict[str, str], membership: str, quota: float | None
) -> None:
    write(tmp_path / "cgroup", files)
    write(tmp_path, {"self": membership})
    assert cgroup_quota(tmp_path / "cgroup", tmp_path / "self") == quota


@pytest.mark.parametrize(("quota", "cpus"), [(0.5, 1), (1.0, 1), (2.5, 2), (64.0, 4)])
def test_threads_are_whole_cpus_at_least_one_and_at_most_what_affinity_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: float, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    write(tmp_path, {"cpu.max": f"{int(quota * 100000)} 100000\n"})
    assert usable_cpus(tmp_path, tmp_path / "absent") == cpus


def test_without_a_quota_affinity_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 9})
    assert usable_cpus(tmp_path, tmp_path / "absent") == 3
