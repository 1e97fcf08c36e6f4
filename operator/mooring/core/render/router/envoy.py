"""What a router reads while it runs: its clusters and, per public port, its routes.

Envoy watches the folder in which these files stand and takes them without losing a request. The
files are not taken at one moment, so whoever writes them makes before breaking: a backend is there
one write before a route names it, and stays one write longer. That is why a backend has all of its
clusters at all times, whatever the route says of it.

Clusters are the units of measurement; Prometheus reads their names as ``envoy_cluster_name``:

- ``<revision>``: the randomly split traffic of the first port that is called ``http`` or, without
  one, of the first port; where the backend is halved, ``<revision>-a`` and ``<revision>-b``, with
  the whole one beside them, which then gets nothing;
- ``<revision>-match``: requests whose headers chose the revision;
- ``<revision>-shadow``: copies of requests, whose answers nobody gets;
- ``<revision>-fallback``: requests of another revision none of whose pods took them;
- for every further port the same with ``_<port>`` at the end: ``<revision>-a_grpc``. (Not a dot:
  Envoy's names of statistics are made of parts between dots.)
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mooring.api import parse_duration
from mooring.api.traffic_spec import OutlierDetection, SessionAffinity, TrafficSpec
from mooring.core.render.router import fallback
from mooring.core.render.router.observation import (
    CollectorAddress,
    collector_cluster,
    observing,
)
from mooring.core.traffic import Backend, BackendPort, Route, Table

CLUSTERS_FILE = "cds.json"
#: A body is kept up to this size (bytes) so that it can be sent again or copied. While no server
#: has taken the request, Envoy reads no more than BUFFER_BYTES of it: so what is refused can always
#: be tried elsewhere, however large it is.
REPEATABLE_BYTES = 4 << 20
#: How much of a body one connection holds when the other side is slower (bytes).
BUFFER_BYTES = 512 << 10
STREAM_WINDOW_BYTES = 1 << 20
CONNECTION_WINDOW_BYTES = 4 << 20

_TYPE = "type.googleapis.com/"
#: A server's own limits decide, not the router's: it would answer 503 for requests that queue.
_UNLIMITED = 1 << 20
#: Shorter than the keep-alive of common Python servers (5 s), which would close a connection just
#: when a request is put on it.
_UPSTREAM_IDLE = "4s"
_LONGEST_SILENCE = 300.0
_NO_ROUTE = "no revision of this model takes traffic: see the status of its ModelDeployment"


def routes_file(port: str) -> str:
    """The file with the routes of a public port."""
    return f"rds-{port}.json"


def main_port(ports: Sequence[BackendPort]) -> str:
    """The port whose clusters carry no port in their names: ``http``, or else the first."""
    names = [port.name for port in ports]
    return "http" if "http" in names or not names else names[0]


def cluster_name(revision: str, part: str = "", port: str = "") -> str:
    """``part``: empty, ``a``, ``b``, ``match``, ``shadow`` or ``fallback``; ``port``: empty for the
    main one.
    """
    return f"{revision}{'-' if part else ''}{part}{'_' if port else ''}{port}"


def split_clusters(backend: Backend, port: str = "") -> tuple[str, ...]:
    """The clusters that share the backend's part of the randomly split traffic equally."""
    parts = ("a", "b") if backend.halved else ("",)
    return tuple(cluster_name(backend.revision, part, port) for part in parts)


def envoy_files(
    table: Table,
    traffic: TrafficSpec,
    *,
    deployment: str,
    namespace: str,
    ports: Sequence[BackendPort] = (),
    collector: CollectorAddress | None = None,
) -> dict[str, str]:
    """File name to content (JSON), the same for the same table.

    ``ports`` are those of the routers' bootstrap: each needs its file, even while no backend has
    such a port. Those of the backends are added. ``collector`` gets copies of what passes; without
    one, nothing is copied.
    """
    backends = sorted(table.backends, key=lambda backend: backend.revision)
    names = {port.name: port for port in ports}
    for backend in backends:
        names |= {port.name: port for port in backend.ports if port.name not in names}
    main = main_port(tuple(names.values()))
    resources: dict[str, list[dict[str, Any]]] = {
        CLUSTERS_FILE: [
            c
            for backend in backends
            for c in _clusters(backend, backends, traffic, main, collector)
        ]
    }
    if collector is not None:
        resources[CLUSTERS_FILE] += collector_cluster(collector)
    for name in sorted(names):
        having = [b for b in backends if any(port.name == name for port in b.ports)]
        suffix = "" if name == main else name
        routes = list(_routes(table.route, having, traffic, suffix))
        resources[routes_file(name)] = [
            {
                "@type": f"{_TYPE}envoy.config.route.v3.RouteConfiguration",
                "name": name,
                "virtual_hosts": [
                    {
                        "name": f"{namespace}/{deployment}",
                        "domains": ["*"],
                        "routes": routes,
                        "request_body_buffer_limit": REPEATABLE_BYTES,
                    }
                ],
            }
        ]
    version = _hash(resources)
    return {
        file: json.dumps({"version_info": version, "resources": content}, separators=(",", ":"))
        for file, content in resources.items()
    }


