"""Command lines of etcd and the Kubernetes control plane, shared by tests and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mooring_dev.certificates import Authority, KeyPair


@dataclass(frozen=True)
class ApiServer:
    """What differs between the API server of a test and that of a cluster.

    Attributes:
        address: IP address that it listens on.
        port: TCP port of ``address``.
        etcd: URL of etcd.
        service_range: CIDR of Service addresses.
        kubelet_client: how it authenticates to kubelets; None where there is no node.
        advertise: address that Pods reach it at; None leaves the `kubernetes` Service without
            endpoints.
        service_accounts: admit Pods only with a ServiceAccount, which needs its controller.
        features: feature gates that are turned on.
        audit: an audit policy, and the file that takes its lines; None without.
    """

    address: str
    port: int
    etcd: str
    service_range: str
    kubelet_client: KeyPair | None = None
    advertise: str | None = None
    service_accounts: bool = True
    features: tuple[str, ...] = ()
    audit: tuple[Path, Path] | None = None


def etcd(binary: Path, data: Path, client: str, peer: str) -> tuple[str, ...]:
    """etcd without fsync: its data is worth nothing after a power cut, and it starts at once."""
    return (
        str(binary),
        f"--data-dir={data}",
        "--name=dev",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=dev={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--auto-compaction-retention=5m",
        "--quota-backend-bytes=4294967296",
    )


def api_server(
    binary: Path, authority: Authority, serving: KeyPair, options: ApiServer
) -> tuple[str, ...]:
    """kube-apiserver with client certificates and RBAC."""
    signing = str(authority.service_account_key)
    arguments = [
        str(binary),
        f"--bind-address={options.address}",
        f"--secure-port={options.port}",
        f"--etcd-servers={options.etcd}",
        f"--service-cluster-ip-range={options.service_range}",
        f"--client-ca-file={authority.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--service-account-key-file={signing}",
        f"--service-account-signing-key-file={signing}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
    ]
    if options.features:
        gates = ",".join(f"{feature}=true" for feature in options.features)
        arguments.append(f"--feature-gates={gates}")
    if options.audit is not None:
        policy, log = options.audit
        # One file, however long: what was rotated away would be missed. Lines are written before
        # their requests are answered, which is the mode "blocking".
        arguments += [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={log}",
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=100000",
        ]
    if not options.service_accounts:
        arguments.append("--disable-admission-plugins=ServiceAccount")
    if options.advertise is None:
        arguments.append("--endpoint-reconciler-type=none")
    else:
        arguments.append(f"--advertise-address={options.advertise}")
    if options.kubelet_client is not None:
        arguments += [
            f"--kubelet-client-certificate={options.kubelet_client.certificate}",
            f"--kubelet-client-key={options.kubelet_client.key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
    return tuple(arguments)


def controller_manager(
    binary: Path, authority: Authority, kubeconfig: Path, port: int, controllers: tuple[str, ...]
) -> tuple[str, ...]:
    """kube-controller-manager running ``controllers`` (``*`` for all that are on by default)."""
    return (
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--root-ca-file={authority.certificate}",
        f"--service-account-private-key-file={authority.service_account_key}",
        "--use-service-account-credentials=false",
        f"--controllers={','.join(controllers)}",
        "--leader-elect=false",
        "--profiling=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )


def scheduler(binary: Path, kubeconfig: Path, port: int) -> tuple[str, ...]:
    """kube-scheduler with its defaults."""
    return (
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
        "--profiling=false",
    )
