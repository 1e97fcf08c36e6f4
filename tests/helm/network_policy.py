"""What a NetworkPolicy lets through, by the rules of Kubernetes.

A pod is matched by selectors alone: whether an ``ipBlock`` also takes pods is left to the CNI, so
nothing may rest on it. Ports and addresses are those behind a Service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """One end of a connection that has labels."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Address:
    """One end that is no pod: the API server, a node, something outside the cluster."""

    ip: str


End = Pod | Address


def chosen(policy: Manifest, pod: Pod) -> bool:
    """Whether the policy is about this pod."""
    same = policy["metadata"]["namespace"] == pod.namespace
    return same and selects(policy["spec"]["podSelector"], pod.labels)


def lets_out(policy: Manifest, there: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod of the policy may open this connection."""
    return _any(policy, "egress", "to", there, port, protocol)


def lets_in(policy: Manifest, source: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod of the policy may be reached at this port (by its number)."""
    return _any(policy, "ingress", "from", source, port, protocol)


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; the empty one takes everything."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        _holds(one, labels) for one in selector.get("matchExpressions", ())
    )


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case other:
            raise AssertionError(f"no operator of selectors: {other}")


def _any(policy: Manifest, way: str, ends: str, end: End, port: int, protocol: str) -> bool:
    spec = policy["spec"]
    if way.title() not in spec["policyTypes"]:
        return True
    home = policy["metadata"]["namespace"]
    return any(
        _port(rule.get("ports"), port, protocol) and _peer(rule.get(ends), end, home)
        for rule in spec.get(way) or ()
    )


def _port(ports: Iterable[Manifest] | None, port: int, protocol: str) -> bool:
    return not ports or any(_covers(one, port, protocol) for one in ports)


def _covers(one: Manifest, port: int, protocol: str) -> bool:
    first: int = one.get("port", port)
    last: int = one.get("endPort", first)
    return one.get("protocol", "TCP") == protocol and first <= port <= last


def _peer(peers: Iterable[Manifest] | None, end: End, home: str) -> bool:
    return not peers or any(_takes(peer, end, home) for peer in peers)


def _takes(peer: Manifest, end: End, home: str) -> bool:
    if isinstance(end, Address):
        return "ipBlock" in peer and _within(peer["ipBlock"], end.ip)
    if "ipBlock" in peer:
        return False
    spaces = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": home}})
    return selects(spaces, {"kubernetes.io/metadata.name": end.namespace}) and selects(
        peer.get("podSelector", {}), end.labels
    )


def _within(block: Manifest, ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    inside = address in ipaddress.ip_network(block["cidr"])
    return inside and not any(
        address in ipaddress.ip_network(part) for part in block.get("except", ())
    )