def envoy_version(files: Mapping[str, str]) -> str:
    """The version that a router reports when it has taken exactly these files."""
    return str(json.loads(files[CLUSTERS_FILE])["version_info"])


def _hash(resources: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]


# --- clusters -----------------------------------------------------------------------------------


def _clusters(
    backend: Backend,
    backends: Sequence[Backend],
    traffic: TrafficSpec,
    main: str,
    collector: CollectorAddress | None,
) -> Iterator[dict[str, Any]]:
    for port in backend.ports:
        suffix = "" if port.name == main else port.name
        parts = backend.parts
        others = fallback.others(backend, backends, port)
        for part in (*parts, "match", "shadow", fallback.FALLBACK):
            # Nobody misses a copy: it can wait for an address, which spares the DNS server. Nor is
            # a fallback asked before its revision's own pods have been known for long.
            refresh = "5s" if part in ("shadow", fallback.FALLBACK) else "1s"
            name = cluster_name(backend.revision, part, suffix)
            cluster = _cluster(name, backend.host, port, traffic, refresh=refresh)
            # gRPC frames are not what the collector reads.
            if collector is not None and not port.http2 and part != fallback.FALLBACK:
                (options,) = cluster["typed_extension_protocol_options"].values()
                options["http_filters"] = observing(backend.revision, part)
            if part == fallback.FALLBACK:
                del cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"]
            yield cluster
            if part in parts:
                for other in others:
                    yield fallback.aggregate(
                        cluster, other, cluster_name(other, fallback.FALLBACK, suffix)
                    )


def _cluster(
    name: str, host: str, port: BackendPort, traffic: TrafficSpec, *, refresh: str
) -> dict[str, Any]:
    address = {"socket_address": {"address": _absolute(host), "port_value": port.number}}
    cluster: dict[str, Any] = {
        "@type": f"{_TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "cluster_type": {"name": "envoy.cluster.dns", "typed_config": _every_address(refresh)},
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address}, "metadata": fallback.OWN}]}
            ],
            "policy": fallback.WHOLE,
        },
        # Counts attempts, gRPC failures and retries among them, which the cluster's own do not.
        "track_cluster_stats": {"per_endpoint_stats": True},
        "circuit_breakers": {"thresholds": [_no_limits()]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _protocol(port)
        },
    }
    if traffic.session_affinity is None:
        # Predictions take long and unequally so: the idler of two pods is asked.
        cluster["lb_policy"] = "LEAST_REQUEST"
    else:
        cluster["lb_policy"] = "RING_HASH"
        cluster["ring_hash_lb_config"] = {"minimum_ring_size": 2048}
    outliers = _outliers(traffic.outlier_detection)
    if outliers:
        cluster["outlier_detection"] = outliers
    return cluster


def _every_address(refresh: str) -> dict[str, Any]:
    """What used to be called STRICT_DNS: each address of the name is an endpoint."""
    return {
        "@type": f"{_TYPE}envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": refresh,
        "dns_failure_refresh_rate": {"base_interval": refresh, "max_interval": refresh},
    }


