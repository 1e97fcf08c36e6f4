"""Programs of a local node and its control plane, and the files that configure them."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from mooring_dev import components, files, kubeconfig
from mooring_dev.certificates import Authority, KeyPair
from mooring_dev.network import Addresses
from mooring_dev.processes import Program

COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
    "kubelet",
)
"""In the order in which they start; they stop in the opposite one."""


@dataclass(frozen=True)
class Node:
    """What the programs of one cluster are started with.

    Attributes:
        name: name of the Node object.
        directory: the cluster's state.
        runtime: the cluster's folder for sockets.
        namespace: network namespace that everything runs in.
        control_group: as the kubelet names it.
        kubernetes: folder of the Kubernetes binaries.
    """

    name: str
    directory: Path
    runtime: Path
    namespace: Path
    control_group: str
    kubernetes: Path
    addresses: Addresses

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.addresses.node}:6443"

    @property
    def admin_kubeconfig(self) -> Path:
        """Kubeconfig of an administrator."""
        return self.directory / "kubeconfig"

    def authority(self) -> Authority:
        """The cluster's certificate authority, made once."""
        return Authority.ensure(self.directory / "pki")

    def admin(self) -> KeyPair:
        """Key pair of the administrator, whose kubeconfig is written as well."""
        authority = self.authority()
        pair = authority.client("admin", "mooring-dev-admin", ("system:masters",))
        self._kubeconfig(self.admin_kubeconfig, pair)
        return pair

    def etcd(self) -> Program:
        """The API server's store."""
        command = components.etcd(
            self.kubernetes / "etcd",
            self.directory / "etcd",
            "http://127.0.0.1:2379",
            "http://127.0.0.1:2380",
        )
        return self._program("etcd", command)

    def api_server(self) -> Program:
        """kube-apiserver, listening inside the network namespace."""
        authority = self.authority()
        hosts = (
            self.addresses.node,
            self.addresses.kubernetes,
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        )
        serving = authority.server("apiserver", hosts)
        masters = ("system:masters",)
        options = components.ApiServer(
            address="0.0.0.0",
            port=6443,
            etcd="http://127.0.0.1:2379",
            service_range=self.addresses.services,
            kubelet_client=authority.client("apiserver-kubelet", "kube-apiserver", masters),
            advertise=self.addresses.node,
        )
        command = components.api_server(
            self.kubernetes / "kube-apiserver", authority, serving, options
        )
        return self._program("kube-apiserver", (*command, "--allow-privileged=true"))

    def controller_manager(self) -> Program:
        """All controllers that are on by default."""
        command = components.controller_manager(
            self.kubernetes / "kube-controller-manager",
            self.authority(),
            self.admin_kubeconfig,
            10257,
            ("*",),
        )
        signer = (
            f"--cluster-signing-cert-file={self.authority().certificate}",
            f"--cluster-signing-key-file={self.authority().directory / 'ca.key'}",
        )
        return self._program("kube-controller-manager", (*command, *signer))

    def scheduler(self) -> Program:
        """kube-scheduler."""
        config = self._client_config("kube-scheduler", "system:kube-scheduler")
        command = components.scheduler(self.kubernetes / "kube-scheduler", config, 10259)
        return self._program("kube-scheduler", command)

    def proxy(self) -> Program:
        """kube-proxy in iptables mode."""
        client = self._client_config("kube-proxy", "system:kube-proxy")
        document = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(client)},
            "mode": "iptables",
            "hostnameOverride": self.name,
            "clusterCIDR": self.addresses.pods,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
            # The kernel's table of connections has one size for all namespaces: leave it.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        config = self._json("kube-proxy.json", document)
        command = (str(self.kubernetes / "kube-proxy"), f"--config={config}")
        return self._program("kube-proxy", command, config, client)

    def kubelet(self, container_runtime: Path) -> Program:
        """The kubelet, for control groups of version 1 and 2 alike."""
        client = self._client_config("kubelet", f"system:node:{self.name}", ("system:nodes",))
        config = self._json("kubelet.json", self._kubelet_configuration(container_runtime))
        command = (
            str(self.kubernetes / "kubelet"),
            f"--config={config}",
            f"--kubeconfig={client}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.addresses.node}",
            f"--cert-dir={self.directory / 'pki'}",
        )
        return self._program("kubelet", command, config, client)

    def coredns(self, binary: Path) -> Program:
        """Cluster DNS, on its Service address, which is on the node's loopback interface."""
        authority = self.authority()
        pair = authority.client("coredns", "mooring-dev-coredns", ("system:masters",))
        client = self._kubeconfig(self.directory / "coredns.kubeconfig", pair)
        servers = upstream_nameservers(Path("/etc/resolv.conf"))
        forward = f"    forward . {' '.join(servers)}\n" if servers else ""
        config = self.directory / "Corefile"
        files.write_text(
            config,
            ".:53 {\n"
            f"    bind {self.addresses.dns}\n"
            "    errors\n"
            "    kubernetes cluster.local in-addr.arpa {\n"
            f"        kubeconfig {client}\n"
            "        ttl 5\n"
            "        fallthrough in-addr.arpa\n"
            "    }\n"
            f"{forward}"
            "}\n",
        )
        return self._program("coredns", (str(binary), "-conf", str(config)), config, client)

    def _kubelet_configuration(self, container_runtime: Path) -> dict[str, object]:
        authority = self.authority()
        serving = authority.server("kubelet-serving", (self.addresses.node, self.name))
        servers = upstream_nameservers(Path("/etc/resolv.conf"))
        resolv = self.directory / "resolv.conf"
        files.write_text(resolv, "".join(f"nameserver {server}\n" for server in servers))
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True, "cacheTTL": "10s"},
                "x509": {"clientCAFile": str(authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{container_runtime}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.control_group,
            "clusterDNS": [self.addresses.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolv),
            "podLogsDir": str(self.directory / "pod-logs"),
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "oomScoreAdj": 0,
            "maxPods": 200,
            "nodeStatusUpdateFrequency": "5s",
            # Images come from here, not from a registry: once collected, they would be gone.
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "shutdownGracePeriod": "0s",
        }

    def _client_config(self, file: str, user: str, groups: tuple[str, ...] = ()) -> Path:
        pair = self.authority().client(file, user, groups)
        return self._kubeconfig(self.directory / f"{file}.kubeconfig", pair)

    def _kubeconfig(self, path: Path, pair: KeyPair) -> Path:
        return kubeconfig.write(
            path,
            server=self.server,
            authority=self.authority().certificate,
            pair=pair,
            context=self.name,
        )

    def _json(self, file: str, document: dict[str, object]) -> Path:
        return files.write_text(self.directory / file, json.dumps(document, indent=1))

    def _program(self, name: str, command: tuple[str, ...], *inputs: Path) -> Program:
        return Program(name, command, self.directory, namespace=self.namespace, inputs=inputs)


def upstream_nameservers(resolv: Path) -> list[str]:
    """Name servers of the machine that Pods can reach: those that are not on its loopback."""
    found = []
    lines = resolv.read_text().splitlines() if resolv.exists() else []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            address = ipaddress.ip_address(words[1].partition("%")[0])
            if address.version == 4 and not address.is_loopback:
                found.append(words[1])
    return found
