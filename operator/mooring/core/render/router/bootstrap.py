"""What a router pod starts with, and keeps until it ends.

It listens on three kinds of ports and shows nothing else to the network:

- one per public port of the model, HTTP/1.1 and HTTP/2 on each (``public_number``);
- METRICS_NUMBER: ``GET /stats/prometheus``;
- VERSION_NUMBER: ``GET /version`` (what is taken, see ``report``), ``/ready`` and ``/live``.

Envoy's admin interface, which can also stop it, is a socket in the pod's own file system. The drain
helper of the image speaks to it there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mooring.core.render.router.envoy import (
    BUFFER_BYTES,
    CLUSTERS_FILE,
    CONNECTION_WINDOW_BYTES,
    STREAM_WINDOW_BYTES,
    routes_file,
)
from mooring.core.traffic import BackendPort

ROUTES_FOLDER = "/etc/mooring/routes"
ADMIN_SOCKET = "/run/mooring/admin.sock"
FIRST_PUBLIC_NUMBER = 10000
METRICS_NUMBER = 10100
VERSION_NUMBER = 10101
_DECADE = (10, 13, 16, 20, 25, 32, 40, 50, 63, 79)
#: Upper ends of the latency buckets in milliseconds, 1 ms to 10 minutes: from 10 ms on ten a
#: decade, each about 1.26 times the one before, and below that as near to it as whole milliseconds
#: allow, which is what Envoy counts. They have two digits, since its own histogram has no more: a
#: finer edge would make it guess.
LATENCY_EDGES_MS: tuple[int, ...] = (
    *(1, 2, 3, 4, 5, 6, 8),
    *(edge * 10**power for power in range(4) for edge in _DECADE),
    *(edge * 10**4 for edge in _DECADE if edge <= 63),
)
#: Connections that one router holds at most; the next one is closed at once.
MOST_CONNECTIONS = 20_000

_TYPE = "type.googleapis.com/"
_ADMIN_CLUSTER = "@admin"  # not the form of a revision's cluster, so it is not among the metrics
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_CLUSTER_STATS = (
    (
        "upstream_rq_(total|active|timeout|[1-5]xx|rx_reset|tx_reset|retry|retry_success"
        "|retry_limit_exceeded|pending_overflow)"
    ),
    r"canary\.upstream_rq_time",
    "upstream_cx_(active|connect_fail)",
    "retry_or_shadow_abandoned",
    "membership_(total|healthy)",
    r"outlier_detection\.ejections_(active|enforced_total)",
)
_PUBLIC_STATS = (
    "downstream_rq_(total|active|time|[1-5]xx|rx_reset|tx_reset|overload_close)",
    "downstream_cx_(active|total|overload_reject)",
    "no_cluster|no_route",
    r"rds\.[a-z0-9-]+\.(version_text|update_success|update_failure|update_rejected)",
)
_OWN_STATS = (
    (
        r"cluster_manager\.(cds\.(version_text|update_success|update_failure|update_rejected)"
        "|active_clusters|warming_clusters)"
    ),
    (
        r"server\.(uptime|live|memory_allocated|memory_heap_size|memory_physical_size"
        "|total_connections)"
    ),
    r"overload\..*\.(active|pressure)",
)
#: What /version asks the admin interface for.
_VERSION_STATS = (
    r"^(cluster_manager\.(cds\.(version_text|update_failure|update_rejected)|warming_clusters)"
    r"|http\.[^.]+\.rds\.[^.]+\.(version_text|update_failure|update_rejected)"
    r"|cluster\.[^.]+\.membership_total)$"
)


def public_number(index: int) -> int:
    """The number on which the router listens for the index-th public port."""
    return FIRST_PUBLIC_NUMBER + index


def bootstrap(ports: Sequence[BackendPort], *, heap_bytes: int | None = None) -> str:
    """Envoy's static configuration (JSON) for these public ports.

    ``heap_bytes`` is how far its memory may grow before it turns new requests away with 503; None
    sets no bound.
    """
    config: dict[str, Any] = {
        "node": {"id": "router", "cluster": "mooring"},
        "admin": _admin(),
        "dynamic_resources": {"cds_config": _watched(CLUSTERS_FILE)},
        "static_resources": {
            "listeners": [
                *(_public(port, public_number(index)) for index, port in enumerate(ports)),
                _internal("metrics", METRICS_NUMBER, [_proxied("/stats/prometheus")]),
                _internal("version", VERSION_NUMBER, _version_routes()),
            ],
            "clusters": [_admin_cluster()],
        },
        "stats_config": _stats([port.name for port in ports]),
        "overload_manager": _overload(heap_bytes),
    }
    return json.dumps(config, separators=(",", ":"))


def _admin() -> dict[str, Any]:
    paths = ("/stats/prometheus", "/ready", "/drain_listeners?graceful&skip_exit")
    return {
        "address": {"pipe": {"path": ADMIN_SOCKET}},
        "allow_paths": [{"prefix": "/stats?filter="}, *({"exact": path} for path in paths)],
    }


def _watched(file: str) -> dict[str, Any]:
    """A file of the mounted ConfigMap, whose folder the kubelet swaps by moving a link."""
    return {
        "path_config_source": {
            "path": f"{ROUTES_FOLDER}/{file}",
            "watched_directory": {"path": ROUTES_FOLDER},
        },
        "resource_api_version": "V3",
    }


def _socket(number: int) -> dict[str, Any]:
    return {"socket_address": {"address": "0.0.0.0", "port_value": number}}  # noqa: S104


def _http(stat_prefix: str, **more: Any) -> list[dict[str, Any]]:
    """The filter chain of a listener."""
    router = {"@type": _TYPE + _ROUTER, "suppress_envoy_headers": True}
    manager = {
        "@type": _TYPE + _HCM,
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": "10s",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        # Its own refusals look like those of the servers behind it.
        "local_reply_config": {
            "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
        },
    }
    name = "envoy.filters.network.http_connection_manager"
    return [{"filters": [{"name": name, "typed_config": manager | more}]}]


def _public(port: BackendPort, number: int) -> dict[str, Any]:
    manager = _http(
        port.name,
        rds={"route_config_name": port.name, "config_source": _watched(routes_file(port.name))},
        http_protocol_options={
            "accept_http_10": True,
            "default_host_for_http_10": "model",
            "allow_chunked_length": False,
        },
        http2_protocol_options={
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
        },
        # A client must not set timeouts and retries of its own: they are evidence about a model.
        early_header_mutation_extensions=[
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation"
                    ".header_mutation.v3.HeaderMutation",
                    "mutations": [{"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}],
                },
            }
        ],
    )
    return {
        "name": port.name,
        "address": _socket(number),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": manager,
    }


def _internal(name: str, number: int, routes: list[dict[str, Any]]) -> dict[str, Any]:
    everything = {"name": name, "domains": ["*"], "routes": routes}
    return {
        "name": name,
        "address": _socket(number),
        # Probes and measurements matter most when there is too much to do.
        "bypass_overload_manager": True,
        "filter_chains": _http(f"@{name}", route_config={"virtual_hosts": [everything]}),
    }


def _exactly(path: str) -> dict[str, Any]:
    """GET of this path without a query: what stands behind reads queries."""
    wanted = {":method": "GET", ":path": path}
    return {
        "path": path,
        "headers": [{"name": k, "string_match": {"exact": v}} for k, v in wanted.items()],
    }


def _proxied(path: str, to: str | None = None) -> dict[str, Any]:
    route = {"cluster": _ADMIN_CLUSTER, "timeout": "10s"}
    return {"match": _exactly(path), "route": route | ({"prefix_rewrite": to} if to else {})}


def _version_routes() -> list[dict[str, Any]]:
    return [
        _proxied("/version", f"/stats?filter={quote(_VERSION_STATS, safe='')}"),
        _proxied("/ready"),
        {"match": _exactly("/live"), "direct_response": {"status": 200}},
    ]


def _admin_cluster() -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": ADMIN_SOCKET}}}}
    return {
        "name": _ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": _ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _stats(ports: Sequence[str]) -> dict[str, Any]:
    """Only what somebody reads: all of Envoy's would cost each router megabytes, and Prometheus a
    thousand series more for each.
    """
    listeners = "|".join(ports)
    allowed = (
        rf"cluster\.[a-z0-9_-]+\.({'|'.join(_CLUSTER_STATS)})",
        rf"http\.({listeners})\.({'|'.join(_PUBLIC_STATS)})",
        *_OWN_STATS,
    )
    return {
        "stats_matcher": {
            "inclusion_list": {
                "patterns": [{"safe_regex": {"regex": f"^{pattern}$"}} for pattern in allowed]
            }
        },
        "histogram_bucket_settings": [
            {"match": {"suffix": "rq_time"}, "buckets": list(LATENCY_EDGES_MS)}
        ],
    }


def _overload(heap_bytes: int | None) -> dict[str, Any]:
    monitors: list[dict[str, Any]] = [
        _monitor(
            "global_downstream_max_connections",
            "downstream_connections.v3.DownstreamConnectionsConfig",
            {"max_active_downstream_connections": MOST_CONNECTIONS},
        )
    ]
    actions: list[dict[str, Any]] = []
    if heap_bytes is not None:
        monitors.append(
            _monitor(
                "fixed_heap",
                "fixed_heap.v3.FixedHeapConfig",
                {"max_heap_size_bytes": heap_bytes},
            )
        )
        actions = [_action("shrink_heap", 0.9), _action("stop_accepting_requests", 0.97)]
    return {"refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions}


def _monitor(name: str, message: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    kind = f"{_TYPE}envoy.extensions.resource_monitors.{message}"
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {"@type": kind, **settings},
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    return {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [
            {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}
        ],
    }
