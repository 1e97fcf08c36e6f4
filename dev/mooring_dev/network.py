"""A network namespace per cluster, joined to the machine by one pair of interfaces.

Everything that a node does to the network (Services, Pods' interfaces, firewall chains) happens
in its own namespace: several clusters never meet, and removing the namespace removes it all. On
the machine's side there are one interface, two routes and three firewall chains per cluster.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.packages import HostTools

MAX_OFFSET = 99
NODE_PORTS = "30000:32767"


@dataclass(frozen=True)
class Addresses:
    """Addresses of the cluster at ``offset``, which is what keeps clusters apart.

    Attributes:
        offset: 0 to 99.
    """

    offset: int

    def __post_init__(self) -> None:
        """Refuse an offset that has no addresses."""
        if not 0 <= self.offset <= MAX_OFFSET:
            raise DevError(f"A port offset is a number from 0 to {MAX_OFFSET}, not {self.offset}.")

    @property
    def host(self) -> str:
        """The machine as Pods see it: listen here with what Pods shall reach."""
        return f"10.221.{self.offset}.1"

    @property
    def node(self) -> str:
        """The node; the API server listens here."""
        return f"10.221.{self.offset}.2"

    @property
    def pods(self) -> str:
        """CIDR of Pods."""
        return f"10.222.{self.offset}.0/24"

    @property
    def services(self) -> str:
        """CIDR of Services."""
        return f"10.223.{self.offset}.0/24"

    @property
    def kubernetes(self) -> str:
        """Address of the `kubernetes` Service."""
        return f"10.223.{self.offset}.1"

    @property
    def dns(self) -> str:
        """Address of the cluster's DNS."""
        return f"10.223.{self.offset}.10"

    @property
    def node_ports(self) -> str:
        """Loopback address at which the machine reaches NodePorts: 127.0.0.1 at offset 0."""
        return f"127.0.0.{1 + self.offset}"

    @property
    def interface(self) -> str:
        """The machine's end of the pair of interfaces."""
        return f"mooring{self.offset}"


