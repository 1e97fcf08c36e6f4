"""The local provider: a one-node cluster on this machine, without an engine or virtual machines.

Every step can be repeated: ``up`` makes what is missing and starts what died, ``down`` removes
whatever there is of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mooring_dev import cgroups, kubectl, mounts, processes
from mooring_dev.binaries import ensure, ensure_group
from mooring_dev.containerd import Containerd
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until
from mooring_dev.network import Addresses, Network
from mooring_dev.node import COMPONENTS, Node
from mooring_dev.packages import HostTools, cni_folder, ensure_packages, which
from mooring_dev.paths import cluster_directory, run_root
from mooring_dev.processes import Program
from mooring_dev.steps import step

_READY_SECONDS = 120.0


@dataclass(frozen=True)
class LocalCluster:
    """A cluster on this machine, known by its name and where its addresses are."""

    name: str
    offset: int

    @property
    def directory(self) -> Path:
        """State, logs and pid files."""
        return cluster_directory(self.name)

    @property
    def runtime(self) -> Path:
        """Sockets."""
        return run_root() / self.name

    @property
    def group(self) -> str:
        """Name of its network namespace and control group."""
        return f"mooring-{self.name}"

    @property
    def addresses(self) -> Addresses:
        """Where everything is."""
        return Addresses(self.offset)

    def up(self) -> None:
        """Bring everything up that is not, and wait until the node is ready.

        Raises:
            DevError: not root or not Linux, something cannot be installed or built, or a program
                does not start; the message names its log.
        """
        _require_root()
        tools = ensure_packages()
        binaries = ensure_group("kubernetes")
        coredns = ensure("coredns")
        network = self._network(tools)
        network.ensure()
        node = self._node(binaries)
        node.admin()
        runtime = self._containerd(tools)
        first = [node.etcd(), node.api_server(), runtime.program()]
        with step("Starting the control plane"):
            for program in first:
                processes.start(program)
            self._wait_api(node, first)
            runtime.wait(first[2])
        runtime.ensure_pause_image()
        rest = [node.controller_manager(), node.scheduler(), node.proxy(), node.coredns(coredns)]
        rest.append(node.kubelet(runtime.socket))
        for program in rest:
            processes.start(program)
        with step("Waiting until the node is ready"):
            self._wait_node(node, [*first, *rest])

    def down(self) -> None:
        """End and remove everything that ``up`` made, whatever of it there is."""
        _require_root()
        pids = self.directory / "pids"
        for component in ("kubelet", "coredns", "kube-proxy", "kube-scheduler"):
            processes.stop(pids / component)
        processes.stop(pids / "kube-controller-manager")
        tools = _present_tools()
        runtime = self._containerd(tools)
        processes.end(runtime.shims(), grace=0.0)
        processes.end(cgroups.pids(self.group), grace=0.0)
        for component in reversed(COMPONENTS):
            processes.stop(pids / component, grace=1.0)
        # One that was started, and its starter killed before it wrote the pid file.
        processes.end(self._network(tools).pids(), grace=0.0)
        runtime.remove_traces()
        for folder in (self.runtime, self.directory):
            mounts.unmount_below(folder)
        self._network(tools).remove()
        cgroups.remove(self.group)
        self._remove_log_links()
        for folder in (self.runtime, self.directory):
            if folder.exists():
                shutil.rmtree(folder)

    def components(self) -> dict[str, int | None]:
        """Pid of each program; None for one that does not run."""
        pids = self.directory / "pids"
        return {name: processes.running_pid(pids / name) for name in COMPONENTS}

    def import_image(self, archive: Path) -> None:
        """Make the images of a tar usable by Pods."""
        self._containerd(_present_tools()).import_image(archive)

    def images(self) -> list[str]:
        """Images that Pods can use."""
        return self._containerd(_present_tools()).images()

    def _network(self, tools: HostTools) -> Network:
        return Network(tools, self.addresses, self.group)

    def _containerd(self, tools: HostTools) -> Containerd:
        namespace = self._network(tools).path
        return Containerd(tools, self.directory, self.runtime, namespace, self.addresses.pods)

    def _node(self, binaries: Path) -> Node:
        return Node(
            name=self.group,
            directory=self.directory,
            runtime=self.runtime,
            namespace=Path("/run/netns") / self.group,
            control_group=cgroups.ensure(self.group),
            kubernetes=binaries,
            addresses=self.addresses,
        )

    def _wait_api(self, node: Node, programs: list[Program]) -> None:
        binary = node.kubernetes / "kubectl"
        arguments = ("get", "--raw", "/readyz", "--request-timeout=2s")
        wait_until(
            f"kube-apiserver is ready (logs in {self.directory / 'logs'})",
            lambda: kubectl.succeeds(binary, node.admin_kubeconfig, arguments),
            timeout=_READY_SECONDS,
            check=lambda: _require_alive(programs),
        )

    def _wait_node(self, node: Node, programs: list[Program]) -> None:
        path = "{.status.conditions[?(@.type=='Ready')].status} {.spec.taints[*].key}"
        arguments = ("get", "node", self.group, "--ignore-not-found", f"-o=jsonpath={path}")
        binary = node.kubernetes / "kubectl"

        def ready() -> bool:
            shown = kubectl.run(binary, node.admin_kubeconfig, arguments)
            return shown.split() == ["True"]

        wait_until(
            f"node {self.group} is ready (logs in {self.directory / 'logs'})",
            ready,
            timeout=_READY_SECONDS,
            check=lambda: _require_alive(programs),
        )

    def _remove_log_links(self) -> None:
        # The kubelet makes these links where log collectors look, whatever its own folder is.
        for link in Path("/var/log/containers").glob("*.log"):
            if link.is_symlink() and self.directory in link.readlink().parents:
                link.unlink()


def _require_alive(programs: list[Program]) -> None:
    for program in programs:
        processes.require_alive(program)


def _require_root() -> None:
    if not sys.platform.startswith("linux"):
        raise DevError("The local provider needs Linux. Use `--provider kind` here.")
    if os.geteuid() != 0:
        raise DevError("The local provider needs root (namespaces, mounts): run it with sudo.")


def _present_tools() -> HostTools:
    # For removing and asking: what is not installed has nothing to remove.
    names = ("containerd", "ctr", "runc", "iptables", "ip")
    found = {name: which(name) or f"/usr/sbin/{name}" for name in names}
    return HostTools(**found, cni=cni_folder() or Path("/usr/lib/cni"))
