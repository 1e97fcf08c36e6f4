"""A Kubernetes API without nodes, for tests: etcd and kube-apiserver, ready in about 3 s.

What a test needs of other controllers it asks for (``controllers``), or writes by itself, such as
the status of a Deployment.
"""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mooring_dev import components, kubeconfig, kubectl, processes
from mooring_dev.binaries import ensure_group
from mooring_dev.certificates import Authority, KeyPair
from mooring_dev.errors import DevError
from mooring_dev.health import answers_ok, wait_until
from mooring_dev.ports import Claim, claim
from mooring_dev.processes import Program

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
)
"""What ``controller_manager=True`` runs: cascading deletion, namespaces, service accounts."""

AUDIT_LOG = "audit.jsonl"
"""In a control plane's directory: its audit log, an ``audit.k8s.io/v1`` Event a line."""

_READY_SECONDS = 60.0
_STOP_ORDER = ("kube-controller-manager", "kube-apiserver", "etcd")


@dataclass(frozen=True)
class ControlPlane:
    """A running API server in ``directory``; use it as a context manager, or call ``stop``."""

    directory: Path
    server: str
    kubeconfig: Path
    claim: Claim | None = None

    @staticmethod
    def start(
        directory: Path,
        *,
        controller_manager: bool = False,
        controllers: tuple[str, ...] = CONTROLLERS,
        with_owner: bool = True,
        audit_policy: Path | None = None,
    ) -> ControlPlane:
        """Start a control plane that keeps everything in ``directory``, and wait until it is ready.

        Args:
            directory: made if missing; what an earlier control plane left there is used again.
            controller_manager: also run kube-controller-manager, with ``controllers`` only.
            controllers: names as in ``kube-controller-manager --controllers``.
            with_owner: the processes are killed when the calling thread ends, however it ends.
            audit_policy: what the API server writes of its requests to :data:`AUDIT_LOG`.

        Raises:
            DevError: a binary cannot be built, or a process ended or was not ready in time; the
                message names the log. Nothing is left running then.
        """
        binaries = ensure_group("kubernetes")
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        _stop_processes(directory)
        ports = claim(4)
        try:
            return _start(
                directory,
                binaries,
                ports,
                controllers if controller_manager else (),
                with_owner,
                audit_policy,
            )
        except BaseException:
            _stop_processes(directory)
            ports.release()
            raise

    @staticmethod
    def attach(directory: Path) -> ControlPlane | None:
        """The control plane that runs in ``directory``, or None."""
        try:
            facts = json.loads((directory / "control-plane.json").read_text())
        except FileNotFoundError:
            return None
        if processes.running_pid(directory / "pids" / "kube-apiserver") is None:
            return None
        return ControlPlane(directory, facts["server"], directory / "admin.kubeconfig")

    def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002 - as in subprocess
        """Standard output of kubectl; raises DevError with its standard error when it fails."""
        binary = ensure_group("kubernetes") / "kubectl"
        return kubectl.run(binary, self.kubeconfig, args, standard_input=input)

    def client(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig that authenticates as ``user`` in ``groups``, to test RBAC with."""
        pair = Authority(self.directory / "pki").client(f"user-{user}", user, groups)
        return kubeconfig.write(
            self.directory / f"{user}.kubeconfig",
            server=self.server,
            authority=self.directory / "pki" / "ca.crt",
            pair=pair,
            context=user,
        )

    def stop(self) -> None:
        """Stop its processes, in every case; the directory stays."""
        _stop_processes(self.directory)
        (self.directory / "control-plane.json").unlink(missing_ok=True)
        if self.claim is not None:
            self.claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def down(directory: Path) -> None:
    """Stop what runs in ``directory`` and remove it."""
    if not (directory / "pki").exists() and not (directory / "pids").exists():
        raise DevError(f"There is no control plane in {directory}.")
    _stop_processes(directory)
    shutil.rmtree(directory)


def _stop_processes(directory: Path) -> None:
    for name in _STOP_ORDER:
        # Nothing of it is kept, so there is nothing to wait for.
        processes.stop(directory / "pids" / name, grace=0.0)


def _start(
    directory: Path,
    binaries: Path,
    ports: Claim,
    controllers: tuple[str, ...],
    with_owner: bool,
    audit_policy: Path | None,
) -> ControlPlane:
    etcd_port, peer_port, api_port, manager_port = ports.ports
    authority = Authority.ensure(directory / "pki")
    admin = authority.client("admin", "mooring-dev-admin", ("system:masters",))
    server = f"https://127.0.0.1:{api_port}"
    config = kubeconfig.write(
        directory / "admin.kubeconfig",
        server=server,
        authority=authority.certificate,
        pair=admin,
        context="mooring-control-plane",
    )
    programs = [
        Program(
            "etcd",
            components.etcd(
                binaries / "etcd",
                directory / "etcd",
                f"http://127.0.0.1:{etcd_port}",
                f"http://127.0.0.1:{peer_port}",
            ),
            directory,
            with_owner=with_owner,
        ),
        Program(
            "kube-apiserver",
            components.api_server(
                binaries / "kube-apiserver",
                authority,
                authority.server("apiserver", ("127.0.0.1", "localhost", "kubernetes.default.svc")),
                components.ApiServer(
                    address="127.0.0.1",
                    port=api_port,
                    etcd=f"http://127.0.0.1:{etcd_port}",
                    service_range="10.224.0.0/16",
                    service_accounts="serviceaccount-controller" in controllers,
                    # Off by default in this release; without it the server drops such volumes.
                    features=("ImageVolume",),
                    audit=(audit_policy.absolute(), directory / AUDIT_LOG)
                    if audit_policy
                    else None,
                ),
            ),
            directory,
            with_owner=with_owner,
        ),
    ]
    for program in programs:
        processes.start(program)
    _wait_ready(server, authority, admin, programs)
    if controllers:
        manager = components.controller_manager(
            binaries / "kube-controller-manager", authority, config, manager_port, controllers
        )
        program = Program("kube-controller-manager", manager, directory, with_owner=with_owner)
        processes.start(program)
        wait_until(
            "kube-controller-manager answers",
            lambda: _listens(manager_port),
            timeout=_READY_SECONDS,
            check=lambda: processes.require_alive(program),
        )
    plane = ControlPlane(directory, server, config, ports)
    if "serviceaccount-controller" in controllers:
        # Until it exists, the API server refuses every Pod of the namespace.
        wait_until(
            "the default ServiceAccount exists",
            lambda: "default" in plane.kubectl("get", "serviceaccounts", "-n", "default"),
            timeout=_READY_SECONDS,
            check=lambda: None,
        )
    facts = json.dumps({"server": server})
    (directory / "control-plane.json").write_text(facts)
    return plane


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _wait_ready(server: str, authority: Authority, admin: KeyPair, programs: list[Program]) -> None:
    def check() -> None:
        for program in programs:
            processes.require_alive(program)

    wait_until(
        f"kube-apiserver is ready (logs in {programs[0].log.parent})",
        lambda: answers_ok(f"{server}/readyz", authority.certificate, admin),
        timeout=_READY_SECONDS,
        check=check,
    )
