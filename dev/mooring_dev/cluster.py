"""Clusters for development, by name: made here (local), by kind, or somebody's own (existing)."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mooring_dev import existing, files, kind, kubectl
from mooring_dev.binaries import ensure
from mooring_dev.errors import DevError
from mooring_dev.local import LocalCluster
from mooring_dev.locks import exclusive
from mooring_dev.network import MAX_OFFSET, Addresses
from mooring_dev.paths import cluster_directory, state_root, valid_name

Provider = Literal["local", "kind", "existing"]


@dataclass(frozen=True)
class Cluster:
    """A cluster that ``up`` made or found.

    Attributes:
        name: what it was called.
        offset: what sets its addresses apart from other local clusters'.
        provider: who made it.
        kubeconfig: an administrator's kubeconfig.
    """

    name: str
    offset: int
    provider: Provider
    kubeconfig: Path

    @staticmethod
    def up(
        name: str = "default", port_offset: int | None = None, provider: Provider = "local"
    ) -> Cluster:
        """Make the cluster, or what is missing of it, and wait until its node is ready.

        Args:
            name: a DNS label of at most 30 characters.
            port_offset: 0 to 99, one per local cluster; None takes the cluster's own or the first
                that is free.
            provider: ``local``, ``kind``, or ``existing`` (the cluster of KUBECONFIG).

        Raises:
            DevError: it cannot be made; the message says what to do.
        """
        directory = cluster_directory(name)
        with _locked(name):
            known = _recorded(directory)
            if known is not None and known.provider != provider:
                raise DevError(
                    f"Cluster {name} was made by provider {known.provider}. Run `cluster down "
                    f"--name {name}` first, or choose another name."
                )
            cluster = _record(name, port_offset, provider, known)
            if provider == "local":
                LocalCluster(name, cluster.offset).up()
            elif provider == "kind":
                kind.up(name, cluster.kubeconfig)
            else:
                existing.up(cluster.kubeconfig)
        return cluster

    @staticmethod
    def find(name: str = "default") -> Cluster:
        """The cluster called ``name``.

        Raises:
            DevError: there is none.
        """
        found = _recorded(cluster_directory(name))
        if found is None:
            raise DevError(f"There is no cluster {name}. Make it: `cluster up --name {name}`.")
        return found

    @property
    def addresses(self) -> Addresses:
        """Addresses of a local cluster."""
        if self.provider != "local":
            raise DevError(f"Addresses are known of local clusters only, not of {self.provider}.")
        return Addresses(self.offset)

    @property
    def host_address(self) -> str:
        """Where Pods reach a server of this machine; it has to listen on this address."""
        return self.addresses.host

    @property
    def node_port_address(self) -> str:
        """Where this machine reaches NodePorts: 127.0.0.1 at offset 0."""
        return self.addresses.node_ports

    def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002 - as in subprocess
        """Standard output of kubectl; raises DevError with its standard error when it fails."""
        return kubectl.run(ensure("kubectl"), self.kubeconfig, args, standard_input=input)

    def import_image(self, tar: Path) -> None:
        """Make the images of an OCI or Docker tar usable by Pods (imagePullPolicy not Always)."""
        if self.provider == "local":
            LocalCluster(self.name, self.offset).import_image(tar)
        elif self.provider == "kind":
            kind.import_image(self.name, tar)
        else:
            raise DevError(
                "Images cannot be loaded into an existing cluster: push them to a registry that "
                "it reads from."
            )

    def images(self) -> list[str]:
        """Images that Pods of a local cluster can use."""
        return LocalCluster(self.name, self.addresses.offset).images()

    def components(self) -> dict[str, int | None]:
        """Pid of each program of a local cluster, None where it does not run."""
        if self.provider != "local":
            return {}
        return LocalCluster(self.name, self.offset).components()

    def ready(self) -> bool:
        """Whether a node is ready."""
        path = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        try:
            shown = self.kubectl("get", "nodes", path, "--request-timeout=5s")
        except DevError:
            return False
        return "True" in shown.split()

    def down(self) -> None:
        """Remove the cluster; an existing one is only forgotten."""
        with _locked(self.name):
            if self.provider == "local":
                LocalCluster(self.name, self.offset).down()
            elif self.provider == "kind":
                kind.down(self.name, self.kubeconfig)
            directory = cluster_directory(self.name)
            if directory.exists():
                shutil.rmtree(directory)


def known_clusters() -> list[Cluster]:
    """Every cluster that there is a record of."""
    folders = sorted((state_root() / "clusters").glob("*/cluster.json"))
    found = (_recorded(path.parent) for path in folders)
    return [cluster for cluster in found if cluster is not None]


def _locked(name: str) -> AbstractContextManager[None]:
    return exclusive(state_root() / "clusters" / f"{valid_name(name)}.lock", f"cluster {name}")


def _recorded(directory: Path) -> Cluster | None:
    try:
        facts = json.loads((directory / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    return Cluster(facts["name"], facts["offset"], facts["provider"], directory / "kubeconfig")


def _record(name: str, wanted: int | None, provider: Provider, known: Cluster | None) -> Cluster:
    """Write down what is about to be made, so that ``down`` finds it after an interruption."""
    with exclusive(state_root() / "clusters.lock", "choosing addresses"):
        taken = {other.offset: other.name for other in known_clusters() if other.name != name}
        offset = wanted if wanted is not None else (known.offset if known else _first_free(taken))
        if known is not None and offset != known.offset:
            raise DevError(
                f"Cluster {name} has port offset {known.offset}. Run `cluster down --name {name}` "
                "first, or leave --port-offset out."
            )
        if provider == "local" and offset in taken:
            raise DevError(
                f"Port offset {offset} belongs to cluster {taken[offset]}. Choose another, or "
                "leave --port-offset out to get the first that is free."
            )
        Addresses(offset)
        directory = cluster_directory(name)
        facts = json.dumps({"name": name, "offset": offset, "provider": provider})
        files.write_text(directory / "cluster.json", facts)
    return Cluster(name, offset, provider, directory / "kubeconfig")


def _first_free(taken: dict[int, str]) -> int:
    for offset in range(MAX_OFFSET + 1):
        if offset not in taken:
            return offset
    raise DevError(f"All {MAX_OFFSET + 1} port offsets are taken: remove a cluster first.")
