"""Who may speak to model pods, and to whom they may speak.

A policy is per pod, not per container: what the fetcher needs, the server gets too. So egress is
only opened when some live revision fetches over the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mooring.core import kinds
from mooring.core.observed import NodeCache, RenderSettings, StoreEgress
from mooring.core.render.metadata import manifest, selector
from mooring.core.revision import Revision

_OPENSHIFT_DNS = "openshift-dns"


def network_policy(
    live: Sequence[Revision],
    *,
    deployment: str,
    namespace: str,
    uid: str,
    settings: RenderSettings,
) -> dict[str, Any]:
    """One policy for all pods of the deployment, open for the ports of every live revision."""
    public = sorted({port["targetPort"] for r in live for port in r.rendered.ports})
    metrics = sorted({r.rendered.metrics_port for r in live if r.rendered.metrics_port})
    ingress: list[dict[str, Any]] = []
    if public:
        ingress.append({"ports": [_tcp(port) for port in public]})
    if metrics:
        ingress.append({"from": [prometheus_peer(settings)], "ports": [_tcp(p) for p in metrics]})
    egress = dns_egress()
    if any(r.rendered.remote for r in live):
        egress += [_store(store) for store in settings.model_stores]
        if settings.node_cache:
            egress.append(_cache(settings.node_cache, settings.operator_namespace))
    return manifest(
        kinds.NETWORK_POLICY,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        spec={
            "podSelector": {"matchLabels": selector(deployment)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )


def dns_egress() -> list[dict[str, Any]]:
    """The way to the DNS server, by any CNI.

    OVN-Kubernetes holds a packet against policies after the Service has become a pod, and the DNS
    pods of OpenShift listen on 5353. That number is open to their namespace alone: elsewhere it
    is multicast DNS.
    """
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": _OPENSHIFT_DNS}}}
    return [{"ports": _udp_and_tcp(53)}, {"to": [there], "ports": _udp_and_tcp(5353)}]


def _udp_and_tcp(port: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "UDP"}, _tcp(port)]


def _tcp(port: int | str) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP"}


def prometheus_peer(settings: RenderSettings) -> dict[str, Any]:
    """The pods that scrape, as the admin's settings describe them."""
    peer: dict[str, Any] = {
        "namespaceSelector": {"matchLabels": dict(settings.prometheus_namespace_labels)}
    }
    if settings.prometheus_pod_labels:
        peer["podSelector"] = {"matchLabels": dict(settings.prometheus_pod_labels)}
    return peer


def _cache(cache: NodeCache, namespace: str) -> dict[str, Any]:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "mooring-node-cache"}},
    }
    return {"to": [peer], "ports": [_tcp(cache.port)]}


def _store(store: StoreEgress) -> dict[str, Any]:
    block: dict[str, Any] = {"cidr": store.cidr}
    if store.excluded:
        block["except"] = list(store.excluded)
    rule: dict[str, Any] = {"to": [{"ipBlock": block}]}
    if store.ports:
        rule["ports"] = [_tcp(port) for port in store.ports]
    return rule