@dataclass(frozen=True)
class Network:
    """The network of one cluster; ``namespace`` is the name of its network namespace."""

    tools: HostTools
    addresses: Addresses
    namespace: str

    @property
    def path(self) -> Path:
        """File to enter the namespace by."""
        return Path("/run/netns") / self.namespace

    def ensure(self) -> None:
        """Make what is missing.

        Raises:
            DevError: the addresses are in use on this machine, or the kernel refuses something.
        """
        if not self._namespace_usable():
            self._refuse_taken_addresses()
            self._ip("netns", "add", self.namespace)
        self._inside_ip("link", "set", "lo", "up")
        if not self._exists_inside("eth0"):
            self._join()
        self._inside_ip("addr", "replace", f"{self.addresses.dns}/32", "dev", "lo")
        for cidr in (self.addresses.pods, self.addresses.services):
            self._ip("route", "replace", cidr, "via", self.addresses.node)
        self._sysctl("net/ipv4/ip_forward")
        self._sysctl(f"net/ipv4/conf/{self.addresses.interface}/route_localnet")
        inside = ("ip_forward", "conf/all/route_localnet")
        for key in inside:
            self._enter("sh", "-c", f"echo 1 > /proc/sys/net/ipv4/{key}")
        for table, parent, chain, rules in self._chains():
            self._ensure_chain(table, parent, chain, rules)

    def remove(self) -> None:
        """Remove it all, whatever of it there is."""
        for table, parent, chain, _ in self._chains():
            self._remove_chain(table, parent, chain)
        self._try(self.tools.ip, "link", "del", self.addresses.interface)
        self._try(self.tools.ip, "netns", "del", self.namespace)

    def pids(self) -> list[int]:
        """Every process in the namespace."""
        command = (self.tools.ip, "netns", "pids", self.namespace)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()] if done.returncode == 0 else []

    def _namespace_usable(self) -> bool:
        return self._try("nsenter", f"--net={self.path}", "--", "true")

    def _exists_inside(self, interface: str) -> bool:
        shown = ("nsenter", f"--net={self.path}", "--", self.tools.ip, "link", "show", interface)
        return self._try(*shown)

    def _join(self) -> None:
        host, node = self.addresses.host, self.addresses.node
        interface = self.addresses.interface
        self._try(self.tools.ip, "link", "del", interface)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        self._ip("link", "add", interface, *pair)
        self._ip("addr", "add", f"{host}/30", "dev", interface)
        self._ip("link", "set", interface, "up")
        self._inside_ip("addr", "add", f"{node}/30", "dev", "eth0")
        self._inside_ip("link", "set", "eth0", "up")
        self._inside_ip("route", "replace", "default", "via", host)

    def _refuse_taken_addresses(self) -> None:
        shown = self._run(self.tools.ip, "-json", "-4", "route", "show")
        for route in json.loads(shown or "[]"):
            if route["dst"] == "default" or route.get("dev") == self.addresses.interface:
                continue
            used = ipaddress.ip_network(route["dst"], strict=False)
            for cidr in (f"{self.addresses.host}/30", self.addresses.pods, self.addresses.services):
                if used.overlaps(ipaddress.ip_network(cidr, strict=False)):
                    raise DevError(
                        f"{cidr} is in use here (route {route['dst']} dev {route.get('dev')}): "
                        "choose another --port-offset."
                    )

    def _chains(self) -> list[tuple[str, str, str, list[list[str]]]]:
        name, link = f"MOORING-{self.addresses.offset}", self.addresses.interface
        to_node = ["--to-destination", self.addresses.node]
        local = ["-d", self.addresses.node_ports, "-p", "tcp", "--dport", NODE_PORTS]
        leaving = ["-s", self.addresses.pods, "!", "-o", link, "-j", "MASQUERADE"]
        node_leaving = ["-s", self.addresses.node, "!", "-o", link, "-j", "MASQUERADE"]
        from_loopback = ["-s", "127.0.0.0/8", "-o", link, "-j", "MASQUERADE"]
        forward = [["-i", link, "-j", "ACCEPT"], ["-o", link, "-j", "ACCEPT"]]
        return [
            ("nat", "OUTPUT", f"{name}-OUTPUT", [[*local, "-j", "DNAT", *to_node]]),
            ("nat", "POSTROUTING", f"{name}-POST", [from_loopback, leaving, node_leaving]),
            ("filter", "FORWARD", f"{name}-FORWARD", forward),
        ]

    def _ensure_chain(self, table: str, parent: str, chain: str, rules: list[list[str]]) -> None:
        iptables = (self.tools.iptables, "-w", "-t", table)
        if not self._try(*iptables, "-N", chain):
            self._run(*iptables, "-F", chain)
        for rule in rules:
            self._run(*iptables, "-A", chain, *rule)
        if not self._try(*iptables, "-C", parent, "-j", chain):
            self._run(*iptables, "-I", parent, "-j", chain)

    def _remove_chain(self, table: str, parent: str, chain: str) -> None:
        iptables = (self.tools.iptables, "-w", "-t", table)
        while self._try(*iptables, "-D", parent, "-j", chain):
            pass
        self._try(*iptables, "-F", chain)
        self._try(*iptables, "-X", chain)

    def _sysctl(self, key: str) -> None:
        path = Path("/proc/sys") / key
        if path.read_text().strip() != "1":
            path.write_text("1")

    def _ip(self, *arguments: str) -> None:
        self._run(self.tools.ip, *arguments)

    def _inside_ip(self, *arguments: str) -> None:
        self._enter(self.tools.ip, *arguments)

    def _enter(self, *command: str) -> None:
        self._run("nsenter", f"--net={self.path}", "--", *command)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DevError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout

    def _try(self, *command: str) -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
