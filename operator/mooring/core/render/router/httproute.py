"""The HTTPRoute that asks a Gateway to split a model's requests.

Every backend of the table stands in it, with weight 0 where the route gives it nothing: so the
Gateway has found its pods before it gets requests, and has sent nothing there for a while before
it goes. Backends are Services of their own, with an address each: those for Envoy have none, which
not every Gateway can use and which can never be changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from mooring.api import parse_duration
from mooring.api.traffic_spec import GatewaySpec, TrafficSpec
from mooring.core import kinds
from mooring.core.observed import Manifest
from mooring.core.render.metadata import child_name, manifest, selector
from mooring.core.render.router.envoy import main_port
from mooring.core.render.router.table import table_text
from mooring.core.revision import Revision
from mooring.core.traffic import Backend, Table

_EVERYTHING = {"type": "PathPrefix", "value": "/"}
#: The Gateway API's durations have numbers of at most five digits.
_LONGEST = timedelta(hours=99_999)


def gateway_service_name(deployment: str, revision: str) -> str:
    """The Service by which a Gateway reaches one revision."""
    return f"{child_name(deployment, revision)}-gateway"


def gateway_service(
    revision: Revision, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """A Service with an address, for the pods of one revision."""
    return manifest(
        kinds.SERVICE,
        gateway_service_name(deployment, revision.hash),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        of_revision=revision.hash,
        spec={
            "type": "ClusterIP",
            "selector": selector(deployment, revision.hash),
            "ports": [
                {"protocol": "TCP", **port, "port": port["targetPort"]}
                for port in revision.rendered.ports
            ],
        },
    )


def http_route(
    table: Table,
    traffic: TrafficSpec,
    gateway: GatewaySpec,
    *,
    deployment: str,
    namespace: str,
    uid: str,
) -> Manifest:
    """The route of one ModelDeployment.

    Its annotations hold the table and a version, which is the same for the same spec.
    """
    spec: dict[str, Any] = {"parentRefs": [parent.as_dict() for parent in gateway.parent_refs]}
    if gateway.hostnames:
        spec["hostnames"] = list(gateway.hostnames)
    timeouts = {"timeouts": {"request": route_duration(parse_duration(traffic.timeout))}}
    spec["rules"] = [rule | timeouts for rule in route_rules(table, deployment)]
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return manifest(
        kinds.HTTP_ROUTE,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        annotations={
            kinds.ANNOTATION_TABLE: table_text(table),
            kinds.ANNOTATION_VERSION: hashlib.sha256(text.encode()).hexdigest()[:16],
        },
        spec=spec,
    )


def route_rules(table: Table, deployment: str) -> list[dict[str, Any]]:
    """The rules but for their timeouts: matches in their order, then the weights.

    A Gateway prefers the rule that asks for more headers, whatever their order.
    """
    backends = {b.revision: b for b in sorted(table.backends, key=lambda b: b.revision)}
    rules: list[dict[str, Any]] = [
        {
            "matches": [
                {
                    "path": _EVERYTHING,
                    "headers": [
                        {"type": "Exact", "name": name, "value": value}
                        for name, value in match.headers
                    ],
                }
            ],
            "backendRefs": [_reference(backends[match.revision], deployment) | {"weight": 1}],
        }
        for match in table.route.matches
    ]
    everything: dict[str, Any] = {
        "matches": [{"path": _EVERYTHING}],
        "backendRefs": [
            _reference(backend, deployment) | {"weight": table.route.weight(name)}
            for name, backend in backends.items()
        ],
    }
    mirrors = [
        _mirror(backends[name], deployment, share)
        for name, share in sorted(table.route.mirrors.items())
        if share
    ]
    if mirrors:
        everything["filters"] = mirrors
    return [*rules, everything]


def _reference(backend: Backend, deployment: str) -> dict[str, Any]:
    """The main port of a revision: requests to further ports go to the public Service."""
    main = main_port(backend.ports)
    (number,) = (port.number for port in backend.ports if port.name == main)
    return {"name": gateway_service_name(deployment, backend.revision), "port": number}


def _mirror(backend: Backend, deployment: str, share: int) -> dict[str, Any]:
    mirror: dict[str, Any] = {"backendRef": _reference(backend, deployment)}
    if share < 100:
        mirror["percent"] = share  # since v1.3 of the Gateway API
    return {"type": "RequestMirror", "requestMirror": mirror}


def route_duration(span: timedelta) -> str:
    """A duration as the Gateway API writes it: whole numbers of h, m, s and ms, each once."""
    left = min(span, _LONGEST) // timedelta(milliseconds=1)
    units: Sequence[tuple[str, int]] = (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
    text = ""
    for unit, size in units:
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