def _absolute(host: str) -> str:
    """A full name ends in a dot, or the resolver tries it in every search domain first."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host if host.endswith(".") or ".svc." not in host else f"{host}."
    return host


def _no_limits() -> dict[str, Any]:
    """Retries have no limit of their own either: what no server took loads none."""
    return dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), _UNLIMITED
    )


def _protocol(port: BackendPort) -> dict[str, Any]:
    explicit: dict[str, Any] = {"http_protocol_options": {}}
    if port.http2:
        explicit = {
            "http2_protocol_options": {
                "initial_stream_window_size": STREAM_WINDOW_BYTES,
                "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            }
        }
    return {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
        "explicit_http_config": explicit,
    }


def _outliers(wanted: OutlierDetection) -> dict[str, Any]:
    if wanted.consecutive_errors == 0:
        return {}
    return {
        # Errors of HTTP and gRPC, resets and refused connections, in one row.
        "consecutive_5xx": wanted.consecutive_errors,
        "enforcing_consecutive_5xx": 100,
        "enforcing_success_rate": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": _duration(wanted.interval),
        "base_ejection_time": _duration(wanted.base_ejection_time),
        "max_ejection_time": _seconds(
            max(300.0, parse_duration(wanted.base_ejection_time).total_seconds())
        ),
        "max_ejection_percent": wanted.max_ejection_percent,
    }


# --- routes -------------------------------------------------------------------------------------


def _routes(
    route: Route, backends: Sequence[Backend], traffic: TrafficSpec, port: str
) -> Iterator[dict[str, Any]]:
    """Matches in their order, then the weights; a backend without the port takes no part."""
    known = {backend.revision: backend for backend in backends}
    for match in route.matches:
        if match.revision in known:
            headers = [
                {"name": name, "string_match": {"exact": value}} for name, value in match.headers
            ]
            cluster = cluster_name(match.revision, "match", port)
            yield {
                "match": {"prefix": "/", "headers": headers},
                "route": {"cluster": cluster} | _action(traffic),
            }
    weights = {r: w for r, w in sorted(route.weights.items()) if w > 0 and r in known}
    everything: dict[str, Any] = {"match": {"prefix": "/"}}
    if not weights:
        yield everything | {
            "direct_response": {"status": 503, "body": {"inline_string": _NO_ROUTE}}
        }
        return
    falls = {name: fallback.fallback_of(name, weights) for name in weights}
    target = _split(weights, falls, known, port, sticky=traffic.session_affinity is not None)
    mirrors = [
        {
            "cluster": cluster_name(revision, "shadow", port),
            "runtime_fraction": {"default_value": {"numerator": share, "denominator": "HUNDRED"}},
            "disable_shadow_host_suffix_append": True,
        }
        for revision, share in sorted(route.mirrors.items())
        if share > 0 and revision in known
    ]
    if mirrors:
        target["request_mirror_policies"] = mirrors
    action = _action(traffic)
    if traffic.retries and any(falls.values()):
        action["retry_policy"] |= fallback.once_more(traffic.retries + 1)
    yield everything | {"route": target | action}


def _split(
    weights: Mapping[str, int],
    falls: Mapping[str, str | None],
    known: Mapping[str, Backend],
    port: str,
    *,
    sticky: bool,
) -> dict[str, Any]:
    """The order is that of the revisions' names, whatever their weights: so a session that the
    candidate has keeps it when the candidate's share grows.
    """
    clusters = []
    for revision, weight in weights.items():
        names = split_clusters(known[revision], port)
        other = falls[revision]
        if other is not None:
            names = tuple(fallback.either(name, other) for name in names)
        clusters += [{"name": name, "weight": 2 * weight // len(names)} for name in names]
    if len(clusters) == 1:
        return {"cluster": clusters[0]["name"]}
    weighted: dict[str, Any] = {"clusters": clusters}
    if sticky:
        weighted["use_hash_policy"] = True
    return {"weighted_clusters": weighted}


def _action(traffic: TrafficSpec) -> dict[str, Any]:
    timeout = parse_duration(traffic.timeout).total_seconds()
    action: dict[str, Any] = {
        "timeout": _seconds(timeout),
        # A slow prediction is silent for as long as it may take.
        "idle_timeout": _seconds(max(_LONGEST_SILENCE, timeout + 5)),
    }
    if traffic.retries:
        action["retry_policy"] = {
            # Every attempt that ended without an answer, a connection that broke among them: a
            # prediction can be asked for twice. Answers, good or bad, are never asked for again.
            "retry_on": "connect-failure,refused-stream,reset",
            "num_retries": traffic.retries,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            # Whoever fails at once looks idle and is drawn most often, three times of four beside
            # one other pod: so draw until it is another.
            "host_selection_retry_max_attempts": 60,
            # While a retry waits, nothing holds a body back: in 5 ms a fast client sends more than
            # can be kept, and is answered 507.
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
        }
    if traffic.session_affinity is not None:
        action["hash_policy"] = [_hash_policy(traffic.session_affinity)]
    return action


def _hash_policy(affinity: SessionAffinity) -> dict[str, Any]:
    if affinity.cookie is None:
        return {"header": {"header_name": affinity.header}}
    ttl = affinity.cookie.ttl
    return {
        "cookie": {
            "name": affinity.cookie.name,
            # Without any, Envoy would set no cookie at all; 0 lasts as long as the session.
            "ttl": _duration(ttl) if ttl else "0s",
            "path": "/",
            "attributes": [{"name": "HttpOnly"}],
        }
    }


def _duration(text: str) -> str:
    return _seconds(parse_duration(text).total_seconds())


def _seconds(value: float) -> str:
    """A protobuf duration: seconds with at most nine digits after the point."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + "s"
