from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from mooring_dev import existing, kind, node
from mooring_dev.cluster import Cluster, _record, known_clusters
from mooring_dev.errors import DevError
from mooring_dev.network import Addresses


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path / "cache"))


def test_the_first_cluster_gets_offset_0_and_the_next_the_first_that_is_free() -> None:
    assert _record("a", None, "local", None).offset == 0
    assert _record("b", None, "local", None).offset == 1
    assert [cluster.name for cluster in known_clusters()] == ["a", "b"]


def test_a_cluster_keeps_its_offset() -> None:
    made = _record("a", 7, "local", None)
    assert _record("a", None, "local", made).offset == 7


def test_another_offset_for_a_cluster_that_exists_is_refused() -> None:
    made = _record("a", 7, "local", None)
    with pytest.raises(DevError, match="has port offset 7"):
        _record("a", 8, "local", made)


def test_an_offset_that_is_taken_is_refused_by_the_name_of_its_owner() -> None:
    _record("a", 3, "local", None)
    with pytest.raises(DevError, match="Port offset 3 belongs to cluster a"):
        _record("b", 3, "local", None)


def test_a_cluster_of_another_provider_is_not_taken_over() -> None:
    _record("a", None, "existing", None)
    with pytest.raises(DevError, match="made by provider existing"):
        Cluster.up("a", provider="local")


def test_a_cluster_that_is_not_there_is_refused_with_how_to_make_it() -> None:
    with pytest.raises(DevError, match="cluster up --name nowhere"):
        Cluster.find("nowhere")


@pytest.mark.parametrize("offset", [-1, 100])
def test_an_offset_without_addresses_is_refused(offset: int) -> None:
    with pytest.raises(DevError, match="0 to 99"):
        Addresses(offset)


def test_two_offsets_share_no_address() -> None:
    def of(offset: int) -> set[str]:
        at = Addresses(offset)
        return {at.host, at.node, at.pods, at.services, at.dns, at.node_ports, at.interface}

    everything = [of(offset) for offset in range(100)]
    assert sum(map(len, everything)) == len(set().union(*everything))


def test_node_ports_of_the_first_cluster_are_at_127_0_0_1() -> None:
    assert Addresses(0).node_ports == "127.0.0.1"


def test_images_cannot_be_loaded_into_somebody_elses_cluster(tmp_path: Path) -> None:
    with pytest.raises(DevError, match="push them to a registry"):
        _record("a", None, "existing", None).import_image(tmp_path / "image.tar")


def test_an_existing_cluster_needs_a_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(DevError, match="set KUBECONFIG"):
        existing.up(tmp_path / "kubeconfig")


def test_kind_without_an_engine_says_so_and_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DevError, match=r"no `docker` command.*--provider local"):
        kind.probe()


def test_kind_on_a_machine_that_refuses_privileged_containers_quotes_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = "docker: Error response from daemon: operation not permitted"

    def engine(*command: str) -> subprocess.CompletedProcess[str]:
        code = 126 if command[1] == "run" else 0
        return subprocess.CompletedProcess(command, code, "24.0", refused if code else "")

    for program in ("docker", "busybox"):
        path = tmp_path / program
        path.write_text("")
        path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kind, "_run", engine)
    with pytest.raises(DevError, match=r"privileged containers.*not permitted.*--provider local"):
        kind.probe()


def test_name_servers_on_the_machines_loopback_are_not_given_to_pods(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("search a.test\nnameserver 127.0.0.53\nnameserver 10.1.2.3\nnameserver ::1\n")
    assert node.upstream_nameservers(resolv) == ["10.1.2.3"]
    assert node.upstream_nameservers(tmp_path / "none") == []
